"""One requirement over aligned rows: its figure, or difference from a baseline, with its bounds.

Hides which bound belongs to which metric.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shield_engine.decide.paired import (
    Patterns,
    auc_difference,
)
from shield_engine.decide.views import ModeView
from shield_engine.metrics.figures import paired_binary_metrics
from shield_engine.metrics.inputs import group_codes
from shield_engine.metrics.table import DIFFERENCES, reported_names
from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import (
    paired_proportion,
    percentile_bounds,
    proportion,
)
from shield_engine.statistics.resampling import paired_percentile_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shield_engine.decide.candidates import Aligned
    from shield_engine.gates.document import Requirement
    from shield_engine.statistics.arrays import Ints, Mask


__all__ = ["Question"]


@dataclass(frozen=True, slots=True)
class Question:
    """One requirement over aligned rows.

    Attributes:
        aligned: The candidate, and in a comparison the baseline after it.
        rows: Which rows the requirement is about.
    """

    requirement: Requirement
    aligned: Aligned
    rows: Mask
    seed: int

    def bounds(self) -> Figure:
        """Return the figure, or its difference from the baseline, with its bounds."""
        if self.requirement.kind.of == "latency":
            return self._latency()
        if self.requirement.kind.is_proportion:
            return self._proportion()
        return self._interval_bounds()

    def values(self) -> tuple[float | None, float | None]:
        """Return the candidate's figure and the baseline's."""
        after, before = (self._value(place) for place in range(2))
        return after, before

    def _value(self, place: int) -> float | None:
        view, name = self.aligned.views[place], self.requirement.metric
        if self.requirement.kind.of == "latency":
            times = self._times()[0][place]
            return float(np.percentile(times, self._percentile)) if len(times) else None
        if self.requirement.kind.is_proportion:
            hits, counted = self._counted(view)
            return float(hits[counted].mean()) if counted.any() else None
        return view.metrics(self._labelled, resamples=0)[name].value

    @property
    def _percentile(self) -> float:
        return float(self.requirement.metric[1:-3])

    @property
    def _labelled(self) -> Mask:
        return self.aligned.counts & self.rows

    def _times(self) -> tuple[list[NDArray[np.float64]], Mask]:
        """Return each side's milliseconds on the rows that the cache answered for neither."""
        times = [view.latency_ms for view in self.aligned.views]
        used = self.rows & ~np.any([np.isnan(ms) for ms in times], axis=0)
        return [ms[used] for ms in times], used

    def _latency(self) -> Figure:
        (times, used), percentile = self._times(), self._percentile
        groups = self._groups(used)
        empty = "no row was measured: the cache answered all, or the rows are none"
        confidence = self.requirement.confidence
        if not self.requirement.is_paired:
            return percentile_bounds(times[0], percentile, groups, confidence, empty)
        return paired_percentile_bounds(
            times[1], times[0], percentile, groups, confidence, self.seed, empty
        )

    def _proportion(self) -> Figure:
        name, confidence = self.requirement.metric, self.requirement.confidence
        view = self.aligned.views[0]
        if self.requirement.kind.classes == "two" and view.risk is None:
            reason = f"defined for two classes only, these rows have {len(view.label_names)}"
            return Figure(None, None, None, 0, reason)
        empty = f"no {self.requirement.kind.rows}"
        hits, counted = self._counted(view)
        if not self.requirement.is_paired:
            return proportion(
                hits,
                counted,
                self.aligned.groups,
                bound="exact",
                confidence=confidence,
                empty=empty,
            )
        if name == "precision":  # each side flags rows of its own: no paired proportion
            return self._interval_bounds()
        before, other = self._counted(self.aligned.views[1])
        both = counted & other
        groups = self._groups(both)
        return paired_proportion(before[both], hits[both], groups, confidence, empty)

    def _counted(self, view: ModeView) -> tuple[Mask, Mask]:
        """Return successes and denominator of a proportion."""
        name = self.requirement.metric
        if self.requirement.kind.of == "mode":
            scored = np.logical_and.reduce([side.is_scored for side in self.aligned.views])
            return (view.asked if name == "escalated" else view.flags), scored & self.rows
        labelled = self._labelled
        if name == "accuracy":
            return view.predicted == view.labels, labelled
        if name == "precision":
            return view.labels == 1, labelled & (view.predicted == 1)
        return view.predicted == 1, labelled & (view.labels == (1 if name == "recall" else 0))

    def _groups(self, rows: Mask) -> Ints | None:
        return None if self.aligned.groups is None else self.aligned.groups[rows]

    def _interval_bounds(self) -> Figure:
        """Return bounds from a two-sided interval at 2c - 1, so that each end holds at c."""
        confidence = 2 * self.requirement.confidence - 1
        if self.requirement.is_paired:
            return self._difference(confidence)
        figures = self.aligned.views[0].metrics(
            self._labelled, self.aligned.groups, seed=self.seed, confidence=confidence
        )
        return figures[self.requirement.metric]

    def _difference(self, confidence: float) -> Figure:
        """Return candidate minus baseline; by patterns or DeLong where many rows cost nothing."""
        name, keep = self.requirement.metric, self._labelled
        after, before = self.aligned.views
        labels, groups = after.labels[keep], self._groups(keep)
        if groups is not None:
            groups = group_codes(groups, len(labels))
        is_binary = after.risk is not None and before.risk is not None
        if name in (DIFFERENCES if is_binary else reported_names(len(after.label_names))):
            verdicts = np.column_stack([before.predicted[keep], after.predicted[keep]])
            patterns = Patterns.of(
                labels, verdicts, len(after.label_names), groups=groups, seed=self.seed
            )
            return patterns.differences(0, 1, confidence)[name]
        if after.risk is None or before.risk is None:
            reason = f"defined for two classes only, these rows have {len(after.label_names)}"
            return Figure(None, None, None, len(labels), reason)
        risks = before.risk[keep], after.risk[keep]
        if name == "roc_auc":
            return auc_difference(labels, *risks, groups=groups, confidence=confidence)
        thresholds = (before.threshold or 0.0, after.threshold or 0.0)
        figures = paired_binary_metrics(
            labels, *risks, thresholds, groups=groups, seed=self.seed, confidence=confidence
        )
        return figures[name]

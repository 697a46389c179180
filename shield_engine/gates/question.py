"""One requirement over aligned rows: its figure, or difference from a baseline, with its bounds.

Hides which bound belongs to which metric.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shield_engine.decide.figures import SENTIMENT_POSITIVE, ModeView
from shield_engine.decide.paired import (
    Patterns,
    auc_difference,
)
from shield_engine.metrics.figures import binary_metrics, multiclass_metrics, paired_binary_metrics
from shield_engine.metrics.table import DIFFERENCES, reported_names
from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import (
    paired_proportion,
    percentile_bounds,
    proportion,
)
from shield_engine.statistics.resampling import paired_percentile_bounds
from shield_engine.types import LABELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shield_engine.decide.candidates import Aligned
    from shield_engine.gates.document import Requirement

    Mask = NDArray[np.bool_]
    Ints = NDArray[np.int64]

__all__ = ["Question"]


@dataclass(frozen=True, slots=True)
class Question:
    """One requirement over aligned rows.

    Attributes:
        aligned: The candidate, and in a comparison the baseline after it.
        rows: Which rows the requirement is about.
        groups: Codes of rows that belong together; `None` if none do.
    """

    requirement: Requirement
    aligned: Aligned
    rows: Mask
    groups: Ints | None
    seed: int

    def bounds(self) -> Figure:
        """Return the figure, or its difference from the baseline, with its bounds."""
        name = self.requirement.metric
        if self.requirement.kind.of == "latency":
            return self._latency(float(name[1:-3]))
        if self.requirement.kind.is_proportion:
            return self._proportion()
        return self._interval_bounds()

    def values(self) -> tuple[float | None, float | None]:
        """Return the candidate's figure and the baseline's."""
        name = self.requirement.metric
        found: list[float | None] = []
        for position, view in enumerate(self.aligned.views):
            if self.requirement.kind.of == "latency":
                times = self._times()[0][position]
                found.append(float(np.percentile(times, float(name[1:-3]))) if len(times) else None)
            elif self.requirement.kind.is_proportion:
                hits, counted = self._counted(view)
                n = int(counted.sum())
                found.append(float((hits & counted).sum()) / n if n else None)
            else:
                found.append(_figures(view, self._labelled(), None, self.seed, 0.9, 0)[name].value)
        return found[0], found[1]

    def _labelled(self) -> Mask:
        return self.aligned.counts & self.rows

    def _times(self) -> tuple[list[NDArray[np.float64]], Mask]:
        """Return each side's milliseconds on the rows that the cache answered for neither."""
        every = [self.aligned.latency_ms(position) for position in range(len(self.aligned.views))]
        used = self.rows & ~np.any([np.isnan(ms) for ms in every], axis=0)
        return [ms[used] for ms in every], used

    def _latency(self, percentile: float) -> Figure:
        times, used = self._times()
        groups = None if self.groups is None else self.groups[used]
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
                hits, counted, self.groups, bound="exact", confidence=confidence, empty=empty
            )
        if name == "precision":  # each side flags rows of its own: no paired proportion
            return self._interval_bounds()
        before, other = self._counted(self.aligned.views[1])
        both = counted & other
        groups = None if self.groups is None else self.groups[both]
        return paired_proportion(before[both], hits[both], groups, confidence, empty)

    def _counted(self, view: ModeView) -> tuple[Mask, Mask]:
        """Return successes and denominator of a proportion."""
        name = self.requirement.metric
        if self.requirement.kind.of == "mode":
            scored = np.logical_and.reduce([one.is_scored for one in self.aligned.views])
            return (view.asked if name == "escalated" else _flags(view)), scored & self.rows
        labelled = self._labelled()
        if name == "accuracy":
            return view.predicted == view.labels, labelled
        if name == "precision":
            return view.labels == 1, labelled & (view.predicted == 1)
        return view.predicted == 1, labelled & (view.labels == (1 if name == "recall" else 0))

    def _interval_bounds(self) -> Figure:
        """Return bounds from a two-sided interval at 2c - 1, so that each end holds at c."""
        name, confidence = self.requirement.metric, 2 * self.requirement.confidence - 1
        keep = self._labelled()
        groups = (
            None
            if self.groups is None
            else np.unique(self.groups[keep], return_inverse=True)[1].reshape(-1)
        )
        if self.requirement.is_paired:
            figure = self._difference(name, keep, groups, confidence)
        else:
            view, chars = self.aligned.views[0], self.aligned.scores[0].chars
            figure = _figures(view, keep, groups, self.seed, confidence, None, chars)[name]
        return figure

    def _difference(self, name: str, keep: Mask, groups: Ints | None, confidence: float) -> Figure:
        """Return candidate minus baseline; by patterns or DeLong where many rows cost nothing."""
        after, before = self.aligned.views
        labels = after.labels[keep]
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
        return paired_binary_metrics(
            labels,
            *risks,
            (before.threshold or 0.0, after.threshold or 0.0),
            groups=groups,
            seed=self.seed,
            confidence=confidence,
        )[name]


def _figures(
    view: ModeView,
    keep: Mask,
    groups: Ints | None,
    seed: int,
    confidence: float,
    resamples: int | None,
    chars: Ints | None = None,
) -> dict[str, Figure]:
    if view.risk is not None and view.threshold is not None:
        return binary_metrics(
            view.labels[keep],
            view.risk[keep],
            view.threshold,
            lengths=None if chars is None else chars[keep],
            groups=groups,
            seed=seed,
            resamples=resamples,
            confidence=confidence,
        )
    return multiclass_metrics(
        view.labels[keep],
        view.probabilities[keep],
        view.label_names,
        groups=groups,
        seed=seed,
        resamples=resamples,
        confidence=confidence,
    )


def _flags(view: ModeView) -> Mask:
    """Return which rows are flagged; of three classes those called negative."""
    positive = 1 if view.risk is not None else LABELS[view.task].index(SENTIMENT_POSITIVE)
    return np.asarray(view.predicted == positive)

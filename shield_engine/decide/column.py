"""Scores of one mode made ready for any threshold: sorted once, asked often.

A column of a million scores is sorted once, and every threshold after that is two binary searches.
A row is flagged if its score is at least the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.config import Bands
from shield_engine.decide.views import ModeView
from shield_engine.decision import decided
from shield_engine.errors import ConfigError
from shield_engine.metrics.curves import Counts, ThresholdSweep
from shield_engine.metrics.inputs import binary_input, group_codes
from shield_engine.metrics.table import METRICS
from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import proportion
from shield_engine.statistics.resampling import Resamples, cells_drawn, percentile_interval
from shield_engine.store import Scores
from shield_engine.types import LABELS, Mode, Task

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from shield_engine.statistics.arrays import Floats, Ints


__all__ = ["Lab", "ScoreColumn", "lab_of", "label_policy_figures", "nearest_rows", "rates_at"]

DRAWN_CUTS = 400


@dataclass(frozen=True)
class ScoreColumn:
    """Labelled scores of one mode, sorted by class.

    Attributes:
        risky: Scores of the risky rows, rising.
        harmless: Scores of the harmless rows, rising.
        risky_groups: Group of each risky row in that order; `None` if rows are independent.
        harmless_groups: The same for harmless rows.
    """

    risky: Floats
    harmless: Floats
    risky_groups: Ints | None = None
    harmless_groups: Ints | None = None

    @classmethod
    def of(
        cls, labels: ArrayLike, scores: ArrayLike, groups: ArrayLike | None = None
    ) -> ScoreColumn:
        """Return the column of these rows.

        Args:
            labels: 1 for risky rows, 0 for harmless ones.
            scores: Risk of each row, 0..1.
            groups: Rows that belong together count as fewer in every bound.

        Raises:
            ValueError: An array has another length, or a value does not fit.
        """
        truth, risk = binary_input(labels, scores)
        codes = None if groups is None else group_codes(groups, len(truth))
        sides: list[tuple[Floats, Ints | None]] = []
        for label in (1, 0):
            rows = np.flatnonzero(truth == label)
            rows = rows[np.argsort(risk[rows], kind="stable")]
            sides.append((risk[rows], None if codes is None else codes[rows]))
        (risky, risky_groups), (harmless, harmless_groups) = sides
        return cls(risky, harmless, risky_groups, harmless_groups)

    @property
    def n(self) -> int:
        """How many rows there are."""
        return len(self.risky) + len(self.harmless)

    @cached_property
    def cuts(self) -> Floats:
        """Distinct scores, highest first: each is a threshold that flags itself."""
        return np.unique(np.concatenate((self.risky, self.harmless)))[::-1]

    @cached_property
    def sweep(self) -> ThresholdSweep:
        """Counts at every cut."""
        return self.at(self.cuts)

    def at(self, thresholds: ArrayLike) -> ThresholdSweep:
        """Return the counts at each threshold, in the order given."""
        return ThresholdSweep.of(self.risky, self.harmless, thresholds)

    def drawn(self, points: int = DRAWN_CUTS) -> ThresholdSweep:
        """Return the counts at no more than `points` cuts, evenly spread over the flagged share."""
        if len(self.cuts) <= points:
            return self.sweep
        places = np.linspace(0, len(self.cuts) - 1, points // 2).astype(np.int64)
        even = np.linspace(self.cuts[-1], self.cuts[0], points - points // 2)
        return self.at(np.unique(np.concatenate((self.cuts[places], even)))[::-1])

    def threshold_of(self, cut: float) -> float:
        """Return the roundest number that flags exactly the rows that `cut` flags.

        It lies above the next lower score and not above `cut`, near the middle, with as few digits
        as the gap allows; so a policy reads well and survives any file.
        """
        lower = max(
            (
                float(side[place - 1])
                for side in (self.risky, self.harmless)
                if (place := int(np.searchsorted(side, cut))) > 0
            ),
            default=0.0,
        )
        if cut <= 0.0:
            return 0.0
        middle = (lower + cut) / 2
        for digits in range(1, 17):
            rounded = round(middle, digits)
            if lower < rounded <= cut:
                return rounded
        return cut

    def effective(self, thresholds: ArrayLike, label: int) -> tuple[Floats, Floats]:
        """Return (flagged, rows) of one class at each threshold, each worth what its groups are."""
        wanted = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
        side = self.risky if label else self.harmless
        flagged = (len(side) - np.searchsorted(side, wanted)).astype(np.float64)
        spread = self._spreads[label]
        if spread is None:
            return flagged, np.full(len(wanted), float(len(side)))
        sizes = spread.effective(flagged)
        return flagged / len(side) * sizes, sizes

    def group_counts(self, threshold: float) -> Counts | None:
        """Return the counts of each group; `None` without groups."""
        if self.risky_groups is None or self.harmless_groups is None:
            return None
        width = max(
            int(side.max(initial=-1)) + 1 for side in (self.risky_groups, self.harmless_groups)
        )
        hits = self.risky_groups[np.searchsorted(self.risky, threshold) :]
        alarms = self.harmless_groups[np.searchsorted(self.harmless, threshold) :]
        tp, risky, fp, harmless = (
            np.bincount(codes, minlength=width)
            for codes in (hits, self.risky_groups, alarms, self.harmless_groups)
        )
        return Counts(tp, fp, risky - tp, harmless - fp)

    def cells_drawn(self, threshold: float, times: int, seed: int) -> Floats:
        """Return tp, fp, fn and tn of each resample, shape (times, 4)."""
        if self.risky_groups is None:
            counts = self.at(threshold)
            tp, fp, fn, tn = (int(cell[0]) for cell in counts.cells)
            return cells_drawn(np.array([tp, 0, fn, 0, 0, fp, 0, tn]), 4, times, seed)
        sides = (
            np.where(self.risky >= threshold, 0, 2),
            np.where(self.harmless >= threshold, 1, 3),
        )
        return self.resamples(times, seed).cells(np.concatenate(sides), 4)

    def resamples(self, times: int, seed: int) -> Resamples:
        """Return how the rows, risky ones first, are resampled."""
        groups = None
        if self.risky_groups is not None and self.harmless_groups is not None:
            groups = np.concatenate((self.risky_groups, self.harmless_groups))
        classes = np.repeat([0, 1], [len(self.risky), len(self.harmless)])
        return Resamples(classes, groups, times, seed)

    def group_count(self, label: int) -> int | None:
        """Return how many groups hold rows of a class; `None` if its rows are independent."""
        spread = self._spreads[label]
        return None if spread is None else spread.groups

    @cached_property
    def _spreads(self) -> tuple[_Spread | None, _Spread | None]:
        """Spread over groups of harmless and of risky rows."""
        return _spread(self.harmless_groups), _spread(self.risky_groups)


@dataclass(frozen=True, slots=True)
class _Spread:
    """What the rows of one class are worth at any threshold, by running sums over their groups.

    With h flagged rows of the m of each group, the variance between groups needs only the sums of
    h^2, h m and m^2, and each row that a falling threshold adds changes the first two by a known
    amount. So a million grouped rows are summed once, and no threshold counts them again.

    Attributes:
        squares: Sum of h^2 once 0, 1, 2, ... of the highest rows are flagged.
        crossed: Sum of h m, likewise.
        square_sizes: Sum of m^2.
        groups: How many groups there are.
    """

    squares: Floats
    crossed: Floats
    square_sizes: float
    groups: int

    def effective(self, flagged: Floats) -> Floats:
        """Return `statistics.effective_size` where so many of the highest rows are flagged."""
        total = float(len(self.squares) - 1)
        place = flagged.astype(np.int64)
        rate = flagged / total
        squares = self.squares[place]
        residual = squares - 2 * rate * self.crossed[place] + rate**2 * self.square_sizes
        # Equal rates in all groups leave rounding only, some 1e-15 of the terms.
        residual = np.where(residual <= 1e-11 * squares, 0.0, residual)
        between = self.groups / max(self.groups - 1, 1) * residual / total**2
        binomial = rate * (1 - rate) / total
        is_known = (between > 0) & (binomial > 0) & (self.groups > 1)
        sizes: Floats = np.where(
            is_known,
            np.minimum(total, total * binomial / np.where(is_known, between, 1.0)),
            float(self.groups),
        )
        return sizes


def _spread(groups: Ints | None) -> _Spread | None:
    if groups is None or not len(groups):
        return None
    codes = np.unique(groups[::-1], return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(codes)
    order = np.argsort(codes, kind="stable")
    seen_before = np.empty(len(codes), dtype=np.int64)
    seen_before[order] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return _Spread(
        squares=np.concatenate(([0.0], np.cumsum(2.0 * seen_before + 1))),
        crossed=np.concatenate(([0.0], np.cumsum(sizes[codes].astype(np.float64)))),
        square_sizes=float(np.sum(sizes.astype(np.float64) ** 2)),
        groups=len(sizes),
    )


@dataclass(frozen=True)
class Lab:
    """One two-class mode of a run, ready for any threshold.

    Attributes:
        view: Every scored row as the mode sees it.
        column: The labelled ones, sorted.
        rows: Positions of the labelled rows in `view`.
        units: What each labelled row belongs to when rows are split: its group, or its text.
        groups: Group of each labelled row; `None` if no row has one.
    """

    view: ModeView
    column: ScoreColumn
    rows: Ints
    units: NDArray[Any]
    groups: Ints | None

    @property
    def labels(self) -> Ints:
        """Labels of the labelled rows."""
        return self.view.labels[self.rows]

    @property
    def risk(self) -> Floats:
        """Scores of the labelled rows."""
        return self.view.score[self.rows]

    @property
    def has_both(self) -> bool:
        """True if there are risky and harmless rows."""
        return bool(len(self.column.risky) and len(self.column.harmless))


def lab_of(view: ModeView, units: NDArray[Any], groups: Ints | None) -> Lab:
    """Return a mode ready for any threshold.

    Args:
        view: The mode's view of all scored rows.
        units: What each row belongs to when rows are split, in the view's order.
        groups: Group of each row in that order; `None` if no row has one.

    Raises:
        ConfigError: The rows have three classes, which have no threshold.
    """
    if view.risk is None:
        raise ConfigError("three classes go by the most probable label, not by a threshold")
    rows = np.flatnonzero(view.counts)
    groups = None if groups is None else groups[rows]
    column = ScoreColumn.of(view.labels[rows], view.risk[rows], groups)
    return Lab(view, column, rows, units[rows], groups)


def nearest_rows(view: ModeView, threshold: float, count: int = 5) -> tuple[list[int], list[int]]:
    """Return positions of the rows just below and just above a threshold, nearest first."""

    def nearest(is_side: NDArray[np.bool_]) -> list[int]:
        places = np.flatnonzero(is_side & view.is_scored)
        distance = np.abs(view.score[places] - threshold)
        if len(places) > count:
            near = np.argpartition(distance, count)[:count]
            places, distance = places[near], distance[near]
        order: list[int] = places[np.argsort(distance, kind="stable")].tolist()
        return order

    return nearest(view.score < threshold), nearest(view.score >= threshold)


def rates_at(
    column: ScoreColumn,
    threshold: float,
    *,
    resamples: int = 0,
    seed: int = 7,
    confidence: float = 0.95,
) -> dict[str, Figure]:
    """Return accuracy, precision, recall, FPR, F1, MCC and balanced accuracy at a threshold.

    Proportions have Wilson intervals, as in `binary_metrics`; with groups they count what their
    rows are worth. The others get a bootstrap if `resamples` is given: of the confusion matrix, or
    of the groups' matrices. At a fixed threshold that is the same as one of rows or whole groups,
    but takes no longer for a million of them. Values never depend on it.
    """
    counts, by_group = column.at(threshold), column.group_counts(threshold)
    figures = {
        name: proportion(
            hits,
            rows,
            None if by_group is None else np.arange(len(rows)),
            confidence=confidence,
            empty=METRICS[name].undefined,
        )
        for name, (hits, rows) in (by_group or counts).shares.items()
    }
    drawn = None
    if resamples and column.n > 1:
        drawn = Counts(*column.cells_drawn(threshold, resamples, seed).T)
    for name in ("f1", "mcc", "balanced_accuracy"):
        figures[name] = _resampled(
            float(getattr(counts, name)[0]),
            None if drawn is None else getattr(drawn, name),
            column.n,
            confidence,
            f"bootstrap({resamples}, seed {seed})",
        )
    return figures


def label_policy_figures(
    scores: Scores,
    mode: Mode,
    allowed: Sequence[str],
    *,
    bands: Bands | None = None,
    groups: Ints | None = None,
    resamples: int = 1_000,
    seed: int = 7,
) -> dict[str, Figure]:
    """Return the rates of flagging what sentiment's policy does not allow.

    The verdict is the most probable label. A text is flagged if that label is not allowed, and it
    is risky if its own label is not.

    Args:
        scores: What a sentiment run stored.
        mode: Which parts decide.
        allowed: Labels that pass.
        bands: Hybrid bands.
        groups: Group of each row.
        resamples: Of the bootstrap for F1, MCC and balanced accuracy.
        seed: Of the bootstrap.

    Raises:
        ConfigError: A label is unknown, or the run is of another task.
    """
    names = LABELS[Task.SENTIMENT]
    unknown = sorted(set(allowed) - set(names))
    if unknown:
        raise ConfigError(f"unknown label {', '.join(unknown)}; there are {', '.join(names)}")
    if scores.task is not Task.SENTIMENT:
        raise ConfigError(f"{scores.task.value} goes by a threshold, not by allowed labels")
    probabilities, _ = decided(
        Task.SENTIMENT, mode, scores.heuristic, scores.model, bands or Bands()
    )
    passes = np.array([name in allowed for name in names])
    keep = (scores.labels >= 0) & ~np.isnan(probabilities[:, 0])
    column = ScoreColumn.of(
        (~passes[scores.labels[keep]]).astype(np.int64),
        (~passes[probabilities[keep].argmax(axis=1)]).astype(np.float64),
        None if groups is None else groups[keep],
    )
    return rates_at(column, 0.5, resamples=resamples, seed=seed)


def _resampled(
    value: float, samples: Floats | None, n: int, confidence: float, method: str
) -> Figure:
    """Return a figure with the interval that its resamples give, if any."""
    if np.isnan(value):
        return Figure(None, None, None, n, "undefined for these counts")
    ends = None if samples is None else percentile_interval(samples, confidence)
    if ends is None:
        return Figure(value, None, None, n, "no interval: no resamples, or all alike")
    return Figure.around(value, ends, n, method)

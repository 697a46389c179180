"""Resampling: one scheme for rows, groups and cells of like rows.

Classes and groups in, counts of what is drawn out. Rows are drawn with replacement within each
class, so each class keeps its size; groups are drawn whole, within those that hold the same classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.statistics.intervals import (
    Figure,
    Interval,
    checked_level,
    rows_for_percentile,
    too_few_rows,
    wilson,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from shield_engine.statistics.arrays import Floats, Ints


__all__ = [
    "NO_DISAGREEMENT",
    "Resamples",
    "cells_drawn",
    "paired_difference",
    "paired_percentile_bounds",
    "percentile_interval",
    "resample_count",
]

NO_DISAGREEMENT = "wilson bound of no disagreement"
"""Method of a difference whose two sides are never seen to differ."""

_LEAST_RESAMPLES = 200
_CHUNK_CELLS = 1 << 18  # 2 MB of float64 stays in a core's cache: 1.5 times as fast as 16 MB
_MOST_DENSE = 10_000_000  # 80 MB; up to there a dense product takes a tenth of a sparse one
_SAME = 1e-12  # resampled sums of equal scores differ by rounding only, below 1e-15


def resample_count(n: int, most: int = 1_000, drawn: int = 20_000_000) -> int:
    """Return how many resamples to draw of `n` rows or groups.

    Args:
        n: Units that are drawn.
        most: However few units there are.
        drawn: Units in all resamples together, 20 million take about one second on one core; but
            never fewer than 200 resamples are drawn.
    """
    return max(_LEAST_RESAMPLES, min(most, drawn // max(n, 1)))


@dataclass(frozen=True, slots=True)
class Resamples:
    """How a set is resampled; the same seed gives the same draws.

    Attributes:
        classes: Class of each row, 0.., shape (n,).
        groups: Codes 0..g - 1 of rows that belong together, shape (n,); `None` if none do.
        times: How many resamples.
        seed: Of the generator.
    """

    classes: Ints
    groups: Ints | None
    times: int
    seed: int

    @property
    def unit(self) -> str:
        """What is drawn, if it is not rows."""
        return "" if self.groups is None else ", whole groups"

    @property
    def method(self) -> str:
        """The scheme, for a reader."""
        return f"bootstrap({self.times}, seed {self.seed}{self.unit})"

    def sizes(self, n_classes: int) -> Floats:
        """Return how many independent units (groups, where there are any) each class has."""
        if self.groups is None:
            return np.bincount(self.classes, minlength=n_classes).astype(np.float64)
        width = int(self.groups.max(initial=0)) + 1
        pairs = np.unique(self.classes * width + self.groups)
        return np.bincount(pairs // width, minlength=n_classes).astype(np.float64)

    def rows(self) -> Iterator[Floats]:
        """Yield how often each row is drawn, in chunks of shape (resamples in the chunk, n)."""
        kinds, rng = self._kinds(), np.random.default_rng(self.seed)
        for times in self._chunks(len(self.classes)):
            weights = _drawn_units(kinds, times, rng)
            yield weights if self.groups is None else weights[:, self.groups]

    def cells(self, cell: Ints, n_cells: int) -> Floats:
        """Return how many rows of each cell each resample has, shape (times, n_cells).

        Single rows of one class and cell are drawn by their count, so a million of them in few
        cells cost what a thousand do.

        Args:
            cell: Of each row, shape (n,).
            n_cells: How many there are.
        """
        if self.groups is None:
            codes = self.classes * n_cells + cell
            return cells_drawn(np.bincount(codes), n_cells, self.times, self.seed)
        kinds, rng = self._kinds(), np.random.default_rng(self.seed)
        rows = _rows_of_groups(self.groups, cell, (len(kinds), n_cells))
        first, counts = _like_groups(rows, kinds)
        if first is not None and counts is not None:
            rows, kinds = rows[first], kinds[first]
        parts = [np.zeros((0, n_cells))]
        for times in self._chunks(len(kinds)):
            parts += [_drawn_units(kinds, times, rng, counts) @ rows]
        return np.concatenate(parts)

    def _chunks(self, width: int) -> Iterator[int]:
        """Yield how many resamples to draw at once, so that they stay in the cache."""
        chunk = max(1, _CHUNK_CELLS // max(width, 1))
        for start in range(0, self.times, chunk):
            yield min(chunk, self.times - start)

    def _kinds(self) -> Ints:
        """Return what each unit is drawn among: the class of a row, the classes of a group."""
        if self.groups is None:
            return self.classes
        shape = int(self.groups.max(initial=-1)) + 1, int(self.classes.max(initial=0)) + 1
        seen = np.zeros(shape, dtype=bool)
        seen[self.groups, self.classes] = True
        # As one number a row, the first class counting most: ten times as fast as unique rows.
        numbers = ~seen @ (1 << np.arange(shape[1])[::-1])
        return np.unique(numbers, return_inverse=True)[1].reshape(-1)


def _rows_of_groups(groups: Ints, cell: Ints, shape: tuple[int, int]) -> Any:
    """Return how many rows of each cell each group has: a matrix, sparse where it is large."""
    if shape[0] * shape[1] <= _MOST_DENSE:
        counts = np.bincount(groups * shape[1] + cell, minlength=shape[0] * shape[1])
        return counts.reshape(shape).astype(np.float64)
    from scipy import sparse

    return sparse.csr_array((np.ones(len(cell)), (groups, cell)), shape)


def _like_groups(rows: Any, kinds: Ints) -> tuple[Ints | None, Ints | None]:
    """Return the first of each set of groups that are alike, and how many groups each set has.

    `None` where the matrix is sparse, or kind and counts as one number would pass 2^62.
    """
    if not isinstance(rows, np.ndarray):
        return None, None
    lines = np.column_stack((kinds, rows)).astype(np.int64)
    widths = lines.max(axis=0, initial=0) + 1
    if float(np.log2(widths).sum()) > 62:
        return None, None
    numbers = lines @ (np.cumprod(widths) // widths)
    _, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    return first, counts


def _drawn_units(
    kinds: Ints, times: int, rng: np.random.Generator, counts: Ints | None = None
) -> Floats:
    """Return how often each unit is drawn among those of its kind, shape (times, units).

    Args:
        kinds: Of each unit.
        times: How many resamples.
        rng: Where the draws come from.
        counts: How many units alike each stands for; one, if `None`.
    """
    drawn = np.empty((times, len(kinds)))
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        alike = np.ones(len(members), dtype=np.int64) if counts is None else counts[members]
        size = int(alike.sum())
        if 5 * len(members) < size:  # a count takes five times as long as a unit
            drawn[:, members] = rng.multinomial(size, alike / size, times)
            continue
        units = rng.integers(0, size, (times, size))
        if counts is not None:
            units = np.repeat(np.arange(len(members)), alike)[units]
        units += np.arange(times)[:, None] * len(members)
        hits = np.bincount(units.reshape(-1), minlength=times * len(members))
        drawn[:, members] = hits.reshape(times, len(members))
    return drawn


def cells_drawn(counts: Ints, n_cells: int, times: int, seed: int) -> Floats:
    """Return `Resamples.cells` of single rows that were counted already.

    Within a class the counts of cells are multinomial, which is what drawing each row gives.

    Args:
        counts: Rows of each cell of the first class, then of the second, ...; cells at the end that
            have none may be missing.
        n_cells: How many there are of each class.
        times: How many resamples.
        seed: Of the generator.
    """
    rng, drawn = np.random.default_rng(seed), np.zeros((times, n_cells))
    for start in range(0, len(counts), max(n_cells, 1)):
        of_class = counts[start : start + n_cells]
        used = np.flatnonzero(of_class)
        if len(used):
            size = of_class.sum()
            drawn[:, used] += rng.multinomial(int(size), of_class[used] / size, times)
    return drawn


def percentile_interval(samples: Floats, confidence: float = 0.95) -> Interval | None:
    """Return the percentile interval of bootstrap samples.

    Samples where the figure is undefined (NaN) are left out.

    Returns:
        The interval, or `None` if it would claim what it cannot know: fewer than half of the
        samples are defined, or all are equal.
    """
    defined = samples[~np.isnan(samples)]
    if 2 * len(defined) < len(samples) or len(defined) == 0 or np.ptp(defined) <= _SAME:
        return None
    tail = (1 - checked_level(confidence)) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))


def paired_difference(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 7,
) -> Figure:
    """Return how much more often B is right than A, with a bootstrap interval.

    Rows are resampled in pairs; with groups, whole groups are. Where rows never disagree, the
    bootstrap would claim certainty; then the ends are the Wilson bound of the rate of
    disagreement, on either side of 0.

    Args:
        correct_a: Whether A is right on each row, shape (n,).
        correct_b: The same for B, on the same rows in the same order.
        groups: Group of each row, any hashable values.
        confidence: Coverage asked of the interval.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: There are no rows, or the arrays differ in length.
    """
    first, second = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise ValueError(
            "two arrays of the same rows are needed, at least one row; "
            f"got shapes {first.shape} and {second.shape}"
        )
    n, codes = len(first), None
    if groups is not None:
        codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
        if len(codes) != n:
            raise ValueError(f"groups has {len(codes)} entries for {n} rows")
    cell = np.where(first == second, 2, second)  # only A, only B, both alike
    difference = (int(np.sum(cell == 1)) - int(np.sum(cell == 0))) / n
    if n == 1:
        return Figure(difference, None, None, n, "no interval from one row")
    plan = Resamples(np.zeros(n, dtype=np.int64), codes, resamples, seed)
    if bool(np.all(cell == 2)):
        bound = wilson(0, plan.sizes(1)[0], confidence).high
        return Figure(0.0, -bound, bound, n, method=NO_DISAGREEMENT)
    drawn = plan.cells(cell, 3)
    interval = percentile_interval((drawn[:, 1] - drawn[:, 0]) / drawn.sum(axis=1), confidence)
    if interval is None:
        return Figure(difference, None, None, n, "no interval: all resamples agree")
    return Figure.around(difference, interval, n, plan.method)


def paired_percentile_bounds(
    before: Floats,
    after: Floats,
    percentile: float,
    groups: Ints | None,
    confidence: float,
    seed: int,
    empty: str,
) -> Figure:
    """Return by how much a percentile grew on the same rows, with paired bootstrap bounds.

    Args:
        before: Shape (n,).
        after: The same rows.
        percentile: 0..100.
        groups: Codes of rows that belong together; whole groups are drawn.
        confidence: Of each bound by itself.
        seed: Of the resampling.
        empty: The reason given if there are no rows.
    """
    n = len(before)
    if not n:
        return Figure(None, None, None, 0, empty)
    value = float(np.percentile(after, percentile) - np.percentile(before, percentile))
    codes = None if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    plan = Resamples(np.zeros(n, dtype=np.int64), codes, resample_count(n, 2_000, 40_000_000), seed)
    units = float(plan.sizes(1)[0])
    if units < rows_for_percentile(percentile / 100, confidence):
        return Figure(value, None, None, n, too_few_rows(percentile, confidence), size=units)
    orders = np.argsort(before, kind="stable"), np.argsort(after, kind="stable")
    gaps = [
        _weighted_percentiles(after, orders[1], weights, percentile)
        - _weighted_percentiles(before, orders[0], weights, percentile)
        for weights in plan.rows()
    ]
    low, high = np.quantile(np.concatenate(gaps), [1 - confidence, confidence])
    return Figure.around(value, (float(low), float(high)), n, f"paired {plan.method}", units)


def _weighted_percentiles(
    values: Floats, order: Ints, weights: Floats, percentile: float
) -> Floats:
    """Return the percentile of each resample: the least value that its share of rows reaches."""
    reached = np.cumsum(weights[:, order], axis=1)
    wanted = reached[:, -1:] * percentile / 100
    return np.asarray(values[order][(reached < wanted - 1e-9).sum(axis=1)])

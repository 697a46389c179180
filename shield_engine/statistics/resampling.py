"""Resampling: one scheme for rows, groups and cells of like rows.

Classes and groups in, counts of what is drawn out. Rows are drawn with replacement within each
class, so each class keeps its size; groups are drawn whole, within those that hold the same classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    "paired_difference",
    "paired_percentile_bounds",
    "percentile_interval",
    "resample_count",
]

NO_DISAGREEMENT = "wilson bound of no disagreement"
"""Method of a difference whose two sides are never seen to differ."""

_LEAST_RESAMPLES = 200
_CHUNK_CELLS = 1 << 18  # 2 MB of float64 stays in a core's cache: 1.5 times as fast as 16 MB
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

        What is alike is counted once and drawn by counts, so a million rows in few cells cost what
        a thousand do: rows of one class and cell, and groups that hold the same cells as often.

        Args:
            cell: Of each row, shape (n,).
            n_cells: How many there are.
        """
        from scipy import sparse

        codes = self.classes * n_cells + cell
        if self.groups is None:
            counts = np.bincount(codes)
            codes = np.flatnonzero(counts)
            counts, kinds, entry = counts[codes], codes // n_cells, np.arange(len(codes))
        else:
            first, counts = _like_groups(self.groups, codes)
            kinds = self._kinds()[first]
            place = np.full(int(self.groups.max(initial=-1)) + 1, -1)
            place[first] = np.arange(len(first))
            entry = place[self.groups]
            codes, entry = codes[entry >= 0], entry[entry >= 0]
        shape = (n_cells, len(counts))
        rows = sparse.coo_matrix((np.ones(len(codes)), (codes % n_cells, entry)), shape).tocsr()
        rng, parts = np.random.default_rng(self.seed), [np.zeros((0, n_cells))]
        for times in self._chunks(len(counts)):
            drawn = _drawn_counts(counts, kinds, times, rng)
            parts.append(np.asarray((rows @ drawn.T).T))
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
        return np.unique(~seen, axis=0, return_inverse=True)[1].reshape(-1)


def _like_groups(groups: Ints, codes: Ints) -> tuple[Ints, Ints]:
    """Return one of the groups that hold the same codes as often, and how many such there are.

    Groups alike share a sum of random 64-bit numbers. That others do has a chance of 3e-10 among
    100,000 groups; one of them would then be drawn with the other's rows.
    """
    numbers = np.random.default_rng(0).integers(2**63, size=int(codes.max(initial=0)) + 1)
    sums = np.zeros(int(groups.max(initial=-1)) + 1, dtype=np.int64)
    np.add.at(sums, groups, numbers[codes])
    _, first, counts = np.unique(sums, return_index=True, return_counts=True)
    return first, counts


def _drawn_units(kinds: Ints, times: int, rng: np.random.Generator) -> Floats:
    """Return how often each unit is drawn among those of its kind, shape (times, units)."""
    drawn = np.empty((times, len(kinds)))
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        size = len(members)
        units = rng.integers(0, size, (times, size)) + np.arange(times)[:, None] * size
        counts = np.bincount(units.reshape(-1), minlength=times * size)
        drawn[:, members] = counts.reshape(times, size)
    return drawn


def _drawn_counts(counts: Ints, kinds: Ints, times: int, rng: np.random.Generator) -> Floats:
    """Return how many of like units are drawn among those of their kind, shape (times, entries).

    The same as drawing each of them, by one multinomial: each entry stands for `counts` units.
    """
    drawn = np.empty((times, len(counts)))
    for kind in np.unique(kinds):
        members = kinds == kind
        size = counts[members].sum()
        drawn[:, members] = rng.multinomial(int(size), counts[members] / size, times)
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

"""One-sided confidence bounds of a figure, and how many more rows would move them.

Masks and arrays in, `Bounds` out. It hides how rows that belong together are counted, and that
proportions, percentiles and paired differences each have a bound of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from shield_engine.statistics.intervals import clopper_pearson, effective_size, resample_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]

__all__ = [
    "Bounds",
    "compacted",
    "paired_percentile_bounds",
    "paired_proportion_bounds",
    "percentile_bounds",
    "proportion_bounds",
    "rows_for_percentile",
    "rows_for_scaled",
    "tango_bounds",
]

_MOST_ROWS = 1_000_000_000
_RESAMPLES = 2_000
_LEAST_RESAMPLES = 200
_RESAMPLED_ROWS = 40_000_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """A figure and how far the truth may lie from it, each side judged by itself.

    Attributes:
        value: The figure; `None` where it is undefined.
        low: The truth is at least this, at the confidence asked; `None` if nothing can be said.
        high: The truth is at most this, at the confidence asked; `None` if nothing can be said.
        n: Rows in its denominator.
        size: Independent rows that these are worth; `n` without groups.
        method: How the bounds came about.
        reason: Why `value` or a bound is missing; empty if none is.
        differing: Share of rows on which the two sides of a paired proportion differ.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    size: float
    method: str
    reason: str = ""
    differing: float | None = None


def proportion_bounds(
    hits: Mask, rows: Mask, groups: Ints | None, confidence: float, empty: str
) -> Bounds:
    """Return the share of `hits` among `rows` with one-sided Clopper-Pearson bounds.

    With groups, the bounds are those of the effective sample size, taken down for the few groups
    that estimate it (Korn and Graubard 1998: times (t(n - 1) / t(groups - 1))^2), and rounded to
    whole rows against the claim.

    Args:
        hits: Successes, shape (n,).
        rows: The denominator, shape (n,).
        groups: Codes of rows that belong together, shape (n,).
        confidence: Of each bound by itself.
        empty: The reason given if there are no rows.
    """
    n, k = int(rows.sum()), int((hits & rows).sum())
    if not n:
        return Bounds(None, None, None, 0, 0.0, "", empty)
    counted = None if groups is None else compacted(groups[rows])
    if counted is None or int(counted.max()) + 1 == n:
        low = clopper_pearson(k, n, confidence, "lower").low
        high = clopper_pearson(k, n, confidence, "upper").high
        return Bounds(k / n, low, high, n, float(n), "one-sided Clopper-Pearson")
    size = _grouped_size(hits[rows], counted, confidence)
    whole = math.floor(size + 1e-9)
    method = f"one-sided Clopper-Pearson, groups, effective n {size:.1f}"
    if whole < 1:
        return Bounds(k / n, None, None, n, size, method, "all rows belong to one group")
    below, above = math.floor(k / n * whole + 1e-9), math.ceil(k / n * whole - 1e-9)
    low = clopper_pearson(below, whole, confidence, "lower").low
    high = clopper_pearson(above, whole, confidence, "upper").high
    return Bounds(k / n, low, high, n, size, method)


def compacted(groups: Ints) -> Ints:
    """Return codes as 0..g - 1 of the groups that occur."""
    return np.unique(groups, return_inverse=True)[1].reshape(-1)


def _grouped_size(hits: Mask, groups: Ints, confidence: float) -> float:
    """Return what grouped rows are worth, 0 if one group is all there is."""
    count, n = int(groups.max()) + 1, len(groups)
    if count < 2:
        return 0.0
    sums, rows = (
        np.bincount(groups, hits).astype(np.float64),
        np.bincount(groups).astype(np.float64),
    )
    size = effective_size(sums, rows)
    if not 0 < float(sums.sum()) < n:
        return size
    few, many = (float(special.stdtrit(df, confidence)) for df in (count - 1, n - 1))
    return size * (many / few) ** 2


def percentile_bounds(
    values: Floats, percentile: float, groups: Ints | None, confidence: float, empty: str
) -> Bounds:
    """Return a percentile with distribution-free one-sided bounds from order statistics.

    The r-th smallest of n bounds the p-quantile from above with probability
    P(Binomial(n, p) <= r - 1) (David and Nagaraja 2003, section 7.1). Below
    log(1 - confidence) / log(p) rows no upper bound exists: 59 for the 95th percentile at 95%.
    With groups, ranks are those of the effective sample size.

    Args:
        values: Shape (n,).
        percentile: 0..100.
        groups: Codes of rows that belong together, shape (n,).
        confidence: Of each bound by itself.
        empty: The reason given if there are no values.
    """
    n, share = len(values), percentile / 100
    if not n:
        return Bounds(None, None, None, 0, 0.0, "", empty)
    value = float(np.percentile(values, percentile))
    size = float(n)
    if groups is not None:
        counted = compacted(groups)
        if int(counted.max()) + 1 < n:
            size = _grouped_size(values > value, counted, confidence)
    whole = math.floor(size + 1e-9)
    method = "order statistics" if size == n else f"order statistics, effective n {size:.1f}"
    if whole < 1:
        return Bounds(value, None, None, n, size, method, "all rows belong to one group")
    ordered = np.sort(values)
    upper, lower = _ranks(whole, share, confidence)
    high = None if upper is None else float(ordered[math.ceil(upper * n / whole) - 1])
    low = None if lower is None else float(ordered[max(1, math.floor(lower * n / whole)) - 1])
    reason = ""
    if high is None:
        needed = rows_for_percentile(share, confidence)
        reason = f"p{percentile:g} needs at least {needed:,} independent rows"
    return Bounds(
        value,
        None if low is None else min(low, value),
        None if high is None else max(high, value),
        n,
        size,
        method,
        reason,
    )


def rows_for_percentile(share: float, confidence: float) -> int:
    """Return from how many rows on the largest bounds the `share`-quantile from above."""
    return math.ceil(math.log(1 - confidence) / math.log(share) - 1e-9)


def _ranks(n: int, share: float, confidence: float) -> tuple[int | None, int | None]:
    """Return the least rank that bounds the quantile from above and the greatest from below."""
    below = special.bdtr(np.arange(n, dtype=np.float64), n, share)  # P(X <= 0), ..., P(X <= n - 1)
    upper = int(np.searchsorted(below, confidence)) + 1  # P(X <= r - 1) >= confidence
    lower = int(np.searchsorted(below, 1 - confidence, side="right"))  # P(X <= s - 1) <= 1 - c
    return upper if upper <= n else None, lower if lower >= 1 else None


def tango_bounds(gained: float, lost: float, n: float, confidence: float) -> tuple[float, float]:
    """Return one-sided score bounds of a paired difference of proportions (Tango 1998).

    Args:
        gained: Rows that only the second has.
        lost: Rows that only the first has.
        n: Rows of both; fractions are allowed, for effective sizes.
        confidence: Of each bound by itself.
    """
    z = float(special.ndtri(confidence))
    return -_tango_high(lost, gained, n, z), _tango_high(gained, lost, n, z)


def _tango_high(gained: float, lost: float, n: float, z: float) -> float:
    """Return the largest difference that the score test at `z` does not refuse."""
    low, high = (gained - lost) / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _tango_score(gained, lost, n, middle) >= -z:
            low = middle
        else:
            high = middle
    return high


def _tango_score(gained: float, lost: float, n: float, difference: float) -> float:
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    rate = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * rate + difference * (1 - difference))
    gap = gained - lost - n * difference
    if variance <= 0:
        return 0.0 if abs(gap) < 1e-12 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)


def paired_proportion_bounds(
    before: Mask, after: Mask, groups: Ints | None, confidence: float, empty: str
) -> Bounds:
    """Return by how much a share grew from `before` to `after` on the same rows.

    Bounds are Tango's. With groups, counts are divided by the design effect of the row-wise gain;
    rows that never disagree show none, then each group counts as one row.

    Args:
        before: Whether each row of the denominator counts for the first, shape (n,).
        after: The same for the second.
        groups: Codes of rows that belong together, shape (n,).
        confidence: Of each bound by itself.
        empty: The reason given if there are no rows.
    """
    n = len(before)
    if not n:
        return Bounds(None, None, None, 0, 0.0, "", empty)
    gain = after.astype(np.int64) - before.astype(np.int64)
    gained, lost = int(np.sum(gain > 0)), int(np.sum(gain < 0))
    size, method = float(n), "Tango's score bounds"
    counted = None if groups is None else compacted(groups)
    if counted is not None and int(counted.max()) + 1 < n:
        size = _paired_size(gain, counted, confidence)
        method = f"Tango's score bounds, groups, effective n {size:.1f}"
    if size < 1:
        return Bounds(
            (gained - lost) / n, None, None, n, size, method, "all rows belong to one group"
        )
    low, high = tango_bounds(gained * size / n, lost * size / n, size, confidence)
    return Bounds((gained - lost) / n, low, high, n, size, method, differing=(gained + lost) / n)


def _paired_size(gain: Ints, groups: Ints, confidence: float) -> float:
    """Return how many independent rows the mean gain of grouped rows is worth."""
    n, count = len(gain), int(groups.max()) + 1
    if count < 2:
        return 0.0
    mean = float(gain.mean())
    alone = float(np.mean((gain - mean) ** 2)) / n
    residual = np.bincount(groups, gain - mean)
    between = count / (count - 1) * float(residual @ residual) / n**2
    if alone == 0 or between == 0:
        return float(count)
    few, many = (float(special.stdtrit(df, confidence)) for df in (count - 1, n - 1))
    return min(float(n), n * alone / between) * (many / few) ** 2


def paired_percentile_bounds(
    before: Floats,
    after: Floats,
    percentile: float,
    groups: Ints | None,
    confidence: float,
    seed: int,
    empty: str,
) -> Bounds:
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
        return Bounds(None, None, None, 0, 0.0, "", empty)
    value = float(np.percentile(after, percentile) - np.percentile(before, percentile))
    needed = rows_for_percentile(percentile / 100, confidence)
    counted = None if groups is None else compacted(groups)
    units = n if counted is None else int(counted.max()) + 1
    if units < needed:
        return Bounds(
            value, None, None, n, float(units), "",
            f"p{percentile:g} needs at least {needed:,} independent rows",
        )  # fmt: skip
    resamples = max(_LEAST_RESAMPLES, min(_RESAMPLES, _RESAMPLED_ROWS // n))
    drawn = []
    strata = np.zeros(n, dtype=np.int64)
    orders = np.argsort(before, kind="stable"), np.argsort(after, kind="stable")
    for weights in resample_weights(strata, resamples=resamples, seed=seed, groups=counted):
        first = _weighted_percentiles(before, orders[0], weights, percentile)
        second = _weighted_percentiles(after, orders[1], weights, percentile)
        drawn.append(second - first)
    low, high = np.quantile(np.concatenate(drawn), [1 - confidence, confidence])
    unit = "" if counted is None else ", whole groups"
    return Bounds(
        value,
        min(float(low), value),
        max(float(high), value),
        n,
        float(units),
        f"paired bootstrap({resamples}, seed {seed}{unit})",
    )


def _weighted_percentiles(
    values: Floats, order: Ints, weights: Floats, percentile: float
) -> Floats:
    """Return the percentile of each resample: the least value that its share of rows reaches."""
    reached = np.cumsum(weights[:, order], axis=1)
    wanted = reached[:, -1:] * percentile / 100
    return np.asarray(values[order][(reached < wanted - 1e-9).sum(axis=1)])


def rows_for_scaled(bounds: Bounds, limit: float, *, is_upper: bool) -> int | None:
    """Return how many more rows would let a bound clear `limit` if the figure stays as it is.

    The distance of a bound from its figure shrinks with the square root of the rows. `None` if
    the figure is not on the right side of the limit.

    Args:
        bounds: The figure.
        limit: What its bound must clear.
        is_upper: True if the upper bound must come below the limit.
    """
    bound = bounds.high if is_upper else bounds.low
    if bounds.value is None or bound is None:
        return None
    room = limit - bounds.value if is_upper else bounds.value - limit
    if room <= 0:
        return None
    needed = bounds.n * (abs(bound - bounds.value) / room) ** 2
    return max(1, math.ceil(needed - bounds.n)) if needed <= _MOST_ROWS else None

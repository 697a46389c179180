"""A figure and how sure it is: intervals and one-sided bounds, single or paired, alone or in groups.

Counts, masks and arrays in, `Figure`s out. It hides the special functions and what rows that belong
together are worth; it knows no metric and no dataset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from shield_engine.statistics.arrays import Floats, Ints, Mask


__all__ = [
    "MOST_ROWS",
    "Figure",
    "Interval",
    "checked_level",
    "clopper_pearson",
    "clopper_pearson_bounds",
    "design_effect",
    "effective_size",
    "normal_quantile",
    "paired_proportion",
    "percentile_bounds",
    "percentile_ranks",
    "proportion",
    "rows_for_percentile",
    "tango_bounds",
    "too_few_rows",
    "wilson",
    "wilson_bounds",
]

Side = Literal["two", "lower", "upper"]

MOST_ROWS = 1_000_000_000
"""Nobody collects more; a sample size above this is none."""

_ONE_GROUP = "all rows belong to one group"


class Interval(NamedTuple):
    """The ends of a confidence interval; both are included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One number and how sure it is.

    Attributes:
        value: The number; `None` only where it is mathematically undefined.
        low: Lower end of its interval, or one-sided bound; `None` if there is none.
        high: Upper end.
        n: Rows in its denominator (recall: the risky rows, fpr: the harmless ones, precision: the
            flagged ones, otherwise all).
        reason: Why `value`, or the interval, is missing; `None` if nothing is.
        method: How the interval came about: `wilson`, `bootstrap(1000, seed 7)`; empty if it is
            missing.
        size: Independent rows that the `n` are worth, where they come in groups; else `None`.
        differing: Share of rows on which the two sides of a paired proportion differ.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int = 0
    reason: str | None = None
    method: str = ""
    size: float | None = None
    differing: float | None = None

    @classmethod
    def around(
        cls,
        value: float,
        ends: tuple[float | None, float | None],
        n: int,
        method: str,
        size: float | None = None,
    ) -> Figure:
        """Return a figure whose ends are moved, where they miss its value, to hold it."""
        low, high = ends
        return cls(
            value,
            None if low is None else min(low, value),
            None if high is None else max(high, value),
            n,
            method=method,
            size=size,
        )

    @property
    def worth(self) -> float:
        """How many independent rows the figure rests on."""
        return self.n if self.size is None else self.size

    def scaled(self, factor: float) -> Figure:
        """Return the figure in another unit; `factor` is at least 0."""
        ends = (self.value, self.low, self.high)
        value, low, high = (None if end is None else end * factor for end in ends)
        return replace(self, value=value, low=low, high=high)

    def as_dict(self) -> dict[str, float | str | None]:
        """Return the figure as the evaluation output writes it."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "reason": self.reason,
        }


def wilson(k: float, n: float, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval of a proportion (Wilson 1927).

    Without rows nothing is known: n = 0 gives 0..1. Fractions are allowed, for effective sizes.

    Raises:
        ValueError: `k` lies outside 0..n, or `confidence` outside 0..1.
    """
    low, high = wilson_bounds(k, n, confidence)
    return Interval(float(low), float(high))


def wilson_bounds(k: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Return lower and upper Wilson bounds of many proportions, shaped as `k` and `n` broadcast.

    Raises:
        ValueError: Some `k` lies outside 0..n, or `confidence` outside 0..1.
    """
    hits, rows = _counts(k, n)
    z = normal_quantile(0.5 + checked_level(confidence) / 2)
    safe = np.where(rows == 0, 1.0, rows)
    rate = hits / safe
    spread = z * np.sqrt(rate * (1 - rate) / safe + z * z / (4 * safe * safe))
    shrink = 1 + z * z / safe
    centre = rate + z * z / (2 * safe)
    low = np.where(hits == 0, 0.0, np.clip((centre - spread) / shrink, 0, rate))
    high = np.where(hits == rows, 1.0, np.clip((centre + spread) / shrink, rate, 1))
    empty = rows == 0
    return np.where(empty, 0.0, low), np.where(empty, 1.0, high)


def clopper_pearson(k: int, n: int, confidence: float = 0.95, side: Side = "two") -> Interval:
    """Return the exact binomial interval of a proportion (Clopper and Pearson 1934).

    It never covers less than `confidence`, which is what a constraint needs. One-sided bounds put
    all of the error on their side: `upper` gives 0..bound, `lower` gives bound..1.

    Raises:
        ValueError: `k` lies outside 0..n, `confidence` outside 0..1, or `side` is unknown.
    """
    low, high = clopper_pearson_bounds(k, n, confidence, side)
    return Interval(float(low), float(high))


def clopper_pearson_bounds(
    k: ArrayLike, n: ArrayLike, confidence: float = 0.95, side: Side = "two"
) -> tuple[Floats, Floats]:
    """Return lower and upper exact bounds of many proportions; see `clopper_pearson`.

    Raises:
        ValueError: Some `k` lies outside 0..n, `confidence` outside 0..1, or `side` is unknown.
    """
    if side not in ("two", "lower", "upper"):
        raise ValueError(f"side is 'two', 'lower' or 'upper', not {side!r}")
    hits, rows = _counts(k, n)
    error = (1 - checked_level(confidence)) / (2 if side == "two" else 1)
    low, high = np.zeros_like(hits), np.ones_like(hits)
    if side != "upper":
        bound = special.betaincinv(np.maximum(hits, 1), rows - hits + 1, error)
        low = np.where(hits == 0, 0.0, bound)
    if side != "lower":
        bound = special.betaincinv(hits + 1, np.maximum(rows - hits, 1), 1 - error)
        high = np.where(hits == rows, 1.0, bound)
    return low, high


def proportion(
    hits: Mask | Ints | Floats,
    rows: Mask | Ints | Floats,
    groups: Ints | None = None,
    *,
    bound: Literal["wilson", "exact"] = "wilson",
    confidence: float = 0.95,
    empty: str | None = None,
) -> Figure:
    """Return the share of `hits` among `rows`, with a Wilson interval or exact one-sided bounds.

    Groups count what their rows are worth, see `effective_size`. For exact bounds that is taken
    down for the few groups that estimate it (Korn and Graubard 1998: times
    (t(n - 1) / t(groups - 1))^2), and rounded to whole rows against the claim.

    Args:
        hits: Successes, shape (n,): whether each row is one, or how many each line of rows has.
        rows: The denominator, shape (n,), likewise; a hit outside of it does not count.
        groups: Codes from 0 of rows that belong together, shape (n,).
        bound: `wilson` at `confidence` for both ends together, or `exact`, Clopper and Pearson's,
            at `confidence` for each bound by itself.
        confidence: Coverage asked.
        empty: The reason given if there are no rows.
    """
    of_rows = np.asarray(rows, dtype=np.float64)
    of_hits = np.minimum(np.asarray(hits, dtype=np.float64), of_rows)
    n, k = int(of_rows.sum()), float(of_hits.sum())
    if not n:
        return Figure(None, None, None, 0, empty)
    if groups is not None:
        of_hits, of_rows = (_sums(groups, values) for values in (of_hits, of_rows))
        of_hits, of_rows = of_hits[of_rows > 0], of_rows[of_rows > 0]
    if bound == "exact":
        is_grouped = groups is not None and len(of_rows) < n
        return _exact_proportion(of_hits, of_rows, confidence, is_grouped=is_grouped)
    if groups is None:
        return Figure(k / n, *wilson(k, n, confidence), n, method="wilson")
    size = effective_size(of_hits, of_rows)
    method = f"wilson(groups, effective n {size:.1f})"
    return Figure(k / n, *wilson(k / n * size, size, confidence), n, method=method, size=size)


def _exact_proportion(hits: Floats, rows: Floats, confidence: float, *, is_grouped: bool) -> Figure:
    """Return a proportion, of one line a group or a row, with one-sided exact bounds."""
    n, k = int(rows.sum()), float(hits.sum())
    size, method = float(n), "one-sided Clopper-Pearson"
    if is_grouped:
        size = _grouped_size(hits, rows, confidence)
        method += f", groups, effective n {size:.1f}"
    whole = math.floor(size + 1e-9)
    if whole < 1:
        return Figure(k / n, None, None, n, _ONE_GROUP, method, size)
    below, above = math.floor(k * (whole / n) + 1e-9), math.ceil(k * (whole / n) - 1e-9)
    low = clopper_pearson(below, whole, confidence, "lower").low
    high = clopper_pearson(above, whole, confidence, "upper").high
    return Figure(k / n, low, high, n, None, method, size)


def _sums(groups: Ints, values: Floats | Mask) -> Floats:
    """Return the sum of each group."""
    return np.bincount(groups, values).astype(np.float64)


def effective_size(hits: Floats, rows: Floats) -> float:
    """Return how many independent rows a proportion over groups is worth.

    The variance of the proportion is taken between groups (linearised ratio) and compared with
    that of independent rows. A proportion of 0 or 1 shows no variance; then each group counts as
    one row. The result is never above the number of rows.

    Args:
        hits: Successes of each group.
        rows: Rows of each group.
    """
    used = rows > 0
    hits, rows = hits[used], rows[used]
    total = float(rows.sum())
    groups = len(rows)
    if groups == 0:
        return 0.0
    rate = float(hits.sum()) / total
    binomial = rate * (1 - rate) / total
    if binomial == 0 or groups == 1:
        return float(groups)
    between = _variance_between(hits - rate * rows, total)
    return min(total, total * binomial / between) if between > 0 else float(groups)


def design_effect(gain: Ints, groups: Ints) -> float | None:
    """Return the variance of a mean gain between groups over that of independent rows.

    Args:
        gain: Of each row: -1, 0 or 1, shape (n,).
        groups: Codes of rows that belong together, shape (n,).

    Returns:
        The quotient, or `None` where it shows nothing: one group, or rows all alike.
    """
    mean = float(gain.mean())
    alone = float(np.mean((gain - mean) ** 2)) / len(gain)
    residual = _sums(groups, np.asarray(gain - mean, np.float64))
    if alone == 0 or len(residual) < 2:
        return None
    return _variance_between(residual, len(gain)) / alone


def _variance_between(residual: Floats, total: float) -> float:
    """Return the variance of a mean of `total` rows from each group's sum of distances from it."""
    count = len(residual)
    return count / (count - 1) * float(residual @ residual) / total**2


def _few_groups(groups: int, n: int, confidence: float) -> float:
    """Return by what a size is multiplied that so few groups estimate (Korn and Graubard 1998)."""
    few, many = (float(special.stdtrit(df, confidence)) for df in (groups - 1, n - 1))
    return (many / few) ** 2


def _grouped_size(hits: Floats, rows: Floats, confidence: float) -> float:
    """Return what grouped rows are worth, 0 if one group is all there is."""
    if len(rows) < 2:
        return 0.0
    size, n = effective_size(hits, rows), int(rows.sum())
    if not 0 < float(hits.sum()) < n:
        return size
    return size * _few_groups(len(rows), n, confidence)


def percentile_bounds(
    values: Floats, percentile: float, groups: Ints | None, confidence: float, empty: str
) -> Figure:
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
        return Figure(None, None, None, 0, empty)
    value = float(np.percentile(values, percentile))
    size = float(n)
    if groups is not None:
        rows = _sums(groups, np.ones(n))
        used = rows > 0
        if int(used.sum()) < n:
            above = _sums(groups, values > value)
            size = _grouped_size(above[used], rows[used], confidence)
    whole = math.floor(size + 1e-9)
    method = "order statistics" if size == n else f"order statistics, effective n {size:.1f}"
    if whole < 1:
        return Figure(value, None, None, n, _ONE_GROUP, method, size)
    ordered = np.sort(values)
    upper, lower = percentile_ranks(whole, share, confidence)
    high = None if upper is None else float(ordered[math.ceil(upper * n / whole) - 1])
    low = None if lower is None else float(ordered[max(1, math.floor(lower * n / whole)) - 1])
    figure = Figure.around(value, (low, high), n, method, size)
    return (
        figure if high is not None else replace(figure, reason=too_few_rows(percentile, confidence))
    )


def too_few_rows(percentile: float, confidence: float) -> str:
    """Return why a percentile has no upper bound."""
    needed = rows_for_percentile(percentile / 100, confidence)
    return f"p{percentile:g} needs at least {needed:,} independent rows"


def rows_for_percentile(share: float, confidence: float) -> int:
    """Return from how many rows on the largest bounds the `share`-quantile from above."""
    return math.ceil(math.log(1 - confidence) / math.log(share) - 1e-9)


def percentile_ranks(n: int, share: float, confidence: float) -> tuple[int | None, int | None]:
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
    z = normal_quantile(confidence)
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


def paired_proportion(
    before: Mask, after: Mask, groups: Ints | None, confidence: float, empty: str
) -> Figure:
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
        return Figure(None, None, None, 0, empty)
    gain = after.astype(np.int64) - before.astype(np.int64)
    gained, lost = int(np.sum(gain > 0)), int(np.sum(gain < 0))
    size, method = float(n), "Tango's score bounds"
    codes = None if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    if codes is not None and int(codes.max()) + 1 < n:
        size = _paired_size(gain, codes, confidence)
        method = f"Tango's score bounds, groups, effective n {size:.1f}"
    if size < 1:
        return Figure((gained - lost) / n, None, None, n, _ONE_GROUP, method, size)
    low, high = tango_bounds(gained * size / n, lost * size / n, size, confidence)
    share = (gained + lost) / n
    return Figure((gained - lost) / n, low, high, n, None, method, size, share)


def _paired_size(gain: Ints, groups: Ints, confidence: float) -> float:
    """Return how many independent rows the mean gain of grouped rows is worth."""
    n, count = len(gain), int(groups.max()) + 1
    if count < 2:
        return 0.0
    effect = design_effect(gain, groups)
    if not effect:
        return float(count)
    return min(float(n), n / effect) * _few_groups(count, n, confidence)


def checked_level(confidence: float) -> float:
    """Return a confidence or power.

    Raises:
        ValueError: It does not lie inside 0..1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence and power lie inside 0..1 (0.95 for 95%), got {confidence}")
    return confidence


def _counts(k: ArrayLike, n: ArrayLike) -> tuple[Floats, Floats]:
    hits, rows = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(n, np.float64))
    fits = (hits >= 0) & (hits <= rows)
    if not bool(np.all(fits)):
        first = int(np.flatnonzero(~fits)[0])
        k_seen, n_seen = hits.reshape(-1)[first], rows.reshape(-1)[first]
        raise ValueError(f"a count lies outside 0..n: k = {k_seen:g}, n = {n_seen:g}")
    return hits, rows


def normal_quantile(probability: float) -> float:
    """Return the quantile of the standard normal distribution."""
    return float(special.ndtri(probability))

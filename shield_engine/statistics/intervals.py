"""How sure a figure is: intervals, resampling, paired tests and sample sizes.

Arrays in, plain numbers or frozen dataclasses out. It hides the special functions and the
resampling schemes; it knows no metric and no dataset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Interval",
    "PairedDifference",
    "clopper_pearson",
    "clopper_pearson_bounds",
    "effective_size",
    "holm",
    "mcnemar_exact",
    "minimum_detectable_effect",
    "paired_difference",
    "percentile_interval",
    "required_negatives",
    "resample_count",
    "resample_weights",
    "wilson",
    "wilson_bounds",
]

Side = Literal["two", "lower", "upper"]

_DEFAULT_RESAMPLES = 1_000
_LEAST_RESAMPLES = 200
_RESAMPLED_ROWS = 20_000_000  # about one second on one core
_CHUNK_CELLS = 1 << 18  # 2 MB of float64 stays in a core's cache: 1.5 times as fast as 16 MB
_MOST_NEGATIVES = 1_000_000_000
_SAME = 1e-12  # resampled sums of equal scores differ by rounding only, below 1e-15


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval; both ends are included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much more often B is right than A on the same rows.

    Attributes:
        difference: Accuracy of B minus accuracy of A, -1..1.
        low: Lower end of the interval of `difference`; `None` without two rows.
        high: Upper end; `None` without two rows.
        n: Rows compared.
        only_a: Rows that only A has right.
        only_b: Rows that only B has right.
        p_value: Exact McNemar test, two-sided.
        method: How the interval came about.
    """

    difference: float
    low: float | None
    high: float | None
    n: int
    only_a: int
    only_b: int
    p_value: float
    method: str


def wilson(k: float, n: float, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval of a proportion (Wilson 1927).

    Without rows nothing is known: n = 0 gives 0..1. Fractions are allowed, for effective sizes.

    Raises:
        ValueError: `k` lies outside 0..n, or `confidence` outside 0..1.
    """
    low, high = wilson_bounds(k, n, confidence)
    return Interval(float(low), float(high))


def wilson_bounds(
    k: ArrayLike, n: ArrayLike, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return lower and upper Wilson bounds of many proportions, shaped as `k` and `n` broadcast.

    Raises:
        ValueError: Some `k` lies outside 0..n, or `confidence` outside 0..1.
    """
    hits, rows = _counts(k, n)
    z = _z(0.5 + _checked(confidence) / 2)
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
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return lower and upper exact bounds of many proportions; see `clopper_pearson`.

    Raises:
        ValueError: Some `k` lies outside 0..n, `confidence` outside 0..1, or `side` is unknown.
    """
    if side not in ("two", "lower", "upper"):
        raise ValueError(f"side is 'two', 'lower' or 'upper', not {side!r}")
    hits, rows = _counts(k, n)
    error = (1 - _checked(confidence)) / (2 if side == "two" else 1)
    low, high = np.zeros_like(hits), np.ones_like(hits)
    if side != "upper":
        bound = special.betaincinv(np.maximum(hits, 1), rows - hits + 1, error)
        low = np.where(hits == 0, 0.0, bound)
    if side != "lower":
        bound = special.betaincinv(hits + 1, np.maximum(rows - hits, 1), 1 - error)
        high = np.where(hits == rows, 1.0, bound)
    return low, high


def effective_size(hits: NDArray[np.float64], rows: NDArray[np.float64]) -> float:
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
    residual = hits - rate * rows
    between = groups / (groups - 1) * float(residual @ residual) / total**2
    return min(total, total * binomial / between) if between > 0 else float(groups)


def resample_count(n: int) -> int:
    """Return the default number of bootstrap resamples for `n` rows.

    1,000 up to 20,000 rows, then fewer so that resamples times rows stay at 20 million, but never
    below 200.
    """
    return max(_LEAST_RESAMPLES, min(_DEFAULT_RESAMPLES, _RESAMPLED_ROWS // max(n, 1)))


def resample_weights(
    strata: NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> Iterator[NDArray[np.float64]]:
    """Yield how often each row is drawn, in chunks of shape (resamples in the chunk, n).

    Without groups, rows are drawn with replacement within each stratum, so each stratum keeps its
    size. With groups, whole groups are drawn, within the sets of groups that hold the same strata;
    if each row is its own group the two schemes are the same.

    Args:
        strata: Class of each row, shape (n,), sorted ascending unless groups are given.
        resamples: How many resamples in all.
        seed: Seed of the generator; the same seed gives the same draws.
        groups: Group of each row, 0..g-1, shape (n,).
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        kinds = strata
        n_units = len(strata)
    else:
        n_units = int(groups.max(initial=-1)) + 1
        seen = np.zeros((n_units, int(strata.max(initial=0)) + 1), dtype=bool)
        seen[groups, strata] = True
        kinds = np.unique(~seen, axis=0, return_inverse=True)[1].reshape(-1)
    units = np.argsort(kinds, kind="stable")
    is_sorted = bool(np.array_equal(units, np.arange(n_units)))
    sizes = np.unique(kinds, return_counts=True)[1]
    chunk = max(1, _CHUNK_CELLS // max(len(strata), 1))
    for start in range(0, resamples, chunk):
        times = min(chunk, resamples - start)
        drawn = np.empty((times, n_units), dtype=np.int64)
        first = 0
        for size in sizes:
            drawn[:, first : first + size] = rng.integers(first, first + size, (times, size))
            first += size
        drawn += np.arange(times)[:, None] * n_units
        counts = np.bincount(drawn.reshape(-1), minlength=times * n_units)
        weights = counts.reshape(times, n_units).astype(np.float64)
        if not is_sorted:
            unsorted = np.empty_like(weights)
            unsorted[:, units] = weights
            weights = unsorted
        yield weights if groups is None else weights[:, groups]


def percentile_interval(samples: NDArray[np.float64], confidence: float = 0.95) -> Interval | None:
    """Return the percentile interval of bootstrap samples.

    Samples where the figure is undefined (NaN) are left out.

    Returns:
        The interval, or `None` if it would claim what it cannot know: fewer than half of the
        samples are defined, or all are equal.
    """
    defined = samples[~np.isnan(samples)]
    if 2 * len(defined) < len(samples) or len(defined) == 0 or np.ptp(defined) <= _SAME:
        return None
    tail = (1 - _checked(confidence)) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mcnemar_exact(b: int, c: int) -> float:
    """Return the two-sided p-value of the exact McNemar test.

    Args:
        b: Rows that only the first has right.
        c: Rows that only the second has right.

    Raises:
        ValueError: A count is negative.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts of disagreeing rows cannot be negative: b = {b}, c = {c}")
    return min(1.0, 2 * float(special.bdtr(float(min(b, c)), b + c, 0.5))) if b + c else 1.0


def holm(p_values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values adjusted for their number (Holm 1979), in the order given.

    Raises:
        ValueError: A p-value is not within 0..1.
    """
    given = np.asarray(p_values, dtype=np.float64)
    if not bool(np.all((given >= 0) & (given <= 1))):
        raise ValueError(f"p-values lie within 0..1, got {given.tolist()}")
    order = np.argsort(given, kind="stable")
    scaled = given[order] * np.arange(len(given), 0, -1)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def paired_difference(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 7,
) -> PairedDifference:
    """Return how much more often B is right than A, with a bootstrap interval and McNemar's test.

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
    n = len(first)
    only_a, only_b = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    gain = second.astype(np.float64) - first.astype(np.float64)
    rng = np.random.default_rng(seed)
    if groups is None:
        size = float(n)
        cells = np.array([only_a, only_b, n - only_a - only_b]) / n
        drawn = rng.multinomial(n, cells, resamples)
        samples = (drawn[:, 1] - drawn[:, 0]) / n
    else:
        codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
        if len(codes) != n:
            raise ValueError(f"groups has {len(codes)} entries for {n} rows")
        sums, rows = np.bincount(codes, gain), np.bincount(codes).astype(np.float64)
        size = float(len(rows))
        one_kind = np.zeros(len(rows), dtype=np.int64)
        parts = resample_weights(one_kind, resamples=resamples, seed=seed)
        samples = np.concatenate([(w @ sums) / (w @ rows) for w in parts])
    difference = (only_b - only_a) / n
    interval = percentile_interval(samples, confidence)
    method = f"bootstrap({resamples}, seed {seed})"
    if n == 1:
        interval, method = None, "none: one row"
    elif interval is None and only_a + only_b == 0:
        bound = wilson(0, size, confidence).high
        interval, method = Interval(-bound, bound), "wilson bound of no disagreement"
    elif interval is None:
        interval, method = None, "none: all resamples agree"
    return PairedDifference(
        difference=difference,
        low=None if interval is None else min(interval.low, difference),
        high=None if interval is None else max(interval.high, difference),
        n=n,
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar_exact(only_a, only_b),
        method=method,
    )


def minimum_detectable_effect(
    n: int, discordant_rate: float, *, power: float = 0.8, confidence: float = 0.95
) -> float | None:
    """Return the smallest true difference in accuracy that `n` paired rows would show.

    Solves the sample-size formula of McNemar's test (Miettinen 1968),
    n d^2 = (z_a sqrt(r) + z_b sqrt(r - d^2))^2, for d. A difference d needs disagreement of at
    least d, so r = max(`discordant_rate`, d). The exact test adds a floor: with 95% confidence six
    rows must disagree, all one way.

    Args:
        n: Rows that both have scored.
        discordant_rate: Share of rows on which exactly one of the two is right.
        power: Chance of finding a true difference of that size.
        confidence: 1 minus the level of the two-sided test.

    Returns:
        The difference in 0..1, or `None` if no difference could be shown with so few rows.

    Raises:
        ValueError: A rate lies outside 0..1 or `n` is negative.
    """
    if n < 0 or not 0 <= discordant_rate <= 1:
        raise ValueError(f"n = {n} and discordant_rate = {discordant_rate} must be in range")
    z_level, z_power = _z(0.5 + _checked(confidence) / 2), _z(_checked(power))
    least_rows = math.ceil(math.log2(2 / (1 - confidence)))

    def surplus(effect: float) -> float:
        rate = max(discordant_rate, effect)
        need = z_level * math.sqrt(rate) + z_power * math.sqrt(max(rate - effect**2, 0.0))
        return n * effect**2 - need**2

    if n < least_rows or surplus(1.0) < 0:
        return None
    low, high = 0.0, 1.0
    for _ in range(60):  # halves the bracket to below 1e-17
        middle = (low + high) / 2
        low, high = (low, middle) if surplus(middle) >= 0 else (middle, high)
    return max(high, least_rows / n)


def required_negatives(
    fpr_target: float, observed_fpr: float, confidence: float = 0.95
) -> int | None:
    """Return how many negatives would prove `fpr_target`, if the FPR stays as observed.

    The proof is the one-sided Clopper-Pearson bound: P(at most k of N | target) <= 1 - confidence,
    with k the false alarms that go with `observed_fpr`. With none observed, 1% at 95% needs 299.

    Returns:
        The number, or `None` if more would not help: the observed rate is not below the target, or
        so near that over a thousand million would be needed.

    Raises:
        ValueError: A rate lies outside 0..1, or the target is 0 or 1.
    """
    error = 1 - _checked(confidence)
    if not 0 < fpr_target < 1 or not 0 <= observed_fpr <= 1:
        raise ValueError(
            f"fpr_target = {fpr_target} must lie inside 0..1, "
            f"observed_fpr = {observed_fpr} within 0..1"
        )
    if observed_fpr >= fpr_target:
        return None

    def least(k: int) -> int:
        low, high = k, 2 * k + 2
        while special.bdtr(float(k), high, fpr_target) > error:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            enough = special.bdtr(float(k), middle, fpr_target) <= error
            low, high = (low, middle) if enough else (middle, high)
        return high

    low, high = -1, 0
    while high < observed_fpr * least(high):
        low, high = high, 2 * high + 1
        if high > _MOST_NEGATIVES * fpr_target:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle >= observed_fpr * least(middle) else (middle, high)
    needed = least(high)
    return needed if needed <= _MOST_NEGATIVES else None


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence and power lie inside 0..1 (0.95 for 95%), got {confidence}")
    return confidence


def _counts(k: ArrayLike, n: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    hits, rows = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(n, np.float64))
    fits = (hits >= 0) & (hits <= rows)
    if not bool(np.all(fits)):
        first = int(np.flatnonzero(~fits)[0])
        k_seen, n_seen = hits.reshape(-1)[first], rows.reshape(-1)[first]
        raise ValueError(f"a count lies outside 0..n: k = {k_seen:g}, n = {n_seen:g}")
    return hits, rows


def _z(probability: float) -> float:
    return float(special.ndtri(probability))

"""Tests of two on the same rows, corrected for their number, and the rows that would decide them.

Counts and gains in, p-values and row numbers out; it knows no metric and no dataset.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import special

from shield_engine.statistics.intervals import (
    MOST_ROWS,
    Figure,
    checked_level,
    design_effect,
    normal_quantile,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shield_engine.statistics.arrays import Ints, Mask


__all__ = [
    "PairTest",
    "grouped_mcnemar",
    "holm",
    "mcnemar_exact",
    "minimum_detectable_effect",
    "pair_p_value",
    "pair_test",
    "required_negatives",
    "rows_for_scaled",
    "rows_needed",
    "settled",
]

Scope = Literal["all", "risky", "harmless"]

_POWER = 0.8


@dataclass(frozen=True, slots=True)
class PairTest:
    """Whether the candidate is right more often than the baseline on one kind of rows.

    Attributes:
        scope: All rows, the risky ones (misses) or the harmless ones (false alarms).
        n: Rows of that kind.
        only_baseline: Rows that only the baseline has right.
        only_candidate: Rows that only the candidate has right.
        difference: Accuracy on these rows, candidate minus baseline: of recall on risky rows, of
            1 - FPR on harmless ones.
        p_value: Exact McNemar test, two-sided; with groups, whole groups change sides.
        p_adjusted: After Holm, over all tests of the comparison.
        is_decided: True if `p_adjusted` is at most 1 - confidence.
        detectable: Smallest true difference that these rows would show four times in five, at the
            level that Holm asks of what is still undecided; `None` if none.
        rows_needed: Further rows of this kind that would decide four times in five if the rates
            stay as observed; `None` if decided, or if no difference shows.
        design_effect: How many rows of these groups are worth one independent row; 1 without.
    """

    scope: Scope
    n: int
    only_baseline: int
    only_candidate: int
    difference: float
    p_value: float
    p_adjusted: float
    is_decided: bool
    detectable: float | None
    rows_needed: int | None
    design_effect: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return the test as plain JSON values."""
        return asdict(self)


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


def grouped_mcnemar(gains: Ints) -> float:
    """Return the two-sided p-value of McNemar's test where rows come in groups.

    Under the null hypothesis the two are interchangeable within each group, so the sign of each
    group's gain is a fair coin. The p-value is exact over all signs: the sum's distribution is one
    inverse Fourier transform of the product of the groups' (1 + e^(-i m w)) / 2. With gains of -1,
    0 and 1 it is `mcnemar_exact`.

    Args:
        gains: Of each group, rows that only the candidate has right minus rows that only the
            baseline has right, shape (groups,).
    """
    sizes = np.abs(gains[gains != 0])
    if not len(sizes):
        return 1.0
    if int(sizes.max()) == 1:
        return mcnemar_exact(int(np.sum(gains < 0)), int(np.sum(gains > 0)))
    total = int(sizes.sum())
    far = abs(int(gains.sum()))
    if far == total:  # the transform's rounding, some 1e-16, would drown so small a value
        return min(1.0, 2.0 * 0.5 ** len(sizes))
    turns = np.arange((total + 1) // 2 + 1) * (2j * np.pi / (total + 1))
    spectrum = np.ones(len(turns), dtype=np.complex128)
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        spectrum *= ((1 + np.exp(-turns * size)) / 2) ** count
    chances = np.fft.irfft(spectrum, total + 1)
    tail = float(np.sum(np.clip(chances[: (total - far) // 2 + 1], 0, None)))
    return min(1.0, max(2 * tail, 2.0 * 0.5 ** min(len(sizes), 1_000)))


def rows_needed(
    n: int,
    discordant_rate: float,
    difference: float,
    *,
    confidence: float = 0.95,
    power: float = _POWER,
    design_effect: float = 1.0,
) -> int | None:
    """Return how many rows beyond `n` would show the observed difference.

    The sample size of McNemar's test (Miettinen 1968): with r the share of rows on which exactly
    one is right and d the difference, N = (z_a sqrt(r) + z_b sqrt(r - d^2))^2 / d^2, and at least so
    many that the exact test can reach its level, N >= log2(2 / (1 - confidence)) / r. Rows in groups
    need `design_effect` times as many.

    Args:
        n: Rows there are.
        discordant_rate: r, 0..1.
        difference: d, -1..1.
        confidence: 1 minus the level of the two-sided test.
        power: Chance of showing it.
        design_effect: Rows that are worth one independent row.

    Returns:
        At least 1, or `None` if no difference shows or over a thousand million would be needed.
    """
    effect = abs(difference)
    if effect == 0:
        return None
    rate = max(discordant_rate, effect)
    z_level, z_power = (normal_quantile(p) for p in (0.5 + confidence / 2, power))
    size = (z_level * math.sqrt(rate) + z_power * math.sqrt(max(rate - effect**2, 0.0))) ** 2
    least = math.log2(2 / (1 - confidence)) / rate
    needed = math.ceil(design_effect * max(size / effect**2, least))
    return max(1, needed - n) if needed <= MOST_ROWS else None


def pair_p_value(baseline: Mask, candidate: Mask, groups: Ints | None) -> float:
    """Return McNemar's two-sided p-value of who is right more often; see `pair_test`."""
    gain = candidate.astype(np.int64) - baseline.astype(np.int64)
    if groups is None:
        return mcnemar_exact(int(np.sum(gain < 0)), int(np.sum(gain > 0)))
    return grouped_mcnemar(np.rint(np.bincount(groups, gain)).astype(np.int64))


def pair_test(scope: Scope, baseline: Mask, candidate: Mask, groups: Ints | None) -> PairTest:
    """Return the test of one kind of rows, not yet adjusted for the others of its family.

    Args:
        scope: Which kind of rows these are.
        baseline: Whether the baseline is right on each row, shape (n,), at least one row.
        candidate: The same for the candidate.
        groups: Codes of rows that belong together, shape (n,).
    """
    gain = candidate.astype(np.int64) - baseline.astype(np.int64)
    lost, won = int(np.sum(gain < 0)), int(np.sum(gain > 0))
    codes = None if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    p_value = pair_p_value(baseline, candidate, codes)
    return PairTest(
        scope=scope,
        n=len(gain),
        only_baseline=lost,
        only_candidate=won,
        difference=(won - lost) / len(gain),
        p_value=p_value,
        p_adjusted=p_value,
        is_decided=False,
        detectable=None,
        rows_needed=None,
        design_effect=max(1.0, (design_effect(gain, codes) or 1.0) if codes is not None else 1.0),
    )


def settled(test: PairTest, p_adjusted: float, level: float, confidence: float) -> PairTest:
    """Return the test with its place in the family.

    Args:
        test: From `pair_test`.
        p_adjusted: After Holm.
        level: What Holm asks of the next undecided test: (1 - confidence) / undecided tests.
        confidence: Of the whole family.
    """
    is_decided = p_adjusted <= 1 - confidence
    rate = (test.only_baseline + test.only_candidate) / test.n
    size = max(1, int(test.n / test.design_effect))
    return replace(
        test,
        p_adjusted=p_adjusted,
        is_decided=is_decided,
        detectable=minimum_detectable_effect(size, rate, confidence=1 - level),
        rows_needed=None
        if is_decided
        else rows_needed(
            test.n,
            rate,
            test.difference,
            confidence=1 - level,
            design_effect=test.design_effect,
        ),
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
    z_level, z_power = (
        normal_quantile(0.5 + checked_level(confidence) / 2),
        normal_quantile(checked_level(power)),
    )
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
    error = 1 - checked_level(confidence)
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
        if high > MOST_ROWS * fpr_target:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle >= observed_fpr * least(middle) else (middle, high)
    needed = least(high)
    return needed if needed <= MOST_ROWS else None


def rows_for_scaled(figure: Figure, limit: float, *, is_upper: bool) -> int | None:
    """Return how many more rows would let a bound clear `limit` if the figure stays as it is.

    The distance of a bound from its figure shrinks with the square root of the rows. `None` if
    the figure is not on the right side of the limit.

    Args:
        figure: The figure.
        limit: What its bound must clear.
        is_upper: True if the upper bound must come below the limit.
    """
    bound = figure.high if is_upper else figure.low
    if figure.value is None or bound is None:
        return None
    room = limit - figure.value if is_upper else figure.value - limit
    if room <= 0:
        return None
    needed = figure.n * (abs(bound - figure.value) / room) ** 2
    return max(1, math.ceil(needed - figure.n)) if needed <= MOST_ROWS else None

"""Intervals and bounds of single figures and paired ones, alone and in groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import (
    Interval,
    clopper_pearson,
    clopper_pearson_bounds,
    effective_size,
    paired_proportion,
    percentile_bounds,
    proportion,
    rows_for_percentile,
    tango_bounds,
    wilson,
    wilson_bounds,
)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 20), (3, 20), (20, 20), (977, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_and_clopper_pearson_equal_scipy(k: int, n: int, confidence: float) -> None:
    """Both intervals are those of scipy's binomial test."""
    test = stats.binomtest(k, n)
    expected = test.proportion_ci(confidence, method="wilson")
    found = wilson(k, n, confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    expected = test.proportion_ci(confidence, method="exact")
    exact = clopper_pearson(k, n, confidence)
    assert (exact.low, exact.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_by_hand() -> None:
    """One success of two rows at z = 1 gives 1/2 -+ 1/(2 sqrt 3)."""
    one_sigma = float(2 * stats.norm.cdf(1) - 1)
    found = wilson(1, 2, one_sigma)
    assert found.low == pytest.approx(0.5 - 1 / (2 * 3**0.5))
    assert found.high == pytest.approx(0.5 + 1 / (2 * 3**0.5))


def test_nothing_is_known_without_rows() -> None:
    """Without rows both intervals are 0 to 1."""
    assert wilson(0, 0) == Interval(0.0, 1.0)
    assert clopper_pearson(0, 0) == Interval(0.0, 1.0)


def test_one_sided_bound_is_the_rule_of_three() -> None:
    """No false alarm in 299 negatives proves an FPR of 1% at 95%, 298 do not."""
    assert clopper_pearson(0, 299, side="upper").high <= 0.01
    assert clopper_pearson(0, 298, side="upper").high > 0.01
    assert clopper_pearson(0, 299, side="upper").low == 0
    assert clopper_pearson(299, 299, side="lower").low == pytest.approx(0.05 ** (1 / 299))
    assert clopper_pearson(5, 10, side="lower").high == 1


def test_bounds_of_many_equal_bounds_of_one() -> None:
    """The vectorised forms give the scalar forms' ends."""
    k, n = np.array([0, 3, 7, 10]), 10
    low, high = wilson_bounds(k, n)
    assert [Interval(a, b) for a, b in zip(low, high, strict=True)] == [wilson(x, n) for x in k]
    low, high = clopper_pearson_bounds(k, n, side="upper")
    assert high.tolist() == [clopper_pearson(x, n, side="upper").high for x in k]
    assert low.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    """A count outside 0..n is an error that shows it."""
    with pytest.raises(ValueError, match=f"k = {k}, n = {n}"):
        wilson(k, n)
    with pytest.raises(ValueError, match=r"outside 0\.\.n"):
        clopper_pearson(k, n)


def test_percent_confidence_is_refused() -> None:
    """A confidence of 95 is an error that tells the right form."""
    with pytest.raises(ValueError, match=r"0\.95 for 95%"):
        wilson(1, 2, 95)


def test_unknown_side_is_refused() -> None:
    """A misspelt side is an error that lists the sides."""
    with pytest.raises(ValueError, match="'two', 'lower' or 'upper'"):
        clopper_pearson(1, 2, side="both")  # type: ignore[arg-type]


def test_wilson_covers_as_promised() -> None:
    """Averaged over rates, a 95% Wilson interval holds the true rate in 93-97% of samples."""
    rng = np.random.default_rng(3)
    rates = rng.uniform(0.05, 0.95, 4_000)
    low, high = wilson_bounds(rng.binomial(40, rates), 40)
    covered = float(np.mean((low <= rates) & (rates <= high)))
    assert 0.93 <= covered <= 0.97


def test_effective_size_of_copies_is_the_number_of_groups() -> None:
    """Groups whose rows are all alike are worth about one row each; single rows keep their n."""
    rows = np.full(40, 5.0)
    hits = np.where(np.arange(40) < 10, 5.0, 0.0)
    assert effective_size(hits, rows) == pytest.approx(39.0)
    assert effective_size((hits > 0).astype(float), np.ones(40)) == pytest.approx(39.0)
    assert effective_size(rows, rows) == 40
    assert effective_size(np.zeros(0), np.zeros(0)) == 0
    assert effective_size(np.array([2.0]), np.array([9.0])) == 1


def test_proportion_bounds_by_hand() -> None:
    """No hit among n leaves 1 - 0.05^(1/n) possible: 4.87% of 60, and nothing below."""
    bounds = proportion(np.zeros(60, bool), np.ones(60, bool), None, bound="exact")
    assert bounds.low == 0
    assert bounds.high == pytest.approx(1 - 0.05 ** (1 / 60), abs=1e-12)
    assert bounds.n == 60
    empty = proportion(np.ones(3, bool), np.zeros(3, bool), None, bound="exact", empty="no rows")
    assert empty == Figure(None, None, None, 0, "no rows")


def test_groups_of_equal_rows_count_once() -> None:
    """Ten copies of each row say as much as the row alone, not ten times as much."""
    hits = np.repeat([True, False], [20, 20])
    alone = proportion(hits, np.ones(40, bool), None, bound="exact")
    groups = np.repeat(np.arange(40), 10)
    copied = proportion(np.repeat(hits, 10), np.ones(400, bool), groups, bound="exact")
    assert copied.low is not None and alone.low is not None  # noqa: PT018
    assert copied.n == 400
    assert 35 < copied.worth < 40
    assert alone.low - 0.03 < copied.low < alone.low
    single = proportion(np.repeat(hits, 10), np.ones(400, bool), np.zeros(400, int), bound="exact")
    assert single.low is None
    assert "one group" in (single.reason or "")


@pytest.mark.parametrize(("n", "least"), [(58, None), (59, 58)])
def test_percentile_needs_enough_rows(n: int, least: int | None) -> None:
    """The largest of 59 values bounds the 95th percentile at 95%: .95^59 < .05 < .95^58."""
    assert rows_for_percentile(0.95, 0.95) == 59
    bounds = percentile_bounds(np.arange(n, dtype=float), 95, None, 0.95, "")
    assert bounds.high == (None if least is None else float(least))


@pytest.mark.parametrize("percentile", [50, 95, 99])
@pytest.mark.parametrize("n", [100, 1_000])
def test_percentile_bounds_are_the_binomial_ranks(n: int, percentile: int) -> None:
    """Each bound is the tightest order statistic that scipy's binomial allows."""
    bounds = percentile_bounds(np.arange(1, n + 1, dtype=float), percentile, None, 0.95, "")
    share = percentile / 100
    ranks = np.arange(1, n + 1)
    enough = ranks[stats.binom.cdf(ranks - 1, n, share) >= 0.95]
    expected = float(enough[0]) if len(enough) else None
    assert bounds.high == expected
    few = ranks[stats.binom.cdf(ranks - 1, n, share) <= 0.05]
    assert bounds.low == float(few[-1])


def test_tango_bounds_by_hand_and_by_definition() -> None:
    """Without disagreement the bound is z^2 / (n + z^2); else the score test is at its level."""
    z = stats.norm.ppf(0.95)
    low, high = tango_bounds(0, 0, 200, 0.95)
    assert high == pytest.approx(z**2 / (200 + z**2), abs=1e-9)
    assert low == pytest.approx(-high, abs=1e-12)
    low, high = tango_bounds(12, 5, 100, 0.95)
    assert low < 0.07 < high
    for end, sign in ((low, 1), (high, -1)):
        assert _score(12, 5, 100, end) == pytest.approx(sign * z, abs=1e-6)
    assert tango_bounds(5, 12, 100, 0.95) == pytest.approx((-high, -low), abs=1e-12)


def _score(gained: int, lost: int, n: int, difference: float) -> float:
    """Return Tango's statistic with the restricted estimate found by search, not by formula."""
    rates = np.linspace(max(0, -difference) + 1e-9, (1 - difference) / 2 - 1e-9, 2_000_001)
    likelihood = (
        gained * np.log(rates + difference)
        + lost * np.log(rates)
        + (n - gained - lost) * np.log(1 - 2 * rates - difference)
    )
    rate = rates[np.argmax(likelihood)]
    variance = n * (2 * rate + difference * (1 - difference))
    return float((gained - lost - n * difference) / math.sqrt(variance))


@pytest.mark.parametrize(("n", "margin"), [(100, 0.05), (200, 0.02)])
def test_paired_gate_at_its_limit_passes_at_most_one_time_in_twenty(n: int, margin: float) -> None:
    """Exactly, over every outcome: a candidate worse by the margin passes with at most 5%."""
    clears = {}
    for disagreeing in (margin, 1.5 * margin, margin + 0.05):
        chance = 0.0
        lost_rate, gained_rate = (disagreeing + margin) / 2, (disagreeing - margin) / 2
        for lost in range(int(n * disagreeing) + 16):
            for gained in range(int(n * disagreeing) + 16):
                counts = [gained, lost, n - gained - lost]
                rates = [gained_rate, lost_rate, 1 - disagreeing]
                probability = stats.multinomial.pmf(counts, n, rates)
                if probability < 1e-8:
                    continue
                key = (gained, lost)
                if key not in clears:
                    clears[key] = tango_bounds(gained, lost, n, 0.95)[0] >= -margin
                chance += float(probability) * clears[key]
        assert chance <= 0.05


@pytest.mark.parametrize("size", [1, 5])
def test_absolute_gate_at_its_limit_passes_at_most_one_time_in_twenty(size: int) -> None:
    """Simulated at the limit: alone or in groups whose rows resemble one another."""
    rng = np.random.default_rng(11)
    passed = 0
    count, groups = 1_500, 60
    codes = np.repeat(np.arange(groups), size)
    for _ in range(count):
        rates = rng.beta(0.9 * 2, 0.1 * 2, groups) if size > 1 else np.full(groups, 0.9)
        hits = rng.random(groups * size) < np.repeat(rates, size)
        bounds = proportion(hits, np.ones(len(hits), bool), codes, bound="exact")
        passed += bounds.low is not None and bounds.low >= 0.9
    assert passed / count <= 0.06  # 0.05 and two standard errors of the simulation


def test_paired_groups_count_once_and_disagreement_is_kept() -> None:
    """Copies in groups widen the bounds to those of the rows alone."""
    rng = np.random.default_rng(3)
    before, after = rng.random(80) < 0.7, rng.random(80) < 0.7
    alone = paired_proportion(before, after, None, 0.95, "")
    copied = paired_proportion(
        np.repeat(before, 4), np.repeat(after, 4), np.repeat(np.arange(80), 4), 0.95, ""
    )
    assert copied.value == pytest.approx(alone.value)
    assert copied.low == pytest.approx(alone.low, abs=0.01)
    assert copied.differing == alone.differing == np.mean(before != after)

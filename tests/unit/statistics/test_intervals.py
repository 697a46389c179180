"""Intervals, resampling, paired tests and sample sizes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from shield_engine.statistics.intervals import (
    Interval,
    clopper_pearson,
    clopper_pearson_bounds,
    effective_size,
    holm,
    mcnemar_exact,
    minimum_detectable_effect,
    paired_difference,
    percentile_interval,
    required_negatives,
    resample_count,
    resample_weights,
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


def test_fewer_resamples_for_more_rows() -> None:
    """The default is 1,000, resamples times rows stay at 20 million, the least is 200."""
    assert [resample_count(n) for n in (0, 20_000, 40_000, 10**6)] == [1_000, 1_000, 500, 200]


def test_rows_are_drawn_within_their_class() -> None:
    """Each resample keeps the size of each class, and the same seed draws the same."""
    strata = np.array([0] * 7 + [1] * 3)
    drawn = np.concatenate(list(resample_weights(strata, resamples=50, seed=1)))
    again = np.concatenate(list(resample_weights(strata, resamples=50, seed=1)))
    other = np.concatenate(list(resample_weights(strata, resamples=50, seed=2)))
    assert drawn.shape == (50, 10)
    assert set(drawn[:, :7].sum(axis=1)) == {7}
    assert set(drawn[:, 7:].sum(axis=1)) == {3}
    assert np.array_equal(drawn, again)
    assert not np.array_equal(drawn, other)


def test_weights_are_those_of_drawing_with_replacement() -> None:
    """Mean and variance of a row's weight are those of a multinomial draw."""
    strata = np.zeros(5, dtype=np.int64)
    drawn = np.concatenate(list(resample_weights(strata, resamples=200_000, seed=4)))
    assert drawn.mean(axis=0) == pytest.approx(np.ones(5), abs=0.01)
    assert drawn.var(axis=0) == pytest.approx(np.full(5, 0.8), abs=0.02)


def test_groups_are_drawn_whole_among_their_kind() -> None:
    """Rows of a group share a weight, and pure groups replace only groups of the same class."""
    groups = np.array([0, 0, 1, 2, 2, 3, 1])
    strata = np.array([0, 0, 0, 1, 1, 1, 0])
    drawn = np.concatenate(list(resample_weights(strata, resamples=60, seed=5, groups=groups)))
    for group in range(4):
        rows = drawn[:, groups == group]
        assert np.array_equal(rows, np.repeat(rows[:, :1], rows.shape[1], axis=1))
    assert set(drawn[:, 0] + drawn[:, 2]) == {2}
    assert set(drawn[:, 3] + drawn[:, 5]) == {2}


def test_single_row_groups_change_nothing() -> None:
    """With each row its own group the draws are those without groups."""
    strata = np.array([0, 0, 0, 1, 1])
    plain = np.concatenate(list(resample_weights(strata, resamples=20, seed=6)))
    grouped = np.concatenate(
        list(resample_weights(strata, resamples=20, seed=6, groups=np.arange(5)))
    )
    assert np.array_equal(plain, grouped)


def test_percentile_interval_leaves_undefined_samples_out() -> None:
    """NaN samples are left out; too many of them, or samples all alike, give no interval."""
    samples = np.array([0.0, 1.0, 2.0, 3.0, 4.0, np.nan])
    assert percentile_interval(samples, 0.5) == Interval(1.0, 3.0)
    assert percentile_interval(np.array([1.0, 2.0, np.nan, np.nan, np.nan])) is None
    assert percentile_interval(np.full(9, 0.3)) is None
    assert percentile_interval(np.zeros(0)) is None


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 5), (0, 6), (3, 11), (8, 8), (40, 90)])
def test_mcnemar_equals_the_binomial_test(b: int, c: int) -> None:
    """The p-value is that of scipy's two-sided binomial test at one half."""
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_exact(c, b) == mcnemar_exact(b, c)


def test_mcnemar_refuses_negative_counts() -> None:
    """A negative count is an error."""
    with pytest.raises(ValueError, match="b = -1"):
        mcnemar_exact(-1, 3)


def test_holm_by_hand() -> None:
    """Sorted p-values are multiplied by 4, 3, 2, 1 and never fall; the order given is kept."""
    adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        holm([0.2, float("nan")])


def test_paired_difference_by_hand() -> None:
    """B gains on 30 rows and loses 10 of 200: +0.1, significant, interval above 0."""
    correct_a = np.r_[np.zeros(30, bool), np.ones(10, bool), np.ones(160, bool)]
    correct_b = np.r_[np.ones(30, bool), np.zeros(10, bool), np.ones(160, bool)]
    found = paired_difference(correct_a, correct_b)
    assert (found.difference, found.only_a, found.only_b, found.n) == (0.1, 10, 30, 200)
    assert found.p_value == pytest.approx(stats.binomtest(10, 40).pvalue)
    standard_error = (0.2 - 0.01) ** 0.5 / 200**0.5
    assert found.low == pytest.approx(0.1 - 1.96 * standard_error, abs=0.01)
    assert found.high == pytest.approx(0.1 + 1.96 * standard_error, abs=0.01)
    assert found == paired_difference(correct_a, correct_b)


def test_paired_difference_over_groups_is_wider_for_copies() -> None:
    """Ten copies of each row, grouped, leave the interval of the single rows, not a tenth."""
    rng = np.random.default_rng(0)
    correct_a, correct_b = rng.random(60) < 0.6, rng.random(60) < 0.8
    single = paired_difference(correct_a, correct_b)
    copies = paired_difference(
        np.repeat(correct_a, 10), np.repeat(correct_b, 10), groups=np.repeat(np.arange(60), 10)
    )
    assert copies.difference == single.difference
    assert copies.low == pytest.approx(single.low, abs=0.03)
    assert copies.high == pytest.approx(single.high, abs=0.03)


def test_paired_difference_without_disagreement_is_not_certain() -> None:
    """Rows that never disagree bound the difference by how much disagreement they may hide."""
    same = np.ones(20, dtype=bool)
    found = paired_difference(same, same)
    assert found.difference == 0
    assert (found.low, found.high) == (-wilson(0, 20).high, wilson(0, 20).high)
    assert found.p_value == 1
    one = paired_difference([True], [False])
    assert (one.difference, one.low, one.high) == (-1, None, None)


def test_paired_difference_needs_the_same_rows() -> None:
    """Arrays of different length, or empty ones, are an error that shows their shapes."""
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        paired_difference([True, False], [True, False, True])
    with pytest.raises(ValueError, match="at least one row"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="groups has 1 entries for 2 rows"):
        paired_difference([True, False], [True, True], groups=["a"])


def test_minimum_detectable_effect_is_found_at_its_power() -> None:
    """McNemar's exact test finds the effect in about 80% of simulated comparisons."""
    n, rate = 800, 0.12
    effect = minimum_detectable_effect(n, rate)
    assert effect is not None
    assert effect == pytest.approx((1.96 + 0.8416) * (rate / n) ** 0.5, rel=0.02)
    rng = np.random.default_rng(1)
    cells = [(rate - effect) / 2, (rate + effect) / 2, 1 - rate]
    drawn = rng.multinomial(n, cells, 1_500)
    found = np.mean([mcnemar_exact(int(b), int(c)) <= 0.05 for b, c, _ in drawn])
    assert 0.72 <= found <= 0.84


def test_minimum_detectable_effect_has_a_floor() -> None:
    """Six rows must disagree one way; with fewer rows nothing can be shown."""
    assert minimum_detectable_effect(5, 0.5) is None
    small = minimum_detectable_effect(1_000, 0.0)
    assert small is not None
    assert small >= 6 / 1_000
    assert minimum_detectable_effect(1_000, 0.0, power=0.5) == 6 / 1_000
    wide, narrow = minimum_detectable_effect(100, 0.2), minimum_detectable_effect(400, 0.2)
    assert wide is not None
    assert narrow is not None
    assert wide == pytest.approx(2 * narrow, rel=0.05)
    with pytest.raises(ValueError, match="discordant_rate = 2"):
        minimum_detectable_effect(10, 2)


@pytest.mark.parametrize("target", [0.01, 0.05])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_required_negatives_prove_the_target(target: float, share: float) -> None:
    """With that many negatives and the observed rate, the one-sided bound meets the target."""
    observed = share * target
    needed = required_negatives(target, observed)
    assert needed is not None
    false_alarms = int(np.ceil(observed * needed - 1e-9))
    assert clopper_pearson(false_alarms, needed, side="upper").high <= target + 1e-12
    fewer = int(needed * 0.9)
    more_alarms = int(np.ceil(observed * fewer))
    assert clopper_pearson(more_alarms, fewer, side="upper").high > target


def test_required_negatives_by_hand() -> None:
    """None observed at 1% needs ln(0.05) / ln(0.99) = 298.07, so 299; too many cannot be cured."""
    assert required_negatives(0.01, 0.0) == 299
    assert required_negatives(0.01, 0.01) is None
    assert required_negatives(0.01, 0.5) is None
    assert required_negatives(0.01, 0.01 - 1e-9) is None
    with pytest.raises(ValueError, match="fpr_target = 0"):
        required_negatives(0, 0)

"""Resampling of rows, groups and cells, and what is estimated by it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from shield_engine.statistics.intervals import Interval, wilson
from shield_engine.statistics.resampling import (
    Resamples,
    paired_difference,
    paired_percentile_bounds,
    percentile_interval,
    resample_count,
)
from shield_engine.statistics.tests import pair_p_value, pair_test


def test_fewer_resamples_for_more_rows() -> None:
    """The default is 1,000, resamples times rows stay at 20 million, the least is 200."""
    assert [resample_count(n) for n in (0, 20_000, 40_000, 10**6)] == [1_000, 1_000, 500, 200]


def test_rows_are_drawn_within_their_class() -> None:
    """Each resample keeps the size of each class, and the same seed draws the same."""
    strata = np.array([0] * 7 + [1] * 3)
    drawn = np.concatenate(list(Resamples(strata, None, 50, 1).rows()))
    again = np.concatenate(list(Resamples(strata, None, 50, 1).rows()))
    other = np.concatenate(list(Resamples(strata, None, 50, 2).rows()))
    assert drawn.shape == (50, 10)
    assert set(drawn[:, :7].sum(axis=1)) == {7}
    assert set(drawn[:, 7:].sum(axis=1)) == {3}
    assert np.array_equal(drawn, again)
    assert not np.array_equal(drawn, other)


def test_weights_are_those_of_drawing_with_replacement() -> None:
    """Mean and variance of a row's weight are those of a multinomial draw."""
    strata = np.zeros(5, dtype=np.int64)
    drawn = np.concatenate(list(Resamples(strata, None, 200_000, 4).rows()))
    assert drawn.mean(axis=0) == pytest.approx(np.ones(5), abs=0.01)
    assert drawn.var(axis=0) == pytest.approx(np.full(5, 0.8), abs=0.02)


def test_groups_are_drawn_whole_among_their_kind() -> None:
    """Rows of a group share a weight, and pure groups replace only groups of the same class."""
    groups = np.array([0, 0, 1, 2, 2, 3, 1])
    strata = np.array([0, 0, 0, 1, 1, 1, 0])
    drawn = np.concatenate(list(Resamples(strata, groups, 60, 5).rows()))
    for group in range(4):
        rows = drawn[:, groups == group]
        assert np.array_equal(rows, np.repeat(rows[:, :1], rows.shape[1], axis=1))
    assert set(drawn[:, 0] + drawn[:, 2]) == {2}
    assert set(drawn[:, 3] + drawn[:, 5]) == {2}


def test_single_row_groups_change_nothing() -> None:
    """With each row its own group the draws are those without groups."""
    strata = np.array([0, 0, 0, 1, 1])
    plain = np.concatenate(list(Resamples(strata, None, 20, 6).rows()))
    grouped = np.concatenate(list(Resamples(strata, np.arange(5), 20, 6).rows()))
    assert np.array_equal(plain, grouped)


@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]])
def test_cells_are_drawn_as_their_rows_are(groups: list[int] | None) -> None:
    """Counts of cells have the mean and the covariance of the sums of row weights."""
    classes = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    cell = np.array([0, 1, 0, 1, 2, 3, 3, 2, 4, 4, 3, 2])
    codes = None if groups is None else np.array(groups)
    drawn = Resamples(classes, codes, 100_000, 3).cells(cell, 5)
    rows = np.concatenate(list(Resamples(classes, codes, 100_000, 4).rows()))
    sums = rows @ (cell[:, None] == np.arange(5))
    assert drawn.mean(axis=0) == pytest.approx(np.bincount(cell), abs=0.02)
    assert np.cov(drawn.T) == pytest.approx(np.cov(sums.T), abs=0.04)
    assert np.array_equal(drawn, Resamples(classes, codes, 100_000, 3).cells(cell, 5))


def test_cells_of_nothing_are_none() -> None:
    """Without rows there is nothing to draw, and no error."""
    empty = np.zeros(0, dtype=np.int64)
    assert Resamples(empty, None, 5, 1).cells(empty, 2).tolist() == [[0.0, 0.0]] * 5
    assert Resamples(empty, empty, 0, 1).cells(empty, 0).shape == (0, 0)


def test_percentile_interval_leaves_undefined_samples_out() -> None:
    """NaN samples are left out; too many of them, or samples all alike, give no interval."""
    samples = np.array([0.0, 1.0, 2.0, 3.0, 4.0, np.nan])
    assert percentile_interval(samples, 0.5) == Interval(1.0, 3.0)
    assert percentile_interval(np.array([1.0, 2.0, np.nan, np.nan, np.nan])) is None
    assert percentile_interval(np.full(9, 0.3)) is None
    assert percentile_interval(np.zeros(0)) is None


def test_paired_difference_by_hand() -> None:
    """B gains on 30 rows and loses 10 of 200: +0.1, significant, interval above 0."""
    correct_a = np.r_[np.zeros(30, bool), np.ones(10, bool), np.ones(160, bool)]
    correct_b = np.r_[np.ones(30, bool), np.zeros(10, bool), np.ones(160, bool)]
    found = paired_difference(correct_a, correct_b)
    test = pair_test("all", correct_a, correct_b, None)
    assert (found.value, found.n) == (0.1, 200)
    assert (test.difference, test.only_baseline, test.only_candidate, test.n) == (0.1, 10, 30, 200)
    assert test.p_value == pytest.approx(stats.binomtest(10, 40).pvalue)
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
    assert copies.value == single.value
    assert copies.low == pytest.approx(single.low, abs=0.03)
    assert copies.high == pytest.approx(single.high, abs=0.03)


def test_paired_difference_without_disagreement_is_not_certain() -> None:
    """Rows that never disagree bound the difference by how much disagreement they may hide."""
    same = np.ones(20, dtype=bool)
    found = paired_difference(same, same)
    assert found.value == 0
    assert (found.low, found.high) == (-wilson(0, 20).high, wilson(0, 20).high)
    assert pair_p_value(same, same, None) == 1
    one = paired_difference([True], [False])
    assert (one.value, one.low, one.high) == (-1, None, None)


def test_paired_difference_needs_the_same_rows() -> None:
    """Arrays of different length, or empty ones, are an error that shows their shapes."""
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        paired_difference([True, False], [True, False, True])
    with pytest.raises(ValueError, match="at least one row"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="groups has 1 entries for 2 rows"):
        paired_difference([True, False], [True, True], groups=["a"])


def test_paired_percentile_sees_a_shift() -> None:
    """Two milliseconds more on every row are two more at p95, whatever the resample."""
    times = np.random.default_rng(5).gamma(2, 3, 400)
    bounds = paired_percentile_bounds(times, times + 2, 95, None, 0.95, 7, "")
    assert (bounds.value, bounds.low, bounds.high) == pytest.approx((2, 2, 2))
    few = paired_percentile_bounds(times[:58], times[:58], 95, None, 0.95, 7, "")
    assert few.high is None
    assert "59" in (few.reason or "")

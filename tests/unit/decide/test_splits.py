"""Splits that keep groups whole, and how much a choice flatters on its own rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from shield_engine.decide.column import ScoreColumn
from shield_engine.decide.splits import choose_and_report, optimism, slice_choices, split
from shield_engine.decide.thresholds import ThresholdRule


def test_split_keeps_units_whole_and_classes_even() -> None:
    """No unit is on both sides, both sides have like shares of risky rows, a seed repeats it."""
    rng = np.random.default_rng(0)
    units = rng.integers(0, 300, 2_000)
    labels = (rng.random(2_000) < 0.2).astype(int)
    chosen = split(units, labels, seed=3)
    assert not set(units[chosen]) & set(units[~chosen])
    assert 0.45 < chosen.mean() < 0.55
    assert labels[chosen].mean() == pytest.approx(labels[~chosen].mean(), abs=0.05)
    assert np.array_equal(chosen, split(units, labels, seed=3))
    assert not np.array_equal(chosen, split(units, labels, seed=4))


def test_split_of_few_rows() -> None:
    """None, one and two rows are dealt out without an error."""
    assert split([], []).tolist() == []
    assert len(split([1], [0])) == 1
    assert split([1, 2], [1, 1]).sum() == 1


def test_report_is_of_rows_the_choice_never_saw() -> None:
    """The gap is the objective there minus the objective here, by hand."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.15), 0, 1)
    found = choose_and_report(labels, scores, np.arange(400), ThresholdRule("f1"))
    assert found.choosing.n + found.reporting.n == 400
    assert found.choice.threshold is not None
    here = found.choosing.at(found.choice.threshold).f1[0]
    there = found.reporting.at(found.choice.threshold).f1[0]
    assert found.gap == pytest.approx(here - there)
    assert found.units == 400


def test_rule_that_finds_nothing_reports_nothing() -> None:
    """An infeasible limit leaves gap and optimism unknown."""
    labels, scores = np.array([0, 1] * 20), np.linspace(0, 1, 40)
    rule = ThresholdRule("fpr", limit=0.001)
    assert choose_and_report(labels, scores, np.arange(40), rule).gap is None
    assert optimism(ScoreColumn.of(labels, scores), rule).value is None


@pytest.mark.parametrize("kind", ["f1", "balanced_accuracy", "fpr"])
def test_optimism_is_estimated_without_bias_to_within_a_point(kind: str) -> None:
    """Over many simulated sets the mean estimate meets the mean true optimism.

    The truth is known: scores are normal, so the objective of a threshold on new rows is exact.
    """
    rule = ThresholdRule(kind, limit=0.1)  # type: ignore[arg-type]
    rng = np.random.default_rng(11)
    estimated, true = [], []
    for number in range(150):
        labels = np.repeat([0, 1], [150, 100])
        scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.12), 0, 1)
        column = ScoreColumn.of(labels, scores)
        choice = rule.choose(column)
        assert choice.threshold is not None
        recall = float(stats.norm.sf(choice.threshold, 0.6, 0.12))
        fpr = float(stats.norm.sf(choice.threshold, 0.4, 0.12))
        here = float(rule.objective(column.at(choice.threshold))[0])
        truth = {
            "f1": 2 * 100 * recall / (100 * recall + 150 * fpr + 100),
            "balanced_accuracy": (1 + recall - fpr) / 2,
            "fpr": recall,
        }[kind]
        found = optimism(column, rule, resamples=60, seed=number)
        assert found.value is not None
        estimated.append(found.value)
        true.append(here - truth)
    assert np.mean(estimated) == pytest.approx(np.mean(true), abs=0.01)
    if kind != "fpr":
        assert np.mean(true) > 0.005  # there is optimism to estimate


def test_optimism_repeats_and_widens_with_groups() -> None:
    """The same seed gives the same estimate; rows in groups flatter more."""
    rng = np.random.default_rng(2)
    labels = np.repeat(rng.integers(0, 2, 60), 5)
    scores = np.clip(np.repeat(rng.normal(0, 0.15, 60), 5) + 0.4 + 0.15 * labels, 0, 1)
    rows = ScoreColumn.of(labels, scores)
    grouped = ScoreColumn.of(labels, scores, np.repeat(np.arange(60), 5))
    first, again = optimism(rows, ThresholdRule("f1")), optimism(rows, ThresholdRule("f1"))
    assert first == again
    wide = optimism(grouped, ThresholdRule("f1"))
    assert wide.interval is not None
    assert first.interval is not None
    assert wide.interval.high - wide.interval.low > first.interval.high - first.interval.low


def test_slices_keep_the_common_threshold_unless_rows_decide() -> None:
    """A slice that is shifted far is decided, one that is alike is not."""
    rng = np.random.default_rng(2)
    labels = (rng.random(3_000) < 0.3).astype(np.int64)
    scores = np.where(labels == 1, rng.beta(5, 2, 3_000), rng.beta(2, 5, 3_000))
    values = np.array(["same"] * 1_500 + ["shifted"] * 1_500, dtype=object)
    scores = np.where(values == "shifted", scores * 0.5, scores)
    found = {
        item.value: item
        for item in slice_choices(
            labels, scores, values, np.arange(3_000), ThresholdRule("f1"), 0.5
        )
    }
    assert found["shifted"].is_decided
    assert not found["same"].is_decided
    assert found["shifted"].choice.threshold is not None
    assert found["shifted"].choice.threshold < 0.4
    assert found["same"].risky + found["same"].harmless == 1_500


def test_slices_in_groups_need_groups_to_decide() -> None:
    """What single rows would decide, ten groups of a hundred alike rows cannot."""
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(10), 100)
    labels = np.repeat([0, 1] * 5, 100)
    scores = np.clip(np.repeat(rng.normal(0, 0.05, 10), 100) + 0.3 + 0.1 * labels, 0, 1)
    values = np.array(["one"] * 1_000, dtype=object)
    rows = slice_choices(labels, scores, values, np.arange(1_000), ThresholdRule("f1"), 0.9)
    grouped = slice_choices(labels, scores, values, groups, ThresholdRule("f1"), 0.9, groups=groups)
    assert rows[0].is_decided
    assert not grouped[0].is_decided
    assert grouped[0].p_value > 0.05


def test_optimism_under_a_limit_counts_what_groups_are_worth() -> None:
    """Resamples choose about the threshold that all rows give, not the lower one of single rows."""
    rng = np.random.default_rng(5)
    labels = np.repeat(rng.integers(0, 2, 300), 10)
    scores = np.clip(np.repeat(rng.random(300), 10) * 0.6 + labels * 0.3, 0, 1)
    column = ScoreColumn.of(labels, scores, np.repeat(np.arange(300), 10))
    rule = ThresholdRule("fpr", limit=0.1)
    chosen = rule.choose(column).threshold
    single = rule.choose(ScoreColumn.of(labels, scores)).threshold
    found = optimism(column, rule).thresholds
    assert chosen is not None
    assert single is not None
    assert found is not None
    assert found.low <= chosen <= found.high
    middle = (found.low + found.high) / 2
    assert abs(middle - chosen) < abs(middle - single)

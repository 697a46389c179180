"""Choosing a threshold: counts, constraints, costs, flat regions, slices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from shield_engine.decide.column import ScoreColumn, rates_at
from shield_engine.decide.thresholds import (
    ThresholdRule,
    Weights,
    best_by_cost,
    best_by_metric,
    flat_region,
    highest_recall,
    least_alarms,
    sharpest,
)
from shield_engine.metrics.figures import binary_metrics
from shield_engine.statistics.intervals import (
    clopper_pearson,
    clopper_pearson_bounds,
    effective_size,
)

# Ten harmless rows at 0, .1, ... .9 and four risky ones.
LABELS = np.array([0] * 10 + [1] * 4)
SCORES = np.array([*np.arange(10) / 10, 0.35, 0.65, 0.95, 0.95])
SMALL = ScoreColumn.of(LABELS, SCORES)


def simulated(n: int, seed: int = 0, share: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores of two overlapping classes."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < share).astype(np.int64)
    return labels, np.where(labels == 1, rng.beta(5, 2, n), rng.beta(2, 5, n))


def test_counts_at_a_threshold_include_the_score_itself() -> None:
    """A row whose score equals the threshold is flagged."""
    counts = SMALL.at([0.65, 0.651, 2.0, -1.0])
    assert counts.tp.tolist() == [3, 2, 0, 4]
    assert counts.fp.tolist() == [3, 3, 0, 10]
    assert counts.fn.tolist() == [1, 2, 4, 0]
    assert counts.tn.tolist() == [7, 7, 10, 0]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=60))
def test_rounded_threshold_flags_the_same_rows(rows: list[tuple[bool, int]]) -> None:
    """The readable number of every cut reproduces the cut's counts exactly."""
    column = ScoreColumn.of([int(y) for y, _ in rows], [s / 20 for _, s in rows])
    for cut in column.cuts:
        rounded = column.threshold_of(float(cut))
        assert len(repr(rounded)) <= 18
        for side in (column.risky, column.harmless):
            assert (side >= rounded).sum() == (side >= cut).sum()


@given(st.integers(0, 2**32 - 1))
def test_threshold_in_a_tiny_gap_still_reproduces_its_counts(seed: int) -> None:
    """Neighbouring floats are told apart, whatever their digits."""
    base = float(np.random.default_rng(seed).random())
    near = float(np.nextafter(base, 2.0))
    column = ScoreColumn.of([0, 1], [base, min(near, 1.0)])
    threshold = column.threshold_of(float(column.cuts[0]))
    assert base < threshold <= near


def test_rates_equal_the_metrics_of_the_evaluation() -> None:
    """Values, and the intervals of proportions, are those of `binary_metrics`."""
    labels, scores = simulated(400)
    found = rates_at(ScoreColumn.of(labels, scores), 0.4, resamples=500)
    wanted = binary_metrics(labels, scores, 0.4)
    for name, figure in found.items():
        assert figure.value == pytest.approx(wanted[name].value, abs=1e-12), name
        assert figure.n == wanted[name].n, name
        close = 1e-12 if name in {"recall", "fpr", "precision", "accuracy"} else 0.015
        assert figure.low == pytest.approx(wanted[name].low, abs=close), name
        assert figure.high == pytest.approx(wanted[name].high, abs=close), name


def test_grouped_rates_equal_the_metrics_of_the_evaluation() -> None:
    """With groups, proportions are those of the evaluation to the bit, the others' ends near it."""
    labels, scores = simulated(2_000)
    groups = np.arange(2_000) // 8
    found = rates_at(ScoreColumn.of(labels, scores, groups), 0.4, resamples=2_000)
    wanted = binary_metrics(labels, scores, 0.4, groups=groups, resamples=2_000)
    for name in ("recall", "fpr", "precision", "accuracy"):
        assert found[name] == wanted[name]
    for name in ("f1", "mcc", "balanced_accuracy"):
        assert found[name].value == pytest.approx(wanted[name].value, abs=1e-12)
        assert found[name].low == pytest.approx(wanted[name].low, abs=0.004), name
        assert found[name].high == pytest.approx(wanted[name].high, abs=0.004), name
    assert rates_at(ScoreColumn.of(labels, scores, groups), 0.4)["f1"].low is None


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 8), st.integers(0, 5)), min_size=1, max_size=50
    )
)
def test_rows_in_groups_are_worth_the_same_by_running_sums(
    rows: list[tuple[bool, int, int]],
) -> None:
    """At every threshold the sums over groups give `effective_size` of the groups' counts."""
    labels, scores, groups = (np.array(side) for side in zip(*rows, strict=True))
    column = ScoreColumn.of(labels.astype(int), scores / 8, groups)
    for label in (0, 1):
        side = labels == bool(label)
        if not side.any():
            continue
        for threshold in (*column.cuts, 2.0):
            flagged = scores[side] / 8 >= threshold
            sizes = np.bincount(groups[side]).astype(np.float64)
            wanted = effective_size(np.bincount(groups[side], weights=flagged), sizes)
            hits, worth = column.effective(threshold, label)
            assert worth[0] == pytest.approx(wanted, rel=1e-9)
            assert hits[0] == pytest.approx(flagged.mean() * wanted, rel=1e-9)


@pytest.mark.parametrize("size", [5, 10, 20])
def test_groups_with_equal_rates_are_worth_one_row_each(size: int) -> None:
    """Rounding in the running sums is no spread between groups."""
    groups = np.repeat(np.arange(130), size)
    flagged = np.tile([1] + [0] * (size - 1), 130)
    column = ScoreColumn.of(np.ones(130 * size, dtype=int), flagged, groups)
    assert column.effective(0.5, 1)[1].tolist() == [130.0]


def test_rates_without_a_class_say_why() -> None:
    """No risky rows: no recall, with the reason; nothing flagged: no precision."""
    found = rates_at(ScoreColumn.of([0, 0], [0.1, 0.2]), 0.5)
    assert found["recall"].value is None
    assert found["recall"].reason == "no risky rows"
    assert found["precision"].value is None
    assert found["fpr"].value == 0.0
    assert rates_at(ScoreColumn.of([], []), 0.5)["accuracy"].value is None


def test_fpr_limit_is_judged_by_the_exact_bound() -> None:
    """The chosen threshold keeps the bound, and the next lower cut would break it."""
    labels, scores = simulated(4_000)
    column = ScoreColumn.of(labels, scores)
    choice = highest_recall(column, 0.02)
    assert choice.threshold is not None
    n = len(column.harmless)
    assert choice.bound == clopper_pearson(choice.fp, n, 0.95, "upper").high
    assert choice.bound <= 0.02
    assert choice.fp / n < 0.02
    next_cut = column.cuts[column.cuts < choice.threshold][0]
    lower = column.at([next_cut])
    while lower.fp[0] == choice.fp:
        next_cut = column.cuts[column.cuts < next_cut][0]
        lower = column.at([next_cut])
    assert clopper_pearson(int(lower.fp[0]), n, 0.95, "upper").high > 0.02
    # The exact bound is scipy's.
    exact = stats.binomtest(choice.fp, n, alternative="less").proportion_ci(0.95, method="exact")
    assert choice.bound == pytest.approx(exact.high, abs=1e-9)


def test_infeasible_limit_says_how_many_negatives_it_takes() -> None:
    """298 harmless rows cannot prove 1% at 95%; one more can, with no false alarm."""
    for n, is_enough in ((298, False), (299, True)):
        column = ScoreColumn.of([0] * n + [1], [0.1] * n + [0.9])
        choice = highest_recall(column, 0.01)
        assert (choice.threshold is not None) is is_enough
        if not is_enough:
            assert "at 95% confidence this needs about 1 more negatives" in choice.problem
            assert choice.needed == 299


def test_limit_that_no_number_of_rows_would_help() -> None:
    """If the top score is shared by too many harmless rows, more rows do not help."""
    column = ScoreColumn.of([0] * 1_000 + [1], [1.0] * 100 + [0.1] * 900 + [1.0])
    choice = highest_recall(column, 0.05)
    assert choice.threshold is None
    assert "more rows would not help" in choice.problem


def test_recall_limit_mirrors_the_fpr_limit() -> None:
    """The highest threshold whose lower bound of recall keeps the limit."""
    labels, scores = simulated(4_000)
    column = ScoreColumn.of(labels, scores)
    choice = least_alarms(column, 0.95)
    assert choice.threshold is not None
    n = len(column.risky)
    assert choice.bound == pytest.approx(clopper_pearson(choice.tp, n, 0.95, "lower").low)
    assert choice.bound >= 0.95
    assert clopper_pearson(choice.tp - 1, n, 0.95, "lower").low < 0.95
    too_few = least_alarms(ScoreColumn.of([1] * 58 + [0], [0.9] * 58 + [0.1]), 0.95)
    assert too_few.threshold is None
    assert "1 more risky rows" in too_few.problem


def test_precision_limit_holds_at_the_prevalence_named() -> None:
    """Precision at 1% prevalence needs a far higher threshold than at the set's own 30%."""
    labels, scores = simulated(20_000)
    column = ScoreColumn.of(labels, scores)
    often, rare = (sharpest(column, 0.5, prevalence) for prevalence in (0.3, 0.01))
    assert often.threshold is not None
    assert rare.threshold is not None
    assert rare.threshold > often.threshold
    recall, fpr = rare.tp / len(column.risky), rare.fp / len(column.harmless)
    assert 0.01 * recall / (0.01 * recall + 0.99 * fpr) > 0.5
    assert sharpest(column, 0.9999, 0.0001).threshold is None


def test_precision_limit_takes_the_lowest_threshold_of_all() -> None:
    """Among thousands of cuts no lower one is proved too, grouped or not."""
    labels, scores = simulated(5_000, seed=4)
    for groups in (None, np.arange(5_000) // 5):
        column = ScoreColumn.of(labels, scores, groups)
        choice = sharpest(column, 0.6, 0.1)
        assert choice.threshold is not None
        lower = column.cuts[column.cuts < choice.threshold][:500]
        hits, risky = column.effective(lower, 1)
        alarms, harmless = column.effective(lower, 0)
        recall = clopper_pearson_bounds(hits, risky, 0.975, "lower")[0]
        fpr = clopper_pearson_bounds(alarms, harmless, 0.975, "upper")[1]
        assert (0.1 * recall / (0.1 * recall + 0.9 * fpr)).max() < 0.6
        assert choice.bound is not None
        assert 0.6 <= choice.bound < 0.61


def test_cost_is_least_where_computed_by_hand() -> None:
    """A miss of 5 and an alarm of 1 at equal shares: .35 finds all four at 6 of 10 alarms."""
    choice = best_by_cost(SMALL, miss=5, false_alarm=1, prevalence=0.5)
    # At .35: 0 misses, 6 alarms: .5 x 0 + .5 x .6 = .3. At .95: .5 x 5 x .5 = 1.25.
    assert choice.value == pytest.approx(300.0)
    assert (choice.tp, choice.fp) == (4, 6)
    rare = best_by_cost(SMALL, miss=5, false_alarm=1, prevalence=0.1)
    # At .95: .1 x 5 x .5 = .25. At .65: .1 x 5 x .25 + .9 x .3 = .395. At .35: .9 x .6 = .54.
    assert (rare.tp, rare.fp) == (2, 0)
    assert rare.value == pytest.approx(250.0)
    dear = best_by_cost(SMALL, miss=1, false_alarm=100, prevalence=0.5, per_text=0.01)
    assert (dear.tp, dear.fp) == (2, 0)
    assert dear.value == pytest.approx(1_000 * (0.5 * 0.5 + 0.01))
    nothing = best_by_cost(SMALL, miss=0, false_alarm=1, prevalence=0.5)
    assert nothing.threshold is None
    assert nothing.problem == "flagging nothing is cheapest at these costs"
    with pytest.raises(ValueError, match="costs are at least 0"):
        best_by_cost(SMALL, miss=-1, false_alarm=1, prevalence=0.5)


def test_best_metric_is_the_maximum_over_every_cut() -> None:
    """F1 and balanced accuracy at the choice are the highest of any threshold."""
    labels, scores = simulated(500, seed=3)
    column = ScoreColumn.of(labels, scores)
    for metric in ("f1", "balanced_accuracy"):
        choice = best_by_metric(column, metric)  # type: ignore[arg-type]
        values = [
            binary_metrics(labels, scores, cut, resamples=0)[metric].value or 0.0
            for cut in np.unique(scores)
        ]
        assert choice.value == pytest.approx(max(values), abs=1e-12)


def test_one_class_and_no_rows_are_infeasible_with_the_reason() -> None:
    """What needs a class that is absent says so; nothing raises."""
    harmless, risky, none = (
        ScoreColumn.of([0], [0.5]), ScoreColumn.of([1], [0.5]), ScoreColumn.of([], [])
    )  # fmt: skip
    for column in (harmless, none):
        assert "no risky rows" in least_alarms(column, 0.5).problem
        assert best_by_metric(column, "f1").threshold is None
    for column in (risky, none):
        assert "no harmless rows" in highest_recall(column, 0.5).problem
        assert best_by_cost(column, miss=1, false_alarm=1, prevalence=0.5).threshold is None
    assert sharpest(none, 0.5, 0.5).threshold is None
    same = ScoreColumn.of([0, 1], [0.5, 0.5])
    assert best_by_metric(same, "f1").threshold == 0.5 or best_by_metric(same, "f1").tp == 1


def test_groups_make_a_limit_harder_to_prove() -> None:
    """The same rows in groups of ten prove less, so the threshold is higher."""
    rng = np.random.default_rng(5)
    labels = np.repeat(rng.integers(0, 2, 200), 10)
    scores = np.clip(np.repeat(rng.random(200), 10) * 0.6 + labels * 0.3, 0, 1)
    single = highest_recall(ScoreColumn.of(labels, scores), 0.1)
    grouped = highest_recall(ScoreColumn.of(labels, scores, np.repeat(np.arange(200), 10)), 0.1)
    assert single.threshold is not None
    assert grouped.threshold is not None
    assert grouped.threshold > single.threshold


def test_missing_proof_counts_groups_where_rows_are_not_independent() -> None:
    """1,000 harmless rows of 100 groups are 100 proofs: 1% at 95% takes 199 groups more."""
    labels = [0] * 1_000 + [1]
    column = ScoreColumn.of(labels, [0.1] * 1_000 + [0.9], [*np.arange(1_000) // 10, 500])
    choice = highest_recall(column, 0.01)
    assert choice.threshold is None
    assert choice.needed == 299
    assert "about 199 more groups of negatives" in choice.problem
    assert "1,000 rows in 100 groups" in choice.problem


def test_flat_region_holds_the_optimum_and_narrows_with_rows() -> None:
    """More rows tell closer thresholds apart; the loss at the ends is within the noise."""
    widths = []
    for n in (300, 30_000):
        labels, scores = simulated(n, seed=1)
        column = ScoreColumn.of(labels, scores)
        choice = best_by_metric(column, "balanced_accuracy")
        assert choice.threshold is not None
        region = flat_region(column, choice.threshold, Weights(0.5, 0.5))
        assert region.low <= choice.threshold <= region.high
        widths.append(region.high - region.low)
    assert widths[1] < widths[0] / 2


def test_flat_region_ends_where_thresholds_are_better_too() -> None:
    """Far from the best threshold the best one does not count as alike."""
    labels, scores = simulated(5_000, seed=1)
    column = ScoreColumn.of(labels, scores)
    best = best_by_metric(column, "balanced_accuracy").threshold
    assert best is not None
    region = flat_region(column, 0.9, Weights(0.5, 0.5))
    assert best < 0.6 < region.low <= 0.9


def test_flat_region_under_a_limit_keeps_to_its_side() -> None:
    """Below the threshold of an FPR limit the limit is broken, so the region starts there."""
    labels, scores = simulated(2_000)
    column = ScoreColumn.of(labels, scores)
    rule = ThresholdRule(kind="fpr", limit=0.05)
    choice = rule.choose(column)
    assert choice.threshold is not None
    region = rule.flat(column, choice.threshold)
    assert region.low == choice.threshold
    assert region.high >= choice.threshold


def test_linear_objective_of_f1_has_its_maximum_at_the_best_f1() -> None:
    """Dinkelbach's weights are maximal where F1 is."""
    labels, scores = simulated(1_000, seed=8)
    column = ScoreColumn.of(labels, scores)
    choice = best_by_metric(column, "f1")
    assert choice.threshold is not None
    values = ThresholdRule("f1").weights(column, choice.threshold).of(column.sweep)
    assert column.sweep.tp[np.argmax(values)] == choice.tp
    assert column.sweep.fp[np.argmax(values)] == choice.fp

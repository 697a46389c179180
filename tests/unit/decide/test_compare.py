"""Candidates against a baseline: figures, tests, sentences, slices, lattice and frontier."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from shield_engine.config import Bands
from shield_engine.decide.candidates import Aligned, Candidate
from shield_engine.decide.compare import Nouns, Pair, about, compare, latency_phrase, pair_sentence
from shield_engine.decide.figures import cost_per_million
from shield_engine.decide.paired import (
    LatencyRatio,
    Patterns,
    auc_difference,
    latency_ratio,
)
from shield_engine.decide.slices import (
    LENGTH_BANDS,
    MOST_SLICES,
    Counted,
    frontier,
    lattice,
    length_bands,
    slice_table,
)
from shield_engine.decide.views import mode_view
from shield_engine.metrics.figures import (
    binary_metrics,
    multiclass_metrics,
    paired_binary_metrics,
)
from shield_engine.metrics.inputs import group_codes
from shield_engine.metrics.scoring import ConfusionScorer
from shield_engine.statistics import Figure
from shield_engine.statistics.resampling import Resamples, paired_difference
from shield_engine.statistics.tests import (
    PairTest,
    grouped_mcnemar,
    holm,
    mcnemar_exact,
    pair_test,
    rows_needed,
)
from shield_engine.store import Scores
from shield_engine.types import Mode, Task


def aligned_of(
    labels: list[int],
    *risks: list[float],
    groups: list[str] | None = None,
    task: Task = Task.PROMPT_INJECTION,
    ms: tuple[float, ...] = (1.0, 2.0, 4.0),
) -> Aligned:
    """Return candidates A, B, ... of mode `ml` at threshold .5, each with its own scores."""
    n = len(labels)
    candidates, views = [], []
    for place, risk in enumerate(risks):
        values = np.array(risk, dtype=float)
        stored = Scores(
            task=task,
            row_index=np.arange(n),
            row_id=np.array([str(row) for row in range(n)], dtype=object),
            labels=np.array(labels, dtype=np.int64),
            chars=np.arange(n, dtype=np.int64),
            heuristic=None,
            model=np.column_stack([1 - values, values]),
            heuristic_ms=np.zeros(n),
            model_ms=np.full(n, ms[place]) + np.arange(n) * 1e-6,
            hit_ms=np.full(n, np.nan),
            is_hit=np.zeros(n, dtype=bool),
            has_error=np.isnan(values),
        )
        candidate = Candidate("run", Mode.ML, 0.5, title="ABC"[place])
        candidates.append(candidate)
        views.append(mode_view(stored, candidate.mode, candidate.threshold, Bands()))
    return Aligned(
        tuple(candidates), tuple(views),
        None if groups is None else group_codes(groups, n), "dataset", {},
    )  # fmt: skip


def verdicts(labels: list[int], wrong: range | list[int]) -> list[float]:
    """Return risks whose verdicts are right but in the rows `wrong`."""
    at = set(wrong)
    return [0.9 if bool(label) != (row in at) else 0.1 for row, label in enumerate(labels)]


MIXED = [1] * 200 + [0] * 200


# --- differences ----------------------------------------------------------------------------


def test_differences_equal_the_row_bootstrap_of_the_metrics() -> None:
    """Counted patterns give the same values as rows, and intervals within resampling noise."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 600)
    first = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    second = np.clip(first + rng.normal(0.05 * labels, 0.1), 0, 1)
    cast = np.column_stack([first >= 0.5, second >= 0.6]).astype(np.int64)
    found = Patterns.of(labels, cast, 2, groups=None, seed=7).differences(0, 1)
    wanted = paired_binary_metrics(labels, first, second, (0.5, 0.6))
    for name, figure in found.items():
        other = wanted[name]
        assert figure.value == pytest.approx(other.value, abs=1e-12)
        assert figure.low == pytest.approx(other.low, abs=0.012)
        assert figure.high == pytest.approx(other.high, abs=0.012)


def test_differences_of_three_classes_equal_the_metrics() -> None:
    """Macro figures of counted patterns are those of the rows."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 300)
    shares = rng.dirichlet([1, 1, 1], (2, 300))
    cast = shares.argmax(axis=2).T
    found = Patterns.of(labels, cast, 3, groups=None, seed=7).differences(0, 1)
    names = ("negative", "neutral", "positive")
    before, after = (multiclass_metrics(labels, side, names, resamples=0) for side in shares)
    weights = np.concatenate(list(Resamples(np.zeros(300, int), None, 2_000, 7).rows()))
    drawn = [ConfusionScorer.of(labels, verdict, 3).figures(weights) for verdict in cast.T]
    assert set(found) == {"accuracy", "macro_f1", "macro_recall", "mcc"}
    for name, figure in found.items():
        gain = (after[name].value or 0) - (before[name].value or 0)
        assert figure.value == pytest.approx(gain, abs=1e-12)
        high = np.quantile(drawn[1][name] - drawn[0][name], 0.975)
        assert figure.high == pytest.approx(high, abs=0.02)


def test_groups_widen_the_interval_of_a_difference() -> None:
    """Rows that repeat ten times are worth one row each, not ten."""
    rng = np.random.default_rng(5)
    labels = np.repeat(rng.integers(0, 2, 40), 10)
    cast = np.column_stack([labels, np.repeat(rng.integers(0, 2, 40), 10)])
    groups = np.repeat(np.arange(40), 10)
    alone = Patterns.of(labels, cast, 2, groups=None, seed=7).differences(0, 1)["accuracy"]
    together = Patterns.of(labels, cast, 2, groups=groups, seed=7).differences(0, 1)["accuracy"]
    assert alone.value == together.value
    assert alone.low is not None
    assert alone.high is not None
    assert together.low is not None
    assert together.high is not None
    assert 2.5 < (together.high - together.low) / (alone.high - alone.low) < 4
    assert "whole groups" in together.method


def test_agreement_is_bounded_not_certain() -> None:
    """Where verdicts never differ the ends are Wilson's bound for none in n."""
    labels = np.array([0, 1] * 50)
    cast = np.column_stack([labels, labels])
    found = Patterns.of(labels, cast, 2, groups=None, seed=7).differences(0, 1)
    assert (found["recall"].low, found["recall"].high) == pytest.approx(
        (-0.071348, 0.071348), abs=1e-5
    )
    assert found["f1"].low is None
    assert found["f1"].reason == "no interval: all resamples agree"


def test_auc_difference_agrees_with_the_bootstrap() -> None:
    """DeLong's interval is within resampling noise of the paired bootstrap's, ties included."""
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 2, 800)
    first = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).astype(np.float64).round(1)
    second = np.clip(first + rng.normal(0.1 * labels, 0.2), 0, 1).astype(np.float64).round(1)
    found = auc_difference(labels, first, second)
    wanted = paired_binary_metrics(labels, first, second, (0.5, 0.5))["roc_auc"]
    assert found.value == pytest.approx(wanted.value, abs=1e-12)
    assert found.low == pytest.approx(wanted.low, abs=0.004)
    assert found.high == pytest.approx(wanted.high, abs=0.004)
    single = auc_difference(labels, first, second, groups=np.arange(800))
    assert single.high == pytest.approx(found.high, abs=1e-4)


def test_auc_difference_counts_groups_not_rows() -> None:
    """Rows that repeat four times widen DeLong's interval to about that of the rows themselves."""
    rng = np.random.default_rng(13)
    labels = rng.integers(0, 2, 200)
    first, second = rng.random(200), rng.random(200)
    once = auc_difference(labels, first, second)
    again = [np.repeat(values, 4) for values in (labels, first, second)]
    found = auc_difference(*again, groups=np.repeat(np.arange(200), 4))  # type: ignore[arg-type]
    assert found.value == pytest.approx(once.value)
    assert found.low == pytest.approx(once.low, abs=1e-3)
    assert found.method == "DeLong, whole groups"


def test_auc_difference_of_one_class_or_one_ranking_says_why_it_has_no_interval() -> None:
    """A class that is missing leaves it undefined; the same ranking leaves out the interval."""
    ones = np.ones(4, dtype=np.int64)
    risk = np.array([0.1, 0.2, 0.3, 0.4])
    assert auc_difference(ones, risk, risk).value is None
    same = auc_difference(np.array([0, 0, 1, 1]), risk, risk / 2)
    assert (same.value, same.low) == (0.0, None)
    assert same.reason == "no interval: the two rank all rows alike"


# --- tests ----------------------------------------------------------------------------------


def test_grouped_mcnemar_is_exact() -> None:
    """The p-value equals the count over all signs of the groups' gains."""
    rng = np.random.default_rng(8)
    for _ in range(50):
        gains = rng.integers(-4, 5, int(rng.integers(1, 9)))
        sums = [
            abs(sum(s * g for s, g in zip(signs, gains, strict=True)))
            for signs in itertools.product((-1, 1), repeat=len(gains))
        ]
        wanted = float(np.mean(np.array(sums) >= abs(gains.sum())))
        assert grouped_mcnemar(gains) == pytest.approx(wanted, abs=1e-12)


def test_grouped_mcnemar_of_single_rows_is_mcnemar() -> None:
    """Groups of one give the plain exact test; no difference at all gives 1."""
    assert grouped_mcnemar(np.array([1] * 9 + [-1] * 2 + [0] * 30)) == mcnemar_exact(2, 9)
    assert grouped_mcnemar(np.zeros(5, dtype=np.int64)) == 1.0
    assert grouped_mcnemar(np.full(100, 3)) == pytest.approx(2 * 0.5**100)


def test_grouped_test_keeps_its_level_where_plain_mcnemar_does_not() -> None:
    """Equal candidates on rows that repeat are called different at most as often as promised."""
    rng = np.random.default_rng(9)
    plain = grouped = 0
    for _ in range(400):
        gains = rng.integers(-1, 2, 30) * 8
        plain += mcnemar_exact(int(-gains[gains < 0].sum()), int(gains[gains > 0].sum())) <= 0.05
        grouped += grouped_mcnemar(gains) <= 0.05
    assert grouped / 400 <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5
    assert plain / 400 > 0.3


def test_rows_needed_by_hand() -> None:
    """300 rows, 5% disagreement, 2 points: (1.960 sqrt(.05) + .8416 sqrt(.0496))^2 / .0004."""
    assert rows_needed(300, 0.05, 0.02) == 979 - 300
    assert rows_needed(300, 0.05, -0.02) == 979 - 300
    assert rows_needed(300, 0.05, 0.02, design_effect=2.0) == 1958 - 300
    assert rows_needed(300, 0.05, 0.0) is None
    assert rows_needed(300, 1e-9, 1e-9) is None
    assert rows_needed(10_000, 0.05, 0.02) == 1


def test_rows_needed_hold_the_promised_power() -> None:
    """With that many rows the exact test finds the difference about four times in five."""
    rng = np.random.default_rng(10)
    total = 300 + (rows_needed(300, 0.05, 0.02) or 0)
    drawn = rng.multinomial(total, [0.015, 0.035, 0.95], 600)
    found = np.mean([mcnemar_exact(int(b), int(c)) <= 0.05 for b, c, _ in drawn])
    assert 0.72 < found < 0.86


def test_family_is_adjusted_together_and_each_test_counts_its_rows() -> None:
    """Two candidates give six tests; Holm's values are those of all six."""
    found = compare(
        aligned_of(
            MIXED,
            verdicts(MIXED, range(40)),
            verdicts(MIXED, range(12)),
            verdicts(MIXED, range(195, 206)),
        )
    )
    assert [(test.scope, test.n) for test in found.tests] == [
        ("all", 400), ("risky", 200), ("harmless", 200),
    ] * 2  # fmt: skip
    wanted = holm([test.p_value for test in found.tests])
    assert [test.p_adjusted for test in found.tests] == pytest.approx(wanted.tolist())
    risky = found.pairs[0].test("risky")
    assert risky is not None
    assert (risky.only_baseline, risky.only_candidate, risky.is_decided) == (0, 28, True)
    assert risky.rows_needed is None
    harmless = found.pairs[1].test("harmless")
    assert harmless is not None
    assert (harmless.only_baseline, harmless.only_candidate, harmless.is_decided) == (6, 0, False)
    assert harmless.rows_needed is not None
    assert harmless.detectable is not None


def test_equal_candidates_are_rarely_called_different() -> None:
    """Over whole comparisons, at most 5% hold any decided test where there is nothing to find."""
    rng = np.random.default_rng(15)
    times, wrongly = 150, 0
    for _ in range(times):
        noise = rng.random((3, 120)) < 0.15
        labels = rng.integers(0, 2, 120).tolist()
        risks = [verdicts(labels, np.flatnonzero(row).tolist()) for row in noise]
        found = compare(aligned_of(labels, *risks), resamples=0)
        wrongly += any(test.is_decided for test in found.tests)
    assert wrongly / times <= 0.05 + 2 * (0.05 * 0.95 / times) ** 0.5


def test_group_aware_tests_need_more_rows() -> None:
    """Disagreements in whole groups count as groups: less decided, and a design effect above 1."""
    right = np.array([True] * 400)
    other = np.array([False] * 12 + [True] * 388)
    alone = pair_test("all", other, right, None)
    together = pair_test("all", other, right, np.arange(400) // 6)
    assert alone.p_value == mcnemar_exact(0, 12)
    assert together.p_value == 0.5  # two groups, all one way
    assert alone.design_effect == 1.0
    assert together.design_effect == pytest.approx(6.0, rel=0.05)


# --- latency and cost -----------------------------------------------------------------------


def test_latency_ratio_agrees_with_a_row_bootstrap() -> None:
    """Drawing ranks gives the interval that drawing rows gives."""
    rng = np.random.default_rng(11)
    first = rng.lognormal(0, 1, 1_000)
    second = first + rng.lognormal(1, 0.5, 1_000)
    found = latency_ratio(first, second, 95)
    rows = rng.integers(0, 1_000, (1_000, 1_000))
    drawn = np.percentile(second[rows], 95, axis=1) / np.percentile(first[rows], 95, axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.ratio == np.percentile(second, 95) / np.percentile(first, 95)
    assert found.low == pytest.approx(low, rel=0.06)
    assert found.high == pytest.approx(high, rel=0.06)


@pytest.mark.parametrize("n", [30, 500])
def test_latency_ratio_of_the_same_times_is_one_beyond_doubt(n: int) -> None:
    """Ranks of both move together, so what is shared cancels; nothing is left to vary."""
    times = np.random.default_rng(14).lognormal(0, 1, n)
    found = latency_ratio(times, times, 95)
    assert found.ratio == 1.0
    assert found.low in (None, pytest.approx(1.0, abs=1e-6))
    assert found.high in (None, pytest.approx(1.0, abs=1e-6))


def test_latency_ratio_leaves_out_hits_and_knows_its_limits() -> None:
    """Rows of the cache are NaN; none left gives no ratio, one row no interval."""
    found = latency_ratio(np.array([1.0, np.nan, 3.0]), np.array([2.0, 2.0, np.nan]), 50)
    assert (found.n, found.ratio, found.low) == (1, 2.0, None)
    nothing = latency_ratio(np.array([np.nan]), np.array([1.0]), 50)
    assert (nothing.n, nothing.ratio) == (0, None)
    assert latency_ratio(np.zeros(3), np.ones(3), 50).ratio is None


def test_cost_is_time_times_price() -> None:
    """A million scans of 3.6 ms take an hour; 7.2 ms at 0.50 an hour cost 1."""
    assert cost_per_million(3.6, 2.0) == pytest.approx(2.0)
    assert cost_per_million(7.2, 0.5) == pytest.approx(1.0)
    assert cost_per_million(None, 1.0) is None
    assert cost_per_million(1.0, None) is None


# --- sentences ------------------------------------------------------------------------------


def test_sentence_of_a_decided_and_an_undecided_question() -> None:
    """What is decided is said per 1,000; what is not, with the rows that would decide."""
    found = compare(
        aligned_of(MIXED, verdicts(MIXED, [*range(60), 300]), verdicts(MIXED, range(10)))
    )
    assert found.verdict.startswith("B misses ")
    assert " fewer attacks per 1,000 than A, at 2.0 times the p95 latency; " in found.verdict
    assert "on false alarms the data cannot decide, about " in found.verdict
    assert found.verdict.endswith(" more benign rows would.")
    assert found.lead is found.pairs[0]


def test_sentence_of_a_trade_off() -> None:
    """Fewer misses for more false alarms is a "but"."""
    found = compare(aligned_of(MIXED, verdicts(MIXED, range(60)), verdicts(MIXED, range(340, 400))))
    assert " fewer attacks per 1,000 than A but raises " in found.verdict
    assert " more false alarms per 1,000 benign rows, at 2.0 times" in found.verdict


def test_sentence_of_an_undecided_pair() -> None:
    """One row of difference decides nothing, and the sentence begins with that."""
    found = compare(aligned_of(MIXED, verdicts(MIXED, [0]), verdicts(MIXED, [250])))
    assert found.verdict == (
        "Not decisive: on these 400 rows B cannot be told from A; on missed attacks the data "
        "cannot decide, about 1,900 more attacks would; on false alarms the data cannot decide, "
        "about 1,900 more benign rows would; B works at 2.0 times the p95 latency."
    )


def test_sentence_of_equal_verdicts() -> None:
    """Same verdicts are called so, whatever the scores."""
    found = compare(aligned_of([0, 1], [0.1, 0.9], [0.3, 0.6]))
    assert found.verdict == (
        "B and A gave the same verdict on all 2 labelled rows, B at 2.0 times the p95 latency."
    )


def test_sentence_where_one_class_is_missing() -> None:
    """Without harmless rows false alarms are unknown, not zero."""
    labels = [1] * 300
    found = compare(aligned_of(labels, verdicts(labels, range(90)), verdicts(labels, range(10))))
    assert found.metric == "accuracy"
    assert found.verdict.startswith("B misses ")
    assert "there are no benign rows, so false alarms are unknown" in found.verdict
    assert [test.scope for test in found.tests] == ["all", "risky"]


def test_sentence_without_labels_and_of_one_row() -> None:
    """Nothing and next to nothing are not made into a finding."""
    unlabelled = compare(aligned_of([-1, -1], [0.1, 0.9], [0.9, 0.9]))
    assert unlabelled.verdict.startswith("No row has both a label and a score of each")
    assert (unlabelled.winner, unlabelled.tests, unlabelled.frontier) == (None, (), ())
    assert (unlabelled.pairs[0].differing, unlabelled.pairs[0].scored) == (1, 2)
    assert [standing.flag_rate for standing in unlabelled.standings] == [0.5, 1.0]
    single = compare(aligned_of([1], [0.1], [0.9]))
    assert single.verdict == "Not decisive: one labelled row cannot tell B from A."
    alone = compare(aligned_of([0, 1], [0.1, 0.9]))
    assert alone.verdict.startswith("There is one candidate only")
    nothing = compare(aligned_of([], [], []))
    assert nothing.n == 0
    assert nothing.verdict.startswith("No row has both")


def test_sentence_of_three_classes() -> None:
    """Sentiment is told by accuracy, with macro F1 beside it."""
    test = PairTest("all", 400, 4, 40, 0.09, 1e-8, 1e-8, True, 0.05, None)
    figures = {
        "accuracy": Figure(0.09, 0.06, 0.12, 400),
        "macro_f1": Figure(0.08, 0.05, 0.11, 400),
    }
    unmeasured = (LatencyRatio(50, None, None, None, None, None, 0),) * 2
    pair = Pair("ML", "Rules", 400, 400, 44, figures, (test,), unmeasured, "")
    said = pair_sentence(pair, Nouns("", ""), 44)
    assert said == (
        "ML gets 60 to 120 more texts per 1,000 right than Rules (macro F1 +5.0 to +11.0 points)."
    )
    open_test = PairTest("all", 400, 4, 9, 0.0125, 0.27, 0.27, False, 0.05, 812)
    said = pair_sentence(replace(pair, tests=(open_test,)), Nouns("", ""), 13)
    assert said == (
        "Not decisive: on these 400 rows ML cannot be told from Rules by accuracy, about 820 more "
        "labelled rows would."
    )


def test_words_for_numbers() -> None:
    """Rows are rounded up to two digits; a latency whose interval holds 1 is about the same."""
    assert [about(rows) for rows in (7, 99, 412, 12_345)] == ["7", "99", "420", "13,000"]
    assert latency_phrase(LatencyRatio(95, 1, 2.06, 2.06, 1.8, 2.3, 9)) == (
        "at 2.1 times the p95 latency"
    )
    assert latency_phrase(LatencyRatio(95, 1, 1.2, 1.2, 0.9, 1.5, 9)) == (
        "at about the same p95 latency"
    )
    assert latency_phrase(LatencyRatio(95, 10, 0.3, 0.03, 0.02, 0.04, 9)) == (
        "at 0.03 times the p95 latency"
    )
    assert latency_phrase(LatencyRatio(95, None, None, None, None, None, 0)) == ""
    assert Nouns.of(Task.SENTIMENT, ("positive", "negative")).risky == "negative texts"


# --- the whole ------------------------------------------------------------------------------


def test_rows_count_where_all_candidates_have_a_score() -> None:
    """A row that one candidate failed on counts for none, and figures are those of the rest."""
    found = compare(aligned_of([1, 1, 0, 0], [0.9, 0.1, 0.1, 0.9], [0.9, 0.9, 0.1, np.nan]))
    assert (found.rows, found.n, found.positives) == (4, 3, 2)
    assert found.standings[0].metrics == binary_metrics(
        [1, 1, 0], [0.9, 0.1, 0.1], 0.5, lengths=[0, 1, 2]
    )
    assert found.standings[1].n == 3
    assert found.winner == 1


def test_baseline_turns_the_signs_and_an_unknown_one_is_an_error() -> None:
    """B against A is minus A against B."""
    views = aligned_of(MIXED, verdicts(MIXED, range(60)), verdicts(MIXED, range(10)))
    forth, back = compare(views, 0), compare(views, 1)
    assert forth.pairs[0].differences["recall"].value == pytest.approx(0.25)
    assert back.pairs[0].differences["recall"].value == pytest.approx(-0.25)
    assert back.verdict.startswith("A misses ")
    assert " more attacks per 1,000 than B" in back.verdict
    with pytest.raises(ValueError, match="baseline 2 is none of 2 candidates"):
        compare(views, 2)


def test_equal_titles_are_numbered_and_the_document_is_json() -> None:
    """Two candidates never share a name, and everything can be written as JSON."""
    views = aligned_of(
        MIXED, verdicts(MIXED, range(9)), verdicts(MIXED, range(5)),
        groups=[f"g{row // 4}" for row in range(400)],
    )  # fmt: skip
    twins = Aligned(
        (views.candidates[0], views.candidates[0]), views.views, views.groups,
        "dataset", {},
    )  # fmt: skip
    document = compare(
        twins, slices={"half": np.array(["x", "y"] * 200, dtype=object)}, price_per_hour=1.0
    ).as_dict()
    written = json.loads(json.dumps(document, allow_nan=False))
    assert [found["title"] for found in written["candidates"]] == ["A", "A (2)"]
    assert written["pairs"][0]["baseline"] == "A"
    assert written["tests_in_family"] == 3
    assert [row["value"] for row in written["slices"]["half"]["rows"]] == ["x", "y"]


def test_price_can_be_given_afterwards() -> None:
    """A price given later gives what it would have given at once."""
    views = aligned_of(MIXED, verdicts(MIXED, range(60)), verdicts(MIXED, range(10)))
    assert compare(views).priced(0.3) == compare(views, price_per_hour=0.3)


# --- slices ---------------------------------------------------------------------------------


def test_slices_flag_where_the_winner_loses() -> None:
    """Behind by many rows is decided, by one row it is not, and ahead is neither."""
    labels = np.ones(90, dtype=np.int64)
    winner, rival = np.ones(90, dtype=np.int64), np.zeros(90, dtype=np.int64)
    winner[:20], rival[:20] = 0, 1
    winner[20], rival[20:30] = 0, 1
    values = np.array(["lost"] * 20 + ["near"] * 10 + ["won"] * 60, dtype=object)
    table = slice_table(
        "part",
        values,
        Counted(("Winner", "Rival"), labels, np.column_stack([winner, rival]), 2),
        winner=0,
    )
    assert [(row.value, row.n, row.finding) for row in table.rows] == [
        ("won", 60, ""), ("lost", 20, "loses"), ("near", 10, "seems to lose"),
    ]  # fmt: skip
    lost = table.rows[1]
    assert lost.worst is not None
    assert (lost.worst.rival, lost.worst.difference) == ("Rival", -1.0)
    assert lost.worst.p_adjusted == pytest.approx(2 * mcnemar_exact(20, 0))
    assert lost.figures["Winner"]["recall"].value == 0.0
    assert lost.figures["Winner"]["fpr"].value is None


def test_slice_tests_are_those_of_paired_difference() -> None:
    """Each slice's interval is the paired bootstrap's, with groups too."""
    rng = np.random.default_rng(12)
    labels, cast = rng.integers(0, 2, 200), rng.integers(0, 2, (200, 2))
    groups = np.arange(200) // 5
    values = np.full(200, "all", dtype=object)
    table = slice_table("part", values, Counted(("A", "B"), labels, cast, 2, groups), winner=1)
    right = cast == labels[:, None]
    wanted = paired_difference(right[:, 0], right[:, 1], groups=groups, resamples=1_000)
    assert (table.rows[0].tests[0].low, table.rows[0].tests[0].high) == (wanted.low, wanted.high)


def test_only_the_largest_slices_are_shown_and_the_others_counted() -> None:
    """A column with a value for each row does not become a thousand tests."""
    values = np.array([f"v{row}" for row in range(60)] + ["v0"] * 5, dtype=object)
    labels = np.ones(65, dtype=np.int64)
    table = slice_table(
        "id", values, Counted(("A", "B"), labels, np.ones((65, 2), dtype=np.int64), 2), winner=0
    )
    assert len(table.rows) == MOST_SLICES
    assert table.rows[0].value == "v0"
    assert table.left_out == (20, 20)


def test_length_bands_have_their_edges_and_the_window_outranks_them() -> None:
    """Edges belong to the shorter band; bands are shown in order of length."""
    chars = np.array([0, 50, 51, 200, 201, 2_000, 2_001, 10])
    bands = length_bands(chars, np.array([False] * 7 + [True]))
    assert bands.tolist() == [LENGTH_BANDS[place] for place in (0, 0, 1, 1, 2, 3, 4, 5)]
    labels = np.ones(8, dtype=np.int64)
    table = slice_table(
        "length", bands, Counted(("A", "B"), labels, np.ones((8, 2), dtype=np.int64), 2), winner=0
    )
    assert [row.value for row in table.rows] == list(LENGTH_BANDS)


# --- lattice and frontier -------------------------------------------------------------------


def both_parts(labels: list[int], heuristic: list[float], model: list[float], task: Task) -> Scores:
    """Return stored scores of both parts."""
    n = len(labels)
    rules, net = np.array(heuristic), np.array(model)
    return Scores(
        task=task, row_index=np.arange(n), row_id=np.array(["x"] * n, dtype=object),
        labels=np.array(labels), chars=np.ones(n, dtype=np.int64),
        heuristic=np.column_stack([1 - rules, rules]), model=np.column_stack([1 - net, net]),
        heuristic_ms=np.ones(n), model_ms=np.ones(n), hit_ms=np.full(n, np.nan),
        is_hit=np.zeros(n, dtype=bool), has_error=np.isnan(net),
    )  # fmt: skip


def test_lattice_counts_every_row_once_and_says_what_hybrid_did() -> None:
    """Lines partition the scored rows; hybrid's gains and losses have their rows."""
    labels = [1, 1, 0, 0, 1, -1, 0]
    rules = [0.95, 0.02, 0.95, 0.5, 0.1, 0.5, 0.5]
    model = [0.1, 0.9, 0.1, 0.1, 0.1, 0.9, np.nan]
    stored = both_parts(labels, rules, model, Task.TOXICITY)
    bands = Bands(upper=0.9, lower=0.05)
    views = [mode_view(stored, mode, 0.5, bands) for mode in (Mode.HEURISTIC, Mode.ML, Mode.HYBRID)]
    found = lattice(*views)
    assert found.n == 6
    assert sorted(int(row) for line in found.lines for row in line.rows) == [0, 1, 2, 3, 4, 5]
    assert all(line.heuristic != line.model for line in found.lines[:3])
    by_meaning = {line.meaning: line.rows.tolist() for line in found.lines}
    assert by_meaning["both wrong: hard row, or the label is"] == [4]
    assert [change.rows.tolist() for change in found.changes] == [[3], [], [0], [1, 2], [4]]
    prefilter = found.prefilter
    assert prefilter is not None
    assert (prefilter.avoided, prefilter.n) == (3, 6)
    assert prefilter.lost.tolist() == [1]
    assert prefilter.lost_recall == pytest.approx(1 / 3)
    assert prefilter.alarms.tolist() == [2]
    assert json.loads(json.dumps(found.as_dict()))["prefilter"]["avoided_share"] == 0.5


def test_prefilter_is_not_blamed_for_another_threshold() -> None:
    """A row that hybrid asked the model about, and lets through by its own threshold, is not lost."""
    stored = both_parts([1, 0], [0.5, 0.5], [0.6, 0.6], Task.TOXICITY)
    views = [
        mode_view(stored, mode, threshold)
        for mode, threshold in ((Mode.HEURISTIC, 0.5), (Mode.ML, 0.5), (Mode.HYBRID, 0.8))
    ]
    prefilter = lattice(*views).prefilter
    assert prefilter is not None
    assert (prefilter.avoided, len(prefilter.lost), prefilter.risky) == (0, 0, 1)
    lower = [views[0], mode_view(stored, Mode.ML, 0.8), mode_view(stored, Mode.HYBRID, 0.5)]
    found = lattice(*lower).prefilter
    assert found is not None
    assert len(found.alarms) == 0


def test_lattice_of_nothing_is_empty() -> None:
    """No rows give no lines, and no shares of nothing."""
    stored = both_parts([], [], [], Task.TOXICITY)
    views = [mode_view(stored, mode, 0.5) for mode in (Mode.HEURISTIC, Mode.ML, Mode.HYBRID)]
    found = lattice(*views)
    assert (found.n, found.lines, found.changes) == (0, (), ())
    assert found.prefilter is not None
    assert found.prefilter.avoided_share is None
    assert found.prefilter.lost_recall is None


def test_frontier_keeps_what_nothing_beats() -> None:
    """A candidate that is no better in anything and worse in one is beaten; equals are not."""
    points = frontier(
        ["fast", "good", "bad", "twin"],
        [0.4, 0.1, 0.4, 0.1],
        [1.0, 9.0, 9.0, 9.0],
        [0.0, 1.0, 1.0, 1.0],
        [None, None, None, None],
    )
    assert [point.is_optimal for point in points] == [True, True, False, True]
    assert points[2].beaten_by == ("fast", "good", "twin")


def test_frontier_takes_cost_for_calls_where_there_is_a_price() -> None:
    """More model calls at the same cost are no drawback."""
    points = frontier(["a", "b"], [0.2, 0.1], [5.0, 5.0], [0.5, 1.0], [3.0, 3.0])
    assert [point.is_optimal for point in points] == [False, True]

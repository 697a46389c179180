"""Gates: the format is strict, bounds are right, and a pass is never given by luck or by default."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from shield_engine.config import Bands
from shield_engine.decide.candidates import Candidate, baseline_of, candidate_of
from shield_engine.errors import ConfigError, UnknownNameError
from shield_engine.gates import (
    Gate,
    GateOutcome,
    Judgement,
    Outcome,
    judge,
    parse_gate,
    read_gate,
    write_gate,
)
from shield_engine.metrics.figures import binary_metrics, paired_binary_metrics
from shield_engine.metrics.table import METRICS
from shield_engine.policy import Policy
from shield_engine.statistics.intervals import rows_for_percentile, tango_bounds
from shield_engine.store import RunInfo, Store
from shield_engine.store.library import save_policy
from shield_engine.types import Mode, Task, Variant
from tests.stored_runs import add_dataset, add_run

FULL = """
format = 1
name = "release"
note = "Asked of every release."
max_unscored = 0.01
[[require]]
metric = "recall"
task = "prompt_injection"
at_least = 0.90
confidence = 0.99
slice = {column = "language", value = "de"}
min_rows = 50
[[require]]
metric = "fpr"
no_worse_than = "baseline"
by_more_than = 0.005
common_rows = true
[[require]]
metric = "p95_ms"
at_most = 20
mode = "ml"
[[require]]
metric = "escalated"
at_most = 0.5
policy = "front@2"
"""


@pytest.fixture
def store() -> Iterator[Store]:
    """A store of its own."""
    with Store.in_memory() as opened:
        yield opened


def gate_of(*requirements: str) -> Gate:
    """Return a gate of TOML lines, one string a requirement."""
    tables = "\n".join(f"[[require]]\n{one}" for one in requirements)
    return parse_gate(f'format = 1\nname = "g"\n{tables}')


def judged(
    store: Store, run: RunInfo, *requirements: str, baseline: Candidate | None = None, seed: int = 7
) -> GateOutcome:
    """Judge requirements by a model-only run at threshold .5."""
    return judge(
        store,
        gate_of(*requirements),
        candidate_of(run, {}),
        thresholds_of=lambda _: {},
        baseline=baseline,
        seed=seed,
    )


def one(outcome: GateOutcome) -> Judgement:
    """Return the only judgement."""
    (found,) = outcome.judgements
    return found


def counted(store: Store, hits: int, misses: int, alarms: int = 0, quiet: int = 0) -> RunInfo:
    """Store a run that finds `hits` of the risky rows and flags `alarms` of the harmless ones."""
    labels = [1] * (hits + misses) + [0] * (alarms + quiet)
    scores = [0.9] * hits + [0.1] * misses + [0.9] * alarms + [0.1] * quiet
    return add_run(store, add_dataset(store, labels), scores)


# --- the format -------------------------------------------------------------------------------


def test_every_key_is_read_and_written_again() -> None:
    """A gate with all keys survives writing and reading."""
    gate = parse_gate(FULL)
    assert gate.max_unscored == 0.01
    assert gate.slice_columns == ("language",)
    first = gate.requirements[0]
    assert (first.at_least, first.confidence, first.min_rows) == (0.9, 0.99, 50)
    assert first.title == "recall >= 90%, where language is de"
    assert gate.requirements[1].title == "fpr no worse than the baseline by more than 0.5 points"
    assert parse_gate(write_gate(gate)) == gate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format = 1\nname = \n", "line 2"),
        ('name = "g"', "format None"),
        ('format = 2\nname = "g"', "format 2"),
        ("format = 1", "needs a name"),
        ('format = 1\nname = "a\\nb"', "needs a name"),
        ('format = 1\nname = "g"', "at least one"),
        ('format = 1\nname = "g"\nrequire = [1]', "requirement 1: is no table"),
        ('format = 1\nname = "g"\nlimit = 1\n[[require]]\nmetric = "fpr"', "unknown key limit"),
        ('format = 1\nname = "g"\nmax_unscored = 1\n[[require]]\nmetric = "fpr"\nat_most = 0.1',
         "share below 1"),
    ],
)  # fmt: skip
def test_unfit_gates_are_refused(text: str, message: str) -> None:
    """What is no gate says why, TOML errors with their line."""
    with pytest.raises(ConfigError, match=message):
        parse_gate(text)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('metric = "recal"\nat_least = 0.9', "unknown metric 'recal'"),
        ('metric = "recall"', "exactly one of at_least, at_most, no_worse_than, got none"),
        ('metric = "recall"\nat_least = 0.9\nat_most = 1', "got at_least, at_most"),
        ('metric = "recall"\nat_leest = 0.9', "requirement 1: unknown key at_leest"),
        ('metric = "recall"\nat_least = 90', "a share is written 0.9, not 90"),
        ('metric = "recall"\nat_least = "0.9"', "at_least is a number"),
        ('metric = "recall"\nat_least = nan', "requirement 1, recall: at_least is a number"),
        ('metric = "p95_ms"\nat_most = -1', "within 0..inf"),
        ('metric = "recall"\nat_least = 0.9\nby_more_than = 0.1', "belongs to no_worse_than"),
        ('metric = "recall"\nno_worse_than = "baseline"\nby_more_than = 5', "0.005"),
        ('metric = "recall"\nno_worse_than = "baseline"\nby_more_than = -1', "0 or more"),
        ('metric = "recall"\nno_worse_than = ""', "no_worse_than is text"),
        ('metric = "length_only_auc"\nno_worse_than = "baseline"', "property of the rows"),
        ('metric = "recall"\nat_least = 0.9\nconfidence = 0.5', "confidence lies above"),
        ('metric = "recall"\nat_least = 0.9\nmin_rows = 1.5', "whole number"),
        ('metric = "recall"\nat_least = 0.9\ntask = "spam"', "unknown task 'spam'"),
        ('metric = "recall"\nat_least = 0.9\nmode = "fast"', "unknown mode 'fast'"),
        ('metric = "recall"\nat_least = 0.9\nmode = "ml"\npolicy = "a"', "one of policy and mode"),
        ('metric = "recall"\nat_least = 0.9\nslice = {column = "a"}', "slice is a table"),
        ('metric = "recall"\nno_worse_than = "x"\ncommon_rows = 1', "true or false"),
    ],
)
def test_unfit_requirements_are_refused(lines: str, message: str) -> None:
    """A requirement that cannot be meant is an error that names it and the key."""
    with pytest.raises(ConfigError, match=message) as caught:
        gate_of(lines)
    assert "requirement 1" in str(caught.value)


def test_gate_files_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    """A missing file and bytes that are no text are errors with the path."""
    with pytest.raises(ConfigError, match=r"nope\.toml cannot be read"):
        read_gate(tmp_path / "nope.toml")
    path = tmp_path / "gate.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"gate\.toml is no TOML"):
        read_gate(path)
    path.write_text(FULL, encoding="utf-8")
    assert read_gate(path) == parse_gate(FULL)


def test_every_metric_has_a_unit_and_a_direction() -> None:
    """Only the share that a length guesses is neither better high nor low."""
    assert {name for name, kind in METRICS.items() if kind.is_better_high is None} == {
        "length_only_auc"
    }
    low = {name for name, kind in METRICS.items() if kind.is_better_high is False}
    assert low == {
        "fpr", "fpr_at_95_recall", "brier", "ece", "flag_rate", "escalated", "p50_ms", "p95_ms",
        "p99_ms",
    }  # fmt: skip
    assert {kind.unit for kind in METRICS.values()} == {"share", "ms", "number"}


# --- judgement --------------------------------------------------------------------------------


def test_pass_fail_and_inconclusive_by_hand(store: Store) -> None:
    """29 of 29 is at least 90.2% at 95%; 28 of 28 is not at least 90%; 10 of 29 clearly fails."""
    assert one(judged(store, counted(store, 29, 0), 'metric="recall"\nat_least=0.9')).outcome == (
        Outcome.PASS
    )
    open_one = one(judged(store, counted(store, 28, 0), 'metric="recall"\nat_least=0.9'))
    assert open_one.outcome is Outcome.INCONCLUSIVE
    assert open_one.low == pytest.approx(0.05 ** (1 / 28))
    assert open_one.rows_needed == 1
    assert "about 1 more risky rows would settle it" in open_one.advice
    failed = one(judged(store, counted(store, 10, 19), 'metric="recall"\nat_least=0.9'))
    assert failed.outcome is Outcome.FAIL
    assert failed.high is not None
    assert failed.high == pytest.approx(stats.beta.ppf(0.95, 11, 19))
    assert "at most" in failed.reason


def test_false_alarms_name_the_rows_that_would_settle(store: Store) -> None:
    """None of 100 needs 199 more for 1% at 95%; 1% itself is the wrong side of 0.5%."""
    quiet = one(judged(store, counted(store, 1, 0, 0, 100), 'metric="fpr"\nat_most=0.01'))
    assert (quiet.outcome, quiet.rows_needed) == (Outcome.INCONCLUSIVE, 199)
    noisy = one(judged(store, counted(store, 1, 0, 1, 99), 'metric="fpr"\nat_most=0.005'))
    assert noisy.outcome is Outcome.INCONCLUSIVE
    assert "wrong side" in noisy.advice
    assert noisy.rows_needed is None
    exact = one(judged(store, counted(store, 1, 0, 0, 101), 'metric="fpr"\nat_most=0'))
    assert "no number of rows can show exactly 0%" in exact.advice


def test_rows_that_would_settle_do_settle(store: Store) -> None:
    """A gate that asks for N more rows passes once they are there at the same rate."""
    first = one(judged(store, counted(store, 95, 5), 'metric="recall"\nat_least=0.9'))
    assert first.outcome is Outcome.INCONCLUSIVE
    assert first.rows_needed is not None
    more = 100 + first.rows_needed
    misses = round(more * 0.05)
    second = one(
        judged(store, counted(store, more - misses, misses), 'metric="recall"\nat_least=0.9')
    )
    assert second.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        ('metric="recall"\nat_least=0.0', "no risky rows"),
        ('metric="roc_auc"\nat_least=0.0', "needs both classes"),
        ('metric="precision"\nat_least=0.0', "no flagged rows"),
        ('metric="fpr"\nat_most=1\nslice={column="kind", value="x"}', "no slice column kind"),
    ],
)
def test_without_a_figure_nothing_passes(store: Store, requirement: str, reason: str) -> None:
    """An undefined figure is inconclusive with its reason, however low the bar."""
    found = one(judged(store, counted(store, 0, 0, 0, 30), requirement))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert reason in found.reason
    assert found.value is None


def test_least_rows_hold_a_judgement_back(store: Store) -> None:
    """Below `min_rows` a requirement is not judged, whatever the figure."""
    run = counted(store, 40, 0)
    found = one(judged(store, run, 'metric="recall"\nat_least=0.5\nmin_rows=41'))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.rows_needed == 1
    assert one(judged(store, run, 'metric="recall"\nat_least=0.5\nmin_rows=40')).outcome == "pass"


def test_unscored_rows_hold_back_a_pass_and_no_failure(store: Store) -> None:
    """A failed row may be the one that matters; a share of them can be allowed."""
    dataset = add_dataset(store, [1] * 60)
    run = add_run(store, dataset, [0.9] * 59 + [None])
    found = one(judged(store, run, 'metric="recall"\nat_least=0.9'))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "1 of 60 rows" in found.advice
    assert one(judged(store, run, 'metric="recall"\nat_most=0.1')).outcome is Outcome.FAIL
    lenient = parse_gate(
        'format=1\nname="g"\nmax_unscored=0.02\n[[require]]\nmetric="recall"\nat_least=0.9'
    )
    outcome = judge(store, lenient, candidate_of(run, {}), thresholds_of=lambda _: {})
    assert outcome.outcome is Outcome.PASS


def test_overall_outcome_is_the_worst(store: Store) -> None:
    """Fail beats inconclusive beats pass; the sentence counts them."""
    run = counted(store, 28, 0, 0, 300)
    sure, unsure = 'metric="fpr"\nat_most=0.01', 'metric="recall"\nat_least=0.9'
    wrong = 'metric="recall"\nat_most=0.5'
    assert judged(store, run, sure).outcome is Outcome.PASS
    assert judged(store, run, sure, unsure).outcome is Outcome.INCONCLUSIVE
    outcome = judged(store, run, sure, unsure, wrong)
    assert outcome.outcome is Outcome.FAIL
    assert outcome.sentence == "Gate g: fail (1 pass, 1 fail, 1 inconclusive)."
    document = json.loads(json.dumps(outcome.as_dict(), allow_nan=False))
    assert [entry["outcome"] for entry in document["requirements"]] == [
        "pass", "inconclusive", "fail",
    ]  # fmt: skip
    assert document["stamp"]["rules_version"] == "rules-1"


def test_other_tasks_are_left_out_but_not_all_of_them(store: Store) -> None:
    """Requirements for other tasks do not count; a gate without any for this task is an error."""
    run = counted(store, 40, 0)
    mine, other = 'metric="recall"\nat_least=0.9', 'metric="recall"\nat_least=0.9\ntask="toxicity"'
    outcome = judged(store, run, mine, other)
    assert outcome.outcome is Outcome.PASS
    assert outcome.judgements[1].outcome is Outcome.SKIPPED
    with pytest.raises(ConfigError, match="asks nothing of task prompt_injection"):
        judged(store, run, other)


def test_slices_are_judged_by_their_own_rows(store: Store) -> None:
    """Ten misses in one language fail there and nowhere else; an unknown value names those known."""
    dataset = add_dataset(
        store, [1] * 70, slices=[{"language": "de"}] * 10 + [{"language": "en"}] * 60
    )
    run = add_run(store, dataset, [0.1] * 10 + [0.9] * 60)
    lines = 'metric="recall"\nat_least=0.9\nslice={column="language", value="VALUE"}'
    assert one(judged(store, run, lines.replace("VALUE", "de"))).outcome is Outcome.FAIL
    english = one(judged(store, run, lines.replace("VALUE", "en")))
    assert (english.outcome, english.n) == (Outcome.PASS, 60)
    unknown = one(judged(store, run, lines.replace("VALUE", "fr")))
    assert "there are de, en" in unknown.reason


def test_groups_of_the_dataset_are_respected(store: Store) -> None:
    """Sixty copies of three templates cannot show what sixty rows can."""
    alone = counted(store, 60, 0)
    assert one(judged(store, alone, 'metric="recall"\nat_least=0.9')).outcome is Outcome.PASS
    dataset = add_dataset(
        store, [1] * 60, groups=[f"template {number % 3}" for number in range(60)], name="copies"
    )
    found = one(judged(store, add_run(store, dataset, [0.9] * 60), 'metric="recall"\nat_least=0.9'))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.low == pytest.approx(0.05 ** (1 / 3))
    assert found.rows_needed == 29 * 20 - 60


def test_flags_escalation_and_latency_need_no_labels(store: Store) -> None:
    """Unlabelled rows have a flag rate, a share of model calls, and a speed."""
    dataset = add_dataset(store, [None] * 100)
    run = add_run(store, dataset, [0.9] * 10 + [0.1] * 90, ms=[5.0] * 99 + [50.0])
    outcome = judged(
        store, run, 'metric="flag_rate"\nat_most=0.2', 'metric="escalated"\nat_least=0.9',
        'metric="p95_ms"\nat_most=20', 'metric="p99_ms"\nat_most=20',
    )  # fmt: skip
    found = [(entry.outcome, entry.value) for entry in outcome.judgements[:3]]
    assert found == [(Outcome.PASS, 0.1), (Outcome.PASS, 1.0), (Outcome.PASS, 5.0)]
    slow = outcome.judgements[3]
    assert slow.outcome is Outcome.INCONCLUSIVE
    assert slow.rows_needed == rows_for_percentile(0.99, 0.95) - 100


def test_other_metrics_use_the_bootstrap(store: Store) -> None:
    """F1 of a good run clears .8, not .999; each bound is one-sided at the confidence asked."""
    run = counted(store, 95, 5, 5, 195)
    assert one(judged(store, run, 'metric="f1"\nat_least=0.8')).outcome is Outcome.PASS
    strict = one(judged(store, run, 'metric="f1"\nat_least=0.999'))
    assert strict.outcome is Outcome.FAIL
    assert "bootstrap" in strict.method
    labels, risk = [1] * 100 + [0] * 200, [0.9] * 95 + [0.1] * 5 + [0.9] * 5 + [0.1] * 195
    figure = binary_metrics(labels, risk, 0.5, confidence=0.9)["f1"]
    assert (strict.low, strict.high) == (figure.low, figure.high)
    near = one(judged(store, run, 'metric="f1"\nat_least=0.94'))
    assert near.outcome is Outcome.INCONCLUSIVE
    assert near.rows_needed is not None


def test_three_classes_have_their_metrics_only(store: Store) -> None:
    """Macro F1 is judged, recall has no figure, and neither needs a threshold."""
    labels = [0, 1, 2] * 20
    scores = [[0.8 if place == label else 0.1 for place in range(3)] for label in labels]
    run = add_run(store, add_dataset(store, labels, task=Task.SENTIMENT), scores)
    outcome = judged(store, run, 'metric="accuracy"\nat_least=0.9', 'metric="recall"\nat_least=0.5')
    assert outcome.candidate == "ml"
    assert outcome.judgements[0].outcome is Outcome.PASS
    assert outcome.judgements[1].outcome is Outcome.INCONCLUSIVE
    assert "two classes only" in outcome.judgements[1].reason


# --- against a baseline -----------------------------------------------------------------------


def two_runs(store: Store, lost: int, gained: int, n: int = 1_000) -> tuple[RunInfo, RunInfo]:
    """Store two runs over the same risky rows that disagree on this many."""
    dataset = add_dataset(store, [1] * n, name=f"pair {lost} {gained}")
    both = n - lost - gained
    before = [0.9] * both + [0.9] * lost + [0.1] * gained
    after = [0.9] * both + [0.1] * lost + [0.9] * gained
    return add_run(store, dataset, before), add_run(store, dataset, after)


@pytest.mark.parametrize(
    ("lost", "gained", "outcome"),
    [(0, 0, Outcome.PASS), (10, 8, Outcome.INCONCLUSIVE), (40, 2, Outcome.FAIL)],
)
def test_no_worse_than_a_baseline(store: Store, lost: int, gained: int, outcome: Outcome) -> None:
    """A margin of half a point is kept, open or broken as the disagreeing rows say."""
    baseline, run = two_runs(store, lost, gained)
    found = one(
        judged(
            store, run, 'metric="recall"\nno_worse_than="baseline"\nby_more_than=0.005',
            baseline=candidate_of(baseline, {}),
        )
    )  # fmt: skip
    assert found.outcome is outcome
    assert found.value == pytest.approx((gained - lost) / 1_000)
    assert found.low == pytest.approx(tango_bounds(gained, lost, 1_000, 0.95)[0])
    assert (found.before, found.after) == (1 - gained / 1_000, 1 - lost / 1_000)


def test_rows_that_would_settle_a_comparison(store: Store) -> None:
    """At the rates seen, so many more rows let the bound clear the margin, and one fewer does not."""
    baseline, run = two_runs(store, 10, 8)
    found = one(
        judged(
            store, run, 'metric="recall"\nno_worse_than="baseline"\nby_more_than=0.005',
            baseline=candidate_of(baseline, {}),
        )
    )  # fmt: skip
    assert found.rows_needed is not None
    for extra, clears in ((0, True), (-30, False)):
        n = 1_000 + found.rows_needed + extra
        assert (tango_bounds(0.008 * n, 0.010 * n, n, 0.95)[0] >= -0.005) is clears


def test_false_alarms_are_worse_upwards(store: Store) -> None:
    """For fpr the upper bound of the difference must stay within the margin."""
    dataset = add_dataset(store, [0] * 500)
    before = add_run(store, dataset, [0.1] * 500)
    after = add_run(store, dataset, [0.9] * 30 + [0.1] * 470)
    line = 'metric="fpr"\nno_worse_than="baseline"\nby_more_than=0.01'
    worse = one(judged(store, after, line, baseline=candidate_of(before, {})))
    assert (worse.outcome, worse.is_upper, worse.limit) == (Outcome.FAIL, True, 0.01)
    better = one(judged(store, before, line, baseline=candidate_of(after, {})))
    assert better.outcome is Outcome.PASS


def test_latency_and_bootstrap_metrics_are_paired(store: Store) -> None:
    """Two milliseconds slower on each row breaks a margin of one and keeps one of three."""
    labels = [0, 1] * 100
    scores = [0.2 if label == 0 else 0.8 for label in labels]
    dataset = add_dataset(store, labels)
    before = add_run(store, dataset, scores, ms=5.0)
    flipped = [1 - score if place < 4 else score for place, score in enumerate(scores)]
    after = add_run(store, dataset, flipped, ms=7.0)
    outcome = judged(
        store, after,
        'metric="p95_ms"\nno_worse_than="baseline"\nby_more_than=1',
        'metric="p95_ms"\nno_worse_than="baseline"\nby_more_than=3',
        'metric="f1"\nno_worse_than="baseline"\nby_more_than=0.2',
        'metric="precision"\nno_worse_than="baseline"\nby_more_than=0.2',
        baseline=candidate_of(before, {}),
    )  # fmt: skip
    assert [entry.outcome.value for entry in outcome.judgements] == ["fail", "pass", "pass", "pass"]
    assert outcome.judgements[2].before == 1.0


@pytest.mark.parametrize(
    "metric", ["f1", "mcc", "precision", "balanced_accuracy", "roc_auc", "brier"]
)
def test_paired_differences_are_those_of_the_evaluation(store: Store, metric: str) -> None:
    """Whatever the road, the difference is the evaluation's and its bounds are near the bootstrap's."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 400)
    risks = [np.clip(rng.normal(0.3 + 0.4 * labels, 0.2), 0, 1) for _ in range(2)]
    dataset = add_dataset(store, labels.tolist())
    before, after = (add_run(store, dataset, risk.tolist()) for risk in risks)
    found = one(
        judged(
            store, after, f'metric="{metric}"\nno_worse_than="baseline"\nby_more_than=0.5',
            baseline=candidate_of(before, {}),
        )
    )  # fmt: skip
    figure = paired_binary_metrics(labels, *risks, (0.5, 0.5), confidence=0.9)[metric]
    assert found.value == pytest.approx(figure.value, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((figure.low, figure.high), abs=0.01)
    assert found.outcome is Outcome.PASS


def test_latencies_of_two_machines_are_not_compared(store: Store) -> None:
    """A run on another machine is no baseline for milliseconds, but one for recall."""
    dataset = add_dataset(store, [1] * 100)
    before = add_run(store, dataset, [0.9] * 100, ms=9.0, machine="old")
    after = add_run(store, dataset, [0.9] * 100, ms=1.0)
    outcome = judged(
        store, after, 'metric="p50_ms"\nno_worse_than="baseline"',
        'metric="recall"\nno_worse_than="baseline"\nby_more_than=0.1',
        baseline=candidate_of(before, {}),
    )  # fmt: skip
    found = [entry.outcome for entry in outcome.judgements]
    assert found == [Outcome.INCONCLUSIVE, Outcome.PASS]
    assert "different machines" in outcome.judgements[0].advice


def test_a_run_may_be_named_in_the_gate_and_a_baseline_must_be_named(store: Store) -> None:
    """`no_worse_than` takes a run id; `baseline` without one is an error that says how."""
    baseline, run = two_runs(store, 0, 5)
    line = f'metric="recall"\nno_worse_than="{baseline.run_id}"'
    assert one(judged(store, run, line)).outcome is Outcome.PASS
    with pytest.raises(ConfigError, match="--baseline RUN_ID"):
        judged(store, run, 'metric="recall"\nno_worse_than="baseline"')
    with pytest.raises(UnknownNameError, match="no run nope"):
        judged(store, run, 'metric="recall"\nno_worse_than="nope"')


def test_other_rows_are_refused_unless_common_ones_are_asked_for(store: Store) -> None:
    """Runs over different rows are compared only on those that both have, and only if asked."""
    texts = [f"text {number}" for number in range(80)]
    first = add_dataset(store, [1] * 60, texts=texts[:60], name="first")
    second = add_dataset(store, [1] * 60, texts=texts[20:], name="second")
    before, after = add_run(store, first, [0.9] * 60), add_run(store, second, [0.9] * 60)
    line = f'metric="recall"\nno_worse_than="{before.run_id}"\nby_more_than=0.2'
    with pytest.raises(ConfigError, match="rows differ"):
        judged(store, after, line)
    found = one(judged(store, after, f"{line}\ncommon_rows=true"))
    assert (found.outcome, found.n) == (Outcome.PASS, 40)


def test_requirement_may_name_mode_or_policy(store: Store) -> None:
    """A stored policy's threshold decides its requirement; a mode the run lacks is an error."""
    dataset = add_dataset(store, [1] * 60)
    run = add_run(store, dataset, [0.6] * 60)
    save_policy(
        store,
        Policy(
            "front", Task.PROMPT_INJECTION, Mode.ML, 0.7, model_id="tiny", variant=Variant.INT8,
            model_sha256="a" * 64,
        ),
    )  # fmt: skip
    outcome = judged(
        store, run, 'metric="recall"\nat_least=0.9\npolicy="front@1"',
        'metric="recall"\nat_least=0.9\nmode="ml"',
    )  # fmt: skip
    assert [entry.outcome for entry in outcome.judgements] == [Outcome.FAIL, Outcome.PASS]
    assert outcome.judgements[0].subject.startswith("front v1")
    with pytest.raises(ConfigError, match="cannot answer for heuristic"):
        judged(store, run, 'metric="recall"\nat_least=0.9\nmode="heuristic"')
    with pytest.raises(UnknownNameError, match="no policy back"):
        judged(store, run, 'metric="recall"\nat_least=0.9\npolicy="back"')


def test_baseline_keeps_the_threshold_only_for_the_same_model(store: Store) -> None:
    """Scores of another model mean something else: it is judged at its own threshold."""
    dataset = add_dataset(store, [1] * 3)
    run = add_run(store, dataset, [0.9] * 3)
    same = add_run(store, dataset, [0.9] * 3)
    other = add_run(store, dataset, [0.9] * 3, sha256="b" * 64)
    candidate = Candidate(run.run_id, Mode.ML, 0.8, Bands(0.7))
    assert baseline_of(candidate, run, same, {"ml": 0.3}) == Candidate(
        same.run_id, Mode.ML, 0.8, Bands(0.7)
    )
    assert baseline_of(candidate, run, other, {"ml": 0.3}).threshold == 0.3


def test_order_of_outcomes_is_stable(store: Store) -> None:
    """The same gate over the same run gives the same outcome, bootstrap included."""
    run = counted(store, 60, 40, 30, 70)
    line = 'metric="mcc"\nat_least=0.3'
    first, second = judged(store, run, line), judged(store, run, line)
    assert first == second
    assert one(judged(store, run, line, seed=8)).low != one(first).low
    lows = [one(judged(store, run, f"{line}\nconfidence={c}")).low for c in (0.8, 0.95, 0.99)]
    bounds = [low for low in lows if low is not None]
    assert len(bounds) == 3
    assert bounds == sorted(set(bounds), reverse=True)

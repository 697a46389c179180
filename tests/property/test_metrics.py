"""Laws that every figure obeys on any labelled, scored set."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shield_engine.metrics.curves import threshold_sweep
from shield_engine.metrics.figures import binary_metrics, multiclass_metrics
from shield_engine.metrics.table import METRIC_NAMES
from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import clopper_pearson, wilson
from shield_engine.statistics.tests import holm, minimum_detectable_effect, required_negatives

Row = tuple[int, float, int, int]
ROWS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.2, 0.5, 1.0])),
        st.integers(0, 9),
        st.integers(0, 4),
    ),
    max_size=40,
)
THRESHOLDS = st.one_of(st.floats(-0.1, 1.1), st.sampled_from([0.0, 0.2, 0.5, 1.0]))


def judged(
    rows: list[Row], threshold: float, seed: int = 7, grouped: bool = False
) -> dict[str, Figure]:
    """Return the figures of rows of (label, score, length, group)."""
    return binary_metrics(
        [row[0] for row in rows],
        [row[1] for row in rows],
        threshold,
        lengths=[row[2] for row in rows],
        groups=[row[3] for row in rows] if grouped else None,
        resamples=40,
        seed=seed,
    )


@settings(deadline=None, max_examples=150)
@given(ROWS, THRESHOLDS, st.booleans())
def test_figures_lie_in_range_and_in_their_interval(
    rows: list[Row], threshold: float, grouped: bool
) -> None:
    """Values lie in range, inside their interval, and whatever is missing has a reason."""
    found = judged(rows, threshold, grouped=grouped)
    assert tuple(found) == METRIC_NAMES
    for name, figure in found.items():
        least = -1 if name == "mcc" else 0
        assert (figure.reason is None) == (figure.value is not None and figure.low is not None)
        assert (figure.low is None) == (figure.high is None)
        if figure.value is not None:
            assert least - 1e-12 <= figure.value <= 1 + 1e-12
        if figure.value is not None and figure.low is not None and figure.high is not None:
            assert least - 1e-12 <= figure.low <= figure.value <= figure.high <= 1 + 1e-12
            assert figure.method


@settings(deadline=None, max_examples=80)
@given(ROWS.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))), st.booleans())
def test_row_order_changes_nothing(pair: tuple[list[Row], list[Row]], grouped: bool) -> None:
    """Shuffled rows give the same figures, intervals included."""
    assert judged(pair[0], 0.5, grouped=grouped) == judged(pair[1], 0.5, grouped=grouped)


@settings(deadline=None, max_examples=40)
@given(ROWS, st.integers(0, 2**32))
def test_a_seed_repeats(rows: list[Row], seed: int) -> None:
    """The same seed gives the same intervals, and no seed changes a value."""
    found = judged(rows, 0.5, seed)
    assert found == judged(rows, 0.5, seed)
    assert [f.value for f in found.values()] == [f.value for f in judged(rows, 0.5).values()]


@settings(deadline=None, max_examples=80)
@given(ROWS, THRESHOLDS)
def test_a_value_is_missing_only_where_it_is_undefined(rows: list[Row], threshold: float) -> None:
    """A figure is missing exactly when its denominator is 0."""
    found = {name: f.value is not None for name, f in judged(rows, threshold).items()}
    risky = sum(row[0] for row in rows)
    harmless = len(rows) - risky
    flagged = sum(row[1] >= threshold for row in rows)
    both = bool(risky and harmless)
    assert found == {
        **dict.fromkeys(METRIC_NAMES, both),
        **dict.fromkeys(("accuracy", "brier", "ece", "macro_f1", "macro_recall"), bool(rows)),
        "precision": flagged > 0,
        "recall": risky > 0,
        "pr_auc": risky > 0,
        "fpr": harmless > 0,
        "f1": risky + flagged > 0,
        "mcc": both and 0 < flagged < len(rows),
    }


@settings(deadline=None, max_examples=80)
@given(ROWS, THRESHOLDS)
def test_doubling_every_row_changes_no_value(rows: list[Row], threshold: float) -> None:
    """Figures are about shares: twice the same rows have the same figures."""
    once, twice = judged(rows, threshold), judged(rows + rows, threshold)
    for name in METRIC_NAMES:
        first, second = once[name].value, twice[name].value
        assert (first is None) == (second is None)
        assert first is None or second is None or abs(first - second) < 1e-12


@settings(deadline=None, max_examples=80)
@given(ROWS)
def test_swapping_labels_mirrors_the_auc(rows: list[Row]) -> None:
    """With labels swapped the ROC AUC is one minus itself."""
    auc = judged(rows, 0.5)["roc_auc"].value
    mirrored = judged([(1 - y, s, n, g) for y, s, n, g in rows], 0.5)["roc_auc"].value
    assert (auc is None) == (mirrored is None)
    assert auc is None or mirrored is None or abs(auc + mirrored - 1) < 1e-12


@settings(deadline=None, max_examples=60)
@given(ROWS, st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=20))
def test_a_higher_threshold_never_flags_more(rows: list[Row], cuts: list[float]) -> None:
    """Counts of a sweep fall with the threshold and always add up to the classes."""
    labels = [row[0] for row in rows]
    sweep = threshold_sweep(labels, [row[1] for row in rows], sorted(cuts))
    assert np.all(np.diff(sweep.tp) <= 0)
    assert np.all(np.diff(sweep.fp) <= 0)
    assert set(sweep.tp + sweep.fn) == {sum(labels)}
    assert set(sweep.fp + sweep.tn) == {len(rows) - sum(labels)}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), max_size=30))
def test_two_columns_agree_with_the_binary_figures(rows: list[tuple[int, float]]) -> None:
    """Two classes judged by the likelier label are the binary set at its verdicts."""
    labels = [row[0] for row in rows]
    risk = np.array([1.0 if row[1] > 0.5 else 0.0 for row in rows])
    binary = binary_metrics(labels, risk, 0.5, resamples=0)
    columns = multiclass_metrics(
        labels, np.stack([1 - risk, risk], axis=1), ("clean", "toxic"), resamples=0
    )
    for name in ("accuracy", "mcc", "macro_f1", "macro_recall"):
        assert columns[name] == binary[name]


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.5, 0.999))
def test_intervals_hold_the_proportion_and_narrow(k: int, extra: int, confidence: float) -> None:
    """Both intervals hold k of n; the exact one-sided bound lies inside the two-sided one."""
    n = k + extra
    for interval in (wilson(k, n, confidence), clopper_pearson(k, n, confidence)):
        assert 0 <= interval.low <= interval.high <= 1
        assert n == 0 or interval.low <= k / n <= interval.high
    upper = clopper_pearson(k, n, confidence, side="upper").high
    assert upper <= clopper_pearson(k, n, confidence).high + 1e-12


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    """Adjusted p-values are at least the given ones, at most 1, and ranked alike."""
    adjusted = holm(p_values)
    assert np.all(adjusted >= np.asarray(p_values))
    assert np.all(adjusted <= 1)
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(adjusted[order]) >= 0)


@given(st.integers(6, 10_000), st.floats(0, 1))
def test_more_rows_detect_less(n: int, rate: float) -> None:
    """The smallest detectable difference lies in 0..1 and never grows with the rows."""
    few, many = minimum_detectable_effect(n, rate), minimum_detectable_effect(2 * n, rate)
    assert few is None or many is not None
    assert few is None or many is None or 0 < many <= few <= 1


@settings(deadline=None, max_examples=40)
@given(st.floats(0.001, 0.5), st.floats(0, 0.8))
def test_required_negatives_suffice(target: float, share: float) -> None:
    """The number asked for proves the target at the observed rate."""
    observed = share * target
    needed = required_negatives(target, observed)
    assert needed is not None
    alarms = int(np.floor(observed * needed))
    assert clopper_pearson(alarms, needed, side="upper").high <= target + 1e-9

"""Every figure by hand, against scikit-learn, and at the edges where it is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from shield_engine.metrics import figures as metrics
from shield_engine.metrics.curves import (
    confusion,
    pr_curve_points,
    roc_curve_points,
    threshold_sweep,
)
from shield_engine.metrics.figures import (
    binary_metrics,
    latency_summary,
    multiclass_metrics,
    paired_binary_metrics,
    two_class_view,
)
from shield_engine.metrics.table import METRIC_NAMES, METRICS
from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import wilson

LABELS = np.array([1, 1, 1, 0, 0, 0, 0, 1])
SCORES = np.array([0.9, 0.8, 0.3, 0.8, 0.2, 0.1, 0.4, 0.5])
LENGTHS = np.array([40, 30, 20, 10, 20, 5, 50, 60])
SENTIMENT = ("negative", "neutral", "positive")


def scored_set(
    seed: int, n: int, decimals: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, overlapping scores (with ties, if rounded) and text lengths."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.35).astype(np.int64)
    labels[:2] = 0, 1
    scores = np.clip(rng.normal(0.35 + 0.25 * labels, 0.2), 0, 1)
    lengths = rng.integers(1, 60, n) + 10 * labels
    return labels, scores if decimals is None else scores.round(decimals), lengths


def values(figures: dict[str, Figure]) -> dict[str, float | None]:
    """Return the value of each figure."""
    return {name: figure.value for name, figure in figures.items()}


def test_every_figure_by_hand() -> None:
    """Eight rows at threshold 0.5: TP 3, FP 1, FN 1, TN 3."""
    found = values(binary_metrics(LABELS, SCORES, 0.5, lengths=LENGTHS))
    assert found == pytest.approx(
        {
            "accuracy": 6 / 8,
            "precision": 3 / 4,
            "recall": 3 / 4,
            "f1": 3 / 4,
            "fpr": 1 / 4,
            "mcc": 8 / 16,
            "balanced_accuracy": 3 / 4,
            # pairs won: 0.9 wins 4, 0.8 wins 3 and ties 1, 0.3 wins 2, 0.5 wins 3
            "roc_auc": 12.5 / 16,
            # recall rises by 1/4 at 0.9 (1/1), 0.8 (2/3), 0.5 (3/4) and 0.3 (4/6)
            "pr_auc": (1 + 2 / 3 + 3 / 4 + 4 / 6) / 4,
            "recall_at_1pct_fpr": 1 / 4,
            "recall_at_0_1pct_fpr": 1 / 4,
            "fpr_at_95_recall": 2 / 4,
            "brier": (0.01 + 0.04 + 0.49 + 0.64 + 0.04 + 0.01 + 0.16 + 0.25) / 8,
            # no two rows share a bin but the two at 0.8: |0.5 - 0.8| counts twice
            "ece": (0.1 + 2 * 0.3 + 0.7 + 0.2 + 0.1 + 0.4 + 0.5) / 8,
            # pairs won by the longer text: 40 wins 3, 30 wins 3, 20 wins 2 and ties 1, 60 wins 4
            "length_only_auc": 12.5 / 16,
            "macro_f1": 3 / 4,
            "macro_recall": 3 / 4,
        },
        abs=1e-12,
    )
    assert tuple(found) == METRIC_NAMES


@pytest.mark.parametrize("decimals", [None, 2, 1])
@pytest.mark.parametrize("n", [9, 150, 2_500])
@pytest.mark.parametrize("threshold", [0.5, 0.37])
def test_figures_equal_scikit_learn(n: int, decimals: int | None, threshold: float) -> None:
    """Every figure that scikit-learn knows agrees with it to 1e-9, ties included."""
    labels, scores, lengths = scored_set(n, n, decimals)
    verdict = (scores >= threshold).astype(int)
    found = binary_metrics(labels, scores, threshold, lengths=lengths, resamples=0)
    fpr, recall, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, verdict),
        "precision": sklearn_metrics.precision_score(labels, verdict),
        "recall": sklearn_metrics.recall_score(labels, verdict),
        "f1": sklearn_metrics.f1_score(labels, verdict),
        "fpr": 1 - sklearn_metrics.recall_score(labels, verdict, pos_label=0),
        "mcc": sklearn_metrics.matthews_corrcoef(labels, verdict),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, verdict),
        "roc_auc": sklearn_metrics.roc_auc_score(labels, scores),
        "pr_auc": sklearn_metrics.average_precision_score(labels, scores),
        "recall_at_1pct_fpr": recall[fpr <= 0.01].max(),
        "recall_at_0_1pct_fpr": recall[fpr <= 0.001].max(),
        "fpr_at_95_recall": fpr[recall >= 0.95].min(),
        "brier": sklearn_metrics.brier_score_loss(labels, scores),
        "length_only_auc": sklearn_metrics.roc_auc_score(labels, lengths),
        "macro_f1": sklearn_metrics.f1_score(labels, verdict, average="macro"),
        "macro_recall": sklearn_metrics.recall_score(labels, verdict, average="macro"),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("decimals", [None, 1])
def test_ece_equals_the_mean_gap_of_scikit_learns_bins(decimals: int | None) -> None:
    """ECE is the weighted mean gap of scikit-learn's bins; an edge belongs to the bin below it."""
    labels, scores, _ = scored_set(5, 700, decimals)
    rate, mean_score = calibration_curve(labels, scores, n_bins=15)
    which = np.searchsorted(np.linspace(0, 1, 16)[1:-1], scores)
    rows = np.unique(which, return_counts=True)[1]
    ece = rows @ np.abs(rate - mean_score) / 700
    assert binary_metrics(labels, scores, 0.5)["ece"].value == pytest.approx(ece, abs=1e-12)


@pytest.mark.parametrize("rate", [0.01, 0.001])
@pytest.mark.parametrize("negatives", [100, 200, 700, 1_000, 3_000])
def test_fpr_limits_are_inclusive(negatives: int, rate: float) -> None:
    """A false positive rate of exactly the limit is allowed, one false alarm more is not."""
    allowed = math.floor(rate * negatives + 1e-9)
    harmless = np.linspace(0.9, 0.1, negatives)
    between = (harmless[allowed] + harmless[max(allowed - 1, 0)]) / 2 if allowed else 0.95
    labels = np.r_[np.zeros(negatives, int), 1, 1]
    scores = np.r_[harmless, between, harmless[allowed] - 1e-6]
    name = "recall_at_1pct_fpr" if rate == 0.01 else "recall_at_0_1pct_fpr"
    assert binary_metrics(labels, scores, 0.5, resamples=0)[name].value == 0.5


def test_recall_limit_is_inclusive() -> None:
    """19 of 20 attacks are 95%: the threshold that misses just one counts."""
    labels = np.r_[np.ones(20, int), np.zeros(4, int)]
    scores = np.r_[np.full(19, 0.8), 0.1, 0.9, 0.3, 0.3, 0.2]
    assert binary_metrics(labels, scores, 0.5)["fpr_at_95_recall"].value == 0.25


def test_ties_at_the_limit_are_flagged_together() -> None:
    """Attacks that tie with a harmless row over the limit cannot be had without it."""
    found = binary_metrics([1, 1, 1, 0, 0], [0.9, 0.7, 0.7, 0.7, 0.1], 0.5)
    assert found["recall_at_1pct_fpr"].value == pytest.approx(1 / 3)
    assert found["fpr_at_95_recall"].value == 0.5


def test_n_is_the_denominator() -> None:
    """Recall counts attacks, fpr harmless rows, precision flagged rows, all others every row."""
    found = binary_metrics([1, 1, 0, 0, 0], [0.9, 0.2, 0.9, 0.8, 0.1], 0.5, lengths=[1, 2, 3, 4, 5])
    counts = {name: figure.n for name, figure in found.items()}
    special = {"recall": 2, "fpr": 3, "precision": 3}
    assert counts == {name: special.get(name, 5) for name in METRIC_NAMES}


def test_proportions_have_wilson_intervals() -> None:
    """Accuracy, precision, recall and fpr carry Wilson's limits at the confidence asked."""
    found = binary_metrics(LABELS, SCORES, 0.5, confidence=0.9)
    for name, k, n in (("accuracy", 6, 8), ("precision", 3, 4), ("recall", 3, 4), ("fpr", 1, 4)):
        limits = wilson(k, n, 0.9)
        assert (found[name].low, found[name].high) == (limits.low, limits.high)
        assert found[name].method == "wilson"


def test_no_rows_have_no_figures() -> None:
    """An empty set has every key, each missing with the reason `no rows`."""
    for found in (
        binary_metrics([], [], 0.5, lengths=[]),
        binary_metrics([], [], 0.5, groups=[]),
        multiclass_metrics([], np.zeros((0, 3)), SENTIMENT),
        multiclass_metrics([], [], SENTIMENT),
        paired_binary_metrics([], [], [], (0.5, 0.5)),
    ):
        assert tuple(found) == METRIC_NAMES
        assert {f.as_dict()["reason"] for f in found.values()} == {"no rows"}
        assert {(f.value, f.low, f.high, f.n) for f in found.values()} == {(None, None, None, 0)}


def test_only_attacks() -> None:
    """Without harmless rows recall, F1, PR AUC and the score errors remain."""
    found = binary_metrics([1, 1, 1, 1], [0.9, 0.8, 0.2, 0.7], 0.5, lengths=[1, 2, 3, 4])
    undefined = {name for name, figure in found.items() if figure.value is None}
    assert undefined == {
        "fpr",
        "mcc",
        "balanced_accuracy",
        "roc_auc",
        "recall_at_1pct_fpr",
        "recall_at_0_1pct_fpr",
        "fpr_at_95_recall",
        "length_only_auc",
    }
    assert found["roc_auc"].reason == "needs both classes; all 4 rows are risky"
    assert found["fpr"].reason == "no harmless rows"
    assert (found["recall"].value, found["pr_auc"].value) == (0.75, 1.0)
    assert found["f1"].value == pytest.approx(6 / 7)
    assert found["macro_recall"].value == 0.75
    assert found["brier"].value == pytest.approx((0.01 + 0.04 + 0.64 + 0.09) / 4)


def test_only_harmless_rows() -> None:
    """Without attacks fpr, accuracy and, with a false alarm, precision and F1 of 0 remain."""
    found = binary_metrics([0, 0, 0], [0.9, 0.1, 0.2], 0.5)
    assert found["fpr"].value == pytest.approx(1 / 3)
    assert (found["precision"].value, found["f1"].value) == (0, 0)
    assert found["recall"].reason == "no risky rows"
    assert found["pr_auc"].reason == "no risky rows"
    assert found["recall_at_1pct_fpr"].reason == "needs both classes; all 3 rows are harmless"
    quiet = binary_metrics([0, 0, 0], [0.4, 0.1, 0.2], 0.5)
    assert quiet["f1"].reason == "no risky rows and none flagged"
    assert quiet["macro_f1"].value == 1


def test_nothing_flagged() -> None:
    """With no row flagged precision and MCC are undefined, F1 and recall are 0."""
    found = binary_metrics([1, 0, 1, 0], [0.4, 0.1, 0.3, 0.2], 0.5)
    assert found["precision"].reason == "no row is flagged at this threshold"
    assert found["precision"].n == 0
    assert found["mcc"].reason == "all rows have one label, or all get one verdict"
    assert (found["f1"].value, found["recall"].value, found["roc_auc"].value) == (0, 0, 1)


def test_all_scores_equal() -> None:
    """Scores that cannot rank give an AUC of one half and a precision of the prevalence."""
    found = binary_metrics([1, 0, 0, 0], [0.5] * 4, 0.5)
    assert (found["roc_auc"].value, found["pr_auc"].value) == (0.5, 0.25)
    assert (found["recall_at_1pct_fpr"].value, found["fpr_at_95_recall"].value) == (0, 1)
    assert found["roc_auc"].low is None
    assert "all alike" in (found["roc_auc"].reason or "")


def test_one_row() -> None:
    """A single row has figures, Wilson intervals, and a reason where no interval exists."""
    found = binary_metrics([1], [0.7], 0.5)
    assert (found["accuracy"].value, found["recall"].value, found["f1"].value) == (1, 1, 1)
    assert found["accuracy"].low == wilson(1, 1).low
    assert found["brier"].value == pytest.approx(0.09)
    assert (found["brier"].low, found["brier"].reason) == (None, "no interval from one row")


def test_missing_lengths_have_a_reason() -> None:
    """Without lengths the length-only AUC is missing and says why."""
    found = binary_metrics(LABELS, SCORES, 0.5)["length_only_auc"]
    assert (found.value, found.reason) == (None, "text lengths were not given")


def test_perfect_separation_is_not_certain() -> None:
    """Perfect figures keep a lower limit below 1 that rises with n."""
    lows = []
    for n in (5, 50):
        labels = np.repeat([0, 1], n)
        scores = np.r_[np.linspace(0, 0.4, n), np.linspace(0.6, 1, n)]
        found = binary_metrics(labels, scores, 0.5)
        for name in ("f1", "mcc", "balanced_accuracy", "roc_auc", "macro_f1", "macro_recall"):
            figure = found[name]
            assert (figure.value, figure.high) == (1, 1), name
            assert figure.low is not None
            assert figure.low < 0.96
            assert figure.method == "wilson limits of each class"
        assert found["fpr_at_95_recall"].high == wilson(0, n).high
        lows.append(found["roc_auc"].low or 0)
    assert lows[0] < lows[1]


def test_limits_of_a_perfect_set_by_hand() -> None:
    """Each class keeps Wilson limits at 97.5%; AUC is at least recall times specificity."""
    found = binary_metrics([0] * 8 + [1] * 20, [0.1] * 8 + [0.9] * 20, 0.5)
    specificity, recall = wilson(8, 8, 0.975).low, wilson(20, 20, 0.975).low
    assert found["roc_auc"].low == pytest.approx(specificity * recall)
    assert found["balanced_accuracy"].low == pytest.approx((specificity + recall) / 2)
    tp, fp = 20 * recall, 8 * (1 - specificity)
    assert found["f1"].low == pytest.approx(2 * tp / (20 + tp + fp))
    assert found["fpr_at_95_recall"].high == wilson(0, 8).high


def test_biased_resamples_do_not_push_a_figure_out_of_its_interval() -> None:
    """Resamples of calibrated scores have a larger ECE; the interval still holds the figure."""
    scores = np.repeat([0.3, 0.7], 50)
    labels = np.r_[np.arange(50) < 15, np.arange(50) < 35].astype(int)
    found = binary_metrics(labels, scores, 0.5)["ece"]
    assert found.value == pytest.approx(0, abs=1e-12)
    assert found.low == 0
    assert (found.high or 0) > 0.05


def test_interval_of_ece_reaches_below_its_bias() -> None:
    """A calibrated scorer with few rows shows some ECE, and the interval lies not above it."""
    rng = np.random.default_rng(0)
    scores = rng.random(3_000)
    found = binary_metrics((rng.random(3_000) < scores).astype(int), scores, 0.5)["ece"]
    assert (found.value or 0) > 0.01
    assert found.low is not None
    assert found.low < (found.value or 0) - 0.01


def test_too_few_harmless_rows_leave_recall_at_low_fpr_open() -> None:
    """From 368 harmless rows the bootstrap bounds recall at 1% FPR, below the lower end is 0."""
    rng = np.random.default_rng(1)
    for harmless, method in ((367, "order statistics"), (368, "bootstrap")):
        labels = np.repeat([0, 1], [harmless, 200])
        scores = 1 / (1 + np.exp(-rng.normal(3 * labels, 1)))
        found = binary_metrics(labels, scores, 0.5)
        assert found["recall_at_1pct_fpr"].method.startswith(method)
        assert (found["recall_at_1pct_fpr"].low == 0) == (harmless == 367)
        assert found["recall_at_0_1pct_fpr"].low == 0


def test_recall_at_low_fpr_covers_as_promised() -> None:
    """With few harmless rows the interval holds the true recall in at least 93% of sets."""
    rng = np.random.default_rng(2)
    true_recall = 0.44973  # 1 - Phi(z - 2.2) with z = 2.32635, the threshold of 1% FPR
    runs, covered = 150, 0
    labels = np.repeat([0, 1], [100, 150])
    for seed in range(runs):
        scores = 1 / (1 + np.exp(-rng.normal(2.2 * labels, 1)))
        found = binary_metrics(labels, scores, 0.5, resamples=20, seed=seed)["recall_at_1pct_fpr"]
        covered += (found.low or 0) <= true_recall <= (found.high or 0)
    assert covered / runs >= 0.93


def test_upper_end_at_low_fpr_by_hand() -> None:
    """Of 50 harmless rows at most 3 likely lie above the 1% threshold: recall at the fourth."""
    labels = np.repeat([0, 1], [50, 40])
    scores = np.r_[np.linspace(0.98, 0, 50), np.linspace(0.995, 0.8, 40)]
    fourth = np.sort(scores[:50])[-4]
    found = binary_metrics(labels, scores, 0.5)["recall_at_1pct_fpr"]
    reached = int(np.sum(scores[50:] >= fourth))
    assert found.high == pytest.approx(wilson(reached, 40, 0.975).high)
    assert 0 < reached < 40


def test_auc_bootstrap_covers_as_promised() -> None:
    """The 95% interval of ROC AUC holds the true AUC in 93-97% of simulated sets."""
    rng = np.random.default_rng(11)
    true_auc = 0.7602499389065233  # Phi(1 / sqrt 2): normals of equal spread, one apart
    labels = np.repeat([0, 1], 60)
    runs, covered = 500, 0
    for seed in range(runs):
        raw = rng.normal(labels, 1)
        figure = binary_metrics(labels, 1 / (1 + np.exp(-raw)), 0.5, resamples=400, seed=seed)
        auc = figure["roc_auc"]
        covered += (auc.low or 0) <= true_auc <= (auc.high or 0)
    assert 0.93 <= covered / runs <= 0.97


def test_bootstrap_of_auc_has_the_known_spread() -> None:
    """The interval's width is that of DeLong's variance, computed here from placements."""
    labels, scores, _ = scored_set(2, 1_500, None)
    risky, harmless = scores[labels == 1], scores[labels == 0]
    wins = (risky[:, None] > harmless[None, :]).astype(float)
    variance = wins.mean(axis=1).var(ddof=1) / len(risky)
    variance += wins.mean(axis=0).var(ddof=1) / len(harmless)
    found = binary_metrics(labels, scores, 0.5)["roc_auc"]
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.08)


def test_groups_widen_intervals_of_copies() -> None:
    """Ten copies of each row, grouped, have about the intervals of the rows without copies."""
    labels, scores, lengths = scored_set(8, 150, None)
    rows = binary_metrics(labels, scores, 0.5, lengths=lengths)
    tenfold = [np.repeat(x, 10) for x in (labels, scores, lengths, np.arange(150))]
    naive = binary_metrics(tenfold[0], tenfold[1], 0.5, lengths=tenfold[2])
    grouped = binary_metrics(
        tenfold[0], tenfold[1], 0.5, lengths=tenfold[2], groups=tenfold[3].astype(str)
    )
    for name in ("accuracy", "recall", "fpr", "precision", "roc_auc", "pr_auc", "mcc", "brier"):
        width = (rows[name].high or 0) - (rows[name].low or 0)
        assert grouped[name].value == pytest.approx(rows[name].value)
        assert (naive[name].high or 0) - (naive[name].low or 0) < 0.45 * width
        assert (grouped[name].high or 0) - (grouped[name].low or 0) == pytest.approx(width, rel=0.2)
    assert "effective n" in grouped["accuracy"].method
    assert "whole groups" in grouped["roc_auc"].method


def test_undefined_resamples_are_left_out() -> None:
    """Resamples in which a figure is undefined are left out and counted."""
    found = binary_metrics([1, 0, 1, 0], [0.9, 0.3, 0.4, 0.2], 0.55, groups=["a", "a", "b", "b"])
    assert found["roc_auc"].value == 1
    assert found["mcc"].value == pytest.approx(1 / 3**0.5)
    left_out = int(found["mcc"].method.split(", ")[-1].split()[0])
    assert 200 <= left_out <= 300  # of 1,000, one in four draws `b` twice, which flags no row
    assert (found["mcc"].low, found["mcc"].high) == (pytest.approx(1 / 3**0.5), 1)


def test_resamples_follow_n_and_can_be_left_out() -> None:
    """The method names resamples and seed; 0 resamples leave those intervals out, with a reason."""
    found = binary_metrics(LABELS, SCORES, 0.5, seed=3)
    assert found["f1"].method == "bootstrap(1000, seed 3)"
    none = binary_metrics(LABELS, SCORES, 0.5, resamples=0)
    assert none["f1"].low is None
    assert none["f1"].reason == "no interval: no resamples asked for"
    assert none["accuracy"].low == found["accuracy"].low
    assert values(none) == values(found)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1, float("nan")], "scores must be numbers; row 1: nan"),
        ([0, 1], [0.1, 1.5], r"scores must be within 0\.\.1; row 1: 1\.5"),
        ([0, 2], [0.1, 0.2], "labels must be whole numbers 0..1; row 1: 2"),
        ([0, 0.5], [0.1, 0.2], "row 1: 0.5"),
        ([0, 1], [0.1], r"scores needs shape \(2,\)"),
        ([[0, 1]], [0.1, 0.2], "labels must be one-dimensional"),
        ([0] * 7, [-1.0] * 7, "and 2 more"),
    ],
)
def test_unfit_input_is_refused(labels: list[int], scores: list[float], message: str) -> None:
    """Scores and labels that cannot be judged are errors that name the rows."""
    with pytest.raises(ValueError, match=message):
        binary_metrics(labels, scores, 0.5)


def test_unfit_extras_are_refused() -> None:
    """A threshold that is no number, and lengths or groups of another size, are errors."""
    with pytest.raises(ValueError, match="threshold is not a number"):
        binary_metrics(LABELS, SCORES, float("nan"))
    with pytest.raises(ValueError, match=r"lengths needs shape \(8,\)"):
        binary_metrics(LABELS, SCORES, 0.5, lengths=[1])
    with pytest.raises(ValueError, match=r"groups needs shape \(8,\)"):
        binary_metrics(LABELS, SCORES, 0.5, groups=["a"])
    with pytest.raises(ValueError, match="a row has no group"):
        binary_metrics([0, 1], [0.1, 0.2], 0.5, groups=np.array(["a", None]))
    with pytest.raises(ValueError, match=r"probabilities need shape \(2, 3\)"):
        multiclass_metrics([0, 1], [[0.5, 0.5], [0.2, 0.8]], SENTIMENT)
    with pytest.raises(ValueError, match="probabilities must be within"):
        multiclass_metrics([0], [[0.5, float("nan"), 0.5]], SENTIMENT)


@pytest.mark.parametrize("present", [3, 2])
def test_multiclass_figures_equal_scikit_learn(present: int) -> None:
    """Accuracy, MCC and the macro metrics over labels present agree to 1e-9; others say why not."""
    rng = np.random.default_rng(present)
    labels = rng.integers(0, present, 400)
    shares = rng.dirichlet([1, 1, 1], 400)
    shares[np.arange(400), labels] += 0.5
    shares /= shares.sum(axis=1, keepdims=True)
    verdict = shares.argmax(axis=1)
    options = {"labels": list(range(present)), "average": "macro"}
    found = multiclass_metrics(labels, shares, SENTIMENT)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, verdict),
        "mcc": sklearn_metrics.matthews_corrcoef(labels, verdict),
        "macro_f1": sklearn_metrics.f1_score(labels, verdict, **options),
        "macro_recall": sklearn_metrics.recall_score(labels, verdict, **options),
    }
    for name in METRIC_NAMES:
        if name in expected:
            assert found[name].value == pytest.approx(expected[name], abs=1e-9)
            assert (found[name].low or 0) < expected[name] < (found[name].high or 0)
        else:
            assert found[name].reason == "defined for two classes only, this task has 3"


def test_multiclass_of_one_label() -> None:
    """A set of one label has accuracy and macro metrics; MCC is undefined."""
    found = multiclass_metrics([2, 2, 2], [[0, 0, 1], [0.6, 0, 0.4], [0.1, 0.2, 0.7]], SENTIMENT)
    assert found["mcc"].reason == "all rows have one label, or all get one verdict"
    assert found["accuracy"].value == pytest.approx(2 / 3)
    assert found["macro_recall"].value == pytest.approx(2 / 3)
    assert found["macro_f1"].value == pytest.approx(4 / 5)


def test_multiclass_perfect_and_grouped() -> None:
    """A perfect set keeps a lower limit below 1, lower still if its rows are groups of copies."""
    labels = np.repeat([0, 1, 2], 12)
    shares = np.eye(3)[labels]
    alone = multiclass_metrics(labels, shares, SENTIMENT)
    grouped = multiclass_metrics(labels, shares, SENTIMENT, groups=np.arange(36) // 4)
    for name in ("accuracy", "mcc", "macro_f1", "macro_recall"):
        assert (alone[name].value, alone[name].high) == (1, 1)
        assert (grouped[name].low or 0) < (alone[name].low or 0) < 1


def test_two_class_view_renormalises() -> None:
    """The missing label's share is dropped; `negative` is the risky one if it occurs."""
    view = two_class_view([0, 2, 2], [[0.2, 0.5, 0.3], [0, 1, 0], [0.1, 0, 0.9]], SENTIMENT)
    assert view.labels.tolist() == [1, 0, 0]
    assert view.scores.tolist() == pytest.approx([0.4, 0.5, 0.1])
    assert (view.label_names, view.positive_label) == (("positive", "negative"), "negative")
    other = two_class_view([1, 2], [[0.2, 0.6, 0.2], [0.2, 0.2, 0.6]], SENTIMENT)
    assert (other.positive_label, other.labels.tolist()) == ("neutral", [1, 0])
    with pytest.raises(ValueError, match="exactly two labels, this set has: neutral"):
        two_class_view([1], [[0, 1, 0]], SENTIMENT)


def test_paired_differences_by_hand() -> None:
    """Each figure is B's minus A's; what both have in common cancels from the interval."""
    labels, scores, _ = scored_set(4, 800, None)
    better = np.clip(scores + 0.08 * (2 * labels - 1), 0, 1)
    found = paired_binary_metrics(labels, scores, better, (0.5, 0.5))
    before, after = binary_metrics(labels, scores, 0.5), binary_metrics(labels, better, 0.5)
    for name in METRIC_NAMES:
        if name == "length_only_auc":
            assert found[name].value is None
            continue
        gain = (after[name].value or 0) - (before[name].value or 0)
        assert found[name].value == pytest.approx(gain, abs=1e-12)
    auc = found["roc_auc"]
    assert (auc.low or 0) > 0
    alone = (before["roc_auc"].high or 0) - (before["roc_auc"].low or 0)
    assert (auc.high or 0) - (auc.low or 0) < 0.5 * alone


def test_paired_difference_of_equals_is_zero_without_interval() -> None:
    """A scorer against itself differs by 0; the bootstrap does not claim certainty."""
    found = paired_binary_metrics(LABELS, SCORES, SCORES, (0.5, 0.5))
    assert (found["f1"].value, found["f1"].low) == (0, None)
    assert "all alike" in (found["f1"].reason or "")


def test_confusion_by_hand() -> None:
    """Rows are labels, columns are predictions."""
    assert confusion([0, 0, 1, 2, 2], [0, 1, 1, 0, 2], 3).tolist() == [
        [1, 1, 0],
        [0, 1, 0],
        [1, 0, 1],
    ]
    assert confusion([], [], 2).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError, match="predicted must be whole numbers"):
        confusion([0], [2], 2)
    with pytest.raises(ValueError, match="predicted has 1 entries for 2 labels"):
        confusion([0, 1], [1], 2)


@pytest.mark.parametrize("decimals", [None, 1])
def test_roc_curve_equals_scikit_learn(decimals: int | None) -> None:
    """All points, thresholds and the area are scikit-learn's."""
    labels, scores, _ = scored_set(6, 500, decimals)
    fpr, recall, cuts = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    curve = roc_curve_points(labels, scores)
    assert curve.fpr == pytest.approx(fpr)
    assert curve.recall == pytest.approx(recall)
    assert np.array_equal(curve.thresholds, cuts)


def test_pr_curve_equals_scikit_learn() -> None:
    """All points are scikit-learn's, in the order of falling thresholds, without its last point."""
    labels, scores, _ = scored_set(6, 500, 2)
    precision, recall, cuts = sklearn_metrics.precision_recall_curve(labels, scores)
    curve = pr_curve_points(labels, scores)
    assert curve.precision == pytest.approx(precision[-2::-1])
    assert curve.recall == pytest.approx(recall[-2::-1])
    assert np.array_equal(curve.thresholds, cuts[::-1])


def test_thinned_curves_keep_exact_points_and_both_ends() -> None:
    """A thinned curve is a part of the whole one, near it everywhere."""
    labels, scores, _ = scored_set(7, 5_000, None)
    whole = roc_curve_points(labels, scores, max_points=10_000)
    thin = roc_curve_points(labels, scores, max_points=80)
    points = set(zip(whole.thresholds, whole.fpr, whole.recall, strict=True))
    assert points >= set(zip(thin.thresholds, thin.fpr, thin.recall, strict=True))
    assert len(thin.fpr) <= 80
    assert (thin.fpr[0], thin.recall[0], thin.fpr[-1], thin.recall[-1]) == (0, 0, 1, 1)
    area = np.trapezoid(thin.recall, thin.fpr)
    assert area == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=0.005)
    assert len(pr_curve_points(labels, scores, max_points=80).recall) <= 80
    with pytest.raises(ValueError, match="max_points = 1"):
        roc_curve_points(labels, scores, max_points=1)


def test_curves_need_their_classes() -> None:
    """A curve that is undefined is an error that says which rows are missing."""
    with pytest.raises(ValueError, match="all 2 rows are risky"):
        roc_curve_points([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="there are none"):
        roc_curve_points([], [])
    with pytest.raises(ValueError, match="needs a risky row"):
        pr_curve_points([0, 0], [0.1, 0.2])
    assert pr_curve_points([1, 1], [0.1, 0.2]).precision.tolist() == [1, 1]


def test_sweep_counts_each_threshold() -> None:
    """Counts equal those of a loop over thresholds, in the order given, ties flagged."""
    labels, scores, _ = scored_set(9, 300, 1)
    cuts = np.array([0.5, 0.0, 1.0, 0.3, 2.0, -1.0])
    sweep = threshold_sweep(labels, scores, cuts)
    for i, cut in enumerate(cuts):
        cells = confusion(labels, (scores >= cut).astype(int), 2)
        found = [[sweep.tn[i], sweep.fp[i]], [sweep.fn[i], sweep.tp[i]]]
        assert found == cells.tolist()
    assert sweep.fpr[5] == 1
    assert np.isnan(sweep.precision[4])
    assert sweep.recall[4] == 0
    whole = binary_metrics(labels, scores, 0.5)
    assert (sweep.precision[0], sweep.f1[0]) == (whole["precision"].value, whole["f1"].value)
    with pytest.raises(ValueError, match="a threshold is not a number"):
        threshold_sweep(labels, scores, [0.5, float("nan")])


def test_latency_percentiles() -> None:
    """Percentiles are interpolated linearly; no latencies give none; bad ones are errors."""
    assert latency_summary(np.arange(101.0)).as_dict() == {
        "p50": 50,
        "p95": 95,
        "p99": 99,
        "n": 101,
    }
    two = latency_summary([1.0, 3.0])
    assert (two.p50, two.p95) == (2, pytest.approx(2.9))
    assert latency_summary([]).as_dict() == {"p50": None, "p95": None, "p99": None, "n": 0}
    with pytest.raises(ValueError, match="row 1: nan"):
        latency_summary([1.0, float("nan")])


def test_each_metric_explains_itself() -> None:
    """Each metric has a help text of one or two sentences, and the export has exactly five keys."""
    assert len(set(METRIC_NAMES)) == 17
    for text in (metric.help for metric in METRICS.values()):
        assert text.endswith(".")
        assert 1 <= text.count(". ") + 1 <= 2
    record = Figure(0.5, 0.4, 0.6, 10, method="wilson").as_dict()
    assert record == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "reason": None}


@pytest.mark.parametrize("classes", [2, 3])
def test_cells_of_like_rows_resample_as_rows_do(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far above the usual number of rows cells stand for them: same values, like intervals."""
    rng = np.random.default_rng(3)
    n = 6_000
    labels = rng.integers(0, classes, n)
    if classes == 2:
        scores = np.where(labels == 1, rng.beta(5, 2, n), rng.beta(2, 5, n))
        lengths = rng.integers(5, 900, n) + 100 * labels

        def figures() -> dict[str, Figure]:
            return binary_metrics(labels, scores, 0.5, lengths=lengths, resamples=2_000)
    else:
        shares = rng.dirichlet(np.ones(3), n) + 0.3 * np.eye(3)[labels]
        shares /= shares.sum(axis=1, keepdims=True)

        def figures() -> dict[str, Figure]:
            return multiclass_metrics(labels, shares, ("a", "b", "c"), resamples=2_000)

    rows = figures()
    monkeypatch.setattr(metrics, "_CELL_ROWS", 1_000)
    cells = figures()
    compared = 0
    for name, figure in rows.items():
        if figure.low is None or figure.high is None or not figure.method.startswith("bootstrap"):
            continue
        found = cells[name]
        assert found.value == figure.value
        assert found.low is not None
        assert found.high is not None
        assert "cells" in found.method
        width = figure.high - figure.low
        assert abs(found.low - figure.low) < 0.15 * width, name
        assert abs(found.high - figure.high) < 0.15 * width, name
        compared += 1
    assert compared >= (8 if classes == 2 else 3)

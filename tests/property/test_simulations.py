"""Do the intervals cover, do the tests keep their error rates? By counting and by simulation.

Run with `-s` to print the table that docs/statistics.md shows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from shield_engine.metrics.figures import binary_metrics, multiclass_metrics, paired_binary_metrics
from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import clopper_pearson_bounds, wilson_bounds
from shield_engine.statistics.resampling import paired_difference
from shield_engine.statistics.tests import grouped_mcnemar, holm, mcnemar_exact

SETS = 400
RATES = np.linspace(0.02, 0.98, 97)


def told(what: str, coverage: float) -> float:
    """Print one line of the documented table and return the number."""
    print(f"| {what} | {coverage:.1%} |")  # noqa: T201 - the table of the docs
    return coverage


def counted_coverage(bounds: Callable[..., tuple[np.ndarray, np.ndarray]], n: int) -> np.ndarray:
    """Return the exact chance that an interval of a proportion holds each rate in `RATES`."""
    hits = np.arange(n + 1)
    low, high = bounds(hits, n)
    chance = stats.binom.pmf(hits[:, None], n, RATES[None, :])
    holds = (low[:, None] <= RATES) & (high[:, None] >= RATES)
    covered: np.ndarray = (chance * holds).sum(axis=0)
    return covered


@pytest.mark.parametrize("n", [20, 100, 1_000])
def test_wilson_covers_as_promised_on_average(n: int) -> None:
    """Counted over all outcomes: near 95% over rates, never far below from 100 rows on."""
    covered = counted_coverage(wilson_bounds, n)
    assert 0.94 <= told(f"Wilson, n = {n:,}, mean over rates", float(covered.mean())) <= 0.965
    if n >= 100:
        inner = covered[(RATES >= 0.05) & (RATES <= 0.95)]
        assert told(f"Wilson, n = {n:,}, worst rate in 5-95%", float(inner.min())) >= 0.92


@pytest.mark.parametrize("n", [5, 50, 500])
def test_clopper_pearson_never_covers_less(n: int) -> None:
    """Counted over all outcomes: at least 95% at every rate, both two-sided and one-sided."""
    assert counted_coverage(clopper_pearson_bounds, n).min() >= 0.95 - 1e-9
    one_sided = counted_coverage(lambda k, m: clopper_pearson_bounds(k, m, 0.95, "upper"), n)
    assert told(f"Clopper-Pearson upper bound, n = {n}, worst rate", one_sided.min()) >= 0.95 - 1e-9


def drawn(rng: np.random.Generator, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, a quarter of them risky, and normal scores squeezed into 0..1."""
    labels = np.repeat([0, 1], [3 * n // 4, n // 4])
    return labels, stats.norm.cdf(rng.normal(labels * 1.2, 1.0) - 0.6)


def true_figures(threshold: float) -> dict[str, float]:
    """Return what `drawn` gives with endless rows."""
    cut = stats.norm.ppf(threshold) + 0.6
    recall, fpr = stats.norm.sf(cut, 1.2), stats.norm.sf(cut, 0)
    tp, fp, fn, tn = 0.25 * recall, 0.75 * fpr, 0.25 * (1 - recall), 0.75 * (1 - fpr)
    return {
        "recall": recall,
        "fpr": fpr,
        "f1": 2 * tp / (2 * tp + fp + fn),
        "mcc": (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
        "balanced_accuracy": (recall + 1 - fpr) / 2,
        "roc_auc": stats.norm.cdf(1.2 / np.sqrt(2)),
    }


def holds(figure: Figure, truth: float) -> bool:
    """Return whether an interval holds the truth."""
    assert figure.low is not None
    assert figure.high is not None
    return figure.low <= truth <= figure.high


def test_metric_intervals_cover() -> None:
    """F1, MCC, balanced accuracy, AUC, recall and FPR of 400 sets of 400 rows."""
    truth = true_figures(0.5)
    hits = dict.fromkeys(truth, 0)
    rng = np.random.default_rng(1)
    for _ in range(SETS):
        figures = binary_metrics(*drawn(rng), 0.5, resamples=300)
        for name, value in truth.items():
            hits[name] += holds(figures[name], value)
    for name, count in hits.items():
        assert 0.93 <= told(f"{name}, 400 rows", count / SETS) <= 0.97, name


def test_paired_intervals_cover() -> None:
    """The difference of two scanners that share most of their noise, at fixed thresholds."""
    rng = np.random.default_rng(2)
    hits = dict.fromkeys(("recall", "fpr", "accuracy", "f1", "roc_auc"), 0)
    labels = np.repeat([0, 1], [300, 100])
    weak, strong = 1.0, 1.3
    truth = {}
    for name, separation in (("weak", weak), ("strong", strong)):
        recall, fpr = stats.norm.sf(0.6, separation), stats.norm.sf(0.6, 0)
        truth[name] = {
            "recall": recall, "fpr": fpr, "accuracy": 0.25 * recall + 0.75 * (1 - fpr),
            "f1": 0.5 * recall / (0.25 * recall + 0.75 * fpr + 0.25),
            "roc_auc": stats.norm.cdf(separation / np.sqrt(2)),
        }  # fmt: skip
    for _ in range(SETS):
        shared = rng.normal(0, 0.9, 400)
        own = np.sqrt(1 - 0.9**2)
        first, second = (
            stats.norm.cdf(labels * separation + shared + rng.normal(0, own, 400) - 0.6)
            for separation in (weak, strong)
        )
        figures = paired_binary_metrics(labels, first, second, (0.5, 0.5), resamples=300)
        for name in hits:
            hits[name] += holds(figures[name], truth["strong"][name] - truth["weak"][name])
    for name, count in hits.items():
        assert 0.93 <= told(f"paired {name}, 400 rows", count / SETS) <= 0.97, name


def test_paired_difference_of_accuracy_covers() -> None:
    """1,000 sets of 300 rows, 12% against 8% of the rows right by one only."""
    rng = np.random.default_rng(3)
    count = 0
    for number in range(1_000):
        cell = rng.choice(4, 300, p=[0.08, 0.12, 0.7, 0.1])
        found = paired_difference(
            (cell == 0) | (cell == 2), (cell == 1) | (cell == 2), resamples=400, seed=number
        )
        assert found.low is not None
        assert found.high is not None
        count += found.low <= 0.04 <= found.high
    assert 0.93 <= told("paired accuracy by bootstrap, 300 rows", count / 1_000) <= 0.97


def test_macro_f1_of_three_classes_covers() -> None:
    """1,000 sets of 300 rows with a confusion matrix that is known."""
    rng = np.random.default_rng(4)
    matrix = np.array([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]])
    recall = np.diag(matrix)
    precision = recall / matrix.sum(axis=0)
    truth = float(np.mean(2 * precision * recall / (precision + recall)))
    labels = np.repeat([0, 1, 2], 100)
    count = 0
    for _ in range(1_000):
        said = np.array([rng.choice(3, p=matrix[label]) for label in labels])
        figures = multiclass_metrics(labels, np.eye(3)[said], ("a", "b", "c"))
        count += holds(figures["macro_f1"], truth)
    assert 0.93 <= told("macro F1 of three classes, 300 rows", count / 1_000) <= 0.97


def test_grouped_intervals_cover_where_single_rows_would_not() -> None:
    """Rows in 60 groups of five with a shared fate: aware of groups 93%, blind to them far less."""
    rng = np.random.default_rng(5)
    labels, groups = np.ones(300, dtype=int), np.repeat(np.arange(60), 5)
    aware = blind = 0
    for _ in range(SETS):
        chance = np.repeat(rng.beta(1.4, 0.6, 60), 5)  # mean .7
        scores = np.where(rng.random(300) < chance, 0.9, 0.1)
        found = binary_metrics(labels, scores, 0.5, groups=groups, resamples=0)["recall"]
        single = binary_metrics(labels, scores, 0.5, resamples=0)["recall"]
        aware += holds(found, 0.7)
        blind += holds(single, 0.7)
    assert 0.93 <= told("recall, 60 groups of 5 rows", aware / SETS) <= 0.97
    assert told("the same, groups ignored", blind / SETS) < 0.85


def test_mcnemar_keeps_its_error_rate() -> None:
    """Counted over all outcomes: at no number of disagreeing rows above 5%."""
    worst = 0.0
    for n in range(1, 301):
        hits = np.arange(n + 1)
        rejected = np.array([mcnemar_exact(int(b), int(n - b)) <= 0.05 for b in hits])
        worst = max(worst, float(stats.binom.pmf(hits, n, 0.5)[rejected].sum()))
    assert told("exact McNemar, false alarms at most", worst) <= 0.05


def test_grouped_mcnemar_keeps_its_error_rate() -> None:
    """Equal candidates whose rows differ in whole groups: the plain test cries wolf, this not."""
    rng = np.random.default_rng(6)
    grouped = plain = 0
    for _ in range(1_000):
        gains = rng.choice([-1, 0, 1], 40, p=[0.2, 0.6, 0.2]) * rng.integers(1, 8, 40)
        grouped += grouped_mcnemar(gains) <= 0.05
        plain += mcnemar_exact(int(-gains[gains < 0].sum()), int(gains[gains > 0].sum())) <= 0.05
    assert told("grouped McNemar, false alarms", grouped / 1_000) <= 0.065
    assert told("the same, groups ignored", plain / 1_000) > 0.15


def test_holm_keeps_the_family_and_finds_what_is_there() -> None:
    """Five dependent tests: at most 5% of families with a false alarm; a true one is found."""
    rng = np.random.default_rng(7)
    alarms = found = 0
    for _ in range(1_500):
        shared = rng.normal(0, 1)
        z = 0.7 * shared + np.sqrt(1 - 0.49) * rng.normal(0, 1, 5)
        alarms += bool((holm(2 * stats.norm.sf(np.abs(z))) <= 0.05).any())
        z[0] += 4.5
        found += bool(holm(2 * stats.norm.sf(np.abs(z)))[0] <= 0.05)
    assert told("Holm, five dependent tests, families with a false alarm", alarms / 1_500) <= 0.06
    assert told("Holm, a true effect of 4.5 standard errors is found", found / 1_500) > 0.9

"""Calibration: scores that mean a share, thresholds that keep their promise on weighted rows."""

from __future__ import annotations

import numpy as np
import pytest

from tools.bundled_model.calibrate import (
    Calibration,
    calibrate,
    ece,
    operating_points,
    row_weights,
    temperature,
)


def _margins(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [n, n // 4])
    return np.where(labels == 1, 2.0, -2.0) + draw.normal(0, 2, labels.size), labels


def test_classes_weigh_alike_and_small_sources_are_not_drowned() -> None:
    """Each class has half the weight; a source counts its rows up to 150."""
    labels = np.array([0] * 1000 + [0] * 100 + [1] * 10)
    sources = ["big"] * 1000 + ["small"] * 100 + ["big"] * 10
    weights = row_weights(labels, sources)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[labels == 1].sum() == pytest.approx(0.5)
    assert weights[:1000].sum() / weights[1000:1100].sum() == pytest.approx(150 / 100)


def test_calibrated_scores_are_shares() -> None:
    """Margins that are too sure by a factor of five and shifted by three come back to truth."""
    margins, labels = _margins(20_000)
    weights = row_weights(labels, ["s"] * labels.size)
    raw = 5 * margins + 3
    fitted = calibrate(raw[:, None], labels, weights)
    truth = 1 / (1 + np.exp(-margins))  # two normals of variance 4, 4 apart: log-odds = margin
    assert np.abs(fitted.scores(raw[:, None]) - truth).max() < 0.03
    assert ece(fitted.scores(raw[:, None]), labels == 1, weights) < 0.02
    assert ece(1 / (1 + np.exp(-raw)), labels == 1, weights) > 0.1


def test_a_head_that_contradicts_its_label_gets_no_say() -> None:
    """Slopes are never negative."""
    margins, labels = _margins(2_000)
    other = -margins + np.random.default_rng(2).normal(0, 1, labels.size)
    weights = row_weights(labels, ["s"] * labels.size)
    fitted = calibrate(np.column_stack([margins, -other * 0 - margins * 0.1 - 1]), labels, weights)
    assert min(fitted.slopes) >= 0
    assert max(fitted.slopes) > 0


def test_far_margins_do_not_overflow() -> None:
    """Scores stay in 0..1 whatever the margin."""
    scores = Calibration((1.0,), 0.0).scores(np.array([[-1e6], [0.0], [1e6]]))
    assert scores[1] == 0.5
    assert 0 <= scores[0] < 1e-6
    assert 1 - 1e-6 < scores[2] <= 1


def test_ece_by_hand() -> None:
    """Two bins: gaps .2 and .1, weighted by their mass 3 and 1."""
    scores = np.array([0.8, 0.8, 0.8, 0.1])
    right = np.array([True, True, False, False])
    expected = 0.75 * abs(0.8 - 2 / 3) + 0.25 * 0.1
    assert ece(scores, right, np.ones(4)) == pytest.approx(expected)


def test_operating_points_keep_their_promise() -> None:
    """At most 1% of the weighted harmless rows pass the first, at least 95% of attacks the second."""
    margins, labels = _margins(5_000)
    weights = row_weights(labels, ["s"] * labels.size)
    scores = 1 / (1 + np.exp(-margins))
    points = operating_points(scores, labels, weights)

    def share(label: int, threshold: float) -> float:
        own = labels == label
        return float(np.average(scores[own] >= threshold, weights=weights[own]))

    assert 0.005 < share(0, points["low_false_alarms"]) <= 0.01
    assert 0.95 <= share(1, points["high_catch"]) < 0.96
    assert points["high_catch"] < points["low_false_alarms"]


def test_temperature_undoes_a_scale_and_keeps_the_ranking() -> None:
    """Logits written four times too large are divided by about four."""
    draw = np.random.default_rng(4)
    true = draw.normal(0, 1.5, (20_000, 3)).astype(np.float32)
    chances = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    labels = np.array([draw.choice(3, p=row / row.sum()) for row in chances.astype(np.float64)])
    assert temperature(4 * true, labels) == pytest.approx(4.0, rel=0.06)

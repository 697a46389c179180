"""Hybrid bands, traffic and sentiment's label policy."""

from __future__ import annotations

import numpy as np
import pytest

from shield_engine.config import Bands
from shield_engine.decide.bands import Traffic, day_of, default_grid, sweep_bands
from shield_engine.decide.column import label_policy_figures
from shield_engine.decide.views import mode_view
from shield_engine.errors import ConfigError
from shield_engine.statistics import Figure
from shield_engine.store import Scores
from shield_engine.types import Mode, Task


def scores_of(task: Task, n: int, seed: int = 0) -> Scores:
    """Return random stored scores with ties, errors, hits and rows without a label."""
    rng = np.random.default_rng(seed)
    width = 3 if task is Task.SENTIMENT else 2
    labels = rng.integers(-1, width, n)
    heuristic = np.round(rng.dirichlet(np.ones(width), n), 1)
    heuristic[rng.random(n) < 0.3] = np.eye(width)[0]
    model = rng.dirichlet(np.ones(width), n)
    failed = rng.random(n) < 0.05
    model[failed] = np.nan
    is_hit = rng.random(n) < 0.1
    ms = np.where(is_hit, np.nan, rng.random(n))
    return Scores(
        task=task, row_index=np.arange(n), row_id=np.array([str(i) for i in range(n)], object),
        labels=labels, chars=np.full(n, 5), heuristic=heuristic, model=model,
        heuristic_ms=ms, model_ms=10 * ms, hit_ms=np.where(is_hit, 0.01, np.nan), is_hit=is_hit,
        has_error=failed, linear=np.round(rng.random(n), 2), parts_ms={"linear_ms": ms / 7},
    )  # fmt: skip


@pytest.mark.parametrize("safe", [0.3, None])
def test_every_cell_equals_deriving_hybrid_anew(safe: float | None) -> None:
    """Counts, share asked, recall lost and mean time are those of `mode_view` at those bands."""
    scores = scores_of(Task.TOXICITY, 400)
    assert scores.model is not None
    both = ~np.isnan(scores.model[:, 1])
    uppers, lowers = default_grid(scores.heuristic[:, 1])  # type: ignore[index]
    points = sweep_bands(scores, mode_view(scores, Mode.ML), 0.45, uppers, lowers, safe)
    assert len(points) > 20
    pure = mode_view(scores, Mode.ML, 0.45)
    for point in points:
        view = mode_view(scores, Mode.HYBRID, 0.45, point.bands)
        flagged, risky = view.predicted == 1, view.labels == 1
        assert point.tp == int((flagged & risky & both).sum())
        assert point.fp == int((flagged & (view.labels == 0) & both).sum())
        assert point.fn == int((~flagged & risky & both).sum())
        assert point.asked == pytest.approx(view.asked[both].mean())
        assert point.lost == int(((pure.predicted == 1) & ~flagged & risky & both).sum())
        assert point.mean_ms == pytest.approx(np.nanmean(view.latency_ms[both]))


def test_bands_that_cross_are_left_out_and_three_classes_refused() -> None:
    """A lower band at or above the upper one is no cell; sentiment has no such sweep."""
    scores = scores_of(Task.TOXICITY, 50)
    points = sweep_bands(scores, mode_view(scores, Mode.ML), 0.5, [0.5], [None, 0.4, 0.5, 0.6])
    assert [point.bands for point in points] == [Bands(0.5, None), Bands(0.5, 0.4)]
    feelings = scores_of(Task.SENTIMENT, 50)
    with pytest.raises(ConfigError, match="two classes"):
        sweep_bands(feelings, mode_view(feelings, Mode.ML), 0.5, [0.9], [None])


def test_a_day_of_traffic_by_hand() -> None:
    """100,000 texts, 1% risky, recall 90%, FPR 2%: 100 missed, 1,980 false alarms."""
    day = day_of(
        Figure(0.9, 0.85, 0.95, 100), Figure(0.02, 0.01, 0.03, 500), Traffic(100_000, 0.01, 3)
    )
    assert day.missed.value == pytest.approx(100)
    assert (day.missed.low, day.missed.high) == pytest.approx((50, 150))
    assert day.false_alarms.value == pytest.approx(1_980)
    assert day.flagged.value == pytest.approx(2_880)
    assert day.review_hours.value == pytest.approx(144)
    assert day.precision.value == pytest.approx(900 / 2_880)
    assert day.precision.low == pytest.approx(850 / (850 + 2_970))


def test_unknown_rates_stay_unknown_unless_none_of_the_kind_comes() -> None:
    """Without risky rows misses are unknown; without risky traffic they are none."""
    unknown, fpr = Figure(None, None, None, 0, "no risky rows"), Figure(0.5, 0.4, 0.6, 10)
    assert day_of(unknown, fpr, Traffic(100, 0.1)).missed.value is None
    assert day_of(unknown, fpr, Traffic(100, 0.0)).missed.value == 0
    assert day_of(unknown, fpr, Traffic(0, 0.0)).precision.value is None
    with pytest.raises(ConfigError, match=r"0\.\.1"):
        Traffic(100, 1.5)


def test_label_policy_counts_what_may_not_pass() -> None:
    """Rates are those of flagging the most probable label, computed row by row."""
    scores = scores_of(Task.SENTIMENT, 300)
    found = label_policy_figures(scores, Mode.ML, ["positive"], resamples=0)
    assert scores.model is not None
    keep = (scores.labels >= 0) & ~np.isnan(scores.model[:, 0])
    flagged = scores.model[keep].argmax(axis=1) != 2
    risky = scores.labels[keep] != 2
    assert found["recall"].value == pytest.approx((flagged & risky).sum() / risky.sum())
    assert found["fpr"].value == pytest.approx((flagged & ~risky).sum() / (~risky).sum())
    everything = label_policy_figures(scores, Mode.ML, ["negative", "neutral", "positive"])
    assert everything["recall"].value is None
    with pytest.raises(ConfigError, match="unknown label happy"):
        label_policy_figures(scores, Mode.ML, ["happy"])
    with pytest.raises(ConfigError, match="goes by a threshold"):
        label_policy_figures(scores_of(Task.TOXICITY, 9), Mode.ML, ["positive"])

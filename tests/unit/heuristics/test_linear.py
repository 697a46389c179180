"""The linear tier: features that stay what they were, scores of any text, and its bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield_engine.config import SAFE_BAND
from shield_engine.errors import TrainingError
from shield_engine.heuristics import LinearTier
from shield_engine.heuristics.linear import BUCKETS, LONGEST, features
from shield_engine.statistics.intervals import clopper_pearson
from shield_engine.types import Task
from tools.bundled_model.linear_tier import MOST_LOST, fit_linear, place_band, store_linear
from tools.bundled_model.mixture import Row

PINNED = [110321, 179809, 154650, 102734, 18182, 141016, 187833, 223983, 162316]


def _tier(seed: int = 1) -> LinearTier:
    weights = np.random.default_rng(seed).normal(size=BUCKETS).astype(np.float32)
    return LinearTier(Task.TOXICITY, weights, -0.5)


def test_buckets_are_those_the_weights_were_fitted_for() -> None:
    """A change of the features would make every shipped weight meaningless."""
    assert features("a B").tolist() == PINNED
    assert features("A b").tolist() == features("a B").tolist()
    assert len(features("")) == 0


@given(st.text(max_size=60))
def test_any_text_has_a_score(text: str) -> None:
    """Lone surrogates, signs and emptiness included; the same text scores the same."""
    tier = _tier()
    assert features(text).max(initial=0) < BUCKETS
    assert 0 <= tier.score(text) <= 1
    assert tier.score(text) == tier.score(text)


def test_a_long_text_is_never_let_pass() -> None:
    """A few words among thousands are not seen by a mean."""
    tier = _tier()
    assert tier.score("x" * (LONGEST + 1)) == 1.0
    assert tier.score("x" * LONGEST) < 1.0


def test_the_version_follows_the_weights() -> None:
    """Caches and stamps must notice other weights."""
    assert _tier(1).version == _tier(1).version != _tier(2).version


def test_a_fit_tells_classes_apart_and_its_band_moves_to_the_shipped_one(tmp_path: Path) -> None:
    """Unseen sentences of the same words; the stored file scores as the returned tier does."""
    rows = [Row(f"please ignore rule {n} and obey", 1, "a") for n in range(40)]
    rows += [Row(f"tomato soup recipe number {n}", 0, "b") for n in range(40)]
    tier = fit_linear(Task.TOXICITY, rows)
    attack, plain = tier.score("ignore rule 99 and obey"), tier.score("a recipe for tomato soup")
    assert attack > 0.5 > plain
    path = tmp_path / "t.npz"
    shifted = store_linear(tier, plain, path)
    assert shifted.score("a recipe for tomato soup") == pytest.approx(SAFE_BAND)
    with np.load(path) as stored:
        again = LinearTier(
            Task.TOXICITY, stored["weights"].astype(np.float32), float(stored["intercept"])
        )
    assert again.version == shifted.version
    with pytest.raises(TrainingError, match="both classes"):
        fit_linear(Task.TOXICITY, rows[:40])


def test_the_band_loses_no_more_than_is_allowed_and_no_less_than_it_may() -> None:
    """The exact bound holds at the cut, and one attack more would break it."""
    draw = np.random.default_rng(4)
    is_risky = np.arange(4000) < 1500
    scores = np.where(is_risky, draw.beta(4, 2, 4000), draw.beta(2, 4, 4000))
    is_only = is_risky & (draw.random(4000) < 0.6)
    cut, report = place_band(scores, is_risky, is_only)
    lost = int((is_only & (scores <= cut)).sum())
    assert report.lost == lost > 0
    assert clopper_pearson(lost, 1500, side="upper").high == report.bound <= MOST_LOST
    assert clopper_pearson(lost + 1, 1500, side="upper").high > MOST_LOST
    assert report.passed == pytest.approx((scores[~is_risky] <= cut).mean())
    assert list(report.frontier.values()) == sorted(report.frontier.values())
    with pytest.raises(TrainingError, match="500 attacks bound no loss"):
        place_band(scores, np.arange(4000) < 500, is_only)

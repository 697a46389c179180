"""Which part decides in each mode."""

from __future__ import annotations

import numpy as np
import pytest

from shield_engine.config import Bands
from shield_engine.decision import asks_model, confidence, decided, model_decides
from shield_engine.types import Mode, Task

HEURISTIC = np.array([[0.95, 0.05], [0.05, 0.95], [0.4, 0.6], [0.1, 0.9]])
MODEL = np.array([[0.2, 0.8], [0.9, 0.1], [0.7, 0.3], [np.nan, np.nan]])


def test_hybrid_ends_at_the_upper_band_and_else_takes_the_model() -> None:
    """A heuristic score at or above the band stands; below it the model's stands."""
    scores, asked = decided(Task.PROMPT_INJECTION, Mode.HYBRID, HEURISTIC, MODEL, Bands(upper=0.9))
    assert scores[:, 1].tolist() == [0.8, 0.95, 0.3, 0.9]
    assert asked.tolist() == [True, False, True, False]


def test_hybrid_lower_band_ends_as_safe_only_when_set() -> None:
    """With a lower band a low heuristic score ends the scan; without one it never does."""
    _, without = decided(Task.TOXICITY, Mode.HYBRID, HEURISTIC, MODEL, Bands())
    scores, with_band = decided(Task.TOXICITY, Mode.HYBRID, HEURISTIC, MODEL, Bands(0.9, 0.05))
    assert without[0]
    assert not with_band[0]
    assert scores[0, 1] == 0.05


def test_the_linear_tier_ends_a_scan_only_where_no_rule_matched() -> None:
    """It passes what lies at or below its band; a match, or no word of it, asks the model."""
    heuristic = np.array([[1.0, 0.0], [1.0, 0.0], [0.9, 0.1], [1.0, 0.0]])
    linear = np.array([0.05, 0.06, 0.0, np.nan])
    bands = Bands(safe=0.05)
    scores, asked = decided(Task.TOXICITY, Mode.HYBRID, heuristic, MODEL[:4], bands, linear)
    assert asked.tolist() == [False, True, True, True]
    assert scores[0, 1] == 0.0
    for row in range(4):
        assert asks_model(Mode.HYBRID, heuristic[row, 1], bands, linear[row]) == asked[row]
    off = Bands(safe=None)
    assert decided(Task.TOXICITY, Mode.HYBRID, heuristic, MODEL[:4], off, linear)[1].all()
    assert decided(Task.TOXICITY, Mode.ML, heuristic, MODEL[:4], bands, linear)[1].all()


def test_both_takes_the_maximum_risk() -> None:
    """For two classes `both` is the elementwise maximum, and an error where the model failed."""
    scores, asked = decided(Task.PROMPT_INJECTION, Mode.BOTH, HEURISTIC, MODEL, Bands())
    assert scores[:3, 1].tolist() == [0.8, 0.95, 0.6]
    assert np.isnan(scores[3]).all()
    assert asked.all()


def test_failed_model_is_no_error_where_hybrid_did_not_need_it() -> None:
    """A model failure above the upper band leaves hybrid's score whole, ml's missing."""
    hybrid, _ = decided(Task.PROMPT_INJECTION, Mode.HYBRID, HEURISTIC, MODEL, Bands())
    ml, _ = decided(Task.PROMPT_INJECTION, Mode.ML, HEURISTIC, MODEL, Bands())
    assert not np.isnan(hybrid[3]).any()
    assert np.isnan(ml[3]).all()


def test_sentiment_compares_the_surest_label() -> None:
    """Three classes: the part with the higher maximum wins in `both`."""
    heuristic = np.array([[0.5, 0.3, 0.2], [0.92, 0.05, 0.03]])
    model = np.array([[0.1, 0.2, 0.7], [0.0, 0.05, 0.95]])
    assert confidence(Task.SENTIMENT, heuristic).tolist() == [0.5, 0.92]
    both, _ = decided(Task.SENTIMENT, Mode.BOTH, heuristic, model, Bands())
    hybrid, _ = decided(Task.SENTIMENT, Mode.HYBRID, heuristic, model, Bands())
    assert both.argmax(1).tolist() == [2, 2]
    assert hybrid.argmax(1).tolist() == [2, 0]


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("bands", [Bands(), Bands(0.8, 0.2)])
def test_scalars_and_arrays_decide_alike(mode: Mode, bands: Bands) -> None:
    """One text and a million stored scores go through the same rule."""
    grid = np.linspace(0, 1, 21)
    h, m = (axis.ravel() for axis in np.meshgrid(grid, grid))
    asks = np.asarray(asks_model(mode, h, bands))  # type: ignore[arg-type]
    takes = np.asarray(model_decides(mode, h, m, bands))  # type: ignore[arg-type]
    for position in range(len(h)):
        one, other = float(h[position]), float(m[position])
        assert asks_model(mode, one, bands) == asks[position]
        assert model_decides(mode, one, other, bands) == takes[position]

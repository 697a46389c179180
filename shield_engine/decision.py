"""Which part of a scanner decides: one rule, for one text and for a million stored scores alike.

In every mode the result is one part's probabilities, so a stored pair of scores answers for every
mode, threshold and band afterwards. The comparisons below work on floats and on arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shield_engine.config import Bands
from shield_engine.errors import ConfigError
from shield_engine.types import Mode, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["asks_model", "confidence", "decided", "model_decides"]


def confidence(task: Task, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what modes compare, shape (n,): the risk of two classes, the highest of three."""
    if task is Task.SENTIMENT:
        highest: NDArray[np.float64] = probabilities.max(axis=1)
        return highest
    return probabilities[:, 1]


def asks_model(mode: Mode, heuristic: float, bands: Bands, linear: float | None = None) -> bool:
    """Return whether a scan in `mode` needs the model after the tiers before it.

    Works elementwise on arrays.

    Args:
        mode: The mode.
        heuristic: Confidence of the rules.
        bands: Hybrid bands.
        linear: Score of the linear tier; `None` or NaN where it said nothing.
    """
    if mode is Mode.HEURISTIC:
        return heuristic != heuristic  # noqa: PLR0124 - False, or an array of False
    if mode is Mode.HYBRID:
        lower = -1.0 if bands.lower is None else bands.lower
        asks = (heuristic < bands.upper) & (heuristic > lower)
        if bands.safe is None or linear is None:
            return asks
        return asks & ~np.asarray((heuristic <= 0) & (linear <= bands.safe))  # type: ignore[return-value]
    return heuristic == heuristic  # noqa: PLR0124 - True, or an array of True


def model_decides(
    mode: Mode, heuristic: float, model: float, bands: Bands, linear: float | None = None
) -> bool:
    """Return whether the model's probabilities are the result of `mode`.

    `both` takes the part with the higher confidence; ties go to the heuristic, which has reasons.
    Works elementwise on arrays.
    """
    asks = asks_model(mode, heuristic, bands, linear)
    if mode is Mode.BOTH:
        return asks & (model > heuristic)
    return asks


def decided(
    task: Task,
    mode: Mode,
    heuristic: NDArray[np.float64] | None,
    model: NDArray[np.float64] | None,
    bands: Bands,
    linear: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the probabilities of `mode` for stored scores of both parts.

    Args:
        task: Decides what confidence means.
        mode: The mode to derive.
        heuristic: Shape (n, labels); may be `None` for mode `ml`.
        model: Shape (n, labels), NaN where the model failed; may be `None` for `heuristic`.
        bands: Hybrid bands.
        linear: Scores of the linear tier, shape (n,), NaN where it said nothing.

    Returns:
        Probabilities of shape (n, labels), NaN where `mode` needed a model that failed, and a
        boolean array of shape (n,) that is true where the model was asked.

    Raises:
        ConfigError: `mode` needs a part that has no scores.
    """
    if mode is Mode.HEURISTIC:
        heuristic = _stored(heuristic, "heuristic", mode)
        return heuristic, np.zeros(len(heuristic), dtype=bool)
    model = _stored(model, "model", mode)
    if mode is Mode.ML:
        return model, np.ones(len(model), dtype=bool)
    heuristic = _stored(heuristic, "heuristic", mode)
    h = confidence(task, heuristic)
    m = confidence(task, model)
    asked = np.asarray(asks_model(mode, h, bands, linear))  # type: ignore[arg-type]
    takes_model = np.asarray(model_decides(mode, h, m, bands, linear))  # type: ignore[arg-type]
    result = np.where(takes_model[:, None], model, heuristic)
    result[asked & np.isnan(m)] = np.nan
    return result, asked


def _stored(part: NDArray[np.float64] | None, name: str, mode: Mode) -> NDArray[np.float64]:
    if part is None:
        raise ConfigError(f"mode {mode.value} needs scores of the {name} part; the run has none")
    return part

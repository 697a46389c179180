"""Sentiment's policy: which labels pass, and how often that is right.

The verdict is the most probable label. A text is flagged if that label is not allowed, and it is
risky if its own label is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shield_engine.config import Bands
from shield_engine.decide.thresholds import ScoreColumn, rates_at
from shield_engine.decision import decided
from shield_engine.errors import ConfigError
from shield_engine.statistics import Figure
from shield_engine.store import Scores
from shield_engine.types import LABELS, Mode, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["label_policy_figures"]


def label_policy_figures(
    scores: Scores,
    mode: Mode,
    allowed: Sequence[str],
    *,
    bands: Bands | None = None,
    groups: NDArray[np.int64] | None = None,
    resamples: int = 1_000,
    seed: int = 7,
) -> dict[str, Figure]:
    """Return the rates of flagging what is not allowed, at the most probable label of three.

    Args:
        scores: What a sentiment run stored.
        mode: Which parts decide.
        allowed: Labels that pass.
        bands: Hybrid bands.
        groups: Group of each row.
        resamples: Of the bootstrap for F1, MCC and balanced accuracy.
        seed: Of the bootstrap.

    Raises:
        ConfigError: A label is unknown, or the run is of another task.
    """
    names = LABELS[Task.SENTIMENT]
    unknown = sorted(set(allowed) - set(names))
    if unknown:
        raise ConfigError(f"unknown label {', '.join(unknown)}; there are {', '.join(names)}")
    if scores.task is not Task.SENTIMENT:
        raise ConfigError(f"{scores.task.value} goes by a threshold, not by allowed labels")
    probabilities, _ = decided(
        Task.SENTIMENT, mode, scores.heuristic, scores.model, bands or Bands()
    )
    passes = np.array([name in allowed for name in names])
    keep = (scores.labels >= 0) & ~np.isnan(probabilities[:, 0])
    column = ScoreColumn.of(
        (~passes[scores.labels[keep]]).astype(np.int64),
        (~passes[probabilities[keep].argmax(axis=1)]).astype(np.float64),
        None if groups is None else groups[keep],
    )
    return rates_at(column, 0.5, resamples=resamples, seed=seed)

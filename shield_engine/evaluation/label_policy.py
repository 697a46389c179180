"""Sentiment's policy: which labels pass, and how often that is right.

The verdict is the most probable label. A text is flagged if that label is not allowed, and it is
risky if its own label is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shield_engine.errors import ConfigError
from shield_engine.evaluation.metrics import Figure
from shield_engine.evaluation.thresholds import ScoreColumn, rates_at
from shield_engine.types import LABELS, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shield_engine.evaluation.evaluate import ModeView

__all__ = ["label_policy_figures"]


def label_policy_figures(
    view: ModeView,
    allowed: Sequence[str],
    *,
    groups: NDArray[np.object_] | None = None,
    resamples: int = 1_000,
    seed: int = 7,
) -> dict[str, Figure]:
    """Return the rates of flagging what is not allowed, at the most probable label.

    Args:
        view: A mode's view of three-class rows.
        allowed: Labels that pass.
        groups: Group of each row.
        resamples: Of the bootstrap for F1, MCC and balanced accuracy.
        seed: Of the bootstrap.

    Raises:
        ConfigError: A label is unknown, or the rows have two classes and go by a threshold.
    """
    names = LABELS[Task.SENTIMENT]
    unknown = sorted(set(allowed) - set(names))
    if unknown:
        raise ConfigError(f"unknown label {', '.join(unknown)}; there are {', '.join(names)}")
    if view.risk is not None:
        raise ConfigError("a set with two labels goes by a threshold, not by its allowed labels")
    passes = np.array([name in allowed for name in names])
    keep = view.counts
    column = ScoreColumn.of(
        (~passes[view.labels[keep]]).astype(np.int64),
        (~passes[view.predicted[keep]]).astype(np.float64),
        None if groups is None else groups[keep],
    )
    return rates_at(column, 0.5, resamples=resamples, seed=seed)

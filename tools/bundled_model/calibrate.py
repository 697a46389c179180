"""Make scores mean something: a score of .8 is a chance of 80% at a stated share of risky texts.

Fitted on rows whose sources the model was not trained on. Classes are weighed to that share, and
sources of a class alike, because the shares of a validation file are an accident. What is fitted is
linear in the logits, so it is folded into the head's weights and costs nothing at run time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Calibration", "calibrate", "ece", "operating_points", "row_weights", "temperature"]

# A source of many rows counts no more than one of so many.
_MOST_ROWS = 150


@dataclass(frozen=True, slots=True)
class Calibration:
    """Log-odds of the risky class = `slopes` · margins + `intercept`.

    A margin is logit 1 less logit 0 of a head.
    """

    slopes: tuple[float, ...]
    intercept: float

    def scores(self, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of rows, shape (n,), from margins of shape (n, heads)."""
        odds = margins @ np.asarray(self.slopes, dtype=np.float64) + self.intercept
        scores: NDArray[np.float64] = np.reciprocal(1.0 + np.exp(-np.clip(odds, -500.0, 500.0)))
        return scores


def row_weights(
    labels: NDArray[np.int64], sources: Sequence[str], risky_share: float | None = None
) -> NDArray[np.float64]:
    """Return weights, shape (n,), summing to 1: sources of a class by size, up to 150 rows.

    Class 1 weighs `risky_share` in all and class 0 the rest; without it all classes weigh alike.
    """
    keys = list(zip(labels.tolist(), sources, strict=True))
    sizes = Counter(keys)
    weights = np.array([min(sizes[key], _MOST_ROWS) / sizes[key] for key in keys])
    for label in np.unique(labels):
        weights[labels == label] /= weights[labels == label].sum()
        if risky_share is not None:
            weights[labels == label] *= risky_share if label else 1 - risky_share
    normed: NDArray[np.float64] = weights / weights.sum()
    return normed


def calibrate(
    margins: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64]
) -> Calibration:
    """Fit slopes and intercept by weighted logistic regression (Platt 1999).

    Args:
        margins: Shape (n, heads), one column per head that has a say.
        labels: 0 or 1, shape (n,).
        weights: Of the rows, shape (n,).
    """
    from sklearn.linear_model import LogisticRegression

    columns = list(range(margins.shape[1]))
    while True:
        model = LogisticRegression(C=1e4, max_iter=1000)
        model.fit(margins[:, columns], labels, sample_weight=weights * len(labels))
        slopes = model.coef_[0]
        if (slopes > 0).all() or len(columns) == 1:
            break
        columns.pop(int(np.argmin(slopes)))  # a head that speaks against its label is left out
    full = np.zeros(margins.shape[1])
    full[columns] = slopes
    return Calibration(tuple(map(float, full)), float(model.intercept_[0]))


def temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the divisor of the logits that gives the least log loss; the ranking stays."""
    candidates = np.exp(np.linspace(np.log(0.3), np.log(5.0), 200))
    classes = np.unique(labels)

    def loss(divisor: float) -> float:
        scaled = logits.astype(np.float64) / divisor
        logs = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
        own = -logs[np.arange(len(labels)), labels]
        return float(np.mean([own[labels == label].mean() for label in classes]))

    return float(min(candidates, key=loss))


def ece(
    scores: NDArray[np.float64],
    is_right: NDArray[np.bool_],
    weights: NDArray[np.float64],
    bins: int = 10,
) -> float:
    """Return the expected calibration error: mean |score - share| over bins of equal width."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    total = 0.0
    for bin_ in np.unique(place):
        inside = place == bin_
        mass = weights[inside].sum()
        gap = np.average(scores[inside], weights=weights[inside]) - np.average(
            is_right[inside], weights=weights[inside]
        )
        total += mass * abs(gap)
    return float(total / weights.sum())


def operating_points(
    scores: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64]
) -> dict[str, float]:
    """Return the thresholds of 1% false alarms and of 95% recall on weighted rows.

    The first is the lowest threshold that keeps the share of flagged harmless rows at 1% or below;
    the second the highest that flags at least 95% of the risky ones.
    """
    benign, risky = scores[labels == 0], scores[labels == 1]
    benign_weights, risky_weights = weights[labels == 0], weights[labels == 1]
    order = np.argsort(-benign)
    flagged = np.cumsum(benign_weights[order]) / benign_weights.sum()
    first_over = int(np.searchsorted(flagged, 0.01, side="right"))
    low = float(np.nextafter(benign[order][min(first_over, len(order) - 1)], 1.0))
    order = np.argsort(-risky)
    caught = np.cumsum(risky_weights[order]) / risky_weights.sum()
    high = float(risky[order][int(np.searchsorted(caught, 0.95 - 1e-12))])
    return {"low_false_alarms": min(low, 1.0), "high_catch": high}

"""Confusion counts, and the curves and sweeps that are drawn of a scored set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shield_engine.metrics.inputs import binary_input, class_column, ratio

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from shield_engine.statistics.arrays import Floats, Ints


__all__ = [
    "Counts",
    "ThresholdSweep",
    "confusion",
    "one_class_reason",
    "pr_curve_points",
    "roc_curve_points",
    "threshold_sweep",
]

_DRAWN_POINTS = 2_000


@dataclass(frozen=True, slots=True)
class Counts:
    """Confusion counts of two classes, and what follows from them; NaN where it is undefined.

    Attributes:
        tp: Risky rows flagged; all four have one shape, of thresholds, groups or resamples.
        fp: Harmless rows flagged.
        fn: Risky rows let through.
        tn: Harmless rows let through.
    """

    tp: Floats | Ints
    fp: Floats | Ints
    fn: Floats | Ints
    tn: Floats | Ints

    @property
    def shares(self) -> dict[str, tuple[Floats | Ints, Floats | Ints]]:
        """Hits and rows of each metric that is a share of rows."""
        right, every = self.tp + self.tn, self.tp + self.fp + self.fn + self.tn
        return {
            "recall": (self.tp, self.tp + self.fn),
            "fpr": (self.fp, self.fp + self.tn),
            "accuracy": (right, every),
            "precision": (self.tp, self.tp + self.fp),
        }

    @property
    def recall(self) -> Floats:
        """Share of risky rows flagged."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def fpr(self) -> Floats:
        """Share of harmless rows flagged."""
        return ratio(self.fp, self.fp + self.tn)

    @property
    def precision(self) -> Floats:
        """Share of flagged rows that are risky."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def balanced_accuracy(self) -> Floats:
        """Mean of recall and of the share of harmless rows let through."""
        return (self.recall + ratio(self.tn, self.fp + self.tn)) / 2

    @property
    def mcc(self) -> Floats:
        """Matthews correlation of verdict and label."""
        tp, fp, fn, tn = (np.asarray(cell, np.float64) for cell in self.cells)
        return ratio(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))

    @property
    def cells(self) -> tuple[Floats | Ints, Floats | Ints, Floats | Ints, Floats | Ints]:
        """The four counts, as they are numbered where cells have numbers."""
        return self.tp, self.fp, self.fn, self.tn


@dataclass(frozen=True, slots=True)
class ThresholdSweep(Counts):
    """Confusion counts at each of many thresholds (flagged: score >= threshold)."""

    thresholds: Floats

    @classmethod
    def of(cls, risky: Floats, harmless: Floats, thresholds: ArrayLike) -> ThresholdSweep:
        """Return the counts at each threshold, in the order given.

        Args:
            risky: Scores of the risky rows, rising.
            harmless: Scores of the harmless rows, rising.
            thresholds: One or more numbers.
        """
        cuts = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
        fn, tn = np.searchsorted(risky, cuts), np.searchsorted(harmless, cuts)
        return cls(len(risky) - fn, len(harmless) - tn, fn, tn, cuts)

    def at(self, places: Ints) -> ThresholdSweep:
        """Return some of the thresholds."""
        tp, fp, fn, tn = (cell[places] for cell in self.cells)
        return ThresholdSweep(tp, fp, fn, tn, self.thresholds[places])


def roc_curve_points(
    labels: ArrayLike, scores: ArrayLike, *, max_points: int = _DRAWN_POINTS
) -> ThresholdSweep:
    """Return the empirical ROC curve from (0, 0) to (1, 1), exact at every point kept.

    Thresholds fall, the first is infinite. Above `max_points` distinct thresholds, points evenly
    spread along the curve are kept; this is for drawing only, no metric is computed from it.

    Raises:
        ValueError: There is only one class, or an array is unfit as for `binary_metrics`.
    """
    truth, risk = binary_input(labels, scores)
    positives = int(truth.sum())
    if positives in (0, len(truth)):
        raise ValueError(f"a ROC curve {one_class_reason(positives, len(truth))}")
    sweep = threshold_sweep(truth, risk, np.append(np.inf, np.unique(risk)[::-1]))
    return sweep.at(_spread(sweep.fpr, sweep.recall, max_points))


def pr_curve_points(
    labels: ArrayLike, scores: ArrayLike, *, max_points: int = _DRAWN_POINTS
) -> ThresholdSweep:
    """Return the empirical precision-recall curve, recall rising and thresholds falling.

    Thinned as `roc_curve_points` is.

    Raises:
        ValueError: There is no risky row, or an array is unfit as for `binary_metrics`.
    """
    truth, risk = binary_input(labels, scores)
    if not truth.any():
        raise ValueError(f"a precision-recall curve needs a risky row; {len(truth)} rows, none is")
    sweep = threshold_sweep(truth, risk, np.unique(risk)[::-1])
    return sweep.at(_spread(sweep.recall, sweep.precision, max_points))


def threshold_sweep(labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike) -> ThresholdSweep:
    """Return the confusion counts at each threshold, in the order given.

    One sort and one binary search per threshold: a million rows at a thousand thresholds take
    little more than the sort.

    Raises:
        ValueError: A threshold is not a number, or an array is unfit as for `binary_metrics`.
    """
    truth, risk = binary_input(labels, scores)
    cuts = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    if bool(np.isnan(cuts).any()):
        raise ValueError("a threshold is not a number")
    return ThresholdSweep.of(np.sort(risk[truth == 1]), np.sort(risk[truth == 0]), cuts)


def confusion(labels: ArrayLike, predicted: ArrayLike, n_classes: int) -> Ints:
    """Return the confusion matrix: rows are labels, columns predictions.

    Raises:
        ValueError: The arrays differ in length or hold something else than 0..n_classes - 1.
    """
    truth = class_column("labels", labels, n_classes)
    verdict = class_column("predicted", predicted, n_classes)
    if len(truth) != len(verdict):
        raise ValueError(f"predicted has {len(verdict)} entries for {len(truth)} labels")
    counts = np.bincount(truth * n_classes + verdict, minlength=n_classes * n_classes)
    return counts.reshape(n_classes, n_classes).astype(np.int64)


def one_class_reason(positives: int, n: int) -> str:
    """Return why a set of one class, or of none, lacks what needs two."""
    kind = "risky" if positives else "harmless"
    return f"needs both classes; all {n} rows are {kind}" if n else "needs rows; there are none"


def _spread(x: Floats, y: Floats, max_points: int) -> Ints:
    """Return the points to draw: both ends and others evenly spread along the curve."""
    if max_points < 2:
        raise ValueError(f"a curve needs at least two points, got max_points = {max_points}")
    if len(x) <= max_points:
        return np.arange(len(x))
    walked = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))))
    return np.unique(np.searchsorted(walked, np.linspace(0, walked[-1], max_points)))

"""Figures of a scored set as functions of row weights.

A figure of the set itself (all weights 1) and of each bootstrap resample take the same path. It
hides how ties are ranked and how many resamples are computed at once.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from shield_engine.metrics.curves import Counts, confusion
from shield_engine.metrics.inputs import ratio
from shield_engine.metrics.table import METRICS
from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shield_engine.statistics.arrays import Floats, Ints


__all__ = ["BinaryScorer", "ConfusionScorer"]

_FPR_LIMITS = MappingProxyType(
    {name: metric.at_fpr for name, metric in METRICS.items() if metric.at_fpr is not None}
)
_ECE_BINS = 15
_CLASS_LIMITS = "wilson limits of each class"


@dataclass(frozen=True, slots=True)
class _Ranking:
    """How the harmless and risky rows interleave under one score, highest first.

    Rows come as two blocks, harmless then risky. All counts are of rows of the other block.
    """

    harmless_order: Ints | None  # None: the block is sorted already, which saves a gather
    risky_order: Ints | None
    risky_above: Ints  # for each harmless row: risky rows that score higher
    risky_from: Ints  # for each harmless row: risky rows that score as high or higher
    harmless_from: Ints  # for each risky row: harmless rows that score as high or higher
    risky_upto: Ints  # for each risky row: risky rows that score as high or higher

    @classmethod
    def of(cls, harmless: Floats, risky: Floats) -> _Ranking:
        harmless_order, risky_order = _falling_order(harmless), _falling_order(risky)
        low = -(harmless if harmless_order is None else harmless[harmless_order])
        high = -(risky if risky_order is None else risky[risky_order])
        return cls(
            harmless_order,
            risky_order,
            risky_above=np.searchsorted(high, low, side="left"),
            risky_from=np.searchsorted(high, low, side="right"),
            harmless_from=np.searchsorted(low, high, side="right"),
            risky_upto=np.searchsorted(high, high, side="right"),
        )

    def sorted_blocks(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the weights of harmless and of risky rows, highest score first."""
        split = len(self.risky_above)
        harmless, risky = weights[:, :split], weights[:, split:]
        if self.harmless_order is not None:
            harmless = harmless[:, self.harmless_order]
        if self.risky_order is not None:
            risky = risky[:, self.risky_order]
        return harmless, risky

    def auc(self, harmless: Floats, risky_sums: Floats) -> Floats:
        """Return the ROC AUC from sorted harmless weights and cumulated risky ones."""
        above = risky_sums[:, self.risky_above]
        if not np.array_equal(self.risky_above, self.risky_from):
            above = (above + risky_sums[:, self.risky_from]) / 2
        won = np.einsum("ij,ij->i", harmless, above)
        return ratio(won, harmless.sum(axis=1) * risky_sums[:, -1])


@dataclass(frozen=True, slots=True)
class BinaryScorer:
    """Every figure of two classes, from weights of rows sorted by class."""

    ranking: _Ranking
    lengths: _Ranking | None
    harmless: Floats  # scores, highest first
    risky: Floats
    harmless_flagged: int
    risky_flagged: int

    @classmethod
    def of(cls, truth: Ints, risk: Floats, threshold: float, sizes: Floats | None) -> BinaryScorer:
        """Return the scorer of rows sorted by class: harmless first, then risky."""
        split = len(truth) - int(truth.sum())
        harmless, risky = np.sort(risk[:split])[::-1], np.sort(risk[split:])[::-1]
        return cls(
            ranking=_Ranking.of(risk[:split], risk[split:]),
            lengths=None if sizes is None else _Ranking.of(sizes[:split], sizes[split:]),
            harmless=harmless,
            risky=risky,
            harmless_flagged=int(np.sum(harmless >= threshold)),
            risky_flagged=int(np.sum(risky >= threshold)),
        )

    @classmethod
    def of_cells(
        cls, truth: Ints, risk: Floats, threshold: float, sizes: Floats | None
    ) -> tuple[BinaryScorer, Ints]:
        """Return a scorer of cells of like rows, and the cell of each row.

        Cells are cut by score (finely among the highest harmless scores, where rates of 0.1% are
        decided), at the threshold, at the edges of calibration bins, and by length. Figures of the
        cells are close to those of the rows, and spread alike under resampling.
        """
        harmless = risk[truth == 0]
        pool = harmless if len(harmless) else risk
        shares = np.concatenate((np.linspace(0, 0.97, 500), np.linspace(0.97, 1, 500)))
        edges = np.unique(
            np.concatenate(
                (np.quantile(pool, shares), [threshold], np.linspace(0, 1, _ECE_BINS + 1))
            )
        )
        cell = np.searchsorted(edges, risk, side="right")
        width = len(edges) + 1
        if sizes is not None:
            lengths = np.unique(np.quantile(sizes, np.linspace(0, 1, 20)))
            cell = cell * (len(lengths) + 1) + np.searchsorted(lengths, sizes, side="right")
            width *= len(lengths) + 1
        _, which, counts = np.unique(truth * width + cell, return_inverse=True, return_counts=True)
        which = which.reshape(-1)
        classes = np.zeros(len(counts), dtype=np.int64)
        classes[which] = truth
        means = np.bincount(which, risk) / counts
        mean_sizes = None if sizes is None else np.bincount(which, sizes) / counts
        # Mean scores of a cell may round to below the threshold that all its rows reach.
        flagged = np.bincount(which, risk >= threshold) > 0
        means = np.where(flagged, np.maximum(means, threshold), means)
        return cls.of(classes, means, threshold, mean_sizes), which

    def figures(self, weights: Floats) -> dict[str, Floats]:
        """Return each figure of each row of `weights` (shape (m, n)), NaN where undefined."""
        harmless, risky = self.ranking.sorted_blocks(weights)
        harmless_sums, risky_sums = _running_sums(harmless), _running_sums(risky)
        n, p = harmless_sums[:, -1], risky_sums[:, -1]
        fp, tp = harmless_sums[:, self.harmless_flagged], risky_sums[:, self.risky_flagged]
        counts = Counts(tp, fp, p - tp, n - fp)
        cells = np.stack([n - fp, fp, p - tp, tp], axis=1).reshape(-1, 2, 2)
        missing = np.full(len(weights), np.nan)
        return {
            **_confusion_figures(cells, self._present()),
            "precision": counts.precision,
            "recall": counts.recall,
            "f1": counts.f1,
            "fpr": counts.fpr,
            "balanced_accuracy": counts.balanced_accuracy,
            "roc_auc": self.ranking.auc(harmless, risky_sums),
            "pr_auc": self._average_precision(risky, harmless_sums, risky_sums),
            **{
                name: self._recall_at(limit, harmless_sums, risky_sums)
                for name, limit in _FPR_LIMITS.items()
            },
            "fpr_at_95_recall": self._fpr_at(0.95, harmless_sums, risky_sums),
            "brier": ratio(harmless @ self.harmless**2 + risky @ (1 - self.risky) ** 2, n + p),
            "ece": ratio(self._calibration_gap(harmless, risky), n + p),
            "length_only_auc": missing if self.lengths is None else self._length_auc(weights),
        }

    def limited(
        self, name: str, value: float, sizes: Floats, confidence: float, *, is_constant: bool
    ) -> Figure | None:
        """Return a figure whose ends no bootstrap finds, `None` where it will do or none are known.

        Args:
            name: The figure.
            value: Of all rows.
            sizes: Independent rows of each class.
            confidence: Coverage asked of the interval.
            is_constant: True if all resamples agree, so the bootstrap would claim certainty. Then
                the share of each class told correctly moves between its Wilson limits.
        """
        if name in _FPR_LIMITS and (1 - _FPR_LIMITS[name]) ** sizes[0] > (1 - confidence) / 2:
            ends = 0.0, self._rare_recall(_FPR_LIMITS[name], sizes, confidence)
            return self._figure(value, ends, "order statistics of the harmless scores")
        if not is_constant:
            return None
        if METRICS[name].of == "verdicts":
            ends = _corners(name, self._cells(), self._present(), sizes, confidence)
            return self._figure(value, ends, _CLASS_LIMITS)
        if name in _FPR_LIMITS or name == "fpr_at_95_recall":
            size = float(sizes[0] if name == "fpr_at_95_recall" else sizes[1])
            return self._figure(
                value, wilson(value * size, size, confidence), "wilson at a fixed threshold"
            )
        if name == "roc_auc" and self.harmless[0] < self.risky[-1]:
            # AUC is at least recall times specificity at any threshold, here at the gap
            specificity, recall = (wilson(size, size, (1 + confidence) / 2)[0] for size in sizes)
            return self._figure(value, (specificity * recall, 1.0), _CLASS_LIMITS)
        return None

    def _figure(self, value: float, ends: tuple[float, float], method: str) -> Figure:
        return Figure.around(value, ends, len(self.harmless) + len(self.risky), method)

    def _rare_recall(self, limit: float, sizes: Floats, confidence: float) -> float:
        """Return the upper end of a recall at an FPR that too few harmless rows can show.

        It is likely enough that no harmless row of this set scores above the true threshold, so
        recall there may be anything down to 0. The threshold's other end is an order statistic of
        the harmless scores; the upper end is Wilson's for the recall there, half of the error each.
        The bootstrap sees only thresholds within the set: with one allowed false alarm its 95%
        interval held the true recall in 63-79% of simulated sets, with 0.5 in 50%.
        """
        count, tail = float(sizes[0]), (1 - confidence) / 4
        above = next(k for k in itertools.count() if special.bdtrc(k, int(count), limit) <= tail)
        rank = math.ceil(above * len(self.harmless) / count)
        if rank >= len(self.harmless):
            return 1.0
        flagged = float(np.mean(self.risky >= self.harmless[rank]))
        return wilson(flagged * sizes[1], sizes[1], (1 + confidence) / 2)[1]

    def _cells(self) -> Floats:
        n, p, fp, tp = (
            len(self.harmless),
            len(self.risky),
            self.harmless_flagged,
            self.risky_flagged,
        )
        return np.array([[n - fp, fp], [p - tp, tp]], dtype=np.float64)

    def _present(self) -> list[int]:
        return [index for index, block in enumerate((self.harmless, self.risky)) if len(block)]

    def _length_auc(self, weights: Floats) -> Floats:
        if self.lengths is None:
            raise ValueError("lengths were not given")
        harmless, risky = self.lengths.sorted_blocks(weights)
        return self.lengths.auc(harmless, _running_sums(risky))

    def _average_precision(
        self, risky: Floats, harmless_sums: Floats, risky_sums: Floats
    ) -> Floats:
        tp = risky_sums[:, self.ranking.risky_upto]
        fp = harmless_sums[:, self.ranking.harmless_from]
        precision = tp / np.maximum(tp + fp, 1)  # 0 / 1 only where the row's weight is 0 too
        return ratio(np.einsum("ij,ij->i", risky, precision), risky_sums[:, -1])

    def _recall_at(self, fpr: float, harmless_sums: Floats, risky_sums: Floats) -> Floats:
        n, p = harmless_sums[:, -1], risky_sums[:, -1]
        if not len(self.harmless):
            return np.full(len(n), np.nan)
        allowed = np.floor(fpr * n) - 1  # then up to the last count whose quotient is within
        for _ in range(2):
            allowed += ratio(allowed + 1, n) <= fpr
        too_many = harmless_sums[:, 1:] > allowed[:, None]
        first = too_many.argmax(axis=1)
        rows = np.arange(len(n))
        flagged = np.where(
            too_many[rows, first], risky_sums[rows, self.ranking.risky_above[first]], p
        )
        return np.where(n > 0, ratio(flagged, p), np.nan)

    def _fpr_at(self, recall: float, harmless_sums: Floats, risky_sums: Floats) -> Floats:
        n, p = harmless_sums[:, -1], risky_sums[:, -1]
        if not len(self.risky):
            return np.full(len(n), np.nan)
        needed = np.ceil(recall * p) + 1  # then down to the first count whose quotient suffices
        for _ in range(2):
            needed -= ratio(needed - 1, p) >= recall
        first = (risky_sums[:, 1:] >= needed[:, None]).argmax(axis=1)
        flagged = harmless_sums[np.arange(len(n)), self.ranking.harmless_from[first]]
        return np.where(p > 0, ratio(flagged, n), np.nan)

    def _calibration_gap(self, harmless: Floats, risky: Floats) -> Floats:
        edges = np.linspace(0.0, 1.0, _ECE_BINS + 1)
        gap = np.zeros((len(harmless), _ECE_BINS))
        for weights, scores, label in ((harmless, self.harmless, 0), (risky, self.risky, 1)):
            # An edge belongs to the bin below it; bins fall as the scores do.
            which = np.searchsorted(edges[1:-1], scores, side="left")
            for b in np.unique(which):
                part = slice(
                    int(np.searchsorted(-which, -b, side="left")),
                    int(np.searchsorted(-which, -b, side="right")),
                )
                gap[:, b] += weights[:, part] @ (label - scores[part])
        return np.asarray(np.abs(gap).sum(axis=1))


@dataclass(frozen=True, slots=True)
class ConfusionScorer:
    """The figures of any number of classes, from weights of rows."""

    cell_of_row: Ints
    cells: Floats
    present: list[int]

    @classmethod
    def of(cls, truth: Ints, predicted: Ints, n_classes: int) -> ConfusionScorer:
        """Return the scorer of labels and verdicts."""
        return cls(
            cell_of_row=truth * n_classes + predicted,
            cells=confusion(truth, predicted, n_classes).astype(np.float64),
            present=[int(index) for index in np.unique(truth)],
        )

    @classmethod
    def of_cells(cls, truth: Ints, predicted: Ints, n_classes: int) -> tuple[ConfusionScorer, Ints]:
        """Return a scorer of the confusion matrix's cells, and the cell of each row."""
        scorer = cls.of(truth, predicted, n_classes)
        cells, which = np.unique(scorer.cell_of_row, return_inverse=True)
        return replace(scorer, cell_of_row=cells), which.reshape(-1)

    def figures(self, weights: Floats) -> dict[str, Floats]:
        """Return each figure of each row of `weights` (shape (m, n)), NaN where undefined."""
        drawn = np.zeros((len(weights), self.cells.size))
        for cell in np.unique(self.cell_of_row):
            drawn[:, cell] = weights @ (self.cell_of_row == cell)
        return _confusion_figures(drawn.reshape(-1, *self.cells.shape), self.present)

    def limited(
        self, name: str, value: float, sizes: Floats, confidence: float, *, is_constant: bool
    ) -> Figure | None:
        """Return a figure that no resample changes; see `BinaryScorer.limited`."""
        if not is_constant:
            return None
        ends = _corners(name, self.cells, self.present, sizes, confidence)
        return Figure.around(value, ends, int(self.cells.sum()), _CLASS_LIMITS)


def _confusion_figures(cells: Floats, present: Sequence[int]) -> dict[str, Floats]:
    """Return the figures of confusion matrices of shape (m, classes, classes)."""
    right = np.diagonal(cells, axis1=1, axis2=2)
    actual, flagged = cells.sum(axis=2), cells.sum(axis=1)
    total, correct = actual.sum(axis=1), right.sum(axis=1)
    covariance = correct * total - np.einsum("ij,ij->i", actual, flagged)
    actual_spread = total**2 - np.einsum("ij,ij->i", actual, actual)
    flagged_spread = total**2 - np.einsum("ij,ij->i", flagged, flagged)
    f1 = ratio(2 * right, actual + flagged)[:, present]
    recall = ratio(right, actual)[:, present]
    nothing = np.full(len(cells), np.nan)
    return {
        "accuracy": ratio(correct, total),
        "mcc": ratio(covariance, np.sqrt(actual_spread * flagged_spread)),
        "macro_f1": f1.mean(axis=1) if present else nothing,
        "macro_recall": recall.mean(axis=1) if present else nothing,
    }


def _corners(
    name: str, cells: Floats, present: Sequence[int], sizes: Floats, confidence: float
) -> tuple[float, float]:
    """Return the least and greatest figure as the share told correctly of each class moves.

    Each share moves between its Wilson limits, at a confidence that together (Bonferroni) gives
    the one asked. What a class loses goes to its most frequent wrong verdict, or is spread evenly
    if it has none.
    """
    each = 1 - (1 - confidence) / max(len(present), 1)
    choices = []
    for index in present:
        row = cells[index]
        total, right = float(row.sum()), float(row[index])
        wrong = np.where(np.arange(len(row)) == index, 0.0, row)
        spread = wrong if wrong.any() else np.where(np.arange(len(row)) == index, 0.0, 1.0)
        options = []
        for share in wilson(right / total * sizes[index], sizes[index], each):
            moved = spread / spread.sum() * (1 - share) * total
            moved[index] = share * total
            options.append(moved)
        choices.append(options)
    matrices = np.zeros((2 ** len(present), *cells.shape))
    for matrix, rows in zip(matrices, itertools.product(*choices), strict=True):
        matrix[list(present)] = rows
    corners = _confusion_figures(matrices, present)
    if name == "f1":
        (tn, fp), (fn, tp) = matrices[:, 0].T, matrices[:, 1].T
        values = Counts(tp, fp, fn, tn).f1
    elif name == "balanced_accuracy":
        values = corners["macro_recall"]
    else:
        values = corners[name]
    return float(np.nanmin(values)), float(np.nanmax(values))


def _running_sums(weights: Floats) -> Floats:
    """Return sums of the first 0, 1, 2, ... columns, exact for whole numbers below 2^53."""
    sums = np.zeros((weights.shape[0], weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def _falling_order(values: Floats) -> Ints | None:
    """Return the order that sorts highest first, `None` if it is so already."""
    if not bool(np.any(values[1:] > values[:-1])):
        return None
    return np.argsort(-values, kind="stable")

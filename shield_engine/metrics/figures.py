"""Every figure of a scored set, with its interval and its n.

Labels and scores in, `Figure`s out. It hides how ties, missing classes and resampling are handled.

Intervals are Wilson's for accuracy, precision, recall and fpr, and percentile bootstrap intervals,
stratified by class or over whole groups, for the rest. A percentile interval that misses its own
figure is widened to hold it. Recall at 1% or 0.1% FPR takes order statistics of the harmless scores
where these are too few for a bootstrap; its lower end is then 0.
Where all resamples agree, as with a perfect separation, the bootstrap would claim certainty: then
the ends come from Wilson limits of the share of each class that is told correctly, or are missing
with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shield_engine.metrics.curves import one_class_reason
from shield_engine.metrics.inputs import (
    binary_input,
    check_number,
    check_values,
    group_codes,
    multiclass_input,
    number_column,
)
from shield_engine.metrics.scoring import BinaryScorer, ConfusionScorer
from shield_engine.metrics.table import METRIC_NAMES, METRICS
from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import Interval, proportion
from shield_engine.statistics.resampling import Resamples, percentile_interval, resample_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from shield_engine.statistics.arrays import Floats, Ints, Mask


__all__ = [
    "LatencySummary",
    "TwoClassView",
    "binary_metrics",
    "latency_summary",
    "multiclass_metrics",
    "paired_binary_metrics",
    "two_class_view",
]


_CELL_ROWS = 50_000
"""Above this many rows, cells of like rows are resampled: 22 s for a million rows become under 1 s.
"""


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Percentiles of latencies in milliseconds, linearly interpolated; `None` without any."""

    p50: float | None
    p95: float | None
    p99: float | None
    n: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the summary as the evaluation output writes it."""
        return {"p50": self.p50, "p95": self.p95, "p99": self.p99, "n": self.n}


@dataclass(frozen=True, slots=True)
class TwoClassView:
    """A set with two of several labels, seen as a binary one.

    Attributes:
        labels: 1 where the row has the positive label.
        scores: Probability of the positive label among the two.
        label_names: The other label, then the positive one.
    """

    labels: Ints
    scores: Floats
    label_names: tuple[str, str]

    @property
    def positive_label(self) -> str:
        """The label that counts as risky."""
        return self.label_names[1]


def binary_metrics(
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    *,
    lengths: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    seed: int = 7,
    resamples: int | None = None,
    confidence: float = 0.95,
) -> dict[str, Figure]:
    """Return every metric of a two-class set; a row is flagged if its score >= `threshold`.

    The order of the rows changes nothing, not even an interval.

    Args:
        labels: 1 for risky rows, 0 for harmless ones, shape (n,).
        scores: Risk of each row, 0..1, shape (n,).
        threshold: Where a verdict turns; may lie outside 0..1.
        lengths: Characters of each text; without them `length_only_auc` is missing.
        groups: Rows that belong together (templates of one attack, turns of one chat). They are
            resampled together, and Wilson intervals count what they are worth.
        seed: Seed of the bootstrap.
        resamples: Bootstrap resamples; by default `resample_count(n)`. 0 leaves those intervals
            out, for a figure that follows a slider.
        confidence: Coverage asked of the intervals.

    Raises:
        ValueError: An array has another length, a label is not 0 or 1, or a score is not a number
            within 0..1.
    """
    truth, risk = binary_input(labels, scores)
    check_number("threshold", threshold)
    sizes = None if lengths is None else number_column("lengths", lengths, len(truth))
    codes = None if groups is None else group_codes(groups, len(truth))
    order = _canonical_order(truth, codes, sizes, -risk)
    truth, risk = truth[order], risk[order]
    sizes = None if sizes is None else sizes[order]
    codes = None if codes is None else codes[order]
    plan = _Plan.of(truth, codes, resamples, seed, confidence)
    positives, n = int(truth.sum()), len(truth)
    flagged = risk >= threshold
    hit = truth.astype(bool)
    given = truth, risk, threshold, sizes
    figures = plan.figures(BinaryScorer.of(*given), lambda: BinaryScorer.of_cells(*given))
    figures["accuracy"] = plan.proportion(flagged == hit, np.ones(n, dtype=bool))
    figures["precision"] = plan.proportion(hit, flagged)
    figures["recall"] = plan.proportion(flagged, hit)
    figures["fpr"] = plan.proportion(flagged, ~hit)
    return {
        name: _explained(name, figures[name], positives, n, has_lengths=sizes is not None)
        for name in METRIC_NAMES
    }


def multiclass_metrics(
    labels: ArrayLike,
    probabilities: ArrayLike,
    label_names: Sequence[str],
    *,
    groups: ArrayLike | None = None,
    seed: int = 7,
    resamples: int | None = None,
    confidence: float = 0.95,
) -> dict[str, Figure]:
    """Return accuracy, MCC and the macro metrics; the binary ones are missing with a reason.

    The verdict is the most probable label, the first of equals. Macro metrics average over the
    labels that occur in `labels`.

    Args:
        labels: Index of each row's label, shape (n,).
        probabilities: Probability of each label, shape (n, len(label_names)).
        label_names: Names in the order of the columns.
        groups: Rows that belong together; see `binary_metrics`.
        seed: Seed of the bootstrap.
        resamples: Bootstrap resamples; by default `resample_count(n)`, 0 for none.
        confidence: Coverage asked of the intervals.

    Raises:
        ValueError: An array has another shape, a label is no index of `label_names`, or a
            probability is not a number within 0..1.
    """
    truth, shares = multiclass_input(labels, probabilities, len(label_names))
    predicted = _most_probable(shares)
    codes = None if groups is None else group_codes(groups, len(truth))
    order = _canonical_order(truth, codes, predicted)
    truth, predicted = truth[order], predicted[order]
    codes = None if codes is None else codes[order]
    plan = _Plan.of(truth, codes, resamples, seed, confidence)
    given = truth, predicted, len(label_names)
    figures = plan.figures(ConfusionScorer.of(*given), lambda: ConfusionScorer.of_cells(*given))
    figures["accuracy"] = plan.proportion(truth == predicted, np.ones(len(truth), dtype=bool))
    if not len(truth):
        return {name: _missing(0, "no rows") for name in METRIC_NAMES}
    undefined = f"defined for two classes only, this task has {len(label_names)}"
    return {
        name: _explained(name, figures[name], len(truth), len(truth))
        if METRICS[name].classes != "two"
        else _missing(len(truth), undefined)
        for name in METRIC_NAMES
    }


def paired_binary_metrics(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    thresholds: tuple[float, float],
    *,
    groups: ArrayLike | None = None,
    seed: int = 7,
    resamples: int | None = None,
    confidence: float = 0.95,
) -> dict[str, Figure]:
    """Return B minus A for every metric on the same rows, with paired bootstrap intervals.

    Both are scored on the same resamples, so what they share cancels. Every figure, proportions
    too, is a bootstrap one; `length_only_auc` has no difference and is missing.

    Raises:
        ValueError: As for `binary_metrics`.
    """
    truth, risk_a = binary_input(labels, scores_a)
    _, risk_b = binary_input(labels, scores_b)
    threshold_a, threshold_b = thresholds
    check_number("threshold_a", threshold_a)
    check_number("threshold_b", threshold_b)
    codes = None if groups is None else group_codes(groups, len(truth))
    order = _canonical_order(truth, codes, -risk_b, -risk_a)
    truth = truth[order]
    first = BinaryScorer.of(truth, risk_a[order], threshold_a, None)
    second = BinaryScorer.of(truth, risk_b[order], threshold_b, None)
    plan = _Plan.of(truth, None if codes is None else codes[order], resamples, seed, confidence)
    n = len(truth)
    if not n:
        return {name: _missing(0, "no rows") for name in METRIC_NAMES}
    before, after = _values(first, n), _values(second, n)
    samples = plan.sampled(first, second) if plan.draws.times else None
    figures = {}
    for name in METRIC_NAMES:
        if np.isnan(before[name]) or np.isnan(after[name]):
            figures[name] = _missing(n, "undefined for one of the two, or the same for both")
            continue
        drawn = None if samples is None else samples[1][name] - samples[0][name]
        figures[name] = plan.figure(after[name] - before[name], drawn)
    return figures


def two_class_view(
    labels: ArrayLike,
    probabilities: ArrayLike,
    label_names: Sequence[str],
    positive: str = "negative",
) -> TwoClassView:
    """Return a set that holds only two of the labels as a binary one.

    The other probabilities are dropped and the two renormalised; a row with no probability on
    either gets 0.5. At threshold 0.5 the verdict is the more probable of the two labels.

    Args:
        labels: Index of each row's label, shape (n,).
        probabilities: Probability of each label, shape (n, len(label_names)).
        label_names: Names in the order of the columns.
        positive: The label that counts as risky; if it does not occur, the first that does.

    Raises:
        ValueError: Not exactly two labels occur, or an array is unfit as for `multiclass_metrics`.
    """
    truth, shares = multiclass_input(labels, probabilities, len(label_names))
    present = [int(index) for index in np.unique(truth)]
    if len(present) != 2:
        names = ", ".join(label_names[index] for index in present) or "none"
        raise ValueError(f"a two-class view needs exactly two labels, this set has: {names}")
    risky = next((index for index in present if label_names[index] == positive), present[0])
    other = present[1] if risky == present[0] else present[0]
    total = shares[:, risky] + shares[:, other]
    scores = np.full(len(truth), 0.5)
    np.divide(shares[:, risky], total, out=scores, where=total > 0)
    return TwoClassView(
        labels=(truth == risky).astype(np.int64),
        scores=scores,
        label_names=(label_names[other], label_names[risky]),
    )


def latency_summary(ms: ArrayLike) -> LatencySummary:
    """Return the median, 95th and 99th percentile of latencies in milliseconds.

    Raises:
        ValueError: A latency is negative or not a number.
    """
    times = np.asarray(ms, dtype=np.float64).reshape(-1)
    if not len(times):
        return LatencySummary(None, None, None, 0)
    check_values("latencies", times, times >= 0, "milliseconds, 0 or more")
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    return LatencySummary(float(p50), float(p95), float(p99), len(times))


class _Scorer(Protocol):
    """Computes figures of weighted rows."""

    def figures(self, weights: Floats) -> dict[str, Floats]:
        """Return each figure of each row of `weights`, NaN where it is undefined."""

    def limited(
        self, name: str, value: float, sizes: Floats, confidence: float, *, is_constant: bool
    ) -> Figure | None:
        """Return a figure whose ends no bootstrap finds, `None` where it will do or none are known."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the intervals of one set are made."""

    draws: Resamples
    confidence: float

    @classmethod
    def of(
        cls, truth: Ints, groups: Ints | None, resamples: int | None, seed: int, confidence: float
    ) -> _Plan:
        times = resample_count(len(truth)) if resamples is None else resamples
        return cls(Resamples(truth, groups, times if len(truth) > 1 else 0, seed), confidence)

    @property
    def takes_cells(self) -> bool:
        """Whether there are so many single rows that cells of like rows are resampled."""
        return self.draws.groups is None and len(self.draws.classes) > _CELL_ROWS

    def sampled(self, *scorers: _Scorer) -> list[dict[str, Floats]]:
        """Return the figures of each scorer on the same resamples."""
        parts = [[scorer.figures(weights) for scorer in scorers] for weights in self.draws.rows()]
        return [
            {
                name: np.concatenate([figures[name] for figures in of_scorer])
                for name in of_scorer[0]
            }
            for of_scorer in zip(*parts, strict=True)
        ]

    def sampled_cells(
        self, scorer: _Scorer, cell: Ints, values: dict[str, float]
    ) -> dict[str, Floats]:
        """Return resampled figures of cells, moved to where the rows' own figures are."""
        rows = np.bincount(cell).astype(np.float64)
        drawn = scorer.figures(self.draws.cells(cell, len(rows)))
        whole = scorer.figures(rows[None, :])
        return {name: sample + (values[name] - whole[name][0]) for name, sample in drawn.items()}

    def figures(
        self, scorer: _Scorer, cells: Callable[[], tuple[_Scorer, Ints]]
    ) -> dict[str, Figure]:
        """Return bootstrap figures of everything the scorer knows.

        Args:
            scorer: Of the rows.
            cells: Returns a scorer of cells of like rows, and the cell of each row.
        """
        values = _values(scorer, len(self.draws.classes))
        if not self.draws.times:
            return {name: self.figure(value, None) for name, value in values.items()}
        if self.takes_cells:
            samples = self.sampled_cells(*cells(), values)
        else:
            (samples,) = self.sampled(scorer)
        sizes = self.draws.sizes(int(self.draws.classes.max(initial=0)) + 1)
        figures = {}
        for name, value in values.items():
            limited = None
            if not np.isnan(value):
                is_constant = float(np.ptp(samples[name])) == 0
                limited = scorer.limited(
                    name, value, sizes, self.confidence, is_constant=is_constant
                )
            figures[name] = limited or self.figure(
                value, samples[name], is_doubly_biased=name == "ece"
            )
        return figures

    def figure(
        self, value: float, samples: Floats | None, *, is_doubly_biased: bool = False
    ) -> Figure:
        """Return one figure from its value and what the resamples gave.

        The gap of a bin is never negative, so ECE is too large in a sample and twice so in its
        resamples. Its lower end is mirrored at the value (reverse percentile), its upper end is the
        larger of both forms: for 1,000 rows that raised the coverage of the true ECE from 0-82%
        to 89-96% in simulation.
        """
        n = len(self.draws.classes)
        if np.isnan(value):
            return Figure(None, None, None, n)
        if samples is None:
            why = "no interval from one row" if n == 1 else "no interval: no resamples asked for"
            return Figure(value, None, None, n, why)
        ends = percentile_interval(samples, self.confidence)
        if ends is None:
            why = f"no interval: the {len(samples)} resamples are all alike or mostly undefined"
            return Figure(value, None, None, n, why)
        undefined = int(np.isnan(samples).sum())
        left_out = f", {undefined} undefined left out" if undefined else ""
        if is_doubly_biased:
            low, high = ends
            ends = Interval(max(0.0, 2 * value - high), min(1.0, max(high, 2 * value - low)))
        what = "cells, " if self.takes_cells else ""
        draws = self.draws
        method = f"bootstrap({what}{draws.times}, seed {draws.seed}{draws.unit}{left_out})"
        return Figure.around(value, ends, n, method)

    def proportion(self, hits: Mask, rows: Mask) -> Figure:
        """Return the share of `hits` among `rows`, with a Wilson interval."""
        return proportion(hits, rows, self.draws.groups, confidence=self.confidence)


def _values(scorer: _Scorer, n: int) -> dict[str, float]:
    return {name: float(value[0]) for name, value in scorer.figures(np.ones((1, n))).items()}


def _missing(n: int, reason: str) -> Figure:
    return Figure(None, None, None, n, reason)


def _explained(
    name: str, figure: Figure, positives: int, n: int, *, has_lengths: bool = True
) -> Figure:
    """Return the figure, with a reason if its value is undefined."""
    if figure.value is not None:
        return figure
    if not n:
        reason = "no rows"
    elif name == "length_only_auc" and not has_lengths:
        reason = "text lengths were not given"
    else:
        reason = METRICS[name].undefined or one_class_reason(positives, n)
    return _missing(figure.n, reason)


def _canonical_order(truth: Ints, groups: Ints | None, *keys: Floats | Ints | None) -> Ints:
    """Return an order that does not depend on the rows' own: by class, then the last key, ..."""
    given = [key for key in (groups, *keys) if key is not None]
    return np.lexsort((*given, truth))


def _most_probable(shares: Floats) -> Ints:
    return np.argmax(shares, axis=1) if len(shares) else np.zeros(0, dtype=np.int64)

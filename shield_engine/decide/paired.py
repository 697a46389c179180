"""Two ways of deciding on the same rows: differences, tests, and what would settle them.

Verdicts and labels in, plain dataclasses out. It hides that rows with one label and one pattern of
verdicts are interchangeable: they are counted once and resampled as counts, so a million rows cost
what a thousand do.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.metrics.scoring import BinaryScorer, ConfusionScorer
from shield_engine.metrics.table import DIFFERENCES, RATES, reported_names
from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import Interval, normal_quantile, wilson
from shield_engine.statistics.resampling import (
    NO_DISAGREEMENT,
    Resamples,
    percentile_interval,
    resample_count,
)

if TYPE_CHECKING:
    from shield_engine.statistics.arrays import Floats, Ints, Mask


__all__ = [
    "LatencyRatio",
    "Patterns",
    "auc_difference",
    "latency_ratio",
]

_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class LatencyRatio:
    """How many times as long as the baseline the candidate takes, at one percentile.

    Attributes:
        percentile: 50 or 95.
        baseline_ms: Of rows that neither took from the cache, milliseconds.
        candidate_ms: The same for the candidate.
        ratio: `candidate_ms` / `baseline_ms`; `None` without rows, or if the baseline took no time.
        low: Lower end of its interval.
        high: Upper end.
        n: Rows.
    """

    percentile: int
    baseline_ms: float | None
    candidate_ms: float | None
    ratio: float | None
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        """Return the ratio as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Patterns:
    """Labelled rows counted by label and verdicts, with resamples of those counts.

    Attributes:
        labels: Label of each pattern, ascending, shape (p,).
        verdicts: Each candidate's verdict of each pattern, shape (p, candidates).
        counts: Rows of each pattern, shape (p,).
        samples: Rows of each pattern in each resample, shape (resamples, p).
        n_classes: Labels that the task has, or the two of a binary view.
        units: Independent rows (groups, where there are any) of each label, then of all.
        method: How the resamples were drawn.
    """

    labels: Ints
    verdicts: Ints
    counts: Floats
    samples: Floats
    n_classes: int
    units: tuple[float, ...]
    method: str

    @classmethod
    def of(
        cls, labels: Ints, verdicts: Ints, n_classes: int, *, groups: Ints | None, seed: int
    ) -> Patterns:
        """Count rows and draw resamples, stratified by label, or of whole groups.

        Drawing how often each pattern occurs is the row bootstrap itself, by counts: within a
        class the counts are multinomial. See `Resamples.cells`.

        Args:
            labels: Shape (n,), each 0..n_classes - 1.
            verdicts: Shape (n, candidates), each 0..n_classes - 1.
            n_classes: How many labels there are.
            groups: Codes 0..g - 1 of rows that belong together, shape (n,).
            seed: Of the resampling.
        """
        keys = np.column_stack([labels, verdicts]).astype(np.int64)
        code = np.zeros(len(keys), dtype=np.int64)
        for column in keys.T:  # base-n_classes numbers sort faster than rows of a matrix
            code = code * n_classes + column
        values, first, inverse, counts = np.unique(
            code, return_index=True, return_inverse=True, return_counts=True
        )
        patterns, inverse = keys[first], inverse.reshape(-1)
        units = len(keys) if groups is None else int(groups.max(initial=-1)) + 1
        times = _RESAMPLES if groups is None else resample_count(units, _RESAMPLES)
        draws = Resamples(labels.astype(np.int64), groups, times if len(values) else 0, seed)
        return cls(
            labels=patterns[:, 0],
            verdicts=patterns[:, 1:],
            counts=counts.astype(np.float64),
            samples=draws.cells(inverse, len(values)),
            n_classes=n_classes,
            units=(*draws.sizes(n_classes), float(units)),
            method=draws.method if len(values) else "none: no rows",
        )

    def differences(
        self, baseline: int, candidate: int, confidence: float = 0.95
    ) -> dict[str, Figure]:
        """Return candidate minus baseline for every metric at fixed thresholds.

        Values equal the differences of `binary_metrics` and `multiclass_metrics`. Where the two
        never disagree, a proportion's ends are the Wilson bound of that, as in `paired_difference`.
        """
        names = DIFFERENCES if self.n_classes == 2 else reported_names(self.n_classes)
        if not len(self.counts):
            return {name: Figure(None, None, None, 0, "no rows") for name in names}
        before, after = self._scorer(baseline), self._scorer(candidate)
        whole = self.counts[None, :]
        old, new = before.figures(whole), after.figures(whole)
        old_samples, new_samples = before.figures(self.samples), after.figures(self.samples)
        return {
            name: self._figure(
                name,
                float(new[name][0] - old[name][0]),
                new_samples[name] - old_samples[name],
                int(self.counts @ (self.verdicts[:, baseline] != self.verdicts[:, candidate])),
                confidence,
            )
            for name in names
        }

    def _scorer(self, candidate: int) -> BinaryScorer | ConfusionScorer:
        verdicts = self.verdicts[:, candidate]
        if self.n_classes == 2:
            return BinaryScorer.of(self.labels, verdicts.astype(np.float64), 0.5, None)
        return ConfusionScorer.of(self.labels, verdicts, self.n_classes)

    def _figure(
        self, name: str, value: float, samples: Floats, disagreeing: int, confidence: float
    ) -> Figure:
        rows = {"recall": self.labels == 1, "fpr": self.labels == 0}.get(name, self.labels >= 0)
        n = int(self.counts @ rows)
        if math.isnan(value):
            return Figure(None, None, None, n, "undefined for one of the two")
        if n == 1:
            return Figure(value, None, None, n, "no interval from one row")
        interval, method = percentile_interval(samples, confidence), self.method
        if interval is None and not disagreeing and name in RATES:
            units = self.units[{"fpr": 0, "recall": 1}.get(name, -1)]
            bound = wilson(0, units, confidence).high
            interval, method = Interval(-bound, bound), NO_DISAGREEMENT
        if interval is None:
            return Figure(value, None, None, n, "no interval: all resamples agree")
        return Figure.around(value, interval, n, method)


def auc_difference(
    labels: Ints,
    baseline: Floats,
    candidate: Floats,
    *,
    groups: Ints | None = None,
    confidence: float = 0.95,
) -> Figure:
    """Return ROC AUC of `candidate` minus that of `baseline`, with DeLong's interval.

    Paired variance of DeLong, DeLong and Clarke-Pearson (1988); with groups the components of each
    group are summed first (Obuchowski 1997). It needs no resampling, so it holds at a million rows.

    Args:
        labels: 0 or 1, shape (n,).
        baseline: Risk, shape (n,).
        candidate: Risk, shape (n,).
        groups: Codes 0..g - 1, shape (n,).
        confidence: Coverage asked of the interval.
    """
    n, risky = len(labels), labels == 1
    positives, negatives = int(risky.sum()), n - int(risky.sum())
    if not positives or not negatives:
        return Figure(None, None, None, n, "needs risky and harmless rows")
    old, new = _placements(risky, baseline), _placements(risky, candidate)
    value = float(new[risky].mean() - old[risky].mean())
    gap = new - old - value
    share = np.where(risky, gap / positives, gap / negatives)
    if groups is None:
        if min(positives, negatives) < 2:
            return Figure(value, None, None, n, "no interval from one row of a class")
        variance = float(share[risky] @ share[risky]) * positives / (positives - 1)
        variance += float(share[~risky] @ share[~risky]) * negatives / (negatives - 1)
        method = "DeLong"
    else:
        sums = np.bincount(groups, share)
        if len(sums) < 2:
            return Figure(value, None, None, n, "no interval from one group")
        variance = float(sums @ sums) * len(sums) / (len(sums) - 1)
        method = "DeLong, whole groups"
    if variance <= 1e-24:
        return Figure(value, None, None, n, "no interval: the two rank all rows alike")
    half = normal_quantile(0.5 + confidence / 2) * math.sqrt(variance)
    return Figure(value, max(-1.0, value - half), min(1.0, value + half), n, method=method)


def _placements(risky: Mask, risk: Floats) -> Floats:
    """Return the share of the other class that each row is on the right side of; ties count half."""
    high, low = np.sort(risk[risky]), np.sort(risk[~risky])
    shares = np.empty(len(risk))
    shares[risky] = _share_below(low, risk[risky])
    shares[~risky] = 1 - _share_below(high, risk[~risky])
    return shares


def _share_below(ordered: Floats, values: Floats) -> Floats:
    below = np.searchsorted(ordered, values, side="left")
    upto = np.searchsorted(ordered, values, side="right")
    return (below + upto) / (2 * len(ordered))


def _correlation(first: Mask, second: Mask) -> float:
    """Return the correlation of two yes-or-no columns; 0, which widens, where one is constant."""
    a, b = float(first.mean()), float(second.mean())
    spread = a * (1 - a) * b * (1 - b)
    if spread <= 0:
        return 0.0
    return float(np.clip((np.mean(first & second) - a * b) / math.sqrt(spread), -1, 1))


def latency_ratio(
    baseline_ms: Floats,
    candidate_ms: Floats,
    percentile: int,
    *,
    seed: int = 7,
    confidence: float = 0.95,
) -> LatencyRatio:
    """Return the ratio of two percentiles of the same rows, with a bootstrap interval.

    A resample's percentile is the value at a random rank, and the two ranks are jointly normal in
    the limit: variance p (1 - p) / n, correlation that of being below it
    (Bahadur 1966). Ranks are drawn instead of rows, so n does not matter to the time.

    Args:
        baseline_ms: Shape (n,); NaN where the cache answered.
        candidate_ms: The same rows.
        percentile: 0..100.
        seed: Of the resampling.
        confidence: Coverage asked of the interval.
    """
    used = ~(np.isnan(baseline_ms) | np.isnan(candidate_ms))
    before, after = baseline_ms[used], candidate_ms[used]
    n, share = len(before), percentile / 100
    if not n:
        return LatencyRatio(percentile, None, None, None, None, None, 0)
    old, new = float(np.percentile(before, percentile)), float(np.percentile(after, percentile))
    if old <= 0:
        return LatencyRatio(percentile, old, new, None, None, None, n)
    low = high = None
    if n > 1:
        spread = share * (1 - share)
        together = _correlation(before <= old, after <= new)
        first, other = np.random.default_rng(seed).standard_normal((2, _RESAMPLES))
        second = together * first + math.sqrt(1 - together**2) * other
        scale = math.sqrt(spread / n)
        drawn = [
            np.quantile(values, np.clip(share + scale * ranks, 0, 1))
            for values, ranks in ((before, first), (after, second))
        ]
        with np.errstate(divide="ignore", invalid="ignore"):
            interval = percentile_interval(drawn[1] / drawn[0], confidence)
        if interval is not None:
            low, high = min(interval.low, new / old), max(interval.high, new / old)
    return LatencyRatio(percentile, old, new, new / old, low, high, n)

"""Two ways of deciding on the same rows: differences, tests, and what would settle them.

Verdicts and labels in, plain dataclasses out. It hides that rows with one label and one pattern of
verdicts are interchangeable: they are counted once and resampled as counts, so a million rows cost
what a thousand do.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import special

from shield_engine.metrics.figures import Figure
from shield_engine.metrics.scoring import BinaryScorer, ConfusionScorer
from shield_engine.statistics.intervals import (
    Interval,
    mcnemar_exact,
    minimum_detectable_effect,
    percentile_interval,
    resample_weights,
    wilson,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]

__all__ = [
    "BINARY_DIFFERENCES",
    "MULTICLASS_DIFFERENCES",
    "LatencyRatio",
    "PairTest",
    "Patterns",
    "auc_difference",
    "grouped_mcnemar",
    "latency_ratio",
    "pair_test",
    "rows_needed",
    "settled",
]

Scope = Literal["all", "risky", "harmless"]

BINARY_DIFFERENCES = ("recall", "fpr", "precision", "f1", "accuracy", "mcc")
"""Differences at fixed thresholds; ROC AUC has a function of its own."""
MULTICLASS_DIFFERENCES = ("accuracy", "macro_f1", "macro_recall", "mcc")

_RESAMPLES = 2_000
_LEAST_RESAMPLES = 200
_RESAMPLED_UNITS = 20_000_000  # groups times resamples; about one second on one core
_PROPORTIONS = frozenset({"accuracy", "recall", "fpr"})
_MOST_ROWS = 1_000_000_000
_POWER = 0.8


@dataclass(frozen=True, slots=True)
class PairTest:
    """Whether the candidate is right more often than the baseline on one kind of rows.

    Attributes:
        scope: All rows, the risky ones (misses) or the harmless ones (false alarms).
        n: Rows of that kind.
        only_baseline: Rows that only the baseline has right.
        only_candidate: Rows that only the candidate has right.
        difference: Accuracy on these rows, candidate minus baseline: of recall on risky rows, of
            1 - FPR on harmless ones.
        p_value: Exact McNemar test, two-sided; with groups, whole groups change sides.
        p_adjusted: After Holm, over all tests of the comparison.
        is_decided: True if `p_adjusted` is at most 1 - confidence.
        detectable: Smallest true difference that these rows would show four times in five, at the
            level that Holm asks of what is still undecided; `None` if none.
        rows_needed: Further rows of this kind that would decide four times in five if the rates
            stay as observed; `None` if decided, or if no difference shows.
        design_effect: How many rows of these groups are worth one independent row; 1 without.
    """

    scope: Scope
    n: int
    only_baseline: int
    only_candidate: int
    difference: float
    p_value: float
    p_adjusted: float
    is_decided: bool
    detectable: float | None
    rows_needed: int | None
    design_effect: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return the test as plain JSON values."""
        return asdict(self)


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
    units: tuple[int, ...]
    method: str

    @classmethod
    def of(
        cls, labels: Ints, verdicts: Ints, n_classes: int, *, groups: Ints | None, seed: int
    ) -> Patterns:
        """Count rows and draw resamples, stratified by label, or of whole groups.

        Drawing how often each pattern occurs is the row bootstrap itself, by counts: within a
        class the counts are multinomial. The scheme for groups is that of `resample_weights`.

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
        weights = counts.astype(np.float64)
        if not len(values):
            samples, method = np.zeros((0, 0)), "none: no rows"
        elif groups is None:
            samples = _drawn_counts(patterns[:, 0], weights, seed)
            method = f"bootstrap({len(samples)}, seed {seed})"
        else:
            samples = _drawn_groups(patterns[:, 0], inverse, groups, seed)
            method = f"bootstrap({len(samples)}, seed {seed}, whole groups)"
        of_label = [labels == label for label in range(n_classes)]
        masks = [*of_label, np.ones(len(labels), dtype=bool)]
        units = tuple(
            int(mask.sum() if groups is None else len(np.unique(groups[mask]))) for mask in masks
        )
        return cls(patterns[:, 0], patterns[:, 1:], weights, samples, n_classes, units, method)

    def differences(
        self, baseline: int, candidate: int, confidence: float = 0.95
    ) -> dict[str, Figure]:
        """Return candidate minus baseline for every metric at fixed thresholds.

        Values equal those of `paired_binary_metrics` and `paired_multiclass_metrics`. Where the two
        never disagree, a proportion's ends are the Wilson bound of that, as in `paired_difference`.
        """
        names = BINARY_DIFFERENCES if self.n_classes == 2 else MULTICLASS_DIFFERENCES
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
        if interval is None and not disagreeing and name in _PROPORTIONS:
            units = self.units[{"fpr": 0, "recall": 1}.get(name, -1)]
            bound = wilson(0, units, confidence).high
            interval, method = Interval(-bound, bound), "wilson bound of no disagreement"
        if interval is None:
            return Figure(value, None, None, n, "no interval: all resamples agree")
        return Figure(value, min(interval.low, value), max(interval.high, value), n, method=method)


def _drawn_counts(labels: Ints, counts: Floats, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    samples = np.empty((_RESAMPLES, len(counts)))
    for label in np.unique(labels):
        cells = labels == label
        total = counts[cells].sum()
        samples[:, cells] = rng.multinomial(int(total), counts[cells] / total, _RESAMPLES)
    return samples


def _drawn_groups(labels: Ints, pattern: Ints, groups: Ints, seed: int) -> Floats:
    from scipy import sparse

    n_groups, n_patterns = int(groups.max()) + 1, len(labels)
    rows = sparse.coo_matrix(
        (np.ones(len(groups)), (groups, pattern)), shape=(n_groups, n_patterns)
    ).tocsr()
    seen = np.zeros((n_groups, int(labels.max()) + 1), dtype=bool)
    seen[groups, labels[pattern]] = True
    kinds = np.unique(~seen, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(kinds, kind="stable")
    resamples = max(_LEAST_RESAMPLES, min(_RESAMPLES, _RESAMPLED_UNITS // n_groups))
    turned = rows[order].T.tocsr()
    return np.concatenate(
        [
            np.asarray((turned @ weights.T).T)
            for weights in resample_weights(kinds[order], resamples=resamples, seed=seed)
        ]
    )


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
    half = float(special.ndtri(0.5 + confidence / 2)) * math.sqrt(variance)
    return Figure(value, max(-1.0, value - half), min(1.0, value + half), n, method=method)


def _placements(risky: Mask, risk: Floats) -> Floats:
    """Return the share of the other class that each row is on the right side of; ties count half."""
    high, low = np.sort(risk[risky]), np.sort(risk[~risky])
    found = np.empty(len(risk))
    found[risky] = _share_below(low, risk[risky])
    found[~risky] = 1 - _share_below(high, risk[~risky])
    return found


def _share_below(ordered: Floats, values: Floats) -> Floats:
    below = np.searchsorted(ordered, values, side="left")
    upto = np.searchsorted(ordered, values, side="right")
    return (below + upto) / (2 * len(ordered))


def grouped_mcnemar(gains: Ints) -> float:
    """Return the two-sided p-value of McNemar's test where rows come in groups.

    Under the null hypothesis the two are interchangeable within each group, so the sign of each
    group's gain is a fair coin. The p-value is exact over all signs: the sum's distribution is one
    inverse Fourier transform of the product of the groups' (1 + e^(-i m w)) / 2. With gains of -1,
    0 and 1 it is `mcnemar_exact`.

    Args:
        gains: Of each group, rows that only the candidate has right minus rows that only the
            baseline has right, shape (groups,).
    """
    sizes = np.abs(gains[gains != 0])
    if not len(sizes):
        return 1.0
    if int(sizes.max()) == 1:
        return mcnemar_exact(int(np.sum(gains < 0)), int(np.sum(gains > 0)))
    total = int(sizes.sum())
    far = abs(int(gains.sum()))
    if far == total:  # the transform's rounding, some 1e-16, would drown so small a value
        return min(1.0, 2.0 * 0.5 ** len(sizes))
    turns = np.arange((total + 1) // 2 + 1) * (2j * np.pi / (total + 1))
    spectrum = np.ones(len(turns), dtype=np.complex128)
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        spectrum *= ((1 + np.exp(-turns * size)) / 2) ** count
    chances = np.fft.irfft(spectrum, total + 1)
    tail = float(np.sum(np.clip(chances[: (total - far) // 2 + 1], 0, None)))
    return min(1.0, max(2 * tail, 2.0 * 0.5 ** min(len(sizes), 1_000)))


def rows_needed(
    n: int,
    discordant_rate: float,
    difference: float,
    *,
    confidence: float = 0.95,
    power: float = _POWER,
    design_effect: float = 1.0,
) -> int | None:
    """Return how many rows beyond `n` would show the observed difference.

    The sample size of McNemar's test (Miettinen 1968): with r the share of rows on which exactly
    one is right and d the difference, N = (z_a sqrt(r) + z_b sqrt(r - d^2))^2 / d^2, and at least so
    many that the exact test can reach its level, N >= log2(2 / (1 - confidence)) / r. Rows in groups
    need `design_effect` times as many.

    Args:
        n: Rows there are.
        discordant_rate: r, 0..1.
        difference: d, -1..1.
        confidence: 1 minus the level of the two-sided test.
        power: Chance of showing it.
        design_effect: Rows that are worth one independent row.

    Returns:
        At least 1, or `None` if no difference shows or over a thousand million would be needed.
    """
    effect = abs(difference)
    if effect == 0:
        return None
    rate = max(discordant_rate, effect)
    z_level, z_power = (float(special.ndtri(p)) for p in (0.5 + confidence / 2, power))
    size = (z_level * math.sqrt(rate) + z_power * math.sqrt(max(rate - effect**2, 0.0))) ** 2
    least = math.log2(2 / (1 - confidence)) / rate
    needed = math.ceil(design_effect * max(size / effect**2, least))
    return max(1, needed - n) if needed <= _MOST_ROWS else None


def pair_test(scope: Scope, baseline: Mask, candidate: Mask, groups: Ints | None) -> PairTest:
    """Return the test of one kind of rows, not yet adjusted for the others of its family.

    Args:
        scope: Which kind of rows these are.
        baseline: Whether the baseline is right on each row, shape (n,), at least one row.
        candidate: The same for the candidate.
        groups: Codes of rows that belong together, shape (n,).
    """
    gain = candidate.astype(np.int64) - baseline.astype(np.int64)
    lost, won = int(np.sum(gain < 0)), int(np.sum(gain > 0))
    design = 1.0
    if groups is None:
        p_value = mcnemar_exact(lost, won)
    else:
        codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
        sums = np.bincount(codes, gain).astype(np.float64)
        p_value = grouped_mcnemar(np.rint(sums).astype(np.int64))
        design = _design_effect(gain, sums, np.bincount(codes).astype(np.float64))
    return PairTest(
        scope=scope,
        n=len(gain),
        only_baseline=lost,
        only_candidate=won,
        difference=(won - lost) / len(gain),
        p_value=p_value,
        p_adjusted=p_value,
        is_decided=False,
        detectable=None,
        rows_needed=None,
        design_effect=design,
    )


def _design_effect(gain: Ints, sums: Floats, rows: Floats) -> float:
    """Return the variance of the mean gain between groups over that of independent rows, >= 1."""
    n, mean = len(gain), float(gain.mean())
    alone = float(np.mean((gain - mean) ** 2)) / n
    if alone == 0 or len(rows) < 2:
        return 1.0
    residual = sums - mean * rows
    between = len(rows) / (len(rows) - 1) * float(residual @ residual) / n**2
    return max(1.0, between / alone)


def settled(test: PairTest, p_adjusted: float, level: float, confidence: float) -> PairTest:
    """Return the test with its place in the family.

    Args:
        test: From `pair_test`.
        p_adjusted: After Holm.
        level: What Holm asks of the next undecided test: (1 - confidence) / undecided tests.
        confidence: Of the whole family.
    """
    is_decided = p_adjusted <= 1 - confidence
    rate = (test.only_baseline + test.only_candidate) / test.n
    size = max(1, int(test.n / test.design_effect))
    return replace(
        test,
        p_adjusted=p_adjusted,
        is_decided=is_decided,
        detectable=minimum_detectable_effect(size, rate, confidence=1 - level),
        rows_needed=None
        if is_decided
        else rows_needed(
            test.n,
            rate,
            test.difference,
            confidence=1 - level,
            design_effect=test.design_effect,
        ),
    )


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

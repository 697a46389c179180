"""Which threshold: chosen by a constraint, by cost or by a metric, with what the rows can prove.

Scores in, choices out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from shield_engine.decide.column import DRAWN_CUTS, ScoreColumn
from shield_engine.metrics.curves import ThresholdSweep
from shield_engine.statistics.intervals import (
    clopper_pearson_bounds,
)
from shield_engine.statistics.tests import required_negatives

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from shield_engine.statistics.arrays import Floats


__all__ = [
    "Choice",
    "FlatRegion",
    "Highest",
    "ThresholdRule",
    "Weights",
    "best_by_cost",
    "best_by_metric",
    "flat_region",
    "highest_recall",
    "least_alarms",
    "sharpest",
]

Highest = Literal["f1", "balanced_accuracy"]
"""Metrics that a threshold can be chosen by."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A threshold, how it was chosen, and what it gives on the rows it was chosen on.

    Attributes:
        threshold: `None` if nothing fits.
        how: The rule in words.
        tp: Risky rows flagged; 0 without a threshold, as the other counts.
        fp: Harmless rows flagged.
        fn: Risky rows let through.
        tn: Harmless rows let through.
        bound: The bound that was judged (one-sided), `None` where none is.
        value: The objective at the threshold (recall, cost per 1,000 texts, F1, ...).
        problem: Why nothing fits and what would help; empty if a threshold was found.
        needed: Rows (groups, where there are any) that would be needed in all to prove the
            constraint; `None` if unknown.
    """

    threshold: float | None
    how: str
    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0
    bound: float | None = None
    value: float | None = None
    problem: str = ""
    needed: int | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """An objective that is linear in the rates: risky x recall - harmless x FPR."""

    risky: float
    harmless: float

    def of(self, sweep: ThresholdSweep) -> Floats:
        """Return the objective at each threshold; a class without rows counts nothing."""
        return self.risky * np.nan_to_num(sweep.recall) - self.harmless * np.nan_to_num(sweep.fpr)


@dataclass(frozen=True, slots=True)
class FlatRegion:
    """Thresholds between which these rows see no difference to the one chosen.

    Attributes:
        low: Lowest such threshold.
        high: Highest.
        worst_loss: Largest loss of the objective within, in its own units.
    """

    low: float
    high: float
    worst_loss: float


def highest_recall(column: ScoreColumn, max_fpr: float, *, confidence: float = 0.95) -> Choice:
    """Return the lowest threshold whose FPR is proved to be at most `max_fpr`.

    Proved means the one-sided Clopper-Pearson upper bound. The bound holds for a threshold named
    beforehand; that of the best of many thresholds is slightly too good, which is what reporting on
    another split is for.
    """
    how = f"highest recall with FPR at most {max_fpr:.3g} at {confidence:.0%} confidence"
    n = len(column.harmless)
    if not n:
        return Choice(
            None, how, problem="infeasible: there are no harmless rows to prove a rate on"
        )

    def bound(threshold: float) -> float:
        return float(_upper(*column.effective(threshold, 0), confidence)[0])

    above_all = np.nextafter(float(column.cuts[0]), 2.0) if len(column.cuts) else 1.0
    best = bound(above_all)
    if best > max_fpr:
        needed = required_negatives(max_fpr, 0.0, confidence)
        there, what = _worth(column, 0, "negatives")
        problem = f"infeasible: with {there} even no false alarm proves only {best:.2%}"
        if needed is not None:
            missing = max(1, needed - (column.group_count(0) or n))
            problem = (
                f"infeasible: at {confidence:.0%} confidence this needs about {missing:,} more {what} "
                f"(no false alarm among {there} proves only {best:.2%})"
            )
        return Choice(None, how, bound=best, problem=problem, needed=needed)
    place = _last_true(len(column.cuts), lambda at: bound(float(column.cuts[at])) <= max_fpr)
    if place < 0:
        observed = float(column.at(column.cuts[0]).fp[0]) / n
        needed = required_negatives(max_fpr, observed, confidence) if max_fpr > 0 else None
        more = (
            f"about {max(1, needed - n):,} more negatives could prove it"
            if needed is not None
            else "more rows would not help: the highest score is shared by too many harmless rows"
        )
        return Choice(
            None,
            how,
            bound=bound(float(column.cuts[0])),
            needed=needed,
            problem=f"infeasible: no threshold that flags anything stays below the limit; {more}",
        )
    return _choice(column, float(column.cuts[place]), how, bound=bound, value="recall")


def least_alarms(column: ScoreColumn, min_recall: float, *, confidence: float = 0.95) -> Choice:
    """Return the highest threshold whose recall is proved to be at least `min_recall`.

    Proved means the one-sided Clopper-Pearson lower bound; see `highest_recall`.
    """
    how = (
        f"fewest false alarms with recall at least {min_recall:.3g} at {confidence:.0%} confidence"
    )
    n = len(column.risky)
    if not n:
        return Choice(None, how, problem="infeasible: there are no risky rows to prove a recall on")

    def bound(threshold: float) -> float:
        hits, rows = column.effective(threshold, 1)
        return 1 - float(_upper(rows - hits, rows, confidence)[0])

    place = _first_true(len(column.cuts), lambda at: bound(float(column.cuts[at])) >= min_recall)
    if place == len(column.cuts):
        best = bound(float(column.cuts[-1]))
        needed = required_negatives(1 - min_recall, 0.0, confidence) if min_recall < 1 else None
        there, what = _worth(column, 1, "risky rows")
        missing = 0 if needed is None else max(1, needed - (column.group_count(1) or n))
        more = (
            f"at {confidence:.0%} confidence this needs about {missing:,} more {what}"
            if needed is not None
            else "no number of rows proves a recall of 1"
        )
        return Choice(
            None,
            how,
            bound=best,
            needed=needed,
            problem=f"infeasible: {more} (all {there} found prove only {best:.2%})",
        )
    return _choice(column, float(column.cuts[place]), how, bound=bound, value="fpr")


def sharpest(
    column: ScoreColumn, min_precision: float, prevalence: float, *, confidence: float = 0.95
) -> Choice:
    """Return the lowest threshold whose precision at `prevalence` is proved to be high enough.

    Precision there is p R / (p R + (1 - p) F). Recall R enters with its lower and FPR F with its
    upper one-sided bound, each at (1 + confidence) / 2, so both hold together (Bonferroni).
    """
    how = (
        f"highest recall with precision at least {min_precision:.3g} where {prevalence:.3g} of the "
        f"texts are risky, at {confidence:.0%} confidence"
    )
    if not len(column.risky) or not len(column.harmless):
        return Choice(None, how, problem="infeasible: both classes are needed")
    each = (1 + confidence) / 2

    def bounds(thresholds: ArrayLike) -> Floats:
        hits, risky = column.effective(thresholds, 1)
        alarms, harmless = column.effective(thresholds, 0)
        caught = prevalence * (1 - _upper(risky - hits, risky, each))
        flagged = caught + (1 - prevalence) * _upper(alarms, harmless, each)
        return np.divide(caught, flagged, out=np.zeros_like(caught), where=flagged > 0)

    drawn = column.drawn(2 * DRAWN_CUTS).thresholds
    proved = bounds(drawn)
    fits = np.flatnonzero(proved >= min_precision)
    if not len(fits):
        best = float(proved.max(initial=0.0))
        return Choice(
            None,
            how,
            bound=best,
            problem=f"infeasible: the best these rows prove is {best:.1%}; more harmless rows "
            "narrow the bound, a higher prevalence or a better scanner raises it",
        )
    last = int(fits[-1])
    lowest = float(drawn[last + 1]) if last + 1 < len(drawn) else -np.inf
    between = column.cuts[(column.cuts <= drawn[last]) & (column.cuts > lowest)]
    proved_between = between[bounds(between) >= min_precision]
    cut = float(proved_between[-1] if len(proved_between) else drawn[last])
    return _choice(
        column, cut, how, bound=lambda threshold: float(bounds(threshold)[0]), value="recall"
    )


def best_by_cost(
    column: ScoreColumn,
    *,
    miss: float,
    false_alarm: float,
    prevalence: float,
    per_text: float = 0.0,
) -> Choice:
    """Return the threshold of the least expected cost; `value` is that cost per 1,000 texts.

    Args:
        column: The scores.
        miss: Cost of a risky text let through, in any unit.
        false_alarm: Cost of a harmless text flagged, in the same unit.
        prevalence: Share of risky texts in traffic; the dataset's own share does not matter.
        per_text: Cost of scanning one text, which no threshold changes.

    Raises:
        ValueError: A cost is negative or `prevalence` lies outside 0..1.
    """
    if min(miss, false_alarm, per_text) < 0 or not 0 <= prevalence <= 1:
        raise ValueError("costs are at least 0 and prevalence lies within 0..1")
    how = (
        f"least cost with {miss:g} a miss, {false_alarm:g} a false alarm, "
        f"{prevalence:.3g} of the texts risky"
    )
    if not len(column.risky) or not len(column.harmless):
        return Choice(None, how, problem="infeasible: both classes are needed")
    weights = Weights(prevalence * miss, (1 - prevalence) * false_alarm)
    values = weights.of(column.sweep)
    place = int(np.argmax(values))
    # Flagging nothing gains 0; where that is best, say so with the highest threshold there is.
    if values[place] <= 0:
        return Choice(
            None,
            how,
            fn=len(column.risky),
            tn=len(column.harmless),
            value=1_000 * (weights.risky + per_text),
            problem="flagging nothing is cheapest at these costs",
        )
    chosen = _choice(column, float(column.cuts[place]), how, value="recall")
    return replace(chosen, value=1_000 * (weights.risky - float(values[place]) + per_text))


def best_by_metric(column: ScoreColumn, metric: Highest) -> Choice:
    """Return the threshold of the highest F1 or balanced accuracy on these rows."""
    how = f"highest {metric.replace('_', ' ')}"
    if not len(column.risky) or not len(column.harmless):
        return Choice(None, how, problem="infeasible: both classes are needed")
    sweep = column.sweep
    values = sweep.f1 if metric == "f1" else (1 + Weights(1.0, 1.0).of(sweep)) / 2
    place = int(np.nanargmax(values))
    chosen = _choice(column, float(column.cuts[place]), how, value="recall")
    return replace(chosen, value=float(values[place]))


def flat_region(
    column: ScoreColumn, threshold: float, weights: Weights, *, z: float = 1.96
) -> FlatRegion:
    """Return the thresholds around `threshold` that these rows cannot tell from it.

    Between two thresholds only the rows in between change their verdict, r of the risky and f of
    the harmless ones as shares, so the difference a r - b f has the variance
    a^2 r (1 - r) / P + b^2 f (1 - f) / N. A threshold belongs to the region while it is neither
    worse nor better by more than `z` standard errors; the region ends at the first that is.
    """
    sweep = column.drawn(2 * DRAWN_CUTS)
    here = column.at(threshold)
    risky, harmless = max(len(column.risky), 1), max(len(column.harmless), 1)
    r = np.abs(sweep.tp - here.tp[0]) / risky
    f = np.abs(sweep.fp - here.fp[0]) / harmless
    loss = weights.of(here)[0] - weights.of(sweep)
    error = np.sqrt(
        weights.risky**2 * r * (1 - r) / risky + weights.harmless**2 * f * (1 - f) / harmless
    )
    alike = np.abs(loss) <= z * error + 1e-12
    place = int(np.searchsorted(-sweep.thresholds, -threshold))
    start = min(place, len(alike) - 1)
    if start < 0:
        return FlatRegion(threshold, threshold, 0.0)
    above = start
    while above > 0 and alike[above - 1]:
        above -= 1
    below = start
    while below + 1 < len(alike) and alike[below + 1]:
        below += 1
    inside = slice(above, below + 1)
    return FlatRegion(
        low=min(threshold, float(sweep.thresholds[below])),
        high=max(threshold, float(sweep.thresholds[above])),
        worst_loss=max(0.0, float(loss[inside].max())),
    )


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """How a threshold is chosen, as a value that can be kept beside the choice.

    Attributes:
        kind: `fpr` (highest recall under a limit), `recall` (fewest false alarms above a limit),
            `precision`, `cost`, `f1` or `balanced_accuracy`.
        limit: The constraint of the first three.
        confidence: At which a constraint must be proved.
        prevalence: Share of risky texts in traffic, for `precision` and `cost`.
        miss: Cost of a risky text let through, for `cost`.
        false_alarm: Cost of a harmless text flagged, for `cost`.
        per_text: Cost of scanning one text, for `cost`.
    """

    kind: Literal["fpr", "recall", "precision", "cost", "f1", "balanced_accuracy"]
    limit: float = 0.01
    confidence: float = 0.95
    prevalence: float = 0.05
    miss: float = 10.0
    false_alarm: float = 1.0
    per_text: float = 0.0

    def choose(self, column: ScoreColumn) -> Choice:
        """Return the rule's threshold on these rows."""
        if self.kind == "fpr":
            return highest_recall(column, self.limit, confidence=self.confidence)
        if self.kind == "recall":
            return least_alarms(column, self.limit, confidence=self.confidence)
        if self.kind == "precision":
            return sharpest(column, self.limit, self.prevalence, confidence=self.confidence)
        if self.kind == "cost":
            return best_by_cost(
                column,
                miss=self.miss,
                false_alarm=self.false_alarm,
                prevalence=self.prevalence,
                per_text=self.per_text,
            )
        return best_by_metric(column, self.kind)

    @property
    def _linear(self) -> Weights:
        """What is made high where that is linear in the rates."""
        if self.kind == "cost":
            return Weights(self.prevalence * self.miss, (1 - self.prevalence) * self.false_alarm)
        if self.kind == "balanced_accuracy":
            return Weights(0.5, 0.5)
        return Weights(0.0, 1.0) if self.kind == "recall" else Weights(1.0, 0.0)

    def weights(self, column: ScoreColumn, threshold: float) -> Weights:
        """Return the linear objective that the rule's threshold maximises.

        For F1 it is that of Dinkelbach (1967): at the maximum F*, tp (2 - F*) - fp F* is highest.
        """
        if self.kind != "f1":
            return self._linear
        counts = column.at(threshold)
        best = float(np.nan_to_num(counts.f1[0]))
        scale = max(float(2 * counts.tp[0] + counts.fp[0] + counts.fn[0]), 1.0)
        return Weights((2 - best) * len(column.risky) / scale, best * len(column.harmless) / scale)

    def flat(self, column: ScoreColumn, threshold: float) -> FlatRegion:
        """Return the thresholds that these rows cannot tell from `threshold` by this rule.

        Under a limit only the side that keeps it counts: higher thresholds under a limit of FPR or
        precision, lower ones under a limit of recall.
        """
        region = flat_region(column, threshold, self.weights(column, threshold))
        if self.kind in {"fpr", "precision"}:
            return replace(region, low=threshold)
        return replace(region, high=threshold) if self.kind == "recall" else region

    def objective(self, sweep: ThresholdSweep) -> Floats:
        """Return what the rule makes high, at each threshold: F1, recall, minus FPR or cost."""
        if self.kind == "f1":
            return np.nan_to_num(sweep.f1)
        if self.kind == "balanced_accuracy":
            return (1 + Weights(1.0, 1.0).of(sweep)) / 2
        return self._linear.of(sweep)


def _choice(
    column: ScoreColumn,
    cut: float,
    how: str,
    *,
    bound: Callable[[float], float] | None = None,
    value: Literal["recall", "fpr"],
) -> Choice:
    threshold = column.threshold_of(cut)
    counts = column.at(threshold)
    rate = (counts.recall if value == "recall" else counts.fpr)[0]
    return Choice(
        threshold=threshold,
        how=how,
        tp=int(counts.tp[0]),
        fp=int(counts.fp[0]),
        fn=int(counts.fn[0]),
        tn=int(counts.tn[0]),
        bound=None if bound is None else bound(threshold),
        value=None if np.isnan(rate) else float(rate),
    )


def _upper(hits: Floats, rows: Floats, confidence: float) -> Floats:
    """Return one-sided Clopper-Pearson upper bounds; counts may be effective, so fractional."""
    bounds: Floats = np.where(
        rows > 0, clopper_pearson_bounds(hits, rows, confidence, "upper")[1], 1.0
    )
    return bounds


def _worth(column: ScoreColumn, label: int, rows: str) -> tuple[str, str]:
    """Return how many independent rows of a class there are, and what more of them are called."""
    n = len(column.risky if label else column.harmless)
    groups = column.group_count(label)
    if groups is None:
        return f"{n:,} {'risky' if label else 'harmless'} rows", rows
    return f"{n:,} rows in {groups:,} groups", f"groups of {rows}"


def _last_true(count: int, fits: Callable[[int], bool]) -> int:
    """Return the last place of a run of true answers from 0 on, -1 if the first is false."""
    low, high = -1, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _first_true(count: int, fits: Callable[[int], bool]) -> int:
    """Return the first place of a run of true answers up to the end, `count` if there is none."""
    return _last_true(count, lambda at: not fits(at)) + 1

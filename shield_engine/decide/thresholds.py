"""Which threshold: chosen by a constraint, by cost or by a metric, with what the rows can prove.

Scores in, choices out. Hides sorting: a column of a million scores is sorted once, and every
threshold after that is two binary searches. A row is flagged if its score is at least the threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from shield_engine.metrics.curves import Counts, ThresholdSweep
from shield_engine.metrics.inputs import binary_input, group_codes
from shield_engine.metrics.table import METRICS
from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import (
    clopper_pearson_bounds,
    proportion,
)
from shield_engine.statistics.resampling import Resamples, cells_drawn, percentile_interval
from shield_engine.statistics.tests import required_negatives

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

__all__ = [
    "Choice",
    "FlatRegion",
    "Rule",
    "ScoreColumn",
    "Weights",
    "best_by_cost",
    "best_by_metric",
    "flat_region",
    "highest_recall",
    "least_alarms",
    "rates_at",
    "sharpest",
]

Metric = Literal["f1", "balanced_accuracy"]
_DRAWN_CUTS = 400


@dataclass(frozen=True)
class ScoreColumn:
    """Labelled scores of one mode, sorted by class.

    Attributes:
        risky: Scores of the risky rows, rising.
        harmless: Scores of the harmless rows, rising.
        risky_groups: Group of each risky row in that order; `None` if rows are independent.
        harmless_groups: The same for harmless rows.
    """

    risky: Floats
    harmless: Floats
    risky_groups: Ints | None = None
    harmless_groups: Ints | None = None

    @classmethod
    def of(
        cls, labels: ArrayLike, scores: ArrayLike, groups: ArrayLike | None = None
    ) -> ScoreColumn:
        """Return the column of these rows.

        Args:
            labels: 1 for risky rows, 0 for harmless ones.
            scores: Risk of each row, 0..1.
            groups: Rows that belong together count as fewer in every bound.

        Raises:
            ValueError: An array has another length, or a value does not fit.
        """
        truth, risk = binary_input(labels, scores)
        codes = None if groups is None else group_codes(groups, len(truth))
        sides: list[tuple[Floats, Ints | None]] = []
        for label in (1, 0):
            rows = np.flatnonzero(truth == label)
            rows = rows[np.argsort(risk[rows], kind="stable")]
            sides.append((risk[rows], None if codes is None else codes[rows]))
        (risky, risky_groups), (harmless, harmless_groups) = sides
        return cls(risky, harmless, risky_groups, harmless_groups)

    @property
    def n(self) -> int:
        """How many rows there are."""
        return len(self.risky) + len(self.harmless)

    @cached_property
    def cuts(self) -> Floats:
        """Distinct scores, highest first: each is a threshold that flags itself."""
        return np.unique(np.concatenate((self.risky, self.harmless)))[::-1]

    @cached_property
    def sweep(self) -> ThresholdSweep:
        """Counts at every cut."""
        return self.at(self.cuts)

    def at(self, thresholds: ArrayLike) -> ThresholdSweep:
        """Return the counts at each threshold, in the order given."""
        return ThresholdSweep.of(self.risky, self.harmless, thresholds)

    def drawn(self, points: int = _DRAWN_CUTS) -> ThresholdSweep:
        """Return the counts at no more than `points` cuts, evenly spread over the flagged share."""
        if len(self.cuts) <= points:
            return self.sweep
        places = np.linspace(0, len(self.cuts) - 1, points // 2).astype(np.int64)
        even = np.linspace(self.cuts[-1], self.cuts[0], points - points // 2)
        return self.at(np.unique(np.concatenate((self.cuts[places], even)))[::-1])

    def threshold_of(self, cut: float) -> float:
        """Return the roundest number that flags exactly the rows that `cut` flags.

        It lies above the next lower score and not above `cut`, near the middle, with as few digits
        as the gap allows; so a policy reads well and survives any file.
        """
        lower = max(
            (float(side[place - 1]) for side in (self.risky, self.harmless)
             if (place := int(np.searchsorted(side, cut))) > 0),
            default=0.0,
        )  # fmt: skip
        if cut <= 0.0:
            return 0.0
        middle = (lower + cut) / 2
        for digits in range(1, 17):
            rounded = round(middle, digits)
            if lower < rounded <= cut:
                return rounded
        return cut

    def effective(self, thresholds: ArrayLike, label: int) -> tuple[Floats, Floats]:
        """Return (flagged, rows) of one class at each threshold, each worth what its groups are."""
        wanted = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
        side = self.risky if label else self.harmless
        flagged = (len(side) - np.searchsorted(side, wanted)).astype(np.float64)
        spread = self._spreads[label]
        if spread is None:
            return flagged, np.full(len(wanted), float(len(side)))
        sizes = spread.effective(flagged)
        return flagged / len(side) * sizes, sizes

    def group_counts(self, threshold: float) -> Counts | None:
        """Return the counts of each group; `None` without groups."""
        if self.risky_groups is None or self.harmless_groups is None:
            return None
        width = max(
            int(side.max(initial=-1)) + 1 for side in (self.risky_groups, self.harmless_groups)
        )
        hits = self.risky_groups[np.searchsorted(self.risky, threshold) :]
        alarms = self.harmless_groups[np.searchsorted(self.harmless, threshold) :]
        tp, risky, fp, harmless = (
            np.bincount(codes, minlength=width)
            for codes in (hits, self.risky_groups, alarms, self.harmless_groups)
        )
        return Counts(tp, fp, risky - tp, harmless - fp)

    def cells_drawn(self, threshold: float, times: int, seed: int) -> Floats:
        """Return tp, fp, fn and tn of each resample, shape (times, 4)."""
        if self.risky_groups is None:
            counts = self.at(threshold)
            tp, fp, fn, tn = (int(cell[0]) for cell in counts.cells)
            return cells_drawn(np.array([tp, 0, fn, 0, 0, fp, 0, tn]), 4, times, seed)
        sides = (
            np.where(self.risky >= threshold, 0, 2),
            np.where(self.harmless >= threshold, 1, 3),
        )
        return self.resamples(times, seed).cells(np.concatenate(sides), 4)

    def resamples(self, times: int, seed: int) -> Resamples:
        """Return how the rows, risky ones first, are resampled."""
        groups = None
        if self.risky_groups is not None and self.harmless_groups is not None:
            groups = np.concatenate((self.risky_groups, self.harmless_groups))
        classes = np.repeat([0, 1], [len(self.risky), len(self.harmless)])
        return Resamples(classes, groups, times, seed)

    def group_count(self, label: int) -> int | None:
        """Return how many groups hold rows of a class; `None` if its rows are independent."""
        spread = self._spreads[label]
        return None if spread is None else spread.groups

    @cached_property
    def _spreads(self) -> tuple[_Spread | None, _Spread | None]:
        """Spread over groups of harmless and of risky rows."""
        return _spread(self.harmless_groups), _spread(self.risky_groups)


@dataclass(frozen=True, slots=True)
class _Spread:
    """What the rows of one class are worth at any threshold, by running sums over their groups.

    With h flagged rows of the m of each group, the variance between groups needs only the sums of
    h^2, h m and m^2, and each row that a falling threshold adds changes the first two by a known
    amount. So a million grouped rows are summed once, and no threshold counts them again.

    Attributes:
        squares: Sum of h^2 once 0, 1, 2, ... of the highest rows are flagged.
        crossed: Sum of h m, likewise.
        square_sizes: Sum of m^2.
        groups: How many groups there are.
    """

    squares: Floats
    crossed: Floats
    square_sizes: float
    groups: int

    def effective(self, flagged: Floats) -> Floats:
        """Return `statistics.effective_size` where so many of the highest rows are flagged."""
        total = float(len(self.squares) - 1)
        place = flagged.astype(np.int64)
        rate = flagged / total
        squares = self.squares[place]
        residual = squares - 2 * rate * self.crossed[place] + rate**2 * self.square_sizes
        # Equal rates in all groups leave rounding only, some 1e-15 of the terms.
        residual = np.where(residual <= 1e-11 * squares, 0.0, residual)
        between = self.groups / max(self.groups - 1, 1) * residual / total**2
        binomial = rate * (1 - rate) / total
        is_known = (between > 0) & (binomial > 0) & (self.groups > 1)
        sizes: Floats = np.where(
            is_known,
            np.minimum(total, total * binomial / np.where(is_known, between, 1.0)),
            float(self.groups),
        )
        return sizes


def _spread(groups: Ints | None) -> _Spread | None:
    if groups is None or not len(groups):
        return None
    codes = np.unique(groups[::-1], return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(codes)
    order = np.argsort(codes, kind="stable")
    seen_before = np.empty(len(codes), dtype=np.int64)
    seen_before[order] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return _Spread(
        squares=np.concatenate(([0.0], np.cumsum(2.0 * seen_before + 1))),
        crossed=np.concatenate(([0.0], np.cumsum(sizes[codes].astype(np.float64)))),
        square_sizes=float(np.sum(sizes.astype(np.float64) ** 2)),
        groups=len(sizes),
    )


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


def rates_at(
    column: ScoreColumn, threshold: float, *, resamples: int = 0, seed: int = 7,
    confidence: float = 0.95,
) -> dict[str, Figure]:  # fmt: skip
    """Return accuracy, precision, recall, FPR, F1, MCC and balanced accuracy at a threshold.

    Proportions have Wilson intervals, as in `binary_metrics`; with groups they count what their
    rows are worth. The others get a bootstrap if `resamples` is given: of the confusion matrix, or
    of the groups' matrices. At a fixed threshold that is the same as one of rows or whole groups,
    but takes no longer for a million of them. Values never depend on it.
    """
    counts, by_group = column.at(threshold), column.group_counts(threshold)
    figures = {
        name: proportion(
            hits,
            rows,
            None if by_group is None else np.arange(len(rows)),
            confidence=confidence,
            empty=METRICS[name].undefined,
        )
        for name, (hits, rows) in (by_group or counts).shares.items()
    }
    drawn = None
    if resamples and column.n > 1:
        drawn = Counts(*column.cells_drawn(threshold, resamples, seed).T)
    for name in ("f1", "mcc", "balanced_accuracy"):
        figures[name] = _resampled(
            float(getattr(counts, name)[0]),
            None if drawn is None else getattr(drawn, name),
            column.n,
            confidence,
            f"bootstrap({resamples}, seed {seed})",
        )
    return figures


def highest_recall(
    column: ScoreColumn, max_fpr: float, *, confidence: float = 0.95
) -> Choice:  # fmt: skip
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
            None, how, bound=bound(float(column.cuts[0])), needed=needed,
            problem=f"infeasible: no threshold that flags anything stays below the limit; {more}",
        )  # fmt: skip
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
            None, how, bound=best, needed=needed,
            problem=f"infeasible: {more} (all {there} found prove only {best:.2%})",
        )  # fmt: skip
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
        found = prevalence * (1 - _upper(risky - hits, risky, each))
        flagged = found + (1 - prevalence) * _upper(alarms, harmless, each)
        return np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)

    drawn = column.drawn(2 * _DRAWN_CUTS).thresholds
    proved = bounds(drawn)
    fits = np.flatnonzero(proved >= min_precision)
    if not len(fits):
        best = float(proved.max(initial=0.0))
        return Choice(
            None, how, bound=best,
            problem=f"infeasible: the best these rows prove is {best:.1%}; more harmless rows "
            "narrow the bound, a higher prevalence or a better scanner raises it",
        )  # fmt: skip
    last = int(fits[-1])
    lowest = float(drawn[last + 1]) if last + 1 < len(drawn) else -np.inf
    between = column.cuts[(column.cuts <= drawn[last]) & (column.cuts > lowest)]
    kept = between[bounds(between) >= min_precision]
    cut = float(kept[-1] if len(kept) else drawn[last])
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
            None, how, fn=len(column.risky), tn=len(column.harmless),
            value=1_000 * (weights.risky + per_text),
            problem="flagging nothing is cheapest at these costs",
        )  # fmt: skip
    chosen = _choice(column, float(column.cuts[place]), how, value="recall")
    return _with_value(chosen, 1_000 * (weights.risky - float(values[place]) + per_text))


def best_by_metric(column: ScoreColumn, metric: Metric) -> Choice:
    """Return the threshold of the highest F1 or balanced accuracy on these rows."""
    how = f"highest {metric.replace('_', ' ')}"
    if not len(column.risky) or not len(column.harmless):
        return Choice(None, how, problem="infeasible: both classes are needed")
    sweep = column.sweep
    values = sweep.f1 if metric == "f1" else (1 + Weights(1.0, 1.0).of(sweep)) / 2
    place = int(np.nanargmax(values))
    chosen = _choice(column, float(column.cuts[place]), how, value="recall")
    return _with_value(chosen, float(values[place]))


def flat_region(
    column: ScoreColumn, threshold: float, weights: Weights, *, z: float = 1.96
) -> FlatRegion:
    """Return the thresholds around `threshold` that these rows cannot tell from it.

    Between two thresholds only the rows in between change their verdict, r of the risky and f of
    the harmless ones as shares, so the difference a r - b f has the variance
    a^2 r (1 - r) / P + b^2 f (1 - f) / N. A threshold belongs to the region while it is neither
    worse nor better by more than `z` standard errors; the region ends at the first that is.
    """
    sweep = column.drawn(2 * _DRAWN_CUTS)
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
class Rule:
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
                column, miss=self.miss, false_alarm=self.false_alarm,
                prevalence=self.prevalence, per_text=self.per_text,
            )  # fmt: skip
        return best_by_metric(column, self.kind)

    def weights(self, column: ScoreColumn, threshold: float) -> Weights:
        """Return the linear objective that the rule's threshold maximises.

        For F1 it is that of Dinkelbach (1967): at the maximum F*, tp (2 - F*) - fp F* is highest.
        """
        if self.kind == "cost":
            return Weights(self.prevalence * self.miss, (1 - self.prevalence) * self.false_alarm)
        if self.kind == "balanced_accuracy":
            return Weights(0.5, 0.5)
        if self.kind == "recall":
            return Weights(0.0, 1.0)
        if self.kind != "f1":
            return Weights(1.0, 0.0)
        counts = column.at(threshold)
        best = float(np.nan_to_num(counts.f1[0]))
        scale = max(float(2 * counts.tp[0] + counts.fp[0] + counts.fn[0]), 1.0)
        return Weights(
            (2 - best) * len(column.risky) / scale, best * len(column.harmless) / scale
        )  # fmt: skip

    def flat(self, column: ScoreColumn, threshold: float) -> FlatRegion:
        """Return the thresholds that these rows cannot tell from `threshold` by this rule.

        Under a limit only the side that keeps it counts: higher thresholds under a limit of FPR or
        precision, lower ones under a limit of recall.
        """
        found = flat_region(column, threshold, self.weights(column, threshold))
        if self.kind in {"fpr", "precision"}:
            return replace(found, low=threshold)
        return replace(found, high=threshold) if self.kind == "recall" else found

    def objective(self, sweep: ThresholdSweep) -> Floats:
        """Return what the rule makes high, at each threshold: F1, recall, minus FPR or cost."""
        if self.kind == "f1":
            return np.nan_to_num(sweep.f1)
        if self.kind == "balanced_accuracy":
            return (1 + Weights(1.0, 1.0).of(sweep)) / 2
        if self.kind == "cost":
            return Weights(
                self.prevalence * self.miss, (1 - self.prevalence) * self.false_alarm
            ).of(sweep)  # fmt: skip
        return Weights(0.0, 1.0).of(sweep) if self.kind == "recall" else Weights(1.0, 0.0).of(sweep)


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


def _with_value(choice: Choice, value: float) -> Choice:
    return replace(choice, value=value)


def _resampled(
    value: float, samples: Floats | None, n: int, confidence: float, method: str
) -> Figure:
    """Return a figure with the interval that its resamples give, if any."""
    if np.isnan(value):
        return Figure(None, None, None, n, "undefined for these counts")
    ends = None if samples is None else percentile_interval(samples, confidence)
    if ends is None:
        return Figure(value, None, None, n, "no interval: no resamples, or all alike")
    return Figure.around(value, ends, n, method)


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

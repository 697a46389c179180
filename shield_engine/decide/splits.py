"""Chosen on one part of the rows, reported on the other: splits and the optimism of a choice.

A threshold that was chosen on some rows looks better on them than on new ones. Two answers: hold
half of the rows back for the report, or estimate the optimism by resampling (Efron 1983).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.decide.column import ScoreColumn
from shield_engine.decide.thresholds import Choice, ThresholdRule
from shield_engine.metrics.curves import ThresholdSweep
from shield_engine.statistics.intervals import Interval, clopper_pearson_bounds
from shield_engine.statistics.tests import holm, pair_p_value

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from shield_engine.statistics.arrays import Floats


__all__ = [
    "Optimism",
    "SliceChoice",
    "SplitReport",
    "choose_and_report",
    "optimism",
    "slice_choices",
    "split",
]

_MOST_CUTS = 1_000


@dataclass(frozen=True, slots=True)
class SplitReport:
    """A choice on one part of the rows and what it gives on the other.

    Attributes:
        choice: On the choosing rows.
        choosing: Rows it was chosen on.
        reporting: The other rows, never seen by the choice.
        units: Groups (or distinct texts) that were dealt out whole.
        chosen: The rule's objective on the choosing rows; `None` without a threshold.
        reported: The same on the reporting rows.
        gap: `chosen` - `reported`; what choosing and reporting on the same rows would flatter by.
    """

    choice: Choice
    choosing: ScoreColumn
    reporting: ScoreColumn
    units: int
    chosen: float | None
    reported: float | None
    gap: float | None


@dataclass(frozen=True, slots=True)
class Optimism:
    """How much better a choice looks on its own rows than on new ones, by resampling.

    Attributes:
        value: Mean of (objective on the resample - objective on the rows) over resamples; `None`
            if the rule finds no threshold in most of them.
        interval: 2.5% and 97.5% quantiles of that difference.
        apparent: The objective where it was chosen, on all rows.
        corrected: `apparent` - `value`.
        thresholds: 2.5% and 97.5% quantiles of the threshold that is chosen.
        resamples: How many found a threshold.
        unfound: How many did not.
    """

    value: float | None
    interval: Interval | None
    apparent: float | None
    corrected: float | None
    thresholds: Interval | None
    resamples: int
    unfound: int


@dataclass(frozen=True, slots=True)
class SliceChoice:
    """A slice with a threshold of its own.

    Attributes:
        value: Of the slice column.
        risky: Risky rows of the slice.
        harmless: Harmless rows.
        choice: The rule on these rows alone.
        common: Counts of these rows at the common threshold.
        p_value: Of no difference between the common threshold and one chosen on half of the slice,
            on its other half; adjusted for the number of slices.
        is_decided: True if these rows can tell the two apart.
    """

    value: str
    risky: int
    harmless: int
    choice: Choice
    common: ThresholdSweep
    p_value: float
    is_decided: bool


def split(
    units: ArrayLike, labels: ArrayLike, *, seed: int = 7, share: float = 0.5
) -> NDArray[np.bool_]:
    """Return which rows the choice is made on; the others are for the report.

    Whole units (groups, or equal texts) go to one side. Units with a risky row and units without
    are dealt out separately, so that both sides have about the same share of risky rows.

    Args:
        units: What each row belongs to, any sortable values, shape (n,).
        labels: 1 for risky rows, 0 for harmless ones, shape (n,).
        seed: Decides which units go where.
        share: Of the rows of each kind that the choice may see.
    """
    codes = np.unique(np.asarray(units), return_inverse=True)[1].reshape(-1)
    truth = np.asarray(labels)
    sizes = np.bincount(codes)
    has_risky = np.bincount(codes, weights=truth == 1) > 0
    generator = np.random.default_rng(seed)
    taken = np.zeros(len(sizes), dtype=bool)
    for kind in (False, True):
        members = np.flatnonzero(has_risky == kind)
        members = members[generator.permutation(len(members))]
        # Large units first would be more even, but then the seed would not decide.
        before = np.cumsum(sizes[members]) - sizes[members]
        taken[members] = before < share * sizes[members].sum() - sizes[members] / 2 + 1e-9
    rows: NDArray[np.bool_] = taken[codes]
    return rows


def choose_and_report(
    labels: ArrayLike,
    scores: ArrayLike,
    units: ArrayLike,
    rule: ThresholdRule,
    *,
    groups: ArrayLike | None = None,
    seed: int = 7,
    share: float = 0.5,
) -> SplitReport:
    """Choose on one part of the rows and report on the other; see `split`."""
    truth, risk, names = np.asarray(labels), np.asarray(scores), np.asarray(units)
    chosen = split(names, truth, seed=seed, share=share)
    sides = [
        ScoreColumn.of(
            truth[rows], risk[rows], None if groups is None else np.asarray(groups)[rows]
        )
        for rows in (chosen, ~chosen)
    ]
    choosing, reporting = sides
    choice = rule.choose(choosing)
    before = after = None
    if choice.threshold is not None:
        before = float(rule.objective(choosing.at(choice.threshold))[0])
        if len(reporting.risky) and len(reporting.harmless):
            after = float(rule.objective(reporting.at(choice.threshold))[0])
    gap = None if before is None or after is None else before - after
    return SplitReport(choice, choosing, reporting, len(np.unique(names)), before, after, gap)


def optimism(
    column: ScoreColumn, rule: ThresholdRule, *, resamples: int = 200, seed: int = 7
) -> Optimism:
    """Estimate the optimism of choosing on all rows (Efron 1983), with its spread.

    Each resample keeps the number of rows of each class (whole groups are drawn where there are
    groups); the rule chooses on it, and its objective there is compared with the one that the same
    threshold has on all rows. Above a thousand distinct scores a thousand cuts stand for them.
    Where a limit must be proved on groups, rows of a resample are worth what they are on all rows.
    """
    apparent_choice = rule.choose(column)
    if apparent_choice.threshold is None:
        return Optimism(None, None, None, None, None, 0, 0)
    apparent = float(rule.objective(column.at(apparent_choice.threshold))[0])
    cuts = column.drawn(_MOST_CUTS).thresholds
    risky, harmless = _drawn_counts(column, cuts, resamples, seed)
    here = rule.objective(column.at(cuts))
    risky_worth, harmless_worth = (
        float(column.effective(apparent_choice.threshold, label)[1][0]) / max(len(side), 1)
        for label, side in ((1, column.risky), (0, column.harmless))
    )
    gaps, thresholds = [], []
    for tp, fp in zip(risky, harmless, strict=True):
        place = _pick(rule, _sweep(cuts, tp, fp), risky_worth, harmless_worth)
        if place < 0:
            continue
        thresholds.append(float(cuts[place]))
        gaps.append(float(rule.objective(_sweep(cuts, tp, fp))[place] - here[place]))
    if 2 * len(gaps) < resamples:
        return Optimism(None, None, apparent, None, None, len(gaps), resamples - len(gaps))
    value = float(np.mean(gaps))
    return Optimism(
        value=value,
        interval=Interval(*map(float, np.quantile(gaps, [0.025, 0.975]))),
        apparent=apparent,
        corrected=apparent - value,
        thresholds=Interval(*map(float, np.quantile(thresholds, [0.025, 0.975]))),
        resamples=len(gaps),
        unfound=resamples - len(gaps),
    )


def slice_choices(
    labels: NDArray[np.int64],
    scores: Floats,
    values: NDArray[np.object_],
    units: NDArray[Any],
    rule: ThresholdRule,
    threshold: float,
    *,
    groups: NDArray[Any] | None = None,
    seed: int = 7,
) -> list[SliceChoice]:
    """Return the rule's own threshold for each slice, largest slice first.

    The own threshold is chosen on all rows of the slice. Whether it helps is tested honestly: one
    chosen on half of the slice against the common one, on the other half, by McNemar's exact test
    (over groups, where there are groups), adjusted over slices (Holm 1979).

    Args:
        labels: 1 for risky rows, 0 for harmless ones.
        scores: Risk of each row.
        values: Each row's slice.
        units: What stays together when a slice is halved; see `split`.
        rule: How a threshold is chosen.
        threshold: The common one.
        groups: Rows that belong together; `None` if rows are independent.
        seed: Of the halves.
    """
    drafts, p_values = [], []
    for value in sorted(set(values.tolist())):
        rows = values == value
        codes = None if groups is None else groups[rows]
        column = ScoreColumn.of(labels[rows], scores[rows], codes)
        chosen = split(units[rows], labels[rows], seed=seed)
        p_value = _halves_p_value(labels[rows], scores[rows], codes, chosen, rule, threshold)
        common, risky = column.at(threshold), len(column.risky)
        choice = rule.choose(column)
        drafts.append(
            SliceChoice(str(value), risky, column.n - risky, choice, common, p_value, False)
        )
        p_values.append(p_value)
    slices = [
        replace(draft, p_value=p_value, is_decided=p_value < 0.05)
        for draft, p_value in zip(drafts, holm(p_values).tolist(), strict=True)
    ]
    return sorted(slices, key=lambda item: -(item.risky + item.harmless))


def _halves_p_value(
    labels: NDArray[np.int64],
    scores: Floats,
    groups: NDArray[Any] | None,
    chosen: NDArray[np.bool_],
    rule: ThresholdRule,
    threshold: float,
) -> float:
    """Return the p-value of a threshold chosen on the `chosen` rows, on the others."""
    codes = None if groups is None else groups[chosen]
    own = rule.choose(ScoreColumn.of(labels[chosen], scores[chosen], codes)).threshold
    if own is None:
        return 1.0
    truth, risk = labels[~chosen] == 1, scores[~chosen]
    by_own, by_common = (risk >= own) == truth, (risk >= threshold) == truth
    codes = None
    if groups is not None:
        codes = np.unique(groups[~chosen], return_inverse=True)[1].reshape(-1)
    return pair_p_value(by_common, by_own, codes)


def _drawn_counts(
    column: ScoreColumn, cuts: Floats, resamples: int, seed: int
) -> tuple[Floats, Floats]:
    """Return how many risky and harmless rows of each resample reach each cut.

    Both of shape (resamples, cuts + 1); the last column counts all rows.
    """
    # Bin b holds the rows whose highest reached cut is b; the last bin reaches none.
    bins = [
        len(cuts) - np.searchsorted(cuts[::-1], side, side="right")
        for side in (column.risky, column.harmless)
    ]
    width = len(cuts) + 1
    cell = np.concatenate((bins[0], bins[1] + width))
    drawn = column.resamples(resamples, seed).cells(cell, 2 * width)
    return np.cumsum(drawn[:, :width], axis=1), np.cumsum(drawn[:, width:], axis=1)


def _sweep(cuts: Floats, risky: Floats, harmless: Floats) -> ThresholdSweep:
    tp, fp = risky[:-1].astype(np.int64), harmless[:-1].astype(np.int64)
    return ThresholdSweep(tp, fp, int(risky[-1]) - tp, int(harmless[-1]) - fp, cuts)


def _pick(
    rule: ThresholdRule, sweep: ThresholdSweep, risky_worth: float, harmless_worth: float
) -> int:
    """Return the place of the cut that the rule would choose on these counts, -1 for none."""
    if rule.kind in {"f1", "balanced_accuracy", "cost"}:
        values = rule.objective(sweep)
        place = int(np.argmax(values))
        return -1 if rule.kind == "cost" and values[place] <= 0 else place
    fits = _fits(rule, sweep, risky_worth, harmless_worth)
    if not fits.any():
        return -1
    # Recall and FPR rise together from cut to cut.
    places = np.flatnonzero(fits)
    return int(places[0] if rule.kind == "recall" else places[-1])


def _fits(
    rule: ThresholdRule, sweep: ThresholdSweep, risky_worth: float, harmless_worth: float
) -> NDArray[np.bool_]:
    fp, harmless = harmless_worth * sweep.fp, harmless_worth * (sweep.fp + sweep.tn)
    tp, risky = risky_worth * sweep.tp, risky_worth * (sweep.tp + sweep.fn)
    if rule.kind == "fpr":
        upper = clopper_pearson_bounds(fp, harmless, rule.confidence, "upper")[1]
        return np.asarray(upper <= rule.limit)
    if rule.kind == "recall":
        lower = clopper_pearson_bounds(tp, risky, rule.confidence, "lower")[0]
        return np.asarray(lower >= rule.limit)
    each = (1 + rule.confidence) / 2
    recall = clopper_pearson_bounds(tp, risky, each, "lower")[0]
    fpr = clopper_pearson_bounds(fp, harmless, each, "upper")[1]
    flagged = rule.prevalence * recall + (1 - rule.prevalence) * fpr
    precision = np.divide(
        rule.prevalence * recall, flagged, out=np.zeros_like(flagged), where=flagged > 0
    )
    return np.asarray(precision >= rule.limit)

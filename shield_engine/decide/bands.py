"""What decisions cost: hybrid bands over a grid, from stored scores, and a day of traffic.

At or above the upper band the heuristic decides, at or below the lower one too, and so it does
where no rule matched and the linear tier is sure; elsewhere the model does. Counts of the
stretches add up, so a grid costs as many passes over the rows as it has bands, not pairs of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shield_engine.config import SAFE_BAND, Bands
from shield_engine.errors import ConfigError
from shield_engine.statistics import Figure

if TYPE_CHECKING:
    from shield_engine.decide.views import ModeView
    from shield_engine.statistics.arrays import Floats, Ints, Mask
    from shield_engine.store import Scores


_PASSED = -1.0  # below every score of the rules

__all__ = ["BandPoint", "Day", "Traffic", "day_of", "default_grid", "sweep_bands"]


@dataclass(frozen=True, slots=True)
class BandPoint:
    """Hybrid at one pair of bands.

    Attributes:
        bands: The pair.
        tp: Risky rows flagged.
        fp: Harmless rows flagged.
        fn: Risky rows let through.
        tn: Harmless rows let through.
        asked: Share of all scored rows that the model is asked for, labelled or not.
        lost: Risky rows that the model alone would flag and hybrid does not.
        won: Risky rows that hybrid flags and the model alone does not.
        mean_ms: Mean of heuristic time plus model time where asked; `None` without timed rows.
    """

    bands: Bands
    tp: int
    fp: int
    fn: int
    tn: int
    asked: float
    lost: int
    won: int
    mean_ms: float | None

    @property
    def recall(self) -> float | None:
        """Share of risky rows flagged; `None` without risky rows."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def fpr(self) -> float | None:
        """Share of harmless rows flagged; `None` without harmless rows."""
        return self.fp / (self.fp + self.tn) if self.fp + self.tn else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; `None` if nothing is risky or flagged."""
        below = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / below if below else None

    @property
    def recall_lost(self) -> float | None:
        """Recall of the model alone minus that of hybrid; negative if the rules find more."""
        risky = self.tp + self.fn
        return (self.lost - self.won) / risky if risky else None

    def cost(
        self, *, miss: float, false_alarm: float, prevalence: float, per_call: float
    ) -> float | None:
        """Return what a text of traffic costs on average; `None` without both classes.

        p x miss x (1 - recall) + (1 - p) x false alarm x FPR + per call x share asked.
        """
        if self.recall is None or self.fpr is None:
            return None
        mistakes = prevalence * miss * (1 - self.recall)
        mistakes += (1 - prevalence) * false_alarm * self.fpr
        return mistakes + per_call * self.asked


def default_grid(
    heuristic_risk: Floats, points: int = 12
) -> tuple[list[float], list[float | None]]:
    """Return upper and lower bands worth trying: scores that the rules really give.

    Uppers run from .5 to 1; lowers from off to below .5. Above `points` distinct scores, quantiles
    stand for them.
    """
    seen = np.unique(np.round(heuristic_risk[~np.isnan(heuristic_risk)], 4))

    def chosen(values: Floats) -> list[float]:
        if len(values) > points:
            values = np.unique(np.quantile(values, np.linspace(0, 1, points), method="nearest"))
        return [float(value) for value in values]

    uppers = chosen(np.unique(np.concatenate((seen[seen >= 0.5], [0.9, 1.0]))))
    return uppers, [None, *chosen(seen[seen < 0.5])]


def sweep_bands(
    scores: Scores,
    view: ModeView,
    threshold: float,
    uppers: Sequence[float],
    lowers: Sequence[float | None],
    safe: float | None = SAFE_BAND,
) -> list[BandPoint]:
    """Return hybrid at every pair of bands whose lower one is below the upper, in grid order.

    Rows count where both parts have a score. Equal to deriving hybrid anew at each pair.

    Args:
        scores: What a run of both parts stored, two classes.
        view: Any mode's view of those rows: says what is risky.
        threshold: Turns the deciding part's risk into a verdict.
        uppers: Upper bands.
        lowers: Lower bands; `None` is off.
        safe: Band of the linear tier at every pair; `None` is off.

    Raises:
        ConfigError: A part is missing, or the set has three classes.
    """
    if scores.heuristic is None or scores.model is None or view.risk is None:
        raise ConfigError("hybrid bands need the scores of both parts and two classes")
    if scores.heuristic.shape[1] != 2:
        raise ConfigError(
            "hybrid bands are swept for two classes; sentiment's compare VADER's three"
        )
    rows = ~np.isnan(scores.heuristic[:, 1]) & ~np.isnan(scores.model[:, 1])
    heuristic, model = scores.heuristic[rows, 1], scores.model[rows, 1]
    rules_ms, model_ms = scores.tiers_ms[rows], scores.model_ms[rows]
    is_timed = ~np.isnan(rules_ms) & ~np.isnan(model_ms)
    columns = _columns(view.labels[rows], heuristic >= threshold, model >= threshold)
    columns = np.column_stack((columns, np.where(is_timed, model_ms, 0.0)))
    if safe is not None and scores.linear is not None:
        # What the tier lets pass ends below every lower band.
        passes = (heuristic <= 0) & (scores.linear[rows] <= safe)
        heuristic = np.where(passes, _PASSED, heuristic)
    order = np.argsort(heuristic, kind="stable")
    ordered = heuristic[order]
    sums = np.vstack((np.zeros(columns.shape[1]), np.cumsum(columns[order], axis=0)))
    time = float(rules_ms[is_timed].sum()), float(is_timed.sum())
    points = []
    for upper in uppers:
        above = sums[-1] - sums[np.searchsorted(ordered, upper, side="left")]
        for lower in lowers:
            if lower is not None and lower >= upper:
                continue
            limit = _PASSED if lower is None else lower
            ended = above + sums[np.searchsorted(ordered, limit, side="right")]
            points.append(_point(Bands(upper, lower, safe), ended, sums[-1], time))
    return points


def _columns(labels: Ints, by_rules: Mask, by_model: Mask) -> Floats:
    """Return what each row adds to the counts of `_point`, shape (rows, 9)."""
    risky, harmless = labels == 1, labels == 0
    columns = (
        np.ones(len(labels)),
        risky & by_rules,
        harmless & by_rules,
        risky & by_model,
        harmless & by_model,
        risky & by_model & ~by_rules,
        risky & by_rules & ~by_model,
        risky,
        harmless,
    )
    return np.column_stack(columns).astype(np.float64)


def _point(bands: Bands, ended: Floats, total: Floats, time: tuple[float, float]) -> BandPoint:
    """Return hybrid at a pair of bands.

    Args:
        bands: The pair.
        ended: Sums of `_columns`, and of the model's milliseconds, of rows that rules decide.
        total: The same of all rows.
        time: Milliseconds of the rules on timed rows, and how many rows are timed.
    """
    asked, (rules_ms, timed) = total - ended, time
    tp, fp = int(ended[1] + asked[3]), int(ended[2] + asked[4])
    return BandPoint(
        bands=bands,
        tp=tp,
        fp=fp,
        fn=int(total[7]) - tp,
        tn=int(total[8]) - fp,
        asked=float(asked[0] / total[0]) if total[0] else 0.0,
        lost=int(ended[5]),
        won=int(ended[6]),
        mean_ms=(rules_ms + float(asked[9])) / timed if timed else None,
    )


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes in, and what a flagged text costs.

    Attributes:
        texts_per_day: How many texts are scanned.
        prevalence: Share of them that is risky; the dataset's own share says nothing of traffic.
        review_minutes: Minutes a person spends on a flagged text.
    """

    texts_per_day: float = 100_000
    prevalence: float = 0.01
    review_minutes: float = 2.0

    def __post_init__(self) -> None:
        if self.texts_per_day < 0 or self.review_minutes < 0 or not 0 <= self.prevalence <= 1:
            raise ConfigError(
                "traffic needs texts and minutes of at least 0 and a share of risky texts in 0..1"
            )


@dataclass(frozen=True, slots=True)
class Day:
    """A day of traffic at one threshold; ends of each figure come from those of the rates.

    Attributes:
        missed: Risky texts let through.
        caught: Risky texts flagged.
        false_alarms: Harmless texts flagged.
        flagged: All texts flagged.
        review_hours: Time to look at all flagged texts.
        precision: Share of flagged texts that are risky, at this prevalence.
    """

    missed: Figure
    caught: Figure
    false_alarms: Figure
    flagged: Figure
    review_hours: Figure
    precision: Figure


def day_of(recall: Figure, fpr: Figure, traffic: Traffic) -> Day:
    """Return what a day brings at these rates.

    Ranges take both rates at their worst and best ends together, so they are wide rather than
    narrow. Precision at prevalence p is p R / (p R + (1 - p) F) (Bayes).
    """
    risky = traffic.texts_per_day * traffic.prevalence
    harmless = traffic.texts_per_day - risky
    caught = _scaled(recall, risky)
    value, high, low = (
        None if x is None else risky - x for x in (caught.value, caught.low, caught.high)
    )
    alarms = _scaled(fpr, harmless)
    flagged = Figure(
        _sum(caught.value, alarms.value),
        _sum(caught.low, alarms.low),
        _sum(caught.high, alarms.high),
    )
    return Day(
        missed=Figure(value, low, high),
        caught=caught,
        false_alarms=alarms,
        flagged=flagged,
        review_hours=flagged.scaled(traffic.review_minutes / 60),
        precision=Figure(
            _share(caught.value, alarms.value),
            _share(caught.low, alarms.high),
            _share(caught.high, alarms.low),
        ),
    )


def _scaled(rate: Figure, texts: float) -> Figure:
    """Return a rate of so many texts; a class without rows leaves it unknown, unless none comes."""
    return rate.scaled(texts) if texts else Figure(0.0, 0.0, 0.0)


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


def _share(part: float | None, rest: float | None) -> float | None:
    if part is None or rest is None or part + rest == 0:
        return None
    return part / (part + rest)

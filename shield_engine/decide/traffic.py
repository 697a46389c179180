"""Rates of a dataset as what a day of traffic brings: misses, false alarms, hours of review."""

from __future__ import annotations

from dataclasses import dataclass

from shield_engine.errors import ConfigError
from shield_engine.statistics import Figure

__all__ = ["Day", "Traffic", "day_of"]


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

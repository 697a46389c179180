"""A requirement's limit against a figure's bound: met, missed, or what would settle it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shield_engine.gates.document import Requirement, shown
from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import rows_for_percentile, tango_bounds
from shield_engine.statistics.tests import required_negatives, rows_for_scaled

__all__ = ["Claim"]

_MOST_SCALE = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Claim:
    """What is required of a figure with one-sided bounds."""

    requirement: Requirement
    figure: Figure

    @property
    def is_upper(self) -> bool:
        """True if the upper bound must not lie above the limit."""
        asked = self.requirement
        if asked.at_least is None and asked.at_most is None:
            return not asked.kind.is_better_high
        return asked.at_least is None

    @property
    def limit(self) -> float:
        """What a bound must clear, in the unit of the figure."""
        asked = self.requirement
        if asked.at_least is not None:
            return asked.at_least
        if asked.at_most is not None:
            return asked.at_most
        return asked.by_more_than if self.is_upper else -asked.by_more_than

    @property
    def is_met(self) -> bool:
        """True if the bound clears the limit."""
        return self._clears(*self._ends)

    @property
    def is_missed(self) -> bool:
        """True if the other bound is clearly beyond the limit."""
        low, high = self._ends
        return low > self.limit if self.is_upper else high < self.limit

    @property
    def _ends(self) -> tuple[float, float]:
        low, high = self.figure.low, self.figure.high
        return -math.inf if low is None else low, math.inf if high is None else high

    def _clears(self, low: float, high: float) -> bool:
        return high <= self.limit if self.is_upper else low >= self.limit

    def numbers(self, *, is_failed: bool = False) -> str:
        """Return the figure, the bound that decides and the limit in a sentence."""
        says = self.requirement.text
        asked = f"asked is {'at most' if self.is_upper else 'at least'} {says(self.limit)}"
        shows_upper = self.is_upper != is_failed
        bound = self.figure.high if shows_upper else self.figure.low
        text = f"{says(self.figure.value)} on {self.figure.n:,} {self.requirement.kind.rows}"
        if bound is None:
            return f"{text}; no bound, {asked}"
        side = "at most" if shows_upper else "at least"
        confidence = f"{100 * self.requirement.confidence:g}% confidence"
        return f"{text}; at {confidence} {side} {says(bound)}, {asked}"

    def advice(self, value: float) -> tuple[int | None, str]:
        """Return how many more rows would settle it, and what to say of it.

        Args:
            value: Of the figure.
        """
        limit, figure, asked = self.limit, self.figure, self.requirement
        if (limit - value if self.is_upper else value - limit) < 0:
            return None, (
                "the observed figure is on the wrong side of the limit: more rows would sooner "
                "show a failure"
            )
        if figure.reason:
            return self._open_bound(figure.reason)
        if not asked.is_paired and asked.kind.is_proportion:
            if limit == (0.0 if self.is_upper else 1.0):
                return None, f"no number of rows can show exactly {shown(limit, 'share')}"
            target, seen = (limit, value) if self.is_upper else (1 - limit, 1 - value)
            needed = required_negatives(target, max(0.0, seen), asked.confidence)
            more = None if needed is None else self._more(needed)
        elif figure.differing is not None:
            more = self._tango_rows(value, figure.differing)
        else:
            more = rows_for_scaled(figure, limit, is_upper=self.is_upper)
        if more is None:
            return None, "the observed figure is at the limit: more rows alone will not settle it"
        more = max(1, more)
        rows = asked.kind.rows
        return more, f"about {more:,} more {rows} would settle it if the figure stays as observed"

    def _more(self, independent: float) -> int:
        """Return how many more rows make so many independent ones in all."""
        return math.ceil(independent * self.figure.n / self.figure.worth) - self.figure.n

    def _open_bound(self, reason: str) -> tuple[int | None, str]:
        asked = self.requirement
        if asked.kind.of == "latency" and self.figure.worth >= 1:
            share = float(asked.metric[1:-3]) / 100
            more = max(1, self._more(rows_for_percentile(share, asked.confidence)))
            return more, f"{reason}: {more:,} more {asked.kind.rows}"
        return None, reason

    def _tango_rows(self, difference: float, differing: float) -> int | None:
        """Return how many more rows would let Tango's bound clear the limit at the rates seen."""

        def clears(scale: float) -> bool:
            n = self.figure.worth * scale
            gained, lost = ((differing + sign * difference) * n / 2 for sign in (1, -1))
            return self._clears(*tango_bounds(gained, lost, n, self.requirement.confidence))

        top = 2.0
        while not clears(top):
            top *= 2
            if top > _MOST_SCALE:
                return None
        low = top / 2
        for _ in range(30):
            middle = (low + top) / 2
            low, top = (low, middle) if clears(middle) else (middle, top)
        return math.ceil(self.figure.n * top) - self.figure.n

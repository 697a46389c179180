"""A cascade as a guard: its stages are asked in order, a later one only where it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shield_engine.decision import stage_risk
from shield_engine.errors import ShieldError
from shield_engine.guards.entry import CascadeEntry, Reply

__all__ = ["Ask", "CascadeGuard"]

Ask = Callable[[str], tuple[float, float]]
"""Gives a text's risk and the milliseconds that took; raises a `ShieldError` where it fails."""


class CascadeGuard:
    """The guards of a chain, asked one after the other; as safe to share as they are."""

    def __init__(self, entry: CascadeEntry, asks: Sequence[Ask]) -> None:
        """Chain what scores each stage of `entry`; whoever made it ready also closes it."""
        self.entry = entry
        self._asks = tuple(asks)

    def ask(self, texts: Sequence[str]) -> Sequence[Reply]:
        """Return the reply of the stage that ends each text; a stage that fails is its error."""
        return [self._reply(text) for text in texts]

    def close(self) -> None:
        """Leave the stages open: others may ask them."""

    def _reply(self, text: str) -> Reply:
        spent, end = 0.0, len(self._asks) - 1
        for place, (stage, ask) in enumerate(zip(self.entry.stages, self._asks, strict=True)):
            try:
                risk, ms = ask(text)
            except ShieldError as error:
                return Reply(None, f"{stage.title}: {error}", spent)
            spent += ms
            if place < end:
                risk = float(stage_risk(stage, risk, self.entry.threshold))
            if risk == risk:  # noqa: PLR0124 - NaN asks the next stage
                break
        return Reply((1 - risk, risk), None, spent)

"""Gates: requirements as data, judged by stored scores as pass, fail or inconclusive."""

from shield_engine.gates.document import (
    BASELINE,
    Gate,
    Requirement,
    SliceFilter,
    parse_gate,
    read_gate,
    shown,
    write_gate,
)
from shield_engine.gates.judge import (
    GateOutcome,
    Judgement,
    Outcome,
    judge,
)

__all__ = [
    "BASELINE",
    "Gate",
    "GateOutcome",
    "Judgement",
    "Outcome",
    "Requirement",
    "SliceFilter",
    "judge",
    "parse_gate",
    "read_gate",
    "shown",
    "write_gate",
]

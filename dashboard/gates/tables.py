"""A gate's outcome as tables, and the text a new gate starts from. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from dashboard.text import visible
from shield_engine.gates import GateOutcome, Judgement, Outcome
from shield_engine.types import Task

__all__ = ["OUTCOME_CHIPS", "distances", "outcome_frame", "starter", "units"]

OUTCOME_CHIPS: Mapping[Outcome, tuple[str, str, str]] = {
    Outcome.PASS: (":material/check_circle:", "green", "✔"),
    Outcome.FAIL: (":material/cancel:", "red", "✘"),
    Outcome.INCONCLUSIVE: (":material/help:", "orange", "?"),
    Outcome.SKIPPED: (":material/remove_circle:", "gray", "–"),
}
"""Icon, colour and sign of each outcome; its word is always written beside them."""

_SCALES = {"share": 100.0, "number": 1.0, "ms": 1.0}

_BINARY = """\
# What must hold before this is released. Format: docs/ci-gates.md
format = 1
name = "release"

[[require]]
metric = "recall"
at_least = 0.90

[[require]]
metric = "fpr"
at_most = 0.05

[[require]]
metric = "p95_ms"
at_most = 100
"""

_THREE_CLASSES = """\
# What must hold before this is released. Format: docs/ci-gates.md
format = 1
name = "release"

[[require]]
metric = "accuracy"
at_least = 0.60

[[require]]
metric = "macro_f1"
at_least = 0.60

[[require]]
metric = "p95_ms"
at_most = 100
"""


def starter(task: Task) -> str:
    """Return the gate that an empty editor begins with."""
    return _THREE_CLASSES if task is Task.SENTIMENT else _BINARY


def outcome_frame(outcome: GateOutcome) -> pd.DataFrame:
    """Return one row a requirement: sign and word, numbers, and what would settle it."""
    return pd.DataFrame(
        [
            {
                "Outcome": f"{OUTCOME_CHIPS[row.outcome][2]} {row.outcome.value}",
                "Requirement": visible(row.requirement.title),
                "Figure": row.requirement.text(row.value),
                "At least": row.requirement.text(row.low),
                "At most": row.requirement.text(row.high),
                "Limit": _limit(row),
                "Rows": row.n,
                "What would settle it": visible(row.advice),
                "Numbers": visible(row.reason),
                "Judged": visible(row.subject),
                "Method": row.method,
            }
            for row in outcome.judgements
        ]
    )


def _limit(judgement: Judgement) -> str:
    if judgement.limit is None:
        return "-"
    return f"{'≤' if judgement.is_upper else '≥'} {judgement.requirement.text(judgement.limit)}"


def units(outcome: GateOutcome) -> list[str]:
    """Return the units that have something to draw, in a fixed order."""
    drawn = {
        row.requirement.kind.unit
        for row in outcome.judgements
        if row.value is not None and row.limit is not None
    }
    return [unit for unit in _SCALES if unit in drawn]


def distances(outcome: GateOutcome, unit: str) -> pd.DataFrame:
    """Return how far each figure and its bounds are from the limit, positive where it is kept.

    Shares are in points; a bound that does not exist is missing.
    """
    rows = []
    for row in outcome.judgements:
        if row.value is None or row.limit is None or row.requirement.kind.unit != unit:
            continue
        sign = _SCALES[unit] * (-1 if row.is_upper else 1)
        ends = [
            float("nan") if end is None else sign * (end - row.limit) for end in (row.low, row.high)
        ]
        rows.append(
            {
                "Requirement": visible(row.requirement.title),
                "Outcome": row.outcome.value,
                "Distance": sign * (row.value - row.limit),
                "Worst": min(ends),
                "Best": max(ends),
                "Numbers": visible(row.reason),
            }
        )
    return pd.DataFrame(rows)

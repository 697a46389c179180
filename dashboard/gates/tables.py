"""A gate's outcome as tables and charts, and the text a new gate starts from. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from dashboard.text import visible
from dashboard.theme import PALETTE, figure_of
from shield_engine.gates import GateOutcome, Judgement, Outcome, shown, shown_difference
from shield_engine.types import Task

__all__ = ["OUTCOME_CHIPS", "distance_chart", "distances", "outcome_frame", "starter", "units"]

OUTCOME_CHIPS: Mapping[Outcome, tuple[str, str, str]] = {
    Outcome.PASS: (":material/check_circle:", "green", "✔"),
    Outcome.FAIL: (":material/cancel:", "red", "✘"),
    Outcome.INCONCLUSIVE: (":material/help:", "orange", "?"),
    Outcome.SKIPPED: (":material/remove_circle:", "gray", "–"),
}
"""Icon, colour and sign of each outcome; its word is always written beside them."""

_COLORS = {
    Outcome.PASS: PALETTE["good"],
    Outcome.FAIL: PALETTE["bad"],
    Outcome.INCONCLUSIVE: PALETTE["heuristic"],
}
_MARKERS = {Outcome.PASS: "circle", Outcome.FAIL: "x", Outcome.INCONCLUSIVE: "diamond"}
_SCALES = {"share": 100.0, "number": 1.0, "ms": 1.0}
_AXES = {
    "share": "points from the limit; right of 0 keeps it",
    "number": "distance from the limit; right of 0 keeps it",
    "ms": "milliseconds from the limit; right of 0 keeps it",
}

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
                "Outcome": f"{OUTCOME_CHIPS[one.outcome][2]} {one.outcome.value}",
                "Requirement": visible(one.requirement.title),
                "Figure": _shown(one, one.value),
                "At least": _shown(one, one.low),
                "At most": _shown(one, one.high),
                "Limit": _limit(one),
                "Rows": one.n,
                "What would settle it": visible(one.advice),
                "Numbers": visible(one.reason),
                "Judged": visible(one.subject),
                "Method": one.method,
            }
            for one in outcome.judgements
        ]
    )


def _shown(one: Judgement, value: float | None) -> str:
    unit = one.requirement.kind.unit
    return (shown_difference if one.requirement.is_paired else shown)(value, unit)


def _limit(one: Judgement) -> str:
    if one.limit is None:
        return "-"
    return f"{'≤' if one.is_upper else '≥'} {_shown(one, one.limit)}"


def units(outcome: GateOutcome) -> list[str]:
    """Return the units that have something to draw, in a fixed order."""
    found = {one.requirement.kind.unit for one in outcome.judgements if _is_drawn(one)}
    return [unit for unit in _SCALES if unit in found]


def _is_drawn(one: Judgement) -> bool:
    return one.value is not None and one.limit is not None


def distances(outcome: GateOutcome, unit: str) -> pd.DataFrame:
    """Return how far each figure and its bounds are from the limit, positive where it is kept.

    Shares are in points; a bound that does not exist is missing.
    """
    rows = []
    for one in outcome.judgements:
        if not _is_drawn(one) or one.requirement.kind.unit != unit:
            continue
        assert one.value is not None and one.limit is not None  # noqa: S101, PT018 - just asked
        ends = [_SCALES[unit] * _side(one, value) for value in (one.low, one.high)]
        rows.append(
            {
                "Requirement": visible(one.requirement.title),
                "Outcome": one.outcome.value,
                "Distance": _SCALES[unit] * _side(one, one.value),
                "Worst": min(ends),
                "Best": max(ends),
                "Numbers": visible(one.reason),
            }
        )
    return pd.DataFrame(rows)


def _side(one: Judgement, value: float | None) -> float:
    if value is None or one.limit is None:
        return float("nan")
    return one.limit - value if one.is_upper else value - one.limit


def distance_chart(frame: pd.DataFrame, unit: str) -> go.Figure:
    """Return each requirement's figure and bounds against its limit at 0."""
    traces = []
    for outcome in (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL):
        rows = frame[frame["Outcome"] == outcome.value]
        if not len(rows):
            continue
        value = rows["Distance"]
        traces.append(
            go.Scatter(
                x=value, y=[_row(place) for place in rows.index], mode="markers", name=outcome.value,
                marker={"color": _COLORS[outcome], "symbol": _MARKERS[outcome], "size": 11},
                error_x={
                    "type": "data", "symmetric": False, "thickness": 2, "width": 6,
                    "array": (rows["Best"] - value).fillna(0),
                    "arrayminus": (value - rows["Worst"]).fillna(0),
                },
                customdata=[[_wrapped(title), _wrapped(numbers)] for title, numbers in
                            zip(rows["Requirement"], rows["Numbers"], strict=True)],
                hovertemplate="%{customdata[0]}<br>%{customdata[1]}<extra></extra>",
            )
        )  # fmt: skip
    figure = figure_of(
        *traces,
        height=110 + 42 * len(frame),
        showlegend=True,
        xaxis={"title": _AXES[unit], "zeroline": False},
        yaxis={
            "tickvals": [_row(place) for place in frame.index],
            "ticktext": [_wrapped(title, 34) for title in frame["Requirement"]],
            "autorange": "reversed",
            "zeroline": False,
        },
    )
    figure.add_vline(
        x=0, line={"color": PALETTE["muted"], "width": 2},
        annotation={"text": "limit", "font": {"size": 11}},
    )  # fmt: skip
    return figure


def _row(place: int) -> int:
    return int(place)


def _wrapped(text: str, width: int = 70) -> str:
    """Return a text for a chart: its marks disarmed, broken into lines."""
    lines: list[str] = []
    words: Sequence[str] = text.split()
    for word in words:
        if lines and len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    escaped = (
        line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in lines
    )
    return "<br>".join(escaped)

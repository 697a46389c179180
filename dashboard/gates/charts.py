"""How far each requirement of a gate is from its limit, as a chart. Pure."""

from __future__ import annotations

import textwrap

import pandas as pd
import plotly.graph_objects as go

from dashboard.text import label
from dashboard.theme import PALETTE, figure_of
from shield_engine.gates import Outcome

__all__ = ["distance_chart"]

_MARKS = {
    Outcome.PASS: ("good", "circle"),
    Outcome.INCONCLUSIVE: ("heuristic", "diamond"),
    Outcome.FAIL: ("bad", "x"),
}
"""Colour and marker of each outcome, so that none depends on colour alone."""
_AXES = {
    "share": "points from the limit; right of 0 keeps it",
    "number": "distance from the limit; right of 0 keeps it",
    "ms": "milliseconds from the limit; right of 0 keeps it",
}


def distance_chart(frame: pd.DataFrame, unit: str) -> go.Figure:
    """Return each requirement's figure and bounds against its limit at 0."""
    traces = []
    for outcome, (color, symbol) in _MARKS.items():
        rows = frame[frame["Outcome"] == outcome.value]
        if not len(rows):
            continue
        value = rows["Distance"]
        texts = zip(rows["Requirement"], rows["Numbers"], strict=True)
        traces.append(
            go.Scatter(
                x=value,
                y=[int(place) for place in rows.index],
                mode="markers",
                name=outcome.value,
                marker={"color": PALETTE[color], "symbol": symbol, "size": 11},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 2,
                    "width": 6,
                    "array": (rows["Best"] - value).fillna(0),
                    "arrayminus": (value - rows["Worst"]).fillna(0),
                },
                customdata=[[_wrapped(title), _wrapped(numbers)] for title, numbers in texts],
                hovertemplate="%{customdata[0]}<br>%{customdata[1]}<extra></extra>",
            )
        )
    figure = figure_of(
        *traces,
        height=110 + 42 * len(frame),
        showlegend=True,
        xaxis={"title": _AXES[unit], "zeroline": False},
        yaxis={
            "tickvals": [int(place) for place in frame.index],
            "ticktext": [_wrapped(title, 34) for title in frame["Requirement"]],
            "autorange": "reversed",
            "zeroline": False,
        },
    )
    line, font = {"color": PALETTE["muted"], "width": 2}, {"size": 11}
    figure.add_vline(x=0, line=line, annotation={"text": "limit", "font": font})
    return figure


def _wrapped(text: str, width: int = 70) -> str:
    """Return a text for a chart: its marks disarmed, broken into lines."""
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return "<br>".join(label(line) for line in lines)

"""Data to figures: pure functions, one palette, readable in light and dark and without colour.

Every mode has a colour, a dash and a marker of its own, so no chart depends on colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.text import label
from shield_engine.metrics.table import METRICS
from shield_engine.statistics import Figure

__all__ = [
    "PALETTE",
    "Look",
    "confusion_heatmap",
    "figure_of",
    "interval_dots",
    "line",
    "log_axis",
    "looks",
    "mark",
    "names_axis",
    "rate_title",
]

PALETTE: Mapping[str, str] = {
    "heuristic": "#E08700",
    "ml": "#2F8FD0",
    "hybrid": "#12A07A",
    "both": "#B765B0",
    "good": "#12A07A",
    "bad": "#D6584B",
    "muted": "#8A94A3",
}
"""Hues that stay apart under the common colour-vision deficiencies, mid-toned for both themes."""


def rate_title(name: str) -> str:
    """Return what an axis of a rate shows, as "recall, % of risky rows"."""
    words = "false positive rate" if name == "fpr" else name
    return f"{words}, % of {METRICS[name].rows}"


@dataclass(frozen=True, slots=True)
class Look:
    """How a candidate is drawn."""

    color: str
    dash: str
    marker: str


_MODE_LOOKS = {
    "mode:heuristic": Look(PALETTE["heuristic"], "dot", "triangle-up"),
    "mode:ml": Look(PALETTE["ml"], "solid", "circle"),
    "mode:hybrid": Look(PALETTE["hybrid"], "dash", "diamond"),
    "mode:both": Look(PALETTE["both"], "dashdot", "square"),
}
_OTHER_LOOKS = (
    Look("#B79F00", "longdash", "star"),
    Look("#D6584B", "longdashdot", "cross"),
    Look("#6F7BD0", "4px 2px", "pentagon"),
    Look("#8A94A3", "8px 2px 2px 2px", "triangle-down"),
    Look("#A0673B", "12px 4px", "hexagon"),
)


def looks(keys: Sequence[str]) -> list[Look]:
    """Return a look for each option key: modes keep theirs, others take what is free."""
    free = iter(
        look
        for look in (*_OTHER_LOOKS, *_MODE_LOOKS.values())
        if look not in {_MODE_LOOKS.get(key) for key in keys}
    )
    return [_MODE_LOOKS[key] if key in _MODE_LOOKS else next(free) for key in keys]


# --- figures and axes -----------------------------------------------------------------------


def figure_of(*traces: Any, height: int = 360, **layout: Any) -> go.Figure:
    """Return a figure in the house style: transparent, tight, legend above the plot."""
    figure = go.Figure(list(traces))
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        **layout,
    )
    return figure


def names_axis(names: Sequence[str]) -> dict[str, Any]:
    """Return a vertical axis that names whole numbers from the top, 0 first."""
    return {
        "tickvals": list(range(len(names))),
        "ticktext": list(names),
        "range": [len(names) - 0.5, -0.5],
        "zeroline": False,
    }


def log_axis(values: Sequence[float]) -> dict[str, Any]:
    """Return a logarithmic axis with ticks at 1, 2 and 5, which Plotly would write as "2" and "5"."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive) / 1.6, max(positive) * 1.6
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    return {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [f"{tick:,.10g}" for tick in ticks],
    }


# --- what is drawn --------------------------------------------------------------------------


def line(name: str, look: Look, x: Any, y: Any, hover: str, custom: Any = None) -> go.Scatter:
    """Return a curve in a candidate's look.

    Args:
        name: As given; it is made safe here, and stands before the hover text.
        look: Colour and dash.
        x: One place a point.
        y: As many.
        hover: What hover text says of a point.
        custom: What the hover text names besides.
    """
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=label(name),
        line={"color": look.color, "dash": look.dash, "width": 2},
        customdata=custom,
        hovertemplate=f"{label(name)}: {hover}<extra></extra>",
    )


def mark(look: Look, x: Any, y: Any, hover: str, size: int = 11, **more: Any) -> go.Scatter:
    """Return points that stand out on a curve, in a candidate's look."""
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        marker={
            "color": look.color,
            "symbol": look.marker,
            "size": size,
            "line": {"width": 1.5, "color": "white"},
        },
        hovertemplate=f"{hover}<extra></extra>",
        **more,
    )


def interval_dots(
    name: str,
    figures: Sequence[tuple[float, Figure]],
    *,
    marker: Mapping[str, Any],
    thickness: float,
    hover: str,
    custom: Sequence[Sequence[object]],
) -> go.Scatter:
    """Return shares as dots in percent, each with its interval as a line.

    Args:
        name: As given; it is made safe here, and stands before the hover text.
        figures: Height and share of each dot; each share has a value.
        marker: Colour, symbol and size.
        thickness: Of the lines.
        hover: What hover text says of a dot.
        custom: What the hover text names, one sequence a dot.
    """
    points = [
        [100 * (end if end is not None else figure.value or 0.0) for end in ends]
        for _, figure in figures
        for ends in [(figure.value, figure.low, figure.high)]
    ]
    return go.Scatter(
        x=[value for value, _, _ in points],
        y=[height for height, _ in figures],
        mode="markers",
        name=label(name),
        marker=dict(marker),
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [high - value for value, _, high in points],
            "arrayminus": [value - low for value, low, _ in points],
            "thickness": thickness,
        },
        customdata=list(custom),
        hovertemplate=f"{label(name)}{hover}<extra></extra>",
    )


def confusion_heatmap(counts: Any, labels: Sequence[str], height: int = 260) -> go.Figure:
    """Return a confusion matrix, coloured by share of its row, with the counts written in."""
    counts = np.asarray(counts)
    sums = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, sums, out=np.zeros(counts.shape), where=sums > 0)
    written = [
        [f"{count:,}<br>{share:.1%}" for count, share in zip(row, part, strict=True)]
        for row, part in zip(counts, shares, strict=True)
    ]
    return figure_of(
        go.Heatmap(
            z=100 * shares,
            x=list(labels),
            y=list(labels),
            text=written,
            texttemplate="%{text}",
            zmin=0,
            zmax=100,
            showscale=False,
            # Opaque colours, so that the written counts keep their contrast in either theme.
            colorscale=[[0, "#E6EFF8"], [0.5, "#7FB3DE"], [1, "#17568F"]],
            hovertemplate="is %{y}, said %{x}: %{text}<extra></extra>",
        ),
        height=height,
        xaxis={"title": "what the mode said"},
        yaxis={"title": "what it is", "autorange": "reversed"},
    )

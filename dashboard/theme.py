"""Data to figures: pure functions, one palette, readable in light and dark and without colour.

Every mode has a colour, a dash and a marker of its own, so no chart depends on colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

__all__ = [
    "PALETTE",
    "confusion_heatmap",
    "figure_of",
    "names_axis",
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

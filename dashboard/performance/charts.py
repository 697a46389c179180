"""Charts of benchmarks: figures with their targets, whole distributions, and what changed. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboard.performance.tables import (
    ChartGroup,
    Document,
    Measured,
    distributions,
    interval_text,
    line_and_series,
    targets_of,
)
from dashboard.text import label
from dashboard.theme import PALETTE, figure_of
from shield_engine.benchmark import number

__all__ = ["comparison_chart", "distributions_chart", "figures_chart"]

_MARKS = {
    "p50": ("ml", "circle"),
    "p95": ("heuristic", "diamond"),
    "p99": ("both", "triangle-up"),
    "value": ("ml", "circle"),
}
"""Colour and marker of each series, so that no chart depends on colour alone."""


def figures_chart(document: Document, group: ChartGroup) -> go.Figure:
    """Return a group's figures as dots with intervals, over the reference's target bands."""
    lines: list[str] = []
    series: dict[str, list[tuple[int, Measured]]] = {}
    bands: dict[int, Mapping[str, Any]] = {}
    targets = targets_of(document)
    for figure in group.figures:
        line, name = line_and_series(figure)
        if line not in lines:
            lines.append(line)
        series.setdefault(name, []).append((lines.index(line), figure))
        target = targets.get(figure.get("target") or "")
        if target is not None and target["unit"] == group.unit and target["target"] > 0:
            bands.setdefault(lines.index(line), target)
    ends = [figure["value"] for figure in group.figures]
    ends += [figure.get(end) for figure in group.figures for end in ("low", "high")]
    ends += [band.get(end) for band in bands.values() for end in ("target", "acceptable")]
    drawn = [end for end in ends if end is not None and end > 0]
    left, right = min(drawn) / 1.6, max(drawn) * 1.6
    ticks = _ticks(left, right)
    better = group.figures[0].get("better", "lower")
    return figure_of(
        *_bands(bands, left, right),
        *(_dots(name, points, group.unit, left) for name, points in series.items()),
        height=110 + 34 * len(lines),
        xaxis={
            "title": f"{label(group.unit)} (logarithmic), {label(better)} is better",
            "type": "log",
            "range": [math.log10(left), math.log10(right)],
            "tickvals": ticks,
            "ticktext": [_tick(value) for value in ticks],
        },
        yaxis=_named_lines(lines),
    )


def _named_lines(names: Sequence[str]) -> dict[str, Any]:
    """Return an axis with a line for each name, the first one on top."""
    return {
        "tickvals": list(range(len(names))),
        "ticktext": list(names),
        "range": [len(names) - 0.4, -0.6],
        "zeroline": False,
        "showgrid": False,
        "automargin": True,
    }


def _dots(name: str, points: Sequence[tuple[int, Measured]], unit: str, left: float) -> go.Scatter:
    color, symbol = _MARKS[name]
    figures = [figure for _, figure in points]
    # An interval that reaches 0 is drawn to the axis' end: a logarithm has no 0. An open end
    # gets no line.
    above = [(figure.get("high") or figure["value"]) - figure["value"] for figure in figures]
    below = [
        0.0 if figure.get("low") is None else figure["value"] - max(figure["low"], left)
        for figure in figures
    ]
    shown = "measured" if name == "value" else f"{name}, measured"
    return go.Scatter(
        x=[figure["value"] for figure in figures],
        y=[line for line, _ in points],
        mode="markers",
        name=shown,
        marker={"color": PALETTE[color], "symbol": symbol, "size": 10},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, length) for length in above],
            "arrayminus": [max(0.0, length) for length in below],
            "thickness": 1.5,
        },
        customdata=[
            [label(figure["name"]), number(figure["value"]), interval_text(figure), figure.get("n")]
            for figure in figures
        ],
        hovertemplate=(
            f"%{{customdata[0]}}: %{{customdata[1]}} {label(unit)}<br>"
            "95% interval %{customdata[2]}, n = %{customdata[3]:,}<extra></extra>"
        ),
    )


def _bands(bands: Mapping[int, Mapping[str, Any]], left: float, right: float) -> list[go.Scatter]:
    """Return thick, pale lines behind the dots: where the reference wanted to be."""
    traces = []
    for name, color, opacity, ends in (
        ("target, not measured", "good", 0.28, _target_ends),
        ("acceptable, not measured", "muted", 0.25, _acceptable_ends),
    ):
        x: list[float | None] = []
        y: list[float | None] = []
        for row, band in bands.items():
            span = ends(band, left, right)
            if span is not None:
                x += [*span, None]
                y += [row, row, None]
        if x:
            traces.append(
                go.Scatter(
                    x=x,
                    y=y,
                    mode="lines",
                    name=name,
                    opacity=opacity,
                    line={"color": PALETTE[color], "width": 18},
                    hoverinfo="skip",
                )
            )
    return traces


def _target_ends(band: Mapping[str, Any], left: float, right: float) -> tuple[float, float] | None:
    is_lower = band["better"] == "lower"
    return (left, band["target"]) if is_lower else (band["target"], right)


def _acceptable_ends(
    band: Mapping[str, Any], left: float, right: float
) -> tuple[float, float] | None:
    if not band.get("acceptable"):
        return None
    low, high = sorted((band["target"], band["acceptable"]))
    return low, high


def _ticks(left: float, right: float) -> list[float]:
    """Return the powers of ten of an axis, with 2 and 5 between them on a short one."""
    digits = (1, 2, 5) if right / left < 1e3 else (1,)
    powers = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    values = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return [value for value in values if left <= value <= right]


def _tick(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:.12f}".rstrip("0")


def distributions_chart(document: Document) -> go.Figure:
    """Draw the share of texts done within a time, a line a mode: misses full, hits dotted."""
    traces = []
    colors = ("heuristic", "ml", "hybrid", "both")
    for name, steps in distributions(document).items():
        mode, _, outcome = name.partition(", ")
        traces.append(
            go.Scatter(
                x=steps,
                y=[100 * place / (len(steps) - 1) for place in range(len(steps))],
                name=name,
                mode="lines",
                line={
                    "color": PALETTE[mode if mode in colors else "muted"],
                    "dash": "dot" if outcome == "hit" else "solid",
                    "shape": "hv",
                },
                hovertemplate="%{y:.0f}% within %{x:.3g} ms",
            )
        )
    return figure_of(
        *traces,
        xaxis={"title": "ms (logarithmic), left is better", "type": "log"},
        yaxis={"title": "% of texts", "range": [0, 101]},
    )


def comparison_chart(frame: pd.DataFrame, limit: int = 30) -> go.Figure | None:
    """Return the figures whose intervals part, as times better or worse; `None` if there are none.

    Args:
        frame: From `comparison_frame`.
        limit: The largest changes to draw.
    """
    parted = frame[(frame["Verdict"] != "not decisive") & (frame["Times better"] > 0)]
    if parted.empty:
        return None
    size = parted["Times better"].map(lambda gain: abs(math.log(gain)))
    parted = parted.loc[size.sort_values(ascending=False).index[:limit]]
    names = [label(name) for name in parted["Figure"]]
    traces = []
    for verdict, color, symbol in (("better", "good", "triangle-up"), ("worse", "bad", "x")):
        places = [place for place, word in enumerate(parted["Verdict"]) if word == verdict]
        if places:
            traces.append(
                go.Scatter(
                    x=[float(parted["Times better"].iloc[place]) for place in places],
                    y=places,
                    mode="markers",
                    name=verdict,
                    marker={"color": PALETTE[color], "symbol": symbol, "size": 10},
                    customdata=[names[place] for place in places],
                    hovertemplate="%{customdata}: %{x:.2f} times<extra></extra>",
                )
            )
    figure = figure_of(
        *traces,
        height=110 + 24 * len(names),
        xaxis={"title": "times better (right of 1) or worse (left), logarithmic", "type": "log"},
        yaxis=_named_lines(names),
    )
    figure.add_vline(x=1, line={"color": PALETTE["muted"], "width": 1.5})
    return figure

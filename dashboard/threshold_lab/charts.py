"""Charts of the Threshold lab: data to figures, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.theme import PALETTE, figure_of, rate_title
from shield_engine.decide.bands import BandPoint
from shield_engine.decide.column import ScoreColumn
from shield_engine.decide.thresholds import FlatRegion
from shield_engine.metrics.curves import ThresholdSweep
from shield_engine.statistics.intervals import wilson_bounds

__all__ = ["band_map", "curve", "distribution", "metrics_against_threshold"]

_BINS = 60

_CURVE_AXES = {
    "ROC": (rate_title("fpr"), rate_title("recall")),
    "PR": (rate_title("recall"), rate_title("precision")),
    "DET": (f"{rate_title('fpr')} (log)", "miss rate, % of risky rows (log)"),
}


def distribution(
    column: ScoreColumn, names: Sequence[str], threshold: float, *, unlabelled: Any = None
) -> go.Figure:
    """Return how many rows of each class have which score, with the threshold as a line."""
    edges = np.linspace(0, 1, _BINS + 1)
    sides = [(names[0], column.harmless, "good", ""), (names[1], column.risky, "bad", "/")]
    if unlabelled is not None:
        sides = [("rows", unlabelled, "muted", "")]
    bounds = "%{customdata[0]:.3f} to %{customdata[1]:.3f}"
    figure = figure_of(
        *(
            go.Bar(
                x=(edges[:-1] + edges[1:]) / 2,
                y=np.histogram(side, edges)[0],
                width=1 / _BINS,
                name=name,
                marker={"color": PALETTE[color], "pattern": {"shape": shape, "size": 4}},
                opacity=0.7,
                customdata=np.column_stack((edges[:-1], edges[1:])),
                hovertemplate=f"{name}: %{{y:,}} rows score {bounds}<extra></extra>",
            )
            for name, side, color, shape in sides
        ),
        height=300,
        barmode="overlay",
        xaxis={"title": "score", "range": [-0.01, 1.01]},
        yaxis={"title": "rows (logarithmic)", "type": "log"},
    )
    return _with_threshold(figure, threshold)


def metrics_against_threshold(
    column: ScoreColumn, threshold: float, flat: FlatRegion | None
) -> go.Figure:
    """Return recall, FPR and precision with 95% bands, and F1, against the threshold."""
    sweep = column.drawn()
    x = sweep.thresholds
    traces: list[Any] = []
    for name, hits, rows, color, dash in (
        ("recall", sweep.tp, sweep.tp + sweep.fn, "ml", "solid"),
        ("precision", sweep.tp, sweep.tp + sweep.fp, "hybrid", "dash"),
        ("FPR", sweep.fp, sweep.fp + sweep.tn, "bad", "dot"),
    ):
        if not rows.any():
            continue
        low, high = (100 * bound for bound in wilson_bounds(hits, rows))
        share = np.divide(hits, rows, out=np.full(len(x), np.nan), where=rows > 0)
        bounds = "%{customdata[0]:.1f} to %{customdata[1]:.1f}"
        traces += (
            _band(x, low, high, color, f"{name} band"),
            go.Scatter(
                x=x,
                y=100 * share,
                name=name,
                mode="lines",
                line={"color": PALETTE[color], "dash": dash, "width": 2},
                customdata=np.column_stack((low, high)),
                hovertemplate=f"{name} %{{y:.1f}}% ({bounds}) at threshold %{{x:.3f}}"
                "<extra></extra>",
            ),
        )
    if len(column.risky) and len(column.harmless):
        traces.append(
            go.Scatter(
                x=x,
                y=100 * sweep.f1,
                name="F1",
                mode="lines",
                line={"color": PALETTE["both"], "dash": "dashdot", "width": 2},
                hovertemplate="F1 %{y:.1f}% at threshold %{x:.3f}<extra></extra>",
            )
        )
    figure = figure_of(
        *traces,
        height=340,
        xaxis={"title": "threshold", "range": [-0.01, 1.01]},
        yaxis={"title": "percent, band: 95% interval", "range": [-2, 102]},
    )
    if flat is not None and flat.high > flat.low:
        figure.add_vrect(
            x0=flat.low, x1=flat.high, fillcolor=PALETTE["muted"], opacity=0.15, line_width=0
        )
    return _with_threshold(figure, threshold, at_foot=True)


def curve(column: ScoreColumn, kind: str, threshold: float, color: str) -> go.Figure:
    """Return a ROC, PR or DET curve with a 95% band and the threshold as a marker."""
    sweep = column.drawn()
    x, y, low, high = _coordinates(sweep, kind)
    point_x, point_y, _, _ = _coordinates(column.at(threshold), kind)
    x_title, y_title = _CURVE_AXES[kind]
    scale: dict[str, Any] = {"type": "log"} if kind == "DET" else {"range": [-1, 101]}
    known = ~np.isnan(y) & ~np.isnan(x)
    if kind == "DET":
        known &= (x > 0) & (y > 0) & (low > 0)
    marker = {"color": PALETTE[color], "size": 12, "symbol": "diamond"}
    return figure_of(
        _band(x[known], low[known], high[known], color),
        go.Scatter(
            x=x[known],
            y=y[known],
            mode="lines",
            name=f"{kind} curve",
            line={"color": PALETTE[color], "width": 2},
            customdata=sweep.thresholds[known],
            hovertemplate="%{y:.2f} at %{x:.2f}, threshold %{customdata:.3f}<extra></extra>",
        ),
        go.Scatter(
            x=point_x,
            y=point_y,
            mode="markers",
            name="threshold in force",
            marker=marker | {"line": {"width": 1.5, "color": "white"}},
            hovertemplate=f"threshold {threshold:g}: %{{y:.2f}} at %{{x:.2f}}<extra></extra>",
        ),
        height=360,
        xaxis={"title": x_title, **scale},
        yaxis={"title": y_title, **scale},
    )


def _coordinates(sweep: ThresholdSweep, kind: str) -> tuple[Any, Any, Any, Any]:
    """Return x, y and y's Wilson band, in percent."""
    recall_low, recall_high = wilson_bounds(sweep.tp, sweep.tp + sweep.fn)
    if kind == "ROC":
        return 100 * sweep.fpr, 100 * sweep.recall, 100 * recall_low, 100 * recall_high
    if kind == "DET":
        missed = 100 * (1 - sweep.recall)
        return 100 * sweep.fpr, missed, 100 * (1 - recall_high), 100 * (1 - recall_low)
    low, high = wilson_bounds(sweep.tp, sweep.tp + sweep.fp)
    return 100 * sweep.recall, 100 * sweep.precision, 100 * low, 100 * high


def _band(x: Any, low: Any, high: Any, color: str, name: str | None = None) -> go.Scatter:
    """Return the area between two lines."""
    hue = PALETTE[color]
    red, green, blue = (int(hue[start : start + 2], 16) for start in (1, 3, 5))
    return go.Scatter(
        x=np.concatenate((x, x[::-1])),
        y=np.concatenate((high, low[::-1])),
        name=name,
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.18)",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )


def band_map(points: Sequence[BandPoint], value: str, title: str, scale: float = 1.0) -> go.Figure:
    """Return a heat map of one figure over the grid of bands; cells that cross stay empty."""
    uppers = sorted({point.bands.upper for point in points})
    lowers = sorted({-1.0 if p.bands.lower is None else p.bands.lower for p in points})
    cells = np.full((len(lowers), len(uppers)), np.nan)
    for point in points:
        number = getattr(point, value)
        row = lowers.index(-1.0 if point.bands.lower is None else point.bands.lower)
        if number is not None:
            cells[row, uppers.index(point.bands.upper)] = scale * number
    return figure_of(
        go.Heatmap(
            z=cells,
            x=[f"{upper:g}" for upper in uppers],
            y=["off" if lower < 0 else f"{lower:g}" for lower in lowers],
            colorscale="Cividis",
            hoverongaps=False,
            colorbar={"title": title},
            hovertemplate=f"upper %{{x}}, lower %{{y}}: {title} %{{z:.2f}}<extra></extra>",
        ),
        height=340,
        xaxis={"title": "upper band: at or above it the rules decide", "type": "category"},
        yaxis={"title": "lower band", "type": "category"},
    )


def _with_threshold(figure: go.Figure, threshold: float, *, at_foot: bool = False) -> go.Figure:
    place = "bottom right" if at_foot and threshold < 0.7 else "top right"
    figure.add_vline(
        x=threshold,
        line={"color": PALETTE["muted"], "width": 2},
        annotation={"text": f"threshold {threshold:g}", "font": {"size": 12}},
        annotation_position="top left" if threshold > 0.7 else place,
    )
    return figure

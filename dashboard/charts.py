"""Data to figures: pure functions, one palette, readable in light and dark and without colour.

Every mode has a colour, a dash and a marker of its own, so no chart depends on colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.components import METRIC_TITLES, MODE_TITLES
from shield_engine.evaluation.evaluate import ModeEvaluation, ModeView
from shield_engine.evaluation.metrics import (
    pr_curve_points,
    roc_curve_points,
    threshold_sweep,
)
from shield_engine.types import Mode

__all__ = [
    "PALETTE",
    "confusion_heatmap",
    "figure_of",
    "latency_bars",
    "metric_forest",
    "pr_curves",
    "roc_curves",
    "score_histogram",
    "threshold_curves",
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

_DASHES = {Mode.HEURISTIC: "dot", Mode.ML: "solid", Mode.HYBRID: "dash", Mode.BOTH: "dashdot"}
_MARKERS = {
    Mode.HEURISTIC: "triangle-up", Mode.ML: "circle", Mode.HYBRID: "diamond", Mode.BOTH: "square",
}  # fmt: skip


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


def metric_forest(
    evaluations: Mapping[Mode, ModeEvaluation], names: Sequence[str], height: int = 420
) -> go.Figure:
    """Return each metric of each mode as a dot with its 95% interval."""
    traces = []
    count = len(evaluations)
    for position, (mode, result) in enumerate(evaluations.items()):
        shown = [name for name in names if result.metrics[name].value is not None]
        figures = [result.metrics[name] for name in shown]
        values = [100 * (figure.value or 0.0) for figure in figures]
        rows = [names.index(name) + 0.62 * ((position + 0.5) / count - 0.5) for name in shown]
        traces.append(
            go.Scatter(
                x=values,
                y=rows,
                mode="markers",
                name=MODE_TITLES[mode],
                marker={"color": PALETTE[mode.value], "symbol": _MARKERS[mode], "size": 9},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [
                        100 * figure.high - value if figure.high is not None else 0
                        for figure, value in zip(figures, values, strict=True)
                    ],
                    "arrayminus": [
                        value - 100 * figure.low if figure.low is not None else 0
                        for figure, value in zip(figures, values, strict=True)
                    ],
                    "thickness": 1.5,
                },
                customdata=[
                    [METRIC_TITLES[name], figure.n]
                    for name, figure in zip(shown, figures, strict=True)
                ],
                hovertemplate=(
                    f"{MODE_TITLES[mode]}: %{{customdata[0]}} %{{x:.1f}}%, "
                    "n = %{customdata[1]:,}<extra></extra>"
                ),
            )
        )
    return figure_of(
        *traces,
        height=height,
        xaxis={"title": "percent, with 95% interval", "range": [-2, 102]},
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": [METRIC_TITLES[name] for name in names],
            "autorange": "reversed",
            "zeroline": False,
        },
    )


def roc_curves(views: Mapping[Mode, ModeView], auc: Mapping[Mode, float | None]) -> go.Figure:
    """Return the empirical ROC curves, with each mode's threshold as a marker."""
    traces: list[Any] = [
        go.Scatter(
            x=[0, 100], y=[0, 100], mode="lines", name="chance", hoverinfo="skip",
            line={"color": PALETTE["muted"], "width": 1, "dash": "dot"}, showlegend=False,
        )
    ]  # fmt: skip
    for mode, view in views.items():
        keep = view.counts
        assert view.risk is not None  # noqa: S101 - the page draws curves of two classes only
        curve = roc_curve_points(view.labels[keep], view.risk[keep])
        title = MODE_TITLES[mode]
        area = auc[mode]
        traces.append(
            go.Scatter(
                x=100 * curve.fpr, y=100 * curve.recall, mode="lines",
                name=f"{title} ({area:.3f})" if area is not None else title,
                line={"color": PALETTE[mode.value], "dash": _DASHES[mode], "width": 2},
                customdata=curve.thresholds,
                hovertemplate=(
                    f"{title}: recall %{{y:.1f}}% at FPR %{{x:.2f}}%, "
                    "threshold %{customdata:.3f}<extra></extra>"
                ),
            )
        )  # fmt: skip
        traces.append(_operating_point(view, "fpr"))
    return figure_of(
        *traces,
        xaxis={"title": "false positive rate, % of harmless rows", "range": [-1, 101]},
        yaxis={"title": "recall, % of risky rows", "range": [-1, 101]},
    )


def pr_curves(views: Mapping[Mode, ModeView], area: Mapping[Mode, float | None]) -> go.Figure:
    """Return the empirical precision-recall curves, with each mode's threshold as a marker."""
    traces: list[Any] = []
    for mode, view in views.items():
        keep = view.counts
        assert view.risk is not None  # noqa: S101 - the page draws curves of two classes only
        curve = pr_curve_points(view.labels[keep], view.risk[keep])
        title, value = MODE_TITLES[mode], area[mode]
        traces.append(
            go.Scatter(
                x=100 * curve.recall, y=100 * curve.precision, mode="lines",
                name=f"{title} ({value:.3f})" if value is not None else title,
                line={"color": PALETTE[mode.value], "dash": _DASHES[mode], "width": 2},
                customdata=curve.thresholds,
                hovertemplate=(
                    f"{title}: precision %{{y:.1f}}% at recall %{{x:.1f}}%, "
                    "threshold %{customdata:.3f}<extra></extra>"
                ),
            )
        )  # fmt: skip
        traces.append(_operating_point(view, "precision"))
    return figure_of(
        *traces,
        xaxis={"title": "recall, % of risky rows", "range": [-1, 101]},
        yaxis={"title": "precision, % of flagged rows", "range": [-1, 101]},
    )


def _operating_point(view: ModeView, against: str) -> go.Scatter:
    keep = view.counts
    assert view.risk is not None  # noqa: S101 - the page draws curves of two classes only
    sweep = threshold_sweep(view.labels[keep], view.risk[keep], [view.threshold or 0.0])
    recall = 100 * sweep.recall
    x, y = (100 * sweep.fpr, recall) if against == "fpr" else (recall, 100 * sweep.precision)
    return go.Scatter(
        x=x, y=y, mode="markers", showlegend=False,
        marker={
            "color": PALETTE[view.mode.value], "symbol": _MARKERS[view.mode], "size": 11,
            "line": {"width": 1.5, "color": "white"},
        },
        hovertemplate=f"{MODE_TITLES[view.mode]} at threshold {view.threshold:g}<extra></extra>",
    )  # fmt: skip


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
            z=100 * shares, x=list(labels), y=list(labels), text=written,
            texttemplate="%{text}", zmin=0, zmax=100, showscale=False,
            # Opaque colours, so that the written counts keep their contrast in either theme.
            colorscale=[[0, "#E6EFF8"], [0.5, "#7FB3DE"], [1, "#17568F"]],
            hovertemplate="is %{y}, said %{x}: %{text}<extra></extra>",
        ),
        height=height,
        xaxis={"title": "what the mode said"},
        yaxis={"title": "what it is", "autorange": "reversed"},
    )  # fmt: skip


def latency_bars(evaluations: Mapping[Mode, ModeEvaluation]) -> go.Figure:
    """Return p50, p95 and p99 of each mode, misses beside hits, on a logarithmic scale."""
    traces = []
    for name, attribute, pattern in (
        ("cache miss", "latency", ""),
        ("cache hit", "latency_hit", "/"),
    ):
        x: list[list[str]] = [[], []]
        y: list[float] = []
        n: list[int] = []
        for mode, result in evaluations.items():
            summary = getattr(result, attribute)
            for percentile in ("p50", "p95", "p99"):
                value = getattr(summary, percentile)
                if value is not None:
                    x[0].append(MODE_TITLES[mode])
                    x[1].append(percentile)
                    y.append(value)
                    n.append(summary.n)
        color = PALETTE["ml"] if attribute == "latency" else PALETTE["hybrid"]
        traces.append(
            go.Bar(
                x=x, y=y, name=name, customdata=n,
                marker={"color": color, "pattern": {"shape": pattern}},
                hovertemplate=(
                    f"%{{x}}, {name}: %{{y:.3f}} ms, n = %{{customdata:,}}<extra></extra>"
                ),
            )
        )  # fmt: skip
    return figure_of(
        *traces, barmode="group", yaxis={"title": "milliseconds (logarithmic)", "type": "log"}
    )


def score_histogram(view: ModeView, bins: int = 40) -> go.Figure:
    """Return how many rows have which score, by class where there are labels."""
    assert view.risk is not None  # noqa: S101 - the page draws scores of two classes only
    edges = np.linspace(0, 1, bins + 1)
    groups = (
        [
            (view.label_names[0], PALETTE["good"], view.labels == 0),
            (view.label_names[1], PALETTE["bad"], view.labels == 1),
        ]
        if view.counts.any()
        else [("rows", PALETTE["muted"], np.ones(len(view.labels), dtype=bool))]
    )
    traces = []
    for name, color, mask in groups:
        counts, _ = np.histogram(view.risk[mask & view.is_scored], edges)
        traces.append(
            go.Bar(
                x=(edges[:-1] + edges[1:]) / 2, y=counts, width=1 / bins, name=name,
                marker={"color": color}, opacity=0.65,
                hovertemplate=f"{name}: %{{y:,}} rows near %{{x:.2f}}<extra></extra>",
            )
        )  # fmt: skip
    figure = figure_of(
        *traces,
        height=280,
        barmode="overlay",
        xaxis={"title": "score", "range": [0, 1]},
        yaxis={"title": "rows (logarithmic)", "type": "log"},
    )
    if view.threshold is not None:
        _mark(figure, view.threshold, "threshold")
    return figure


def threshold_curves(view: ModeView, balanced: float) -> go.Figure:
    """Return precision, recall, F1 and FPR against the threshold, with the two that matter."""
    keep = view.counts
    assert view.risk is not None  # noqa: S101 - the page draws curves of two classes only
    cuts = np.linspace(0, 1, 201)
    sweep = threshold_sweep(view.labels[keep], view.risk[keep], cuts)
    lines = (
        ("recall", sweep.recall, PALETTE["ml"], "solid"),
        ("precision", sweep.precision, PALETTE["hybrid"], "dash"),
        ("F1", sweep.f1, PALETTE["both"], "dashdot"),
        ("FPR", sweep.fpr, PALETTE["bad"], "dot"),
    )
    figure = figure_of(
        *(
            go.Scatter(
                x=cuts, y=100 * values, mode="lines", name=name,
                line={"color": color, "dash": dash, "width": 2},
                hovertemplate=f"{name} %{{y:.1f}}% at threshold %{{x:.3f}}<extra></extra>",
            )
            for name, values, color, dash in lines
        ),
        height=320,
        xaxis={"title": "threshold", "range": [0, 1]},
        yaxis={"title": "percent", "range": [-1, 101]},
    )  # fmt: skip
    _mark(figure, balanced, "balanced", dash="dot")
    if view.threshold is not None and view.threshold != balanced:
        _mark(figure, view.threshold, "chosen")
    return figure


def _mark(figure: go.Figure, at: float, name: str, dash: str = "solid") -> None:
    figure.add_vline(
        x=at, line={"color": PALETTE["muted"], "dash": dash, "width": 1.5},
        annotation={"text": f"{name} {at:g}", "font": {"size": 11}},
    )  # fmt: skip

"""Charts of a comparison: figures, differences, curves, slices, latency and the frontier.

Every candidate has a colour, a dash and a marker of its own, so no chart depends on colour alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.text import label
from dashboard.theme import (
    PALETTE,
    Look,
    figure_of,
    interval_dots,
    line,
    log_axis,
    mark,
    names_axis,
    rate_title,
)
from shield_engine.decide.candidates import Aligned
from shield_engine.decide.compare import Comparison, Pair
from shield_engine.decide.slices import SliceTable
from shield_engine.metrics.curves import (
    ThresholdSweep,
    pr_curve_points,
    roc_curve_points,
    threshold_sweep,
)
from shield_engine.metrics.table import METRICS, RATES
from shield_engine.statistics import Figure

__all__ = [
    "MOST_POINTS",
    "candidate_forest",
    "curve_chart",
    "difference_forest",
    "frontier_chart",
    "latency_chart",
    "slice_chart",
]

MOST_POINTS = 1_500
"""Points drawn of a curve; a million-row curve has hundreds of thousands that no screen shows."""

_FILLS = {"": "", "decided": "", "not decided": "-open", "not tested": "-open-dot"}
_CURVES: Mapping[str, tuple[Callable[..., ThresholdSweep], str, str, str]] = {
    "roc_auc": (roc_curve_points, "fpr", "recall", "recall %{y:.1f}% at FPR %{x:.2f}%"),
    "pr_auc": (pr_curve_points, "recall", "precision", "precision %{y:.1f}% at recall %{x:.1f}%"),
}
"""Points, x, y and words of the curve that a metric is the area of."""
_FINDINGS = {"": "", "seems to lose": " (?)", "loses": " (!)"}


# --- forests --------------------------------------------------------------------------------


def candidate_forest(
    comparison: Comparison, styles: Sequence[Look], names: Sequence[str]
) -> go.Figure:
    """Return each metric of each candidate as a dot with its interval."""
    sides = [
        _Side(standing.title, style, standing.metrics, {})
        for standing, style in zip(comparison.standings, styles, strict=True)
    ]
    axis = {"title": f"percent, with {comparison.confidence:.0%} interval", "range": [-2, 102]}
    return _forest(sides, names, axis, ":.1f")


def difference_forest(
    comparison: Comparison, styles: Sequence[Look], names: Sequence[str]
) -> go.Figure:
    """Return each metric of each other candidate minus the baseline's, in points.

    Filled markers are decided after Holm's adjustment, open ones are not; those with a dot in them
    have an interval but no test.
    """
    by_title = dict(zip((s.title for s in comparison.standings), styles, strict=True))
    sides = [
        _Side(
            pair.candidate,
            by_title[pair.candidate],
            pair.differences,
            {name: _state(pair, name) for name in names},
        )
        for pair in comparison.pairs
    ]
    baseline = label(comparison.standings[comparison.baseline].title)
    axis = {
        "title": f"points more than {baseline}, with {comparison.confidence:.0%} interval",
        "zeroline": False,
    }
    figure = _forest(sides, names, axis, ":+.1f")
    figure.add_vline(x=0, line={"color": PALETTE["muted"], "width": 1.5})
    return figure


def _state(pair: Pair, name: str) -> str:
    rows = METRICS[name].rows.removesuffix(" rows")
    test = pair.test("all" if rows == "labelled" else rows) if name in RATES else None
    if test is None:
        return "not tested"
    return "decided" if test.is_decided else "not decided"


@dataclass(frozen=True, slots=True)
class _Side:
    """One candidate of a forest: its figures by metric, and what a test says of each."""

    title: str
    look: Look
    figures: Mapping[str, Figure]
    states: Mapping[str, str]


def _forest(
    sides: Sequence[_Side], names: Sequence[str], axis: dict[str, Any], number: str
) -> go.Figure:
    """Return metrics from the top, in each one dot a candidate; `number` formats hover text."""
    titles = [
        f"{METRICS[name].title}{', less is better' if METRICS[name].is_better_high is False else ''}"
        for name in names
    ]
    hover = (
        f": %{{customdata[0]}} %{{x{number}}} (%{{customdata[1]{number}}} to "
        f"%{{customdata[2]{number}}}), n = %{{customdata[3]:,}}%{{customdata[4]}}"
    )
    traces = []
    for side, shift in zip(sides, _shifts(len(sides)), strict=True):
        present = [name for name in names if side.figures[name].value is not None]
        states = [side.states.get(name, "") for name in present]
        traces.append(
            interval_dots(
                side.title,
                [(names.index(name) + shift, side.figures[name]) for name in present],
                marker={
                    "color": side.look.color,
                    "symbol": [f"{side.look.marker}{_FILLS[state]}" for state in states],
                    "size": 9,
                    "line": {"width": 1.5},
                },
                thickness=1.5,
                hover=hover,
                custom=[
                    [METRICS[name].title, *_ends(side.figures[name]), state and f", {state}"]
                    for name, state in zip(present, states, strict=True)
                ],
            )
        )
    height = 90 + len(names) * (26 + 12 * len(sides))
    return figure_of(*traces, height=height, xaxis=axis, yaxis=names_axis(titles))


def _shifts(candidates: int) -> list[float]:
    """Return how far below its line each candidate of a line is drawn."""
    return [0.68 * ((place + 0.5) / candidates - 0.5) for place in range(candidates)]


def _ends(figure: Figure) -> tuple[float, float, int]:
    """Return both ends of an interval in percent, and n."""
    value = figure.value or 0.0
    low, high = (value if end is None else end for end in (figure.low, figure.high))
    return 100 * low, 100 * high, figure.n


def slice_chart(table: SliceTable, styles: Sequence[Look], metric: str) -> go.Figure:
    """Return each candidate's figure in each slice; slices where the winner is behind are marked."""
    names = [f"{_short(row.value)}{_FINDINGS[row.finding]}, n = {row.n:,}" for row in table.rows]
    titles = list(table.rows[0].figures) if table.rows else []
    traces = []
    for title, style, shift in zip(titles, styles, _shifts(len(titles)), strict=True):
        cells = [
            (place + shift, name, figure)
            for place, (name, row) in enumerate(zip(names, table.rows, strict=True))
            if (figure := row.figures[title][metric]).value is not None
        ]
        traces.append(
            interval_dots(
                title,
                [(height, figure) for height, _, figure in cells],
                marker={"color": style.color, "symbol": style.marker, "size": 8},
                thickness=1.2,
                hover=" in %{customdata[0]}: %{x:.1f}% of %{customdata[1]:,} rows",
                custom=[[name, figure.n] for _, name, figure in cells],
            )
        )
    return figure_of(
        *traces,
        height=110 + len(names) * (16 + 9 * max(len(titles), 1)),
        xaxis={"title": f"{METRICS[metric].title}, percent, with interval", "range": [-2, 102]},
        yaxis=names_axis(names),
    )


def _short(value: str) -> str:
    text = value.replace("\n", " ") or "(none)"
    return label(text if len(text) <= 40 else f"{text[:39]}…")


# --- curves ---------------------------------------------------------------------------------


def curve_chart(
    metric: str, titles: Sequence[str], aligned: Aligned, styles: Sequence[Look]
) -> go.Figure:
    """Return the empirical curve of each candidate of two classes, with its threshold as a mark.

    Args:
        metric: The area below: `roc_auc` or `pr_auc`.
        titles: Of the candidates.
        aligned: The candidates' rows; those that count are drawn.
        styles: Of the candidates.
    """
    points_of, across, upward, words = _CURVES[metric]
    traces: list[Any] = []
    if metric == "roc_auc":
        traces.append(
            go.Scatter(
                x=[0, 100],
                y=[0, 100],
                mode="lines",
                name="chance",
                hoverinfo="skip",
                line={"color": PALETTE["muted"], "width": 1, "dash": "dot"},
                showlegend=False,
            )
        )
    for title, view, style in zip(titles, aligned.views, styles, strict=True):
        if view.risk is None:
            continue  # three classes have no single risk
        labels, risk = view.labels[aligned.counts], view.risk[aligned.counts]
        points = points_of(labels, risk)
        x, y = 100 * getattr(points, across), 100 * getattr(points, upward)
        drawn = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(int))
        hover = f"{words}, threshold %{{customdata:.3f}}"
        traces.append(line(title, style, x[drawn], y[drawn], hover, points.thresholds[drawn]))
        here = threshold_sweep(labels, risk, [view.threshold or 0.0])
        traces.append(
            mark(
                style,
                100 * getattr(here, across),
                100 * getattr(here, upward),
                f"{label(title)} at threshold {view.threshold:g}",
                showlegend=False,
            )
        )
    return figure_of(
        *traces,
        xaxis={"title": rate_title(across), "range": [-1, 101]},
        yaxis={"title": rate_title(upward), "range": [-1, 101]},
    )


# --- speed ----------------------------------------------------------------------------------


def latency_chart(comparison: Comparison) -> go.Figure:
    """Return p50, p95 and p99 of each candidate, misses beside hits, on a logarithmic scale."""
    traces = []
    for name, attribute, pattern, color in (
        ("cache miss", "latency", "", PALETTE["ml"]),
        ("cache hit", "latency_hit", "/", PALETTE["hybrid"]),
    ):
        bars = [
            (label(standing.title), percentile, value, getattr(standing, attribute).n)
            for standing in comparison.standings
            for percentile in ("p50", "p95", "p99")
            if (value := getattr(getattr(standing, attribute), percentile)) is not None
        ]
        traces.append(
            go.Bar(
                x=[[bar[0] for bar in bars], [bar[1] for bar in bars]],
                y=[bar[2] for bar in bars],
                customdata=[bar[3] for bar in bars],
                name=name,
                marker={"color": color, "pattern": {"shape": pattern}},
                hovertemplate=(
                    f"%{{x}}, {name}: %{{y:.3f}} ms, n = %{{customdata:,}}<extra></extra>"
                ),
            )
        )
    return figure_of(
        *traces,
        barmode="group",
        yaxis={
            "title": "milliseconds (logarithmic)",
            **log_axis([value for trace in traces for value in trace.y]),
        },
    )


def frontier_chart(comparison: Comparison, styles: Sequence[Look]) -> go.Figure:
    """Return error against p95 latency; the size of a mark is how often the model is asked.

    Candidates that another beats are drawn open. A line joins the others.
    """
    known = [
        (point, style)
        for point, style in zip(comparison.frontier, styles, strict=True)
        if point.p95_ms is not None
    ]
    best = sorted((p for p, _ in known if p.is_optimal), key=lambda p: p.p95_ms or 0.0)
    traces: list[Any] = [
        go.Scatter(
            x=[point.p95_ms for point in best],
            y=[100 * point.error for point in best],
            mode="lines",
            name="frontier",
            hoverinfo="skip",
            line={"color": PALETTE["muted"], "width": 1, "dash": "dot"},
        )
    ]
    for point, style in known:
        cost = (
            "" if point.cost_per_million is None else f", {point.cost_per_million:,.2f} a million"
        )
        beaten = "" if point.is_optimal else f", beaten by {', '.join(point.beaten_by)}"
        traces.append(
            go.Scatter(
                x=[point.p95_ms],
                y=[100 * point.error],
                mode="markers",
                name=label(point.title),
                marker={
                    "color": style.color,
                    "symbol": style.marker if point.is_optimal else f"{style.marker}-open",
                    "size": 11 + 13 * point.calls,
                    "line": {"width": 2},
                },
                hovertemplate=(
                    f"{label(point.title)}: error %{{y:.1f}}%, p95 %{{x:.2f}} ms, asks the model "
                    f"for {point.calls:.1%}{cost}{label(beaten)}<extra></extra>"
                ),
            )
        )
    return figure_of(
        *traces,
        height=380,
        xaxis={
            "title": "p95 latency of a cache miss, ms (logarithmic)",
            **log_axis([point.p95_ms for point, _ in known if point.p95_ms is not None]),
        },
        yaxis={
            "title": f"error, 100% - {METRICS[comparison.metric].title}",
            "rangemode": "tozero",
        },
    )

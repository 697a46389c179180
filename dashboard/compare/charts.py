"""Charts of a comparison: figures, differences, curves, slices, latency and the frontier.

Every candidate has a colour, a dash and a marker of its own, so no chart depends on colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from dashboard.text import visible
from dashboard.theme import PALETTE, figure_of
from shield_engine.decide.compare import Comparison, Pair
from shield_engine.decide.figures import ModeView
from shield_engine.decide.slices import SliceTable
from shield_engine.metrics.figures import pr_curve_points, roc_curve_points, threshold_sweep
from shield_engine.metrics.table import METRICS
from shield_engine.statistics import Figure

__all__ = [
    "Look",
    "candidate_forest",
    "difference_forest",
    "frontier_chart",
    "latency_chart",
    "looks",
    "pr_chart",
    "roc_chart",
    "slice_chart",
]

MOST_POINTS = 1_500
"""Points drawn of a curve; a million-row curve has hundreds of thousands that no screen shows."""

_FILLS = {"": "", "decided": "", "not decided": "-open", "not tested": "-open-dot"}
_SCOPES = {"recall": "risky", "fpr": "harmless", "accuracy": "all"}


@dataclass(frozen=True, slots=True)
class Look:
    """How a candidate is drawn."""

    color: str
    dash: str
    marker: str


_LOOKS = (
    Look(PALETTE["heuristic"], "dot", "triangle-up"),
    Look(PALETTE["ml"], "solid", "circle"),
    Look(PALETTE["hybrid"], "dash", "diamond"),
    Look(PALETTE["both"], "dashdot", "square"),
    Look("#B79F00", "longdash", "star"),
    Look("#D6584B", "longdashdot", "cross"),
    Look("#6F7BD0", "4px 2px", "pentagon"),
    Look("#8A94A3", "8px 2px 2px 2px", "triangle-down"),
    Look("#A0673B", "12px 4px", "hexagon"),
)
_MODE_KEYS = ("mode:heuristic", "mode:ml", "mode:hybrid", "mode:both")


def looks(keys: Sequence[str]) -> list[Look]:
    """Return a look for each option key: modes keep theirs, others take what is free."""
    given = iter((*_LOOKS[len(_MODE_KEYS) :], *_LOOKS[: len(_MODE_KEYS)]))
    own = {key: _LOOKS[_MODE_KEYS.index(key)] for key in keys if key in _MODE_KEYS}
    free = (look for look in given if look not in own.values())
    return [own[key] if key in own else next(free) for key in keys]


def candidate_forest(
    comparison: Comparison, styles: Sequence[Look], names: Sequence[str]
) -> go.Figure:
    """Return each metric of each candidate as a dot with its interval."""
    count = len(comparison.standings)
    traces = [
        _dots(
            standing.title,
            style,
            names,
            {name: standing.metrics[name] for name in names},
            (place + 0.5) / count - 0.5,
            signed=False,
        )
        for place, (standing, style) in enumerate(zip(comparison.standings, styles, strict=True))
    ]
    return figure_of(
        *traces,
        height=_forest_height(len(names), count),
        xaxis={"title": f"percent, with {comparison.confidence:.0%} interval", "range": [-2, 102]},
        yaxis=_metric_axis(names),
    )


def difference_forest(
    comparison: Comparison, styles: Sequence[Look], names: Sequence[str]
) -> go.Figure:
    """Return each metric of each other candidate minus the baseline's, in points.

    Filled markers are decided after Holm's adjustment, open ones are not; those with a dot in them
    have an interval but no test.
    """
    by_title = dict(zip((s.title for s in comparison.standings), styles, strict=True))
    count = len(comparison.pairs)
    traces = [
        _dots(
            pair.candidate,
            by_title[pair.candidate],
            names,
            {name: pair.differences[name] for name in names},
            (place + 0.5) / count - 0.5,
            signed=True,
            states={name: _state(pair, name) for name in names},
        )
        for place, pair in enumerate(comparison.pairs)
    ]
    baseline = _plain(comparison.standings[comparison.baseline].title)
    figure = figure_of(
        *traces,
        height=_forest_height(len(names), count),
        xaxis={
            "title": f"points more than {baseline}, with {comparison.confidence:.0%} interval",
            "zeroline": False,
        },
        yaxis=_metric_axis(names),
    )
    figure.add_vline(x=0, line={"color": PALETTE["muted"], "width": 1.5})
    return figure


def _state(pair: Pair, name: str) -> str:
    test = pair.test(_SCOPES.get(name, ""))
    if test is None:
        return "not tested"
    return "decided" if test.is_decided else "not decided"


def _forest_height(metrics: int, candidates: int) -> int:
    return 90 + metrics * (26 + 12 * candidates)


def _metric_axis(names: Sequence[str]) -> dict[str, Any]:
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [
            f"{METRICS[name].title}, less is better"
            if METRICS[name].is_better_high is False
            else METRICS[name].title
            for name in names
        ],
        "range": [len(names) - 0.5, -0.5],
        "zeroline": False,
    }


def _dots(
    title: str,
    style: Look,
    names: Sequence[str],
    figures: Mapping[str, Figure],
    shift: float,
    *,
    signed: bool,
    states: Mapping[str, str] | None = None,
) -> go.Scatter:
    present = [name for name in names if figures[name].value is not None]
    values = [100 * (figures[name].value or 0.0) for name in present]
    lows = [100 * _end(figures[name], figures[name].low) for name in present]
    highs = [100 * _end(figures[name], figures[name].high) for name in present]
    said = ["" if states is None else states[name] for name in present]
    shape = ":+.1f" if signed else ":.1f"
    return go.Scatter(
        x=values,
        y=[names.index(name) + 0.68 * shift for name in present],
        mode="markers",
        name=_plain(title),
        marker={
            "color": style.color,
            "symbol": [f"{style.marker}{_FILLS[state]}" for state in said],
            "size": 9,
            "line": {"width": 1.5},
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [high - value for high, value in zip(highs, values, strict=True)],
            "arrayminus": [value - low for low, value in zip(lows, values, strict=True)],
            "thickness": 1.5,
        },
        customdata=[
            [
                METRICS[name].title,
                low,
                high,
                figures[name].n,
                state and f", {state}",
            ]
            for name, low, high, state in zip(present, lows, highs, said, strict=True)
        ],
        hovertemplate=(
            f"{_plain(title)}: %{{customdata[0]}} %{{x{shape}}} "
            f"(%{{customdata[1]{shape}}} to %{{customdata[2]{shape}}}), "
            "n = %{customdata[3]:,}%{customdata[4]}<extra></extra>"
        ),
    )


def _end(figure: Figure, end: float | None) -> float:
    return (figure.value or 0.0) if end is None else end


def roc_chart(
    titles: Sequence[str],
    views: Sequence[ModeView],
    styles: Sequence[Look],
    keep: NDArray[np.bool_],
) -> go.Figure:
    """Return the empirical ROC curves over `keep`'s rows, with each threshold as a marker."""
    traces: list[Any] = [
        go.Scatter(
            x=[0, 100], y=[0, 100], mode="lines", name="chance", hoverinfo="skip",
            line={"color": PALETTE["muted"], "width": 1, "dash": "dot"}, showlegend=False,
        )
    ]  # fmt: skip
    for title, view, style in zip(titles, views, styles, strict=True):
        risk = _risk(view)[keep]
        curve = roc_curve_points(view.labels[keep], risk)
        traces += _curve(
            title, style, 100 * curve.fpr, 100 * curve.recall, curve.thresholds,
            "recall %{y:.1f}% at FPR %{x:.2f}%",
        )  # fmt: skip
        sweep = threshold_sweep(view.labels[keep], risk, [view.threshold or 0.0])
        traces.append(_operating_point(title, style, view, 100 * sweep.fpr, 100 * sweep.recall))
    return figure_of(
        *traces,
        xaxis={"title": "false positive rate, % of harmless rows", "range": [-1, 101]},
        yaxis={"title": "recall, % of risky rows", "range": [-1, 101]},
    )


def pr_chart(
    titles: Sequence[str],
    views: Sequence[ModeView],
    styles: Sequence[Look],
    keep: NDArray[np.bool_],
) -> go.Figure:
    """Return the empirical precision-recall curves over `keep`'s rows, thresholds as markers."""
    traces: list[Any] = []
    for title, view, style in zip(titles, views, styles, strict=True):
        risk = _risk(view)[keep]
        curve = pr_curve_points(view.labels[keep], risk)
        traces += _curve(
            title, style, 100 * curve.recall, 100 * curve.precision, curve.thresholds,
            "precision %{y:.1f}% at recall %{x:.1f}%",
        )  # fmt: skip
        sweep = threshold_sweep(view.labels[keep], risk, [view.threshold or 0.0])
        traces.append(
            _operating_point(title, style, view, 100 * sweep.recall, 100 * sweep.precision)
        )
    return figure_of(
        *traces,
        xaxis={"title": "recall, % of risky rows", "range": [-1, 101]},
        yaxis={"title": "precision, % of flagged rows", "range": [-1, 101]},
    )


def _risk(view: ModeView) -> NDArray[np.float64]:
    assert view.risk is not None  # noqa: S101 - the page draws curves of two classes only
    return view.risk


def _curve(
    title: str,
    style: Look,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    words: str,
) -> list[go.Scatter]:
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(int))
    return [
        go.Scatter(
            x=x[kept], y=y[kept], mode="lines", name=_plain(title),
            line={"color": style.color, "dash": style.dash, "width": 2},
            customdata=thresholds[kept],
            hovertemplate=(
                f"{_plain(title)}: {words}, threshold %{{customdata:.3f}}<extra></extra>"
            ),
        )
    ]  # fmt: skip


def _operating_point(title: str, style: Look, view: ModeView, x: Any, y: Any) -> go.Scatter:
    return go.Scatter(
        x=x, y=y, mode="markers", showlegend=False,
        marker={
            "color": style.color, "symbol": style.marker, "size": 11,
            "line": {"width": 1.5, "color": "white"},
        },
        hovertemplate=f"{_plain(title)} at threshold {view.threshold:g}<extra></extra>",
    )  # fmt: skip


def latency_chart(comparison: Comparison) -> go.Figure:
    """Return p50, p95 and p99 of each candidate, misses beside hits, on a logarithmic scale."""
    traces = []
    for name, attribute, pattern, color in (
        ("cache miss", "latency", "", PALETTE["ml"]),
        ("cache hit", "latency_hit", "/", PALETTE["hybrid"]),
    ):
        bars = [
            (_plain(standing.title), percentile, value, getattr(standing, attribute).n)
            for standing in comparison.standings
            for percentile in ("p50", "p95", "p99")
            if (value := getattr(getattr(standing, attribute), percentile)) is not None
        ]
        traces.append(
            go.Bar(
                x=[[bar[0] for bar in bars], [bar[1] for bar in bars]],
                y=[bar[2] for bar in bars], customdata=[bar[3] for bar in bars], name=name,
                marker={"color": color, "pattern": {"shape": pattern}},
                hovertemplate=(
                    f"%{{x}}, {name}: %{{y:.3f}} ms, n = %{{customdata:,}}<extra></extra>"
                ),
            )
        )  # fmt: skip
    return figure_of(
        *traces,
        barmode="group",
        yaxis={
            "title": "milliseconds (logarithmic)",
            **_log_axis([value for trace in traces for value in trace.y]),
        },
    )


def _log_axis(values: Sequence[float]) -> dict[str, Any]:
    """Return a logarithmic axis with ticks at 1, 2 and 5, which Plotly would write as "2" and "5"."""
    shown = [value for value in values if value > 0] or [1.0]
    low, high = min(shown) / 1.6, max(shown) * 1.6
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    return {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [f"{tick:,.10g}" for tick in ticks],
    }


def slice_chart(table: SliceTable, styles: Sequence[Look], metric: str) -> go.Figure:
    """Return each candidate's figure in each slice; slices where the winner is behind are marked."""
    marks = {"": "", "seems to lose": " (?)", "loses": " (!)"}
    names = [f"{_short(row.value)}{marks[row.finding]}, n = {row.n:,}" for row in table.rows]
    titles = list(table.rows[0].figures) if table.rows else []
    traces = []
    for place, (title, style) in enumerate(zip(titles, styles, strict=True)):
        shift = 0.68 * ((place + 0.5) / len(titles) - 0.5)
        cells = [
            (line, name, row.figures[title][metric])
            for line, (name, row) in enumerate(zip(names, table.rows, strict=True))
            if row.figures[title][metric].value is not None
        ]
        values = [100 * (figure.value or 0.0) for *_, figure in cells]
        traces.append(
            go.Scatter(
                x=values,
                y=[line + shift for line, *_ in cells],
                mode="markers",
                name=_plain(title),
                marker={"color": style.color, "symbol": style.marker, "size": 8},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [
                        100 * _end(figure, figure.high) - value
                        for (*_, figure), value in zip(cells, values, strict=True)
                    ],
                    "arrayminus": [
                        value - 100 * _end(figure, figure.low)
                        for (*_, figure), value in zip(cells, values, strict=True)
                    ],
                    "thickness": 1.2,
                },
                customdata=[[name, figure.n] for _, name, figure in cells],
                hovertemplate=(
                    f"{_plain(title)} in %{{customdata[0]}}: %{{x:.1f}}% of "
                    "%{customdata[1]:,} rows<extra></extra>"
                ),
            )
        )
    return figure_of(
        *traces,
        height=110 + len(names) * (16 + 9 * max(len(titles), 1)),
        xaxis={"title": f"{METRICS[metric].title}, percent, with interval", "range": [-2, 102]},
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "range": [len(names) - 0.5, -0.5],
            "zeroline": False,
        },
    )


def _short(value: str) -> str:
    text = value.replace("\n", " ") or "(none)"
    return _plain(text if len(text) <= 40 else f"{text[:39]}…")


def _plain(text: str) -> str:
    """Return a name of others as a chart shows it letter by letter: Plotly reads some HTML."""
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")


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
            x=[point.p95_ms for point in best], y=[100 * point.error for point in best],
            mode="lines", name="frontier", hoverinfo="skip",
            line={"color": PALETTE["muted"], "width": 1, "dash": "dot"},
        )
    ]  # fmt: skip
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
                name=_plain(point.title),
                marker={
                    "color": style.color,
                    "symbol": style.marker if point.is_optimal else f"{style.marker}-open",
                    "size": 11 + 13 * point.calls,
                    "line": {"width": 2},
                },
                hovertemplate=(
                    f"{_plain(point.title)}: error %{{y:.1f}}%, p95 %{{x:.2f}} ms, asks the model "
                    f"for {point.calls:.1%}{cost}{_plain(beaten)}<extra></extra>"
                ),
            )
        )
    return figure_of(
        *traces,
        height=380,
        xaxis={
            "title": "p95 latency of a cache miss, ms (logarithmic)",
            **_log_axis([point.p95_ms for point, _ in known if point.p95_ms is not None]),
        },
        yaxis={
            "title": f"error, 100% - {METRICS[comparison.metric].title}",
            "rangemode": "tozero",
        },
    )

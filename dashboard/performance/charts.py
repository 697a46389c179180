"""Benchmark documents as tables and charts. Pure.

Hides the document's keys, and how figures become rows of a chart.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboard.text import visible
from dashboard.theme import figure_of
from shield_engine.benchmark import compare

__all__ = [
    "ChartGroup",
    "beside",
    "chart_groups",
    "comparison_chart",
    "comparison_frame",
    "cost_frame",
    "distributions",
    "distributions_chart",
    "distributions_frame",
    "document_title",
    "figure_named",
    "figures_chart",
    "figures_frame",
    "machine_frame",
    "number",
    "ratios_frame",
]

Document = Mapping[str, Any]
Figure = Mapping[str, Any]

_PERCENTILES = ("p50", "p95", "p99")
_LONGEST_MS = 1e9
_MOST_STEPS = 1_000
_QUESTIONS: Mapping[tuple[str, str], str] = {
    ("end_to_end", "ms"): "How long does a text take, end to end?",
    ("inference", "ms"): "How long does the model alone take?",
    ("throughput", "texts/s"): "How many texts a second?",
    ("load", "ms"): "How long until a model is ready?",
    ("cache", "ms"): "How long does a cache lookup take?",
    ("heuristic", "ms"): "How long do the rules take?",
    ("replay", "ms"): "How long does a request take in traffic that repeats itself?",
    ("parts", "ms"): "Where does the time of a text go, on average?",
    ("hit_rate", "%"): "What share of requests does the cache answer, by its size and by repeats?",
    ("peers", "ms"): "How long do scanners of other makers take, beside ours?",
    ("memory", "MB"): "How much memory does it take?",
}
"""The question each group of one unit answers, in the order of the page."""
_OTHER_QUESTION = "What else was measured?"
"""Of groups from elsewhere, whose names are other people's words and must not become a heading."""
_MAX_NAME = 200


# --- words and tables -----------------------------------------------------------------------


def number(value: float | None) -> str:
    """Return three significant digits, large numbers whole and grouped; "-" for none."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 9)}f}"


def _interval(row: Figure) -> str:
    low, high = row.get("low"), row.get("high")
    if low is None and high is None:
        return "-"
    left = "open" if low is None else number(low)
    right = "open" if high is None else number(high)
    return f"{left} to {right}"


def document_title(document: Document) -> str:
    """Return what tells a benchmark from its neighbours."""
    machine = document["machine"]
    kind = "quick" if document["quick"] else "full"
    when = str(document["created_at"])[:16].replace("T", " ")
    cores = machine["usable_cores"]
    return visible(f"{when} UTC, {kind}, {machine['cpu']}, {cores} cores")[:_MAX_NAME]


def figure_named(document: Document, name: str) -> Figure | None:
    """Return the figure or ratio of a name, if this benchmark has it."""
    for row in (*document["figures"], *document["ratios"]):
        if row["name"] == name:
            found: Figure = row
            return found
    return None


def beside(detail: Mapping[str, Any]) -> str:
    """Return what a speed must not be read without: escalated share, hit rate, CPUs busy."""
    parts = []
    for key, word in (("escalated_share", "asked the model"), ("hit_rate", "cache hits")):
        if detail.get(key) is not None:
            parts.append(f"{detail[key]:.1%} {word}")
    if detail.get("cpus_busy") is not None:
        parts.append(f"{detail['cpus_busy']:.2f} CPUs busy")
    return ", ".join(parts)


def _band_text(target: Mapping[str, Any] | None) -> str:
    if target is None:
        return ""
    sign = "<" if target["better"] == "lower" else ">"
    text = f"{sign} {number(target['target'])} {target['unit']}"
    if target.get("acceptable") is not None:
        text += f" (acceptable {sign} {number(target['acceptable'])})"
    return visible(text)


def _targets(document: Document) -> dict[str, Mapping[str, Any]]:
    return {target["name"]: target for target in document["targets"]}


def figures_frame(document: Document, figures: Sequence[Figure] | None = None) -> pd.DataFrame:
    """Return one row a figure, the reference's target beside it.

    Args:
        document: The benchmark.
        figures: Some of its figures; all of them by default.
    """
    targets = _targets(document)
    return pd.DataFrame(
        [
            {
                "Figure": visible(figure["name"]),
                "Value": number(figure["value"]),
                "Unit": visible(figure.get("unit", "")),
                "95% interval": _interval(figure),
                "n": figure.get("n"),
                "Beside it": beside(figure.get("detail") or {}),
                "Target, not measured": _band_text(targets.get(figure.get("target") or "")),
                "What was timed": visible(str((figure.get("detail") or {}).get("what", ""))),
            }
            for figure in (document["figures"] if figures is None else figures)
        ]
    )


def ratios_frame(document: Document) -> pd.DataFrame:
    """Return one row a ratio with this project's aim and whether it is met.

    Met or missed is said only where the whole interval lies on one side of the aim.
    """
    return pd.DataFrame(
        [
            {
                "Ratio": visible(ratio["name"]),
                "Value": number(ratio["value"]),
                "95% interval": _interval(ratio),
                "n": ratio.get("n"),
                "Aim": ("at least " if ratio.get("better") == "higher" else "at most ")
                + number(ratio.get("target")),
                "Outcome": _outcome(ratio),
                "Beside it": beside(ratio.get("detail") or {}),
            }
            for ratio in document["ratios"]
        ]
    )


def _outcome(ratio: Figure) -> str:
    aim, low, high = ratio.get("target"), ratio.get("low"), ratio.get("high")
    if aim is None:
        return ""
    is_higher = ratio.get("better") == "higher"
    good, bad = (low, high) if is_higher else (high, low)
    if good is not None and (good >= aim if is_higher else good <= aim):
        return "met"
    if bad is not None and (bad < aim if is_higher else bad > aim):
        return "missed"
    return "not decisive"


def machine_frame(document: Document) -> pd.DataFrame:
    """Return what tells this machine from another, as name and value."""
    machine = document["machine"]
    load = machine["load_1_minute"]
    facts = {
        "Processor": machine["cpu"],
        "Cores usable": f"{machine['usable_cores']} of {machine['cores']}",
        "Memory": f"{machine['memory_mb']:,} MB",
        "System": machine["platform"],
        "Python": machine["python"],
        **machine["packages"],
        "Load average at the start": "unknown" if load is None else f"{load:.2f}",
        "Measured for": f"{document['seconds']:.0f} s",
    }
    return pd.DataFrame(
        {
            "What": [visible(str(name)) for name in facts],
            "Value": [visible(str(value)) for value in facts.values()],
        }
    )


# --- charts of one benchmark ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChartGroup:
    """Figures of one kind and unit, which share an axis.

    Attributes:
        key: Fit for a widget's key and a file name.
        question: What the chart answers.
        figures: At least one; every value is above 0.
    """

    key: str
    question: str
    unit: str
    figures: tuple[Figure, ...]


def chart_groups(document: Document) -> list[ChartGroup]:
    """Return the groups of a benchmark that are worth a chart, known questions first.

    Shares, and groups of a single figure, are left to the table.
    """
    found: dict[tuple[str, str], list[Figure]] = {}
    for figure in document["figures"]:
        if figure["value"] > 0 and figure.get("unit") != "share":
            key = (figure.get("group", ""), figure.get("unit", ""))
            found.setdefault(key, []).append(figure)
    order = [key for key in _QUESTIONS if key in found]
    order += [key for key in found if key not in _QUESTIONS]
    return [
        ChartGroup(
            key=f"bench_{position}",
            question=_QUESTIONS.get(key, _OTHER_QUESTION),
            unit=key[1],
            figures=tuple(found[key]),
        )
        for position, key in enumerate(order)
        if len(found[key]) > 1
    ]


def _row_and_series(figure: Figure) -> tuple[str, str]:
    """Return a figure's line in its chart, in words, and which marker of the line it is."""
    name = figure["name"]
    stem, _, last = name.rpartition(".")
    series = last if last in _PERCENTILES and stem else "value"
    stem = name if series == "value" else stem
    group = figure.get("group", "")
    stem = stem.removeprefix(f"{group}.") or stem
    return _label(stem.replace("_", " ").replace(".", ", ")), series


def _label(text: str) -> str:
    """Return hostile text as a chart shows it; charts read some HTML, links included."""
    return html.escape(visible(text))


def figures_chart(
    document: Document, group: ChartGroup, palette: Mapping[str, str], height: int | None = None
) -> go.Figure:
    """Return a group's figures as dots with intervals, over the reference's target bands.

    Args:
        document: The benchmark, for its targets.
        group: What to draw.
        palette: Colours by the names of `charts.PALETTE`.
        height: Pixels; by the number of lines if left out.
    """
    rows: list[str] = []
    series: dict[str, list[tuple[int, Figure]]] = {}
    bands: dict[int, Mapping[str, Any]] = {}
    targets = _targets(document)
    for figure in group.figures:
        row, name = _row_and_series(figure)
        if row not in rows:
            rows.append(row)
        series.setdefault(name, []).append((rows.index(row), figure))
        target = targets.get(figure.get("target") or "")
        if target is not None and target["unit"] == group.unit and target["target"] > 0:
            bands.setdefault(rows.index(row), target)
    ends = [figure["value"] for figure in group.figures]
    ends += [
        end
        for figure in group.figures
        for end in (figure.get("low"), figure.get("high"))
        if end is not None and end > 0
    ]
    ends += [band[key] for band in bands.values() for key in ("target", "acceptable") if band[key]]
    left, right = min(ends) / 1.6, max(ends) * 1.6
    ticks = _ticks(left, right)
    better = group.figures[0].get("better", "lower")
    figure = go.Figure([*_bands(bands, left, right, palette)])
    for name, points in series.items():
        figure.add_trace(_dots(name, points, group.unit, left, palette))
    figure.update_layout(
        height=height or 110 + 34 * len(rows),
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        xaxis={
            "title": f"{_label(group.unit)} (logarithmic), {_label(better)} is better",
            "type": "log",
            "range": [math.log10(left), math.log10(right)],
            "tickvals": ticks,
            "ticktext": [_tick(value) for value in ticks],
        },
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": rows,
            "range": [len(rows) - 0.4, -0.6],
            "zeroline": False,
            "showgrid": False,
            "automargin": True,
        },
    )
    return figure


def distributions(document: Document) -> dict[str, list[float]]:
    """Return the end-to-end latencies that a benchmark kept whole, ms at even shares, by name."""
    found: dict[str, list[float]] = {}
    for figure in document["figures"]:
        steps = (
            figure["detail"].get("quantiles") if isinstance(figure.get("detail"), dict) else None
        )
        if figure.get("group") != "end_to_end" or not isinstance(steps, list):
            continue
        is_drawable = 1 < len(steps) <= _MOST_STEPS and all(
            isinstance(step, int | float) and 0 < step < _LONGEST_MS for step in steps
        )
        if is_drawable and steps == sorted(steps):
            found[_row_and_series(figure)[0]] = steps
    return found


def distributions_frame(document: Document) -> pd.DataFrame:
    """Return those latencies as a table: a row a share, a column a mode and outcome."""
    parts = []
    for name, steps in distributions(document).items():
        shares = [place / (len(steps) - 1) for place in range(len(steps))]
        parts.append(pd.DataFrame({"Share": shares, "Case": name, "ms": steps}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def distributions_chart(document: Document, palette: Mapping[str, str]) -> go.Figure:
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
                    "color": palette[mode if mode in colors else "muted"],
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


def cost_frame(document: Document, price: float) -> pd.DataFrame:
    """Return what a million texts cost at a price of one CPU for an hour, by throughput figure."""
    rows = []
    for figure in document["figures"]:
        detail = figure["detail"] if isinstance(figure.get("detail"), dict) else {}
        ms = detail.get("cpu_ms_per_text")
        if figure.get("unit") == "texts/s" and isinstance(ms, int | float) and 0 < ms < _LONGEST_MS:
            hours = ms * 1e6 / 3.6e6
            asked = detail.get("model_asked_share")
            rows.append(
                {
                    "What": _row_and_series(figure)[0],
                    "CPU ms a text": ms,
                    "CPU hours a million": hours,
                    "Price of a million": hours * price,
                    "Asks the model": asked if isinstance(asked, int | float) else None,
                }
            )
    return pd.DataFrame(rows)


def _ticks(left: float, right: float) -> list[float]:
    """Return the powers of ten of an axis, with 2 and 5 between them on a short one."""
    digits = (1, 2, 5) if right / left < 1e3 else (1,)
    powers = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    found = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return [value for value in found if left <= value <= right]


def _tick(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:.12f}".rstrip("0")


_MARKS = {
    "p50": ("ml", "circle"),
    "p95": ("heuristic", "diamond"),
    "p99": ("both", "triangle-up"),
    "value": ("ml", "circle"),
}
"""Colour and marker of each series, so that no chart depends on colour alone."""


def _dots(
    name: str,
    points: Sequence[tuple[int, Figure]],
    unit: str,
    left: float,
    palette: Mapping[str, str],
) -> go.Scatter:
    color, symbol = _MARKS[name]
    values = [figure["value"] for _, figure in points]
    # An interval that reaches 0 is drawn to the axis' end: a logarithm has no 0. An open end
    # gets no line.
    lows = [
        value if figure.get("low") is None else max(figure["low"], left)
        for value, (_, figure) in zip(values, points, strict=True)
    ]
    highs = [
        value if figure.get("high") is None else figure["high"]
        for value, (_, figure) in zip(values, points, strict=True)
    ]
    shown = "measured" if name == "value" else f"{name}, measured"
    return go.Scatter(
        x=values,
        y=[row for row, _ in points],
        mode="markers",
        name=shown,
        marker={"color": palette[color], "symbol": symbol, "size": 10},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, high - value) for high, value in zip(highs, values, strict=True)],
            "arrayminus": [max(0.0, value - low) for low, value in zip(lows, values, strict=True)],
            "thickness": 1.5,
        },
        customdata=[
            [_label(figure["name"]), number(figure["value"]), _interval(figure), figure.get("n")]
            for _, figure in points
        ],
        hovertemplate=(
            f"%{{customdata[0]}}: %{{customdata[1]}} {_label(unit)}<br>"
            "95% interval %{customdata[2]}, n = %{customdata[3]:,}<extra></extra>"
        ),
    )


def _bands(
    bands: Mapping[int, Mapping[str, Any]], left: float, right: float, palette: Mapping[str, str]
) -> list[go.Scatter]:
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
                    line={"color": palette[color], "width": 18},
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


# --- two benchmarks -------------------------------------------------------------------------


def comparison_frame(before: Document, after: Document) -> pd.DataFrame:
    """Return what both benchmarks measured, what the intervals part first.

    Columns: `Figure`, `Before`, `After`, `Unit`, `After / before`, `Times better` (above 1 the
    second is better, whichever direction is good), `Verdict`.

    Raises:
        ConfigError: One of them is no benchmark.
    """
    rows = []
    for row in compare(before, after):
        ratio = row["ratio"]
        gain = ratio if row["better"] == "higher" or not ratio else 1 / ratio
        rows.append(
            {
                "Figure": visible(row["name"]),
                "Before": number(row["before"]),
                "After": number(row["after"]),
                "Unit": visible(row["unit"]),
                "After / before": ratio,
                "Times better": gain,
                "Verdict": row["verdict"],
            }
        )
    order = {"worse": 0, "better": 1, "not decisive": 2}
    rows.sort(key=lambda row: (order[str(row["Verdict"])], row["Times better"] or 0.0))
    return pd.DataFrame(
        rows,
        columns=[
            "Figure",
            "Before",
            "After",
            "Unit",
            "After / before",
            "Times better",
            "Verdict",
        ],
    )


def comparison_chart(
    frame: pd.DataFrame, palette: Mapping[str, str], limit: int = 30
) -> go.Figure | None:
    """Return the figures whose intervals part, as times better or worse; `None` if there are none.

    Args:
        frame: From `comparison_frame`.
        palette: Colours by the names of `charts.PALETTE`.
        limit: The largest changes to draw.
    """
    parted = frame[(frame["Verdict"] != "not decisive") & (frame["Times better"] > 0)]
    if parted.empty:
        return None
    size = parted["Times better"].map(lambda gain: abs(math.log(gain)))
    parted = parted.loc[size.sort_values(ascending=False).index[:limit]]
    names = [_label(name) for name in parted["Figure"]]
    figure = go.Figure()
    for verdict, color, symbol in (("better", "good", "triangle-up"), ("worse", "bad", "x")):
        places = [place for place, said in enumerate(parted["Verdict"]) if said == verdict]
        if places:
            figure.add_trace(
                go.Scatter(
                    x=[float(parted["Times better"].iloc[place]) for place in places],
                    y=places,
                    mode="markers",
                    name=verdict,
                    marker={"color": palette[color], "symbol": symbol, "size": 10},
                    customdata=[names[place] for place in places],
                    hovertemplate="%{customdata}: %{x:.2f} times<extra></extra>",
                )
            )
    figure.add_vline(x=1, line={"color": palette["muted"], "width": 1.5})
    figure.update_layout(
        height=110 + 24 * len(names),
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        xaxis={"title": "times better (right of 1) or worse (left), logarithmic", "type": "log"},
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "range": [len(names) - 0.4, -0.6],
            "zeroline": False,
            "showgrid": False,
            "automargin": True,
        },
    )
    return figure

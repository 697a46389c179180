"""Benchmark documents as tables, and which of their figures share a chart. Pure.

Hides the document's keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dashboard.text import label, visible
from shield_engine.benchmark import compare_benchmarks, number

__all__ = [
    "ChartGroup",
    "Document",
    "Measured",
    "beside",
    "chart_groups",
    "comparison_frame",
    "cost_frame",
    "distributions",
    "distributions_frame",
    "document_title",
    "figure_named",
    "figures_frame",
    "interval_text",
    "line_and_series",
    "machine_frame",
    "ratios_frame",
    "targets_of",
]

Document = Mapping[str, Any]
Measured = Mapping[str, Any]

_PERCENTILES = ("p50", "p95", "p99")
_LONGEST_MS = 1e9
_MOST_STEPS = 1_000
_MAX_NAME = 200
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


def interval_text(row: Measured) -> str:
    """Return a figure's interval in words, an end that is not known as open."""
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


def figure_named(document: Document, name: str) -> Measured | None:
    """Return the figure or ratio of a name, if this benchmark has it."""
    rows: list[Measured] = [*document["figures"], *document["ratios"]]
    return next((row for row in rows if row["name"] == name), None)


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


def targets_of(document: Document) -> dict[str, Mapping[str, Any]]:
    """Return the reference's targets by name."""
    return {target["name"]: target for target in document["targets"]}


def figures_frame(document: Document, figures: Sequence[Measured] | None = None) -> pd.DataFrame:
    """Return one row a figure, the reference's target beside it.

    Args:
        document: The benchmark.
        figures: Some of its figures; all of them by default.
    """
    targets = targets_of(document)
    return pd.DataFrame(
        [
            {
                "Figure": visible(figure["name"]),
                "Value": number(figure["value"]),
                "Unit": visible(figure.get("unit", "")),
                "95% interval": interval_text(figure),
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
                "95% interval": interval_text(ratio),
                "n": ratio.get("n"),
                "Aim": ("at least " if ratio.get("better") == "higher" else "at most ")
                + number(ratio.get("target")),
                "Outcome": _outcome(ratio),
                "Beside it": beside(ratio.get("detail") or {}),
            }
            for ratio in document["ratios"]
        ]
    )


def _outcome(ratio: Measured) -> str:
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
                    "What": line_and_series(figure)[0],
                    "CPU ms a text": ms,
                    "CPU hours a million": hours,
                    "Price of a million": hours * price,
                    "Asks the model": asked if isinstance(asked, int | float) else None,
                }
            )
    return pd.DataFrame(rows)


def comparison_frame(before: Document, after: Document) -> pd.DataFrame:
    """Return what both benchmarks measured, what the intervals part first.

    Columns: `Measured`, `Before`, `After`, `Unit`, `After / before`, `Times better` (above 1 the
    second is better, whichever direction is good), `Verdict`.

    Raises:
        ConfigError: One of them is no benchmark.
    """
    rows = []
    for row in compare_benchmarks(before, after):
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
    columns = ["Figure", "Before", "After", "Unit", "After / before", "Times better", "Verdict"]
    return pd.DataFrame(rows, columns=columns)


# --- what a chart shows ---------------------------------------------------------------------


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
    figures: tuple[Measured, ...]


def chart_groups(document: Document) -> list[ChartGroup]:
    """Return the groups of a benchmark that are worth a chart, known questions first.

    Shares, and groups of a single figure, are left to the table.
    """
    groups: dict[tuple[str, str], list[Measured]] = {}
    for figure in document["figures"]:
        if figure["value"] > 0 and figure.get("unit") != "share":
            key = (figure.get("group", ""), figure.get("unit", ""))
            groups.setdefault(key, []).append(figure)
    order = [key for key in _QUESTIONS if key in groups]
    order += [key for key in groups if key not in _QUESTIONS]
    return [
        ChartGroup(
            key=f"bench_{position}",
            question=_QUESTIONS.get(key, _OTHER_QUESTION),
            unit=key[1],
            figures=tuple(groups[key]),
        )
        for position, key in enumerate(order)
        if len(groups[key]) > 1
    ]


def line_and_series(figure: Measured) -> tuple[str, str]:
    """Return a figure's line in its chart, in words, and which marker of the line it is."""
    name = figure["name"]
    stem, _, last = name.rpartition(".")
    series = last if last in _PERCENTILES and stem else "value"
    stem = name if series == "value" else stem
    group = figure.get("group", "")
    stem = stem.removeprefix(f"{group}.") or stem
    return label(stem.replace("_", " ").replace(".", ", ")), series


def distributions(document: Document) -> dict[str, list[float]]:
    """Return the end-to-end latencies that a benchmark kept whole, ms at even shares, by name."""
    kept_whole: dict[str, list[float]] = {}
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
            kept_whole[line_and_series(figure)[0]] = steps
    return kept_whole


def distributions_frame(document: Document) -> pd.DataFrame:
    """Return those latencies as a table: a row a share, a column a mode and outcome."""
    parts = []
    for name, steps in distributions(document).items():
        shares = [place / (len(steps) - 1) for place in range(len(steps))]
        parts.append(pd.DataFrame({"Share": shares, "Case": name, "ms": steps}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

"""A report as one HTML file: no script, nothing fetched, charts inline, light and dark, printable.

Everything that is shown passes through one filter that writes hidden characters out, then through
autoescape; only markup of this package's own charts is exempt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shield_engine.gates import Judgement
from shield_engine.hostile_text import visible
from shield_engine.metrics.curves import roc_curve_points, threshold_sweep
from shield_engine.metrics.table import METRICS, compared_names, figure_text
from shield_engine.reports.report import Report, leaves
from shield_engine.reports.svg import (
    Bar,
    Curve,
    Dot,
    bars,
    bounds_bar,
    curves,
    forest,
    histogram,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shield_engine.decide.views import ModeView

__all__ = ["as_html"]

_BINS = 40
_TEXT_LIMIT = 4_000


def as_html(report: Report) -> str:
    """Return the report as the text of one HTML file."""
    environment = Environment(
        loader=PackageLoader("shield_engine.reports"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        report=report,
        charts=_charts(report),
        figure=figure_text,
        metrics=METRICS,
        gate_bar=_gate_bar,
        stamp=leaves(report.run.stamp),
        evidence=[] if report.policy is None else leaves(report.policy.evidence),
        text_limit=_TEXT_LIMIT,
    )


def _shown(value: Any) -> Any:
    """Return a value of the template as it may be shown; markup of our own charts as it is."""
    if isinstance(value, Markup):
        return value
    return visible(str(value))


def _charts(report: Report) -> dict[str, Markup]:
    charts, judged = {}, report.views[0]
    if judged.counts.any():
        charts["forest"] = _forest(report)
    if judged.has_both:
        charts["roc"] = _roc(report)
    if judged.risk is not None:
        charts["scores"] = _scores(judged, judged.risk)
    if any(mode.latency.n for mode in report.modes):
        charts["latency"] = _latencies(report)
    return charts


def _forest(report: Report) -> Markup:
    items = []
    shares = [
        name
        for name in compared_names(len(report.modes[0].labels))
        if METRICS[name].unit == "share"
    ]
    for name in shares:
        for series, mode in enumerate(report.modes):
            figure = mode.metrics[name]
            if figure.value is None:
                continue
            has_ends = figure.low is not None and figure.high is not None
            items.append(
                Dot(
                    label=name,
                    series=series,
                    value=100 * figure.value,
                    low=100 * (figure.low or 0.0) if has_ends else None,
                    high=100 * (figure.high or 0.0) if has_ends else None,
                    text=f"{mode.title}, {name}: {figure_text(name, figure, 'line')}",
                )
            )
    return forest("Figures of each mode with 95% intervals", items)


def _roc(report: Report) -> Markup:
    items = []
    for series, (mode, view) in enumerate(zip(report.modes, report.views, strict=True)):
        if view.risk is None or not view.has_both:
            continue
        labels, risk = view.labels[view.counts], view.risk[view.counts]
        curve = roc_curve_points(labels, risk, max_points=300)
        sweep = threshold_sweep(labels, risk, [view.threshold or 0.0])
        mark = (100 * float(sweep.fpr[0]), 100 * float(sweep.recall[0]))
        items.append(Curve(mode.title, series, 100 * curve.fpr, 100 * curve.recall, mark))
    return curves(
        "Recall against the false positive rate of each mode",
        items,
        "false positive rate, % of harmless rows",
        "recall, % of risky rows",
    )


def _scores(view: ModeView, risk: NDArray[np.float64]) -> Markup:
    edges = np.linspace(0, 1, _BINS + 1)
    groups = [(name, view.labels == index) for index, name in enumerate(view.label_names)]
    if not view.counts.any():
        groups = [("rows", np.ones(len(view.labels), dtype=bool))]
    classes = [(name, np.histogram(risk[rows & view.is_scored], edges)[0]) for name, rows in groups]
    return histogram("How many rows have which score", edges, classes, view.threshold)


def _latencies(report: Report) -> Markup:
    items = []
    for series, mode in enumerate(report.modes):
        times = mode.latency
        for name, ms in (("p50", times.p50), ("p95", times.p95), ("p99", times.p99)):
            if ms is not None:
                text = f"{mode.title}, {name}: {ms:.3g} ms, n {times.n:,}"
                items.append(Bar(f"{mode.mode.value} {name}", series, ms, text))
    return bars("Latency of each mode on cache misses", items, "milliseconds")


def _gate_bar(judgement: Judgement) -> Markup:
    if (
        judgement.value is None
        or judgement.low is None
        or judgement.high is None
        or judgement.limit is None
    ):
        return Markup("")
    return bounds_bar(
        judgement.reason, judgement.value, judgement.low, judgement.high, judgement.limit
    )

"""What the Threshold lab shows, computed: rules from inputs, sentences, tables.

Pure: stored scores and choices in, sentences and frames out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shield_engine.decide.bands import BandPoint, Day
from shield_engine.decide.column import Lab, ScoreColumn
from shield_engine.decide.figures import Evaluated
from shield_engine.decide.splits import Optimism, SliceChoice, SplitReport
from shield_engine.decide.thresholds import Choice, ThresholdRule
from shield_engine.metrics.table import COMPARED, METRIC_NAMES, METRICS, figure_text, percent
from shield_engine.policy import Policy
from shield_engine.statistics import Figure

__all__ = [
    "band_title",
    "bands_frame",
    "choice_text",
    "counts_frame",
    "day_frame",
    "exact_text",
    "optimism_text",
    "ordered_bands",
    "policies_frame",
    "rates_frame",
    "risk_of",
    "slices_frame",
    "split_text",
    "sweep_frame",
    "tiles",
]

SMALL_SLICE = 50
"""Rows of a class below which a slice's own threshold carries a warning."""


def choice_text(choice: Choice) -> str:
    """Return a choice in one sentence."""
    if choice.threshold is None:
        return f"{choice.problem[:1].upper()}{choice.problem[1:]}."
    recall = choice.tp / (choice.tp + choice.fn) if choice.tp + choice.fn else None
    fpr = choice.fp / (choice.fp + choice.tn) if choice.fp + choice.tn else None
    proved = f", proved bound {choice.bound:.2%}" if choice.bound is not None else ""
    return (
        f"Threshold {choice.threshold:g}: {choice.tp:,} of {choice.tp + choice.fn:,} risky rows "
        f"found (recall {percent(recall)}), {choice.fp:,} of {choice.fp + choice.tn:,} harmless "
        f"rows flagged (FPR {percent(fpr)}){proved}."
    )


def split_text(report: SplitReport, rule: ThresholdRule) -> str:
    """Return what a split says: how rows were dealt out, what was chosen, what came of it."""
    sides = (
        f"{report.choosing.n:,} rows to choose on, {report.reporting.n:,} to report on; "
        f"{report.units:,} groups or distinct texts were dealt out whole, risky and harmless ones "
        "separately."
    )
    if report.choice.threshold is None:
        return f"{sides} On the choosing half: {choice_text(report.choice)}"
    after = report.reporting.at(report.choice.threshold)
    recall, fpr = float(after.recall[0]), float(after.fpr[0])
    gap = ""
    if report.gap is not None:
        unit = "cost units per text" if rule.kind == "cost" else "points"
        value = report.gap if rule.kind == "cost" else 100 * report.gap
        gap = f" The choosing half flattered by {value:+.2f} {unit}."
    return (
        f"{sides} Chosen there: {report.choice.threshold:g}. On the other half it gives recall "
        f"{percent(recall)} and FPR {percent(fpr)}.{gap}"
    )


def optimism_text(optimism: Optimism, rule: ThresholdRule) -> str:
    """Return the resampled optimism in one sentence."""
    if optimism.value is None or optimism.interval is None or optimism.thresholds is None:
        return (
            "The rule finds no threshold in most resamples, so how much it flatters cannot be told."
        )
    scale, unit = (1.0, "cost units per text") if rule.kind == "cost" else (100.0, "points")
    return (
        f"Choosing and reporting on all rows flatters by {scale * optimism.value:.2f} {unit} on "
        f"average ({scale * optimism.interval.low:.2f} to {scale * optimism.interval.high:.2f} over "
        f"{optimism.resamples} resamples); the threshold itself would move between "
        f"{optimism.thresholds.low:.3g} and {optimism.thresholds.high:.3g}."
    )


def rates_frame(figures: Mapping[str, Figure]) -> pd.DataFrame:
    """Return each rate with its interval, n and method."""
    return pd.DataFrame(
        [
            {
                "Figure": METRICS[name].title,
                "Value with 95% interval": figure_text(name, figures[name]),
                "n": figures[name].n,
                "How": figures[name].method or figures[name].reason or "",
            }
            for name in METRIC_NAMES
            if name in figures
        ]
    )


def tiles(figures: Mapping[str, Figure]) -> list[tuple[str, str, str | None]]:
    """Return title, value and interval of the figures that follow the threshold."""
    return [
        (
            METRICS[name].title,
            percent(figures[name].value),
            figure_text(name, figures[name]).partition(" ")[2].strip("()") or None,
        )
        for name in ("recall", "fpr", "precision", "f1")
        if name in figures
    ]


def exact_text(figures: Evaluated) -> str:
    """Return the figures that go into a policy; `shield eval --policy` prints the same."""
    known = [
        f"{name} {figure_text(name, figure)}"
        for name, figure in figures.metrics.items()
        if figure.value is not None and name in {*COMPARED, "mcc"}
    ]
    if not known:
        return ""
    return (
        f"All rows at this threshold: {', '.join(known)}. `shield eval --policy` prints the same "
        "on the same rows."
    )


def risk_of(lab: Lab) -> NDArray[np.float64]:
    """Return the risk of every scored row of a two-class run, labelled or not."""
    risk: NDArray[np.float64] = np.asarray(lab.view.risk, dtype=np.float64)[lab.view.is_scored]
    return risk


def counts_frame(column: ScoreColumn, threshold: float, names: Sequence[str]) -> pd.DataFrame:
    """Return the confusion matrix as a table."""
    counts = column.at(threshold)
    return pd.DataFrame(
        {
            "Label": list(names),
            "Let through": [int(counts.tn[0]), int(counts.fn[0])],
            "Flagged": [int(counts.fp[0]), int(counts.tp[0])],
        }
    )


def sweep_frame(column: ScoreColumn) -> pd.DataFrame:
    """Return counts and rates against the threshold, highest first."""
    sweep = column.drawn()
    return pd.DataFrame(
        {
            "threshold": sweep.thresholds,
            "tp": sweep.tp,
            "fp": sweep.fp,
            "fn": sweep.fn,
            "tn": sweep.tn,
            "recall": sweep.recall,
            "fpr": sweep.fpr,
            "precision": sweep.precision,
            "f1": sweep.f1,
        }
    )


def day_frame(day: Day) -> pd.DataFrame:
    """Return a day of traffic as a table."""
    lines = (
        ("Risky texts let through", day.missed, ",.0f"),
        ("Risky texts caught", day.caught, ",.0f"),
        ("Harmless texts flagged", day.false_alarms, ",.0f"),
        ("Texts flagged in all", day.flagged, ",.0f"),
        ("Hours of review", day.review_hours, ",.1f"),
        ("Flagged texts that deserve it", day.precision, ".1%"),
    )
    return pd.DataFrame(
        [{"A day": name, "Expected": _ranged(value, form)} for name, value, form in lines]
    )


def _ranged(value: Figure, form: str) -> str:
    if value.value is None:
        return "unknown"
    if value.low is None or value.high is None:
        return format(value.value, form)
    return f"{value.value:{form}} ({value.low:{form}} to {value.high:{form}})"


def ordered_bands(
    points: Sequence[BandPoint], rule: ThresholdRule | None, per_call: float
) -> list[tuple[BandPoint, float | None]]:
    """Return each pair of bands with its cost for 1,000 texts, the best pair first.

    Best is the least cost if the rule is one of cost, else the highest F1; of equals the one that
    asks the model least. Without a rule of cost there is no cost.
    """
    if rule is None or rule.kind != "cost":
        by_f1 = sorted(points, key=lambda point: (-(point.f1 or 0.0), point.asked))
        return [(point, None) for point in by_f1]
    priced = []
    for point in points:
        cost = point.cost(
            miss=rule.miss,
            false_alarm=rule.false_alarm,
            prevalence=rule.prevalence,
            per_call=per_call,
        )
        priced.append((point, None if cost is None else 1_000 * cost))
    priced.sort(key=lambda pair: (np.inf if pair[1] is None else pair[1], pair[0].asked))
    return priced


def band_title(point: BandPoint) -> str:
    """Return a pair of bands with what it gives, in one line."""
    lower = "off" if point.bands.lower is None else f"{point.bands.lower:g}"
    return (
        f"upper {point.bands.upper:g}, lower {lower}: F1 {percent(point.f1)}, recall lost "
        f"{percent(point.recall_lost)}, asks {percent(point.asked)}"
    )


def bands_frame(ordered: Sequence[tuple[BandPoint, float | None]]) -> pd.DataFrame:
    """Return pairs of bands as a table, in the order given; costs only where there are any."""
    frame = pd.DataFrame(
        [
            {
                "Upper band": point.bands.upper,
                "Lower band": "off" if point.bands.lower is None else f"{point.bands.lower:g}",
                "F1": point.f1,
                "Recall": point.recall,
                "Recall lost before the model": point.recall_lost,
                "FPR": point.fpr,
                "Asks the model": point.asked,
                "Mean ms": point.mean_ms,
                "Cost of 1,000 texts": cost,
            }
            for point, cost in ordered
        ]
    )
    if all(cost is None for _, cost in ordered):
        del frame["Cost of 1,000 texts"]
    return frame


def slices_frame(choices: Sequence[SliceChoice], threshold: float) -> pd.DataFrame:
    """Return each slice's own threshold beside the common one, with what to make of it."""
    rows = []
    for item in choices:
        recall, fpr = float(item.common.recall[0]), float(item.common.fpr[0])
        rows.append(
            {
                "Slice": item.value or "(none)",
                "Risky": item.risky,
                "Harmless": item.harmless,
                "Recall at common": None if np.isnan(recall) else percent(recall),
                "FPR at common": None if np.isnan(fpr) else percent(fpr),
                "Own threshold": item.choice.threshold,
                "Adjusted p": item.p_value,
                "What to make of it": _slice_advice(item, threshold),
            }
        )
    return pd.DataFrame(rows)


def _slice_advice(item: SliceChoice, threshold: float) -> str:
    few = min(item.risky, item.harmless) < SMALL_SLICE
    if item.choice.threshold is None:
        return item.choice.problem
    if not item.is_decided:
        return "keep the common one: these rows cannot tell the two apart" + (
            " (few rows)" if few else ""
        )
    direction = "lower" if item.choice.threshold < threshold else "higher"
    warning = f"; chosen on fewer than {SMALL_SLICE} rows of a class, do not rely on it"
    return f"a {direction} one decides better here" + (warning if few else "")


def policies_frame(policies: Sequence[Policy]) -> pd.DataFrame:
    """Return stored policies as a table, newest first."""
    return pd.DataFrame(
        [
            {
                "Policy": policy.title,
                "Task": policy.task.value,
                "Mode": policy.mode.value,
                "Threshold": (
                    "most probable label" if policy.threshold is None else f"{policy.threshold:g}"
                ),
                "Model": policy.scorer or "none",
                "Chosen by": str(policy.evidence.get("chosen_by", "")),
                "Note": policy.note,
            }
            for policy in policies
        ],
        columns=["Policy", "Task", "Mode", "Threshold", "Model", "Chosen by", "Note"],
    )

"""What the Compare page says, computed: the verdict in words, the lattice, the tables.

Pure: stored scores and figures in, sentences and frames out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboard.components import METRIC_TITLES, MODE_TITLES, figure_text, milliseconds, percent
from shield_engine.evaluation.evaluate import ModeEvaluation, ModeView
from shield_engine.evaluation.metrics import (
    Figure,
    confusion,
    paired_binary_metrics,
    paired_multiclass_metrics,
)
from shield_engine.types import Mode

__all__ = [
    "BINARY_NAMES",
    "MULTICLASS_NAMES",
    "cache_frame",
    "figure_frame",
    "headline_metric",
    "latency_frame",
    "lattice",
    "matrix_of",
    "metric_names",
    "verdict",
]

BINARY_NAMES = ("accuracy", "precision", "recall", "f1", "fpr", "roc_auc")
MULTICLASS_NAMES = ("accuracy", "macro_f1", "macro_recall", "mcc")


def metric_names(view: ModeView) -> tuple[str, ...]:
    """Return the metrics that a set of these classes has."""
    return BINARY_NAMES if view.risk is not None else MULTICLASS_NAMES


def headline_metric(view: ModeView) -> str:
    """Return the metric a set is decided on: F1, macro F1, or accuracy where one class is absent."""
    if view.risk is None:
        return "macro_f1"
    present = set(view.labels[view.counts].tolist())
    return "f1" if len(present) == 2 else "accuracy"


def verdict(
    views: Mapping[Mode, ModeView], evaluations: Mapping[Mode, ModeEvaluation], seed: int = 7
) -> str:
    """Return which mode is best in one or two sentences, as far as these rows can tell.

    The best mode is compared with each other on the same resamples of the same rows; a mode whose
    interval of the difference holds 0 is not called worse.
    """
    if len(views) < 2:
        return "This run scored one part only; score both to compare modes."
    name = headline_metric(next(iter(views.values())))
    title = METRIC_TITLES[name]
    ranked = sorted(views, key=lambda mode: -(evaluations[mode].metrics[name].value or 0.0))
    best = ranked[0]
    rows = np.logical_and.reduce([view.counts for view in views.values()])
    n = int(rows.sum())
    beaten: list[tuple[Mode, Figure]] = []
    undecided: list[tuple[Mode, Figure]] = []
    for mode in ranked[1:]:
        difference = _difference(views[mode], views[best], rows, name, seed)
        is_decided = difference.low is not None and difference.low > 0
        (beaten if is_decided else undecided).append((mode, difference))
    head = (
        f"On these {n:,} rows {MODE_TITLES[best]} has the highest {title}, "
        f"{figure_text(name, evaluations[best].metrics[name])}."
    )
    parts = [head]
    if beaten:
        parts.append(
            "It is ahead of "
            + _listed(
                f"{MODE_TITLES[mode]} by {percent(d.value)[:-1]} points "
                f"({_points(d.low)} to {_points(d.high)})"
                for mode, d in beaten
            )
            + "."
        )
    if undecided:
        names = _listed(MODE_TITLES[mode] for mode, _ in undecided)
        is_same = all(d.value == 0 and d.low is None for _, d in undecided)
        parts.append(
            f"{names} gave the same verdicts."
            if is_same
            else f"Between it and {names} these rows do not decide."
        )
    price = _price(best, evaluations)
    return " ".join([*parts, price] if price else parts)


def _price(best: Mode, evaluations: Mapping[Mode, ModeEvaluation]) -> str:
    """Return what the best mode costs in false alarms, where another has fewer."""
    rates = {
        mode: result.metrics["fpr"]
        for mode, result in evaluations.items()
        if result.metrics["fpr"].value is not None
    }
    if best not in rates:
        return ""
    lowest = min(rates, key=lambda mode: rates[mode].value or 0.0)
    if rates[lowest].value == rates[best].value:
        return ""
    return (
        f"Its false positive rate is {figure_text('fpr', rates[best])}; the lowest is "
        f"{MODE_TITLES[lowest]}'s {figure_text('fpr', rates[lowest])}."
    )


def _difference(
    first: ModeView, second: ModeView, rows: NDArray[np.bool_], name: str, seed: int
) -> Figure:
    if first.risk is not None and second.risk is not None:
        figures = paired_binary_metrics(
            first.labels[rows],
            first.risk[rows],
            second.risk[rows],
            first.threshold or 0.0,
            second.threshold or 0.0,
            seed=seed,
        )
    else:
        figures = paired_multiclass_metrics(
            first.labels[rows],
            first.probabilities[rows],
            second.probabilities[rows],
            first.label_names,
            seed=seed,
        )
    return figures[name]


def _points(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.1f}"


def _listed(items: Any) -> str:
    items = list(items)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def figure_frame(evaluations: Mapping[Mode, ModeEvaluation]) -> pd.DataFrame:
    """Return every metric of every mode as numbers: value, interval, n, method, reason."""
    return pd.DataFrame(
        [
            {
                "mode": mode.value,
                "metric": name,
                "value": figure.value,
                "low": figure.low,
                "high": figure.high,
                "n": figure.n,
                "method": figure.method,
                "reason": figure.reason,
            }
            for mode, result in evaluations.items()
            for name, figure in result.metrics.items()
        ]
    )


def matrix_of(view: ModeView) -> NDArray[np.int64]:
    """Return a mode's confusion matrix: rows are labels, columns verdicts."""
    keep = view.counts
    return confusion(view.labels[keep], view.predicted[keep], len(view.label_names))


def latency_frame(evaluations: Mapping[Mode, ModeEvaluation]) -> pd.DataFrame:
    """Return p50, p95 and p99 of each mode, for misses and for hits."""
    rows = []
    for mode, result in evaluations.items():
        for kind, summary in (("miss", result.latency), ("hit", result.latency_hit)):
            rows.append(
                {
                    "Mode": MODE_TITLES[mode],
                    "Cache": kind,
                    "p50": milliseconds(summary.p50),
                    "p95": milliseconds(summary.p95),
                    "p99": milliseconds(summary.p99),
                    "n": summary.n,
                    "How": "summed from its parts"
                    if mode in {Mode.HYBRID, Mode.BOTH} and kind == "miss"
                    else "measured",
                }
            )
    return pd.DataFrame(rows)


def cache_frame(evaluations: Mapping[Mode, ModeEvaluation]) -> pd.DataFrame:
    """Return hits, misses, hit rate and the share of rows that asked the model."""
    return pd.DataFrame(
        [
            {
                "Mode": MODE_TITLES[mode],
                "Hits": result.hits,
                "Misses": result.misses,
                "Hit rate": percent(
                    result.hits / (result.hits + result.misses)
                    if result.hits + result.misses
                    else None
                ),
                "Model asked": percent(result.asked / result.n if result.n else None),
                "Flagged": percent(result.flagged / result.n if result.n else None),
                "Errors": result.errors,
            }
            for mode, result in evaluations.items()
        ]
    )


def lattice(heuristic: ModeView, model: ModeView) -> tuple[pd.DataFrame, list[NDArray[np.int64]]]:
    """Return how heuristic and model verdicts meet each label, and the rows of each line.

    Returns:
        A frame of label, heuristic verdict, ML verdict, rows and share, disagreements first, and
        the positions of each line's rows.
    """
    names = heuristic.label_names
    scored = heuristic.is_scored & model.is_scored
    lines = []
    for label in range(-1, len(names)):
        for one in range(len(names)):
            for other in range(len(names)):
                rows = np.flatnonzero(
                    scored
                    & (heuristic.labels == label)
                    & (heuristic.predicted == one)
                    & (model.predicted == other)
                )
                if len(rows):
                    lines.append((label, one, other, rows))
    lines.sort(key=lambda line: (line[1] == line[2], -len(line[3])))
    total = int(scored.sum())
    frame = pd.DataFrame(
        [
            {
                "Label": names[label] if label >= 0 else "none",
                "Heuristic says": names[one],
                "ML says": names[other],
                "Rows": len(rows),
                "Share": percent(len(rows) / total),
                "Meaning": _meaning(label, one, other),
            }
            for label, one, other, rows in lines
        ],
        columns=["Label", "Heuristic says", "ML says", "Rows", "Share", "Meaning"],
    )
    return frame, [rows for *_, rows in lines]


def _meaning(label: int, one: int, other: int) -> str:
    if label < 0:
        return "they agree" if one == other else "they disagree"
    if one == other:
        return "both right" if one == label else "both wrong: hard row, or the label is"
    if one == label:
        return "only the heuristic is right"
    return "only the model is right" if other == label else "both wrong, differently"

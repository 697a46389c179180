"""What there is to know of each metric, once; and how its figures read.

Pages, commands, reports and gates ask this table which metrics to show, over which rows a metric
is, which way is better, and how to print it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from shield_engine.statistics import Figure

__all__ = [
    "COMPARED",
    "DIFFERENCES",
    "METRICS",
    "METRIC_NAMES",
    "RATES",
    "Metric",
    "compared_names",
    "figure_text",
    "percent",
    "reported_names",
]


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured of a scored set.

    Attributes:
        name: Key in results, gates and files.
        title: On a page.
        help: What it says, in one or two plain sentences.
        of: `rate`, a share of rows; `verdicts`, of the confusion matrix; `scores`; `mode`, a share
            of scored rows that needs no labels; `latency`.
        classes: Of how many classes it tells: `two`, `more`, or `any` number.
        rows: What its n counts.
        undefined: Why there may be no figure; empty if that is for want of one of two classes.
        unit: `share` (0..1, shown as percent), `number` or `ms`.
        is_better_high: What counts as worse in a comparison; `None` if neither does.
        at_fpr: The share of harmless rows that the threshold may flag, where that defines it.
    """

    name: str
    title: str
    help: str
    of: Literal["rate", "verdicts", "scores", "mode", "latency"]
    classes: Literal["two", "more", "any"] = "two"
    rows: str = "labelled rows"
    undefined: str = ""
    unit: Literal["share", "number", "ms"] = "share"
    is_better_high: bool | None = True
    at_fpr: float | None = None

    @property
    def is_proportion(self) -> bool:
        """Whether it is a share of rows, and so has exact bounds."""
        return self.of in {"rate", "mode"}


_TABLE = (
    Metric(
        "recall",
        "Recall",
        "Share of risky rows that are flagged.",
        of="rate",
        rows="risky rows",
        undefined="no risky rows",
    ),
    Metric(
        "fpr",
        "FPR",
        "False positive rate: share of harmless rows that are flagged.",
        of="rate",
        rows="harmless rows",
        undefined="no harmless rows",
        is_better_high=False,
    ),
    Metric(
        "precision",
        "Precision",
        "Share of flagged rows that deserve it. "
        "It falls when attacks are rarer than in this dataset.",
        of="rate",
        rows="flagged rows",
        undefined="no row is flagged at this threshold",
    ),
    Metric(
        "f1",
        "F1",
        "Harmonic mean of precision and recall at the threshold.",
        of="verdicts",
        undefined="no risky rows and none flagged",
    ),
    Metric(
        "accuracy",
        "Accuracy",
        "Share of all rows whose verdict is right. Misleading when one class is rare.",
        of="rate",
        classes="any",
        undefined="no rows",
    ),
    Metric(
        "balanced_accuracy",
        "Balanced accuracy",
        "Mean of recall and of the share of harmless rows let through. "
        "A rare class counts as much as a common one.",
        of="verdicts",
    ),
    Metric(
        "macro_f1",
        "Macro F1",
        "F1 of each class that occurs, averaged with equal weight.",
        of="verdicts",
        classes="more",
        undefined="no rows",
    ),
    Metric(
        "macro_recall",
        "Macro recall",
        "Recall of each class that occurs, averaged with equal weight.",
        of="verdicts",
        classes="more",
        undefined="no rows",
    ),
    Metric(
        "mcc",
        "MCC",
        "Matthews correlation of verdict and label, -1 to 1; "
        "0 is no better than chance. It uses all four cells of the confusion matrix.",
        of="verdicts",
        classes="any",
        undefined="all rows have one label, or all get one verdict",
        unit="number",
    ),
    Metric(
        "roc_auc",
        "ROC AUC",
        "Chance that a risky row scores above a harmless one; ties count half. "
        "It depends on no threshold.",
        of="scores",
    ),
    Metric(
        "pr_auc",
        "PR AUC",
        "Average precision: precision averaged over the recall gained at each threshold.",
        of="scores",
        undefined="no risky rows",
    ),
    Metric(
        "recall_at_1pct_fpr",
        "Recall at 1% FPR",
        "Highest recall of any threshold that flags at most 1% of the "
        "harmless rows. Below some 370 harmless rows its interval reaches down to 0.",
        of="scores",
        at_fpr=0.01,
    ),
    Metric(
        "recall_at_0_1pct_fpr",
        "Recall at 0.1% FPR",
        "Highest recall of any threshold that flags at most 0.1% of the "
        "harmless rows. Below some 3,700 harmless rows its interval reaches down to 0.",
        of="scores",
        at_fpr=0.001,
    ),
    Metric(
        "fpr_at_95_recall",
        "FPR at 95% recall",
        "Lowest false positive rate of any threshold that finds at least 95% of the risky rows.",
        of="scores",
        is_better_high=False,
    ),
    Metric(
        "brier",
        "Brier score",
        "Mean squared distance between score and label; 0 is perfect, and always "
        "answering 0.5 gives 0.25.",
        of="scores",
        undefined="no rows",
        unit="number",
        is_better_high=False,
    ),
    Metric(
        "ece",
        "Calibration error",
        "Expected calibration error: mean gap between score and share of risky rows, over "
        "15 equally wide bins weighted by their rows.",
        of="scores",
        undefined="no rows",
        unit="number",
        is_better_high=False,
    ),
    Metric(
        "length_only_auc",
        "AUC of length alone",
        "ROC AUC when the text's length alone is the score. Far from 0.5 "
        "means that the dataset can be guessed without reading it.",
        of="scores",
        is_better_high=None,
    ),
    Metric(
        "flag_rate",
        "Flag rate",
        "Share of scored rows that are flagged; needs no labels.",
        of="mode",
        classes="any",
        rows="scored rows",
        is_better_high=False,
    ),
    Metric(
        "escalated",
        "Model asked",
        "Share of scored rows on which the model is asked; needs no labels.",
        of="mode",
        classes="any",
        rows="scored rows",
        is_better_high=False,
    ),
    *(
        Metric(
            f"{percentile}_ms",
            f"{percentile} latency",
            f"{what} of a scan that the cache does not answer{unit}.",
            of="latency",
            classes="any",
            rows="rows not from the cache",
            unit="ms",
            is_better_high=False,
        )
        for percentile, what, unit in (
            ("p50", "Median latency", ", milliseconds"),
            ("p95", "95th percentile of the latency", ""),
            ("p99", "99th percentile of the latency", ""),
        )
    ),
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _TABLE})
"""Every metric by name, in reading order."""

METRIC_NAMES = tuple(
    name for name, metric in METRICS.items() if metric.of in {"rate", "verdicts", "scores"}
)
"""Metrics of labelled scores: the keys of `binary_metrics` and `multiclass_metrics`."""

RATES = tuple(
    name
    for name, metric in METRICS.items()
    if metric.of == "rate" and metric.rows != METRICS["precision"].rows
)
"""Shares of rows that do not depend on the verdict: what two modes have in common."""

COMPARED = ("recall", "fpr", "precision", "f1", "accuracy", "roc_auc")
"""What tells most of two classes."""

DIFFERENCES = (*COMPARED[:-1], "mcc")
"""Figures of two classes at a fixed threshold, whose differences are resampled."""


def reported_names(n_classes: int) -> tuple[str, ...]:
    """Return every metric that tells something of a mode's scores of so many classes."""
    other = "more" if n_classes == 2 else "two"
    return tuple(
        name
        for name in METRIC_NAMES
        if METRICS[name].classes != other and METRICS[name].is_better_high is not None
    )


def compared_names(n_classes: int) -> tuple[str, ...]:
    """Return the metrics that modes are compared by."""
    return COMPARED if n_classes == 2 else reported_names(n_classes)


def percent(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Return a share as "93.1%", with its interval as "93.1% (90.2-95.3)"."""
    if value is None:
        return "-"
    if low is None or high is None:
        return f"{value:.1%}"
    return f"{value:.1%} ({low * 100:.1f}-{high * 100:.1f})"


def figure_text(
    name: str, figure: Figure, style: Literal["cell", "change", "words", "line"] = "cell"
) -> str:
    """Return a metric's figure with its interval, as percent unless it is no share.

    Args:
        name: Of the metric.
        figure: What is printed.
        style: `cell`: "93.1% (90.2-95.3)"; `change`, a difference in points: "+3.1 (+1.2 to +5.0)";
            `words`: "93.1% (90.2 to 95.3)"; `line`: with n, or why there is no figure.
    """
    if figure.value is None:
        return f"- ({figure.reason})" if style == "line" else "-"
    is_share = METRICS[name].unit == "share"
    scale, form = (100.0, ".1f") if is_share else (1.0, ".3f")
    if style == "change":
        form = f"+{form}"
    text = f"{scale * figure.value:{form}}{'%' if is_share and style != 'change' else ''}"
    if figure.low is not None and figure.high is not None:
        between = "-" if is_share and style == "cell" else " to "
        text += f" ({scale * figure.low:{form}}{between}{scale * figure.high:{form}})"
    return f"{text}, n {figure.n:,}" if style == "line" else text

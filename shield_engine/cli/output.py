"""How the command shows things: figures with intervals, texts as text."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shield_engine.metrics.table import compared_names, figure_text, percent
from shield_engine.types import ScanResult, Task

if TYPE_CHECKING:
    from shield_engine.evaluate import DatasetEvaluation
    from shield_engine.metrics.figures import LatencySummary

__all__ = [
    "console",
    "errors",
    "note",
    "print_evaluation",
    "print_scan",
    "printable",
    "size",
]

# Rich takes 80 columns where it writes to a pipe or file; tables of runs need more.
# Names and texts of users are no markup.
console = Console(width=None if sys.stdout.isatty() else 160, markup=False)
errors = Console(stderr=True, markup=False)


def note(message: str) -> None:
    """Say something beside the output, on standard error."""
    errors.print(message, markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Return `text` with control characters written out, so that none reaches the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def size(size_bytes: int) -> str:
    """Return bytes in a readable unit."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 1_000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1_000
    return f"{value:.1f} GB"


def print_evaluation(result: DatasetEvaluation) -> None:
    """Print one file's figures, a row a metric, a column a mode."""
    if result.error is not None:
        note(f"error: {printable(result.error)}")
        return
    for warning in result.warnings:
        note(f"warning: {printable(warning)}")
    head = f"{result.item.path}: {result.rows:,} rows, {result.quarantined:,} quarantined"
    columns = {mode.value: found for mode, found in result.modes.items()} | dict(result.peers)
    table = Table(
        "",
        *columns,
        title=Text(printable(head)),
        title_justify="left",
    )
    first = next(iter(columns.values()))
    names = compared_names(len(first.labels))
    if first.positive_label is not None:
        names += ("recall_at_1pct_fpr",)
    for name in names:
        if all(mode.metrics[name].value is None for mode in columns.values()):
            continue
        table.add_row(name, *(figure_text(name, mode.metrics[name]) for mode in columns.values()))
    table.add_row(
        "threshold",
        *(
            "argmax" if mode.threshold is None else f"{mode.threshold:g}"
            for mode in columns.values()
        ),
    )
    table.add_row(
        "rows scored / errors", *(f"{mode.n:,} / {mode.errors:,}" for mode in columns.values())
    )
    table.add_row(
        "flagged",
        *(percent(mode.flagged / mode.n if mode.n else None) for mode in columns.values()),
    )
    table.add_row(
        "model asked",
        *(percent(mode.asked / mode.n if mode.n else None) for mode in columns.values()),
    )
    table.add_row("p50 / p95 / p99 ms", *(_latency(mode.latency) for mode in columns.values()))
    table.add_row(
        "cache hit rate",
        *(
            percent(mode.hits / (mode.hits + mode.misses) if mode.n else None)
            for mode in columns.values()
        ),
    )
    console.print(table)


def print_scan(results: Mapping[Task, ScanResult]) -> None:
    """Print each scanner's verdict with its reasons."""
    for task, result in results.items():
        verdict = Text("pass", "green") if result.is_valid else Text("FLAGGED", "bold red")
        line = Text(f"{task.value}: ")
        line.append_text(verdict)
        threshold = (
            "" if task is Task.SENTIMENT else f", threshold {result.metadata['threshold']:g}"
        )
        line.append(
            f"  {result.metadata['label']}, risk {result.risk_score:.3f} ({result.severity.value}{threshold}), "
            f"{result.method.value}, {result.timings.total_ms:.1f} ms"
        )
        if "linear_score" in result.metadata:
            line.append(f", linear tier {result.metadata['linear_score']:.3f}")
        if result.model is not None:
            line.append(f", {result.model.id} {result.model.variant} {result.model.sha256[:12]}")
        console.print(line, soft_wrap=True)
        for factor in result.risk_factors[:5]:
            console.print(
                Text(f"    {factor.score:.2f} {factor.type}: {factor.description}"), soft_wrap=True
            )


def _latency(latency: LatencySummary) -> str:
    if latency.p50 is None or latency.p95 is None or latency.p99 is None:
        return "-"
    return f"{latency.p50:.2f} / {latency.p95:.2f} / {latency.p99:.2f}"

"""How the command shows and writes things: figures with intervals, texts as text, files whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shield_engine.errors import ConfigError
from shield_engine.metrics.table import compared_names, figure_text, percent
from shield_engine.settings import write_file
from shield_engine.types import Mode, ScanResult, Task

if TYPE_CHECKING:
    from shield_engine.decide.figures import Evaluated
    from shield_engine.evaluate import DatasetEvaluation

__all__ = [
    "EXIT_FAILED",
    "check_targets",
    "console",
    "errors",
    "json_text",
    "note",
    "print_evaluation",
    "print_scan",
    "print_table",
    "printable",
    "size",
    "write_out",
]

EXIT_FAILED = 100
"""What was asked for was judged and does not hold."""

_Item = TypeVar("_Item")

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


def json_text(document: Any) -> str:
    """Return a document as the command writes JSON."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def check_targets(*targets: Path | None) -> None:
    """Refuse what cannot be written before anything is computed.

    Raises:
        ConfigError: A target is a folder, or lies in none.
    """
    for target in targets:
        if target is None or str(target) == "-":
            continue
        folder = target.absolute().parent
        if not folder.is_dir():
            raise ConfigError(f"{target} cannot be written: {folder} is not a folder")
        if target.is_dir():
            raise ConfigError(f"{target} is a folder; name a file")


def write_out(target: Path, text: str) -> None:
    """Write a file whole, or to standard output for `-`."""
    if str(target) == "-":
        sys.stdout.write(text)
    else:
        write_file(target, text)


def print_table(
    columns: Mapping[str, Callable[[_Item], str]],
    items: Iterable[_Item],
    *,
    title: str | None = None,
    empty: str | None = None,
) -> None:
    """Print a row an item, each column by its function; where there is no item, say `empty`."""
    table = Table(*columns, title=title)
    for item in items:
        table.add_row(*(printable(cell(item)) for cell in columns.values()))
    console.print(table if table.row_count or empty is None else empty)


def print_evaluation(result: DatasetEvaluation) -> None:
    """Print one file's figures, a row a metric, a column a mode."""
    if result.error is not None:
        note(f"error: {printable(result.error)}")
        return
    for warning in result.warnings:
        note(f"warning: {printable(warning)}")
    from shield_engine.decide.candidates import candidate_title

    head = f"{result.item.path}: {result.rows:,} rows, {result.quarantined:,} quarantined"
    columns = {mode.value: figures for mode, figures in result.modes.items()}
    for guard, modes in result.guards.items():
        columns |= {
            candidate_title(mode, guard): figures
            for mode, figures in modes.items()
            if mode is not Mode.HEURISTIC  # the rules are those of the first column
        }
    table = Table("", *columns, title=Text(printable(head)), title_justify="left")
    first = next(iter(columns.values()))
    names = compared_names(len(first.labels))
    if first.positive_label is not None:
        names += ("recall_at_1pct_fpr",)
    for name in names:
        metrics = [figures.metrics[name] for figures in columns.values()]
        if any(metric.value is not None for metric in metrics):
            table.add_row(name, *(figure_text(name, metric) for metric in metrics))
    for name, cell in _COUNTS.items():
        table.add_row(name, *(cell(figures) for figures in columns.values()))
    console.print(table)


def _latency(figures: Evaluated) -> str:
    latency = figures.latency
    if latency.p50 is None or latency.p95 is None or latency.p99 is None:
        return "-"
    return f"{latency.p50:.2f} / {latency.p95:.2f} / {latency.p99:.2f}"


def _share(part: int, whole: int) -> str:
    return percent(part / whole if whole else None)


_COUNTS: Mapping[str, Callable[[Evaluated], str]] = {
    "threshold": lambda m: "argmax" if m.threshold is None else f"{m.threshold:g}",
    "rows scored / errors": lambda m: f"{m.n:,} / {m.errors:,}",
    "flagged": lambda m: _share(m.flagged, m.n),
    "model asked": lambda m: _share(m.asked, m.n),
    "p50 / p95 / p99 ms": _latency,
    "cache hit rate": lambda m: _share(m.hits, m.hits + m.misses),
}


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
            line.append(f", {result.model.title} {result.model.sha256[:12]}")
        console.print(line, soft_wrap=True)
        for factor in result.risk_factors[:5]:
            console.print(
                Text(f"    {factor.score:.2f} {factor.type}: {factor.description}"), soft_wrap=True
            )

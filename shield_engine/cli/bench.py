"""`shield bench`: measure this machine, show, compare and keep what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from shield_engine.cli.output import console, json_text, note, write_out
from shield_engine.cli.session import (
    evaluation_store,
    open_shield,
    option,
    progress_bar,
    with_options,
)
from shield_engine.errors import ConfigError
from shield_engine.settings import write_file

if TYPE_CHECKING:
    from shield_engine.engine import Shield

__all__ = ["bench"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What is measured, and where the document goes."""

    quick: bool = option(False, "Fewer calls: under a minute.", "--quick")
    workbench: bool = option(
        False, "Time the pages' questions to a large synthetic run.", "--workbench"
    )
    rows: int | None = option(None, "Of that run: 1,000,000, with --quick 100,000.", min=1_000)
    soak: float | None = option(
        None, "Scan for so many minutes instead; are scores and memory steady?", min=0.01
    )
    before: Path | None = option(
        None, "Name what changed since this file of `bench --json`.", "--compare"
    )
    markdown_out: Path | None = option(
        None, "Write the tables to this file, or between its marks.", "--markdown"
    )
    json_out: Path | None = option(
        None, "Write the figures to this file, - for standard output.", "--json"
    )
    store: bool = option(True, "Keep datasets and runs for the dashboard.", "--store/--no-store")

    def __post_init__(self) -> None:
        if self.rows is not None and not self.workbench:
            raise typer.BadParameter("goes with --workbench", param_hint="--rows")
        if self.soak is not None and (self.workbench or self.before or self.markdown_out):
            raise typer.BadParameter("goes with --json only", param_hint="--soak")


@with_options
def bench(options: BenchOptions) -> None:
    """Measure this machine: loading, tokenizing, inference, cache, end to end; or the workbench."""
    from shield_engine.benchmark import (
        benchmark_markdown,
        compare_benchmarks,
        comparison_markdown,
        read_document,
        run_benchmark,
        run_workbench,
    )

    earlier = read_document(_read_bytes(options.before)) if options.before else None
    if options.soak is not None:
        _soak(options.soak, options.json_out or Path("-"))
        return
    shield = open_shield()
    with progress_bar("measuring") as advance:
        if options.workbench:
            rows = options.rows or (100_000 if options.quick else 1_000_000)
            document = run_workbench(rows, on_progress=advance)
        else:
            document = run_benchmark(shield, quick=options.quick, on_progress=advance)
    if options.json_out is not None:
        write_out(options.json_out, json_text(document))
    if options.markdown_out is not None:
        _write_between_marks(options.markdown_out, benchmark_markdown(document))
    if str(options.json_out) != "-":
        console.print(benchmark_markdown(document), markup=False, highlight=False, soft_wrap=True)
        if earlier is not None:
            changes = comparison_markdown(compare_benchmarks(earlier, document))
            console.print(changes, markup=False, highlight=False, soft_wrap=True)
    if options.store and not options.workbench:
        _keep(shield, document)


def _keep(shield: Shield, document: Mapping[str, Any]) -> None:
    from shield_engine.store.library import save_benchmark

    with evaluation_store(shield.settings) as store:
        if store.path is None:
            note("the store is held by another process; this benchmark was not kept (use --json)")
        else:
            save_benchmark(store, document)


def _soak(minutes: float, out: Path) -> None:
    from shield_engine.benchmark import run_soak

    with progress_bar("soaking") as advance:
        outcome = run_soak(open_shield(), minutes=minutes, on_progress=advance)
    write_out(out, json_text(outcome))
    if outcome["wrong_scores"]:
        raise typer.Exit(1)


def _write_between_marks(path: Path, tables: str) -> None:
    """Replace what a page holds between its marks; a file that is not there gets the tables alone."""
    from shield_engine.reports.markdown import replace_figures

    if path.exists():
        replace_figures(path, tables.partition("\n\n")[2])  # the page has a title of its own
    else:
        write_file(path, tables)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error

"""`shield datasets`, `shield runs` and `shield export`: what lies in the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shield_engine.cli.output import note, print_table, size
from shield_engine.cli.session import evaluation_store, open_shield, rows_bar
from shield_engine.errors import ConfigError
from shield_engine.settings import Settings, bundled, replacing

if TYPE_CHECKING:
    from shield_engine.store import DatasetInfo, RunInfo

__all__ = ["datasets", "export", "runs"]

_DATASETS: Mapping[str, Callable[[DatasetInfo], str]] = {
    "id": lambda info: info.dataset_id,
    "dataset": lambda info: info.title,
    "task": lambda info: info.task.value,
    "rows": lambda info: f"{info.rows:,}",
    "labelled": lambda info: f"{info.labelled:,}",
    "quarantined": lambda info: f"{info.quarantined:,}",
    "imported (UTC)": lambda info: f"{info.created_at:%Y-%m-%d %H:%M}",
}
_SAMPLES: Mapping[str, Callable[[Path], str]] = {
    "bundled sample": str,
    "size": lambda path: size(path.stat().st_size),
}
_CATALOGUE: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "public set": lambda entry: entry["name"],
    "task": lambda entry: entry["task"],
    "rows": lambda entry: str(entry.get("rows") or ""),
    "licence": lambda entry: entry["licence"],
    "home": lambda entry: entry["home"],
}
_RUNS: Mapping[str, Callable[[tuple[RunInfo, str]], str]] = {
    "run": lambda row: row[0].run_id,
    "dataset": lambda row: row[1],
    "task": lambda row: row[0].task.value,
    "parts": lambda row: "+".join(row[0].parts),
    "model": lambda row: row[0].scorer or "",
    "status": lambda row: row[0].status,
    "rows": lambda row: f"{row[0].rows_done:,}/{row[0].rows:,}",
    "errors": lambda row: str(row[0].errors),
    "seconds": lambda row: f"{row[0].seconds:.1f}",
    "started (UTC)": lambda row: f"{row[0].started_at:%Y-%m-%d %H:%M}",
}


def datasets() -> None:
    """List stored datasets, bundled samples and public benchmark sets."""
    with evaluation_store(Settings.from_env()) as store:
        stored = store.datasets.all()
        if store.path is None:
            note("the store is held by another process; stored datasets are not listed")
    empty = "No dataset is stored yet: shield eval FILE --task ..."
    print_table(_DATASETS, stored, title="Stored", empty=empty)
    print_table(_SAMPLES, sorted(bundled("datasets").glob("*.jsonl")), title="Samples")
    catalogue = json.loads(bundled("datasets", "catalogue.json").read_text(encoding="utf-8"))
    print_table(_CATALOGUE, catalogue, title="Public benchmark sets (fetch them yourself)")


def runs(
    resume: Annotated[str | None, typer.Option(help="Go on with the run of this id.")] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="With --resume: score failed rows again.")
    ] = False,
    delete: Annotated[
        str | None, typer.Option(help="Drop the run of this id and its scores.")
    ] = None,
) -> None:
    """List stored runs; resume or delete one."""
    from shield_engine.runs.execution import execute
    from shield_engine.store import Store

    settings = Settings.from_env()
    with Store.open(settings.store_path) as store:
        if delete is not None:
            store.runs.delete(delete)
            note(f"run {delete} is gone")
        if resume is not None:
            shield = open_shield(settings)
            with rows_bar(f"run {resume}") as advance:
                execute(store, shield, resume, retry_errors=retry_errors, on_progress=advance)
        names = {info.dataset_id: info.title for info in store.datasets.all()}
        rows = [(run, names.get(run.dataset_id, "")) for run in store.runs.all()]
    print_table(_RUNS, rows, empty="No run is stored yet: shield eval FILE --task ...")


def export(
    run_id: Annotated[str, typer.Argument(help="A run's id, as `shield runs` shows it.")],
    out: Annotated[Path, typer.Argument(help="File to write: .parquet or .csv.")],
) -> None:
    """Write every row's scores of a run to a new file."""
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    from shield_engine.decide.figures import scores_table
    from shield_engine.hostile_text import neutralised
    from shield_engine.store import Store

    if out.exists():
        raise ConfigError(f"{out} exists already; nothing is overwritten")
    with Store.open(Settings.from_env().store_path) as store:
        table = scores_table(store, run_id)
    if out.suffix not in {".parquet", ".csv"}:
        raise ConfigError(
            f"{out.suffix or 'no ending'} is not a format to export to; use .parquet or .csv"
        )
    with replacing(out) as partial:
        if out.suffix == ".parquet":
            pq.write_table(table, partial)
        else:
            pa_csv.write_csv(neutralised(table), partial)
    note(f"{len(table):,} rows in {out}")

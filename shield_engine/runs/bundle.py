"""Run bundles: a run as files, written while another process holds the store.

A bundle is a folder of four Parquet files and `manifest.json` with their SHA-256. It appears under
its final name only when it is whole. One that cannot be taken in is set aside with its reason.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shield_engine.errors import ArtifactError
from shield_engine.hostile_text import visible
from shield_engine.settings import file_sha256, write_file
from shield_engine.store import RunInfo, RunStatus, Store
from shield_engine.types import LABELS, Task

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["import_bundle", "refused_bundles", "waiting_bundles", "write_bundle"]

_TABLES = ("dataset", "dataset_rows", "run", "results")
_STORED = ("datasets", "dataset_rows", "runs", "results")
_FORMAT = 1
_LATER = frozenset({"linear", "linear_ms"})
"""Columns that bundles of older programs lack."""
_REFUSED = "refused"
_REASON = "reason.txt"
_RUN_ID = re.compile(r"[0-9a-f]{1,32}")


def write_bundle(store: Store, run_id: str, folder: Path) -> Path:
    """Write a run to `folder/run_id` and return that path."""
    import pyarrow.parquet as pq

    target = folder / run_id
    partial = folder / f".{run_id}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, table in zip(_TABLES, store.runs.tables(run_id), strict=True):
        path = partial / f"{name}.parquet"
        pq.write_table(table, path, compression="zstd")
        digests[path.name] = file_sha256(path)
    manifest = {"format": _FORMAT, "run_id": run_id, "files": digests}
    write_file(partial / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    return partial.rename(target)


def waiting_bundles(folder: Path) -> list[Path]:
    """Return the whole bundles in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    bundles = [path.parent for path in folder.glob("[!.]*/manifest.json")]
    return sorted(bundles, key=lambda path: (path.stat().st_mtime, path.name))


def refused_bundles(folder: Path) -> dict[Path, str]:
    """Return the bundles that were set aside, each with its reason."""
    reasons = sorted((folder / _REFUSED).glob(f"*/{_REASON}"))
    return {path.parent: path.read_text("utf-8", "replace").strip() for path in reasons}


def import_bundle(store: Store, bundle: Path) -> RunInfo:
    """Take a bundle into the store in one transaction, then remove it.

    Raises:
        ArtifactError: It is no whole and sound run: it was set aside, the store is unchanged.
        StoreError: The store cannot be written; the bundle waits where it is.
    """
    try:
        tables = _sound_tables(store, bundle)
    except ArtifactError as error:
        aside = bundle.parent / _REFUSED / f"{bundle.name}-{uuid.uuid4().hex[:8]}"
        aside.parent.mkdir(exist_ok=True)
        bundle.rename(aside)
        write_file(aside / _REASON, f"{visible(str(error))}\n")
        raise ArtifactError(f"{error}; it was set aside as {aside}") from error
    run = store.runs.add_tables(tables)
    shutil.rmtree(bundle)
    return run


def _sound_tables(store: Store, bundle: Path) -> list[pa.Table]:
    """Return a bundle's tables, of the store's columns and types.

    Raises:
        ArtifactError: A file is missing, was altered, or does not hold what a run is.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT:
            raise ArtifactError(f"{bundle} has bundle format {manifest['format']}, not {_FORMAT}")
        for name in _TABLES:
            path = bundle / f"{name}.parquet"
            if file_sha256(path) != manifest["files"][path.name]:
                raise ArtifactError(f"{path} was altered since it was written; it is not imported")
        tables = [
            _cast(pq.read_table(bundle / f"{name}.parquet"), store, stored)
            for name, stored in zip(_TABLES, _STORED, strict=True)
        ]
        if problem := next(_problems(manifest["run_id"], *tables), None):
            raise ArtifactError(f"{bundle} is no sound run bundle: {problem}")
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        RecursionError,
        pa.ArrowException,
    ) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ArtifactError(f"{bundle} is not a whole run bundle: {reason}") from error
    return tables


def _cast(table: pa.Table, store: Store, stored: str) -> pa.Table:
    """Return a table in the store's types; every column must be one of the store's, and there."""
    import pyarrow as pa

    schema = store.arrow(f"SELECT * FROM {stored} LIMIT 0").schema
    names = [name for name in schema.names if name in table.column_names or name not in _LATER]
    if sorted(names) != sorted(table.column_names):
        raise ValueError(f"{stored} has the columns {', '.join(table.column_names)}")
    return table.select(names).cast(pa.schema([schema.field(name) for name in names]))


def _problems(
    run_id: Any, dataset: pa.Table, rows: pa.Table, run: pa.Table, results: pa.Table
) -> Iterator[str]:
    """Yield what keeps four tables from being one run over one dataset."""
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        yield f"{run_id!r} is no run's id"
    if len(dataset) != 1 or len(run) != 1:
        yield f"it holds {len(dataset)} datasets and {len(run)} runs"
    (about,), (scored,) = dataset.to_pylist(), run.to_pylist()
    if scored["run_id"] != run_id or set(results["run_id"].to_pylist()) - {run_id}:
        yield "its rows are those of another run"
    datasets = {scored["dataset_id"], *rows["dataset_id"].to_pylist()}
    if datasets != {about["dataset_id"]}:
        yield "its rows are those of another dataset"
    yield from _run_problems(about, scored)
    yield from _row_problems(rows, about)
    if not 0 <= scored["rows"] <= len(rows):
        yield f"it scored {scored['rows']} of {len(rows)} rows"
    yield from _score_problems(results, scored["rows"], len(LABELS[Task(about["task"])]))


def _run_problems(about: dict[str, Any], scored: dict[str, Any]) -> Iterator[str]:
    if about["task"] not in set(Task) or scored["task"] != about["task"]:
        yield f"unknown task {scored['task']!r}"
    if scored["status"] not in set(RunStatus) - {RunStatus.RUNNING}:
        yield f"unknown status {scored['status']!r}"
    if not scored["parts"] or not set(scored["parts"]) <= {"heuristic", "ml"}:
        yield f"unknown parts {scored['parts']!r}"
    for document in (about["details"], scored["settings"], scored["stamp"]):
        if not isinstance(json.loads(document), dict):
            yield "details, settings and stamp are no objects"


def _row_problems(rows: pa.Table, about: dict[str, Any]) -> Iterator[str]:
    count, labels = len(rows), LABELS[Task(about["task"])]
    if rows["row_index"].to_pylist() != list(range(count)) or about["rows"] != count:
        yield "the rows of its dataset are not numbered one by one"
    if not set(rows["label"].to_pylist()) <= {None, *range(len(labels))}:
        yield "a label is none of the task's"
    texts = zip(rows["text"].to_pylist(), rows["text_sha256"].to_pylist(), strict=True)
    if any(text is not None and _digest(text) != digest for text, digest in texts):
        yield "a text is not the one of its SHA-256"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _score_problems(results: pa.Table, count: int, width: int) -> Iterator[str]:
    """Yield what is wrong with the scores of `count` rows."""
    indexes = results["row_index"].to_pylist()
    if len(set(indexes)) != len(indexes):
        yield "a row has two results"
    if not all(index is not None and 0 <= index < count for index in indexes):
        yield "a result belongs to no row"
    linear = results["linear"].to_pylist() if "linear" in results.column_names else []
    lists = [*results["heuristic"].to_pylist(), *results["model"].to_pylist()]
    if any(len(values) != width for values in lists if values is not None):
        yield f"scores are not {width} a row"
    scores = [value for values in lists if values is not None for value in values]
    if not all(value is not None and 0 <= value <= 1 for value in scores) or not all(
        value is None or 0 <= value <= 1 for value in linear
    ):
        yield "a score is no share from 0 to 1"

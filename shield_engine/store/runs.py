"""Runs: what was scored with what, and each row's raw scores; verdicts are computed, not stored."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from shield_engine.errors import StoreError, UnknownNameError
from shield_engine.store.connection import Connection, utc_now
from shield_engine.store.datasets import DatasetInfo, Datasets, dataset_info
from shield_engine.types import LABELS, Task

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["RunInfo", "RunStamp", "RunStatus", "Runs", "Scores"]


class RunStatus(StrEnum):
    """States of a run."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class RunStamp(TypedDict, total=False):
    """What is needed to repeat a run, as JSON; runs of older programs lack the newer keys.

    Attributes:
        dataset_hash: Content hash of the dataset version.
        rules_version: `None` if the rules did not run.
        linear_version: `None` if hybrid's linear tier did not run.
        model: Everything that decides the model's score of a text; `None` without a model.
        guard: Name, version and threshold of an outside guard that stood in for the model.
        packages: Version of each package that decides scores.
        machine: Platform, processor, Python and number of workers.
        git_commit: Of the program, where it runs from a checkout.
        reused_run: The earlier run whose model scores were taken over.
        scores: Of scores that came in a file, the column; see `ScoreColumn`.
    """

    dataset_hash: str
    rules_version: str | None
    linear_version: str | None
    model: dict[str, Any] | None
    guard: dict[str, Any] | None
    packages: dict[str, str]
    machine: dict[str, Any]
    git_commit: str | None
    reused_run: str
    scores: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One scoring of a dataset version, with everything that decides its scores."""

    run_id: str
    dataset_id: str
    task: Task
    parts: tuple[str, ...]
    model_id: str | None
    variant: str | None
    model_sha256: str | None
    settings: Mapping[str, Any]
    stamp: RunStamp
    status: RunStatus
    rows: int
    rows_done: int
    errors: int
    error: str | None
    seconds: float
    started_at: datetime
    finished_at: datetime | None

    @property
    def scorer(self) -> str | None:
        """What scored beside the rules, as candidates are called; `None` if nothing did."""
        guard = self.stamp.get("guard")
        if guard:
            return f"{guard['name']} {guard['version']}".rstrip()
        return f"{self.model_id} {self.variant}" if self.model_id else None

    @property
    def is_given(self) -> bool:
        """True if its scores came in a file, so that nobody can be asked for more."""
        return (self.stamp.get("guard") or {}).get("kind") == "scores"

    @property
    def is_resumable(self) -> bool:
        """True if rows are left to score."""
        stopped = {RunStatus.INTERRUPTED, RunStatus.CANCELLED, RunStatus.FAILED}
        return self.status in stopped and not self.is_given


@dataclass(frozen=True, slots=True)
class Scores:
    """A run's stored rows as arrays, in row order.

    Attributes:
        labels: Index into the task's labels, -1 where a row has none.
        heuristic: Probabilities, shape (n, labels), or `None` if that part did not run.
        model: Probabilities, NaN where the model failed, or `None`.
        heuristic_ms: Normalise plus rules, milliseconds; NaN where the row came from the cache.
        model_ms: Tokenize plus infer, milliseconds; NaN where the row came from the cache.
        hit_ms: Milliseconds of a cache hit, NaN on a miss.
        is_hit: True where the cache answered.
        has_error: True where a part failed.
        linear: Score of hybrid's linear tier, NaN where it said nothing; `None` without any.
        parts_ms: Milliseconds of each part by name.
    """

    task: Task
    row_index: NDArray[np.int64]
    row_id: NDArray[np.object_]
    labels: NDArray[np.int64]
    chars: NDArray[np.int64]
    heuristic: NDArray[np.float64] | None
    model: NDArray[np.float64] | None
    heuristic_ms: NDArray[np.float64]
    model_ms: NDArray[np.float64]
    hit_ms: NDArray[np.float64]
    is_hit: NDArray[np.bool_]
    has_error: NDArray[np.bool_]
    linear: NDArray[np.float64] | None = None
    parts_ms: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row_index)

    @property
    def tiers_ms(self) -> NDArray[np.float64]:
        """Milliseconds of all that hybrid does before it asks the model."""
        linear_ms = self.parts_ms.get("linear_ms")
        return (
            self.heuristic_ms if linear_ms is None else self.heuristic_ms + np.nan_to_num(linear_ms)
        )


_RUN_COLUMNS = """
    r.run_id, r.dataset_id, r.task, r.parts, r.model_id, r.variant, r.model_sha256, r.settings,
    r.stamp, r.status, r.rows, coalesce(c.rows_done, 0), coalesce(c.errors, 0), r.error, r.seconds,
    r.started_at, r.finished_at
    FROM runs r LEFT JOIN (
        SELECT run_id, count(*) AS rows_done, count(error) AS errors FROM results GROUP BY run_id
    ) c USING (run_id)
"""
_SCORED_ROWS = """
    FROM results s JOIN runs r USING (run_id)
    JOIN dataset_rows d ON d.dataset_id = r.dataset_id AND d.row_index = s.row_index
    WHERE s.run_id = ? ORDER BY s.row_index
"""
"""SQL of a run's rows in order; one parameter, the run's id."""
_LISTS = ("heuristic", "model")


class Runs:
    """The runs of a store."""

    def __init__(self, connection: Connection, datasets: Datasets):
        self._connection = connection
        self._datasets = datasets

    def add(
        self,
        dataset: DatasetInfo,
        *,
        parts: Sequence[str],
        rows: int,
        model_id: str | None,
        variant: str | None,
        model_sha256: str | None,
        settings: Mapping[str, Any],
        stamp: RunStamp,
    ) -> RunInfo:
        """Note a new run, in state running."""
        run_id = uuid.uuid4().hex[:12]
        values = {
            "run_id": run_id,
            "dataset_id": dataset.dataset_id,
            "task": dataset.task.value,
            "parts": list(parts),
            "model_id": model_id,
            "variant": variant,
            "model_sha256": model_sha256,
            "settings": json.dumps(settings),
            "stamp": json.dumps(stamp),
            "status": RunStatus.RUNNING,
            "rows": rows,
            "started_at": utc_now(),
        }
        self._connection.insert("runs", values)
        return self.find(run_id)

    def append(self, run_id: str, rows: pa.Table, seconds: float) -> None:
        """Store one batch of results in one transaction, with the time it took.

        Raises:
            StoreError: The batch cannot be written (a full disk); nothing of it is kept.
        """
        with self._connection.writing() as cursor:
            # fetchall, as DuckDB registers nothing while a result is unfinished.
            # Scores of a file were not made from the texts, so they hold no word of them.
            stored = cursor.execute(
                "SELECT d.purged AND coalesce(r.stamp ->> '$.guard.kind', '') <> 'scores' "
                "FROM runs r JOIN datasets d USING (dataset_id) WHERE r.run_id = ?",
                [run_id],
            ).fetchall()
            if not stored:
                raise StoreError(f"run {run_id} was deleted while it was being scored")
            if stored[0][0]:
                raise StoreError(f"the texts of run {run_id} were purged while it was being scored")
            self._connection.append("results", rows)
            cursor.execute(
                "UPDATE runs SET seconds = seconds + ? WHERE run_id = ?", [seconds, run_id]
            )

    def set_status(self, run_id: str, status: RunStatus, error: str | None = None) -> None:
        """Move a run to another state."""
        finished = None if status == RunStatus.RUNNING else utc_now()
        self._connection.execute(
            "UPDATE runs SET status = ?, error = ?, finished_at = ? WHERE run_id = ?",
            [status, error, finished, run_id],
        )

    def all(self, dataset_id: str | None = None) -> list[RunInfo]:
        """Return runs, newest first, of one dataset or of all."""
        where, values = ("WHERE r.dataset_id = ?", [dataset_id]) if dataset_id else ("", [])
        rows = self._connection.fetch(
            f"SELECT {_RUN_COLUMNS} {where} ORDER BY r.started_at DESC", values
        )
        return [_run_info(row) for row in rows]

    def find(self, run_id: str) -> RunInfo:
        """Return one run.

        Raises:
            UnknownNameError: There is none of that id.
        """
        rows = self._connection.fetch(f"SELECT {_RUN_COLUMNS} WHERE r.run_id = ?", [run_id])
        if not rows:
            raise UnknownNameError(f"no run {run_id}; `shield runs` lists what is stored")
        return _run_info(rows[0])

    def delete(self, run_id: str) -> None:
        """Drop a run and its results."""
        self.find(run_id)
        with self._connection.writing() as cursor:
            cursor.execute("DELETE FROM results WHERE run_id = ?", [run_id])
            cursor.execute("DELETE FROM runs WHERE run_id = ?", [run_id])

    def drop_errors(self, run_id: str) -> int:
        """Drop a run's errored rows so that resuming scores them again; return how many."""
        with self._connection.writing() as cursor:
            ((dropped,),) = cursor.execute(
                "DELETE FROM results WHERE run_id = ? AND error IS NOT NULL", [run_id]
            ).fetchall()
        return int(dropped)

    def first_error(self, run_id: str) -> str | None:
        """Return the error of the first row that failed."""
        rows = self._connection.fetch(
            "SELECT error FROM results WHERE run_id = ? AND error IS NOT NULL "
            "ORDER BY row_index LIMIT 1",
            [run_id],
        )
        return rows[0][0] if rows else None

    def done_rows(self, run_id: str) -> set[int]:
        """Return the indexes of rows that have a result."""
        rows = self._connection.fetch("SELECT row_index FROM results WHERE run_id = ?", [run_id])
        return {int(index) for (index,) in rows}

    def scores(self, run_id: str) -> Scores:
        """Return a run's scores and timings as arrays."""
        run = self.find(run_id)
        table = self._connection.arrow(
            f"""
            SELECT s.row_index, d.row_id, coalesce(d.label, -1)::BIGINT AS label, d.chars,
                s.heuristic, s.model, s.linear, s.normalise_ms, s.rules_ms, s.linear_ms,
                s.tokenize_ms, s.infer_ms, s.is_hit, s.hit_ms, s.error IS NOT NULL AS has_error
            {_SCORED_ROWS}
            """,
            [run_id],
        )
        columns = {
            name: table[name].to_numpy() for name in table.column_names if name not in _LISTS
        }
        width = len(LABELS[run.task])
        parts_ms = {
            name: columns[name].astype(float)
            for name in ("normalise_ms", "rules_ms", "linear_ms", "tokenize_ms", "infer_ms")
        }
        return Scores(
            task=run.task,
            row_index=columns["row_index"],
            row_id=columns["row_id"],
            labels=columns["label"],
            chars=columns["chars"],
            heuristic=_matrix(table["heuristic"], width) if "heuristic" in run.parts else None,
            model=_matrix(table["model"], width) if "ml" in run.parts else None,
            heuristic_ms=parts_ms["normalise_ms"] + parts_ms["rules_ms"],
            model_ms=parts_ms["tokenize_ms"] + parts_ms["infer_ms"],
            hit_ms=columns["hit_ms"].astype(float),
            is_hit=columns["is_hit"].astype(bool),
            has_error=columns["has_error"].astype(bool),
            linear=columns["linear"].astype(float),
            parts_ms=parts_ms,
        )

    def model_latency(self, run_id: str) -> tuple[float, float] | None:
        """Return p50 and p95 of the model part's milliseconds; `None` if it was never timed."""
        ((percentiles,),) = self._connection.fetch(
            "SELECT quantile_cont(tokenize_ms + infer_ms, [0.5, 0.95]) FROM results "
            "WHERE run_id = ? AND error IS NULL",
            [run_id],
        )
        return None if percentiles is None else (percentiles[0], percentiles[1])

    def row_hashes(self, run_id: str) -> list[tuple[str, int | None]]:
        """Return (text SHA-256, label) of each scored row, in row order."""
        rows = self._connection.fetch(f"SELECT d.text_sha256, d.label {_SCORED_ROWS}", [run_id])
        return [(digest, label) for digest, label in rows]

    def units(self, run_id: str) -> NDArray[np.uint64]:
        """Return what each scored row belongs to, in row order: its group, else its text.

        Rows of one group, and rows of one text without a group, have the same number.
        """
        table = self._connection.arrow(
            "SELECT hash(coalesce('group ' || d.group_id, 'text ' || d.text_sha256)) AS unit "
            f"{_SCORED_ROWS}",
            [run_id],
        )
        units: NDArray[np.uint64] = table["unit"].to_numpy()
        return units

    def beyond_window(self, run_id: str) -> NDArray[np.int64]:
        """Return the indexes of rows whose text was longer than the model's window, ascending.

        Empty for a run without a model.
        """
        table = self._connection.arrow(
            "SELECT row_index FROM results WHERE run_id = ? AND windows > 1 ORDER BY row_index",
            [run_id],
        )
        rows: NDArray[np.int64] = table["row_index"].to_numpy().astype(np.int64)
        return rows

    def tables(self, run_id: str) -> tuple[pa.Table, pa.Table, pa.Table, pa.Table]:
        """Return a run whole, as (dataset, dataset rows, run, results) tables."""
        run = self.find(run_id)
        return (
            self._connection.arrow("SELECT * FROM datasets WHERE dataset_id = ?", [run.dataset_id]),
            self._connection.arrow(
                "SELECT * FROM dataset_rows WHERE dataset_id = ? ORDER BY row_index",
                [run.dataset_id],
            ),
            self._connection.arrow("SELECT * FROM runs WHERE run_id = ?", [run_id]),
            self._connection.arrow(
                "SELECT * FROM results WHERE run_id = ? ORDER BY row_index", [run_id]
            ),
        )

    def add_tables(self, tables: Sequence[pa.Table]) -> RunInfo:
        """Store what `run_tables` gave in another store.

        A dataset of the same name and rows is used instead of a copy; a run that is here already
        is left alone.
        """
        dataset, rows, run, results = tables
        run_id = run["run_id"][0].as_py()
        info = dataset_info([dataset[item.name][0].as_py() for item in fields(DatasetInfo)])
        if self._connection.fetch("SELECT 1 FROM runs WHERE run_id = ?", [run_id]):
            return self.find(run_id)
        known = self._datasets.add(
            info.name,
            info.task,
            rows.rename_columns(
                ["group" if name == "group_id" else name for name in rows.column_names]
            ),
            content_hash=info.content_hash,
            source=info.source,
            quarantined=info.quarantined,
            details=info.details,
        )
        with self._connection.writing() as cursor:
            self._connection.append("runs", run)
            self._connection.append("results", results)
            cursor.execute(
                "UPDATE runs SET dataset_id = ? WHERE run_id = ?", [known.dataset_id, run_id]
            )
        return self.find(run_id)


def _matrix(column: Any, width: int) -> NDArray[np.float64]:
    """Return a list column as shape (n, width), NaN where the list is null."""
    column = column.combine_chunks()
    matrix = np.full((len(column), width), np.nan)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    matrix[valid] = column.drop_null().flatten().to_numpy().reshape(-1, width)
    return matrix


def _run_info(row: Sequence[Any]) -> RunInfo:
    values = dict(zip((item.name for item in fields(RunInfo)), row, strict=True))
    return RunInfo(
        **values
        | {
            "task": Task(values["task"]),
            "parts": tuple(values["parts"]),
            "settings": json.loads(values["settings"]),
            "stamp": json.loads(values["stamp"]),
            "status": RunStatus(values["status"]),
        }
    )

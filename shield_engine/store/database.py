"""One DuckDB file that keeps datasets, runs and raw scores; verdicts are computed, never stored.

Hides SQL, migrations, locking and write-ahead-log repair. DuckDB gives wrong rows in silence when
threads share a connection, so every thread here works on a cursor of its own.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import duckdb
import numpy as np

from shield_engine.errors import StoreBusyError, StoreError, UnknownNameError
from shield_engine.types import LABELS, Task

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["DatasetInfo", "RunInfo", "RunStatus", "Scores", "Store", "utc_now"]


class RunStatus:
    """States of a run."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """One immutable version of imported rows."""

    dataset_id: str
    name: str
    version: int
    task: Task
    content_hash: str
    rows: int
    labelled: int
    quarantined: int
    source: str
    details: Mapping[str, Any]
    purged: bool
    created_at: datetime
    parent_id: str | None = None

    @property
    def title(self) -> str:
        """Name and version, as shown to users."""
        return f"{self.name} v{self.version}"


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
    stamp: Mapping[str, Any]
    status: str
    rows: int
    rows_done: int
    errors: int
    error: str | None
    seconds: float
    started_at: datetime
    finished_at: datetime | None

    @property
    def is_resumable(self) -> bool:
        """True if rows are left to score."""
        return self.status in {
            RunStatus.INTERRUPTED,
            RunStatus.CANCELLED,
            RunStatus.FAILED,
        }


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


def _create_first_tables(cursor: duckdb.DuckDBPyConnection) -> None:
    cursor.execute("""
        CREATE TABLE datasets (
            dataset_id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, version INTEGER NOT NULL,
            task VARCHAR NOT NULL, content_hash VARCHAR NOT NULL, rows BIGINT NOT NULL,
            labelled BIGINT NOT NULL, quarantined BIGINT NOT NULL, source VARCHAR NOT NULL,
            details JSON NOT NULL, parent_id VARCHAR, purged BOOLEAN NOT NULL DEFAULT false,
            created_at TIMESTAMP NOT NULL);
        CREATE TABLE dataset_rows (
            dataset_id VARCHAR NOT NULL, row_index BIGINT NOT NULL, row_id VARCHAR NOT NULL,
            text VARCHAR, label TINYINT, group_id VARCHAR, slices JSON,
            text_sha256 VARCHAR NOT NULL, chars BIGINT NOT NULL);
        CREATE TABLE runs (
            run_id VARCHAR PRIMARY KEY, dataset_id VARCHAR NOT NULL, task VARCHAR NOT NULL,
            parts VARCHAR[] NOT NULL, model_id VARCHAR, variant VARCHAR, model_sha256 VARCHAR,
            settings JSON NOT NULL, stamp JSON NOT NULL, status VARCHAR NOT NULL,
            rows BIGINT NOT NULL, error VARCHAR, seconds DOUBLE NOT NULL DEFAULT 0,
            started_at TIMESTAMP NOT NULL, finished_at TIMESTAMP);
        CREATE TABLE results (
            run_id VARCHAR NOT NULL, row_index BIGINT NOT NULL,
            heuristic DOUBLE[], model DOUBLE[], rules VARCHAR[], spans JSON,
            window_start BIGINT, window_end BIGINT, windows INTEGER, tokens INTEGER,
            normalise_ms DOUBLE, rules_ms DOUBLE, tokenize_ms DOUBLE, infer_ms DOUBLE,
            is_hit BOOLEAN NOT NULL, hit_ms DOUBLE, error VARCHAR);
        CREATE TABLE annotations (
            dataset_id VARCHAR NOT NULL, row_index BIGINT NOT NULL, note VARCHAR,
            label TINYINT, tags VARCHAR[], created_at TIMESTAMP NOT NULL);
        CREATE TABLE policies (
            name VARCHAR NOT NULL, version INTEGER NOT NULL, task VARCHAR NOT NULL,
            document JSON NOT NULL, created_at TIMESTAMP NOT NULL, PRIMARY KEY (name, version));
        CREATE TABLE gates (
            name VARCHAR PRIMARY KEY, document JSON NOT NULL, created_at TIMESTAMP NOT NULL);
        CREATE TABLE benchmarks (
            benchmark_id VARCHAR PRIMARY KEY, document JSON NOT NULL,
            created_at TIMESTAMP NOT NULL);
        CREATE TABLE jobs (
            job_id VARCHAR PRIMARY KEY, run_id VARCHAR NOT NULL, status VARCHAR NOT NULL,
            error VARCHAR, created_at TIMESTAMP NOT NULL, finished_at TIMESTAMP)
    """)


def _add_linear_tier(cursor: duckdb.DuckDBPyConnection) -> None:
    cursor.execute("ALTER TABLE results ADD COLUMN linear DOUBLE")
    cursor.execute("ALTER TABLE results ADD COLUMN linear_ms DOUBLE")


MIGRATIONS: tuple[Callable[[duckdb.DuckDBPyConnection], None], ...] = (
    _create_first_tables,
    _add_linear_tier,
)
"""Applied in order, each once; a store's schema version is how many were applied."""

_RUN_COLUMNS = """
    r.run_id, r.dataset_id, r.task, r.parts, r.model_id, r.variant, r.model_sha256, r.settings,
    r.stamp, r.status, r.rows, coalesce(c.rows_done, 0), coalesce(c.errors, 0), r.error, r.seconds,
    r.started_at, r.finished_at
    FROM runs r LEFT JOIN (
        SELECT run_id, count(*) AS rows_done, count(error) AS errors FROM results GROUP BY run_id
    ) c USING (run_id)
"""


class Store:
    """Datasets, runs and results in one DuckDB file that this process owns."""

    def __init__(self, root: duckdb.DuckDBPyConnection, path: Path | None, notice: str | None):
        self._root = root
        self.path = path
        self.notice = notice
        self._local = threading.local()
        self._write = threading.RLock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the store at `path`.

        A store that this process opens was left by another: runs it shows as running are marked
        interrupted. A write-ahead log that cannot be replayed is renamed aside, never deleted, and
        `notice` says so.

        Raises:
            StoreBusyError: Another process holds the file.
            StoreError: The file is no store, newer than this program, or cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot create {path.parent}: {error}") from error
        root, notice = _connect(path)
        if _rewrite_mark(path).exists():
            root, rewrite_notice = _rewritten(root, path)
            notice = "; ".join(filter(None, (notice, rewrite_notice))) or None
        store = cls(root, path, notice)
        try:
            store._migrate()
            store.execute(
                "UPDATE runs SET status = ? WHERE status = ?",
                [RunStatus.INTERRUPTED, RunStatus.RUNNING],
            )
        except duckdb.Error as error:
            root.close()
            raise StoreError(f"{path} cannot be written: {_first_line(error)}") from error
        return store

    @classmethod
    def in_memory(cls) -> Self:
        """Return a store that vanishes with the process."""
        store = cls(duckdb.connect(":memory:"), None, None)
        store._migrate()
        return store

    def close(self) -> None:
        """Write everything out and release the file."""
        self._root.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- datasets ---------------------------------------------------------------------------

    def add_dataset(
        self,
        name: str,
        task: Task,
        rows: pa.Table,
        *,
        content_hash: str,
        source: str,
        quarantined: int = 0,
        details: Mapping[str, Any] | None = None,
        parent_id: str | None = None,
    ) -> DatasetInfo:
        """Store imported rows as a new version; the same rows again give the version there is.

        Args:
            name: Shown to users; a known name with other rows becomes its next version.
            task: What the labels mean.
            rows: The importer's table.
            content_hash: Identifies the rows.
            source: File name the rows came from.
            quarantined: How many rows could not be read.
            details: Mapping, label map, profile and quarantine report.
            parent_id: The version these rows were corrected from.
        """
        with self.writing() as cursor:
            known = cursor.execute(
                "SELECT dataset_id FROM datasets WHERE name = ? AND task = ? AND content_hash = ? "
                "AND NOT purged",
                [name, task.value, content_hash],
            ).fetchone()
            if known:
                return self.dataset(known[0])
            last = cursor.execute(
                "SELECT coalesce(max(version), 0) FROM datasets WHERE name = ?", [name]
            ).fetchone()
            dataset_id = uuid.uuid4().hex[:12]
            labelled = len(rows) - rows["label"].null_count
            cursor.execute(
                "INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, false, ?)",
                [
                    dataset_id, name, (last[0] if last else 0) + 1, task.value, content_hash,
                    len(rows), labelled, quarantined, source, json.dumps(details or {}), parent_id,
                    utc_now(),
                ],
            )  # fmt: skip
            cursor.register("incoming", rows)
            cursor.execute(
                'INSERT INTO dataset_rows SELECT ?, row_index, row_id, text, label, "group", '
                "slices, text_sha256, chars FROM incoming",
                [dataset_id],
            )
            cursor.unregister("incoming")
        return self.dataset(dataset_id)

    def datasets(self) -> list[DatasetInfo]:
        """Return all dataset versions, newest first."""
        return [
            _dataset_info(row)
            for row in self.fetch(f"SELECT {_DATASET_COLUMNS} ORDER BY created_at DESC, name")
        ]

    def dataset(self, dataset_id: str) -> DatasetInfo:
        """Return one dataset version.

        Raises:
            UnknownNameError: There is none of that id.
        """
        rows = self.fetch(f"SELECT {_DATASET_COLUMNS} WHERE dataset_id = ?", [dataset_id])
        if not rows:
            raise UnknownNameError(f"no dataset {dataset_id}; `shield runs` lists what is stored")
        return _dataset_info(rows[0])

    def texts(self, dataset_id: str, start: int, stop: int) -> list[tuple[int, str, str]]:
        """Return (row index, text, text SHA-256) of rows `start` to `stop`, in row order.

        Raises:
            StoreError: The dataset's texts were purged.
        """
        rows = self.fetch(
            "SELECT row_index, text, text_sha256 FROM dataset_rows "
            "WHERE dataset_id = ? AND row_index >= ? AND row_index < ? ORDER BY row_index",
            [dataset_id, start, stop],
        )
        if any(text is None for _, text, _ in rows):
            raise StoreError(f"the texts of dataset {dataset_id} were purged; import the file anew")
        return [(int(index), str(text), str(digest)) for index, text, digest in rows]

    def purge_texts(self, dataset_id: str) -> None:
        """Drop a dataset's texts for good, and every word of them in results, notes and reports.

        Labels, hashes, scores and the ids of rules stay; the ids of lexicon words, which are words
        of the text, do not. The bytes of the texts leave the file when the store is next opened.
        """
        self.dataset(dataset_id)
        with self.writing() as cursor:
            cursor.execute("UPDATE dataset_rows SET text = NULL WHERE dataset_id = ?", [dataset_id])
            cursor.execute(
                "UPDATE results SET spans = NULL, error = CASE WHEN error IS NULL THEN NULL "
                "ELSE 'purged' END, rules = list_filter(rules, lambda rule: "
                "NOT starts_with(rule, 'vader.')) "
                "WHERE run_id IN (SELECT run_id FROM runs WHERE dataset_id = ?)",
                [dataset_id],
            )
            # A note may quote its row; corrected labels and tags say nothing of the text.
            cursor.execute("UPDATE annotations SET note = NULL WHERE dataset_id = ?", [dataset_id])
            cursor.execute("UPDATE datasets SET purged = true WHERE dataset_id = ?", [dataset_id])
            cursor.execute(
                "UPDATE datasets SET details = json_merge_patch(details, "
                "'{\"quarantine\": null}') WHERE dataset_id = ?",
                [dataset_id],
            )
        self._plan_rewrite()

    def delete_dataset(self, dataset_id: str) -> None:
        """Drop a dataset with its runs and results."""
        self.dataset(dataset_id)
        with self.writing() as cursor:
            cursor.execute(
                "DELETE FROM results WHERE run_id IN (SELECT run_id FROM runs WHERE dataset_id = ?)",
                [dataset_id],
            )
            for table in ("runs", "annotations", "dataset_rows", "datasets"):
                cursor.execute(f"DELETE FROM {table} WHERE dataset_id = ?", [dataset_id])
        self._plan_rewrite()

    def _plan_rewrite(self) -> None:
        """Have the next start write the file anew: DuckDB frees blocks but leaves their bytes."""
        self.compact()
        if self.path is not None:
            _rewrite_mark(self.path).touch()

    # --- runs -------------------------------------------------------------------------------

    def create_run(
        self,
        dataset: DatasetInfo,
        *,
        parts: Sequence[str],
        rows: int,
        model_id: str | None,
        variant: str | None,
        model_sha256: str | None,
        settings: Mapping[str, Any],
        stamp: Mapping[str, Any],
    ) -> RunInfo:
        """Note a new run, in state running."""
        run_id = uuid.uuid4().hex[:12]
        self.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, 0, ?, NULL)",
            [
                run_id, dataset.dataset_id, dataset.task.value, list(parts), model_id, variant,
                model_sha256, json.dumps(settings), json.dumps(stamp), RunStatus.RUNNING, rows,
                utc_now(),
            ],
        )  # fmt: skip
        return self.run(run_id)

    def append_results(self, run_id: str, rows: pa.Table, seconds: float) -> None:
        """Store one batch of results in one transaction, with the time it took.

        Raises:
            StoreError: The batch cannot be written (a full disk); nothing of it is kept.
        """
        with self.writing() as cursor:
            # fetchall, as DuckDB registers nothing while a result is unfinished.
            found = cursor.execute(
                "SELECT d.purged FROM runs r JOIN datasets d USING (dataset_id) WHERE r.run_id = ?",
                [run_id],
            ).fetchall()
            if not found:
                raise StoreError(f"run {run_id} was deleted while it was being scored")
            if found[0][0]:
                raise StoreError(f"the texts of run {run_id} were purged while it was being scored")
            cursor.register("incoming", rows)
            cursor.execute("INSERT INTO results BY NAME SELECT * FROM incoming")
            cursor.unregister("incoming")
            cursor.execute(
                "UPDATE runs SET seconds = seconds + ? WHERE run_id = ?", [seconds, run_id]
            )

    def set_status(self, run_id: str, status: str, error: str | None = None) -> None:
        """Move a run to another state."""
        finished = None if status == RunStatus.RUNNING else utc_now()
        self.execute(
            "UPDATE runs SET status = ?, error = ?, finished_at = ? WHERE run_id = ?",
            [status, error, finished, run_id],
        )

    def runs(self, dataset_id: str | None = None) -> list[RunInfo]:
        """Return runs, newest first, of one dataset or of all."""
        where, values = ("WHERE r.dataset_id = ?", [dataset_id]) if dataset_id else ("", [])
        rows = self.fetch(f"SELECT {_RUN_COLUMNS} {where} ORDER BY r.started_at DESC", values)
        return [_run_info(row) for row in rows]

    def run(self, run_id: str) -> RunInfo:
        """Return one run.

        Raises:
            UnknownNameError: There is none of that id.
        """
        rows = self.fetch(f"SELECT {_RUN_COLUMNS} WHERE r.run_id = ?", [run_id])
        if not rows:
            raise UnknownNameError(f"no run {run_id}; `shield runs` lists what is stored")
        return _run_info(rows[0])

    def delete_run(self, run_id: str) -> None:
        """Drop a run and its results."""
        self.run(run_id)
        with self.writing() as cursor:
            cursor.execute("DELETE FROM results WHERE run_id = ?", [run_id])
            cursor.execute("DELETE FROM runs WHERE run_id = ?", [run_id])

    def drop_errors(self, run_id: str) -> int:
        """Drop a run's errored rows so that resuming scores them again; return how many."""
        with self.writing() as cursor:
            row = cursor.execute(
                "SELECT count(*) FROM results WHERE run_id = ? AND error IS NOT NULL", [run_id]
            ).fetchone()
            cursor.execute("DELETE FROM results WHERE run_id = ? AND error IS NOT NULL", [run_id])
        return int(row[0]) if row else 0

    def first_error(self, run_id: str) -> str | None:
        """Return the error of the first row that failed."""
        rows = self.fetch(
            "SELECT error FROM results WHERE run_id = ? AND error IS NOT NULL "
            "ORDER BY row_index LIMIT 1",
            [run_id],
        )
        return rows[0][0] if rows else None

    def done_rows(self, run_id: str) -> set[int]:
        """Return the indexes of rows that have a result."""
        return {
            int(row[0])
            for row in self.fetch("SELECT row_index FROM results WHERE run_id = ?", [run_id])
        }

    def results(self, run_id: str, indexes: Sequence[int]) -> list[dict[str, Any]]:
        """Return whole result rows of the given row indexes."""
        table = self.arrow(
            "SELECT * FROM results WHERE run_id = ? AND row_index IN (SELECT unnest(?::BIGINT[])) "
            "ORDER BY row_index",
            [run_id, list(indexes)],
        )
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def scores(self, run_id: str) -> Scores:
        """Return a run's scores and timings as arrays."""
        run = self.run(run_id)
        table = self.arrow(
            """
            SELECT s.row_index, d.row_id, coalesce(d.label, -1)::BIGINT AS label, d.chars,
                s.heuristic, s.model, s.linear, s.normalise_ms, s.rules_ms, s.linear_ms,
                s.tokenize_ms, s.infer_ms, s.is_hit, s.hit_ms, s.error IS NOT NULL AS has_error
            FROM results s JOIN runs r USING (run_id)
            JOIN dataset_rows d ON d.dataset_id = r.dataset_id AND d.row_index = s.row_index
            WHERE s.run_id = ? ORDER BY s.row_index
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

    def slices(self, dataset_id: str, name: str) -> NDArray[np.object_]:
        """Return the value of slice column `name` for each row, in row order ('' where absent)."""
        table = self.arrow(
            "SELECT coalesce(slices ->> ?, '') AS value FROM dataset_rows "
            "WHERE dataset_id = ? ORDER BY row_index",
            [f'$."{name}"', dataset_id],
        )
        values: NDArray[np.object_] = table["value"].to_numpy()
        return values

    def groups(self, dataset_id: str) -> NDArray[np.object_] | None:
        """Return the group of each row, in row order, or `None` if the dataset has none."""
        table = self.arrow(
            "SELECT group_id FROM dataset_rows WHERE dataset_id = ? ORDER BY row_index",
            [dataset_id],
        )
        if table["group_id"].null_count == len(table):
            return None
        values: NDArray[np.object_] = table["group_id"].to_numpy()
        return values

    def row_hashes(self, run_id: str) -> list[tuple[str, int | None]]:
        """Return (text SHA-256, label) of each scored row, in row order."""
        rows = self.fetch(
            "SELECT d.text_sha256, d.label FROM results s JOIN runs r USING (run_id) "
            "JOIN dataset_rows d ON d.dataset_id = r.dataset_id AND d.row_index = s.row_index "
            "WHERE s.run_id = ? ORDER BY s.row_index",
            [run_id],
        )
        return [(digest, label) for digest, label in rows]

    def page(
        self,
        dataset_id: str,
        *,
        run_id: str | None = None,
        indexes: Sequence[int] | None = None,
        search: str = "",
        offset: int = 0,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Return rows to show: text, label, slices, and a run's scores where `run_id` is given.

        Args:
            dataset_id: Whose rows.
            run_id: Adds that run's results.
            indexes: Only these row indexes.
            search: Only texts that contain this, without regard to case.
            offset: Rows to skip.
            limit: Rows to return at most.
        """
        conditions, values = ["d.dataset_id = ?"], [run_id, dataset_id]
        if indexes is not None:
            conditions.append("d.row_index IN (SELECT unnest(?::BIGINT[]))")
            values.append(list(indexes))  # type: ignore[arg-type]
        if search:
            conditions.append("contains(lower(d.text), lower(?))")
            values.append(search)
        if indexes is None and not search:
            # Row indexes have no gaps, so a page is a range, found without counting off rows:
            # 5 ms instead of 170 in the middle of a million.
            conditions.append("d.row_index >= ? AND d.row_index < ?")
            values += [int(offset), int(offset) + int(limit)]  # type: ignore[list-item]
            offset = 0
        table = self.arrow(
            f"""
            SELECT d.row_index, d.row_id, d.text, d.label, d.group_id, d.slices, d.chars,
                s.heuristic, s.model, s.rules, s.spans, s.window_start, s.window_end, s.windows,
                s.is_hit, s.error
            FROM dataset_rows d
            LEFT JOIN results s ON s.run_id = ? AND s.row_index = d.row_index
            WHERE {" AND ".join(conditions)}
            ORDER BY d.row_index LIMIT {int(limit)} OFFSET {int(offset)}
            """,
            values,
        )
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def run_tables(self, run_id: str) -> tuple[pa.Table, pa.Table, pa.Table, pa.Table]:
        """Return a run whole, as (dataset, dataset rows, run, results) tables."""
        run = self.run(run_id)
        return (
            self.arrow("SELECT * FROM datasets WHERE dataset_id = ?", [run.dataset_id]),
            self.arrow(
                "SELECT * FROM dataset_rows WHERE dataset_id = ? ORDER BY row_index",
                [run.dataset_id],
            ),
            self.arrow("SELECT * FROM runs WHERE run_id = ?", [run_id]),
            self.arrow("SELECT * FROM results WHERE run_id = ? ORDER BY row_index", [run_id]),
        )

    def add_run_tables(self, tables: Sequence[pa.Table]) -> RunInfo:
        """Store what `run_tables` gave in another store.

        A dataset of the same name and rows is used instead of a copy; a run that is here already
        is left alone.
        """
        dataset, rows, run, results = tables
        run_id = run["run_id"][0].as_py()
        info = _dataset_info([dataset[name][0].as_py() for name in _DATASET_FIELDS])
        if self.fetch("SELECT 1 FROM runs WHERE run_id = ?", [run_id]):
            return self.run(run_id)
        known = self.add_dataset(
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
        with self.writing() as cursor:
            for table, content in (("runs", run), ("results", results)):
                cursor.register("incoming", content)
                cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
                cursor.unregister("incoming")
            cursor.execute(
                "UPDATE runs SET dataset_id = ? WHERE run_id = ?", [known.dataset_id, run_id]
            )
        return self.run(run_id)

    # --- benchmarks -------------------------------------------------------------------------

    def add_benchmark(self, document: Mapping[str, Any]) -> str:
        """Keep a benchmark's document and return its id."""
        benchmark_id = uuid.uuid4().hex[:12]
        self.execute(
            "INSERT INTO benchmarks VALUES (?, ?, ?)",
            [benchmark_id, json.dumps(document), utc_now()],
        )
        return benchmark_id

    def benchmarks(self) -> list[tuple[str, datetime, dict[str, Any]]]:
        """Return (id, time, document) of all benchmarks, newest first."""
        return [
            (name, when, json.loads(document))
            for name, document, when in self.fetch(
                "SELECT benchmark_id, document, created_at FROM benchmarks ORDER BY created_at DESC"
            )
        ]

    # --- the file ---------------------------------------------------------------------------

    def compact(self) -> None:
        """Write the log into the file; freed space is used again by later rows."""
        self.execute("CHECKPOINT", [])

    def backup(self, target: Path) -> Path:
        """Copy the whole store to a new file.

        Raises:
            StoreError: `target` exists, or cannot be written.
        """
        if target.exists():
            raise StoreError(f"{target} exists already; nothing is overwritten")
        try:
            with self._write:
                _copy(self._cursor(), target)
        except duckdb.Error as error:
            raise StoreError(f"backup to {target} failed: {_first_line(error)}") from error
        return target

    def size_bytes(self) -> int:
        """Return the size of the file and its log on disk."""
        if self.path is None:
            return 0
        return sum(
            path.stat().st_size
            for path in (self.path, self.path.with_name(self.path.name + ".wal"))
            if path.exists()
        )

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each table."""
        tables = ("datasets", "dataset_rows", "runs", "results", "policies", "benchmarks")
        return {table: int(self.fetch(f"SELECT count(*) FROM {table}")[0][0]) for table in tables}

    def _migrate(self) -> None:
        with self.writing() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
            row = cursor.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
            applied = int(row[0]) if row else 0
            if applied > len(MIGRATIONS):
                raise StoreError(
                    f"{self.path} has schema version {applied}, this program knows "
                    f"{len(MIGRATIONS)}; update LLM Shield"
                )
            for version, migration in enumerate(MIGRATIONS[applied:], start=applied + 1):
                migration(cursor)
                cursor.execute("INSERT INTO schema_version VALUES (?)", [version])
        self.compact()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        cursor: duckdb.DuckDBPyConnection | None = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._root.cursor()
        return cursor

    def fetch(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query, on this thread's cursor."""
        with _reading():
            return self._cursor().execute(query, list(values)).fetchall()

    def arrow(self, query: str, values: Sequence[Any] = ()) -> Any:
        """Return the result of a query as an Arrow table."""
        with _reading():
            return self._cursor().sql(query, params=list(values)).to_arrow_table()

    def execute(self, query: str, values: Sequence[Any]) -> None:
        """Run one statement that writes."""
        with self._write:
            try:
                self._cursor().execute(query, list(values))
            except duckdb.Error as error:
                raise _write_error(error) from error

    @contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction on this thread's cursor; one writer at a time."""
        with self._write:
            cursor = self._cursor()
            cursor.execute("BEGIN")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException as error:
                # A failed COMMIT has ended the transaction already.
                with suppress(duckdb.Error):
                    cursor.execute("ROLLBACK")
                if isinstance(error, duckdb.Error):
                    raise _write_error(error) from error
                raise


_LISTS = ("heuristic", "model")
_DATASET_FIELDS = (
    "dataset_id", "name", "version", "task", "content_hash", "rows", "labelled", "quarantined",
    "source", "details", "purged", "created_at", "parent_id",
)  # fmt: skip
_DATASET_COLUMNS = f"{', '.join(_DATASET_FIELDS)} FROM datasets"


def _rewrite_mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.rewrite-pending")


def _copy(root: duckdb.DuckDBPyConnection, target: Path) -> None:
    """Copy a whole database to a new file, or leave no file behind."""
    name = f"copy_{uuid.uuid4().hex[:8]}"
    quoted = str(target).replace("'", "''")
    try:
        ((current,),) = root.execute("SELECT current_database()").fetchall()
        root.execute(f"ATTACH '{quoted}' AS {name}")
        try:
            root.execute(f'COPY FROM DATABASE "{current}" TO {name}')
        finally:
            root.execute(f"DETACH {name}")
    except duckdb.Error:
        for leftover in (target, target.with_name(target.name + ".wal")):
            leftover.unlink(missing_ok=True)
        raise


def _rewritten(
    root: duckdb.DuckDBPyConnection, path: Path
) -> tuple[duckdb.DuckDBPyConnection, str | None]:
    """Write the file anew without the bytes of dropped rows; keep the old one if that fails."""
    fresh = path.with_name(f"{path.name}.rewriting")
    fresh.unlink(missing_ok=True)
    try:
        _copy(root, fresh)
    except duckdb.Error as error:
        return root, (
            "purged texts are still in free blocks of the store, which could not be written anew "
            f"({_first_line(error)}); free some space and start again"
        )
    root.close()
    fresh.replace(path)
    _rewrite_mark(path).unlink()
    return duckdb.connect(str(path)), None


def _connect(path: Path) -> tuple[duckdb.DuckDBPyConnection, str | None]:
    try:
        return duckdb.connect(str(path)), None
    except duckdb.IOException as error:
        if "set lock on file" in str(error) or "Conflicting lock" in str(error):
            raise StoreBusyError(
                f"{path} is held by another process (is the dashboard running?); "
                "close it, or set SHIELD_HOME to another folder"
            ) from error
        raise StoreError(f"{path} cannot be opened: {_first_line(error)}") from error
    except duckdb.Error as error:
        wal = path.with_name(path.name + ".wal")
        if not wal.exists():
            raise StoreError(f"{path} is not a usable store: {_first_line(error)}") from error
        aside = wal.with_name(f"{wal.name}.broken-{datetime.now(UTC):%Y%m%dT%H%M%S}")
        wal.rename(aside)
        try:
            root = duckdb.connect(str(path))
        except duckdb.Error as second:
            aside.rename(wal)
            raise StoreError(f"{path} is not a usable store: {_first_line(second)}") from second
        return root, (
            f"the write-ahead log of {path.name} could not be replayed ({_first_line(error)}) and "
            f"was kept as {aside.name}; what was written last may be missing"
        )


def _matrix(column: Any, width: int) -> NDArray[np.float64]:
    """Return a list column as shape (n, width), NaN where the list is null."""
    column = column.combine_chunks()
    matrix = np.full((len(column), width), np.nan)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    matrix[valid] = column.drop_null().flatten().to_numpy().reshape(-1, width)
    return matrix


def _dataset_info(row: Sequence[Any]) -> DatasetInfo:
    values = list(row)
    values[3] = Task(values[3])
    values[9] = json.loads(values[9])
    return DatasetInfo(*values)


def _run_info(row: Sequence[Any]) -> RunInfo:
    values = list(row)
    values[2] = Task(values[2])
    values[3] = tuple(values[3])
    values[7], values[8] = json.loads(values[7]), json.loads(values[8])
    return RunInfo(*values)


def utc_now() -> datetime:
    """Return the time in UTC, without a zone: DuckDB gives zoned times to Python only through pytz."""
    return datetime.now(UTC).replace(tzinfo=None)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise StoreError(f"the store cannot be read: {_first_line(error)}") from error


def _write_error(error: duckdb.Error) -> StoreError:
    reason = _first_line(error)
    is_full = any(sign in reason for sign in ("No space left", "File too large", "Disk quota"))
    advice = "; free some space, then resume: whole batches were kept" if is_full else ""
    return StoreError(f"the store cannot be written: {reason}{advice}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]

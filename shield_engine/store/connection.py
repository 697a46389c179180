"""One DuckDB file that this process owns: opening, repair, migrations, cursors, transactions.

Hides locking and write-ahead-log repair. DuckDB gives wrong rows in silence when threads share a
connection, so every thread here works on a cursor of its own.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import duckdb

from shield_engine.errors import StoreBusyError, StoreError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Connection", "interruptible", "utc_now"]


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
            created_at TIMESTAMP NOT NULL)
    """)


def _add_linear_tier(cursor: duckdb.DuckDBPyConnection) -> None:
    cursor.execute("ALTER TABLE results ADD COLUMN linear DOUBLE")
    cursor.execute("ALTER TABLE results ADD COLUMN linear_ms DOUBLE")


def _number_policies_for_good(cursor: duckdb.DuckDBPyConnection) -> None:
    cursor.execute("CREATE TABLE policy_numbers (name VARCHAR PRIMARY KEY, last INTEGER NOT NULL)")
    cursor.execute(
        "INSERT INTO policy_numbers SELECT name, max(version) FROM policies GROUP BY name"
    )


MIGRATIONS: tuple[Callable[[duckdb.DuckDBPyConnection], None], ...] = (
    _create_first_tables,
    _add_linear_tier,
    _number_policies_for_good,
)
"""Applied in order, each once; a store's schema version is how many were applied."""


class Connection:
    """An open store as SQL: its rooms ask through this and nothing else."""

    def __init__(self, root: duckdb.DuckDBPyConnection, path: Path | None, notice: str | None):
        self._root = root
        self.path = path
        self.notice = notice
        self._local = threading.local()
        self._write = threading.RLock()
        self._is_writing = False

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
            # Prompts are nobody else's business; a folder that is there keeps its mode.
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot create {path.parent}: {error}") from error
        root, notice = _connect(path)
        if _rewrite_mark(path).exists():
            root, rewrite_notice = _rewritten(root, path)
            notice = "; ".join(filter(None, (notice, rewrite_notice))) or None
        store = cls(root, path, notice)
        try:
            store._migrate()
            store.execute("UPDATE runs SET status = 'interrupted' WHERE status = 'running'")
            with suppress(OSError):  # a file system without modes
                path.chmod(0o600)
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

    def fetch(
        self, query: str, values: Sequence[Any] = (), tables: Mapping[str, pa.Table] | None = None
    ) -> list[tuple[Any, ...]]:
        """Return all rows of a query over the store, and over Arrow tables given by name."""
        with self._reading(tables) as cursor:
            return cursor.execute(query, list(values)).fetchall()

    def arrow(
        self, query: str, values: Sequence[Any] = (), tables: Mapping[str, pa.Table] | None = None
    ) -> pa.Table:
        """Return the result of a query, as `fetch` does, as an Arrow table."""
        with self._reading(tables) as cursor:
            return cursor.sql(query, params=list(values)).to_arrow_table()

    @contextmanager
    def _reading(
        self, tables: Mapping[str, pa.Table] | None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """This thread's cursor, with tables under their names while it is used."""
        try:
            cursor = self._cursor()
            for name, table in (tables or {}).items():
                cursor.register(name, table)
            try:
                with interruptible():
                    yield cursor
            finally:
                for name in tables or {}:
                    cursor.unregister(name)
        except duckdb.Error as error:
            raise StoreError(f"the store cannot be read: {_first_line(error)}") from error

    def execute(self, query: str, values: Sequence[Any] = ()) -> None:
        """Run one statement that writes."""
        with self._write, interruptible():
            try:
                self._cursor().execute(query, list(values))
            except duckdb.Error as error:
                raise _write_error(error) from error

    def insert(self, table: str, values: Mapping[str, Any], *, replaces: bool = False) -> None:
        """Add one row, given by column."""
        marks = ", ".join("?" * len(values))
        self.execute(
            f"INSERT {'OR REPLACE ' if replaces else ''}INTO {table} ({', '.join(values)}) "
            f"VALUES ({marks})",
            list(values.values()),
        )

    def append(
        self, table: str, rows: pa.Table, select: str = "*", values: Sequence[Any] = ()
    ) -> None:
        """Add the rows of an Arrow table by the names of their columns, inside `writing`."""
        self._cursor().register("incoming", rows)
        self.execute(f"INSERT INTO {table} BY NAME SELECT {select} FROM incoming", values)
        self._cursor().unregister("incoming")

    @contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction on this thread's cursor, one writer at a time; an inner one is part of it."""
        with self._write:
            cursor = self._cursor()
            if self._is_writing:
                yield cursor
                return
            cursor.execute("BEGIN")
            self._is_writing = True
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
            finally:
                self._is_writing = False

    def compact(self) -> None:
        """Write the log into the file; freed space is used again by later rows."""
        self.execute("CHECKPOINT")

    def plan_rewrite(self) -> None:
        """Have the next start write the file anew: DuckDB frees blocks but leaves their bytes."""
        self.compact()
        if self.path is not None:
            _rewrite_mark(self.path).touch()

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


def utc_now() -> datetime:
    """Return the time in UTC, without a zone: DuckDB gives zoned times to Python only through pytz."""
    return datetime.now(UTC).replace(tzinfo=None)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl+C be what it is everywhere: DuckDB ends a query with an error of its own."""
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise


def _write_error(error: duckdb.Error) -> StoreError:
    reason = _first_line(error)
    is_full = any(sign in reason for sign in ("No space left", "File too large", "Disk quota"))
    advice = "; free some space, then resume: whole batches were kept" if is_full else ""
    return StoreError(f"the store cannot be written: {reason}{advice}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]

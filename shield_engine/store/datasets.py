"""Datasets: immutable versions of imported rows, their texts, slices, groups and descent."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from shield_engine.errors import StoreError, UnknownNameError
from shield_engine.store.connection import Connection, utc_now
from shield_engine.types import Task

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["DatasetDetails", "DatasetInfo", "Datasets", "dataset_info", "slice_pointer"]


class DatasetDetails(TypedDict, total=False):
    """What is known of a version beside its rows, as JSON; a key that is not known is absent.

    Attributes:
        rows_read: Rows of the file, quarantined ones included.
        profile: Lengths, duplicates and label conflicts; see `Profile`.
        mapping: Which column is what; see `Mapping`.
        quarantine: The first rows that could not be read; gone once the texts are purged.
        corrected_from: The version this one was corrected from, and what was changed.
    """

    rows_read: int
    profile: dict[str, Any]
    mapping: dict[str, Any] | None
    quarantine: list[dict[str, Any]]
    corrected_from: dict[str, Any]


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
    details: DatasetDetails
    purged: bool
    created_at: datetime
    parent_id: str | None = None

    @property
    def title(self) -> str:
        """Name and version, as shown to users."""
        return f"{self.name} v{self.version}"

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """The columns that rows can be sliced by."""
        return tuple((self.details.get("mapping") or {}).get("slices") or ())


_FIELDS = tuple(field.name for field in fields(DatasetInfo))
_DATASETS = f"SELECT {', '.join(_FIELDS)} FROM datasets"


class Datasets:
    """The dataset versions of a store."""

    def __init__(self, connection: Connection):
        self._connection = connection

    def add(
        self,
        name: str,
        task: Task,
        rows: pa.Table,
        *,
        content_hash: str,
        source: str,
        quarantined: int = 0,
        details: DatasetDetails | None = None,
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
        with self._connection.writing() as cursor:
            known = cursor.execute(
                "SELECT dataset_id FROM datasets WHERE name = ? AND task = ? AND content_hash = ? "
                "AND NOT purged",
                [name, task.value, content_hash],
            ).fetchone()
            if known:
                return self.find(known[0])
            ((last,),) = cursor.execute(
                "SELECT coalesce(max(version), 0) FROM datasets WHERE name = ?", [name]
            ).fetchall()
            dataset_id = uuid.uuid4().hex[:12]
            values = {
                "dataset_id": dataset_id,
                "name": name,
                "version": last + 1,
                "task": task.value,
                "content_hash": content_hash,
                "rows": len(rows),
                "labelled": len(rows) - rows["label"].null_count,
                "quarantined": quarantined,
                "source": source,
                "details": json.dumps(details or {}),
                "parent_id": parent_id,
                "created_at": utc_now(),
            }
            self._connection.insert("datasets", values)
            self._connection.append(
                "dataset_rows",
                rows,
                '? AS dataset_id, row_index, row_id, text, label, "group" AS group_id, slices, '
                "text_sha256, chars",
                [dataset_id],
            )
        return self.find(dataset_id)

    def all(self) -> list[DatasetInfo]:
        """Return all dataset versions, newest first."""
        rows = self._connection.fetch(f"{_DATASETS} ORDER BY created_at DESC, name")
        return [dataset_info(row) for row in rows]

    def find(self, dataset_id: str) -> DatasetInfo:
        """Return one dataset version.

        Raises:
            UnknownNameError: There is none of that id.
        """
        rows = self._connection.fetch(f"{_DATASETS} WHERE dataset_id = ?", [dataset_id])
        if not rows:
            raise UnknownNameError(f"no dataset {dataset_id}; `shield runs` lists what is stored")
        return dataset_info(rows[0])

    def lineage(self, dataset_id: str) -> list[DatasetInfo]:
        """Return a version and what it was corrected from, newest first.

        The line ends early at a version that was deleted.
        """
        line = [self.find(dataset_id)]
        while line[-1].parent_id is not None:
            try:
                line.append(self.find(line[-1].parent_id))
            except UnknownNameError:
                break
        return line

    def rows(self, dataset_id: str) -> pa.Table:
        """Return a version's rows in order, in the columns that `add` takes."""
        table: pa.Table = self._connection.arrow(
            'SELECT row_index, row_id, text, label, group_id AS "group", '
            "slices::VARCHAR AS slices, text_sha256, chars FROM dataset_rows "
            "WHERE dataset_id = ? ORDER BY row_index",
            [dataset_id],
        )
        return table

    def texts(self, dataset_id: str, start: int, stop: int) -> list[tuple[int, str, str]]:
        """Return (row index, text, text SHA-256) of rows `start` to `stop`, in row order.

        Raises:
            StoreError: The dataset's texts were purged.
        """
        rows = self._connection.fetch(
            "SELECT row_index, text, text_sha256 FROM dataset_rows "
            "WHERE dataset_id = ? AND row_index >= ? AND row_index < ? ORDER BY row_index",
            [dataset_id, start, stop],
        )
        if any(text is None for _, text, _ in rows):
            raise StoreError(f"the texts of dataset {dataset_id} were purged; import the file anew")
        return [(int(index), str(text), str(digest)) for index, text, digest in rows]

    def lengths(self, dataset_id: str) -> NDArray[np.int64]:
        """Return the characters of each row's text, in row order."""
        table = self._connection.arrow(
            "SELECT chars FROM dataset_rows WHERE dataset_id = ? ORDER BY row_index", [dataset_id]
        )
        chars: NDArray[np.int64] = table["chars"].to_numpy().astype("int64")
        return chars

    def slices(self, dataset_id: str, name: str) -> NDArray[np.object_]:
        """Return the value of slice column `name` for each row, in row order ('' where absent)."""
        table = self._connection.arrow(
            "SELECT coalesce(slices ->> ?, '') AS value FROM dataset_rows "
            "WHERE dataset_id = ? ORDER BY row_index",
            [slice_pointer(name), dataset_id],
        )
        values: NDArray[np.object_] = table["value"].to_numpy()
        return values

    def groups(self, dataset_id: str) -> NDArray[np.object_] | None:
        """Return the group of each row, in row order, or `None` if the dataset has none."""
        table = self._connection.arrow(
            "SELECT group_id FROM dataset_rows WHERE dataset_id = ? ORDER BY row_index",
            [dataset_id],
        )
        if table["group_id"].null_count == len(table):
            return None
        values: NDArray[np.object_] = table["group_id"].to_numpy()
        return values

    def purge_texts(self, dataset_id: str) -> None:
        """Drop a dataset's texts for good, and every word of them in results, notes and reports.

        Labels, hashes, scores and the ids of rules stay; the ids of lexicon words, which are words
        of the text, do not. The bytes of the texts leave the file when the store is next opened.
        """
        self.find(dataset_id)
        with self._connection.writing() as cursor:
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
        self._connection.plan_rewrite()

    def delete(self, dataset_id: str) -> None:
        """Drop a dataset with its runs and results."""
        self.find(dataset_id)
        with self._connection.writing() as cursor:
            cursor.execute(
                "DELETE FROM results WHERE run_id IN (SELECT run_id FROM runs WHERE dataset_id = ?)",
                [dataset_id],
            )
            for table in ("runs", "annotations", "dataset_rows", "datasets"):
                cursor.execute(f"DELETE FROM {table} WHERE dataset_id = ?", [dataset_id])
        self._connection.plan_rewrite()


def dataset_info(row: Sequence[Any]) -> DatasetInfo:
    """Return a dataset from its stored values, in the order of its fields."""
    values = dict(zip(_FIELDS, row, strict=True))
    return DatasetInfo(
        **values | {"task": Task(values["task"]), "details": json.loads(values["details"])}
    )


def slice_pointer(name: str) -> str:
    """Return a JSON pointer to a slice column, whatever its letters (RFC 6901)."""
    return "/" + name.replace("~", "~0").replace("/", "~1")

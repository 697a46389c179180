"""What a review leads to: a corrected dataset version, and hard cases to train on.

Stored scores and annotations in. Only `corrected_version` writes: it adds a version, none changes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.datasets.importing import row_code
from shield_engine.datasets.profile import Profiler
from shield_engine.decide.views import RowJudge, verdicts_of
from shield_engine.errors import ConfigError, StoreError
from shield_engine.store import DatasetInfo, Scores, Store, StoredRow
from shield_engine.store.notes import Annotation, dataset_annotations
from shield_engine.store.rows import (
    RowFilter,
    RowKind,
    matching_rows,
    stored_rows,
)
from shield_engine.types import LABELS

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = [
    "EXCLUDE_TAG",
    "Correction",
    "HardCase",
    "HardCases",
    "cases_as_csv",
    "cases_as_jsonl",
    "corrected_version",
    "hard_cases",
    "planned_correction",
]

EXCLUDE_TAG = "exclude"
"""Rows that bear it can be left out of a corrected version, and never are hard cases."""
MOST_HARD_CASES = 50_000

_KEPT_CHANGES = 1_000
_BATCH_ROWS = 10_000


# --- the corrected version ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Correction:
    """What a corrected version would change.

    Attributes:
        relabelled: Row index → new class index, of rows whose label changes and that stay.
        excluded: Row indexes left out.
    """

    relabelled: Mapping[int, int]
    excluded: tuple[int, ...]

    def __bool__(self) -> bool:
        return bool(self.relabelled or self.excluded)


def planned_correction(store: Store, dataset_id: str, *, excludes: bool = True) -> Correction:
    """Return what the annotations of a dataset change.

    Args:
        store: Where the dataset lies.
        dataset_id: Which version.
        excludes: Leave out rows that bear the tag `exclude`.
    """
    notes = dataset_annotations(store, dataset_id)
    labels = {row.row_index: row.label for row in stored_rows(store, dataset_id, list(notes))}
    excluded = [index for index, note in notes.items() if excludes and EXCLUDE_TAG in note.tags]
    return Correction(
        relabelled={
            index: note.label
            for index, note in notes.items()
            if note.label not in {None, labels[index]} and index not in set(excluded)
        },
        excluded=tuple(excluded),
    )


def corrected_version(store: Store, dataset_id: str, *, excludes: bool = True) -> DatasetInfo:
    """Store a dataset with its corrected labels as the next version of its name.

    The version names the one it came from (`DatasetInfo.parent_id`) and keeps in its details under
    `corrected_from` how many rows changed, and the first 1,000 of them by row id. Groups and slices
    stay. The same corrections again give the version there is.

    Args:
        store: Where the dataset lies.
        dataset_id: Which version.
        excludes: Leave out rows that bear the tag `exclude`.

    Raises:
        ConfigError: Nothing would change, or no row would be left.
        StoreError: The dataset's texts were purged.
    """
    info = store.datasets.find(dataset_id)
    if info.purged:
        raise StoreError(f"the texts of dataset {dataset_id} were purged; nothing can be corrected")
    plan = planned_correction(store, dataset_id, excludes=excludes)
    if not plan:
        raise ConfigError(
            f"{info.title} has no corrected label and no row to leave out; a new version would be "
            "the same"
        )
    if len(plan.excluded) == info.rows:
        raise ConfigError(f"every row of {info.title} would be left out")
    before = store.datasets.rows(dataset_id)
    rows = _corrected(before, plan)
    digest, profile = _described(rows, LABELS[info.task])
    return store.datasets.add(
        info.name,
        info.task,
        rows,
        content_hash=digest,
        source=info.source,
        details={
            "rows_read": len(rows),
            "profile": profile,
            "mapping": info.details.get("mapping"),
            "quarantine": [],
            "corrected_from": _changes(info, before, plan),
        },
        parent_id=dataset_id,
    )


def _corrected(rows: pa.Table, plan: Correction) -> pa.Table:
    import pyarrow as pa

    labels = rows["label"].to_pylist()
    for index, label in plan.relabelled.items():
        labels[index] = label
    keep = np.ones(len(rows), dtype=bool)
    keep[list(plan.excluded)] = False
    place = rows.schema.get_field_index("label")
    rows = rows.set_column(place, "label", pa.array(labels, pa.int8())).filter(pa.array(keep))
    place = rows.schema.get_field_index("row_index")
    return rows.set_column(place, "row_index", pa.array(np.arange(len(rows)), pa.int64()))


def _described(rows: pa.Table, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return content hash and profile as an import of the same rows would give them."""
    digest, profiler = hashlib.sha256(), Profiler(names)
    for batch in rows.to_batches(max_chunksize=_BATCH_ROWS):
        for row in batch.to_pylist():
            text_digest = bytes.fromhex(row["text_sha256"])
            digest.update(
                row_code(row["row_id"], row["label"], text_digest, row["group"], row["slices"])
            )
            profiler.add(row["text"], text_digest, row["label"])
    profile = profiler.profile(())
    values = {item.name: getattr(profile, item.name) for item in fields(profile)}
    return digest.hexdigest(), {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()
    }


def _changes(info: DatasetInfo, rows: pa.Table, plan: Correction) -> dict[str, Any]:
    names = LABELS[info.task]

    def name_of(index: int | None) -> str | None:
        return None if index is None else names[index]

    return {
        "dataset_id": info.dataset_id,
        "title": info.title,
        "relabelled": len(plan.relabelled),
        "excluded": len(plan.excluded),
        "changes": [
            {
                "row_id": rows["row_id"][index].as_py(),
                "from": name_of(rows["label"][index].as_py()),
                "to": name_of(plan.relabelled.get(index)),
            }
            for index in sorted([*plan.relabelled, *plan.excluded])[:_KEPT_CHANGES]
        ],
    }


# --- hard cases -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HardCase:
    """One row to train on; its fields are the columns of the file."""

    text: str
    label: str
    source: str


@dataclass(frozen=True, slots=True)
class HardCases:
    """Errors and near-threshold rows with their corrected labels, the most regretted first.

    Attributes:
        rows: Each text once.
        unlabelled: Rows left out because they have no label.
        excluded: Rows left out because they bear the tag `exclude`.
        repeated: Rows left out because their text and label occurred before.
        conflicting: Rows left out because their text occurs with several labels.
        beyond_limit: Rows left out because there were more than `MOST_HARD_CASES`.
    """

    rows: tuple[HardCase, ...]
    unlabelled: int = 0
    excluded: int = 0
    repeated: int = 0
    conflicting: int = 0
    beyond_limit: int = 0

    @property
    def class_counts(self) -> dict[str, int]:
        """Rows by class."""
        names = [row.label for row in self.rows]
        return {name: names.count(name) for name in dict.fromkeys(names)}


def hard_cases(
    store: Store, judge: RowJudge, near: float = 0.05, scores: Scores | None = None
) -> HardCases:
    """Return what `shield train` may learn from: errors and near-threshold rows, once each.

    Rows are judged by their corrected labels, so a row whose label was the error is none.

    Raises:
        StoreError: The dataset's texts were purged.
    """
    judged = verdicts_of(store, replace(judge, is_corrected=True), scores)
    info = store.datasets.find(judged.run.dataset_id)
    if info.purged:
        raise StoreError(f"the texts of dataset {info.dataset_id} were purged; nothing is left")
    wanted = [
        matching_rows(store, judged, RowFilter(kind=kind, near=near))
        for kind in (RowKind.ERRORS, RowKind.NEAR)
    ]
    indexes = list(dict.fromkeys(np.concatenate(wanted).tolist()))
    notes = dataset_annotations(store, info.dataset_id)
    rows = stored_rows(store, info.dataset_id, indexes[:MOST_HARD_CASES])
    cases = _cases(rows, notes, LABELS[info.task], info.title)
    return replace(cases, beyond_limit=max(0, len(indexes) - MOST_HARD_CASES))


def _cases(
    rows: Sequence[StoredRow],
    notes: Mapping[int, Annotation],
    names: Sequence[str],
    title: str,
) -> HardCases:
    cases: dict[str, list[tuple[str, int]]] = {}
    unlabelled = excluded = 0
    for row in rows:
        note = notes.get(row.row_index, Annotation(row.row_index))
        label = row.label if note.label is None else note.label
        if EXCLUDE_TAG in note.tags:
            excluded += 1
        elif label is None:
            unlabelled += 1
        else:
            cases.setdefault(row.text_sha256, []).append((row.text or "", label))
    labels = {digest: {label for _, label in same} for digest, same in cases.items()}
    agreed = [digest for digest in cases if len(labels[digest]) == 1]
    return HardCases(
        rows=tuple(
            HardCase(cases[digest][0][0], names[cases[digest][0][1]], f"{title}, hard cases")
            for digest in agreed
        ),
        unlabelled=unlabelled,
        excluded=excluded,
        repeated=sum(len(cases[digest]) - 1 for digest in agreed),
        conflicting=sum(len(same) for digest, same in cases.items() if len(labels[digest]) > 1),
    )


def cases_as_csv(cases: HardCases) -> bytes:
    r"""Return hard cases as the CSV that `shield train` reads: text, label, source, UTF-8.

    Texts are exact: formula prefixes are not neutralised, as a model must learn the attack and not
    a quote mark before it. So this file is not for spreadsheets.
    """
    buffer = io.StringIO(newline="")
    # Everything is quoted: a lone \r inside a text would otherwise begin a row.
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(item.name for item in fields(HardCase))
    writer.writerows((row.text, row.label, row.source) for row in cases.rows)
    return buffer.getvalue().encode()


def cases_as_jsonl(cases: HardCases) -> bytes:
    """Return hard cases as the JSON Lines that `shield train` reads."""
    lines = (json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in cases.rows)
    return "".join(lines).encode()

"""What a reviewer said of a dataset's rows: note, corrected label, tags. Nothing is overwritten.

Each save is a row of its own that states everything about its row; the last one holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shield_engine.errors import ConfigError, UnknownNameError
from shield_engine.store.connection import utc_now
from shield_engine.store.store import Store
from shield_engine.types import LABELS

__all__ = [
    "LATEST_ANNOTATIONS",
    "Annotation",
    "annotate",
    "annotation",
    "annotation_count",
    "annotation_history",
    "dataset_annotations",
    "tag_counts",
]

MOST_TAG_CHARS = 60

LATEST_ANNOTATIONS = """
    SELECT row_index, note, label, tags, created_at FROM annotations WHERE dataset_id = ?
    QUALIFY row_number() OVER (
        PARTITION BY row_index ORDER BY rowid DESC) = 1
        AND (coalesce(note, '') <> '' OR label IS NOT NULL OR len(tags) > 0)
"""
"""SQL of what holds for each annotated row of a dataset; one parameter, the dataset's id.

The last one is the one written last (DuckDB numbers rows as they are added): a clock can be set back.
"""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What was said of one row at one time.

    Attributes:
        row_index: Which row of the dataset.
        note: Free words; empty if none, or if the dataset's texts were purged since.
        label: Corrected class index; `None` keeps the imported label.
        tags: Sorted.
        created_at: UTC.
    """

    row_index: int
    note: str = ""
    label: int | None = None
    tags: tuple[str, ...] = ()
    created_at: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """True if nothing is said: what was there is taken back."""
        return not (self.note or self.tags or self.label is not None)


def annotate(
    store: Store,
    dataset_id: str,
    row_index: int,
    *,
    note: str = "",
    label: int | None = None,
    tags: Sequence[str] = (),
) -> Annotation:
    """Keep what is now said of a row; saying nothing takes back what was there.

    Raises:
        UnknownNameError: There is no such dataset or row.
        ConfigError: The label is none of the task's, or a tag is empty, too long or not printable.
    """
    names = LABELS[store.datasets.find(dataset_id).task]
    if label is not None and not 0 <= label < len(names):
        raise ConfigError(f"label {label} is none of {', '.join(names)}")
    cleaned = tuple(sorted({_checked_tag(tag) for tag in tags}))
    if not store.fetch(
        "SELECT 1 FROM dataset_rows WHERE dataset_id = ? AND row_index = ?", [dataset_id, row_index]
    ):
        raise UnknownNameError(f"dataset {dataset_id} has no row {row_index}")
    now = utc_now()
    store.execute(
        "INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?)",
        [dataset_id, row_index, note.strip() or None, label, list(cleaned), now],
    )
    return Annotation(row_index, note.strip(), label, cleaned, now)


def annotation(store: Store, dataset_id: str, row_index: int) -> Annotation:
    """Return what holds for a row; an empty one if nothing was said of it."""
    return next(iter(annotation_history(store, dataset_id, row_index)), Annotation(row_index))


def annotation_history(store: Store, dataset_id: str, row_index: int) -> list[Annotation]:
    """Return everything that was ever said of a row, newest first."""
    rows = store.fetch(
        "SELECT row_index, note, label, tags, created_at FROM annotations "
        "WHERE dataset_id = ? AND row_index = ? ORDER BY rowid DESC",
        [dataset_id, row_index],
    )
    return [_annotation(row) for row in rows]


def dataset_annotations(store: Store, dataset_id: str) -> dict[int, Annotation]:
    """Return what holds for each annotated row of a dataset, in row order."""
    rows = store.fetch(f"{LATEST_ANNOTATIONS} ORDER BY row_index", [dataset_id])
    return {int(row[0]): _annotation(row) for row in rows}


def annotation_count(store: Store, dataset_id: str) -> int:
    """Return how often something was said of a dataset's rows; it grows with each save."""
    ((count,),) = store.fetch("SELECT count(*) FROM annotations WHERE dataset_id = ?", [dataset_id])
    return int(count)


def tag_counts(store: Store, dataset_id: str) -> dict[str, int]:
    """Return how many rows bear each tag, the most frequent first."""
    rows = store.fetch(
        f"SELECT tag, count(*) AS n FROM (SELECT unnest(tags) AS tag FROM ({LATEST_ANNOTATIONS})) "
        "GROUP BY tag ORDER BY n DESC, tag",
        [dataset_id],
    )
    return {str(tag): int(count) for tag, count in rows}


def _checked_tag(tag: str) -> str:
    cleaned = tag.strip()
    if not cleaned or not cleaned.isprintable() or len(cleaned) > MOST_TAG_CHARS:
        raise ConfigError(
            f"a tag is a short word of up to {MOST_TAG_CHARS} characters on one line, got {tag!r}"
        )
    return cleaned


def _annotation(row: Sequence[Any]) -> Annotation:
    index, note, label, tags, when = row
    return Annotation(int(index), note or "", label, tuple(tags or ()), when)

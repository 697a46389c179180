"""Versions of a dataset that came from one another: their rows whole, and their line of descent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shield_engine.errors import UnknownNameError
from shield_engine.store.database import DatasetInfo, Store

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["lineage", "version_rows"]


def version_rows(store: Store, dataset_id: str) -> pa.Table:
    """Return a version's rows in order, in the columns that `Store.add_dataset` takes."""
    table: pa.Table = store.arrow(
        'SELECT row_index, row_id, text, label, group_id AS "group", slices::VARCHAR AS slices, '
        "text_sha256, chars FROM dataset_rows WHERE dataset_id = ? ORDER BY row_index",
        [dataset_id],
    )
    return table


def lineage(store: Store, dataset_id: str) -> list[DatasetInfo]:
    """Return a version and what it was corrected from, newest first.

    The line ends early at a version that was deleted.
    """
    line = [store.dataset(dataset_id)]
    while line[-1].parent_id is not None:
        try:
            line.append(store.dataset(line[-1].parent_id))
        except UnknownNameError:
            break
    return line

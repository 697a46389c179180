"""Dataset versions, a version's rows and a file's first rows, as tables for the screen. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import pandas as pd

from dashboard.text import TASK_TITLES, clock, visible
from shield_engine.datasets import Sniffed
from shield_engine.store import DatasetInfo, StoredRow
from shield_engine.types import LABELS, Task

__all__ = ["datasets_frame", "preview_frame", "rows_frame"]


def datasets_frame(datasets: Iterable[DatasetInfo]) -> pd.DataFrame:
    """Return one row a dataset version, in the order given."""
    return pd.DataFrame(
        [
            {
                "Dataset": visible(info.name),
                "Version": info.version,
                "Task": TASK_TITLES[info.task],
                "Rows": info.rows,
                "Labelled": info.labelled,
                "Quarantined": info.quarantined,
                "Texts": "purged" if info.purged else "stored",
                "Imported": clock(info.created_at),
                "File": visible(info.source),
            }
            for info in datasets
        ]
    )


def rows_frame(rows: Sequence[StoredRow], task: Task) -> pd.DataFrame:
    """Return a page of a dataset's rows, hidden characters written out."""
    return pd.DataFrame(
        [
            {
                "Row": row.row_index + 1,
                "Id": visible(row.row_id),
                "Text": "(purged)" if row.text is None else visible(row.text),
                "Label": "" if row.label is None else LABELS[task][row.label],
                "Characters": row.chars,
                "Slices": _slices(row.slices),
            }
            for row in rows
        ],
        columns=["Row", "Id", "Text", "Label", "Characters", "Slices"],
    )


def _slices(written: str | None) -> str:
    if not written:
        return ""
    values = json.loads(written)
    return visible(", ".join(f"{name}: {value}" for name, value in values.items() if value))


def preview_frame(sniffed: Sniffed) -> pd.DataFrame:
    """Return a file's first rows as text, lists and objects as JSON."""
    return pd.DataFrame(
        [
            {visible(name): _cell(row.get(name)) for name in sniffed.columns}
            for row in sniffed.preview
        ]
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return visible(json.dumps(value, ensure_ascii=False, default=str))
    return visible(str(value))

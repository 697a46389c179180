"""Dataset versions, a version's rows and a file's first rows, as tables for the screen. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from dashboard.text import TASK_TITLES, clock, megabytes, visible
from shield_engine.datasets import Sniffed
from shield_engine.store import DatasetInfo, StoredRow
from shield_engine.types import LABELS, Task

__all__ = [
    "datasets_frame",
    "preview_frame",
    "profile_tiles",
    "quarantine_frame",
    "rows_frame",
    "shares_frame",
    "sniffed_facts",
]

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


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


def sniffed_facts(sniffed: Sniffed) -> list[str]:
    """Return what a file was found to be, in a few words each."""
    facts = [
        sniffed.format.upper() + (f" in {sniffed.compression}" if sniffed.compression else ""),
        megabytes(sniffed.size_bytes),
        f"encoding {sniffed.encoding}",
        f"{len(sniffed.columns)} columns",
    ]
    if sniffed.delimiter:
        facts.append(f"split at {_DELIMITERS.get(sniffed.delimiter, repr(sniffed.delimiter))}")
    if sniffed.format in {"csv", "tsv"}:
        facts.append("first row names the columns" if sniffed.has_header else "no header row")
    return facts


def profile_tiles(
    info: DatasetInfo, profile: Mapping[str, Any]
) -> list[tuple[str, str, str | None]]:
    """Return the numbers of a dataset's profile: title, value and meaning."""
    longest = (
        f"Median characters of a text. 95% have at most {profile.get('chars_p95', 0):,}, the "
        f"longest {profile.get('chars_max', 0):,}."
    )
    counted = (
        (
            "Duplicates",
            "duplicates",
            "Rows whose exact text occurred before. They are scored and counted.",
        ),
        ("Conflicts", "conflicts", "Texts that occur with more than one label."),
        ("Typical length", "chars_p50", longest),
        (
            "Very long texts",
            "very_long",
            "More than 20,000 characters; they are scanned window by window.",
        ),
    )
    return [
        ("Labelled", f"{info.labelled:,}", None),
        *((title, f"{profile.get(key, 0):,}", meaning) for title, key, meaning in counted),
    ]


def shares_frame(counts: Mapping[str, int], name: str, total: int) -> pd.DataFrame:
    """Return counts by name, with their share of a total."""
    return pd.DataFrame(
        {
            name: list(counts),
            "Rows": list(counts.values()),
            "Share": [f"{rows / total:.1%}" if total else "-" for rows in counts.values()],
        }
    )


def quarantine_frame(quarantined: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows that could not be read, with line and reason."""
    return pd.DataFrame(
        [
            {
                "Line": row["line"],
                "Reason": visible(row["reason"]),
                "Sample": visible(row["sample"]),
            }
            for row in quarantined
        ]
    )

"""A user's file before its import: its name, its label values, and whether it may be read. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from shield_engine.datasets import Sniffed
from shield_engine.datasets.sniffing import inspect_file, open_records
from shield_engine.errors import ConfigError

__all__ = [
    "MAX_LABEL_VALUES",
    "allowed_file",
    "dataset_name",
    "holds_messages",
    "label_values",
    "unmapped",
]

MAX_LABEL_VALUES = 50
"""A column of more distinct values holds no labels."""

_MESSAGE_COLUMNS = frozenset({"messages", "message", "conversation", "conversations", "chat"})
_SUFFIXES = (".gz", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".tab", ".parquet", ".pq")


def dataset_name(file_name: str) -> str:
    """Return a file's name without its endings, to name a dataset by."""
    name = Path(file_name.replace("\\", "/")).name
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            name = name[: -len(suffix)]
    return name


def holds_messages(sniffed: Sniffed, column: str) -> bool:
    """Return whether a column holds chat messages, so that roles can be chosen."""
    values = [row.get(column) for row in sniffed.preview]
    is_named_so = column.strip().casefold() in _MESSAGE_COLUMNS
    return any(
        isinstance(value, list)
        or (is_named_so and isinstance(value, str) and value.lstrip().startswith("["))
        for value in values
    )


def label_values(path: Path, column: str) -> dict[str, int]:
    """Return the distinct values of a label column with their rows, commonest first.

    Counting stops after `MAX_LABEL_VALUES` + 1 distinct values: that is no label column. Empty
    values are left out; such rows are quarantined on import.
    """
    counts: Counter[str] = Counter()
    with open_records(inspect_file(path), [column]) as stream:
        for record in stream.records:
            value = _spelled(getattr(record, "values", {}).get(column))
            if value.strip():
                counts[value] += 1
                if len(counts) > MAX_LABEL_VALUES:
                    break
    return dict(counts.most_common())


def _spelled(value: object) -> str:
    """Return a label value as the importer spells it."""
    if value is None or isinstance(value, list | dict | bytes):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not isinstance(value, str):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def unmapped(values: Iterable[str], chosen: Mapping[str, int | None]) -> list[str]:
    """Return the label values that have no class yet."""
    return [value for value in values if chosen.get(value) is None]


def allowed_file(written: str, roots: Sequence[Path]) -> Path:
    """Return a server path if it lies under an allowed folder, links resolved.

    Raises:
        ConfigError: It does not, or is no file.
    """
    path = Path(written.strip()).expanduser()
    if not path.is_absolute() and roots:
        path = roots[0] / path
    real = path.resolve()
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        allowed = ", ".join(str(root) for root in roots) or "none"
        raise ConfigError(
            f"{path} is outside the folders this dashboard may read ({allowed}); SHIELD_DATA_ROOTS "
            "names them"
        )
    if not real.is_file():
        raise ConfigError(f"{path} is not a file")
    return real

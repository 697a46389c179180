"""A user's file before its import: its messages, its classes, and whether it may be read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from shield_engine.errors import ConfigError

__all__ = ["FILE_TYPES", "allowed_file", "unmapped"]

FILE_TYPES = ("csv", "tsv", "jsonl", "ndjson", "json", "parquet", "gz")
"""Endings that an upload may have."""


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

"""Tables as files that a spreadsheet may open."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["neutralised", "neutralised_text"]

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def neutralised_text(value: str) -> str:
    """Return `value` so that a spreadsheet shows it instead of running it as a formula."""
    return f"'{value}" if value.startswith(_FORMULA_STARTS) else value


def neutralised(table: pa.Table) -> pa.Table:
    """Return `table` with every text cell neutralised."""
    import pyarrow as pa

    for position, column in enumerate(table.schema):
        if pa.types.is_string(column.type):
            values = [
                None if value is None else neutralised_text(value)
                for value in table.column(position).to_pylist()
            ]
            table = table.set_column(position, column, pa.array(values, column.type))
    return table

"""What belongs together when rows are split: a group, or equal texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shield_engine.store.database import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["row_units"]


def row_units(store: Store, run_id: str) -> NDArray[np.uint64]:
    """Return what each scored row belongs to, in row order: its group, else its text.

    Rows of one group, and rows of one text without a group, have the same number.
    """
    table = store.arrow(
        "SELECT hash(coalesce('group ' || d.group_id, 'text ' || d.text_sha256)) AS unit "
        "FROM results s JOIN runs r USING (run_id) "
        "JOIN dataset_rows d ON d.dataset_id = r.dataset_id AND d.row_index = s.row_index "
        "WHERE s.run_id = ? ORDER BY s.row_index",
        [run_id],
    )
    units: NDArray[np.uint64] = table["unit"].to_numpy()
    return units

"""Which rows took more than one of the model's windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shield_engine.store.database import Store

__all__ = ["rows_beyond_window"]


def rows_beyond_window(store: Store, run_id: str) -> NDArray[np.int64]:
    """Return the indexes of a run's rows whose text was longer than the model's window, ascending.

    Empty for a run without a model.
    """
    table = store.arrow(
        "SELECT row_index FROM results WHERE run_id = ? AND windows > 1 ORDER BY row_index",
        [run_id],
    )
    rows: NDArray[np.int64] = table["row_index"].to_numpy().astype(np.int64)
    return rows

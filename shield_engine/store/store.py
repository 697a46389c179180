"""The store as one object: the open connection with its datasets and its runs."""

from __future__ import annotations

from pathlib import Path

import duckdb

from shield_engine.store.connection import Connection
from shield_engine.store.datasets import Datasets
from shield_engine.store.runs import Runs

__all__ = ["Store"]


class Store(Connection):
    """Datasets, runs and results in one DuckDB file that this process owns.

    Rows as they are judged, notes, and what is kept by name are functions of `rows`, `notes` and
    `library` that take a store.
    """

    def __init__(self, root: duckdb.DuckDBPyConnection, path: Path | None, notice: str | None):
        super().__init__(root, path, notice)
        self.datasets = Datasets(self)
        self.runs = Runs(self, self.datasets)

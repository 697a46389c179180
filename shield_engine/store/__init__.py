"""One DuckDB file of datasets, runs, raw scores, policies, gates and notes."""

from shield_engine.store.datasets import DatasetDetails, DatasetInfo
from shield_engine.store.rows import StoredRow
from shield_engine.store.runs import RunInfo, RunStamp, RunStatus, Scores
from shield_engine.store.store import Store

__all__ = [
    "DatasetDetails",
    "DatasetInfo",
    "RunInfo",
    "RunStamp",
    "RunStatus",
    "Scores",
    "Store",
    "StoredRow",
]

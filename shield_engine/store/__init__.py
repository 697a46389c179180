"""One DuckDB file of datasets, runs, raw scores, policies, gates and notes."""

from shield_engine.store.database import DatasetInfo, RunInfo, RunStatus, Scores, Store

__all__ = ["DatasetInfo", "RunInfo", "RunStatus", "Scores", "Store"]

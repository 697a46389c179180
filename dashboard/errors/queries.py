"""What the Errors page reads, cached: counts, pages, suspects, wording, neighbours.

Cached functions take values. Counts that annotations can change take their number as `notes`.
"""

from __future__ import annotations

import streamlit as st

from dashboard.state import RunKey, resources, scores
from shield_engine.decide.views import RowJudge, verdicts_of
from shield_engine.review.contrasts import Contrasts, error_contrasts
from shield_engine.review.corrections import HardCases, hard_cases
from shield_engine.review.suspects import (
    NeighbourIndex,
    Suspect,
    label_suspects,
    neighbour_index,
    with_neighbours,
)
from shield_engine.store import StoredRow
from shield_engine.store.rows import (
    Classes,
    ErrorCounts,
    JudgedRow,
    RowChoices,
    RowFilter,
    Verdicts,
    count_rows,
    judged_rows,
    row_choices,
    stored_rows,
)

__all__ = [
    "choices",
    "classes_of",
    "contents",
    "contrasts",
    "counts",
    "hard_cases_of",
    "index_of",
    "page_of",
    "suspects",
    "verdicts",
]


def verdicts(judgement: RowJudge, key: RunKey) -> Verdicts:
    """Return the verdict on every row; made anew each time, from scores that are cached."""
    return verdicts_of(resources().store, judgement, scores(key))


@st.cache_data(max_entries=32, show_spinner="Counting rows")
def counts(judgement: RowJudge, rows: RowFilter, key: RunKey, notes: int) -> ErrorCounts:
    """Return how many rows of each kind pass a filter."""
    return count_rows(resources().store, verdicts(judgement, key), rows)


@st.cache_data(max_entries=32, show_spinner="Reading rows")
def page_of(
    judgement: RowJudge, rows: RowFilter, offset: int, limit: int, key: RunKey, notes: int
) -> list[JudgedRow]:
    """Return one page of judged rows."""
    store = resources().store
    return judged_rows(store, verdicts(judgement, key), rows, offset=offset, limit=limit)


@st.cache_data(max_entries=32, show_spinner=False)
def classes_of(judgement: RowJudge, key: RunKey, notes: int) -> Classes:
    """Return the classes that a judgement tells apart."""
    return verdicts(judgement, key).classes


@st.cache_data(max_entries=8, show_spinner="Looking at rules and slices")
def choices(key: RunKey) -> RowChoices:
    """Return what the rows of a run can be filtered by."""
    return row_choices(resources().store, key.run_id)


def contents(dataset_id: str, indexes: list[int], run_id: str) -> dict[int, StoredRow]:
    """Return id, text, label and rules of some rows by row index."""
    rows = stored_rows(resources().store, dataset_id, indexes, run_id)
    return {row.row_index: row for row in rows}


@st.cache_resource(max_entries=2, show_spinner="Comparing texts")
def index_of(dataset_id: str, is_purged: bool) -> NeighbourIndex | None:
    """Return a dataset's texts ready to be searched for alike ones; shared, never changed."""
    return neighbour_index(resources().store, dataset_id)


@st.cache_data(max_entries=8, show_spinner="Looking for labels to doubt")
def suspects(key: RunKey, is_purged: bool) -> list[Suspect]:
    """Return a run's suspected label errors, ranked with their neighbours where texts are there."""
    store = resources().store
    run = store.runs.find(key.run_id)
    doubted = label_suspects(scores(key))
    index = index_of(run.dataset_id, is_purged) if doubted else None
    if index is None:
        return doubted
    rows = stored_rows(store, run.dataset_id, [suspect.row_index for suspect in doubted])
    return with_neighbours(doubted, index, {row.row_index: row.text or "" for row in rows})


@st.cache_data(max_entries=16, show_spinner="Comparing the words of errors and other rows")
def contrasts(
    judgement: RowJudge, label: int, rows: RowFilter, key: RunKey, notes: int
) -> Contrasts:
    """Return what the errors of one class have in common."""
    return error_contrasts(resources().store, verdicts(judgement, key), label, rows=rows)


@st.cache_data(max_entries=2, show_spinner="Collecting hard cases")
def hard_cases_of(judgement: RowJudge, near: float, key: RunKey, notes: int) -> HardCases:
    """Return errors and near-threshold rows with their corrected labels."""
    return hard_cases(resources().store, judgement, near, scores(key))

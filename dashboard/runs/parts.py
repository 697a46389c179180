"""The parts of the page Runs: the list, one run with what can be done with it, failed rows."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import partial

import pandas as pd
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import streamlit as st

from dashboard.state import RunKey, resources, scores
from dashboard.tables import runs_frame
from dashboard.text import visible
from dashboard.widgets import (
    PAGE_ROWS,
    download,
    is_active,
    paged,
    show_table,
    status_chip,
    watch_run,
)
from shield_engine.decide.figures import scores_table
from shield_engine.hostile_text import neutralised
from shield_engine.store import RunInfo
from shield_engine.store.rows import stored_rows

__all__ = ["show_run", "show_runs"]


def show_runs(runs: Iterable[RunInfo]) -> None:
    """List all runs."""
    titles = {info.dataset_id: info.title for info in resources().store.datasets.all()}
    show_table(
        runs_frame(runs, titles),
        key="runs",
        columns={
            "Rows/s": "Rows scored per second of scoring time, cache hits included.",
            "Guard": "What scored beside the rules: a model and its variant, or a guard and its "
            "version.",
            "SHA-256": "Start of the digest of the model's file, or of what was declared of the "
            "guard.",
        },
        alt="All runs, newest first",
    )


def show_run(run: RunInfo) -> None:
    """Show one run whole."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"Run {run.run_id}", anchor=False, width="content")
        status_chip(run.status)
    watch_run(run.run_id, key="runs")
    is_busy = is_active(run.run_id)
    _show_actions(run, is_busy)
    if run.errors and not is_busy:
        _show_errors(run)
    left, right = st.columns(2)
    with left, st.expander("Settings it was made with"):
        st.json(dict(run.settings))
    with right, st.expander("What repeats it"):
        st.json(dict(run.stamp))


def _show_actions(run: RunInfo, is_busy: bool) -> None:
    """Offer what can be done with a run in its state."""
    opened = resources()
    with st.container(horizontal=True):
        if run.rows_done and st.button(
            "Compare modes", key="compare_run", icon=":material/compare_arrows:", type="primary"
        ):
            st.switch_page("app_pages/compare.py", query_params={"run": run.run_id})
        if run.is_resumable and st.button("Resume", key="resume", icon=":material/play_arrow:"):
            opened.worker.submit(run.run_id)
            st.rerun()
        if (
            run.errors
            and not run.is_given
            and st.button(
                f"Retry {run.errors:,} errors",
                key="retry",
                icon=":material/replay:",
                disabled=is_busy,
            )
        ):
            opened.worker.submit(run.run_id, retry_errors=True)
            st.rerun()
        for title, write, ending in (
            ("Scores (Parquet)", _parquet_scores, "parquet"),
            ("Scores (CSV)", _csv_scores, "csv"),
        ):
            download(
                title,
                partial(write, run.run_id),
                f"scores-{run.run_id}.{ending}",
                key=f"export_{ending}",
                disabled=not run.rows_done,
            )
        with st.popover("Delete", icon=":material/delete:", disabled=is_busy):
            st.write("This drops the run and its scores for good. The dataset stays.")
            if st.button("Delete this run", key="delete_run", type="primary"):
                opened.store.runs.delete(run.run_id)
                st.rerun()


def _parquet_scores(run_id: str) -> bytes:
    """Return every row's scores as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(scores_table(resources().store, run_id), buffer)
    return buffer.getvalue()


def _csv_scores(run_id: str) -> bytes:
    """Return every row's scores as CSV that no spreadsheet runs."""
    buffer = io.BytesIO()
    pa_csv.write_csv(neutralised(scores_table(resources().store, run_id)), buffer)
    return buffer.getvalue()


def _show_errors(run: RunInfo) -> None:
    """List the rows that no score could be had for, with the reason."""
    stored = scores(RunKey.of(run))
    indexes = stored.row_index[stored.has_error].tolist()
    st.subheader(f"Rows with errors ({len(indexes):,})", anchor=False)
    offset = paged(len(indexes), key="error_page")
    page = indexes[offset : offset + PAGE_ROWS]
    rows = stored_rows(resources().store, run.dataset_id, page, run.run_id)
    frame = pd.DataFrame(
        [
            {
                "Row": row.row_index + 1,
                "Id": visible(row.row_id),
                "Error": visible(row.error or ""),
                "Text": visible(row.text or "(purged)"),
            }
            for row in rows
        ]
    )
    show_table(frame, key="failed_rows", alt="Rows with errors")

"""Runs: every scoring with its settings and progress; resume, retry, export, delete."""

from __future__ import annotations

import io

import pandas as pd
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import streamlit as st

from dashboard.state import RunKey, drop_stale, resources, scores
from dashboard.tables import run_title, runs_frame
from dashboard.text import visible
from dashboard.widgets import empty_state, errors_shown, page_title, paged, status_chip, watch_run
from shield_engine.decide.figures import scores_table
from shield_engine.hostile_text import neutralised
from shield_engine.store import RunInfo

PAGE_ROWS = 50


def parquet_scores(run_id: str) -> bytes:
    """Return every row's scores as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(scores_table(resources().store, run_id), buffer)
    return buffer.getvalue()


def csv_scores(run_id: str) -> bytes:
    """Return every row's scores as CSV that no spreadsheet runs."""
    buffer = io.BytesIO()
    pa_csv.write_csv(neutralised(scores_table(resources().store, run_id)), buffer)
    return buffer.getvalue()


def show_actions(run: RunInfo, is_active: bool) -> None:
    """Offer what can be done with a run in its state."""
    held = resources()
    with st.container(horizontal=True):
        if run.rows_done and st.button(
            "Compare modes", key="compare_run", icon=":material/compare_arrows:", type="primary"
        ):
            st.switch_page("app_pages/compare.py", query_params={"run": run.run_id})
        if run.is_resumable and st.button("Resume", key="resume", icon=":material/play_arrow:"):
            held.worker.submit(run.run_id)
            st.rerun()
        if run.errors and st.button(
            f"Retry {run.errors:,} errors",
            key="retry",
            icon=":material/replay:",
            disabled=is_active,
        ):
            held.worker.submit(run.run_id, retry_errors=True)
            st.rerun()
        st.download_button(
            "Scores (Parquet)",
            lambda: parquet_scores(run.run_id),
            file_name=f"scores-{run.run_id}.parquet",
            key="export_parquet",
            icon=":material/download:",
            on_click="ignore",
            disabled=not run.rows_done,
        )
        st.download_button(
            "Scores (CSV)",
            lambda: csv_scores(run.run_id),
            file_name=f"scores-{run.run_id}.csv",
            mime="text/csv",
            key="export_csv",
            icon=":material/download:",
            on_click="ignore",
            disabled=not run.rows_done,
        )
        with st.popover("Delete", icon=":material/delete:", disabled=is_active):
            st.write("This drops the run and its scores for good. The dataset stays.")
            if st.button("Delete this run", key="delete_run", type="primary"):
                held.store.delete_run(run.run_id)
                st.rerun()


def show_errors(run: RunInfo) -> None:
    """List the rows that no score could be had for, with the reason."""
    stored = scores(RunKey.of(run))
    indexes = stored.row_index[stored.has_error].tolist()
    st.subheader(f"Rows with errors ({len(indexes):,})", anchor=False)
    offset = paged(len(indexes), key="error_page", size=PAGE_ROWS)
    rows = resources().store.page(
        run.dataset_id, run_id=run.run_id, indexes=indexes[offset : offset + PAGE_ROWS]
    )
    st.dataframe(
        pd.DataFrame(
            [
                {
                    "Row": row["row_index"] + 1,
                    "Id": visible(row["row_id"]),
                    "Error": visible(row["error"] or ""),
                    "Text": visible(row["text"] or "(purged)"),
                }
                for row in rows
            ]
        ),
        hide_index=True,
        alt="Rows with errors",
    )


def show_run(run: RunInfo) -> None:
    """Show one run whole."""
    is_active = any(job.run_id == run.run_id for job in resources().worker.active())
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"Run {run.run_id}", anchor=False, width="content")
        status_chip(run.status)
    watch_run(run.run_id, key="runs")
    show_actions(run, is_active)
    if run.errors and not is_active:
        show_errors(run)
    left, right = st.columns(2)
    with left, st.expander("Settings it was made with"):
        st.json(dict(run.settings))
    with right, st.expander("What repeats it"):
        st.json(dict(run.stamp))


page_title("Runs", "A run keeps every part's score of every row; verdicts are computed from them.")
held = resources()
runs = {run.run_id: run for run in held.store.runs()}
if not runs:
    empty_state(
        "No run yet",
        "Choose a dataset and what to score it with.",
        "New run",
        "app_pages/new_run.py",
    )
    st.stop()
titles = {info.dataset_id: info.title for info in held.store.datasets()}
st.dataframe(
    runs_frame(runs.values(), titles),
    hide_index=True,
    column_config={
        "Rows/s": st.column_config.NumberColumn(
            help="Rows scored per second of scoring time, cache hits included."
        ),
        "Model": st.column_config.TextColumn(help="Model, variant, start of its SHA-256."),
    },
    alt="All runs, newest first",
)
drop_stale("shown_run", runs)
chosen = st.selectbox(
    "Show run",
    list(runs),
    key="shown_run",
    format_func=lambda run_id: run_title(runs[run_id], titles),
    bind="query-params",
)
with errors_shown():
    show_run(runs[chosen])

"""What Datasets draws of stored versions: profile, rows, quarantine, and their removal."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from dashboard.datasets.scores import show_join
from dashboard.datasets.tables import (
    datasets_frame,
    profile_tiles,
    quarantine_frame,
    rows_frame,
    shares_frame,
)
from dashboard.state import resources
from dashboard.text import plain, visible
from dashboard.widgets import (
    PAGE_ROWS,
    PURGE_WARNING,
    empty_state,
    offer_removal,
    paged,
    pick,
    show_metrics,
    show_table,
    show_text,
)
from shield_engine.store import DatasetInfo
from shield_engine.store.rows import dataset_page
from shield_engine.types import Task

__all__ = ["show_stored"]

_ADD = "Add scores"


def show_stored(datasets: Mapping[str, DatasetInfo]) -> None:
    """Show what is stored, and one dataset in detail."""
    if not datasets:
        empty_state("No dataset yet", "Import a file of texts, or a bundled sample, above.")
        return
    show_table(datasets_frame(datasets.values()), key="datasets", alt="Stored datasets")
    titles = {name: visible(info.title) for name, info in datasets.items()}
    info = datasets[pick("Show dataset", titles, key="shown_dataset", in_url="shown_dataset")]
    if st.session_state.get("new_dataset") == info.dataset_id:
        runs = resources().store.runs.all(info.dataset_id)
        guards = [visible(run.scorer or "") for run in reversed(runs) if run.is_given]
        news = f"{info.title} is stored: {info.rows:,} rows, {info.labelled:,} labelled."
        news += f" Scores of {', '.join(guards)} are runs: compare them." if guards else ""
        st.success(plain(news), icon=":material/check_circle:")
    _show_actions(info)
    adds = [] if info.task is Task.SENTIMENT else [_ADD]
    part = st.segmented_control(
        "Show",
        ["Profile", "Rows", f"Quarantine ({info.quarantined:,})", *adds],
        default="Profile",
        required=True,
        key=f"part:{info.dataset_id}",
        label_visibility="collapsed",
    )
    if part == "Profile":
        _show_profile(info)
    elif part == "Rows":
        _show_rows(info)
    elif part == _ADD:
        show_join(info)
    else:
        _show_quarantine(info)


def _show_actions(info: DatasetInfo) -> None:
    """Offer to score it, to drop its texts, or everything; both ask first."""
    store = resources().store
    used = {run.run_id for run in store.runs.all(info.dataset_id)}
    is_busy = any(job.run_id in used for job in resources().worker.active())
    with st.container(horizontal=True):
        if st.button("New run", icon=":material/play_arrow:", key="run_this", disabled=info.purged):
            st.session_state["run_dataset"] = info.dataset_id
            st.switch_page("app_pages/new_run.py")
        offer_removal(
            "Purge texts",
            PURGE_WARNING,
            "Purge the texts",
            lambda: store.datasets.purge_texts(info.dataset_id),
            key="purge",
            icon=":material/ink_eraser:",
            disabled=info.purged or is_busy,
        )
        offer_removal(
            "Delete",
            f"Drops the dataset with its {len(used):,} runs and their scores for good.",
            "Delete this dataset",
            lambda: store.datasets.delete(info.dataset_id),
            key="delete_dataset",
            disabled=is_busy,
        )


def _show_profile(info: DatasetInfo) -> None:
    """Show what was read, what was set aside, and what the rows look like."""
    profile = info.details.get("profile", {})
    read = info.details.get("rows_read", info.rows + info.quarantined)
    st.markdown(
        f"**{read:,} rows read = {info.rows:,} imported + {info.quarantined:,} quarantined**"
    )
    show_metrics(*profile_tiles(info, profile))
    for warning in profile.get("warnings", ()):
        st.warning(plain(warning), icon=":material/warning:")
    left, right = st.columns(2)
    with left:
        if info.labelled:
            st.caption("Rows of each class")
            classes = shares_frame(profile.get("class_counts", {}), "Class", info.labelled)
            show_table(classes, key="class_counts", alt="Rows of each class")
    with right:
        st.caption("Languages, a rough guess from the first 300 characters")
        languages = shares_frame(profile.get("languages", {}), "Language", info.rows)
        show_table(languages, key="languages", alt="Rows by guessed language")


def _show_quarantine(info: DatasetInfo) -> None:
    """List the rows that could not be read, with line and reason."""
    if not info.quarantined:
        st.caption("Every row could be read.")
        return
    frame = quarantine_frame(info.details.get("quarantine") or [])
    st.caption(f"{len(frame):,} of {info.quarantined:,} quarantined rows are kept for this report.")
    file_name = f"quarantine-{info.dataset_id}.csv"
    show_table(frame, key="quarantine", file_name=file_name, alt="Quarantined rows")


def _show_rows(info: DatasetInfo) -> None:
    """Page and search through the rows; one can be read whole."""
    store = resources().store
    search = st.text_input(
        "Search in texts",
        key="row_search",
        icon=":material/search:",
        disabled=info.purged,
        bind="query-params",
    )
    if search:
        st.caption("The first 50 rows that contain it, without regard to case.")
        rows = dataset_page(store, info.dataset_id, search=search, limit=PAGE_ROWS)
    else:
        offset = paged(info.rows, key="row_page")
        rows = dataset_page(store, info.dataset_id, offset=offset, limit=PAGE_ROWS)
    if not rows:
        st.caption("No row contains it.")
        return
    show_table(rows_frame(rows, info.task), key="dataset_rows", height=380, alt="Rows")
    by_index = {row.row_index: row for row in rows}
    chosen = st.selectbox(
        "Read a row whole",
        list(by_index),
        format_func=lambda index: f"Row {index + 1}",
        key="row_whole",
    )
    text = by_index[chosen].text
    if text is not None:
        show_text(text)

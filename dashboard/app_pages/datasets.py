"""Datasets: bring a file in with its columns and labels mapped, and look at what is stored."""

from __future__ import annotations

import streamlit as st

from dashboard.datasets.importing import show_import
from dashboard.datasets.parts import show_stored
from dashboard.state import resources
from dashboard.widgets import errors_shown, page_title

IMPORT, STORED = "Import a file", "Stored datasets"

page_title("Datasets", "Files become immutable versions; every row is imported or accounted for.")
stored = {info.dataset_id: info for info in resources().store.datasets.all()}
# A widget's own key cannot be set after it was drawn, so a finished import leaves word here.
if "next_view" in st.session_state:
    st.session_state["view"] = st.session_state.pop("next_view")
st.session_state.setdefault("view", STORED if stored else IMPORT)
view = st.segmented_control(
    "View",
    [IMPORT, STORED],
    required=True,
    key="view",
    label_visibility="collapsed",
    persist_state="session",
)
if view == IMPORT:
    imported = show_import()
    if imported is not None:
        st.session_state["new_dataset"] = st.session_state["shown_dataset"] = imported
        st.session_state["next_view"] = STORED
        st.rerun()
else:
    with errors_shown():
        show_stored(stored)

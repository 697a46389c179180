"""Playground: one text through every scanner in every mode, with reasons, spans and times."""

from __future__ import annotations

import streamlit as st

from dashboard.playground.parts import ask_text, show_scans
from dashboard.playground.tables import scan_everywhere
from dashboard.state import resources
from dashboard.widgets import empty_state, page_title

page_title("Playground", "One text through every scanner in every mode. Nothing is stored.")
text, variant, guards, is_wanted = ask_text()
if is_wanted:
    with st.spinner("Scanning; models load the first time"):
        scans = scan_everywhere(resources().shield, text, variant, guards)
    st.session_state["playground_scans"] = (text, scans)
scanned = st.session_state.get("playground_scans")
if scanned is None:
    empty_state(
        "Nothing scanned yet",
        "Paste a text above, or choose an example to start from, then press Scan.",
    )
else:
    if scanned[0] != text:
        st.info("The text has changed since this scan.", icon=":material/edit:")
    show_scans(scanned[1])

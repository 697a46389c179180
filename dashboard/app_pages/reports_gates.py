"""Reports and gates: state what must hold, judge a run by it, and write down what was found."""

from __future__ import annotations

import streamlit as st

from dashboard.gates.parts import (
    choose_judged,
    edit_gate,
    offer_reports,
    show_outcome,
    warn_missing,
)
from dashboard.state import resources
from dashboard.widgets import empty_state, page_title

page_title(
    "Reports and gates",
    "State what must hold, judge a run by it, and write down what was found. The command "
    "shield gate gives the same outcome.",
)
runs = {run.run_id: run for run in resources().store.runs.all() if run.rows_done}
if runs:
    judged = choose_judged(runs)
    warn_missing(judged.run)
    st.subheader("What must hold?", anchor=False)
    gate = edit_gate(judged.run.task)
    outcome = None if gate is None else show_outcome(judged, gate, runs.values())
    offer_reports(judged, outcome)
else:
    empty_state(
        "Nothing to judge yet",
        "Run all modes on the bundled sample from the Overview, or score a dataset of your own.",
        "Go to Overview",
        "app_pages/overview.py",
    )

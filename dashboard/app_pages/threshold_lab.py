"""Threshold lab: choose a threshold, see what it costs, prove it on other rows, save it."""

from __future__ import annotations

from dashboard.threshold_lab.parts import show_decision
from dashboard.widgets import choose_run, page_title, watch_run
from shield_engine.store import RunStatus

page_title(
    "Threshold lab",
    "Choose the score from which a text is flagged, see what that costs, and save it as a policy.",
)
run = choose_run(
    "There is no run to choose a threshold on.",
    "Score a labelled dataset first; the bundled sample takes seconds.",
)
if run is not None:
    if run.status == RunStatus.RUNNING:
        watch_run(run.run_id, key="lab_watch")
    show_decision(run)

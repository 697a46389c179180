"""Runs: every scoring with its settings and progress; resume, retry, export, delete."""

from __future__ import annotations

from dashboard.runs.parts import show_run, show_runs
from dashboard.state import resources
from dashboard.widgets import empty_state, errors_shown, page_title, pick_run

page_title("Runs", "A run keeps every part's score of every row; verdicts are computed from them.")
runs = {run.run_id: run for run in resources().store.runs.all()}
if runs:
    show_runs(runs.values())
    chosen = pick_run("Show run", runs.values(), key="shown_run", in_url="run")
    with errors_shown():
        show_run(runs[chosen])
else:
    empty_state(
        "No run yet",
        "Choose a dataset and what to score it with.",
        "New run",
        "app_pages/new_run.py",
    )

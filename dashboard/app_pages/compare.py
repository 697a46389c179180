"""Compare: modes, policies and runs on the same rows, against a baseline, with the rows behind."""

from __future__ import annotations

from dashboard.compare.agreement import show_agreement
from dashboard.compare.choices import choose_candidates
from dashboard.compare.parts import show_curves, show_figures, show_slices, show_speed, show_verdict
from dashboard.state import aligned, comparison_of, resources
from dashboard.widgets import choose_run, page_title, pick, watch_run
from shield_engine.store import RunStatus

_VIEWS = {
    "Figures": show_figures,
    "Curves and confusion": show_curves,
    "Slices": show_slices,
    "Agreement and rows": show_agreement,
    "Speed and cost": show_speed,
}

page_title(
    "Compare", "Modes, policies and runs on the same rows, against a baseline of your choice."
)
runs = resources().store.runs.all()
run = choose_run("Nothing to compare yet", runs=runs)
if run is not None:
    if run.status == RunStatus.RUNNING:
        watch_run(run.run_id, key="compare_watch")
    choice = choose_candidates(run, runs)
    if choice is not None:
        rows = (choice.candidates, choice.keys, choice.is_intersected)
        comparison = comparison_of(*rows, choice.baseline)
        show_verdict(comparison, run)
        # Only the part on show is computed; hidden tabs would run too.
        part = pick(
            "Show", list(_VIEWS), key="compare_view", segmented=True, label_visibility="collapsed"
        )
        _VIEWS[part](run, comparison, aligned(*rows), choice)

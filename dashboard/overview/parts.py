"""The parts of the Overview: a comparison by one button, what is stored, the latest runs."""

from __future__ import annotations

import streamlit as st

from dashboard.state import OVERVIEW_RUN, RunKey, balanced, resources, sample_path, scores
from dashboard.tables import runs_frame
from dashboard.text import MODE_TITLES, TASK_TITLES, plain
from dashboard.widgets import errors_shown, is_active, show_table, status_chip, watch_run
from shield_engine.datasets import SourceFile
from shield_engine.decide.views import available_modes, mode_view
from shield_engine.evaluate import store_rows
from shield_engine.metrics.table import percent
from shield_engine.runs.execution import RunSpec, start
from shield_engine.statistics.intervals import wilson
from shield_engine.store import RunInfo, RunStatus
from shield_engine.types import LABELS, Task

__all__ = ["show_counts", "show_latest", "show_sample"]

_COMPARE = "app_pages/compare.py"
_CARDS, _LISTED = 3, 10
_SENTIMENT_RISK = LABELS[Task.SENTIMENT].index("negative")


def show_sample() -> None:
    """Offer the bundled sample's comparison, and show its run until it is there."""
    started = st.session_state.get(OVERVIEW_RUN)
    with st.container(border=True):
        st.markdown("**See an answer first**")
        st.caption(
            "Scores the bundled prompt-injection sample with rules and with the model, then shows "
            "heuristic, ML, hybrid and both side by side. Takes a few seconds."
        )
        if st.button(
            "Compare all modes on the bundled sample",
            type="primary",
            icon=":material/compare_arrows:",
            key="compare_sample",
            disabled=started is not None and is_active(started),
        ):
            with errors_shown("The sample could not be run"), st.spinner("Importing the sample"):
                st.session_state[OVERVIEW_RUN] = _run_sample()
                st.rerun()
        if started is not None:
            watch_run(started, key="overview", then=_COMPARE)


def _run_sample() -> str:
    """Import the bundled injection sample, start a run of both parts, and return its id."""
    opened = resources()
    path = sample_path(Task.PROMPT_INJECTION)
    imported = SourceFile.open(path).read(Task.PROMPT_INJECTION)
    info = store_rows(opened.store, path.stem, Task.PROMPT_INJECTION, path, imported)
    run = start(opened.store, opened.shield, info.dataset_id, RunSpec())
    opened.worker.submit(run.run_id)
    return run.run_id


def show_counts() -> None:
    """Show how much is stored."""
    counts = resources().store.counts()
    cards = {
        "Datasets": counts["datasets"],
        "Rows stored": counts["dataset_rows"],
        "Runs": counts["runs"],
        "Scored rows": counts["results"],
    }
    for place, (title, value) in zip(st.columns(len(cards)), cards.items(), strict=True):
        place.metric(title, f"{value:,}", border=True)


def show_latest() -> None:
    """Show the latest runs, or the way to the first one."""
    runs = resources().store.runs.all()
    titles = {info.dataset_id: info.title for info in resources().store.datasets.all()}
    st.subheader("Latest runs", anchor=False)
    if not runs:
        st.caption("No run yet. The button above makes the first one; your own data goes in here:")
        if st.button("Import a dataset", icon=":material/upload_file:", key="to_datasets"):
            st.switch_page("app_pages/datasets.py")
        return
    for place, run in zip(st.columns(_CARDS), runs[:_CARDS], strict=False):
        with place:
            _show_card(run, titles.get(run.dataset_id, run.dataset_id))
    show_table(runs_frame(runs[:_LISTED], titles), key="latest_runs", alt="The ten latest runs")


def _show_card(run: RunInfo, title: str) -> None:
    """Show one run as a card with its key figure and the way to its comparison."""
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{plain(title)}**")
            status_chip(run.status)
        scorer = plain(run.scorer) if run.scorer else "rules only"
        st.caption(f"{TASK_TITLES[run.task]}, {run.rows:,} rows, {scorer}")
        if run.status != RunStatus.DONE:
            return
        name, value = _key_figure(run)
        st.metric(name, value, help="At the registry's balanced threshold, with 95% interval.")
        if st.button("Compare", key=f"compare_{run.run_id}", icon=":material/compare_arrows:"):
            st.switch_page(_COMPARE, query_params={"run": run.run_id})


def _key_figure(run: RunInfo) -> tuple[str, str]:
    """Return what a run says at a glance: the mode most often right, or what is flagged.

    Bootstrapped figures stay on Compare: over 100,000 rows they take seconds, these milliseconds.
    """
    stored, thresholds = scores(RunKey.of(run)), balanced(run)
    views = {
        mode: mode_view(stored, mode, thresholds.get(mode.value)) for mode in available_modes(run)
    }
    right = {
        mode: (int((view.predicted == view.labels)[view.counts].sum()), int(view.counts.sum()))
        for mode, view in views.items()
        if view.counts.any()
    }
    if right:
        best = max(right, key=lambda mode: right[mode][0] / right[mode][1])
        correct, rows = right[best]
        ends = wilson(correct, rows)
        accuracy = percent(correct / rows, ends.low, ends.high)
        return f"Highest accuracy: {MODE_TITLES[best]}", accuracy
    mode, view = next(iter(views.items()))
    risky = _SENTIMENT_RISK if run.task is Task.SENTIMENT else 1
    flagged = int((view.predicted == risky).sum())
    return f"Flagged by {MODE_TITLES[mode]}", percent(flagged / max(int(view.is_scored.sum()), 1))

"""The run a page is about: one select box, one place in the URL, kept from page to page."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard.state import drop_stale, keep, resources
from dashboard.tables import run_title
from shield_engine.store import RunInfo, RunStatus

__all__ = ["choose_run"]

_KEY = "chosen_run"


def choose_run(fits: Callable[[RunInfo], bool] = lambda run: bool(run.rows_done)) -> RunInfo | None:
    """Let the user choose among stored runs that fit; `None` if there is none.

    The choice is in the URL as `run` and stays while the user goes from page to page.
    """
    held = resources()
    found = {run.run_id: run for run in held.store.runs.all() if fits(run)}
    if not found:
        return None
    names = {info.dataset_id: info.title for info in held.store.datasets.all()}
    options = sorted(found, key=lambda run_id: found[run_id].status != RunStatus.DONE)
    drop_stale(_KEY, options)
    # A bound selectbox would put the whole title into the URL; the run's id is what links carry.
    wanted = st.query_params.get("run")
    if wanted in found and st.session_state.get("run_in_url") != wanted:
        st.session_state[_KEY] = wanted
    keep(_KEY, options[0])
    chosen: str = st.selectbox(
        "Run", options, format_func=lambda run_id: run_title(found[run_id], names), key=_KEY
    )
    if chosen != wanted:
        st.query_params.pop("row", None)  # it was a row of the run before
    st.query_params["run"] = st.session_state["run_in_url"] = chosen
    return found[chosen]

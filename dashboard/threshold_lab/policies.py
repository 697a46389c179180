"""The Threshold lab's policies: what is in force is saved with its evidence, and what is saved listed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.state import RunKey, mode_evaluation, optimism_of, resources, scores, split_of
from dashboard.text import plain
from dashboard.threshold_lab.choosing import Decision
from dashboard.threshold_lab.tables import (
    exact_text,
    policies_frame,
    rates_frame,
)
from dashboard.widgets import download, errors_shown, pick, show_table
from shield_engine.config import DEFAULT_THRESHOLD, Bands
from shield_engine.decide.candidates import Candidate
from shield_engine.decide.column import label_policy_figures
from shield_engine.decide.evidence import choice_evidence, new_policy
from shield_engine.decide.views import row_groups
from shield_engine.policy import Policy, policy_differences, write_policies
from shield_engine.store import RunInfo
from shield_engine.store.library import delete_policy, policies, save_policy
from shield_engine.types import LABELS, Mode, Task

__all__ = ["save_labels", "save_threshold", "show_policies"]

# Rows up to which every figure with its bootstrap takes under 0.2 s, so follows a drag.
_QUICK_ROWS = 5_000


def save_threshold(decision: Decision) -> None:
    """Save what is in force as a policy with its evidence."""
    run, mode, threshold, bands = decision.run, decision.mode, decision.threshold, decision.bands
    st.subheader("Save it as a policy", anchor=False)
    if st.toggle(
        "Show every figure as `shield eval --policy` prints it",
        run.rows_done <= _QUICK_ROWS,
        key=f"lab_exact_{run.run_id}",
        persist_state="session",
        help="They are the ones that the policy keeps. Resampling many rows takes a second at each "
        "new threshold, so this is off for large runs.",
    ):
        exact = exact_text(mode_evaluation(decision.key, mode, threshold, bands))
        if exact:
            st.caption(exact)
    _save(
        run,
        Candidate(run.run_id, mode, threshold, bands),
        ("front-door", "why this one"),
        chosen_by=decision.how,
        extra=lambda: _evidence(decision),
    )


def save_labels(run: RunInfo, mode: Mode, bands: Bands) -> None:
    """Choose which labels of sentiment pass, which goes by its most probable label, and save it."""
    stored = scores(RunKey.of(run))
    allowed = st.multiselect(
        "Labels that pass",
        LABELS[Task.SENTIMENT],
        ["neutral", "positive"],
        key="lab_allowed",
        persist_state="session",
    )
    st.caption(
        "The verdict is the most probable of three labels, so there is no threshold. A text is "
        "flagged if that label may not pass."
    )
    if (stored.labels >= 0).any():
        groups = row_groups(resources().store, run.dataset_id, stored)
        figures = label_policy_figures(stored, mode, allowed, bands=bands, groups=groups)
        st.subheader("How often is flagging right?", anchor=False)
        show_table(rates_frame(figures), key="lab_label_rates")
    else:
        st.info("This run has no labels.", icon=":material/label_off:")
    st.subheader("Save it as a policy", anchor=False)
    _save(
        run,
        Candidate(run.run_id, mode, None, bands),
        ("tone", "why these labels"),
        chosen_by="allowed labels",
        allowed_labels=allowed,
    )


def _save(run: RunInfo, candidate: Candidate, examples: tuple[str, str], **more: Any) -> None:
    """Ask for name and note, and keep the policy with the figures it gives.

    Args:
        run: What it was chosen on.
        candidate: What was decided on.
        examples: Of a name and of a note.
        more: What `new_policy` takes besides; what is costly, as a function.
    """
    with st.form("lab_save", clear_on_submit=True):
        left, right = st.columns(2)
        name = left.text_input("Name", placeholder=examples[0], max_chars=80)
        note = right.text_input("Note", placeholder=examples[1], max_chars=400)
        if not st.form_submit_button("Save policy", type="primary", icon=":material/save:"):
            return
        if not name.strip():
            st.error("Give the policy a name.")
            return
        with errors_shown("The policy was not saved"):
            store, threshold = resources().store, candidate.threshold
            figures = mode_evaluation(
                RunKey.of(run),
                candidate.mode,
                DEFAULT_THRESHOLD if threshold is None else threshold,
                candidate.bands,
            )
            facts = {key: fact() if callable(fact) else fact for key, fact in more.items()}
            dataset = store.datasets.find(run.dataset_id)
            named = replace(candidate, title=name)
            policy = new_policy(named, run, dataset, figures, note=note, **facts)
            st.session_state["lab_saved"] = save_policy(store, policy).title
            st.rerun()


def _evidence(decision: Decision) -> dict[str, Any]:
    """Return what a policy keeps beside its figures: counts, and how the rule holds elsewhere."""
    column, rule = decision.lab.column, decision.chosen_by
    if not column.n:
        return {}
    counts = column.at(decision.threshold)
    sides = {name: int(getattr(counts, name)[0]) for name in ("tp", "fp", "fn", "tn")}
    if rule is None:
        return {"counts": sides}
    asked, seed = (decision.key, decision.mode, decision.bands, rule), _seed()
    return {"counts": sides} | choice_evidence(split_of(*asked, seed), optimism_of(*asked), seed)


def _seed() -> int:
    return int(st.session_state.get("lab_seed", 7))


def show_policies() -> None:
    """List saved policies; tell two apart, download one, delete one."""
    st.subheader("Saved policies", anchor=False)
    saved = st.session_state.pop("lab_saved", None)
    if saved:
        st.success(f"Saved {plain(saved)}.", icon=":material/check_circle:")
    stored = {policy.title: policy for policy in policies(resources().store)}
    if not stored:
        st.caption("None yet. Choose a threshold above and save it.")
        return
    show_table(policies_frame(list(stored.values())), key="lab_policies")
    if saved in stored:
        st.session_state["lab_policy"] = saved
    left, right = st.columns(2)
    with left:
        titles = {title: plain(title) for title in stored}
        chosen = stored[pick("Policy", titles, key="lab_policy")]
        with st.container(horizontal=True):
            download(
                "shield.toml",
                write_policies([chosen]),
                "shield.toml",
                key="lab_export",
                help="Load it with Shield.from_policy, shield scan --policy or shield eval "
                "--policy.",
            )
            if st.button("Delete this version", icon=":material/delete:", key="lab_delete"):
                delete_policy(resources().store, chosen.name, chosen.version)
                st.rerun()
    del titles[chosen.title]
    if titles:
        with right:
            other = stored[pick("Compare it with", titles, key="lab_other")]
            _show_differences(chosen, other)


def _show_differences(first: Policy, second: Policy) -> None:
    """Show what two policies decide apart."""
    differences = policy_differences(first, second)
    if not differences:
        st.caption("They decide alike and rest on the same evidence.")
        return
    titles = ["What", first.title, second.title]
    show_table(pd.DataFrame(differences, columns=titles), key="lab_diff")

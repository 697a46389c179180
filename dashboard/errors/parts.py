"""The parts of the Errors page beside its rows: suspected labels, words and patterns, exports."""

from __future__ import annotations

import streamlit as st

from dashboard.errors import queries
from dashboard.errors.charts import contrast_chart
from dashboard.errors.choices import Subject, open_row
from dashboard.errors.rows import MOST_AUTOMATIC
from dashboard.errors.tables import (
    PROBABILITY,
    contrast_frame,
    lineage_frame,
    row_title,
    suspect_frame,
)
from dashboard.state import resources
from dashboard.text import plain
from dashboard.widgets import (
    charted,
    column,
    download,
    errors_shown,
    show_table,
)
from shield_engine.review.contrasts import Contrasts
from shield_engine.review.corrections import (
    EXCLUDE_TAG,
    HardCases,
    cases_as_csv,
    cases_as_jsonl,
    corrected_version,
    planned_correction,
)
from shield_engine.store.notes import dataset_annotations
from shield_engine.store.rows import RowFilter

__all__ = ["show_export", "show_suspects", "show_wording"]


# --- suspected labels -----------------------------------------------------------------------


def show_suspects(subject: Subject) -> None:
    """List the rows whose label the scores contradict."""
    run, dataset_id = subject.run, subject.info.dataset_id
    st.subheader(
        "Which labels may be wrong?",
        anchor=False,
        help="Confident learning (Northcutt, Jiang, Chuang 2021): rules and model, each held "
        "against what they usually say of a class, are surer of another class than of the label. "
        "Neighbours with the other label raise a row.",
    )
    suspects = queries.suspects(subject.key, subject.info.purged)
    if not suspects:
        st.info(
            "No label is contradicted with confidence. Labels of two classes and scores are needed.",
            icon=":material/check_circle:",
        )
        return
    only = "" if len(run.parts) == 2 else f" Only {run.parts[0]} scores are in this run."
    st.caption(
        f"{len(suspects):,} rows, the most suspect first. A suspect is no proof: an attack that "
        f"neither rules nor model know looks the same.{only}"
    )
    indexes = [suspect.row_index for suspect in suspects]
    contents = queries.contents(dataset_id, indexes, run.run_id)
    notes = dataset_annotations(resources().store, dataset_id)
    frame = suspect_frame(suspects, contents, notes, run.task)
    suspicion = column("How much surer than usual the parts are of the suggested class.", "%.3f")
    show_table(
        frame,
        key="errors_suspects",
        file_name=f"suspects-{run.run_id}.csv",
        columns={name: PROBABILITY for name in frame.columns if name.endswith("P(label)")}
        | {"Suspicion": suspicion},
        alt="Suspected label errors",
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Row to review",
            indexes,
            format_func=lambda index: row_title(contents[index]),
            key=f"errors_suspect:{run.run_id}",
        )
        st.button(
            "Review it",
            on_click=open_row,
            args=(run.run_id, chosen),
            key="errors_open_suspect",
            type="primary",
        )


# --- words and patterns ---------------------------------------------------------------------


def show_wording(subject: Subject) -> None:
    """Show what the errors of one class have in common."""
    if _is_purged(subject):
        return
    names = subject.classes.names
    titles = {place: f"Errors on {name} rows" for place, name in enumerate(names)}
    if subject.classes.is_binary:
        titles = {0: f"False positives ({names[0]} rows)", 1: f"False negatives ({names[1]} rows)"}
    label = st.segmented_control(
        "Whose errors",
        list(titles),
        required=True,
        default=0,
        format_func=titles.__getitem__,
        key=f"errors_class:{len(names)}",
        label_visibility="collapsed",
    )
    contrasts = queries.contrasts(
        subject.judgement, label or 0, RowFilter(), subject.key, subject.notes
    )
    if not contrasts.errors or not contrasts.others:
        missing = (
            "There are no such errors."
            if not contrasts.errors
            else "No row of this class is right."
        )
        st.info(missing, icon=":material/check_circle:")
        return
    read = ""
    if contrasts.is_sampled:
        read = (
            f" Read were {contrasts.read_errors:,} of them and {contrasts.read_others:,} of the "
            "others, drawn at random."
        )
    st.caption(
        f"Errors: {contrasts.errors:,}, held against {contrasts.others:,} correctly decided rows of "
        f"the same class.{read} Each row counts a word once."
    )
    _show_contrasts(contrasts)


def _show_contrasts(contrasts: Contrasts) -> None:
    kinds = {
        "Words": ("Which words are commoner among the errors?", contrasts.words),
        "Pattern": ("Which patterns are commoner among the errors?", contrasts.patterns),
        "Rule": ("Which rules matched more often among the errors?", contrasts.rules),
        "Category": ("Which rule categories are commoner among the errors?", contrasts.categories),
    }
    if not any(items for _, items in kinds.values()):
        st.info("Nothing occurs in two errors or more.", icon=":material/info:")
    for name, (question, items) in kinds.items():
        if items:
            charted(
                question,
                contrast_chart(items, contrasts.read_errors, contrasts.read_others),
                contrast_frame(items, name, contrasts.read_errors, contrasts.read_others),
                key=f"errors_{name.lower()}",
                help="Log-odds with an informative Dirichlet prior (Monroe, Colaresi, Quinn 2008). "
                "Bars in full colour are beyond what the most extreme of all looked-at items would "
                "reach by chance in 1 of 20 cases; hatched ones may be chance.",
            )


def _is_purged(subject: Subject) -> bool:
    """Return whether the texts are gone, and say so."""
    if subject.info.purged:
        st.info("This dataset's texts were purged.", icon=":material/ink_eraser:")
    return subject.info.purged


# --- exports --------------------------------------------------------------------------------


def show_export(subject: Subject) -> None:
    """Offer the corrected dataset as a version, and hard cases as a training file."""
    left, right = st.columns(2, gap="large")
    with left:
        _show_correction(subject)
    with right:
        _show_hard_cases(subject)


def _show_correction(subject: Subject) -> None:
    """Make a corrected version, and show which version came from which."""
    store, info = resources().store, subject.info
    st.subheader("Corrected dataset", anchor=False)
    st.caption(
        "A new version with your labels. The version you reviewed stays as it is, and so do its "
        "runs; score the new one to compare."
    )
    excludes = st.toggle(
        f"Leave out rows tagged “{EXCLUDE_TAG}”", value=True, key="errors_excludes"
    )
    plan = planned_correction(store, info.dataset_id, excludes=excludes)
    st.markdown(
        f"Labels that change: **{len(plan.relabelled):,}**. "
        f"Rows that are left out: **{len(plan.excluded):,}**."
    )
    if st.button(
        "Make corrected version",
        key="errors_correct",
        type="primary",
        icon=":material/library_add:",
        disabled=not plan or info.purged,
    ):
        with errors_shown("No version was made"), st.spinner("Writing the new version"):
            version = corrected_version(store, info.dataset_id, excludes=excludes)
            st.session_state["errors_made"] = version.dataset_id
    made_id = st.session_state.get("errors_made")
    line = store.datasets.lineage(info.dataset_id)
    if made_id in {version.dataset_id for version in store.datasets.all()}:
        line = store.datasets.lineage(made_id)
        st.success(plain(f"{line[0].title} is stored: {line[0].rows:,} rows."))
        if st.button("Score it", key="errors_score", icon=":material/play_arrow:"):
            st.session_state["run_dataset"] = made_id
            st.switch_page("app_pages/new_run.py")
    show_table(lineage_frame(line), key="errors_lineage", alt="Line of descent")


def _show_hard_cases(subject: Subject) -> None:
    """Offer errors and near rows as a file for training."""
    st.subheader("Hard cases", anchor=False)
    st.caption(
        "Errors and rows near the threshold with their corrected labels, each text once, as a file "
        "for `shield train --data`. Train on them together with your other rows: a model that sees "
        "only hard cases forgets the easy ones."
    )
    near = st.number_input(
        "Near means within ",
        0.0,
        1.0,
        0.05,
        0.01,
        key="errors_hard_near",
        help="Rows this near to the threshold are taken along, right or wrong.",
    )
    kind = st.segmented_control(
        "Format", ["CSV", "JSON Lines"], required=True, default="CSV", key="errors_format"
    )
    if _is_purged(subject):
        return
    is_small = subject.info.rows <= MOST_AUTOMATIC
    if not st.toggle("Collect them", key="errors_collect", value=is_small):
        return
    cases = queries.hard_cases_of(subject.judgement, float(near), subject.key, subject.notes)
    _show_case_counts(cases, subject)
    is_csv = kind == "CSV"
    download(
        "Hard cases",
        lambda: (cases_as_csv if is_csv else cases_as_jsonl)(cases),
        f"hard-cases-{subject.run.run_id}.{'csv' if is_csv else 'jsonl'}",
        key="errors_hard",
        disabled=not cases.rows,
    )
    if is_csv:
        st.caption(
            "Not for spreadsheets: texts are written letter by letter, also those that a "
            "spreadsheet would run as a formula. Choose JSON Lines to be safe."
        )


def _show_case_counts(cases: HardCases, subject: Subject) -> None:
    """Say how many cases there are, what was left out and what is missing."""
    counted = ", ".join(f"{count:,} {name}" for name, count in cases.class_counts.items())
    st.markdown(f"{len(cases.rows):,} rows{f': {counted}' if counted else ''}.")
    reasons = {
        "without a label": cases.unlabelled,
        f"tagged {EXCLUDE_TAG}": cases.excluded,
        "repeating a text": cases.repeated,
        "whose text has several labels": cases.conflicting,
        "beyond the largest file": cases.beyond_limit,
    }
    left_out = [f"{count:,} {reason}" for reason, count in reasons.items() if count]
    if left_out:
        st.caption(f"Left out: {', '.join(left_out)}.")
    if len(cases.class_counts) < len(subject.classes.names):
        st.warning(
            "Not every class is among them; `shield train` needs all, so add other rows.",
            icon=":material/warning:",
        )

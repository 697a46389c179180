"""The review of one row: label, tags and note, each saved at once."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.errors.choices import PINNED, Subject
from dashboard.errors.tables import history_frame
from dashboard.state import resources
from dashboard.text import visible
from dashboard.widgets import show_error, show_table
from shield_engine.errors import ShieldError
from shield_engine.review.corrections import EXCLUDE_TAG
from shield_engine.store import StoredRow
from shield_engine.store.notes import (
    Annotation,
    annotate,
    annotation,
    annotation_history,
    tag_counts,
)
from shield_engine.store.rows import RowFilter
from shield_engine.types import LABELS

__all__ = ["AT", "move", "show_review", "show_unsaved"]

AT = "errors_at"
"""Session key: the place of the open row in the list, from 1."""

_SUGGESTED_TAGS = (EXCLUDE_TAG, "label error", "ambiguous", "duplicate", "hard")
_UNSAVED = "errors_message"


def move(step: int, total: int) -> None:
    """Open another row of the list."""
    at = int(st.session_state.get(AT, 1)) + step
    st.session_state[AT] = min(max(1, at), max(1, total))


def show_unsaved() -> None:
    """Show what a saving callback could not do."""
    message = st.session_state.pop(_UNSAVED, None)
    if message:
        show_error(message, "That was not saved")


def _save(dataset_id: str, row_index: int, **changes: Any) -> None:
    """Keep what changed of a row's annotation; what could not be kept is shown."""
    store = resources().store
    try:
        now = annotation(store, dataset_id, row_index)
        values = {"note": now.note, "label": now.label, "tags": now.tags} | changes
        annotate(store, dataset_id, row_index, **values)
    except ShieldError as error:
        st.session_state[_UNSAVED] = str(error)


def _save_label(dataset_id: str, row_index: int, label: int | None, step: int, total: int) -> None:
    """Keep a corrected label, and go on to the next row if asked."""
    _save(dataset_id, row_index, label=label)
    if step:
        move(step, total)


def _save_tags(dataset_id: str, row_index: int, key: str) -> None:
    _save(dataset_id, row_index, tags=tuple(st.session_state[key]))


def _save_note(dataset_id: str, row_index: int, key: str) -> None:
    _save(dataset_id, row_index, note=st.session_state[key] or "")


def _toggle_exclude(dataset_id: str, row_index: int, key: str) -> None:
    """Add or take back the tag that leaves a row out of corrected versions."""
    tags = set(annotation(resources().store, dataset_id, row_index).tags) ^ {EXCLUDE_TAG}
    st.session_state[key] = sorted(tags)
    _save_tags(dataset_id, row_index, key)


def show_review(subject: Subject, rows: RowFilter, row: StoredRow, total: int) -> None:
    """Let the user relabel, tag and note a row; everything is saved at once."""
    store, dataset_id, index = resources().store, subject.info.dataset_id, row.row_index
    now = annotation(store, dataset_id, index)
    names, imported = LABELS[subject.run.task], row.label
    holds = imported if now.label is None else now.label
    st.markdown(
        f"**Label**: {'none' if holds is None else names[holds]}"
        + (" (corrected)" if now.label not in {None, imported} else "")
    )
    goes_on = PINNED not in st.session_state and st.toggle(
        "Go on after each label", key="errors_goes_on", help="Opens the next row of the list."
    )
    # In a list that follows the review the next row moves up by itself.
    follows = subject.judgement.is_corrected or rows.tag or rows.is_annotated is not None
    step = 1 if goes_on and not follows else 0
    tags_key = f"errors_tags:{dataset_id}:{index}"
    with st.container(horizontal=True):
        for label, name in enumerate(names):
            st.button(
                name,
                key=f"errors_label_{label}",
                shortcut=str(label + 1),
                type="primary" if label == holds else "secondary",
                on_click=_save_label,
                args=(dataset_id, index, None if label == imported else label, step, total),
                help="Keeps the imported label."
                if label == imported
                else "Corrects the label; the imported one is kept beside it.",
            )
        st.button(
            "Take back" if EXCLUDE_TAG in now.tags else "Exclude",
            key="errors_exclude",
            shortcut="X",
            icon=":material/block:",
            on_click=_toggle_exclude,
            args=(dataset_id, index, tags_key),
            help="Leaves the row out of corrected versions and hard cases.",
        )
    _show_tags_and_note(dataset_id, now, tags_key)
    history = annotation_history(store, dataset_id, index)
    if history:
        with st.expander(f"History ({len(history):,})"):
            show_table(history_frame(history, subject.run.task), key="errors_history")
    st.caption("Saved at once. Keys: J next, K previous, 1 2 3 label, X exclude.")


def _show_tags_and_note(dataset_id: str, now: Annotation, tags_key: str) -> None:
    """Let the user tag a row and write about it."""
    note_key = f"errors_note:{dataset_id}:{now.row_index}"
    st.session_state.setdefault(tags_key, list(now.tags))
    st.session_state.setdefault(note_key, now.note)
    known = [*_SUGGESTED_TAGS, *tag_counts(resources().store, dataset_id), *now.tags]
    st.multiselect(
        "Tags",
        list(dict.fromkeys(known)),
        key=tags_key,
        accept_new_options=True,
        format_func=visible,
        on_change=_save_tags,
        args=(dataset_id, now.row_index, tags_key),
        help="Choose or type your own. Rows can be filtered by tag.",
    )
    st.text_area(
        "Note",
        key=note_key,
        height=90,
        on_change=_save_note,
        args=(dataset_id, now.row_index, note_key),
        placeholder="Why it is wrong, what it needs",
    )

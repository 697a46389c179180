"""The rows of the Errors page: the list, and the open row with its text, reasons, likes, review."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from dashboard.errors import queries
from dashboard.errors.choices import PINNED, Subject, choose_kind, choose_rows, open_row
from dashboard.errors.tables import (
    KIND_TEXTS,
    PROBABILITY,
    history_frame,
    judged_frame,
    mode_frame,
    neighbour_frame,
    timing_frame,
    verdict_text,
    windows_frame,
)
from dashboard.state import RunKey, resources
from dashboard.tables import result_facts, spans_frame
from dashboard.text import MARKS, marked, plain, visible
from dashboard.widgets import PAGE_ROWS, column, errors_shown, show_error, show_table, show_text
from shield_engine.config import MLConfig
from shield_engine.decide.views import RowJudge, available_modes
from shield_engine.errors import ConfigError, ShieldError
from shield_engine.review.corrections import EXCLUDE_TAG
from shield_engine.review.suspects import MOST_INDEXED
from shield_engine.store import RunInfo, StoredRow
from shield_engine.store.notes import (
    Annotation,
    annotate,
    annotation,
    annotation_history,
    dataset_annotations,
    tag_counts,
)
from shield_engine.store.rows import (
    Classes,
    JudgedRow,
    RowFilter,
    RowKind,
    same_text,
    stored_rows,
)
from shield_engine.types import LABELS, Mode, Variant

__all__ = ["MOST_AUTOMATIC", "show_rows", "show_unsaved"]

MOST_AUTOMATIC = 5_000
"""Rows of a dataset whose texts are compared without being asked; it takes under a second."""

_AT = "errors_at"  # session key: the place of the open row in the list, from 1
_NEIGHBOURS = 6
_SUGGESTED_TAGS = (EXCLUDE_TAG, "label error", "ambiguous", "duplicate", "hard")
_UNSAVED = "errors_message"


def show_rows(subject: Subject) -> None:
    """Show filters, the list, and the open row with its review."""
    run_id, state = subject.run.run_id, st.session_state
    wanted = st.query_params.get("row", "")
    if wanted.isdecimal() and state.get("errors_row_url") != f"{run_id}:{wanted}":
        state[PINNED] = (run_id, int(wanted))
    if state.get(PINNED, (run_id,))[0] != run_id:
        _unpin()
    rows = choose_rows(subject)
    counts = queries.counts(
        subject.judgement, replace(rows, kind=RowKind.ALL), subject.key, subject.notes
    )
    if not subject.info.labelled:
        st.info(
            "This dataset has no labels, so there are no errors to show: read the rows near the "
            "threshold, those on which rules and model disagree, or all. Labels that you give here "
            "count once “Count corrected labels” is on.",
            icon=":material/label_off:",
        )
    rows = replace(rows, kind=choose_kind(subject, counts))
    total = counts.of(rows.kind)
    if PINNED in state:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button(
                "Back to the list",
                on_click=_unpin,
                icon=":material/arrow_back:",
                key="errors_unpin",
                shortcut="B",
            )
            st.caption("This row was opened by itself; the list is as you left it.")
        _show_row(subject, rows, state[PINNED][1], total)
    elif total:
        _show_row(subject, rows, _show_list(subject, rows, total), total)
    else:
        st.info(KIND_TEXTS[rows.kind][1], icon=":material/check_circle:")


def _unpin() -> None:
    """Go back to the list."""
    st.session_state.pop(PINNED, None)


# --- the list -------------------------------------------------------------------------------


def _show_list(subject: Subject, rows: RowFilter, total: int) -> int:
    """Show the page of the list that holds the open row, and return that row."""
    identity, state = repr((subject.judgement, rows)), st.session_state
    if state.get("errors_list") != identity:
        state["errors_list"], state[_AT] = identity, 1
    at = state[_AT] = min(max(1, int(state.get(_AT, 1))), total)
    first = (at - 1) // PAGE_ROWS * PAGE_ROWS
    judged = queries.page_of(subject.judgement, rows, first, PAGE_ROWS, subject.key, subject.notes)
    indexes = [row.row_index for row in judged]
    current = indexes[min(at - 1 - first, len(indexes) - 1)]
    dataset_id = subject.info.dataset_id
    table = f"errors_table:{first}:{hash(identity)}"
    show_table(
        judged_frame(
            judged,
            queries.contents(dataset_id, indexes, subject.run.run_id),
            dataset_annotations(resources().store, dataset_id),
            subject.classes,
            subject.run.task,
            current,
        ),
        key=table,
        columns=_list_columns(subject.classes),
        height=300,
        on_select=lambda: _open_clicked(table, first),
        selection_mode="single-row",
        alt="Rows, the most regretted first",
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for title, step, shortcut, icon in (
            ("Previous", -1, "K", ":material/arrow_upward:"),
            ("Next", 1, "J", ":material/arrow_downward:"),
        ):
            st.button(
                title,
                on_click=_move,
                args=(step, total),
                icon=icon,
                key=f"errors_{title.lower()}",
                shortcut=shortcut,
                disabled=not 1 <= at + step <= total,
            )
        st.number_input(f"Row of {total:,}", 1, total, step=1, key=_AT, width=140)
        st.caption(
            f"Rows {first + 1:,} to {first + len(judged):,} are listed, "
            f"{'nearest' if rows.kind is RowKind.NEAR else 'the most regretted'} first. "
            "Click a row to open it."
        )
    return current


def _open_clicked(table: str, first: int) -> None:
    """Open the row that was clicked in the table."""
    chosen = st.session_state[table].selection.rows
    if chosen:
        st.session_state[_AT] = first + chosen[0] + 1


def _list_columns(classes: Classes) -> dict[str, Any]:
    """Return how the list shows its columns, with what each means."""
    score, regret = (
        "Probability of the verdict",
        "Probability of the verdict minus that of the label.",
    )
    if classes.is_binary:
        score = f"P({classes.names[1]})"
        regret = "How far the score is on the wrong side of the threshold; below 0 it is on the right one."
    return {
        "Open": column(label="", width=24),
        "Score": column(f"{score}, by this mode.", "%.3f"),
        "Regret": column(regret, "%.3f"),
        "Review": "Corrected label, tags and notes.",
        "Text": column(width="large"),
    }


# --- the open row ---------------------------------------------------------------------------


def _show_row(subject: Subject, rows: RowFilter, row_index: int, total: int) -> None:
    """Show one row whole: text, verdicts, reasons, neighbours and what was noted of it."""
    store, run = resources().store, subject.run
    stored = stored_rows(store, subject.info.dataset_id, [row_index], run.run_id)
    judged = queries.verdicts(subject.judgement, RunKey.of(run)).row(row_index)
    st.query_params["row"] = str(row_index)
    st.session_state["errors_row_url"] = f"{run.run_id}:{row_index}"
    if not stored or judged is None:
        st.warning(f"Run {run.run_id} has no row {row_index}.", icon=":material/search_off:")
        return
    row = stored[0]
    st.subheader(plain(f"Row {row.row_id}"), anchor=False)
    st.markdown(plain(verdict_text(judged, subject.classes, subject.judgement.threshold)))
    left, right = st.columns([3, 2])
    with left:
        _show_text(run, row)
        _show_reasons(subject, row, judged)
    with right:
        _show_review(subject, rows, row, total)
    _show_neighbours(subject, row)


def _show_text(run: RunInfo, row: StoredRow) -> None:
    """Show the text with matched spans marked, and the window that decided."""
    text = row.text
    if text is None:
        st.caption("This dataset's texts were purged.")
        return
    spans = [(hit.start, hit.end) for hit in row.hits]
    is_marked = spans and st.toggle(
        f"Mark what rules matched {MARKS[0]}so{MARKS[1]}", value=True, key="errors_marked"
    )
    show_text(marked(text, spans) if is_marked else text, height=220)
    if row.windows is not None and row.windows > 1:
        begin, stop = row.window_start, row.window_end
        st.caption(
            f"Longer than the model's window: it was read in {row.windows:,} windows, and "
            f"characters {begin:,} to {stop:,} of {len(text):,} weighed most."
        )
        with st.expander("The deciding window"):
            show_text(text[begin:stop])
        _show_windows(run, text)


def _show_windows(run: RunInfo, text: str) -> None:
    """Score each window of a long text when asked; a run keeps the deciding one only."""
    if not st.button("Score each window", icon=":material/view_week:", key="errors_windows"):
        return
    shield = resources().shield
    with errors_shown("The windows were not scored"):
        entry = shield.entry_for(
            run.task, MLConfig.evaluation(Variant(run.variant or Variant.INT8)), run.model_id
        )
        if entry.sha256 != run.model_sha256:
            raise ConfigError("the registry's model is not the one of this run any more")
        windows = shield.inference(entry).window_scores(text)
        frame = windows_frame(windows, run.task)
        show_table(frame, key="errors_window_scores", alt="Scores of each window")


def _show_reasons(subject: Subject, row: StoredRow, judged: JudgedRow) -> None:
    """Show what each mode said, which rules matched, and what the scan took."""
    run, judgement = subject.run, subject.judgement
    verdicts: dict[Mode, tuple[JudgedRow | None, Classes, float]] = {}
    for mode in available_modes(run):
        if mode is judgement.mode:
            verdicts[mode] = (judged, subject.classes, judgement.threshold)
            continue
        threshold = subject.limits.get(mode.value, 0.5)
        other = RowJudge(run.run_id, mode, threshold, is_corrected=judgement.is_corrected)
        verdict = queries.verdicts(other, RunKey.of(run)).row(row.row_index)
        verdicts[mode] = (verdict, subject.classes, threshold)
    st.markdown("**What each mode said**")
    show_table(mode_frame(verdicts), key="errors_modes", columns={"Score": PROBABILITY})
    spans = spans_frame(row)
    if len(spans):
        st.markdown("**Which rules matched**")
        show_table(spans, key="errors_spans")
    else:
        st.caption("No rule matched this row.")
    with st.expander("Probabilities, window and timings"):
        show_table(result_facts(row, run.task), key="errors_facts")
        show_table(timing_frame(row), key="errors_timings")


def _show_neighbours(subject: Subject, row: StoredRow) -> None:
    """Show the rows most like the open one, with labels that conflict."""
    info, run = subject.info, subject.run
    st.subheader(
        "Which rows are like it?",
        anchor=False,
        help="Same text, or many of the same four-letter pieces, rare ones counting more. From a "
        "similarity of 0.8 texts are nearly the same; if their labels differ, one is wrong.",
    )
    copies = same_text(resources().store, info.dataset_id, row.row_index)
    is_asked = info.rows <= MOST_AUTOMATIC or st.toggle(
        f"Compare with {'a sample of ' if info.rows > MOST_INDEXED else ''}"
        f"{min(info.rows, MOST_INDEXED):,} rows",
        key="errors_compare",
        help="Takes some seconds the first time.",
    )
    index = queries.index_of(info.dataset_id, info.purged) if is_asked else None
    near = [] if index is None else index.nearest(row.row_index, row.text or "", _NEIGHBOURS)
    alike = list(dict.fromkeys([*copies, *(neighbour.row_index for neighbour in near)]))
    contents = queries.contents(info.dataset_id, alike, run.run_id)
    if index is not None and index.is_sample:
        st.caption(
            f"Compared with a sample of {len(index.row_index):,} of {index.total:,} rows; equal "
            "texts are found among all."
        )
    if not alike:
        st.caption("No other row has this text." if index is None else "No other row is like it.")
        return
    frame = neighbour_frame(copies, near, contents, row.label, run.task)
    conflicts = int((frame["Conflict"] != "").sum())
    if conflicts:
        st.warning(
            f"Nearly equal rows with another label: {conflicts:,}. Of two such rows one is wrong.",
            icon=":material/call_split:",
        )
    show_table(frame, key="errors_neighbours", columns={"Similarity": PROBABILITY})
    chosen = st.selectbox(
        "Open one of them",
        alike,
        format_func=lambda index: visible(contents[index].row_id),
        key=f"errors_neighbour:{row.row_index}",
    )
    st.button(
        "Open",
        on_click=open_row,
        args=(run.run_id, chosen),
        key="errors_open_neighbour",
        icon=":material/open_in_new:",
    )


# --- review ---------------------------------------------------------------------------------


def _move(step: int, total: int) -> None:
    """Open another row of the list."""
    at = int(st.session_state.get(_AT, 1)) + step
    st.session_state[_AT] = min(max(1, at), max(1, total))


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
        _move(step, total)


def _save_tags(dataset_id: str, row_index: int, key: str) -> None:
    _save(dataset_id, row_index, tags=tuple(st.session_state[key]))


def _save_note(dataset_id: str, row_index: int, key: str) -> None:
    _save(dataset_id, row_index, note=st.session_state[key] or "")


def _toggle_exclude(dataset_id: str, row_index: int, key: str) -> None:
    """Add or take back the tag that leaves a row out of corrected versions."""
    tags = set(annotation(resources().store, dataset_id, row_index).tags) ^ {EXCLUDE_TAG}
    st.session_state[key] = sorted(tags)
    _save_tags(dataset_id, row_index, key)


def _show_review(subject: Subject, rows: RowFilter, row: StoredRow, total: int) -> None:
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

"""Errors: read what was decided wrongly, doubt labels, note and relabel, export what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from dashboard.errors import queries as reviewing
from dashboard.errors import tables as review
from dashboard.rows import result_facts, spans_frame
from dashboard.run_choice import choose_run
from dashboard.state import RunKey, balanced, drop_stale, keep, resources
from dashboard.widgets import (
    charted,
    download_table,
    empty_state,
    errors_shown,
    page_title,
    plain,
    show_error,
    show_text,
    visible,
)
from shield_engine.config import MLConfig
from shield_engine.decide.figures import available_modes
from shield_engine.decide.slices import LENGTH_BANDS
from shield_engine.errors import ConfigError, ShieldError
from shield_engine.review.corrections import (
    EXCLUDE_TAG,
    cases_as_csv,
    cases_as_jsonl,
    corrected_version,
    in_length_band,
    planned_correction,
)
from shield_engine.review.neighbours import MOST_INDEXED
from shield_engine.store import DatasetInfo, RunInfo, StoredRow
from shield_engine.store.library import policies
from shield_engine.store.notes import (
    Annotation,
    annotate,
    annotation,
    annotation_count,
    annotation_history,
    dataset_annotations,
    tag_counts,
)
from shield_engine.store.rows import (
    Classes,
    Disagreement,
    ErrorCounts,
    JudgedRow,
    Judgement,
    RowFilter,
    RowKind,
    judged_row,
    same_text,
    stored_rows,
)
from shield_engine.types import LABELS, Mode, Variant

PAGE_ROWS = 50
# Rows of a dataset whose texts are compared without being asked; it takes under a second.
MOST_AUTOMATIC = 5_000
ROWS, SUSPECTS, WORDING, EXPORT = (
    "Rows", "Suspected labels", "Words and patterns", "Export",
)  # fmt: skip
ANY = "any"
SUGGESTED_TAGS = (EXCLUDE_TAG, "label error", "ambiguous", "duplicate", "hard")
NUMBER = st.column_config.NumberColumn(format="%.3f")


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page is about in this run of the script.

    Attributes:
        said: How often something was said of the dataset's rows; cached counts depend on it.
        limits: (mode, balanced threshold) pairs of the run.
    """

    run: RunInfo
    info: DatasetInfo
    judgement: Judgement
    classes: Classes
    said: int
    limits: tuple[tuple[str, float], ...]


# --- what is judged, and how ----------------------------------------------------------------


def choose_judgement(run: RunInfo, info: DatasetInfo) -> Shown:
    """Let the user choose mode or policy, threshold, and whether corrected labels count."""
    store, limits = resources().store, balanced(run)
    options = review.judge_options(run, dict(limits), policies(store))
    drop_stale("errors_judge", options)
    wanted = st.query_params.get("mode")
    if wanted in options and st.session_state.get("errors_mode_url") != wanted:
        st.session_state["errors_judge"] = wanted
    keep("errors_judge", Mode.HYBRID.value if Mode.HYBRID.value in options else next(iter(options)))
    left, middle, right = st.columns([5, 3, 4], vertical_alignment="bottom")
    key = left.selectbox(
        "Judge by",
        list(options),
        format_func=lambda name: options[name].title,
        key="errors_judge",
        help="A mode at the threshold the registry calls balanced, or a policy saved in the "
        "Threshold lab.",
    )
    st.query_params["mode"] = st.session_state["errors_mode_url"] = key
    chosen = options[key]
    said = annotation_count(store, info.dataset_id)
    is_corrected = right.toggle(
        "Count corrected labels",
        key=f"errors_corrected:{info.dataset_id}",
        disabled=not said,
        help="Judge rows by the labels you corrected here. Other pages go by the imported labels "
        "until you make a corrected version of the dataset.",
    )
    judgement = Judgement(
        run.run_id, chosen.mode, chosen.threshold, chosen.bands, bool(is_corrected and said)
    )
    classes = reviewing.classes_of(judgement, RunKey.of(run), said)
    if classes.is_binary:
        threshold = middle.number_input(
            "Threshold",
            0.0,
            1.0,
            chosen.threshold,
            0.01,
            format="%.3f",
            key=f"errors_threshold:{run.run_id}:{key}",
            help="A row is flagged if its score is at least this.",
        )
        judgement = replace(judgement, threshold=float(threshold))
    return Shown(run, info, judgement, classes, said, limits)


# --- filters --------------------------------------------------------------------------------


def choose_rows(shown: Shown) -> RowFilter:
    """Let the user narrow the rows; conditions combine."""
    choices = reviewing.choices(RunKey.of(shown.run))
    key = f"{shown.run.run_id}:{shown.judgement.mode.value}"
    tags = tag_counts(resources().store, shown.info.dataset_id)
    with st.expander("Filters", icon=":material/filter_alt:"):
        lines = -(-(FIXED_FILTERS + len(choices.slices)) // 4)
        places = iter([column for _ in range(lines) for column in st.columns(4)])
        search = next(places).text_input(
            "Text contains",
            key=f"errors_search:{key}",
            icon=":material/search:",
            disabled=shown.info.purged,
            help="Letter by letter, without regard to case.",
        )
        label = next(places).selectbox(
            "Label", [ANY, *shown.classes.names], key=f"errors_label:{key}"
        )
        bands = LENGTH_BANDS if choices.has_long else LENGTH_BANDS[:-1]
        band = next(places).selectbox("Length", [ANY, *bands], key=f"errors_band:{key}")
        rule = next(places).selectbox(
            "Matched rule",
            [ANY, *choices.rules],
            format_func=lambda name: (
                name if name == ANY else f"{visible(name)} ({choices.rules[name]:,} rows)"
            ),
            key=f"errors_rule:{key}",
        )
        category = next(places).selectbox(
            "Rule category",
            [ANY, *sorted(set(choices.categories.values()))],
            format_func=visible,
            key=f"errors_category:{key}",
        )
        disagreement = next(places).selectbox(
            "Rules and model",
            disagreements(shown),
            format_func=lambda one: DISAGREEMENTS[one],
            key=f"errors_disagreement:{key}",
            disabled=len(shown.run.parts) < 2,
            help="Each part at its own balanced threshold.",
        )
        status = next(places).selectbox(
            "Review",
            [ANY, "not reviewed", "reviewed", *(f"tag: {tag}" for tag in tags)],
            format_func=visible,
            key=f"errors_status:{shown.info.dataset_id}",
            help="Reviewed rows have a note, a corrected label or a tag.",
        )
        near = next(places).number_input(
            "Near means within",
            0.0,
            1.0,
            0.05,
            0.01,
            key="errors_near",
            help="Distance of the score to the threshold. With three classes: of the most probable "
            "label to the runner-up.",
        )
        slices = [
            (name, value)
            for name, values in choices.slices.items()
            for value in [choose_slice(next(places), name, values, key)]
            if value is not None
        ]
    thresholds = dict(shown.limits)
    rows = RowFilter(
        near=float(near),
        slices=tuple(slices),
        rule=None if rule == ANY else rule,
        category=None if category == ANY else category,
        disagreement=disagreement,
        part_thresholds=(thresholds.get("heuristic", 0.5), thresholds.get("ml", 0.5)),
        search=search or "",
        label=None if label == ANY else shown.classes.names.index(label),
        tag=status.removeprefix("tag: ") if status.startswith("tag: ") else None,
        is_annotated={"not reviewed": False, "reviewed": True}.get(status),
    )
    return rows if band == ANY else in_length_band(rows, band)


def choose_slice(place: Any, name: str, values: Mapping[str, int], key: str) -> str | None:
    """Let the user choose one value of a slice column; `None` is any."""

    def titled(value: str | None) -> str:
        return ANY if value is None else f"{visible(value) or '(empty)'} ({values[value]:,} rows)"

    chosen: str | None = place.selectbox(
        plain(name[:60]), [None, *values], format_func=titled, key=f"errors_slice:{key}:{name}"
    )
    return chosen


FIXED_FILTERS = 8
DISAGREEMENTS: Mapping[Disagreement | None, str] = {
    None: ANY,
    Disagreement.ANY: "disagree",
    Disagreement.RULES_ONLY: "only rules flag",
    Disagreement.MODEL_ONLY: "only the model flags",
}


def disagreements(shown: Shown) -> list[Disagreement | None]:
    """Return the ways in which rules and model can part."""
    return list(DISAGREEMENTS) if shown.classes.is_binary else [None, Disagreement.ANY]


def choose_kind(shown: Shown, counts: ErrorCounts) -> RowKind:
    """Let the user choose which rows, with how many there are of each kind."""
    possible = review.kinds_of(
        shown.classes, is_labelled=bool(counts.labelled or shown.info.labelled)
    )
    kinds = [kind for kind in possible if kind is not RowKind.FAILED or counts.failed]
    key = f"errors_kind:{shown.info.dataset_id}:{shown.classes.is_binary}"
    drop_stale(key, kinds)
    wanted = st.query_params.get("kind")
    if wanted in kinds and st.session_state.get("errors_kind_url") != wanted:
        st.session_state[key] = RowKind(wanted)
        st.session_state["errors_kind_url"] = wanted
    keep(key, kinds[0])
    chosen = st.segmented_control(
        "Which rows",
        kinds,
        required=True,
        format_func=lambda kind: f"{review.KIND_TITLES[kind]} ({counts.of(kind):,})",
        key=key,
        label_visibility="collapsed",
    )
    return chosen or kinds[0]


# --- the list and the open row --------------------------------------------------------------


def open_row(row_index: int) -> None:
    """Open a row outside of the list."""
    st.session_state["errors_pinned"] = row_index
    st.session_state["errors_view"] = ROWS


def move(step: int, total: int) -> None:
    """Open another row of the list."""
    at = int(st.session_state.get("errors_at", 1)) + step
    st.session_state["errors_at"] = min(max(1, at), max(1, total))


def pick(table: str, first: int) -> None:
    """Open the row that was clicked in the table."""
    chosen = st.session_state[table].selection.rows
    if chosen:
        st.session_state["errors_at"] = first + chosen[0] + 1


def unpin() -> None:
    """Go back to the list."""
    st.session_state.pop("errors_pinned", None)


def show_rows(shown: Shown) -> None:
    """Show filters, the list, and the open row with its review."""
    wanted = st.query_params.get("row", "")
    link = f"{shown.run.run_id}:{wanted}"
    if wanted.isdecimal() and st.session_state.get("errors_row_url") != link:
        st.session_state["errors_pinned"] = int(wanted)
    rows = choose_rows(shown)
    counts = reviewing.counts(
        shown.judgement, replace(rows, kind=RowKind.ALL), RunKey.of(shown.run), shown.said
    )
    if not shown.info.labelled:
        st.info(
            "This dataset has no labels, so there are no errors to show: read the rows near the "
            "threshold, those on which rules and model disagree, or all. Labels that you give here "
            "count once “Count corrected labels” is on.",
            icon=":material/label_off:",
        )
    rows = replace(rows, kind=choose_kind(shown, counts))
    total = counts.of(rows.kind)
    pinned = st.session_state.get("errors_pinned")
    if pinned is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button(
                "Back to the list",
                on_click=unpin,
                icon=":material/arrow_back:",
                key="errors_unpin",
                shortcut="B",
            )
            st.caption("This row was opened by itself; the list is as you left it.")
        show_row(shown, rows, pinned, total)
        return
    if not total:
        st.info(review.no_rows_text(rows.kind), icon=":material/check_circle:")
        return
    show_row(shown, rows, show_list(shown, rows, total), total)


def show_list(shown: Shown, rows: RowFilter, total: int) -> int:
    """Show the page of the list that holds the open row, and return that row."""
    identity = repr((shown.judgement, rows))
    if st.session_state.get("errors_list") != identity:
        st.session_state["errors_list"] = identity
        st.session_state["errors_at"] = 1
    at = min(max(1, int(st.session_state.get("errors_at", 1))), total)
    st.session_state["errors_at"] = at
    first = (at - 1) // PAGE_ROWS * PAGE_ROWS
    found = reviewing.page_of(
        shown.judgement, rows, first, PAGE_ROWS, RunKey.of(shown.run), shown.said
    )
    indexes = [row.row_index for row in found]
    current = indexes[min(at - 1 - first, len(indexes) - 1)]
    dataset_id = shown.info.dataset_id
    table = f"errors_table:{first}:{hash(identity)}"
    st.dataframe(
        review.judged_frame(
            found,
            reviewing.contents(dataset_id, indexes, shown.run.run_id),
            dataset_annotations(resources().store, dataset_id),
            shown.classes,
            shown.run.task,
            current,
        ),
        hide_index=True,
        height=300,
        key=table,
        on_select=lambda: pick(table, first),
        selection_mode="single-row",
        column_config=row_columns(shown),
        alt="Rows, the most regretted first",
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button(
            "Previous", on_click=move, args=(-1, total), icon=":material/arrow_upward:",
            key="errors_previous", shortcut="K", disabled=at == 1,
        )  # fmt: skip
        st.button(
            "Next", on_click=move, args=(1, total), icon=":material/arrow_downward:",
            key="errors_next", shortcut="J", disabled=at == total,
        )  # fmt: skip
        st.number_input(f"Row of {total:,}", 1, total, step=1, key="errors_at", width=140)
        st.caption(
            f"Rows {first + 1:,} to {first + len(found):,} are listed, "
            f"{'nearest' if rows.kind is RowKind.NEAR else 'the most regretted'} first. "
            "Click a row to open it."
        )
    return current


def row_columns(shown: Shown) -> dict[str, Any]:
    """Return the columns of the list with what each means."""
    score = (
        f"P({shown.classes.names[1]})" if shown.classes.is_binary else "Probability of the verdict"
    )
    regret = (
        "How far the score is on the wrong side of the threshold; below 0 it is on the right one."
        if shown.classes.is_binary
        else "Probability of the verdict minus that of the label."
    )
    return {
        "Open": st.column_config.TextColumn("", width=24),
        "Score": st.column_config.NumberColumn(format="%.3f", help=f"{score}, by this mode."),
        "Regret": st.column_config.NumberColumn(format="%.3f", help=regret),
        "Review": st.column_config.TextColumn(help="Corrected label, tags and notes."),
        "Text": st.column_config.TextColumn(width="large"),
    }


def show_row(shown: Shown, rows: RowFilter, row_index: int, total: int) -> None:
    """Show one row whole: text, verdicts, reasons, neighbours and what was said of it."""
    store = resources().store
    found = stored_rows(store, shown.info.dataset_id, [row_index], shown.run.run_id)
    judged = judged_row(store, shown.judgement, row_index)
    st.query_params["row"] = str(row_index)
    st.session_state["errors_row_url"] = f"{shown.run.run_id}:{row_index}"
    if not found or judged is None:
        st.warning(f"Run {shown.run.run_id} has no row {row_index}.", icon=":material/search_off:")
        return
    row = found[0]
    st.subheader(plain(f"Row {row.row_id}"), anchor=False)
    st.markdown(plain(review.verdict_text(judged, shown.classes, shown.judgement.threshold)))
    left, right = st.columns([3, 2])
    with left:
        show_row_text(shown.run, row)
        show_reasons(shown, row, judged)
    with right:
        show_review(shown, rows, row, total)
    show_neighbours(shown, row)


def show_row_text(run: RunInfo, row: StoredRow) -> None:
    """Show the text with matched spans marked, and the window that decided."""
    text = row.text
    if text is None:
        st.caption("This dataset's texts were purged.")
        return
    start, end = review.MARKS
    is_marked = bool(row.matches) and st.toggle(
        f"Mark what rules matched {start}so{end}", value=True, key="errors_marked"
    )
    show_text(review.marked(text, row) if is_marked else text, height=220)
    if row.windows is not None and row.windows > 1:
        begin, stop = row.window_start, row.window_end
        st.caption(
            f"Longer than the model's window: it was read in {row.windows:,} windows, and "
            f"characters {begin:,} to {stop:,} of {len(text):,} weighed most."
        )
        with st.expander("The deciding window"):
            show_text(text[begin:stop])
        show_windows(run, text)


def show_windows(run: RunInfo, text: str) -> None:
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
        found = shield.inference(entry).window_scores(text)
        st.dataframe(
            review.windows_frame(found, run.task), hide_index=True, key="errors_window_scores",
            alt="Scores of each window",
        )  # fmt: skip


def show_reasons(shown: Shown, row: StoredRow, judged: JudgedRow) -> None:
    """Show what each mode said, which rules matched, and what the scan took."""
    st.markdown("**What each mode said**")
    said: dict[Mode, tuple[JudgedRow | None, Classes, float]] = {}
    limits = dict(shown.limits)
    for mode in available_modes(shown.run):
        if mode is shown.judgement.mode:
            said[mode] = (judged, shown.classes, shown.judgement.threshold)
            continue
        threshold = limits.get(mode.value, 0.5)
        other = Judgement(
            shown.run.run_id, mode, threshold, is_corrected=shown.judgement.is_corrected
        )
        found = judged_row(resources().store, other, row.row_index)
        said[mode] = (found, shown.classes, threshold)
    st.dataframe(
        review.said_frame(said), hide_index=True, key="errors_said", column_config={"Score": NUMBER}
    )
    spans = spans_frame(row)
    if len(spans):
        st.markdown("**Which rules matched**")
        st.dataframe(spans, hide_index=True, key="errors_spans")
    else:
        st.caption("No rule matched this row.")
    with st.expander("Probabilities, window and timings"):
        st.dataframe(result_facts(row, shown.run.task), hide_index=True, key="errors_facts")
        st.dataframe(review.timing_frame(row), hide_index=True, key="errors_timings")


# --- review ---------------------------------------------------------------------------------


def save(dataset_id: str, row_index: int, **changes: Any) -> None:
    """Keep what changed of a row's annotation; what could not be kept is shown."""
    store = resources().store
    try:
        now = annotation(store, dataset_id, row_index)
        said = {"note": now.note, "label": now.label, "tags": now.tags} | changes
        annotate(store, dataset_id, row_index, **said)
    except ShieldError as error:
        st.session_state["errors_message"] = str(error)


def save_label(dataset_id: str, row_index: int, label: int | None, step: int, total: int) -> None:
    """Keep a corrected label, and go on to the next row if asked."""
    save(dataset_id, row_index, label=label)
    if step:
        move(step, total)


def save_tags(dataset_id: str, row_index: int, key: str) -> None:
    """Keep the tags of the widget."""
    save(dataset_id, row_index, tags=tuple(st.session_state[key]))


def toggle_exclude(dataset_id: str, row_index: int, key: str) -> None:
    """Add or take back the tag that leaves a row out of corrected versions."""
    tags = set(annotation(resources().store, dataset_id, row_index).tags) ^ {EXCLUDE_TAG}
    save(dataset_id, row_index, tags=tuple(tags))
    st.session_state[key] = sorted(tags)


def save_note(dataset_id: str, row_index: int, key: str) -> None:
    """Keep the note of the widget."""
    save(dataset_id, row_index, note=st.session_state[key] or "")


def show_review(shown: Shown, rows: RowFilter, row: StoredRow, total: int) -> None:
    """Let the user relabel, tag and note a row; everything is saved at once."""
    store, dataset_id = resources().store, shown.info.dataset_id
    index = row.row_index
    now = annotation(store, dataset_id, index)
    names = LABELS[shown.run.task]
    imported = row.label
    holds = imported if now.label is None else now.label
    st.markdown(
        f"**Label**: {'none' if holds is None else names[holds]}"
        + (" (corrected)" if now.label not in {None, imported} else "")
    )
    is_in_list = st.session_state.get("errors_pinned") is None
    goes_on = is_in_list and st.toggle(
        "Go on after each label", key="errors_goes_on", help="Opens the next row of the list."
    )
    # In a list that follows the review the next row moves up by itself.
    follows = shown.judgement.is_corrected or rows.tag or rows.is_annotated is not None
    step = 1 if goes_on and not follows else 0
    with st.container(horizontal=True):
        for label, name in enumerate(names):
            st.button(
                name,
                key=f"errors_label_{label}",
                shortcut=str(label + 1),
                type="primary" if label == holds else "secondary",
                on_click=save_label,
                args=(dataset_id, index, None if label == imported else label, step, total),
                help="Keeps the imported label."
                if label == imported
                else "Corrects the label; the imported one is kept beside it.",
            )
        tags_key = f"errors_tags:{dataset_id}:{index}"
        st.button(
            "Take back" if EXCLUDE_TAG in now.tags else "Exclude",
            key="errors_exclude",
            shortcut="X",
            icon=":material/block:",
            on_click=toggle_exclude,
            args=(dataset_id, index, tags_key),
            help="Leaves the row out of corrected versions and hard cases.",
        )
    show_tags_and_note(shown, now, tags_key)
    history = annotation_history(store, dataset_id, index)
    if history:
        with st.expander(f"History ({len(history):,})"):
            st.dataframe(
                review.history_frame(history, shown.run.task), hide_index=True, key="errors_history"
            )
    st.caption("Saved at once. Keys: J next, K previous, 1 2 3 label, X exclude.")


def show_tags_and_note(shown: Shown, now: Annotation, tags_key: str) -> None:
    """Let the user tag a row and write about it."""
    dataset_id, index = shown.info.dataset_id, now.row_index
    known = [*SUGGESTED_TAGS, *tag_counts(resources().store, dataset_id), *now.tags]
    if tags_key not in st.session_state:
        st.session_state[tags_key] = list(now.tags)
    st.multiselect(
        "Tags",
        list(dict.fromkeys(known)),
        key=tags_key,
        accept_new_options=True,
        format_func=visible,
        on_change=save_tags,
        args=(dataset_id, index, tags_key),
        help="Choose or type your own. Rows can be filtered by tag.",
    )
    note_key = f"errors_note:{dataset_id}:{index}"
    if note_key not in st.session_state:
        st.session_state[note_key] = now.note
    st.text_area(
        "Note",
        key=note_key,
        height=90,
        on_change=save_note,
        args=(dataset_id, index, note_key),
        placeholder="Why it is wrong, what it needs",
    )


def show_neighbours(shown: Shown, row: StoredRow) -> None:
    """Show the rows most like the open one, with labels that conflict."""
    store, info = resources().store, shown.info
    st.subheader(
        "Which rows are like it?",
        anchor=False,
        help="Same text, or many of the same four-letter pieces, rare ones counting more. From a "
        "similarity of 0.8 texts are nearly the same; if their labels differ, one is wrong.",
    )
    indexes = same_text(store, info.dataset_id, row.row_index)
    is_asked = info.rows <= MOST_AUTOMATIC or st.toggle(
        f"Compare with {'a sample of ' if info.rows > MOST_INDEXED else ''}"
        f"{min(info.rows, MOST_INDEXED):,} rows",
        key="errors_compare",
        help="Takes some seconds the first time.",
    )
    index = reviewing.index_of(info.dataset_id, info.purged) if is_asked else None
    near = [] if index is None else index.nearest(row.row_index, row.text or "", 6)
    found = reviewing.contents(
        info.dataset_id, [*indexes, *(one.row_index for one in near)], shown.run.run_id
    )
    frame = review.neighbour_frame(
        [found[one] for one in indexes],
        [(one, found[one.row_index]) for one in near],
        row.label,
        shown.run.task,
    )
    if index is not None and index.is_sample:
        st.caption(
            f"Compared with a sample of {len(index.row_index):,} of {index.total:,} rows; equal "
            "texts are found among all."
        )
    if not len(frame):
        st.caption("No other row has this text." if index is None else "No other row is like it.")
        return
    conflicts = int((frame["Conflict"] != "").sum())
    if conflicts:
        st.warning(
            f"Nearly equal rows with another label: {conflicts:,}. Of two such rows one is wrong.",
            icon=":material/call_split:",
        )
    st.dataframe(
        frame, hide_index=True, key="errors_neighbours", column_config={"Similarity": NUMBER}
    )
    chosen = st.selectbox(
        "Open one of them",
        [*indexes, *(one.row_index for one in near if one.row_index not in indexes)],
        format_func=lambda one: visible(found[one].row_id),
        key=f"errors_neighbour:{row.row_index}",
    )
    st.button(
        "Open", on_click=open_row, args=(chosen,), key="errors_open_neighbour",
        icon=":material/open_in_new:",
    )  # fmt: skip


# --- suspected labels -----------------------------------------------------------------------


def show_suspects(shown: Shown) -> None:
    """List the rows whose label the scores contradict."""
    st.subheader(
        "Which labels may be wrong?",
        anchor=False,
        help="Confident learning (Northcutt, Jiang, Chuang 2021): rules and model, each held "
        "against what they usually say of a class, are surer of another class than of the label. "
        "Neighbours with the other label raise a row.",
    )
    found = reviewing.suspects(RunKey.of(shown.run), shown.info.purged)
    if not found:
        st.info(
            "No label is contradicted with confidence. Labels of two classes and scores are needed.",
            icon=":material/check_circle:",
        )
        return
    only = (
        "" if len(shown.run.parts) == 2 else f" Only {shown.run.parts[0]} scores are in this run."
    )
    st.caption(
        f"{len(found):,} rows, the most suspect first. A suspect is no proof: an attack that "
        f"neither rules nor model know looks the same.{only}"
    )
    indexes = [suspect.row_index for suspect in found]
    contents = reviewing.contents(shown.info.dataset_id, indexes, shown.run.run_id)
    said = dataset_annotations(resources().store, shown.info.dataset_id)
    frame = review.suspect_frame(found, contents, said, shown.run.task)
    shares = {name: NUMBER for name in frame.columns if name.endswith("P(label)")}
    st.dataframe(
        frame,
        hide_index=True,
        key="errors_suspects",
        column_config=shares
        | {
            "Suspicion": st.column_config.NumberColumn(
                format="%.3f",
                help="How much surer than usual the parts are of the suggested class.",
            )
        },
        alt="Suspected label errors",
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Row to review",
            indexes,
            format_func=lambda one: (
                f"{visible(contents[one].row_id)}: {review.shown_text(contents[one].text)[:80]}"
            ),
            key=f"errors_suspect:{shown.run.run_id}",
        )
        st.button(
            "Review it", on_click=open_row, args=(chosen,), key="errors_open_suspect",
            type="primary",
        )  # fmt: skip
        download_table(frame, f"suspects-{shown.run.run_id}.csv", key="errors_suspects_csv")


# --- words and patterns ---------------------------------------------------------------------


def show_wording(shown: Shown) -> None:
    """Show what the errors of one class have in common."""
    if shown.info.purged:
        st.info("This dataset's texts were purged.", icon=":material/ink_eraser:")
        return
    names = shown.classes.names
    titles = (
        {0: f"False positives ({names[0]} rows)", 1: f"False negatives ({names[1]} rows)"}
        if shown.classes.is_binary
        else {place: f"Errors on {name} rows" for place, name in enumerate(names)}
    )
    label = st.segmented_control(
        "Whose errors",
        list(titles),
        required=True,
        default=0,
        format_func=titles.__getitem__,
        key=f"errors_class:{len(names)}",
        label_visibility="collapsed",
    )
    found = reviewing.contrasts(
        shown.judgement, label or 0, RowFilter(), RunKey.of(shown.run), shown.said
    )
    if not found.errors or not found.others:
        st.info(
            "There are no such errors." if not found.errors else "No row of this class is right.",
            icon=":material/check_circle:",
        )
        return
    read = (
        f" Read were {found.read_errors:,} of them and {found.read_others:,} of the others, drawn "
        "at random."
        if found.is_sampled
        else ""
    )
    st.caption(
        f"Errors: {found.errors:,}, held against {found.others:,} correctly decided rows of the same "
        f"class.{read} Each row counts a word once."
    )
    shown_any = False
    for title, name, contrasts in (
        ("Which words are commoner among the errors?", "Words", found.words),
        ("Which patterns are commoner among the errors?", "Pattern", found.patterns),
        ("Which rules matched more often among the errors?", "Rule", found.rules),
        ("Which rule categories are commoner among the errors?", "Category", found.categories),
    ):
        if contrasts:
            shown_any = True
            charted(
                title,
                review.contrast_chart(contrasts, found.read_errors, found.read_others),
                review.contrast_frame(contrasts, name, found.read_errors, found.read_others),
                key=f"errors_{name.lower()}",
                help="Log-odds with an informative Dirichlet prior (Monroe, Colaresi, Quinn 2008). "
                "Bars in full colour are beyond what the most extreme of all looked-at items would "
                "reach by chance in 1 of 20 cases; hatched ones may be chance.",
            )
    if not shown_any:
        st.info("Nothing occurs in two errors or more.", icon=":material/info:")


# --- exports --------------------------------------------------------------------------------


def show_export(shown: Shown) -> None:
    """Offer the corrected dataset as a version, and hard cases as a training file."""
    left, right = st.columns(2, gap="large")
    with left:
        show_correction(shown)
    with right:
        show_hard_cases(shown)


def show_correction(shown: Shown) -> None:
    """Make a corrected version, and show which version came from which."""
    store, info = resources().store, shown.info
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
            made = corrected_version(store, info.dataset_id, excludes=excludes)
            st.session_state["errors_made"] = made.dataset_id
    made_id = st.session_state.get("errors_made")
    line = store.datasets.lineage(info.dataset_id)
    if made_id in {one.dataset_id for one in store.datasets.all()}:
        line = store.datasets.lineage(made_id)
        st.success(plain(f"{line[0].title} is stored: {line[0].rows:,} rows."))
        if st.button("Score it", key="errors_score", icon=":material/play_arrow:"):
            st.session_state["run_dataset"] = made_id
            st.switch_page("app_pages/new_run.py")
    st.dataframe(
        review.lineage_frame(line), hide_index=True, key="errors_lineage", alt="Line of descent"
    )


def show_hard_cases(shown: Shown) -> None:
    """Offer errors and near rows as a file for training."""
    info = shown.info
    st.subheader("Hard cases", anchor=False)
    st.caption(
        "Errors and rows near the threshold with their corrected labels, each text once, as a file "
        "for `shield train --data`. Train on them together with your other rows: a model that sees "
        "only hard cases forgets the easy ones."
    )
    near = st.number_input(
        "Near means within ", 0.0, 1.0, 0.05, 0.01, key="errors_hard_near",
        help="Rows this near to the threshold are taken along, right or wrong.",
    )  # fmt: skip
    kind = st.segmented_control(
        "Format", ["CSV", "JSON Lines"], required=True, default="CSV", key="errors_format"
    )
    if info.purged:
        st.info("This dataset's texts were purged.", icon=":material/ink_eraser:")
        return
    if not st.toggle("Collect them", key="errors_collect", value=info.rows <= MOST_AUTOMATIC):
        return
    cases = reviewing.hard_cases_of(shown.judgement, float(near), RunKey.of(shown.run), shown.said)
    counted = ", ".join(f"{count:,} {name}" for name, count in cases.class_counts.items())
    st.markdown(f"{len(cases.rows):,} rows{f': {counted}' if counted else ''}.")
    left_out = [
        f"{count:,} {why}"
        for count, why in (
            (cases.unlabelled, "without a label"),
            (cases.excluded, f"tagged {EXCLUDE_TAG}"),
            (cases.repeated, "repeating a text"),
            (cases.conflicting, "whose text has several labels"),
            (cases.beyond_limit, "beyond the largest file"),
        )
        if count
    ]
    if left_out:
        st.caption(f"Left out: {', '.join(left_out)}.")
    if len(cases.class_counts) < len(shown.classes.names):
        st.warning(
            "Not every class is among them; `shield train` needs all, so add other rows.",
            icon=":material/warning:",
        )
    is_csv = kind == "CSV"
    st.download_button(
        "Hard cases",
        lambda: (cases_as_csv if is_csv else cases_as_jsonl)(cases),
        file_name=f"hard-cases-{shown.run.run_id}.{'csv' if is_csv else 'jsonl'}",
        mime="text/csv" if is_csv else "application/jsonl",
        key="errors_hard",
        icon=":material/download:",
        on_click="ignore",
        disabled=not cases.rows,
    )
    if is_csv:
        st.caption(
            "Not for spreadsheets: texts are written letter by letter, also those that a "
            "spreadsheet would run as a formula. Choose JSON Lines to be safe."
        )


# --- the page -------------------------------------------------------------------------------


def show_message() -> None:
    """Show what a saving callback could not do."""
    message = st.session_state.pop("errors_message", None)
    if message:
        show_error(message, "That was not saved")


def main() -> None:
    """Draw the page."""
    page_title(
        "Errors", "Read what was decided wrongly, correct labels, and find what errors share."
    )
    run = choose_run()
    if run is None:
        empty_state(
            "No run to review yet",
            "Run all modes on the bundled sample from the Overview, or score a dataset of your own.",
            "Go to Overview",
            "app_pages/overview.py",
        )
        return
    shown = choose_judgement(run, resources().store.datasets.find(run.dataset_id))
    show_message()
    if st.session_state.get("errors_shown_run", run.run_id) != run.run_id:
        unpin()
    st.session_state["errors_shown_run"] = run.run_id
    views: Sequence[str] = (ROWS, SUSPECTS, WORDING, EXPORT)
    keep("errors_view", ROWS)
    view = st.segmented_control(
        "View", views, required=True, key="errors_view", label_visibility="collapsed"
    )
    if view == SUSPECTS:
        show_suspects(shown)
    elif view == WORDING:
        show_wording(shown)
    elif view == EXPORT:
        show_export(shown)
    else:
        show_rows(shown)


main()

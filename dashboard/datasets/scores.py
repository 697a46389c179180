"""Columns with what other guards said: which they are, whose they are, and their runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import streamlit as st

from dashboard.datasets.files import FILE_TYPES
from dashboard.state import label_counts, resources, source_file, upload_path
from dashboard.text import plain, visible
from dashboard.widgets import errors_shown
from shield_engine.datasets import (
    MAX_LABEL_VALUES,
    ColumnMapping,
    GivenScores,
    ScoreColumn,
    Sniffed,
    score_hints,
)
from shield_engine.runs.execution import Progress
from shield_engine.runs.given import join_scores, store_given_scores
from shield_engine.store import DatasetInfo

__all__ = ["choose_scores", "show_join", "store_scores"]

_NONE = "(none)"
_SCORE, _VERDICT = "Score, 0 to 1", "Verdict"


def choose_scores(file: Sniffed, taken: Collection[str | None]) -> tuple[ScoreColumn, ...] | None:
    """Ask which columns hold what a guard said; `None` while a verdict's risky values are open.

    Args:
        file: What was sniffed.
        taken: Columns that play another part.
    """
    columns = [name for name in file.columns if name not in taken]
    hints = score_hints(columns)
    with st.expander("Scores of other guards", expanded=bool(hints)):
        if hints:
            named = ", ".join(hints)
            st.caption(plain(f"Named like what a guard said, and unused unless chosen: {named}"))
        chosen = st.multiselect(
            "Columns with scores or verdicts",
            [name for name in columns if hints.get(name) != "latency"],
            key=f"scores:{file.path}",
            help="Each guard becomes a run over these rows, to be compared like any other.",
        )
        scores = [
            _choose_guard(
                file,
                column,
                is_verdict=hints.get(column) == "verdict",
                others=[name for name in columns if name not in chosen],
            )
            for column in chosen
        ]
    given = tuple(score for score in scores if score is not None)
    if len(given) < len(scores):
        warning = "Say which values of a verdict mean risky to go on: all others count as passed."
        st.warning(warning, icon=":material/block:")
        return None
    return given


def show_join(info: DatasetInfo) -> None:
    """Take a file of scores alone, and lay them onto the rows of a stored version."""
    st.caption(
        "A file without texts: its rows meet these by your own id, or by the SHA-256 of the text."
    )
    upload = st.file_uploader("File of scores", type=FILE_TYPES, key=f"join:{info.dataset_id}")
    if upload is None:
        return
    path = upload_path(upload.file_id, upload.name, upload)
    stat = path.stat()
    file = source_file(path, stat.st_size, stat.st_mtime_ns).sniffed
    columns, hint = list(file.columns), file.suggested.id
    with st.container(horizontal=True):
        known_by = st.selectbox(
            "Rows are known by",
            columns,
            index=columns.index(hint) if hint in columns else 0,
            key=f"join_key:{path}",
            width=220,
        )
        kind = st.segmented_control(
            "which holds",
            ["Ids", "SHA-256"],
            default="Ids",
            required=True,
            key=f"join_kind:{path}",
        )
    scores = choose_scores(file, {known_by})
    if not st.button(
        "Add scores", type="primary", key="join_scores", disabled=not (scores and known_by)
    ):
        return
    mapping = ColumnMapping(
        "",
        id=known_by if kind == "Ids" else None,
        scores=scores or (),
        text_sha256=known_by if kind != "Ids" else None,
    )
    with errors_shown("No scores were added"):
        joined = join_scores(resources().store, info.dataset_id, path, mapping)
        if store_scores(info, joined.scores):
            st.success(f"{joined.matched:,} rows have scores now.", icon=":material/check_circle:")
            for warning in joined.warnings:
                st.warning(plain(warning), icon=":material/warning:")


def _choose_guard(
    file: Sniffed, column: str, *, is_verdict: bool, others: Sequence[str]
) -> ScoreColumn | None:
    """Ask what one column holds, and whose it is."""
    key = f"{column}:{file.path}"
    with st.container(horizontal=True):
        role = st.selectbox(
            f"{plain(column)} holds",
            [_SCORE, _VERDICT],
            index=int(is_verdict),
            key=f"score_role:{key}",
            width=180,
        )
        guard = st.text_input(
            "Guard",
            value=visible(column),
            max_chars=100,
            key=f"score_guard:{key}",
            help="What the candidate is called on other pages.",
            width=220,
        )
        latency = st.selectbox(
            "Its latency, ms", [_NONE, *others], key=f"score_latency:{key}", width=180
        )
        flagged: tuple[str, ...] = ()
        if role == _VERDICT:
            stat = file.path.stat()
            counts = label_counts(file.path, stat.st_size, stat.st_mtime_ns, column)
            if len(counts) > MAX_LABEL_VALUES:
                many = f"Column {column!r} has more than {MAX_LABEL_VALUES} values: no verdicts."
                st.error(plain(many))
                return None
            flagged = tuple(
                st.multiselect(
                    "Values that mean risky",
                    list(counts),
                    format_func=visible,
                    key=f"score_flagged:{key}",
                    width=280,
                )
            )
            if not flagged:
                return None
    return ScoreColumn(
        column, (guard or "").strip(), flagged, None if latency == _NONE else latency
    )


def store_scores(dataset: DatasetInfo, scores: Sequence[GivenScores]) -> bool:
    """Store a run for each guard of a file whose rows are stored; return whether that went well."""
    if not scores:
        return True
    with errors_shown("The rows are stored, these scores are not"):
        bar = st.progress(0.0, text="Scoring the rules beside the guards")

        def note(progress: Progress) -> None:
            share = progress.rows_done / progress.rows
            bar.progress(share, text=f"Rules beside the guards: {progress.rows_done:,} rows")

        store_given_scores(resources().store, resources().shield, dataset, scores, on_progress=note)
        return True
    return False

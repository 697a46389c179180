"""Columns with what other guards said: which they are, whose they are, and their runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import streamlit as st

from dashboard.state import label_counts, resources
from dashboard.text import plain, visible
from dashboard.widgets import errors_shown
from shield_engine.datasets import (
    MAX_LABEL_VALUES,
    GivenScores,
    ScoreColumn,
    Sniffed,
    score_hints,
)
from shield_engine.runs.execution import Progress
from shield_engine.runs.given import store_given_scores
from shield_engine.store import DatasetInfo

__all__ = ["choose_scores", "store_scores"]

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
    with errors_shown("The rows are stored, the scores are not"):
        bar = st.progress(0.0, text="Scoring the rules beside the guards")

        def note(progress: Progress) -> None:
            share = progress.rows_done / progress.rows
            bar.progress(share, text=f"Rules beside the guards: {progress.rows_done:,} rows")

        store_given_scores(resources().store, resources().shield, dataset, scores, on_progress=note)
        return True
    return False

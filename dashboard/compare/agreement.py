"""Where rules and model of one run part, what hybrid makes of it, and the rows behind each count."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.compare.choices import Selection
from dashboard.compare.tables import change_frame, lattice_frame, lattice_members
from dashboard.state import RunKey, balanced, resources, scores
from dashboard.tables import result_facts, rows_table, spans_frame
from dashboard.text import visible
from dashboard.widgets import PAGE_ROWS, paged, show_metrics, show_table, show_text
from shield_engine.decide.candidates import Aligned
from shield_engine.decide.compare import Comparison
from shield_engine.decide.slices import Prefilter, lattice
from shield_engine.decide.views import available_modes, mode_view
from shield_engine.metrics.table import percent
from shield_engine.store import RunInfo, StoredRow
from shield_engine.store.rows import stored_rows
from shield_engine.types import Mode, Task

__all__ = ["show_agreement"]


def show_agreement(
    run: RunInfo, _comparison: Comparison, _views: Aligned, _choice: Selection
) -> None:
    """Show where rules and model part, what hybrid makes of it, and open the rows."""
    if len(available_modes(run)) < len(Mode):
        st.caption("This run scored one part only; score both to see where they disagree.")
        return
    stored, limits = scores(RunKey.of(run)), balanced(run)
    views = (
        mode_view(stored, mode, limits.get(mode.value))
        for mode in (Mode.HEURISTIC, Mode.ML, Mode.HYBRID)
    )
    verdicts = lattice(*views)
    if verdicts.prefilter is not None:
        _show_prefilter(verdicts.prefilter)
    st.subheader("Where do rules and model disagree?", anchor=False)
    st.caption("Modes of this run at their balanced thresholds.")
    show_table(lattice_frame(verdicts), key="lattice")
    changes = change_frame(verdicts)
    if len(changes):
        st.subheader("What did hybrid fix, and what did it break?", anchor=False)
        show_table(changes, key="changes")
    _show_rows(
        run,
        [
            (title, [int(index) for index in stored.row_index[rows]])
            for title, rows in lattice_members(verdicts)
            if len(rows)
        ],
    )


def _show_prefilter(prefilter: Prefilter) -> None:
    """Show what the rules before the model save, and what that costs."""
    st.subheader("What do rules and linear tier save before the model, and cost?", anchor=False)
    figures = [
        (
            "Model calls avoided",
            percent(prefilter.avoided_share),
            f"{prefilter.avoided:,} of {prefilter.n:,} rows that hybrid decided without the model.",
        )
    ]
    if prefilter.risky:
        figures.append(
            (
                "Recall lost before the model",
                percent(prefilter.lost_recall),
                f"{len(prefilter.lost):,} of {prefilter.risky:,} risky rows that rules and tier let "
                "through unasked and the model would have flagged.",
            )
        )
    if prefilter.harmless:
        figures.append(
            (
                "False alarms of the rules alone",
                percent(len(prefilter.alarms) / prefilter.harmless),
                f"{len(prefilter.alarms):,} of {prefilter.harmless:,} harmless rows that the rules "
                "flagged unasked and the model would have let through.",
            )
        )
    show_metrics(*figures)


def _show_rows(run: RunInfo, members: Sequence[tuple[str, list[int]]]) -> None:
    """Open the rows behind one count."""
    if not members:
        return
    position = st.selectbox(
        "Show the rows of",
        range(len(members)),
        format_func=lambda line: f"{members[line][0]}: {len(members[line][1]):,} rows",
        key=f"lattice_line_{run.run_id}",
    )
    indexes = members[position][1]
    start = paged(len(indexes), key=f"lattice_page_{run.run_id}_{position}")
    page = indexes[start : start + PAGE_ROWS]
    rows = stored_rows(resources().store, run.dataset_id, page, run.run_id)
    show_table(rows_table(rows, run.task), key="lattice_rows")
    if rows:
        _show_row(rows, run.task)


def _show_row(rows: Sequence[StoredRow], task: Task) -> None:
    """Open one row: its text as text, scores, rules and spans."""
    titles = [f"{visible(row.row_id)}: {visible(row.text or '')[:80]}" for row in rows]
    row = rows[
        st.selectbox("Open row", range(len(rows)), format_func=titles.__getitem__, key="opened_row")
    ]
    if row.text is None:
        st.caption("This dataset's texts were purged.")
    else:
        show_text(row.text, height=160)
    left, right = st.columns(2)
    with left:
        show_table(result_facts(row, task), key="row_facts")
    with right:
        spans = spans_frame(row)
        if len(spans):
            show_table(spans, key="row_spans")
        else:
            st.caption("No rule matched this row.")

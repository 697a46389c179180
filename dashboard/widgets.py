"""Widgets that pages share, and the one way in which texts of others reach the screen.

Prompts, file names, column names, label values and error messages hold other people's words. They
are shown as text (`show_text`, a dataframe's text column) or escaped by `plain`, never as markup.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from dashboard.state import resources
from shield_engine.errors import ShieldError, StoreBusyError
from shield_engine.hostile_text import neutralised_text, visible
from shield_engine.store import RunStatus
from shield_engine.types import Mode

if TYPE_CHECKING:
    from shield_engine.runs.execution import Progress
    from shield_engine.store import RunInfo

__all__ = [
    "METRIC_TITLES",
    "MODE_TITLES",
    "STATUS_CHIPS",
    "charted",
    "clock",
    "csv_bytes",
    "download_table",
    "duration",
    "empty_state",
    "errors_shown",
    "megabytes",
    "milliseconds",
    "page_title",
    "paged",
    "plain",
    "progress_text",
    "show_error",
    "show_progress",
    "show_text",
    "status_chip",
    "visible",
    "watch_run",
]

MODE_TITLES: Mapping[Mode, str] = {
    Mode.HEURISTIC: "Heuristic",
    Mode.ML: "ML",
    Mode.HYBRID: "Hybrid",
    Mode.BOTH: "Both",
}

METRIC_TITLES: Mapping[str, str] = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "fpr": "FPR",
    "mcc": "MCC",
    "balanced_accuracy": "Balanced accuracy",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "recall_at_1pct_fpr": "Recall at 1% FPR",
    "recall_at_0_1pct_fpr": "Recall at 0.1% FPR",
    "fpr_at_95_recall": "FPR at 95% recall",
    "brier": "Brier score",
    "ece": "Calibration error",
    "length_only_auc": "AUC of length alone",
    "macro_f1": "Macro F1",
    "macro_recall": "Macro recall",
}

STATUS_CHIPS: Mapping[str, tuple[str, str]] = {
    "queued": (":material/schedule:", "gray"),
    "running": (":material/play_circle:", "blue"),
    "done": (":material/check_circle:", "green"),
    "cancelled": (":material/stop_circle:", "orange"),
    "interrupted": (":material/power_off:", "orange"),
    "failed": (":material/error:", "red"),
}
"""Icon and colour of each state of a run; the state's name is always written beside them."""


# --- texts of others ------------------------------------------------------------------------


def plain(text: str) -> str:
    """Return `text` so that Markdown shows it letter by letter.

    Every ASCII punctuation mark is escaped, which also disarms links, images, HTML, formulas and
    Streamlit's own `:directives:`.
    """
    escaped = "".join(
        f"\\{letter}" if letter.isascii() and not letter.isalnum() and letter.isprintable()
        and letter != " " else letter
        for letter in visible(text)
    )  # fmt: skip
    return escaped.replace("\t", " ").replace("\n", "  \n")


def show_text(text: str, *, limit: int = 20_000, height: int | None = None) -> None:
    """Show a hostile text as it is, hidden characters written out, cut after `limit` characters."""
    shown = visible(text[:limit])
    st.code(shown or " ", language=None, wrap_lines=True, height=height or "content")
    if len(text) > limit:
        st.caption(f"The first {limit:,} of {len(text):,} characters are shown.")


def show_error(error: ShieldError | str, title: str = "That did not work") -> None:
    """Show what went wrong, where, and what to do, as text."""
    st.error(plain(str(error)), title=title, icon=":material/error:")


@contextmanager
def errors_shown(title: str = "That did not work") -> Iterator[None]:
    """Show a `ShieldError` of the body without a traceback; fragments need this for themselves."""
    try:
        yield
    except StoreBusyError as error:
        show_error(error, "Another process holds the store")
        st.markdown(
            "Close the other dashboard or command, then try again. To work beside it, start this "
            "one with `SHIELD_HOME` set to another folder."
        )
        st.button("Try again", icon=":material/refresh:", key="retry_store")
    except ShieldError as error:
        show_error(error, title)


# --- numbers as text ------------------------------------------------------------------------


def milliseconds(value: float | None) -> str:
    """Return milliseconds with two decimals that count: "0.014 ms", "3.21 ms", "1,240 ms"."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f} ms"
    return f"{value:.2f} ms" if value >= 0.1 else f"{value:.2g} ms"


def duration(seconds: float | None) -> str:
    """Return seconds as "0.4 s", "42 s", "3 min 20 s" or "2 h 5 min"."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def megabytes(size_bytes: float) -> str:
    """Return a size in MB (10^6 bytes), or kB below one."""
    if size_bytes < 1e6:
        return f"{size_bytes / 1e3:,.1f} kB"
    return f"{size_bytes / 1e6:,.1f} MB"


def clock(when: datetime) -> str:
    """Return a stored time, which is UTC, to the minute."""
    return f"{when:%Y-%m-%d %H:%M} UTC"


def progress_text(progress: Progress | None, rows: int) -> str:
    """Return "1,000 of 3,000 rows, 412 rows/s, 5 s left, 0 errors"."""
    if progress is None:
        return f"0 of {rows:,} rows, getting ready"
    return (
        f"{progress.rows_done:,} of {progress.rows:,} rows, {progress.rows_per_s:,.0f} rows/s, "
        f"{duration(progress.eta_s)} left, {progress.errors:,} errors"
    )


# --- tables ---------------------------------------------------------------------------------


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """Return a frame as CSV in UTF-8 in which no text cell can run as a spreadsheet formula."""
    safe = frame.copy()
    safe.columns = pd.Index([neutralised_text(str(name)) for name in frame.columns])
    for position in range(safe.shape[1]):
        column = safe.iloc[:, position]
        if not pd.api.types.is_numeric_dtype(column):
            safe.isetitem(
                position,
                [neutralised_text(cell) if isinstance(cell, str) else cell for cell in column],
            )
    # Texts are quoted: a lone carriage return would begin a row, and with it perhaps a formula.
    written: str = safe.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    return written.encode("utf-8", "backslashreplace")


def download_table(frame: pd.DataFrame, file_name: str, *, key: str, label: str = "CSV") -> None:
    """Offer a table as CSV."""
    st.download_button(
        label,
        csv_bytes(frame),
        file_name=file_name,
        mime="text/csv",
        key=key,
        icon=":material/download:",
        on_click="ignore",
    )


def charted(
    question: str,
    figure: Any,
    table: pd.DataFrame,
    *,
    key: str,
    help: str | None = None,  # noqa: A002 - Streamlit's own word for hover text
) -> None:
    """Show a chart under the question it answers, with the table behind it and its download."""
    st.subheader(question, help=help, anchor=False)
    st.plotly_chart(figure, key=f"{key}_chart", config={"displaylogo": False}, alt=question)
    with st.expander("The numbers behind this chart"):
        st.dataframe(table, hide_index=True, key=f"{key}_table", alt=question)
        download_table(table, f"{key}.csv", key=f"{key}_csv")


def paged(total: int, *, key: str, size: int = 50) -> int:
    """Show a page chooser where there is more than one page, and return the offset of its rows."""
    pages = max(1, -(-total // size))
    if pages == 1:
        st.caption(f"{total:,} rows")
        return 0
    with st.container(horizontal=True, vertical_alignment="bottom"):
        number = int(
            st.number_input(
                f"Page (of {pages:,})", min_value=1, max_value=pages, step=1, key=key, width=140
            )
            or 1
        )
        first = (number - 1) * size
        st.caption(f"Rows {first + 1:,} to {min(total, first + size):,} of {total:,}")
    return first


# --- states ---------------------------------------------------------------------------------


def page_title(title: str, sentence: str) -> None:
    """Head a page with what it is for."""
    st.title(title, anchor=False)
    st.caption(sentence)


def empty_state(
    title: str, advice: str, action: str | None = None, page: str | None = None
) -> None:
    """Say that there is nothing yet and what to do, with the button that does it."""
    with st.container(border=True):
        st.markdown(f"**{title}**")
        st.caption(advice)
        if action and page and st.button(action, type="primary", key=f"empty_{page}"):
            st.switch_page(page)


def status_chip(status: str) -> None:
    """Show a run's state as icon, colour and word."""
    icon, color = STATUS_CHIPS.get(status, (":material/help:", "gray"))
    st.badge(status, icon=icon, color=color)  # type: ignore[arg-type]


def show_progress(progress: Progress | None, rows: int, *, note: str = "") -> None:
    """Show a running run's bar with rate, time left and errors."""
    share = progress.rows_done / progress.rows if progress and progress.rows else 0.0
    st.progress(min(1.0, share), text=f"{note}{progress_text(progress, rows)}")


def watch_run(run_id: str, *, key: str, then: str | None = None) -> None:
    """Show a run's progress until it ends, then rerun the page, or switch to page `then` if done.

    Polls twice a second while the run is queued or running, and not at all otherwise.
    """
    was_active = _is_active(run_id)
    watching = st.fragment(_watch, run_every=0.5 if was_active else None)
    watching(run_id, key, then, was_active)


def _is_active(run_id: str) -> bool:
    return any(job.run_id == run_id for job in resources().worker.active())


def _watch(run_id: str, key: str, then: str | None, was_active: bool) -> None:
    with errors_shown():
        held = resources()
        run, job = held.store.runs.find(run_id), held.worker.job(run_id)
        if job is not None and _is_active(run_id):
            waiting = "Waiting for another run. " if job.status == "queued" else ""
            show_progress(job.progress, run.rows, note=waiting)
            is_stopping = job.cancel.is_set()
            if st.button(
                "Stopping after this batch" if is_stopping else "Cancel",
                icon=":material/stop_circle:",
                key=f"{key}_cancel",
                disabled=is_stopping,
            ):
                held.worker.cancel(run_id)
                st.rerun(scope="fragment")
            return
        if then is not None and run.status == RunStatus.DONE:
            st.switch_page(then, query_params={"run": run_id})
        if was_active:
            st.rerun()
        _show_outcome(run)


def _show_outcome(run: RunInfo) -> None:
    rows = f"{run.rows_done:,} of {run.rows:,} rows in {duration(run.seconds)}"
    if run.status == RunStatus.DONE:
        errors = f", {run.errors:,} errors" if run.errors else ""
        st.success(f"Done: {rows}{errors}.", icon=":material/check_circle:")
    elif run.status == RunStatus.FAILED:
        show_error(run.error or "no reason was kept", f"The run failed after {rows}")
    else:
        st.warning(
            f"{run.status.capitalize()}: {rows}. What is scored is kept; resume it on the page "
            "Runs.",
            icon=":material/pause_circle:",
        )

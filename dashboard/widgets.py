"""Widgets that pages share: texts of others, choices that outlive a page, tables, charts, states."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import streamlit as st

from dashboard.state import resources
from dashboard.tables import run_title
from dashboard.text import duration, plain, progress_text, visible
from shield_engine.errors import ShieldError, StoreBusyError
from shield_engine.hostile_text import neutralised_text
from shield_engine.store import RunInfo, RunStatus

if TYPE_CHECKING:
    from shield_engine.guards import GuardEntry
    from shield_engine.runs.execution import Progress

__all__ = [
    "PAGE_ROWS",
    "PURGE_WARNING",
    "charted",
    "choose_run",
    "column",
    "csv_bytes",
    "download",
    "empty_state",
    "errors_shown",
    "guards_or_fault",
    "is_active",
    "link_run",
    "offer_removal",
    "page_title",
    "paged",
    "pick",
    "pick_run",
    "show_error",
    "show_metrics",
    "show_progress",
    "show_table",
    "show_text",
    "status_chip",
    "watch_run",
]

_T = TypeVar("_T")

PAGE_ROWS = 50
"""Rows that a table shows at once."""

PURGE_WARNING = (
    "Drops the prompts for good; labels, hashes, scores and figures stay. Their bytes leave the "
    "file when LLM Shield next starts."
)
"""What a user is told before a dataset's texts go."""

_STATUS_CHIPS: Mapping[str, tuple[str, str]] = {
    "queued": (":material/schedule:", "gray"),
    "running": (":material/play_circle:", "blue"),
    "done": (":material/check_circle:", "green"),
    "cancelled": (":material/stop_circle:", "orange"),
    "interrupted": (":material/power_off:", "orange"),
    "failed": (":material/error:", "red"),
}
"""Icon and colour of each state of a run; the state's name is always written beside them."""

_MIME = {
    "csv": "text/csv",
    "duckdb": "application/octet-stream",
    "html": "text/html",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "md": "text/markdown",
    "parquet": "application/vnd.apache.parquet",
    "toml": "application/toml",
    "xml": "application/xml",
}

_RUN_LINKS = {
    "threshold_lab": ("Choose a threshold", ":material/tune:"),
    "errors": ("Read the errors", ":material/rule:"),
    "reports_gates": ("Gate it and write a report", ":material/task_alt:"),
}


# --- texts of others ------------------------------------------------------------------------


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


# --- choices --------------------------------------------------------------------------------


def pick(
    title: str,
    options: Iterable[_T],
    *,
    key: str,
    default: _T | None = None,
    in_url: str | None = None,
    segmented: bool = False,
    **more: Any,
) -> _T:
    """Let the user choose one option; the choice outlives the page, and may be in its URL.

    Streamlit drops a widget's value when its page is left, and a widget that it binds to the URL
    writes the words that people read there, not what links carry. A choice that is no option any
    more (its dataset was deleted) gives way to the default. Plain inputs outlive their page by
    `persist_state="session"`.

    Args:
        title: The widget's label.
        options: At least one; a mapping holds what each is called.
        key: The widget's key in the session's state; pages that use the same share the choice.
        default: What is chosen first; the first option if `None`.
        in_url: The URL parameter that carries `str(option)`.
        segmented: Show a segmented control instead of a select box.
        more: What the widget takes besides.
    """
    state, memory, listed = st.session_state, f"picked:{key}", list(options)
    wanted = state.get(key, state.get(memory))
    linked = st.query_params.get(in_url) if in_url else None
    if linked is not None and linked != state.get(f"linked:{in_url}"):
        wanted = next((option for option in listed if str(option) == linked), wanted)
    if wanted not in listed:
        wanted = listed[0] if default is None else default
    if key not in state or state[key] != wanted:
        state[key] = wanted
    if isinstance(options, Mapping):
        more.setdefault("format_func", options.__getitem__)
    if segmented:
        more["required"] = True
    widget: Any = st.segmented_control if segmented else st.selectbox
    chosen: _T | None = widget(title, listed, key=key, **more)
    picked = wanted if chosen is None else chosen
    state[memory] = picked
    if in_url:
        st.query_params[in_url] = state[f"linked:{in_url}"] = str(picked)
    return picked


def pick_run(
    title: str, runs: Iterable[RunInfo], *, key: str, first: Iterable[str] = (), **more: Any
) -> str:
    """Let the user choose among runs by what tells them apart, and return the run's id.

    Args:
        title: The widget's label.
        runs: In the order shown.
        key: As in `pick`.
        first: Words to choose before any run, such as one that means none.
        more: As in `pick`.
    """
    datasets = {info.dataset_id: info.title for info in resources().store.datasets.all()}
    titles = {word: word for word in first}
    titles |= {run.run_id: run_title(run, datasets) for run in runs}
    chosen: str = pick(title, titles, key=key, **more)
    return chosen


def choose_run(
    nothing: str,
    advice: str = "Run all modes on the bundled sample from the Overview, or score a dataset of "
    "your own.",
    *,
    runs: Iterable[RunInfo] | None = None,
) -> RunInfo | None:
    """Let the user choose the run that a page is about, or say how to get one and return `None`.

    The choice is in the URL as `run` and stays while the user goes from page to page.

    Args:
        nothing: What there is none of yet.
        advice: How to get it.
        runs: All stored runs, where the page has read them already.
    """
    stored = resources().store.runs.all() if runs is None else runs
    scored = {run.run_id: run for run in stored if run.rows_done}
    if not scored:
        empty_state(nothing, advice, "Go to Overview", "app_pages/overview.py")
        return None
    ordered = sorted(scored.values(), key=lambda run: run.status != RunStatus.DONE)
    before = st.query_params.get("run")
    chosen = pick_run("Run", ordered, key="chosen_run", in_url="run")
    if chosen != before:
        st.query_params.pop("row", None)  # it was a row of the run before
    return scored[chosen]


def guards_or_fault() -> Mapping[str, GuardEntry]:
    """Return the declared guards by name; say what is wrong with their file, and go on without."""
    with errors_shown("The guards' file cannot be used; only models are offered"):
        return resources().shield.guards
    return {}


def link_run(run_id: str, *pages: str) -> None:
    """Offer pages that go on with a run."""
    with st.container(horizontal=True):
        for page in pages:
            title, icon = _RUN_LINKS[page]
            st.page_link(
                f"app_pages/{page}.py", label=title, icon=icon, query_params={"run": run_id}
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


def download(
    title: str,
    data: bytes | str | Callable[[], bytes | str],
    file_name: str,
    *,
    key: str,
    **more: Any,
) -> None:
    """Offer a file; what makes it, if that is a function, is called when it is asked for."""
    st.download_button(
        title,
        data,
        file_name=file_name,
        mime=_MIME[PurePath(file_name).suffix[1:]],
        key=key,
        icon=":material/download:",
        on_click="ignore",
        **more,
    )


def column(help: str | None = None, number: str | None = None, **more: Any) -> Any:  # noqa: A002 - Streamlit's own word for hover text
    """Return how a table shows a column: what it means, and a number's format."""
    if number is None:
        return st.column_config.Column(help=help, **more)
    return st.column_config.NumberColumn(help=help, format=number, **more)


def show_table(
    frame: pd.DataFrame,
    *,
    key: str,
    columns: Mapping[str, Any] | None = None,
    file_name: str | None = None,
    **more: Any,
) -> None:
    """Show a table.

    Args:
        frame: Without its index.
        key: The table's, and with "_csv" its download's.
        columns: How columns are shown: a `column`, or only what it means.
        file_name: Offers the table as a CSV file of this name.
        more: What `st.dataframe` takes besides.
    """
    configs = {
        name: column(shown) if isinstance(shown, str) else shown
        for name, shown in (columns or {}).items()
    }
    st.dataframe(frame, hide_index=True, key=key, column_config=configs, **more)
    if file_name is not None:
        download("CSV", csv_bytes(frame), file_name, key=f"{key}_csv")


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
        show_table(table, key=key, file_name=f"{key}.csv", alt=question)


def show_metrics(*figures: tuple[str, str] | tuple[str, str, str | None]) -> None:
    """Show figures side by side, each with its title, its value and perhaps what it means."""
    with st.container(horizontal=True):
        for title, value, *meaning in figures:
            st.metric(title, value, border=True, help=meaning[0] if meaning else None)


def paged(total: int, *, key: str, size: int = PAGE_ROWS) -> int:
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


def offer_removal(
    title: str,
    warning: str,
    button: str,
    remove: Callable[[], object],
    *,
    key: str,
    icon: str = ":material/delete:",
    disabled: bool = False,
    failure: str = "That did not work",
) -> None:
    """Offer to drop something for good; what goes is said, and the user asked, first."""
    with st.popover(title, disabled=disabled, icon=icon):
        st.write(warning)
        if st.button(button, key=key, type="primary"):
            with errors_shown(failure):
                remove()
                st.rerun()


def status_chip(status: str) -> None:
    """Show a run's state as icon, colour and word."""
    icon, color = _STATUS_CHIPS.get(status, (":material/help:", "gray"))
    st.badge(status, icon=icon, color=color)  # type: ignore[arg-type]


def show_progress(progress: Progress | None, rows: int, *, note: str = "") -> None:
    """Show a running run's bar with rate, time left and errors."""
    share = progress.rows_done / progress.rows if progress and progress.rows else 0.0
    st.progress(min(1.0, share), text=f"{note}{progress_text(progress, rows)}")


def watch_run(run_id: str, *, key: str, then: str | None = None) -> None:
    """Show a run's progress until it ends, then rerun the page, or switch to page `then` if done.

    Polls twice a second while the run is queued or running, and not at all otherwise.
    """
    was_active = is_active(run_id)
    watching = st.fragment(_watch, run_every=0.5 if was_active else None)
    watching(run_id, key, then, was_active)


def is_active(run_id: str) -> bool:
    """Return whether a run is queued or running."""
    return any(job.run_id == run_id for job in resources().worker.active())


def _watch(run_id: str, key: str, then: str | None, was_active: bool) -> None:
    with errors_shown():
        opened = resources()
        run, job = opened.store.runs.find(run_id), opened.worker.job(run_id)
        if job is not None and is_active(run_id):
            waiting = "Waiting for another run. " if job.status == "queued" else ""
            show_progress(job.progress, run.rows, note=waiting)
            is_stopping = job.cancel.is_set()
            if st.button(
                "Stopping after this batch" if is_stopping else "Cancel",
                icon=":material/stop_circle:",
                key=f"{key}_cancel",
                disabled=is_stopping,
            ):
                opened.worker.cancel(run_id)
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

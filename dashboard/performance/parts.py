"""What Performance draws: measuring and loading, one benchmark whole, and two compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import streamlit as st

from dashboard.performance.charts import comparison_chart, distributions_chart, figures_chart
from dashboard.performance.measurement import Measurement
from dashboard.performance.tables import (
    Document,
    beside,
    chart_groups,
    comparison_frame,
    cost_frame,
    distributions_frame,
    document_title,
    figure_named,
    figures_frame,
    machine_frame,
    ratios_frame,
)
from dashboard.state import resources
from dashboard.text import plain
from dashboard.widgets import (
    charted,
    column,
    csv_bytes,
    download,
    errors_shown,
    pick,
    show_error,
    show_table,
)
from shield_engine.benchmark import benchmark_markdown, number, read_document, run_benchmark
from shield_engine.errors import ShieldError
from shield_engine.store.library import save_benchmark

__all__ = ["choose_benchmark", "show_actions", "show_benchmark", "show_comparison"]

_POLL_S = 2.0  # each look costs the machine that is being measured

_HEADLINES: Mapping[str, tuple[str, str]] = {
    "end_to_end.ml.miss.p50": ("ML scan, p50", "A new text through the injection model, whole."),
    "end_to_end.hybrid.hit.p50": ("Cached scan, p50", "A text whose scores are in the cache."),
    "throughput.heuristic.prompt_injection": (
        "Rules alone",
        "Injection rules over the bundled sample, one thread, no cache.",
    ),
    "throughput.hybrid": (
        "Hybrid",
        "Benign texts of the sample, one thread, no cache. Below it: how many asked the model.",
    ),
    "tokenization": ("Tokenizer", "Tokens a second, one thread."),
    "memory.total": ("Memory, all models", "Above Python with NumPy: engine and three models."),
}
"""Figures that open the page: title and hover text."""

_COST_COLUMNS = {
    "CPU ms a text": column(number="%.3f"),
    "CPU hours a million": column(number="%.3g"),
    "Price of a million": column(number="%.3g"),
    "Asks the model": column(number="percent"),
}


# --- measuring ------------------------------------------------------------------------------


@st.cache_resource(show_spinner=False)
def measurement() -> Measurement:
    """Return the server's one measurement; all sessions share it."""
    return Measurement()


def _measure() -> None:
    """Begin a quick benchmark in the background."""
    server = resources()

    def quick(note: Callable[[str, float], None]) -> dict[str, Any]:
        return run_benchmark(server.shield, quick=True, on_progress=note)

    measurement().start(quick, partial(save_benchmark, server.store))


def show_actions() -> None:
    """Offer to measure now and to load what the command line measured."""
    is_scoring, is_measuring = bool(resources().worker.active()), measurement().is_active
    with st.container(horizontal=True):
        st.button(
            "Measure this machine now (quick)",
            key="measure",
            type="primary",
            icon=":material/speed:",
            disabled=is_scoring or is_measuring,
            on_click=_measure,
            help="Takes about a minute on two cores, which this server and the browser share: "
            "`shield bench` on a quiet machine is truer. Not while a dataset is being scored.",
        )
        with (
            st.popover("Load a benchmark", icon=":material/upload:"),
            st.form("load_benchmark", clear_on_submit=True, border=False),
        ):
            title = "Written by `shield bench --json FILE`"
            upload = st.file_uploader(title, "json", key="benchmark_file", max_upload_size=5)
            if st.form_submit_button("Store it") and upload is not None:
                with errors_shown("This file was not stored"):
                    document = read_document(upload.getvalue())
                    st.session_state["benchmark"] = save_benchmark(resources().store, document)
    if is_scoring:
        st.caption("A dataset is being scored, which would spoil the figures; measure after it.")
    watching = st.fragment(_watch, run_every=_POLL_S if is_measuring else None)
    watching(is_measuring)


def _watch(was_active: bool) -> None:
    """Show how far the measurement is; rerun the page when it ends."""
    now = measurement()
    if now.is_active:
        st.progress(min(1.0, now.share), text=f"Measuring: {now.title}, {now.share:.0%}")
    elif was_active:
        if now.benchmark_id is not None:
            st.session_state["measured"] = now.benchmark_id
        st.rerun()
    elif now.error is not None:
        kind = "" if isinstance(now.error, ShieldError) else f"{type(now.error).__name__}: "
        show_error(f"{kind}{now.error}", "The measurement ended early")


# --- one benchmark --------------------------------------------------------------------------


def choose_benchmark(documents: Mapping[str, Document]) -> str:
    """Let the user choose a stored benchmark; what was just measured is chosen."""
    fresh = st.session_state.pop("measured", None)
    if fresh in documents:
        st.session_state["benchmark"] = fresh
    titles = {name: document_title(document) for name, document in documents.items()}
    return pick("Benchmark", titles, key="benchmark")


def show_benchmark(document: Document) -> None:
    """Show one benchmark whole."""
    if document["quick"]:
        st.caption(
            "A quick benchmark: few repetitions, wide intervals, some p99 with an open upper end. "
            "`shield bench` measures in full."
        )
    _show_headlines(document)
    _show_charts(document)
    _show_cost(document)
    st.subheader("Are this project's own aims met?", anchor=False)
    show_table(
        ratios_frame(document),
        key="ratios",
        columns={
            "Outcome": "Met or missed only where the whole interval lies on one side of the aim."
        },
        height="content",
        alt="Ratios with aims",
    )
    with st.expander("All figures"):
        frame = figures_frame(document)
        show_table(frame, key="all_figures", alt="All figures")
        with st.container(horizontal=True):
            download("CSV", csv_bytes(frame), "benchmark.csv", key="benchmark_csv")
            written = partial(json.dumps, document, indent=1)
            download("JSON", written, "benchmark.json", key="benchmark.json")
            download(
                "Markdown",
                partial(benchmark_markdown, document),
                "benchmark.md",
                key="benchmark.md",
            )
    with st.expander("The machine"):
        show_table(machine_frame(document), key="machine")


def _show_headlines(document: Document) -> None:
    with st.container(horizontal=True):
        for name, (title, meaning) in _HEADLINES.items():
            figure = figure_named(document, name)
            if figure is not None:
                st.metric(
                    title,
                    f"{number(figure['value'])} {plain(figure.get('unit', ''))}",
                    delta=beside(figure["detail"]) or None,
                    delta_color="off",
                    delta_arrow="off",
                    help=f"{meaning} n = {figure['n']:,}.",
                    border=True,
                    height="stretch",
                )


def _show_charts(document: Document) -> None:
    latencies = distributions_frame(document)
    if len(latencies):
        charted(
            "What share of texts is done within a time?",
            distributions_chart(document),
            latencies,
            key="distributions",
            help="Each mode by whether the result cache answered: a miss is drawn full, a hit dotted.",
        )
    for group in chart_groups(document):
        charted(
            group.question,
            figures_chart(document, group),
            figures_frame(document, group.figures),
            key=group.key,
            help="Dots are measured, lines their 95% intervals. Bands are the reference system's "
            "targets, set for models of 184 M parameters: nobody measured them.",
        )


def _show_cost(document: Document) -> None:
    """Show what a million texts cost, from the CPU time they took."""
    if cost_frame(document, 1.0).empty:
        return
    st.subheader("What does a million texts cost?", anchor=False)
    price = st.number_input(
        "Price of one CPU for an hour",
        0.0,
        value=0.05,
        step=0.01,
        format="%.3f",
        key="cpu_hour_price",
        width=220,
        persist_state="session",
        help="In any currency. Times count CPU time, not waiting, on the machine measured here.",
    )
    show_table(
        cost_frame(document, price),
        key="cost",
        columns=_COST_COLUMNS,
        height="content",
        alt="CPU time and price of a million texts",
    )


# --- two benchmarks -------------------------------------------------------------------------


def show_comparison(documents: Mapping[str, Document], chosen: str) -> None:
    """Set the shown benchmark against an earlier one."""
    st.subheader("What changed since another benchmark?", anchor=False)
    others = {
        name: document_title(document) for name, document in documents.items() if name != chosen
    }
    if not others:
        st.caption("Measure again, or load a benchmark of another machine, to compare the two.")
        return
    before = pick("Before", others, key="benchmark_before")
    frame = comparison_frame(documents[before], documents[chosen])
    counts = frame["Verdict"].value_counts()
    st.markdown(
        f"Of {len(frame):,} figures that both have, {counts.get('better', 0):,} are better, "
        f"{counts.get('worse', 0):,} are worse, and {counts.get('not decisive', 0):,} have "
        "intervals that overlap. Another load on the machine moves all times at once: repeat "
        "before you blame a change."
    )
    figure = comparison_chart(frame)
    if figure is None:
        show_table(frame, key="comparison_table", alt="Two benchmarks")
    else:
        charted("Which figures changed most?", figure, frame, key="comparison")

"""Performance: what was measured on this machine or another, beside the reference's targets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import streamlit as st

from dashboard.performance import charts as bench_charts
from dashboard.performance.measurement import Measurement
from dashboard.state import drop_stale, keep, resources
from dashboard.text import plain
from dashboard.theme import PALETTE
from dashboard.widgets import (
    charted,
    csv_bytes,
    download,
    empty_state,
    errors_shown,
    page_title,
    show_error,
)
from shield_engine.benchmark import as_markdown, read_document, run_benchmark
from shield_engine.errors import ShieldError

POLL_S = 2.0  # each look costs the machine that is being measured

# Figures that open the page: title and hover text. No string may stand alone in a page: Streamlit
# would show it.
HEADLINES: Mapping[str, tuple[str, str]] = {
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


@st.cache_resource(show_spinner=False)
def measurement() -> Measurement:
    """Return the server's one measurement; all sessions share it."""
    return Measurement()


def measure() -> None:
    """Begin a quick benchmark in the background."""
    held = resources()

    def quick(note: Callable[[str, float], None]) -> dict[str, Any]:
        return run_benchmark(held.shield, quick=True, on_progress=note)

    measurement().start(quick, held.store.add_benchmark)


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
            on_click=measure,
            help="Takes about a minute on two cores, which this server and the browser share: "
            "`shield bench` on a quiet machine is truer. Not while a dataset is being scored.",
        )
        with (
            st.popover("Load a benchmark", icon=":material/upload:"),
            st.form("load_benchmark", clear_on_submit=True, border=False),
        ):
            upload = st.file_uploader(
                "Written by `shield bench --json FILE`", type="json", key="benchmark_file",
                max_upload_size=5,
            )  # fmt: skip
            if st.form_submit_button("Store it") and upload is not None:
                with errors_shown("This file was not stored"):
                    document = read_document(upload.getvalue())
                    st.session_state["benchmark"] = resources().store.add_benchmark(document)
    if is_scoring:
        st.caption("A dataset is being scored, which would spoil the figures; measure after it.")
    watching = st.fragment(watch, run_every=POLL_S if is_measuring else None)
    watching(is_measuring)


def watch(was_active: bool) -> None:
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


def show_benchmark(document: Mapping[str, Any]) -> None:
    """Show one benchmark whole."""
    if document["quick"]:
        st.caption(
            "A quick benchmark: few repetitions, wide intervals, some p99 with an open upper end. "
            "`shield bench` measures in full."
        )
    with st.container(horizontal=True):
        for name, (title, meaning) in HEADLINES.items():
            figure = bench_charts.figure_named(document, name)
            if figure is not None:
                st.metric(
                    title,
                    f"{bench_charts.number(figure['value'])} {plain(figure.get('unit', ''))}",
                    delta=bench_charts.beside(figure["detail"]) or None,
                    delta_color="off",
                    delta_arrow="off",
                    help=f"{meaning} n = {figure['n']:,}.",
                    border=True,
                    height="stretch",
                )
    if bench_charts.distributions(document):
        charted(
            "What share of texts is done within a time?",
            bench_charts.distributions_chart(document, PALETTE),
            bench_charts.distributions_frame(document),
            key="distributions",
            help="Each mode by whether the result cache answered: a miss is drawn full, a hit dotted.",
        )
    for group in bench_charts.chart_groups(document):
        charted(
            group.question,
            bench_charts.figures_chart(document, group, PALETTE),
            bench_charts.figures_frame(document, group.figures),
            key=group.key,
            help="Dots are measured, lines their 95% intervals. Bands are the reference system's "
            "targets, set for models of 184 M parameters: nobody measured them.",
        )
    show_cost(document)
    st.subheader("Are this project's own aims met?", anchor=False)
    st.dataframe(
        bench_charts.ratios_frame(document),
        hide_index=True,
        height="content",
        key="ratios",
        column_config={
            "Outcome": st.column_config.TextColumn(
                help="Met or missed only where the whole interval lies on one side of the aim."
            )
        },
        alt="Ratios with aims",
    )
    with st.expander("All figures"):
        frame = bench_charts.figures_frame(document)
        st.dataframe(frame, hide_index=True, key="all_figures", alt="All figures")
        with st.container(horizontal=True):
            download("CSV", csv_bytes(frame), "benchmark.csv", key="benchmark_csv")
            download_document(document)
    with st.expander("The machine"):
        st.dataframe(bench_charts.machine_frame(document), hide_index=True, key="machine")


def show_cost(document: Mapping[str, Any]) -> None:
    """Show what a million texts cost, from the CPU time they took."""
    if bench_charts.cost_frame(document, 1.0).empty:
        return
    st.subheader("What does a million texts cost?", anchor=False)
    keep("cpu_hour_price", 0.05)
    price = st.number_input(
        "Price of one CPU for an hour", min_value=0.0, step=0.01, format="%.3f",
        key="cpu_hour_price", width=220,
        help="In any currency. Times count CPU time, not waiting, on the machine measured here.",
    )  # fmt: skip
    st.dataframe(
        bench_charts.cost_frame(document, price), hide_index=True, key="cost", height="content",
        column_config={
            "CPU ms a text": st.column_config.NumberColumn(format="%.3f"),
            "CPU hours a million": st.column_config.NumberColumn(format="%.3g"),
            "Price of a million": st.column_config.NumberColumn(format="%.3g"),
            "Asks the model": st.column_config.NumberColumn(format="percent"),
        },
        alt="CPU time and price of a million texts",
    )  # fmt: skip


def download_document(document: Mapping[str, Any]) -> None:
    """Offer a benchmark as the command line writes it."""
    for title, file_name, written in (
        ("JSON", "benchmark.json", partial(json.dumps, document, indent=1)),
        ("Markdown", "benchmark.md", partial(as_markdown, document)),
    ):
        download(title, written, file_name, key=file_name)


def show_comparison(documents: Mapping[str, Mapping[str, Any]], chosen: str) -> None:
    """Set the shown benchmark against an earlier one."""
    others = [name for name in documents if name != chosen]
    if not others:
        st.caption("Measure again, or load a benchmark of another machine, to compare the two.")
        return
    drop_stale("benchmark_before", others)
    before = st.selectbox(
        "Before",
        others,
        key="benchmark_before",
        format_func=lambda name: bench_charts.document_title(documents[name]),
    )
    frame = bench_charts.comparison_frame(documents[before], documents[chosen])
    counts = frame["Verdict"].value_counts()
    st.markdown(
        f"Of {len(frame):,} figures that both have, {counts.get('better', 0):,} are better, "
        f"{counts.get('worse', 0):,} are worse, and {counts.get('not decisive', 0):,} have "
        "intervals that overlap. Another load on the machine moves all times at once: repeat "
        "before you blame a change."
    )
    figure = bench_charts.comparison_chart(frame, PALETTE)
    if figure is None:
        st.dataframe(frame, hide_index=True, key="comparison_table", alt="Two benchmarks")
    else:
        charted("Which figures changed most?", figure, frame, key="comparison")


page_title("Performance", "Load times, throughput and latency, measured and not promised.")
show_actions()
documents = {name: document for name, _, document in resources().store.benchmarks()}
if not documents:
    empty_state(
        "Nothing measured yet",
        "Measure this machine with the button above, or load a file that `shield bench --json "
        "FILE` wrote on another one.",
    )
    st.stop()
fresh = st.session_state.pop("measured", None)
if fresh in documents:
    st.session_state["benchmark"] = fresh
drop_stale("benchmark", documents)
chosen = st.selectbox(
    "Benchmark",
    list(documents),
    key="benchmark",
    format_func=lambda name: bench_charts.document_title(documents[name]),
)
with errors_shown("This benchmark cannot be shown"):
    show_benchmark(documents[chosen])
    st.subheader("What changed since another benchmark?", anchor=False)
    show_comparison(documents, chosen)

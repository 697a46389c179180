"""Playground: one text through every scanner in every mode, with reasons, spans and times."""

from __future__ import annotations

import streamlit as st

from dashboard.playground.tables import (
    EXAMPLES,
    MAX_CHARS,
    Scan,
    marked_html,
    reasons_frame,
    scan_everywhere,
    scans_frame,
    spans_frame,
    timings_frame,
)
from dashboard.state import keep, resources
from dashboard.text import MODE_TITLES, TASK_TITLES
from dashboard.widgets import empty_state, page_title, show_error
from shield_engine.metrics.table import percent
from shield_engine.types import Mode, ScanResult, Task, Variant

OWN_TEXT = "Your own text"


def take_example() -> None:
    """Put the chosen example into the text box."""
    chosen = st.session_state["playground_example"]
    if chosen in EXAMPLES:
        st.session_state["playground_text"] = EXAMPLES[chosen]


def ask_text() -> tuple[str, Variant, bool]:
    """Return the text, the models' variant, and whether to scan now."""
    keep("playground_text", "")
    st.selectbox(
        "Start from",
        [OWN_TEXT, *EXAMPLES],
        key="playground_example",
        on_change=take_example,
    )
    text = st.text_area(
        "Text",
        key="playground_text",
        height=140,
        max_chars=MAX_CHARS,
        placeholder="Paste a prompt, a document or an answer. It is scanned here and not stored.",
    )
    variants = sorted({entry.variant for entry in resources().shield.registry.entries})
    variant = Variant.INT8
    if len(variants) > 1:
        variant = (
            st.segmented_control(
                "Variant of the models", variants, default=Variant.INT8, key="playground_variant",
                required=True,
            )
            or Variant.INT8
        )  # fmt: skip
    is_wanted = st.button(
        "Scan",
        key="scan",
        type="primary",
        icon=":material/search:",
        disabled=not text,
        help="Scan twice to see what the result cache saves.",
    )
    return text or "", variant, is_wanted


def show_summary(scans: list[Scan]) -> None:
    """Show every scanner's verdict in each mode, and errors in full."""
    st.subheader("What does each scanner say?", anchor=False)
    st.dataframe(
        scans_frame(scans),
        hide_index=True,
        height="content",
        column_config={
            "Verdict": st.column_config.TextColumn(help="The class given at the threshold."),
            "Passes": st.column_config.TextColumn(
                help="Whether the text may pass: harmless, or for sentiment not negative."
            ),
            "Risk": st.column_config.ProgressColumn(
                min_value=0.0,
                max_value=1.0,
                format="%.3f",
                help="Score before any threshold, 0 to 1. A bundled model's score is the chance that "
                "the text is risky at the share of risky texts that Models states; a rule's score "
                "is its weight. Sentiment: the probability of negative.",
            ),
            "Threshold": st.column_config.TextColumn(
                help="The registry's balanced threshold. Sentiment takes the most probable class."
            ),
            "Method": st.column_config.TextColumn(
                help="heuristic_short_circuit: hybrid did not ask the model, since the rules were "
                "sure, or no rule matched and the linear tier found the text plain."
            ),
            "Cache": st.column_config.TextColumn(
                help="A hit repeats the stored scores of the same text; nothing is computed."
            ),
        },
        alt="Verdict, score and method of each scanner in each mode",
        key="scans",
    )
    for message in dict.fromkeys(scan.error for scan in scans if scan.error):
        show_error(message, "A scanner could not judge this text")


def show_result(result: ScanResult, task: Task) -> None:
    """Show one result: label probabilities, marked text, reasons and spans."""
    probabilities = result.metadata["probabilities"]
    with st.container(horizontal=True):
        for label, value in probabilities.items():
            st.metric(label, percent(value), border=True)
        if "linear_score" in result.metadata:
            st.metric(
                "Linear tier",
                f"{result.metadata['linear_score']:.3f}",
                border=True,
                help="Asked in hybrid where no rule matched. At or below the safe band (0.05) the "
                "text passes without the model.",
            )
        if "window" in result.metadata:
            start, end = result.metadata["window"]
            st.metric(
                "Deciding window",
                f"{start:,}-{end:,}",
                border=True,
                help="Characters of the window with the highest risk; long texts are cut into "
                "windows that overlap.",
            )
            st.metric(
                "Windows and tokens",
                f"{result.metadata['windows']:,} / {result.metadata['tokens']:,}",
                border=True,
                help="How many windows the text took, and how many tokens it has.",
            )
    st.markdown("**Where in the text?**")
    st.html(marked_html(result.text, result.entities))
    if result.entities:
        st.dataframe(spans_frame(result), hide_index=True, key="playground_spans", alt="Spans")
    else:
        st.caption("No rule matched, and the text fits one window: there is nothing to mark.")
    st.markdown("**Why?**")
    if result.risk_factors:
        st.dataframe(
            reasons_frame(result), hide_index=True, key="playground_reasons", alt="Reasons"
        )
    else:
        st.caption(f"No rule of {TASK_TITLES[task].lower()} matched.")


def show_scans(scans: list[Scan]) -> None:
    """Show the table of all scans, then one of them in depth."""
    show_summary(scans)
    st.subheader("What is behind one verdict?", anchor=False)
    with st.container(horizontal=True):
        task = st.segmented_control(
            "Scanner", list(Task), default=Task.PROMPT_INJECTION, required=True,
            format_func=lambda task: TASK_TITLES[Task(task)], key="playground_task",
        )  # fmt: skip
        mode = st.segmented_control(
            "Mode", list(Mode), default=Mode.BOTH, required=True,
            format_func=lambda mode: MODE_TITLES[Mode(mode)], key="playground_mode",
        )  # fmt: skip
    of_task = [scan for scan in scans if scan.task is Task(task or Task.PROMPT_INJECTION)]
    scan = next(scan for scan in of_task if scan.mode is Mode(mode or Mode.BOTH))
    if scan.result is None:
        show_error(scan.error, "This scanner could not judge the text")
    else:
        show_result(scan.result, scan.task)
    st.subheader("Where does the time go?", anchor=False)
    st.dataframe(
        timings_frame(of_task), hide_index=True, key="playground_timings", alt="Times by part"
    )
    st.caption(
        "One scan each, so these times vary; a first scan after loading is slower. The page "
        "Performance has percentiles. A cache hit runs no part."
    )


page_title("Playground", "One text through every scanner in every mode. Nothing is stored.")
text, variant, is_wanted = ask_text()
if is_wanted:
    with st.spinner("Scanning; models load the first time"):
        found = scan_everywhere(resources().shield, text, variant)
    st.session_state["playground_scans"] = (text, found)
scanned = st.session_state.get("playground_scans")
if scanned is None:
    empty_state(
        "Nothing scanned yet",
        "Paste a text above, or choose an example to start from, then press Scan.",
    )
else:
    if scanned[0] != text:
        st.info("The text has changed since this scan.", icon=":material/edit:")
    show_scans(scanned[1])

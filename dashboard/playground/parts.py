"""What Playground draws: the text, every scanner's verdict, one verdict in depth, and the times."""

from __future__ import annotations

import streamlit as st

from dashboard.playground.tables import (
    EXAMPLES,
    MAX_CHARS,
    Scan,
    marked_html,
    matches_frame,
    reasons_frame,
    scans_frame,
    timings_frame,
)
from dashboard.state import resources
from dashboard.text import TASK_TITLES, visible
from dashboard.widgets import column, guards_or_fault, pick, show_error, show_metrics, show_table
from shield_engine.guards import GuardEntry
from shield_engine.metrics.table import percent
from shield_engine.types import Mode, ScanResult, Task, Variant

__all__ = ["ask_text", "show_scans"]

_OWN_TEXT = "Your own text"

_SCAN_COLUMNS = {
    "Verdict": "The class given at the threshold.",
    "Passes": "Whether the text may pass: harmless, or for sentiment not negative.",
    "Risk": st.column_config.ProgressColumn(
        min_value=0.0,
        max_value=1.0,
        format="%.3f",
        help="Score before any threshold, 0 to 1. A bundled model's score is the chance that "
        "the text is risky at the share of risky texts that Guards states; a rule's score "
        "is its weight. Sentiment: the probability of negative.",
    ),
    "Mode": column(
        "How rules and bundled model decide together, or the name of a guard that was asked alone.",
        width=120,
    ),
    "Threshold": "The registry's balanced threshold; a guard's own. Sentiment takes the most probable class.",
    "Method": "heuristic_short_circuit: hybrid did not ask the model, since the rules were "
    "sure, or no rule matched and the linear tier found the text plain.",
    "Cache": "A hit repeats the stored scores of the same text; nothing is computed.",
}


def _take_example() -> None:
    """Put the chosen example into the text box."""
    chosen = st.session_state["playground_example"]
    if chosen in EXAMPLES:
        st.session_state["playground_text"] = EXAMPLES[chosen]


def ask_text() -> tuple[str, Variant, list[GuardEntry], bool]:
    """Return the text, the models' variant, the guards asked besides, and whether to scan now."""
    examples = [_OWN_TEXT, *EXAMPLES]
    st.selectbox("Start from", examples, key="playground_example", on_change=_take_example)
    text = st.text_area(
        "Text",
        key="playground_text",
        height=140,
        max_chars=MAX_CHARS,
        persist_state="session",
        placeholder="Paste a prompt, a document or an answer. It is scanned here and not stored.",
    )
    variants = sorted({entry.variant for entry in resources().shield.registry.entries})
    variant = Variant.INT8
    if len(variants) > 1:
        variant = st.segmented_control(
            "Variant of the models",
            variants,
            default=Variant.INT8,
            key="playground_variant",
            required=True,
        )
    guards = {guard.name: guard for guard in guards_or_fault().values()}
    asked = st.multiselect(
        "Guards asked besides",
        list(guards),
        key="playground_guards",
        persist_state="session",
        format_func=lambda name: f"{visible(guards[name].title)}: {TASK_TITLES[guards[name].task]}",
        placeholder="None, only the bundled rules and models",
        help="Each says of the text what it says alone, at its own threshold. An outside guard "
        "gets the text; one with a price is paid for it.",
    )
    is_wanted = st.button(
        "Scan",
        key="scan",
        type="primary",
        icon=":material/search:",
        disabled=not text,
        help="Scan twice to see what the result cache saves.",
    )
    return text, variant, [guards[name] for name in asked], is_wanted


def show_scans(scans: list[Scan]) -> None:
    """Show the table of all scans, then one of them in depth."""
    st.subheader("What does each scanner say?", anchor=False)
    show_table(
        scans_frame(scans),
        key="scans",
        columns=_SCAN_COLUMNS,
        height="content",
        alt="Verdict, score and method of each scanner in each mode",
    )
    for message in dict.fromkeys(scan.error for scan in scans if scan.error):
        show_error(message, "A scanner could not judge this text")
    st.subheader("What is behind one verdict?", anchor=False)
    with st.container(horizontal=True):
        task = st.segmented_control(
            "Scanner",
            list(Task),
            default=Task.PROMPT_INJECTION,
            required=True,
            format_func=lambda task: TASK_TITLES[Task(task)],
            key="playground_task",
        )
        of_task = {scan.way: scan for scan in scans if scan.task is Task(task)}
        way = pick(
            "Mode",
            {way: scan.title for way, scan in of_task.items()},
            default=Mode.BOTH.value,
            key="playground_mode",
            segmented=True,
        )
    scan = of_task[way]
    if scan.result is None:
        show_error(scan.error, "This scanner could not judge the text")
    else:
        _show_result(scan.result, scan.task)
    st.subheader("Where does the time go?", anchor=False)
    show_table(timings_frame(of_task.values()), key="playground_timings", alt="Times by part")
    st.caption(
        "One scan each, so these times vary; a first scan after loading is slower. The page "
        "Performance has percentiles. A cache hit runs no part."
    )


def _tiles(result: ScanResult) -> list[tuple[str, str, str | None]]:
    """Return title, value and meaning of a result's figures."""
    facts = result.metadata
    tiles: list[tuple[str, str, str | None]] = [
        (label, percent(value), None) for label, value in facts["probabilities"].items()
    ]
    if "linear_score" in facts:
        meaning = (
            "Asked in hybrid where no rule matched. At or below the safe band (0.05) the text "
            "passes without the model."
        )
        tiles.append(("Linear tier", f"{facts['linear_score']:.3f}", meaning))
    if "window" in facts:
        start, end = facts["window"]
        meaning = (
            "Characters of the window with the highest risk; long texts are cut into windows that "
            "overlap."
        )
        tiles.append(("Deciding window", f"{start:,}-{end:,}", meaning))
        meaning = "How many windows the text took, and how many tokens it has."
        counts = f"{facts['windows']:,} / {facts['tokens']:,}"
        tiles.append(("Windows and tokens", counts, meaning))
    return tiles


def _show_result(result: ScanResult, task: Task) -> None:
    """Show one result: label probabilities, marked text, reasons and spans."""
    show_metrics(*_tiles(result))
    st.markdown("**Where in the text?**")
    st.html(marked_html(result.text, result.entities))
    if result.entities:
        show_table(matches_frame(result), key="playground_spans", alt="Spans")
    else:
        st.caption("No rule matched, and the text fits one window: there is nothing to mark.")
    st.markdown("**Why?**")
    if result.risk_factors:
        show_table(reasons_frame(result), key="playground_reasons", alt="Reasons")
    else:
        st.caption(f"No rule of {TASK_TITLES[task].lower()} matched.")

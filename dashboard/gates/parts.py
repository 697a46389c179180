"""What Reports and gates draws: what is judged, the gate, its outcome, and the reports."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
import streamlit as st

from dashboard.gates.charts import distance_chart
from dashboard.gates.tables import OUTCOME_CHIPS, distances, outcome_frame, starter, units
from dashboard.options import Option, judge_options
from dashboard.state import RunKey, balanced, resources
from dashboard.text import TASK_TITLES, plain, visible
from dashboard.widgets import (
    charted,
    csv_bytes,
    download,
    pick,
    pick_run,
    show_error,
    show_table,
)
from shield_engine.decide.candidates import Candidate, baseline_of, candidate_of
from shield_engine.errors import ShieldError
from shield_engine.gates import BASELINE, Gate, GateOutcome, Outcome, judge, parse_gate
from shield_engine.policy import Policy
from shield_engine.reports import (
    Report,
    as_html,
    as_markdown,
    build_report,
    gate_junit,
    gate_markdown,
    scored_rows,
)
from shield_engine.store import RunInfo, RunStatus
from shield_engine.store.library import delete_gate, gates, policies, save_gate
from shield_engine.types import Mode, Task

__all__ = [
    "Judged",
    "choose_judged",
    "edit_gate",
    "offer_reports",
    "show_outcome",
    "warn_missing",
]

_NEW = "New gate"
_NO_BASELINE = "none"
_SAME_WAY = "as judged"
_MOST_GATE_BYTES = 200_000
_STARTERS = tuple(starter(task) for task in Task)

_COLUMN_HELP = {
    "At least": "The truth is at least this, at the requirement's confidence.",
    "At most": "The truth is at most this, at the requirement's confidence.",
    "Limit": "≥: At least must reach it. ≤: At most must stay within it.",
    "Rows": "Rows in the figure's denominator.",
}
_QUESTIONS = {
    "share": "How far is each share from its limit?",
    "number": "How far is each figure from its limit?",
    "ms": "How far is each latency from its limit?",
}


# --- what is judged -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """What is judged and reported.

    Attributes:
        policy: What decides; `None` if a mode does at its balanced threshold.
        baseline: What a requirement may compare with.
    """

    run: RunInfo
    candidate: Candidate
    policy: Policy | None
    baseline: Candidate | None


def _thresholds_of(run: RunInfo) -> dict[str, float]:
    return balanced(run)


def _ways(run: RunInfo) -> dict[str, Option]:
    """Return the modes and stored policies that a run can be judged by, by their titles."""
    ways = {}
    for option in judge_options(run, _thresholds_of(run), policies(resources().store)).values():
        words = ", balanced threshold" if option.policy is None else ""
        ways[f"{option.candidate.title}{words}"] = option
    return dict(sorted(ways.items(), key=lambda way: way[1].key != f"mode:{Mode.HYBRID}"))


def _candidate(run: RunInfo, way: Option) -> Candidate:
    mode = way.candidate.mode
    return candidate_of(run, _thresholds_of(run), mode=mode, policy=way.policy)


def choose_judged(runs: Mapping[str, RunInfo]) -> Judged:
    """Let the user choose run, mode or policy, and baseline."""
    ordered = sorted(runs.values(), key=lambda run: run.status != RunStatus.DONE)
    left, right = st.columns(2)
    with left:
        run = runs[pick_run("Run", ordered, key="gate_run", in_url="run")]
        ways = _ways(run)
        meaning = "A mode at the registry's balanced threshold, or a saved policy of this model."
        way = ways[pick("Judge by", list(ways), key="gate_way", help=meaning)]
    candidate = _candidate(run, way)
    with right:
        alike = [other for other in ordered if other.task is run.task]
        against = pick_run("Baseline", alike, key="gate_baseline", first=[_NO_BASELINE])
        baseline = None
        if against in runs:
            baseline = _choose_baseline(candidate, run, runs[against])
        else:
            st.caption("A baseline is the run that a requirement may compare with.")
    return Judged(run, candidate, way.policy, baseline)


def _choose_baseline(candidate: Candidate, run: RunInfo, other: RunInfo) -> Candidate:
    ways = _ways(other)
    meaning = (
        "As judged: the same mode and threshold, or the run's own threshold if another model "
        "scored it."
    )
    way = pick("Baseline decides by", [_SAME_WAY, *ways], key="gate_baseline_way", help=meaning)
    if way == _SAME_WAY:
        return baseline_of(candidate, run, other, _thresholds_of(other))
    return _candidate(other, ways[way])


def warn_missing(run: RunInfo) -> None:
    """Say how many rows have no score, if there are any."""
    if run.errors or run.rows_done < run.rows:
        missing = run.rows - run.rows_done + run.errors
        st.warning(
            f"{missing:,} of {run.rows:,} rows have no score. A gate does not pass without them, "
            "unless it allows a share with max_unscored.",
            icon=":material/error_outline:",
        )


# --- the gate -------------------------------------------------------------------------------


def _load_stored() -> None:
    """Put the chosen stored gate into the editor."""
    name = st.session_state["gate_stored"]
    for gate in gates(resources().store):  # another session may have deleted it
        if gate.name == name:
            st.session_state["gate_text"] = str(gate.document["toml"])


def _load_upload() -> None:
    """Put an uploaded gate into the editor."""
    upload = st.session_state["gate_upload"]
    if upload is not None:
        content = upload.getvalue()[:_MOST_GATE_BYTES]
        st.session_state["gate_text"] = content.decode("utf-8", "replace")


def edit_gate(task: Task) -> Gate | None:
    """Let the user choose, upload, write and keep a gate; return it if it is one."""
    stored = [gate.name for gate in gates(resources().store)]
    titles = {name: visible(name) for name in (_NEW, *stored)}
    left, right = st.columns([1, 2])
    with left:
        chosen = pick("Stored gate", titles, key="gate_stored", on_change=_load_stored)
        st.file_uploader(
            "Or a file", ["toml"], key="gate_upload", on_change=_load_upload, max_upload_size=1
        )
    with right:
        # Untouched, it follows the run's task.
        if st.session_state.get("gate_text", _STARTERS[0]) in _STARTERS:
            st.session_state["gate_text"] = starter(task)
        text = st.text_area(
            "Requirements (TOML)",
            key="gate_text",
            height=330,
            persist_state="session",
            help="Each [[require]] names a metric and one of at_least, at_most or "
            "no_worse_than. Format: docs/ci-gates.md",
        )
    try:
        gate = parse_gate(text)
    except ShieldError as error:
        show_error(error, "This is no gate yet")
        return None
    with left, st.container(horizontal=True):
        if st.button("Save", icon=":material/save:", key="gate_save"):
            save_gate(resources().store, gate.name, {"toml": text})
            st.toast(plain(f"Gate {gate.name} is saved."), icon=":material/save:")
            st.rerun()
        download("TOML", text, "gate.toml", key="gate_toml")
        if chosen in stored and st.button("Delete", icon=":material/delete:", key="gate_delete"):
            delete_gate(resources().store, chosen)
            st.rerun()
    return gate


@st.cache_data(max_entries=32, show_spinner="Judging the gate")
def _outcome_of(
    gate: Gate, candidate: Candidate, baseline: Candidate | None, state: tuple[Any, ...]
) -> GateOutcome:
    """Judge a gate; `state` (key of each run, saved policies) is part of the cache's key."""
    store = resources().store
    return judge(store, gate, candidate, thresholds_of=_thresholds_of, baseline=baseline)


def show_outcome(judged: Judged, gate: Gate, runs: Iterable[RunInfo]) -> GateOutcome | None:
    """Judge a gate and show what came of it; `None` if it cannot be judged."""
    st.subheader("Does it hold?", anchor=False)
    titles = (policy.title for policy in policies(resources().store))
    state = (*(RunKey.of(run) for run in runs), *titles)
    try:
        outcome = _outcome_of(gate, judged.candidate, judged.baseline, state)
    except ShieldError as error:
        asks = any(wish.no_worse_than == BASELINE for wish in gate.requirements)
        if asks and judged.baseline is None:
            st.info(
                "A requirement compares with the baseline: choose one above.",
                icon=":material/compare_arrows:",
            )
        else:
            task = TASK_TITLES[judged.run.task]
            show_error(error, f"This gate cannot be judged by a {task} run")
        return None
    _show_judgements(outcome)
    _offer_outcome(outcome)
    for unit in units(outcome):
        table = distances(outcome, unit)
        charted(
            _QUESTIONS[unit],
            distance_chart(table, unit),
            table,
            key=f"gate_distance_{unit}",
            help="Dots are the figures, lines reach to their one-sided bounds. A line wholly right "
            "of the limit passes, one wholly left of it fails.",
        )
    return outcome


def _show_judgements(outcome: GateOutcome) -> None:
    """Show what came of each requirement, and what would settle the open ones."""
    icon, color, _ = OUTCOME_CHIPS[outcome.outcome]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(outcome.outcome.value, icon=icon, color=color)  # type: ignore[arg-type]
        st.markdown(f"**{plain(outcome.sentence)}**")
    judged = f"Judged: {outcome.candidate}, run {outcome.run_id}."
    if outcome.baseline_run_id is not None:
        judged += f" Baseline: {outcome.baseline}, run {outcome.baseline_run_id}."
    st.caption(plain(judged))
    show_table(
        outcome_frame(outcome).drop(columns=["What would settle it", "Numbers", "Method"]),
        key="gate_outcome",
        columns=_COLUMN_HELP,
        alt="What came of each requirement, with its numbers",
    )
    is_open = [row for row in outcome.judgements if row.outcome is Outcome.INCONCLUSIVE]
    if is_open:
        st.markdown("**What would settle the open ones?**")
        for judgement in is_open:
            advice = judgement.advice or judgement.reason
            st.markdown(f"- {plain(judgement.requirement.title)}: {plain(advice)}")


def _offer_outcome(outcome: GateOutcome) -> None:
    """Offer the outcome to a build server."""
    with st.container(horizontal=True):
        download("JUnit XML", gate_junit(outcome), "gate.xml", key="get_gate.xml")
        download("Markdown", gate_markdown(outcome), "gate.md", key="get_gate.md")
        download("JSON", _json(outcome.as_dict()), "gate.json", key="get_gate.json")
        download("CSV", csv_bytes(outcome_frame(outcome)), "gate.csv", key="get_gate_csv")


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


# --- the report -----------------------------------------------------------------------------


def _parquet(report: Report) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(scored_rows(resources().store, report), buffer)
    return buffer.getvalue()


def offer_reports(judged: Judged, outcome: GateOutcome | None) -> None:
    """Offer the run as HTML, Markdown, JSON and Parquet; each is made when it is asked for."""
    st.subheader("Write a report", anchor=False)
    st.caption(
        "One file with figures, intervals, charts, comparison, gate, slices, worst errors and what "
        "is needed to repeat the run. The HTML file needs no network and runs no script."
    )
    redact = st.toggle(
        "Redact texts",
        key="report_redact",
        persist_state="session",
        help="Replaces each text by the start of its SHA-256 and its length. Ids, labels and slice "
        "values stay.",
    )
    run, store = judged.run, resources().store

    def made(write: Callable[[Report], str | bytes]) -> Callable[[], str | bytes]:
        return lambda: write(
            build_report(
                store,
                judged.candidate,
                _thresholds_of(run),
                policy=judged.policy,
                baseline=judged.baseline,
                gate=outcome,
                redact=redact,
            )
        )

    formats: tuple[tuple[str, str, Callable[[Report], str | bytes]], ...] = (
        ("HTML", "html", as_html),
        ("Markdown", "md", as_markdown),
        ("JSON", "json", lambda report: _json(report.as_dict())),
        ("Parquet", "parquet", _parquet),
    )
    with st.container(horizontal=True):
        for title, ending, write in formats:
            kind = "primary" if ending == "html" else "secondary"
            name = f"run-{run.run_id}.{ending}"
            download(title, made(write), name, key=f"report_{ending}", type=kind)

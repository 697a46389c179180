"""Reports and gates: state what must hold, judge a run by it, and write down what was found."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow.parquet as pq
import streamlit as st

from dashboard.gates import tables as gate_view
from dashboard.state import RunKey, balanced, drop_stale, keep, kept, resources
from dashboard.tables import run_title
from dashboard.text import MODE_TITLES, TASK_TITLES, plain, visible
from dashboard.widgets import charted, csv_bytes, download, empty_state, page_title, show_error
from shield_engine.decide.candidates import Candidate, of_policy
from shield_engine.decide.figures import available_modes
from shield_engine.errors import ConfigError, ShieldError
from shield_engine.gates import (
    BASELINE,
    Gate,
    GateOutcome,
    Outcome,
    baseline_of,
    candidate_of,
    judge,
    parse_gate,
)
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
from shield_engine.store import RunInfo, RunStatus, Store
from shield_engine.store.library import delete_gate, gates, policies, save_gate
from shield_engine.types import Mode, Task

NEW = "New gate"
NO_BASELINE = "none"
SAME_WAY = "as judged"
MOST_GATE_BYTES = 200_000
STARTERS = tuple(gate_view.starter(task) for task in Task)


def thresholds_of(run: RunInfo) -> dict[str, float]:
    """Return a run's balanced thresholds by mode."""
    return dict(balanced(run))


# --- what is judged ---------------------------------------------------------------------------


def choose_run(label: str, key: str, found: dict[str, RunInfo], options: list[str]) -> str:
    """Let the user choose a run; options may begin with a word that means none."""
    names = {info.dataset_id: info.title for info in resources().store.datasets()}
    drop_stale(key, options)
    keep(key, options[0])
    return str(
        st.selectbox(
            label,
            options,
            key=key,
            format_func=lambda one: run_title(found[one], names) if one in found else one,
        )
    )


def ways(run: RunInfo) -> dict[str, Mode | Policy]:
    """Return the modes and stored policies that a run can be judged by, by their titles."""
    possible = available_modes(run)
    first = [mode for mode in (Mode.HYBRID, *possible) if mode in possible]
    found: dict[str, Mode | Policy] = {
        f"{MODE_TITLES[mode]}, balanced threshold": mode for mode in dict.fromkeys(first)
    }
    for policy in policies(resources().store):
        try:
            of_policy(policy, run)
        except ConfigError:
            continue
        found[f"Policy {policy.title}"] = policy
    return found


def decided(run: RunInfo, way: Mode | Policy) -> Candidate:
    """Return a way of deciding over a run."""
    if isinstance(way, Policy):
        return candidate_of(run, thresholds_of(run), policy=way)
    return candidate_of(run, thresholds_of(run), mode=way)


def choose_subject(
    found: dict[str, RunInfo],
) -> tuple[RunInfo, Candidate, Policy | None, Candidate | None]:
    """Let the user choose run, mode or policy, and baseline."""
    done = sorted(found, key=lambda run_id: found[run_id].status != RunStatus.DONE)
    wanted = st.query_params.get("run")
    if wanted in found and st.session_state.get("gate_url") != wanted:
        st.session_state["gate_run"] = st.session_state["gate_url"] = wanted
    left, right = st.columns(2)
    with left:
        run = found[choose_run("Run", "gate_run", found, done)]
        st.query_params["run"] = st.session_state["gate_url"] = run.run_id
        options = ways(run)
        drop_stale("gate_way", options)
        keep("gate_way", next(iter(options)))
        named = st.selectbox(
            "Judge by", list(options), key="gate_way", format_func=plain_title,
            help="A mode at the registry's balanced threshold, or a saved policy of this model.",
        )  # fmt: skip
    way = options[named]
    candidate = decided(run, way)
    with right:
        alike = [run_id for run_id in done if found[run_id].task is run.task]
        wanted = choose_run("Baseline", "gate_baseline", found, [NO_BASELINE, *alike])
        against = None
        if wanted in found:
            other = found[wanted]
            others = ways(other)
            drop_stale("gate_baseline_way", [SAME_WAY, *others])
            keep("gate_baseline_way", SAME_WAY)
            said = st.selectbox(
                "Baseline decides by", [SAME_WAY, *others], key="gate_baseline_way",
                format_func=plain_title,
                help="As judged: the same mode and threshold, or the run's own threshold if another "
                "model scored it.",
            )  # fmt: skip
            against = (
                baseline_of(candidate, run, other, thresholds_of(other))
                if said == SAME_WAY
                else decided(other, others[said])
            )
        else:
            st.caption("A baseline is the run that a requirement may compare with.")
    return run, candidate, way if isinstance(way, Policy) else None, against


def plain_title(title: str) -> str:
    """Return a title that holds a user's words with its hidden characters written out."""
    return visible(title)


# --- the gate ---------------------------------------------------------------------------------


def load_stored() -> None:
    """Put the chosen stored gate into the editor."""
    name = st.session_state["gate_stored"]
    for gate in gates(resources().store):  # another session may have deleted it
        if gate.name == name:
            st.session_state["gate_text"] = str(gate.document["toml"])


def load_upload() -> None:
    """Put an uploaded gate into the editor."""
    upload = st.session_state["gate_upload"]
    if upload is not None:
        st.session_state["gate_text"] = upload.getvalue()[:MOST_GATE_BYTES].decode(
            "utf-8", "replace"
        )


def edit_gate(run: RunInfo) -> Gate | None:
    """Let the user choose, upload, write and keep a gate; return it if it is one."""
    held = resources()
    stored = [gate.name for gate in gates(held.store)]
    left, right = st.columns([1, 2])
    with left:
        drop_stale("gate_stored", [NEW, *stored])
        st.selectbox(
            "Stored gate", [NEW, *stored], key="gate_stored", on_change=load_stored,
            format_func=plain_title,
        )  # fmt: skip
        st.file_uploader(
            "Or a file", type=["toml"], key="gate_upload", on_change=load_upload, max_upload_size=1
        )
    with right:
        if (
            st.session_state.get("gate_text", kept("gate_text")) in STARTERS
        ):  # untouched: follow the run's task
            st.session_state["gate_text"] = gate_view.starter(run.task)
        keep("gate_text", gate_view.starter(run.task))
        text = str(
            st.text_area(
                "Requirements (TOML)", key="gate_text", height=330,
                help="Each [[require]] names a metric and one of at_least, at_most or "
                "no_worse_than. Format: docs/ci-gates.md",
            )
        )  # fmt: skip
    try:
        gate = parse_gate(text)
    except ShieldError as error:
        show_error(error, "This is no gate yet")
        return None
    with left, st.container(horizontal=True):
        if st.button("Save", icon=":material/save:", key="gate_save"):
            save_gate(held.store, gate.name, {"toml": text})
            st.toast(plain(f"Gate {gate.name} is saved."), icon=":material/save:")
            st.rerun()
        st.download_button(
            "TOML", text, "gate.toml", "application/toml", key="gate_toml",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip
        chosen = st.session_state["gate_stored"]
        if chosen in stored and st.button("Delete", icon=":material/delete:", key="gate_delete"):
            delete_gate(held.store, chosen)
            st.rerun()
    return gate


@st.cache_data(max_entries=32, show_spinner="Judging the gate")
def outcome_of(
    gate: Gate, candidate: Candidate, baseline: Candidate | None, state: tuple[Any, ...]
) -> GateOutcome:
    """Judge a gate; `state` (key of each run, saved policies) is part of the cache's key."""
    return judge(resources().store, gate, candidate, thresholds_of=thresholds_of, baseline=baseline)


def show_outcome(outcome: GateOutcome) -> None:
    """Show what came of each requirement, and offer it to a build server."""
    icon, color, _ = gate_view.OUTCOME_CHIPS[outcome.outcome]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(outcome.outcome.value, icon=icon, color=color)  # type: ignore[arg-type]
        st.markdown(f"**{plain(outcome.sentence)}**")
    judged = f"Judged: {outcome.candidate}, run {outcome.run_id}."
    if outcome.baseline_run_id is not None:
        judged += f" Baseline: {outcome.baseline}, run {outcome.baseline_run_id}."
    st.caption(plain(judged))
    frame = gate_view.outcome_frame(outcome)
    helps = {
        "At least": "The truth is at least this, at the requirement's confidence.",
        "At most": "The truth is at most this, at the requirement's confidence.",
        "Limit": "≥: At least must reach it. ≤: At most must stay within it.",
        "Rows": "Rows in the figure's denominator.",
    }
    st.dataframe(
        frame.drop(columns=["What would settle it", "Numbers", "Method"]),
        hide_index=True,
        key="gate_outcome",
        column_config={name: st.column_config.Column(help=text) for name, text in helps.items()},
        alt="What came of each requirement, with its numbers",
    )
    open_ones = [one for one in outcome.judgements if one.outcome is Outcome.INCONCLUSIVE]
    if open_ones:
        st.markdown("**What would settle the open ones?**")
        for one in open_ones:
            st.markdown(f"- {plain(one.requirement.title)}: {plain(one.advice or one.reason)}")
    with st.container(horizontal=True):
        for title, name, mime, text in (
            ("JUnit XML", "gate.xml", "application/xml", gate_junit(outcome)),
            ("Markdown", "gate.md", "text/markdown", gate_markdown(outcome)),
            ("JSON", "gate.json", "application/json", _json(outcome.as_dict())),
        ):
            st.download_button(
                title, text, name, mime, key=f"get_{name}", icon=":material/download:",
                on_click="ignore",
            )  # fmt: skip
        download("CSV", csv_bytes(frame), "gate.csv", key="get_gate_csv")
    questions = {
        "share": "How far is each share from its limit?",
        "number": "How far is each figure from its limit?",
        "ms": "How far is each latency from its limit?",
    }
    for unit in gate_view.units(outcome):
        table = gate_view.distances(outcome, unit)
        charted(
            questions[unit],
            gate_view.distance_chart(table, unit),
            table,
            key=f"gate_distance_{unit}",
            help="Dots are the figures, lines reach to their one-sided bounds. A line wholly right "
            "of the limit passes, one wholly left of it fails.",
        )


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


# --- the report -------------------------------------------------------------------------------


def _parquet(store: Store, report: Report) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(scored_rows(store, report), buffer)
    return buffer.getvalue()


def offer_reports(
    run: RunInfo,
    candidate: Candidate,
    policy: Policy | None,
    baseline: Candidate | None,
    outcome: GateOutcome | None,
) -> None:
    """Offer the run as HTML, Markdown, JSON and Parquet; each is made when it is asked for."""
    st.subheader("Write a report", anchor=False)
    st.caption(
        "One file with figures, intervals, charts, comparison, gate, slices, worst errors and what "
        "is needed to repeat the run. The HTML file needs no network and runs no script."
    )
    keep("report_redact", False)
    redact = st.toggle(
        "Redact texts", key="report_redact",
        help="Replaces each text by the start of its SHA-256 and its length. Ids, labels and slice "
        "values stay.",
    )  # fmt: skip
    store, thresholds = resources().store, thresholds_of(run)

    def made(write: Callable[[Report], str | bytes]) -> Callable[[], str | bytes]:
        return lambda: write(
            build_report(
                store, candidate, thresholds, policy=policy, baseline=baseline, gate=outcome,
                redact=redact,
            )
        )  # fmt: skip

    formats: tuple[tuple[str, str, str, Callable[[Report], str | bytes]], ...] = (
        ("HTML", "html", "text/html", as_html),
        ("Markdown", "md", "text/markdown", as_markdown),
        ("JSON", "json", "application/json", lambda report: _json(report.as_dict())),
        ("Parquet", "parquet", "application/vnd.apache.parquet", partial(_parquet, store)),
    )
    with st.container(horizontal=True):
        for title, ending, mime, write in formats:
            st.download_button(
                title, made(write), f"run-{run.run_id}.{ending}", mime, key=f"report_{ending}",
                icon=":material/download:", on_click="ignore",
                type="primary" if ending == "html" else "secondary",
            )  # fmt: skip


def show_page(found: dict[str, RunInfo]) -> None:
    """Show the choice, the gate, its outcome and the reports."""
    run, candidate, policy, baseline = choose_subject(found)
    if run.errors or run.rows_done < run.rows:
        missing = run.rows - run.rows_done + run.errors
        st.warning(
            f"{missing:,} of {run.rows:,} rows have no score. A gate does not pass without them, "
            "unless it allows a share with max_unscored.",
            icon=":material/error_outline:",
        )
    st.subheader("What must hold?", anchor=False)
    gate = edit_gate(run)
    outcome = None
    if gate is not None:
        st.subheader("Does it hold?", anchor=False)
        state = (
            *(RunKey.of(run) for run in found.values()),
            *(one.title for one in policies(resources().store)),
        )
        try:
            outcome = outcome_of(gate, candidate, baseline, state)
        except ShieldError as error:
            asks = any(one.no_worse_than == BASELINE for one in gate.requirements)
            if asks and baseline is None:
                st.info(
                    "A requirement compares with the baseline: choose one above.",
                    icon=":material/compare_arrows:",
                )
            else:
                show_error(error, f"This gate cannot be judged by a {TASK_TITLES[run.task]} run")
        else:
            show_outcome(outcome)
    offer_reports(run, candidate, policy, baseline, outcome)


page_title(
    "Reports and gates",
    "State what must hold, judge a run by it, and write down what was found. The command "
    "shield gate gives the same outcome.",
)
scored = {run.run_id: run for run in resources().store.runs() if run.rows_done}
if scored:
    show_page(scored)
else:
    empty_state(
        "Nothing to judge yet",
        "Run all modes on the bundled sample from the Overview, or score a dataset of your own.",
        "Go to Overview",
        "app_pages/overview.py",
    )

"""What Guards draws: everything that can score a text, and what can be done with one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

import streamlit as st

from dashboard.guards.tables import (
    Answer,
    Listed,
    answers_frame,
    guard_facts,
    guard_place,
    guards_frame,
    model_facts,
    probes_frame,
    scorer_title,
    variables,
)
from dashboard.state import latest_latency, model_place, resources, verify_model
from dashboard.text import megabytes, plain
from dashboard.widgets import (
    column,
    errors_shown,
    guards_or_fault,
    offer_removal,
    show_table,
)
from shield_engine.config import DEFAULT_THRESHOLD
from shield_engine.errors import ShieldError
from shield_engine.guards import GuardEntry, read_guards, remove_guard
from shield_engine.guards.probes import ATTACKS, CALLS, HARMLESS
from shield_engine.ml import ModelEntry
from shield_engine.ml.sources import parse_source
from shield_engine.ml.variants import build_fp32
from shield_engine.parts import MLPart
from shield_engine.types import Mode, Task

__all__ = ["listed_guards", "show_guard", "show_guards"]

_TRIED = "tried_guard"
_PROBED = "probed_guard"

_COLUMN_HELP = {
    "Kind": "model: an ONNX file of the registry. http and python: as declared in guards.toml.",
    "Threshold": column(
        "Its own: at or above it a text is flagged. Sentiment takes the most probable class.",
        "%.3g",
    ),
    "Price of 1,000": column("Money a thousand calls, as declared.", "%.4g"),
    "p50": "Half of the texts of its latest run took no longer; rows from the cache are left out.",
    "p95": "95% of the texts of its latest run took no longer.",
    "Languages": "Those it was made for, as declared.",
    "Longest text": "Characters it reads, as declared; a model reads a long text in windows.",
}


def listed_guards() -> dict[str, Listed]:
    """Return all models and guards by what their runs are called by."""
    server = resources()
    runs = server.store.runs.all()
    guards = guards_or_fault()
    declared: set[str] = set()
    if guards:
        declared = {entry.name for entry in read_guards(server.settings.guards_path)}
    listed = {}
    entries: list[ModelEntry | GuardEntry] = [*server.shield.registry.entries, *guards.values()]
    for entry in entries:
        title = scorer_title(entry)
        place = (
            guard_place(entry, declared) if isinstance(entry, GuardEntry) else model_place(entry)
        )
        listed[title] = Listed(entry, place, latest_latency(runs, title))
    return listed


def show_guards(listed: Mapping[str, Listed]) -> None:
    """List the models and guards with what is known of each."""
    show_table(
        guards_frame(listed.values()),
        key="guards",
        columns=_COLUMN_HELP,
        height="content",
        alt="Models and guards",
    )


def show_guard(item: Listed) -> None:
    """Show one model or guard with what can be done with it."""
    if isinstance(item.entry, ModelEntry):
        _show_model(item.entry, item.place)
    else:
        _show_declared(item.entry)


def _show_declared(entry: GuardEntry) -> None:
    path = resources().settings.guards_path
    with st.container(horizontal=True):
        is_tried = _try_button(entry.price_per_1000)
        is_probed = st.button(
            "Try it hard",
            key="probe_guard",
            icon=":material/labs:",
            help=f"A dozen probes with at most {CALLS} calls, which takes up to some minutes and "
            f"costs at most {CALLS * entry.price_per_1000 / 1_000:.4g}: order, batches, long "
            "texts, odd texts, errors, the range of its scores, latency.",
        )
        if entry.name in {declared.name for declared in read_guards(path)}:
            offer_removal(
                "Delete",
                "This takes its entry out of guards.toml. Its runs stay.",
                "Delete this guard",
                partial(remove_guard, path, entry.name),
                key="delete_guard",
                failure="The guard was not deleted",
            )
    if unset := [name for name in variables(entry) if name not in os.environ]:
        st.warning(
            f"{plain(', '.join(unset))}: not set in the environment of this server. Set it and "
            "start the dashboard again; until then the guard cannot be asked.",
            icon=":material/key_off:",
        )
    part = partial(resources().shield.guard_part, entry)
    _show_trial(scorer_title(entry), entry.task, entry.threshold, part, is_tried)
    _show_probes(entry, is_probed)
    show_table(
        guard_facts(entry, unset),
        key="guard_facts",
        height="content",
        alt=f"Facts of {scorer_title(entry)}",
    )


def _show_model(entry: ModelEntry, place: str) -> None:
    server = resources()
    loader = server.shield.loader
    in_memory = {(info.id, info.variant): info for info in loader.loaded()}
    loaded = in_memory.get((entry.id, entry.variant))
    with st.container(horizontal=True):
        if st.button(
            "Loaded" if loaded else "Load and measure",
            key="load_model",
            icon=":material/memory:",
            disabled=loaded is not None,
            type="primary",
        ):
            with errors_shown("The model could not be loaded"):
                _load(entry)
        is_tried = _try_button()
        is_checked = st.button("Verify checksums", key="verify", icon=":material/verified_user:")
        if st.button(
            "Unload all models",
            key="unload",
            icon=":material/eject:",
            disabled=not in_memory or bool(server.worker.active()),
            help="Frees their memory. The next scan loads what it needs again. Not while a run "
            "is active.",
        ):
            server.shield.close()
            st.rerun()
    is_built = any(parse_source(source).kind == "built" for source in entry.sources)
    if is_built and not loader.artifacts.is_present(entry):
        st.caption("This file is not shipped: it is the FP16 file with its weights written wide.")
        if st.button("Build it now", key="build", icon=":material/construction:"):
            with errors_shown("The file could not be built"):
                build_fp32(server.shield.registry, loader.artifacts, entry.id)
                st.rerun()
    if is_checked:
        with errors_shown("The files are not the registered ones"):
            path = verify_model(entry)
            st.success(
                plain(f"{path.name} and its tokenizer have the registered SHA-256."),
                icon=":material/verified_user:",
            )
    threshold = entry.thresholds.get(Mode.ML.value, DEFAULT_THRESHOLD)
    part = partial(server.shield.model_part, entry)
    _show_trial(scorer_title(entry), entry.task, threshold, part, is_tried)
    facts = model_facts(entry, place, loaded)
    show_table(facts, key="model_facts", height="content", alt=f"Facts of {entry.id}")


def _load(entry: ModelEntry) -> None:
    """Load a model, downloading it if it is not here, and show progress."""
    bar = st.progress(0.0, text="Loading")

    def note(done: int, total: int | None) -> None:
        share = min(1.0, done / total) if total else 0.0
        bar.progress(share, text=f"{megabytes(done)} fetched")

    resources().shield.loader.load(entry, note)
    st.rerun()


# --- asked live -----------------------------------------------------------------------------


def _try_button(price_per_1000: float = 0.0) -> bool:
    cost = f" Two calls cost {2 * price_per_1000 / 1_000:.4g}." if price_per_1000 else ""
    return st.button(
        "Check",
        key="try_guard",
        icon=":material/stethoscope:",
        help=f"Asks it about one harmless and one risky text, now.{cost}",
    )


def _show_trial(
    title: str, task: Task, threshold: float, part: Callable[[], MLPart], is_tried: bool
) -> None:
    """Show what a model or guard says of two texts, once it was asked."""
    if is_tried:
        st.session_state.pop(_TRIED, None)
        with errors_shown("It cannot be asked"), st.spinner("Asking"):
            st.session_state[_TRIED] = (title, _tried(task, part()))
    tried_title, answers = st.session_state.get(_TRIED, ("", ()))
    if tried_title != title:
        return
    harmless, risky = (answer.score for answer in answers)
    if harmless is None or risky is None:
        st.error("It gave no score; the table says why.", icon=":material/error:")
    elif risky.score > harmless.score:
        st.success("The risky text scores above the harmless one.", icon=":material/check_circle:")
    else:
        st.warning(
            "The risky text does not score above the harmless one: is the score the risk?",
            icon=":material/warning:",
        )
    show_table(
        answers_frame(answers, task, threshold),
        key="tried_texts",
        columns={"Score": column(None, "%.3f")},
        height="content",
        alt="What it says of two texts",
    )


def _show_probes(entry: GuardEntry, is_probed: bool) -> None:
    """Show how a guard fared in the probes, once it was put through them."""
    if is_probed:
        st.session_state.pop(_PROBED, None)
        with errors_shown("It cannot be asked"), st.spinner("Probing"):
            probes = resources().shield.check_guard(entry)
            st.session_state[_PROBED] = (entry.fingerprint, probes)
    fingerprint, probes = st.session_state.get(_PROBED, ("", ()))
    if fingerprint != entry.fingerprint:
        return
    failed = sum(probe.passed is False for probe in probes)
    if failed:
        st.warning(f"{failed} of {len(probes)} probes fail.", icon=":material/warning:")
    else:
        st.success("No probe fails.", icon=":material/check_circle:")
    show_table(
        probes_frame(probes), key="probes", height="content", alt="Probes with their evidence"
    )


def _tried(task: Task, part: MLPart) -> tuple[Answer, ...]:
    """Ask about both texts of a task."""
    answers = []
    for kind, text in (("harmless", HARMLESS[task][0]), ("risky", ATTACKS[task][0])):
        try:
            answers.append(Answer(kind, text, part.infer(text)))
        except ShieldError as error:
            answers.append(Answer(kind, text, error=str(error)))
    return tuple(answers)

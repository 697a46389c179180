"""What New run draws: the choice of everything that decides a run, its start, its estimate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import streamlit as st

from dashboard.state import WATCHED_RUN, latest_latency, resources
from dashboard.text import TASK_TITLES, duration, visible
from dashboard.widgets import errors_shown, guards_or_fault, pick, show_error, watch_run
from shield_engine.config import CacheConfig
from shield_engine.errors import ShieldError
from shield_engine.guards import GuardEntry, OnnxEntry
from shield_engine.ml import ModelEntry
from shield_engine.runs.estimate import Estimate, estimate
from shield_engine.runs.execution import RunSpec, reusable_run, start
from shield_engine.store import DatasetInfo, RunStatus
from shield_engine.types import Variant

__all__ = ["choose_dataset", "choose_spec", "offer_start", "show_estimate", "show_watched"]

_TRIAL_ROWS = 500
_TIMED = "timed_guard"

# What a run may score; from both parts every mode can be derived.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "Rules and model": ("heuristic", "ml"),
    "Rules only": ("heuristic",),
    "Model only": ("ml",),
}

_CACHE_PRESETS: Mapping[str, CacheConfig] = {
    "aggressive": CacheConfig.aggressive(),
    "production": CacheConfig.production(),
    "edge": CacheConfig.edge(),
    "minimal": CacheConfig.minimal(),
    "disabled": CacheConfig.disabled(),
}


def choose_dataset(datasets: Mapping[str, DatasetInfo]) -> DatasetInfo:
    """Offer the stored dataset versions that still have their texts."""
    titles = {
        name: f"{info.title}: {TASK_TITLES[info.task]}, {info.rows:,} rows"
        for name, info in datasets.items()
    }
    return datasets[pick("Dataset", titles, key="run_dataset")]


def choose_spec(dataset: DatasetInfo) -> RunSpec | None:
    """Ask for everything that decides a run; `None` while the choice cannot be run."""
    left, right = st.columns(2)
    with left:
        parts = _PARTS[
            st.segmented_control(
                "Score with",
                list(_PARTS),
                default=next(iter(_PARTS)),
                required=True,
                key="run_parts",
                help="Rules and model are stored apart, so one run of both answers for every "
                "mode: heuristic, ML, hybrid and both. An outside guard takes the model's place.",
            )
        ]
        scorer = _choose_scorer(dataset) if "ml" in parts else None
    with right:
        cache = pick(
            "Result cache",
            {name: _cache_title(name) for name in _CACHE_PRESETS},
            key="run_cache",
            help="Starts empty. A text that occurred before is answered from it, which is how a "
            "cache would behave on this traffic.",
        )
        workers = _choose_workers(scorer)
    if "ml" in parts and scorer is None:
        return None
    spec = RunSpec(parts=parts, cache=_CACHE_PRESETS[cache], workers=workers)
    if scorer is None:
        return spec
    if isinstance(scorer, GuardEntry):
        spec = replace(spec, model_id=scorer.name)
    else:
        spec = replace(spec, model_id=scorer.id, variant=scorer.variant)
    return replace(spec, reuse=_offer_reuse(dataset, spec))


def _choose_workers(scorer: ModelEntry | GuardEntry | None) -> int:
    """Ask for the threads; an outside guard waits rather than computes, so it may have more."""
    own, key = resources().settings.workers, "run_workers"
    most = 4 * (os.cpu_count() or 1)
    if isinstance(scorer, GuardEntry):
        own, key = max(own, scorer.concurrency), f"run_workers_{scorer.fingerprint}"
        most = max(most, scorer.concurrency)
    workers = st.number_input(
        "Workers",
        1,
        most,
        own,
        step=1,
        key=key,
        persist_state="session",
        help="Threads that score rows. More than the machine's cores gain nothing, except where a "
        "guard is asked that takes several calls at once.",
    )
    return int(workers)


def _choose_scorer(dataset: DatasetInfo) -> ModelEntry | GuardEntry | None:
    """Offer the registered models of a task, in the variants that are registered, and its guards."""
    registry = resources().shield.registry
    models = {f"{e.id} {e.variant.value}": e for e in registry.find(task=dataset.task)}
    guards = {
        guard.title: guard for guard in guards_or_fault().values() if guard.task is dataset.task
    }
    entries: dict[str, ModelEntry | GuardEntry] = {**models, **guards}
    if not entries:
        st.warning("No model or guard is there for this task; only rules can score it.")
        return None
    chosen = st.selectbox(
        "Model or guard", list(entries), key=f"model_{dataset.task.value}", format_func=visible
    )
    registered = {entry.variant for entry in models.values()}
    missing = [variant.value for variant in Variant if variant not in registered]
    if missing:
        st.caption(
            f"{', '.join(missing)}: not offered, as no registered model of this task has such a "
            "file. Add an entry to a registry of your own (`SHIELD_REGISTRY`, see "
            "docs/adding-a-model.md)."
        )
    return entries[chosen]


def _cache_title(name: str) -> str:
    """Return a cache preset's name with its size and life."""
    preset = _CACHE_PRESETS[name]
    if not preset.size:
        return f"{name}: every row is scored anew"
    return f"{name}: {preset.size:,} results for {duration(preset.ttl_s)}"


def _offer_reuse(dataset: DatasetInfo, spec: RunSpec) -> bool:
    """Ask, where an earlier run scored these rows with this model, whether to take its scores."""
    server = resources()
    earlier = reusable_run(server.store, server.shield, dataset.dataset_id, spec)
    if earlier is None:
        return False
    return st.checkbox(
        f"Reuse the scores of run {earlier.run_id} ({earlier.rows_done:,} rows)",
        key="run_reuse",
        help="Same rows, model and packages: the model would only repeat itself. Rules are scored "
        "anew. Reused scores have no latency in the new run.",
    )


def offer_start(dataset: DatasetInfo, spec: RunSpec | None) -> None:
    """Offer to score some rows first, or all."""
    with st.container(horizontal=True):
        is_trial = dataset.rows > _TRIAL_ROWS and st.button(
            f"Try on {_TRIAL_ROWS} rows first",
            key="try_first",
            disabled=spec is None,
            icon=":material/science:",
        )
        is_whole = st.button(
            f"Run all {dataset.rows:,} rows",
            type="primary",
            key="run_all",
            disabled=spec is None,
            icon=":material/play_arrow:",
        )
    if spec is not None and (is_trial or is_whole):
        _begin(dataset, replace(spec, limit=_TRIAL_ROWS) if is_trial else spec)


def _begin(dataset: DatasetInfo, spec: RunSpec) -> None:
    """Start a run and show it."""
    server = resources()
    with errors_shown("The run could not start"):
        run = start(server.store, server.shield, dataset.dataset_id, spec)
        server.worker.submit(run.run_id)
        st.session_state[WATCHED_RUN] = run.run_id
        st.rerun()


def show_watched() -> None:
    """Show the run started last, and where to go when it is done."""
    runs, run_id = resources().store.runs, st.session_state.get(WATCHED_RUN)
    run = next((run for run in runs.all() if run.run_id == run_id), None)
    if run is None:
        return
    with st.container(border=True):
        rows = resources().store.datasets.find(run.dataset_id).rows
        st.markdown(f"**Run {run.run_id}{' (trial)' if run.rows < rows else ''}**")
        watch_run(run.run_id, key="new_run")
        if run.status == RunStatus.DONE and st.button(
            "Compare modes", type="primary", key="to_compare", icon=":material/compare_arrows:"
        ):
            st.switch_page("app_pages/compare.py", query_params={"run": run.run_id})


@st.cache_data(max_entries=32, show_spinner="Timing a sample of rows")
def _estimated(dataset_id: str, spec: RunSpec, fingerprint: str | None) -> Estimate:
    """Return the estimate of a run, timed once for the same settings and guard."""
    server = resources()
    return estimate(server.store, server.shield, dataset_id, spec)


def show_estimate(dataset: DatasetInfo, spec: RunSpec | None) -> None:
    """Say how long a run would take, unless one is under way and would spoil the timing."""
    if spec is None or resources().worker.active():
        return
    try:
        guard = resources().shield.guard_of(spec.model_id)
        if guard is None or isinstance(guard, OnnxEntry):
            st.caption(_time_text(_estimated(dataset.dataset_id, spec, None)))
        else:
            _show_guard_estimate(dataset, spec, guard)
    except ShieldError as error:
        show_error(error, "This run cannot start")


def _time_text(guess: Estimate) -> str:
    return (
        f"About {duration(guess.seconds)} for all {guess.rows:,} rows "
        f"({guess.rows_per_s:,.0f} rows/s, timed on {guess.sampled} rows without a cache)."
    )


def _show_guard_estimate(dataset: DatasetInfo, spec: RunSpec, guard: GuardEntry) -> None:
    """State the calls and price of an outside guard; it is asked for its time only on request."""
    server = resources()
    bill = estimate(server.store, server.shield, dataset.dataset_id, spec, sample=0)
    cost = f"price {bill.price:,.4g}" if bill.price else "no price declared"
    st.caption(
        f"At most {bill.calls:,} calls for all {bill.rows:,} rows, {cost}; a text that comes again "
        f"is asked once. {_expected_time(guard, bill, spec)}"
    )
    asked = (dataset.dataset_id, spec, guard.fingerprint)
    if st.button(
        "Time it",
        key="time_guard",
        icon=":material/timer:",
        help="Asks the guard about a few rows now, which may cost as many calls.",
    ):
        st.session_state[_TIMED] = asked
    if st.session_state.get(_TIMED) == asked:
        st.caption(_time_text(_estimated(*asked)))


def _expected_time(guard: GuardEntry, bill: Estimate, spec: RunSpec) -> str:
    """Return how long the calls take at the latency of the guard's latest run, and at its limit."""
    timed = latest_latency(resources().store.runs.all(), guard.title)
    floor_s = bill.calls / guard.per_second if guard.per_second else 0.0
    if timed is None:
        limit = f"At least {duration(floor_s)} at its limit of calls. " if floor_s else ""
        return f"{limit}Its time is not known yet: it was never run here."
    at_once = min(guard.concurrency, spec.workers or 1)
    seconds = max(floor_s, bill.rows * timed[0] / 1_000 / at_once)
    return f"About {duration(seconds)}, at the latency of its latest run."

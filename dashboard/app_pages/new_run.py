"""New run: what to score a dataset with, how long it will take, and a trial on 500 rows first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import streamlit as st

from dashboard.models.tables import missing_variants
from dashboard.state import WATCHED_RUN, drop_stale, keep, resources
from dashboard.text import TASK_TITLES, duration
from dashboard.widgets import empty_state, errors_shown, page_title, show_error, watch_run
from shield_engine.config import CacheConfig
from shield_engine.errors import ShieldError
from shield_engine.ml import ModelEntry
from shield_engine.runs.execution import Estimate, RunSpec, estimate, reusable_run, start
from shield_engine.store import DatasetInfo, RunStatus

TRIAL_ROWS = 500

# What a run may score; from both parts every mode can be derived.
PARTS: Mapping[str, tuple[str, ...]] = {
    "Rules and model": ("heuristic", "ml"),
    "Rules only": ("heuristic",),
    "Model only": ("ml",),
}

CACHE_PRESETS: Mapping[str, CacheConfig] = {
    "aggressive": CacheConfig.aggressive(),
    "production": CacheConfig.production(),
    "edge": CacheConfig.edge(),
    "minimal": CacheConfig.minimal(),
    "disabled": CacheConfig.disabled(),
}


@st.cache_data(max_entries=32, show_spinner="Timing a sample of rows")
def estimated(dataset_id: str, spec: RunSpec) -> Estimate:
    """Return the estimate of a run, timed once for the same settings."""
    held = resources()
    return estimate(held.store, held.shield, dataset_id, spec)


def cache_title(name: str) -> str:
    """Return a cache preset's name with its size and life."""
    preset = CACHE_PRESETS[name]
    if not preset.size:
        return f"{name}: every row is scored anew"
    return f"{name}: {preset.size:,} results for {duration(preset.ttl_s)}"


def choose_dataset(datasets: Mapping[str, DatasetInfo]) -> DatasetInfo:
    """Offer the stored dataset versions that still have their texts."""
    drop_stale("run_dataset", datasets)
    keep("run_dataset", next(iter(datasets)))
    chosen = st.selectbox(
        "Dataset",
        list(datasets),
        key="run_dataset",
        format_func=lambda name: (
            f"{datasets[name].title}: {TASK_TITLES[datasets[name].task]}, "
            f"{datasets[name].rows:,} rows"
        ),
    )
    return datasets[chosen]


def choose_model(dataset: DatasetInfo) -> ModelEntry | None:
    """Offer the registered models of a task, in the variants that are registered."""
    registry = resources().shield.registry
    entries = {f"{e.id} {e.variant.value}": e for e in registry.find(task=dataset.task)}
    if not entries:
        st.warning("No model is registered for this task; only rules can score it.")
        return None
    chosen = st.selectbox("Model and variant", list(entries), key=f"model_{dataset.task.value}")
    missing = missing_variants(registry.entries, dataset.task)
    if missing:
        st.caption(
            f"{', '.join(missing)}: not offered, as no registered model of this task has such a "
            "file. Add an entry to a registry of your own (`SHIELD_REGISTRY`, see "
            "docs/adding-a-model.md)."
        )
    return entries[chosen]


def choose_spec(dataset: DatasetInfo) -> RunSpec | None:
    """Ask for everything that decides a run; `None` while the choice cannot be run."""
    left, right = st.columns(2)
    with left:
        parts = PARTS[
            st.segmented_control(
                "Score with",
                list(PARTS),
                default=next(iter(PARTS)),
                required=True,
                key="run_parts",
                help="Rules and model are stored apart, so one run of both answers for every "
                "mode: heuristic, ML, hybrid and both.",
            )
        ]
        entry = choose_model(dataset) if "ml" in parts else None
    with right:
        keep("run_cache", next(iter(CACHE_PRESETS)))
        cache = st.selectbox(
            "Result cache",
            list(CACHE_PRESETS),
            key="run_cache",
            format_func=cache_title,
            help="Starts empty. A text that occurred before is answered from it, which is how a "
            "cache would behave on this traffic.",
        )
        keep("run_workers", resources().settings.workers)
        workers = st.number_input(
            "Workers",
            min_value=1,
            max_value=4 * (os.cpu_count() or 1),
            step=1,
            key="run_workers",
            help="Threads that score rows. More than the machine's cores gain nothing.",
        )
    if "ml" in parts and entry is None:
        return None
    spec = RunSpec(parts=parts, cache=CACHE_PRESETS[cache], workers=int(workers))
    if entry is None:
        return spec
    spec = replace(spec, model_id=entry.id, variant=entry.variant)
    return replace(spec, reuse=offer_reuse(dataset, spec))


def offer_reuse(dataset: DatasetInfo, spec: RunSpec) -> bool:
    """Ask, where an earlier run scored these rows with this model, whether to take its scores."""
    held = resources()
    earlier = reusable_run(held.store, held.shield, dataset.dataset_id, spec)
    if earlier is None:
        return False
    return st.checkbox(
        f"Reuse the model's scores of run {earlier.run_id} ({earlier.rows_done:,} rows)",
        key="run_reuse",
        help="Same rows, model and packages: the model would only repeat itself. Rules are scored "
        "anew. Reused scores have no latency in the new run.",
    )


def begin(dataset: DatasetInfo, spec: RunSpec) -> None:
    """Start a run and show it."""
    held = resources()
    with errors_shown("The run could not start"):
        run = start(held.store, held.shield, dataset.dataset_id, spec)
        held.worker.submit(run.run_id)
        st.session_state[WATCHED_RUN] = run.run_id
        st.rerun()


def show_watched(run_id: str) -> None:
    """Show the run started last, and where to go when it is done."""
    store = resources().store
    if run_id not in {run.run_id for run in store.runs.all()}:
        return
    run = store.runs.find(run_id)
    with st.container(border=True):
        trial = " (trial)" if run.rows < store.datasets.find(run.dataset_id).rows else ""
        st.markdown(f"**Run {run_id}{trial}**")
        watch_run(run_id, key="new_run")
        if run.status == RunStatus.DONE and st.button(
            "Compare modes", type="primary", key="to_compare", icon=":material/compare_arrows:"
        ):
            st.switch_page("app_pages/compare.py", query_params={"run": run_id})


page_title("New run", "Score every row of a dataset once; compare modes and thresholds afterwards.")
datasets = {info.dataset_id: info for info in resources().store.datasets.all() if not info.purged}
if not datasets:
    empty_state(
        "There is no dataset to score yet",
        "Import a file of texts, with labels if you have them, or a bundled sample.",
        "Import a dataset",
        "app_pages/datasets.py",
    )
    st.stop()
dataset = choose_dataset(datasets)
spec = choose_spec(dataset)
with st.container(horizontal=True):
    if dataset.rows > TRIAL_ROWS and st.button(
        f"Try on {TRIAL_ROWS} rows first",
        key="try_first",
        disabled=spec is None,
        icon=":material/science:",
    ):
        begin(dataset, replace(spec or RunSpec(), limit=TRIAL_ROWS))
    if st.button(
        f"Run all {dataset.rows:,} rows",
        type="primary",
        key="run_all",
        disabled=spec is None,
        icon=":material/play_arrow:",
    ):
        begin(dataset, spec or RunSpec())
if WATCHED_RUN in st.session_state:
    show_watched(st.session_state[WATCHED_RUN])
if spec is not None and not resources().worker.active():
    try:
        guess = estimated(dataset.dataset_id, spec)
    except ShieldError as error:
        show_error(error, "This run cannot start")
    else:
        st.caption(
            f"About {duration(guess.seconds)} for all {guess.rows:,} rows "
            f"({guess.rows_per_s:,.0f} rows/s, timed on {guess.sampled} rows without a cache)."
        )

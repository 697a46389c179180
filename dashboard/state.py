"""What pages share: the opened store and engine, cached figures, and values that outlive a page.

Cached functions take values, never widgets or frames. Nothing here draws.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import streamlit as st

from dashboard.files import label_values
from shield_engine.datasets import Sniffed, sniff
from shield_engine.engine import Shield
from shield_engine.errors import ArtifactError, ShieldError, UnknownNameError
from shield_engine.evaluation.bundle import import_bundle, waiting_bundles
from shield_engine.evaluation.evaluate import ModeEvaluation, evaluate_run
from shield_engine.evaluation.jobs import JobWorker
from shield_engine.ml import ArtifactStore, ModelEntry
from shield_engine.ml.download import parse_source
from shield_engine.resources import bundled
from shield_engine.settings import Settings
from shield_engine.store import RunInfo, Scores, Store
from shield_engine.types import Mode, Task, Variant

__all__ = [
    "OVERVIEW_RUN",
    "WATCHED_RUN",
    "Resources",
    "balanced",
    "drop_stale",
    "evaluation",
    "import_bundles",
    "keep",
    "kept",
    "label_counts",
    "model_place",
    "resources",
    "sample_path",
    "samples",
    "scores",
    "sniffed",
    "upload_path",
    "verify_model",
]

T = TypeVar("T")

OVERVIEW_RUN = "overview_run"
"""Session key: the run that Overview's one button started."""
WATCHED_RUN = "watched_run"
"""Session key: the run that New run started and shows."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What one server process owns, shared by all sessions.

    Attributes:
        notices: What happened while opening that the user should know.
    """

    settings: Settings
    store: Store
    shield: Shield
    worker: JobWorker
    notices: tuple[str, ...] = ()


def _release(held: Resources) -> None:
    for job in held.worker.active():
        held.worker.cancel(job.run_id)
    held.worker.wait()
    held.shield.close()
    held.store.close()


@st.cache_resource(show_spinner="Opening the store", on_release=_release)
def resources() -> Resources:
    """Open the store and the engine once for this process.

    Raises:
        StoreBusyError: Another process holds the store.
        ShieldError: The store, the registry or a setting cannot be used.
    """
    settings = Settings.from_env()
    shield = Shield.create(settings)
    store = Store.open(settings.store_path)
    held = Resources(settings, store, shield, JobWorker(store, shield))
    notices = [store.notice] if store.notice else []
    return replace(held, notices=(*notices, *import_bundles(held)))


def import_bundles(held: Resources) -> list[str]:
    """Take waiting run bundles into the store; return one sentence about each."""
    said = []
    for bundle in waiting_bundles(held.settings.bundles):
        try:
            run = import_bundle(held.store, bundle)
        except ShieldError as error:
            said.append(f"A waiting run bundle was not imported: {error}")
        else:
            said.append(f"Run {run.run_id}, written while the store was busy, was imported.")
    return said


@st.cache_data(max_entries=64, show_spinner="Computing figures and intervals")
def evaluation(
    run_id: str, rows_done: int, thresholds: tuple[tuple[str, float], ...]
) -> dict[Mode, ModeEvaluation]:
    """Return every mode's figures of a run.

    Args:
        run_id: Which run.
        rows_done: Part of the cache's key: a run that grew has other figures.
        thresholds: (mode, threshold) pairs; .5 where a mode is not named.
    """
    return evaluate_run(resources().store, run_id, thresholds=dict(thresholds))


def balanced(run: RunInfo) -> tuple[tuple[str, float], ...]:
    """Return the registry's `balanced` threshold of each mode for a run, as `evaluation` takes it.

    A model that has left the registry, and a task without any, leave every mode at .5.
    """
    variant = Variant(run.variant) if run.variant else Variant.INT8
    try:
        found = resources().shield.thresholds(run.task, variant, run.model_id)
    except UnknownNameError:
        return ()
    return tuple(sorted(found.items()))


@st.cache_data(max_entries=8, show_spinner="Reading scores")
def scores(run_id: str, rows_done: int) -> Scores:
    """Return a run's stored scores; `rows_done` is part of the cache's key."""
    return resources().store.scores(run_id)


@st.cache_data(max_entries=16, show_spinner="Looking at the file")
def sniffed(path: Path, size_bytes: int, changed_ns: int) -> Sniffed:
    """Return what a file is; its size and time of change are part of the cache's key."""
    return sniff(path)


@st.cache_data(max_entries=16, show_spinner="Reading the labels")
def label_counts(path: Path, size_bytes: int, changed_ns: int, column: str) -> dict[str, int]:
    """Return the values of a label column with their rows; see `label_values`."""
    return label_values(path, column)


def _forget(path: Path) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)


@st.cache_resource(max_entries=4, scope="session", show_spinner=False, on_release=_forget)
def upload_path(file_id: str, name: str, _upload: BinaryIO) -> Path:
    """Write an upload to a private folder and return its path; it goes with the session."""
    folder = Path(tempfile.mkdtemp(prefix="shield-upload-"))
    path = folder / (Path(name.replace("\\", "/")).name or "upload")
    _upload.seek(0)
    with path.open("wb") as file:
        shutil.copyfileobj(_upload, file)
    return path


@st.cache_resource(show_spinner=False)
def _artifacts() -> ArtifactStore:
    settings = resources().settings
    return ArtifactStore(settings.models, offline=True)


def model_place(entry: ModelEntry) -> str:
    """Return where a model's verified file is: bundled, downloaded, local, or not here.

    Nothing is downloaded; a file is hashed once for each path, size and time of change.
    """
    artifacts = _artifacts()
    try:
        path = artifacts.fetch(entry).model
    except ArtifactError:
        is_remote = any(parse_source(source).kind == "url" for source in entry.sources)
        return "not downloaded yet" if is_remote else "missing or altered"
    if path.is_relative_to(artifacts.cache_dir):
        return "downloaded"
    kinds = [parse_source(source).kind for source in entry.sources]
    return "bundled" if kinds[0] == "bundled" else "on this machine"


def verify_model(entry: ModelEntry) -> Path:
    """Hash a model's files anew and return the model's path.

    Raises:
        ArtifactError: A file is missing, or is not the registered one.
    """
    return ArtifactStore(resources().settings.models, offline=True).fetch(entry).model


def sample_path(task: Task) -> Path:
    """Return the bundled labelled sample of a task.

    Raises:
        ArtifactError: The sample is missing from the installation.
    """
    return bundled("datasets", f"{task.value}_sample.jsonl")


def samples() -> dict[str, tuple[Path, Task]]:
    """Return the bundled datasets that are there, by title."""
    named = [(f"{task.value.replace('_', ' ').capitalize()} sample", task, None) for task in Task]
    found = {}
    for title, task, file in [
        *named,
        ("Chat log, unlabelled", Task.PROMPT_INJECTION, "chat_log_sample.jsonl"),
    ]:
        try:
            found[title] = (bundled("datasets", file) if file else sample_path(task), task)
        except ArtifactError:
            continue
    return found


def keep(key: str, default: T) -> T:
    """Give the widget of `key` a value that survives page changes, and return it.

    Streamlit drops a widget's value when its page is left. Call this right before the widget and
    give the widget no default of its own.
    """
    kept_key = f"kept:{key}"
    if key not in st.session_state:
        st.session_state[key] = st.session_state.get(kept_key, default)
    st.session_state[kept_key] = st.session_state[key]
    value: T = st.session_state[key]
    return value


def kept(key: str, default: Any = None) -> Any:
    """Return what `keep` last saw under `key`, on any page."""
    return st.session_state.get(f"kept:{key}", default)


def drop_stale(key: str, options: Container[Any]) -> None:
    """Forget a widget's value that is no longer among its options (a dataset was deleted)."""
    for name in (key, f"kept:{key}"):
        if name in st.session_state and st.session_state[name] not in options:
            del st.session_state[name]

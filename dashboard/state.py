"""What pages share: the opened store and engine, and cached figures.

Cached functions take values, never widgets or frames. Nothing here draws.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
import streamlit as st

from shield_engine.config import Bands
from shield_engine.datasets import SourceFile
from shield_engine.decide.candidates import Aligned, Candidate, RowOverlap, align, overlap
from shield_engine.decide.cascades import (
    Aim,
    CascadeChoice,
    StageSource,
    chain_of,
    choose_cascade,
)
from shield_engine.decide.column import Lab, lab_of
from shield_engine.decide.compare import Comparison, compare, compare_slices
from shield_engine.decide.figures import Evaluated, evaluate_run
from shield_engine.decide.slices import SliceTable, length_bands
from shield_engine.decide.splits import Optimism, SplitReport, choose_and_report, optimism
from shield_engine.decide.thresholds import ThresholdRule
from shield_engine.decide.views import mode_view, row_groups
from shield_engine.engine import Shield
from shield_engine.errors import ArtifactError, ConfigError, ShieldError, UnknownNameError
from shield_engine.ml import ArtifactStore, ModelEntry
from shield_engine.ml.sources import parse_source
from shield_engine.runs.bundle import import_bundle, waiting_bundles
from shield_engine.runs.worker import JobWorker
from shield_engine.settings import Settings, bundled
from shield_engine.store import RunInfo, Scores, Store
from shield_engine.types import Mode, Task, Variant

__all__ = [
    "OVERVIEW_RUN",
    "WATCHED_RUN",
    "Resources",
    "RunKey",
    "aligned",
    "balanced",
    "cascade_choice",
    "common_rows",
    "comparison_of",
    "import_bundles",
    "label_counts",
    "latest_latency",
    "mode_evaluation",
    "model_place",
    "optimism_of",
    "resources",
    "sample_path",
    "samples",
    "scores",
    "sliced",
    "source_file",
    "split_of",
    "threshold_lab",
    "upload_path",
    "verify_model",
]

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


def _release(opened: Resources) -> None:
    for job in opened.worker.active():
        opened.worker.cancel(job.run_id)
    opened.worker.wait()
    opened.shield.close()
    opened.store.close()


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
    opened = Resources(settings, store, shield, JobWorker(store, shield))
    notices = [store.notice] if store.notice else []
    return replace(opened, notices=(*notices, *import_bundles(opened)))


def import_bundles(opened: Resources) -> list[str]:
    """Take waiting run bundles into the store; return one sentence about each."""
    sentences = []
    for bundle in waiting_bundles(opened.settings.bundles):
        try:
            run = import_bundle(opened.store, bundle)
        except ShieldError as error:
            sentences.append(f"A waiting run bundle was not imported: {error}")
        else:
            sentences.append(f"Run {run.run_id}, written while the store was busy, was imported.")
    return sentences


def balanced(run: RunInfo) -> dict[str, float]:
    """Return the registry's `balanced` threshold of each mode for a run.

    A model that has left the registry, and a task without any, leave every mode at .5.
    """
    try:
        return resources().shield.run_thresholds(run)
    except (ConfigError, UnknownNameError):  # a fault in the guards' file is shown on Guards
        return {}


def operating_points(run: RunInfo) -> dict[str, float]:
    """Return the thresholds that came with a run's model, by policy; none if it brought none."""
    if run.model_id is None:
        return {}
    variant = Variant(run.variant) if run.variant else None
    try:
        entry = resources().shield.registry.get(run.model_id, variant)
    except UnknownNameError:
        return {}
    return dict(entry.operating_points) if entry.sha256 == run.model_sha256 else {}


@dataclass(frozen=True, slots=True)
class RunKey:
    """Which stored rows of a run a cached figure was computed from.

    A run that grew, whose errors were retried or that ended anew has another key.
    """

    run_id: str
    rows_done: int
    errors: int
    finished_at: datetime | None

    @classmethod
    def of(cls, run: RunInfo) -> RunKey:
        """Return the key of a run as it is stored now."""
        return cls(run.run_id, run.rows_done, run.errors, run.finished_at)


@st.cache_data(max_entries=256, show_spinner=False)
def _model_latency(key: RunKey) -> tuple[float, float] | None:
    return resources().store.runs.model_latency(key.run_id)


def latest_latency(runs: Iterable[RunInfo], scorer: str) -> tuple[float, float] | None:
    """Return p50 and p95, in milliseconds, of what scored beside the rules in its latest run.

    Args:
        runs: Newest first.
        scorer: What runs name it by (`RunInfo.scorer`); `None` comes back if no run timed it.
    """
    own = (run for run in runs if run.scorer == scorer and run.rows_done)
    return next(filter(None, (_model_latency(RunKey.of(run)) for run in own)), None)


@st.cache_resource(max_entries=8, show_spinner="Reading scores")
def scores(key: RunKey) -> Scores:
    """Return a run's stored scores, shared by all sessions: never change them."""
    return resources().store.runs.scores(key.run_id)


@st.cache_resource(max_entries=4, show_spinner="Reading scores")
def aligned(
    candidates: tuple[Candidate, ...], keys: tuple[RunKey, ...], intersect: bool
) -> Aligned:
    """Return candidates as views of the same rows; see `align`. Shared: never change it.

    Args:
        candidates: What is compared.
        keys: Each candidate's run, part of the cache's key.
        intersect: Keep the common rows where rows differ.
    """
    return align(resources().store, candidates, intersect=intersect)


@st.cache_data(max_entries=16, show_spinner="Computing differences and intervals")
def comparison_of(
    candidates: tuple[Candidate, ...],
    keys: tuple[RunKey, ...],
    intersect: bool,
    baseline: int,
) -> Comparison:
    """Return candidates compared with the one at `baseline`; see `aligned` and `compare`."""
    return compare(aligned(candidates, keys, intersect), baseline)


@st.cache_data(max_entries=32, show_spinner="Computing slices")
def sliced(
    candidates: tuple[Candidate, ...],
    keys: tuple[RunKey, ...],
    intersect: bool,
    winner: int,
    name: str | None,
) -> SliceTable:
    """Return candidates by slice column `name`, or by length band if it is `None`."""
    rows, store = aligned(candidates, keys, intersect), resources().store
    if name is None:
        beyond = store.runs.beyond_window(candidates[0].run_id)
        is_beyond = np.isin(rows.row_index, beyond)
        values, name = length_bands(rows.views[0].scores.chars, is_beyond), "length"
    else:
        values = store.datasets.slices(rows.dataset_id, name)[rows.row_index]
    return compare_slices(rows, name, values, winner)


@st.cache_resource(max_entries=4, show_spinner="Sorting scores")
def threshold_lab(key: RunKey, mode: Mode, bands: Bands) -> Lab:
    """Return a two-class mode of a run, ready for any threshold; shared: never change it."""
    store = resources().store
    stored = scores(key)
    view = mode_view(stored, mode, None, bands)
    groups = row_groups(store, store.runs.find(key.run_id).dataset_id, stored)
    return lab_of(view, store.runs.units(key.run_id), groups)


@st.cache_data(max_entries=64, show_spinner="Splitting rows")
def split_of(key: RunKey, mode: Mode, bands: Bands, rule: ThresholdRule, seed: int) -> SplitReport:
    """Return a rule chosen on half of a run's rows and reported on the other half."""
    lab = threshold_lab(key, mode, bands)
    return choose_and_report(lab.labels, lab.risk, lab.units, rule, groups=lab.groups, seed=seed)


@st.cache_data(max_entries=64, show_spinner="Resampling the choice")
def optimism_of(key: RunKey, mode: Mode, bands: Bands, rule: ThresholdRule) -> Optimism:
    """Return how much a rule flatters on a run's rows."""
    return optimism(threshold_lab(key, mode, bands).column, rule)


@st.cache_data(max_entries=16, show_spinner="Trying bands")
def cascade_choice(
    sources: tuple[StageSource, ...], keys: tuple[RunKey, ...], aim: Aim
) -> CascadeChoice:
    """Return the cascade of stored stages that is chosen for an aim; see `choose_cascade`.

    Args:
        sources: The stages in order.
        keys: Each stage's run, part of the cache's key.
        aim: What it is chosen for.
    """
    return choose_cascade(chain_of(resources().store, sources), aim)


@st.cache_data(max_entries=64, show_spinner="Computing figures and intervals")
def mode_evaluation(key: RunKey, mode: Mode, threshold: float, bands: Bands) -> Evaluated:
    """Return one mode's figures of a run, as `shield eval --policy` prints them."""
    thresholds = {mode.value: threshold}
    return evaluate_run(
        resources().store, key.run_id, modes=[mode], thresholds=thresholds, bands=bands
    )[mode]


@st.cache_data(max_entries=16, show_spinner="Counting common rows")
def common_rows(keys: tuple[RunKey, ...]) -> RowOverlap:
    """Return how the rows of some runs meet."""
    return overlap(resources().store, [key.run_id for key in keys])


@st.cache_resource(max_entries=2, show_spinner="Looking at the file")
def source_file(path: Path, size_bytes: int, changed_ns: int) -> SourceFile:
    """Return a file that was looked at; its size and time of change are part of the cache's key.

    It may hold a whole JSON document, so few are kept.
    """
    return SourceFile.open(path)


@st.cache_data(max_entries=16, show_spinner="Reading the labels")
def label_counts(path: Path, size_bytes: int, changed_ns: int, column: str) -> dict[str, int]:
    """Return the values of a label column with their rows; see `SourceFile.label_values`."""
    return source_file(path, size_bytes, changed_ns).label_values(column)


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
        kinds = [parse_source(source).kind for source in entry.sources]
        if "built" in kinds:
            return "not built yet"
        return "not downloaded yet" if "url" in kinds else "missing or altered"
    kinds = [parse_source(source).kind for source in entry.sources]
    if path.is_relative_to(artifacts.cache_dir):
        return "built here" if "built" in kinds else "downloaded"
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
    files = {
        f"{task.value.replace('_', ' ').capitalize()} sample": (f"{task.value}_sample.jsonl", task)
        for task in Task
    }
    files["Chat log, unlabelled"] = ("chat_log_sample.jsonl", Task.PROMPT_INJECTION)
    present = {}
    for title, (name, task) in files.items():
        with suppress(ArtifactError):
            present[title] = (bundled("datasets", name), task)
    return present

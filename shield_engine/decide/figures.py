"""Stored scores of a run to the figures of every mode: one function for page, command and report.

Modes are derived from the parts' scores, so they are always compared on the same rows. Hides how a
sentiment set with two labels becomes a binary one, and which latency belongs to which mode.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.config import DEFAULT_THRESHOLD, Bands
from shield_engine.decision import decided
from shield_engine.errors import ConfigError
from shield_engine.guards.peers import Peer
from shield_engine.metrics.figures import (
    LatencySummary,
    binary_metrics,
    latency_summary,
    multiclass_metrics,
    two_class_view,
)
from shield_engine.statistics import Figure
from shield_engine.store import RunInfo, Scores, Store
from shield_engine.types import LABELS, Mode, Task

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = [
    "ModeEvaluation",
    "ModeView",
    "available_modes",
    "evaluate_peer",
    "evaluate_run",
    "mode_view",
    "row_groups",
    "scores_table",
]

logger = logging.getLogger(__name__)

SENTIMENT_POSITIVE = "negative"


@dataclass(frozen=True)
class ModeView:
    """The rows of a run as one mode sees them, ready for metrics.

    Attributes:
        mode: Which mode.
        threshold: Turns `risk` into a verdict; `None` where the verdict is the argmax of three.
        probabilities: Shape (n, labels); NaN rows are errors of this mode.
        asked: True where the mode needed the model.
        labels: Index into `label_names`, -1 without a label.
        label_names: The task's labels, or the two that occur in a sentiment set.
        risk: Probability of the positive label, shape (n,); `None` for three classes.
    """

    task: Task
    mode: Mode
    threshold: float | None
    probabilities: NDArray[np.float64]
    asked: NDArray[np.bool_]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]
    risk: NDArray[np.float64] | None

    @cached_property
    def is_scored(self) -> NDArray[np.bool_]:
        """True where this mode has a score."""
        scored: NDArray[np.bool_] = ~np.isnan(self.probabilities[:, 0])
        return scored

    @cached_property
    def counts(self) -> NDArray[np.bool_]:
        """True where this mode has a score and the row a label."""
        return self.is_scored & (self.labels >= 0)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The verdict of each row as an index into `label_names`, -1 where there is no score."""
        if self.risk is not None and self.threshold is not None:
            with np.errstate(invalid="ignore"):
                verdict = (self.risk >= self.threshold).astype(np.int64)
        else:
            verdict = np.nan_to_num(self.probabilities).argmax(axis=1)
        verdict[~self.is_scored] = -1
        return verdict


@dataclass(frozen=True, slots=True)
class ModeEvaluation:
    """Everything that one mode's scores say of a labelled or unlabelled set."""

    mode: Mode
    n: int
    errors: int
    threshold: float | None
    variant: str | None
    model_sha256: str | None
    positive_label: str | None
    labels: tuple[str, ...]
    metrics: Mapping[str, Figure]
    latency: LatencySummary
    latency_hit: LatencySummary
    hits: int
    misses: int
    flagged: int
    asked: int
    slices: Mapping[str, Mapping[str, Mapping[str, Figure]]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the mode as the evaluation output writes it."""
        derived = {"derived": True} if self.mode in {Mode.HYBRID, Mode.BOTH} else {}
        lookups = self.hits + self.misses
        document: dict[str, Any] = {
            "n": self.n,
            "errors": self.errors,
            "fallbacks": 0,  # an evaluation never falls back: an ML error is a row error
            "threshold": self.threshold,
            "variant": self.variant,
            "model_sha256": self.model_sha256,
            "positive_label": self.positive_label,
            "labels": list(self.labels),
            "metrics": {name: figure.as_dict() for name, figure in self.metrics.items()},
            "latency_ms": self.latency.as_dict() | derived,
            "latency_hit_ms": self.latency_hit.as_dict() | derived,
            "cache": {
                "hits": self.hits,
                "misses": self.misses,
                "hit_rate": self.hits / lookups if lookups else None,
            },
            "flag_rate": self.flagged / self.n if self.n else None,
            "model_asked": self.asked,
        }
        if self.slices is not None:
            document["slices"] = {
                name: {
                    value: {metric: figure.as_dict() for metric, figure in figures.items()}
                    for value, figures in values.items()
                }
                for name, values in self.slices.items()
            }
        return document


def available_modes(run: RunInfo) -> tuple[Mode, ...]:
    """Return the modes that can be derived from what the run stored."""
    if set(run.parts) == {"heuristic"}:
        return (Mode.HEURISTIC,)
    if set(run.parts) == {"ml"}:
        return (Mode.ML,)
    return tuple(Mode)


def mode_view(
    scores: Scores, mode: Mode, threshold: float | None = None, bands: Bands | None = None
) -> ModeView:
    """Return a run's scores as `mode` sees them.

    Args:
        scores: What the run stored.
        mode: The mode to derive.
        threshold: Turns risk into a verdict, .5 if `None`; without meaning for three classes.
        bands: Hybrid bands.
    """
    probabilities, asked = decided(
        scores.task, mode, scores.heuristic, scores.model, bands or Bands(), scores.linear
    )
    names = LABELS[scores.task]
    threshold = DEFAULT_THRESHOLD if threshold is None else threshold
    if scores.task is not Task.SENTIMENT:
        return ModeView(
            scores.task, mode, threshold, probabilities, asked, scores.labels, names,
            probabilities[:, 1],
        )  # fmt: skip
    labelled = scores.labels >= 0
    if len(np.unique(scores.labels[labelled])) != 2:
        return ModeView(scores.task, mode, None, probabilities, asked, scores.labels, names, None)
    # Unlabelled and failed rows are carried along: give them a stand-in for the conversion only.
    stand_in = int(scores.labels[labelled][0])
    view = two_class_view(
        np.where(labelled, scores.labels, stand_in),
        np.nan_to_num(probabilities, nan=1.0),
        names,
        positive=SENTIMENT_POSITIVE,
    )
    risk = np.where(np.isnan(probabilities[:, 0]), np.nan, view.scores)
    return ModeView(
        task=scores.task,
        mode=mode,
        threshold=threshold,
        probabilities=np.column_stack([1 - risk, risk]),
        asked=asked,
        labels=np.where(labelled, view.labels, -1),
        label_names=view.label_names,
        risk=risk,
    )


def evaluate_run(
    store: Store,
    run_id: str,
    *,
    modes: Sequence[Mode] | None = None,
    thresholds: Mapping[str, float] | None = None,
    bands: Bands | None = None,
    slice_names: Sequence[str] = (),
    seed: int = 7,
) -> dict[Mode, ModeEvaluation]:
    """Return every figure of every mode of a run.

    Args:
        store: Where the run lies.
        run_id: Which run.
        modes: All that the run's parts allow, if `None`.
        thresholds: By mode; .5 where a mode is not named.
        bands: Hybrid bands.
        slice_names: Slice columns to give the metrics by value of.
        seed: Of the bootstrap.

    Raises:
        ConfigError: A mode needs a part that the run did not score.
    """
    run = store.runs.find(run_id)
    possible = available_modes(run)
    modes = possible if modes is None else modes
    missing = [mode.value for mode in modes if mode not in possible]
    if missing:
        raise ConfigError(
            f"run {run_id} scored only {', '.join(run.parts)}; "
            f"it cannot answer for {', '.join(missing)}"
        )
    scores = store.runs.scores(run_id)
    groups = row_groups(store, run.dataset_id, scores)
    slices = {
        name: store.datasets.slices(run.dataset_id, name)[scores.row_index] for name in slice_names
    }
    return {
        mode: _evaluate_mode(
            run,
            scores,
            mode_view(scores, mode, (thresholds or {}).get(mode.value), bands),
            groups,
            slices,
            seed,
        )
        for mode in modes
    }


def evaluate_peer(
    store: Store,
    run_id: str,
    peer: Peer,
    *,
    workers: int = 1,
    slice_names: Sequence[str] = (),
    seed: int = 7,
) -> ModeEvaluation:
    """Return a peer's figures on the rows that a run scored; its scores are not stored.

    A text on which the peer fails is an error of that row. `variant` is the peer's version, and
    `asked` counts nothing. Each text is scored, repeated ones too: the peer has no cache of ours.

    Args:
        store: Where the run lies.
        run_id: Whose rows.
        peer: Of the run's task.
        workers: Threads that score, as in a run.
        slice_names: Slice columns to give the metrics by value of.
        seed: Of the bootstrap.

    Raises:
        ConfigError: The peer is for another task.
        StoreError: The texts were purged.
    """
    run = store.runs.find(run_id)
    scores = store.runs.scores(run_id)
    if peer.task is not scores.task:
        raise ConfigError(f"{peer.name} is for {peer.task.value}, the run for {scores.task.value}")
    width = len(LABELS[peer.task])

    def judge(text: str) -> tuple[tuple[float, ...], float]:
        started = time.perf_counter()
        try:
            found = peer.score(text)
        except Exception as error:  # noqa: BLE001 - somebody else's code; the row is an error
            logger.warning("%s failed on a row: %s", peer.name, type(error).__name__)
            return (np.nan,) * width, np.nan
        return found, (time.perf_counter() - started) * 1000

    last = int(scores.row_index[-1]) + 1 if len(scores) else 0
    texts = {index: text for index, text, _ in store.datasets.texts(run.dataset_id, 0, last)}
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(judge, (texts[int(index)] for index in scores.row_index)))
    model = np.array([one for one, _ in found], dtype=float).reshape(len(found), width)
    theirs = replace(
        scores,
        heuristic=None,
        model=model,
        linear=None,
        model_ms=np.array([ms for _, ms in found], dtype=float),
        is_hit=np.zeros(len(found), dtype=bool),
        hit_ms=np.full(len(found), np.nan),
        has_error=np.isnan(model).any(axis=1),
    )
    groups = row_groups(store, run.dataset_id, scores)
    slices = {
        name: store.datasets.slices(run.dataset_id, name)[scores.row_index] for name in slice_names
    }
    view = mode_view(theirs, Mode.ML, peer.threshold)
    result = _evaluate_mode(run, theirs, view, groups, slices, seed)
    return replace(result, variant=peer.version, model_sha256=None, asked=0)


def row_groups(store: Store, dataset_id: str, scores: Scores) -> NDArray[np.object_] | None:
    """Return the group of each scored row, a row without one being a group of its own."""
    groups = store.datasets.groups(dataset_id)
    if groups is None:
        return None
    return np.array(
        [
            f"row {index}" if groups[index] is None else f"group {groups[index]}"
            for index in scores.row_index
        ],
        dtype=object,
    )


def scores_table(store: Store, run_id: str, bands: Bands | None = None) -> pa.Table:
    """Return row id, label, length and every part's and mode's score of a run, in row order.

    Two classes give one column a part (`heuristic_score`), sentiment one for each label
    (`heuristic_negative`); an absent label or score is null.
    """
    import pyarrow as pa

    run = store.runs.find(run_id)
    scores = store.runs.scores(run_id)
    names = LABELS[run.task]
    columns: dict[str, Any] = {
        "row_index": scores.row_index,
        "row_id": pa.array(scores.row_id, pa.string()),
        "label": pa.array(
            [None if label < 0 else names[label] for label in scores.labels], pa.string()
        ),
        "label_index": pa.array(scores.labels, mask=scores.labels < 0),
        "chars": scores.chars,
    }
    for mode in available_modes(run):
        probabilities, _ = decided(
            run.task, mode, scores.heuristic, scores.model, bands or Bands(), scores.linear
        )
        for position, name in enumerate(names):
            if run.task is Task.SENTIMENT:
                column = f"{mode.value}_{name}"
            elif position == 1:
                column = f"{mode.value}_score"
            else:
                continue
            values = probabilities[:, position]
            columns[column] = pa.array(values, mask=np.isnan(values))
    if scores.linear is not None and run.task is not Task.SENTIMENT and len(run.parts) == 2:
        columns["linear_score"] = pa.array(scores.linear, mask=np.isnan(scores.linear))
    columns |= {name: pa.array(ms, mask=np.isnan(ms)) for name, ms in scores.parts_ms.items()}
    columns["is_cache_hit"] = scores.is_hit
    columns["has_error"] = scores.has_error
    return pa.table(columns)


def _evaluate_mode(
    run: RunInfo,
    scores: Scores,
    view: ModeView,
    groups: NDArray[np.object_] | None,
    slices: Mapping[str, NDArray[np.object_]],
    seed: int,
) -> ModeEvaluation:
    by_slice: dict[str, dict[str, dict[str, Figure]]] | None = None
    if slices:
        by_slice = {
            name: {
                str(value): _figures(view, scores, groups, values == value, seed)
                for value in sorted(set(values))
            }
            for name, values in slices.items()
        }
    uses_model = view.mode is not Mode.HEURISTIC
    is_miss = view.is_scored & ~scores.is_hit
    latency = mode_latency(scores, view)
    is_hit = view.is_scored & scores.is_hit
    if view.risk is None:
        flagged = view.predicted == LABELS[view.task].index(SENTIMENT_POSITIVE)
    else:
        flagged = view.predicted == 1
    return ModeEvaluation(
        mode=view.mode,
        n=int(view.is_scored.sum()),
        errors=int((~view.is_scored).sum()),
        threshold=view.threshold,
        variant=run.variant if uses_model else None,
        model_sha256=run.model_sha256 if uses_model else None,
        positive_label=view.label_names[1] if view.risk is not None else None,
        labels=view.label_names,
        metrics=_figures(view, scores, groups, np.ones(len(scores), dtype=bool), seed),
        latency=latency_summary(latency[is_miss & ~np.isnan(latency)]),
        latency_hit=latency_summary(scores.hit_ms[is_hit]),
        hits=int(is_hit.sum()),
        misses=int(is_miss.sum()),
        flagged=int(flagged.sum()),
        asked=int(view.asked.sum()),
        slices=by_slice,
    )


def mode_latency(scores: Scores, view: ModeView) -> NDArray[np.float64]:
    """Return what each row would take in a mode, in milliseconds, from the parts' own times.

    Rows that the cache answered are NaN: what they took is `Scores.hit_ms`. So are rows whose
    model score was reused, in any mode that may ask the model: the rest of them would be a sample
    of texts that the rules decide.
    """
    if view.mode is Mode.HEURISTIC:
        return scores.heuristic_ms
    if view.mode is Mode.ML:
        return scores.model_ms
    before = scores.tiers_ms if view.mode is Mode.HYBRID else scores.heuristic_ms
    return before + view.asked * scores.model_ms


def _figures(
    view: ModeView,
    scores: Scores,
    groups: NDArray[np.object_] | None,
    rows: NDArray[np.bool_],
    seed: int,
) -> dict[str, Figure]:
    keep = view.counts & rows
    kept_groups = groups[keep] if groups is not None else None
    if view.risk is not None and view.threshold is not None:
        return binary_metrics(
            view.labels[keep],
            view.risk[keep],
            view.threshold,
            lengths=scores.chars[keep],
            groups=kept_groups,
            seed=seed,
        )
    return multiclass_metrics(
        view.labels[keep],
        view.probabilities[keep],
        view.label_names,
        groups=kept_groups,
        seed=seed,
    )

"""A run as one mode sees it: verdicts, risks and latencies of rows, and the metrics of some of them.

Modes are derived from the parts' scores, so they are always compared on the same rows. Hides how a
sentiment set with two labels becomes a binary one, and which latency belongs to which mode.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from shield_engine.config import DEFAULT_THRESHOLD, Bands
from shield_engine.decision import decided
from shield_engine.errors import ConfigError
from shield_engine.metrics.figures import binary_metrics, multiclass_metrics, two_class_view
from shield_engine.store import RunInfo, Scores, Store
from shield_engine.store.notes import dataset_annotations
from shield_engine.store.rows import Classes, Verdicts
from shield_engine.types import LABELS, Mode, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shield_engine.statistics import Figure
    from shield_engine.statistics.arrays import Floats, Ints, Mask


__all__ = [
    "ModeView",
    "RowJudge",
    "available_modes",
    "check_modes",
    "mode_view",
    "row_groups",
    "verdicts_of",
]

SENTIMENT_POSITIVE = "negative"


@dataclass(frozen=True)
class ModeView:
    """The rows of a run as one mode sees them, ready for metrics.

    Attributes:
        scores: What the run stored of these rows.
        mode: Which mode.
        threshold: Turns `risk` into a verdict; `None` where the verdict is the argmax of three.
        probabilities: Shape (n, labels); NaN rows are errors of this mode.
        asked: True where the mode needed the model.
        labels: Index into `label_names`, -1 without a label.
        label_names: The task's labels, or the two that occur in a sentiment set.
        risk: Probability of the positive label, shape (n,); `None` for three classes.
    """

    scores: Scores
    mode: Mode
    threshold: float | None
    probabilities: Floats
    asked: Mask
    labels: Ints
    label_names: tuple[str, ...]
    risk: Floats | None

    @property
    def task(self) -> Task:
        """Of the run."""
        return self.scores.task

    @cached_property
    def is_scored(self) -> Mask:
        """True where this mode has a score."""
        scored: Mask = ~np.isnan(self.probabilities[:, 0])
        return scored

    @cached_property
    def counts(self) -> Mask:
        """True where this mode has a score and the row a label."""
        return self.is_scored & (self.labels >= 0)

    @cached_property
    def predicted(self) -> Ints:
        """The verdict of each row as an index into `label_names`, -1 where there is no score."""
        if self.risk is not None and self.threshold is not None:
            with np.errstate(invalid="ignore"):
                verdict = (self.risk >= self.threshold).astype(np.int64)
        else:
            verdict = np.nan_to_num(self.probabilities).argmax(axis=1)
        verdict[~self.is_scored] = -1
        return verdict

    @property
    def flags(self) -> Mask:
        """True where the row is flagged; of three classes, where it is called negative."""
        risky = 1 if self.risk is not None else self.label_names.index(SENTIMENT_POSITIVE)
        flagged: Mask = self.predicted == risky
        return flagged

    @cached_property
    def score(self) -> Floats:
        """The risk, or the probability of the most probable of three labels; NaN for none."""
        return self.probabilities.max(axis=1) if self.risk is None else self.risk

    @property
    def distance(self) -> Floats:
        """From `score` to the threshold, or to the runner-up of three labels."""
        if self.risk is not None and self.threshold is not None:
            return np.abs(self.risk - self.threshold)
        return self.score - np.sort(self.probabilities, axis=1)[:, -2]

    @property
    def regret(self) -> Floats:
        """How far `score` is on the wrong side of the threshold, or of the right label of three.

        NaN without a label or a score; of two classes negative where the verdict is right.
        """
        if self.risk is not None and self.threshold is not None:
            gap = self.risk - self.threshold
            regret = np.where(self.labels == 1, -gap, gap)
        else:
            rows = np.arange(len(self.labels))
            regret = self.score - self.probabilities[rows, np.maximum(self.labels, 0)]
        return np.where(self.counts, regret, np.nan)

    @property
    def has_both(self) -> bool:
        """True if two classes are told apart and rows of each count."""
        return self.risk is not None and len(np.unique(self.labels[self.counts])) == 2

    @property
    def latency_ms(self) -> Floats:
        """What each row would take in this mode, in milliseconds, from the parts' own times.

        Rows that the cache answered are NaN: what they took is `Scores.hit_ms`. So are rows whose
        model score was reused, in any mode that may ask the model: the rest of them would be a
        sample of texts that the rules decide.
        """
        scores = self.scores
        if self.mode is Mode.HEURISTIC:
            return scores.heuristic_ms
        if self.mode is Mode.ML:
            return scores.model_ms
        before = scores.tiers_ms if self.mode is Mode.HYBRID else scores.heuristic_ms
        return before + self.asked * scores.model_ms

    def metrics(
        self,
        rows: Mask,
        groups: Ints | None = None,
        *,
        seed: int = 7,
        resamples: int | None = None,
        confidence: float = 0.95,
    ) -> dict[str, Figure]:
        """Return every metric of labelled rows; see `binary_metrics` and `multiclass_metrics`.

        Args:
            rows: Which rows, each with a score and a label.
            groups: Group of each row of the view; `None` if no row has one.
            seed: Of the bootstrap.
            resamples: How many; 0 for none.
            confidence: Of every interval.
        """
        labels = self.labels[rows]
        codes = None if groups is None else groups[rows]
        if self.risk is not None and self.threshold is not None:
            return binary_metrics(
                labels,
                self.risk[rows],
                self.threshold,
                lengths=self.scores.chars[rows],
                groups=codes,
                seed=seed,
                resamples=resamples,
                confidence=confidence,
            )
        return multiclass_metrics(
            labels,
            self.probabilities[rows],
            self.label_names,
            groups=codes,
            seed=seed,
            resamples=resamples,
            confidence=confidence,
        )


def available_modes(run: RunInfo) -> tuple[Mode, ...]:
    """Return the modes that can be derived from what the run stored."""
    if len(run.parts) == 1:
        return (Mode(run.parts[0]),)
    return tuple(Mode)


def check_modes(run: RunInfo, *modes: Mode) -> None:
    """Raise a `ConfigError` if the run cannot answer for a mode."""
    missing = [mode.value for mode in modes if mode not in available_modes(run)]
    if missing:
        raise ConfigError(
            f"run {run.run_id} scored only {', '.join(run.parts)}; "
            f"it cannot answer for {', '.join(missing)}"
        )


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
    names, labels = LABELS[scores.task], scores.labels
    threshold = DEFAULT_THRESHOLD if threshold is None else threshold
    if scores.task is not Task.SENTIMENT:
        risk = probabilities[:, 1]
        return ModeView(scores, mode, threshold, probabilities, asked, labels, names, risk)
    labelled = labels >= 0
    if len(np.unique(labels[labelled])) != 2:
        return ModeView(scores, mode, None, probabilities, asked, labels, names, None)
    # Unlabelled and failed rows are carried along: give them a stand-in for the conversion only.
    stand_in = int(labels[labelled][0])
    view = two_class_view(
        np.where(labelled, labels, stand_in),
        np.nan_to_num(probabilities, nan=1.0),
        names,
        positive=SENTIMENT_POSITIVE,
    )
    risk = np.where(np.isnan(probabilities[:, 0]), np.nan, view.scores)
    pair = np.column_stack([1 - risk, risk])
    labels = np.where(labelled, view.labels, -1)
    return ModeView(scores, mode, threshold, pair, asked, labels, view.label_names, risk)


def row_groups(store: Store, dataset_id: str, scores: Scores) -> Ints | None:
    """Return a code for the group of each scored row, a row without one being its own group.

    `None` if no row of the dataset has a group.
    """
    groups = store.datasets.groups(dataset_id)
    if groups is None:
        return None
    names = np.array(
        [
            f"row {index}" if groups[index] is None else f"group {groups[index]}"
            for index in scores.row_index
        ],
        dtype=object,
    )
    return np.unique(names, return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True, slots=True)
class RowJudge:
    """How the rows of a run are judged.

    Attributes:
        run_id: Whose scores.
        mode: Which parts decide.
        threshold: A row is flagged if its risk is at least this; without meaning for three classes.
        bands: Hybrid bands.
        is_corrected: Judge by corrected labels where a row has one.
    """

    run_id: str
    mode: Mode
    threshold: float = DEFAULT_THRESHOLD
    bands: Bands = field(default_factory=Bands)
    is_corrected: bool = False


def verdicts_of(store: Store, judge: RowJudge, scores: Scores | None = None) -> Verdicts:
    """Return the verdict on every row that a run scored.

    Args:
        store: Where the run lies.
        judge: How rows are judged.
        scores: The run's scores, where the caller has them at hand; read from the store if `None`.

    Raises:
        ConfigError: The mode needs a part that the run did not score.
    """
    import pyarrow as pa

    run = store.runs.find(judge.run_id)
    check_modes(run, judge.mode)
    scores = store.runs.scores(run.run_id) if scores is None else scores
    if judge.is_corrected:
        scores = replace(scores, labels=_corrected(store, run, scores))
    view = mode_view(scores, judge.mode, judge.threshold, judge.bands)
    columns = {
        "row_index": scores.row_index,
        "truth": pa.array(view.labels.astype(np.int8), mask=view.labels < 0),
        "verdict": pa.array(view.predicted.astype(np.int8), mask=view.predicted < 0),
        "risk": pa.array(view.score, from_pandas=True),
        "regret": pa.array(view.regret, from_pandas=True),
        "distance": pa.array(view.distance, from_pandas=True),
    }
    if len(run.parts) > 1:
        columns |= {
            name: pa.array(_part(mode_view(scores, mode)), from_pandas=True)
            for name, mode in (("rules", Mode.HEURISTIC), ("model", Mode.ML))
        }
    names = LABELS[run.task]
    indexes = tuple(names.index(name) for name in view.label_names)
    return Verdicts(run, Classes(run.task, view.label_names, indexes), pa.table(columns))


def _corrected(store: Store, run: RunInfo, scores: Scores) -> NDArray[np.int64]:
    labels = scores.labels.copy()
    for index, note in dataset_annotations(store, run.dataset_id).items():
        if note.label is not None:
            labels[scores.row_index == index] = note.label
    return labels


def _part(view: ModeView) -> NDArray[np.float64]:
    """Return what rules and model are compared by: the risk, of three classes the verdict."""
    if view.risk is not None:
        return view.risk
    return np.where(view.is_scored, view.predicted, np.nan)

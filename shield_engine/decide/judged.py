"""The rows of a run as one way of deciding sees them, as a table that the store filters and pages.

The one bridge from `mode_view` to SQL, so that a list of errors and the figures above it agree.
A million rows take some 40 ms; only their scores are worth keeping.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from shield_engine.config import DEFAULT_THRESHOLD, Bands
from shield_engine.decide.views import ModeView, check_modes, mode_view
from shield_engine.store import RunInfo, Scores, Store
from shield_engine.store.notes import dataset_annotations
from shield_engine.store.rows import Classes, Verdicts
from shield_engine.types import LABELS, Mode

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RowJudge", "verdicts_of"]


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

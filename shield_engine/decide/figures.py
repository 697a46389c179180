"""Stored scores of a run to the figures of every mode: one function for page, command and report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.config import Bands
from shield_engine.decide.views import (
    ModeView,
    available_modes,
    check_modes,
    mode_view,
    row_groups,
)
from shield_engine.decision import decided
from shield_engine.metrics.figures import LatencySummary, latency_summary
from shield_engine.statistics import Figure
from shield_engine.store import RunInfo, Scores, Store
from shield_engine.types import LABELS, Mode, Task

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = [
    "Evaluated",
    "cost_per_million",
    "evaluate_run",
    "figures_of",
    "scores_table",
]

logger = logging.getLogger(__name__)

Metrics = Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Everything that one way of deciding says of a labelled or unlabelled set.

    Attributes:
        title: Shown to users; empty for a mode by itself.
        mode: Which parts decide.
        threshold: `None` where the most probable of three labels decides.
        labels: The task's labels, or the two that occur in a sentiment set.
        n: Rows it scored.
        errors: Rows it could not.
        flagged: Scored rows that it flags; of three classes, those it calls negative.
        asked: Scored rows that need the model.
        hits: Scored rows that the cache answered.
        metrics: Of labelled rows, as `ModeView.metrics` gives them.
        latency: Of rows that the cache did not answer, milliseconds.
        mean_ms: Their mean; `None` without any.
        latency_hit: Of rows that the cache answered, milliseconds.
        slices: Metrics by slice column and value; `None` if none were asked for.
        variant: Of the model; `None` where none is asked or it is not known.
        model_sha256: Likewise.
        cost_per_million: Of a million scans one after another; `None` without a price.
    """

    title: str
    mode: Mode
    threshold: float | None
    labels: tuple[str, ...]
    n: int
    errors: int
    flagged: int
    asked: int
    hits: int
    metrics: Metrics
    latency: LatencySummary
    mean_ms: float | None
    latency_hit: LatencySummary
    slices: Mapping[str, Mapping[str, Metrics]] | None = None
    variant: str | None = None
    model_sha256: str | None = None
    cost_per_million: float | None = None

    @property
    def positive_label(self) -> str | None:
        """The label that counts as risky; `None` for three classes."""
        return None if self.threshold is None else self.labels[1]

    @property
    def misses(self) -> int:
        """Scored rows that the cache did not answer."""
        return self.n - self.hits

    @property
    def flag_rate(self) -> float | None:
        """Share of scored rows that are flagged; `None` without any."""
        return self.flagged / self.n if self.n else None

    @property
    def asked_rate(self) -> float | None:
        """Share of scored rows that need the model; `None` without any."""
        return self.asked / self.n if self.n else None

    def by_model_of(self, run: RunInfo) -> Evaluated:
        """Return the figures with the run's model, if the mode may ask it."""
        if self.mode is Mode.HEURISTIC:
            return self
        return replace(self, variant=run.variant, model_sha256=run.model_sha256)

    def priced(self, price_per_hour: float | None) -> Evaluated:
        """Return the figures with the cost at a machine's price per hour, in any currency."""
        return replace(self, cost_per_million=cost_per_million(self.mean_ms, price_per_hour))

    def as_dict(self) -> dict[str, Any]:
        """Return the mode as the evaluation output writes it."""
        derived = {"derived": True} if self.mode in {Mode.HYBRID, Mode.BOTH} else {}
        document: dict[str, Any] = {
            "n": self.n,
            "errors": self.errors,
            "fallbacks": 0,  # an evaluation never falls back: an ML error is a row error
            "threshold": self.threshold,
            "variant": self.variant,
            "model_sha256": self.model_sha256,
            "positive_label": self.positive_label,
            "labels": list(self.labels),
            "metrics": _plain(self.metrics),
            "latency_ms": self.latency.as_dict() | derived,
            "latency_hit_ms": self.latency_hit.as_dict() | derived,
            "cache": {
                "hits": self.hits,
                "misses": self.misses,
                "hit_rate": self.hits / self.n if self.n else None,
            },
            "flag_rate": self.flag_rate,
            "model_asked": self.asked,
        }
        if self.slices is not None:
            document["slices"] = {
                name: {value: _plain(metrics) for value, metrics in values.items()}
                for name, values in self.slices.items()
            }
        return document

    def as_candidate(self) -> dict[str, Any]:
        """Return the figures as a comparison writes them."""
        return {
            "title": self.title,
            "mode": self.mode.value,
            "threshold": self.threshold,
            "scored": self.n,
            "flagged": self.flagged,
            "asked": self.asked,
            "metrics": _plain(self.metrics),
            "latency_ms": self.latency.as_dict() | {"mean": self.mean_ms},
            "latency_hit_ms": self.latency_hit.as_dict(),
            "cost_per_million": self.cost_per_million,
        }


def cost_per_million(mean_ms: float | None, price_per_hour: float | None) -> float | None:
    """Return what a million scans cost, one after another on a machine paid by the hour.

    mean_ms / 3,600,000 ms an hour x price x 1,000,000. `None` where either is unknown.
    """
    if mean_ms is None or price_per_hour is None:
        return None
    return mean_ms / 3.6 * price_per_hour


def figures_of(
    view: ModeView,
    rows: NDArray[np.bool_] | None = None,
    groups: NDArray[np.int64] | None = None,
    *,
    title: str = "",
    slices: Mapping[str, NDArray[np.object_]] | None = None,
    seed: int = 7,
    resamples: int | None = None,
    confidence: float = 0.95,
) -> Evaluated:
    """Return every figure of one way of deciding.

    Args:
        view: Its verdicts.
        rows: Which rows the metrics use, each with a score and a label; all such if `None`.
        groups: Group of each row of the view; `None` if no row has one.
        title: Shown to users.
        slices: Slice column -> each row's value: gives the metrics by value, too.
        seed: Of the bootstrap.
        resamples: See `binary_metrics`.
        confidence: Of every interval.
    """
    rows = view.counts if rows is None else rows

    def metrics(chosen: NDArray[np.bool_]) -> dict[str, Figure]:
        return view.metrics(chosen, groups, seed=seed, resamples=resamples, confidence=confidence)

    by_slice = None
    if slices:
        by_slice = {
            name: {str(value): metrics(rows & (values == value)) for value in sorted(set(values))}
            for name, values in slices.items()
        }
    is_hit, ms = view.is_scored & view.scores.is_hit, view.latency_ms
    ms = ms[view.is_scored & ~is_hit & ~np.isnan(ms)]
    n = int(view.is_scored.sum())
    return Evaluated(
        title=title,
        mode=view.mode,
        threshold=view.threshold,
        labels=view.label_names,
        n=n,
        errors=len(view.labels) - n,
        flagged=int(view.flags.sum()),
        asked=int((view.asked & view.is_scored).sum()),
        hits=int(is_hit.sum()),
        metrics=metrics(rows),
        latency=latency_summary(ms),
        mean_ms=float(ms.mean()) if len(ms) else None,
        latency_hit=latency_summary(view.scores.hit_ms[is_hit]),
        slices=by_slice,
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
) -> dict[Mode, Evaluated]:
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
    modes = available_modes(run) if modes is None else modes
    check_modes(run, *modes)
    rows = _RunRows.of(store, run, slice_names)
    return {
        mode: figures_of(
            mode_view(rows.scores, mode, (thresholds or {}).get(mode.value), bands),
            groups=rows.groups,
            slices=rows.slices,
            seed=seed,
        ).by_model_of(run)
        for mode in modes
    }


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


@dataclass(frozen=True, slots=True)
class _RunRows:
    """What is stored of a run's rows."""

    scores: Scores
    groups: NDArray[np.int64] | None
    slices: Mapping[str, NDArray[np.object_]]

    @classmethod
    def of(cls, store: Store, run: RunInfo, slice_names: Sequence[str]) -> _RunRows:
        scores = store.runs.scores(run.run_id)
        slices = {
            name: store.datasets.slices(run.dataset_id, name)[scores.row_index]
            for name in slice_names
        }
        return cls(scores, row_groups(store, run.dataset_id, scores), slices)


def _plain(metrics: Metrics) -> dict[str, Any]:
    return {name: figure.as_dict() for name, figure in metrics.items()}

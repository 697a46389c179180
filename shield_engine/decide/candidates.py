"""What is decided between: modes, models, variants, policies and runs, over the same rows.

Candidates of one run, or of runs over one dataset version, share their rows. Runs over different
datasets are compared only on the rows whose text and label both have, and only when asked to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.config import DEFAULT_THRESHOLD, Bands
from shield_engine.decide.views import (
    ModeView,
    available_modes,
    check_modes,
    mode_view,
    row_groups,
)
from shield_engine.errors import ConfigError
from shield_engine.policy import Policy
from shield_engine.store import RunInfo, Scores, Store
from shield_engine.types import Mode, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Aligned",
    "Candidate",
    "RowOverlap",
    "align",
    "baseline_of",
    "candidate_of",
    "candidate_title",
    "of_policy",
    "overlap",
    "subset",
]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way of deciding, with stored scores to judge it by.

    Attributes:
        run_id: Whose scores.
        mode: Which parts decide.
        threshold: Turns risk into a verdict; without meaning where the argmax decides.
        bands: Hybrid bands.
        title: Shown to users; unique among the candidates compared.
    """

    run_id: str
    mode: Mode
    threshold: float | None = None
    bands: Bands = field(default_factory=Bands)
    title: str = ""

    @property
    def words(self) -> str:
        """The title, or mode, threshold and bands in words."""
        if self.title:
            return self.title
        bands = ""
        if self.mode is Mode.HYBRID and self.bands != Bands():
            bands = f", bands {self.bands}"
        at = "" if self.threshold is None else f" at threshold {self.threshold:g}"
        return f"{self.mode.value}{at}{bands}"


@dataclass(frozen=True, slots=True)
class RowOverlap:
    """How the rows of some runs meet.

    Attributes:
        common: Rows whose text and label every run has.
        only: By run id, rows that not every run has.
    """

    common: int
    only: Mapping[str, int]

    @property
    def is_same(self) -> bool:
        """True if every run has the same rows."""
        return not any(self.only.values())


@dataclass(frozen=True)
class Aligned:
    """Candidates as views of the same rows in the same order.

    Attributes:
        candidates: What is compared.
        views: Each candidate's verdicts on those rows.
        groups: Code of each row's group; `None` if no row has one.
        dataset_id: Dataset whose row indexes `row_index` carries.
        left_out: By run id, rows left out because another run lacks them.
    """

    candidates: tuple[Candidate, ...]
    views: tuple[ModeView, ...]
    groups: NDArray[np.int64] | None
    dataset_id: str
    left_out: Mapping[str, int]

    @cached_property
    def counts(self) -> NDArray[np.bool_]:
        """True where every candidate has a score and the row a label; metrics use these rows."""
        rows: NDArray[np.bool_] = np.logical_and.reduce([view.counts for view in self.views])
        return rows

    @property
    def row_index(self) -> NDArray[np.int64]:
        """Row indexes in `dataset_id`."""
        return self.views[0].scores.row_index


def candidate_title(mode: Mode, scorer: str) -> str:
    """Return what a candidate is called: by what scores, and how the rules take part.

    Args:
        mode: Which parts decide.
        scorer: The guard or model beside the rules, with its version (`RunInfo.scorer`).
    """
    return {
        Mode.HEURISTIC: "rules",
        Mode.ML: scorer,
        Mode.HYBRID: f"rules + {scorer}",
        Mode.BOTH: f"rules or {scorer}",
    }[mode]


def of_policy(policy: Policy, run: RunInfo) -> Candidate:
    """Return a policy as a candidate over a run's scores.

    Raises:
        ConfigError: The run is of another task, lacks a part, or was scored by another model.
    """
    reason = None
    if run.task is not policy.task:
        reason = f"is of task {run.task.value}, the policy of {policy.task.value}"
    elif policy.mode not in available_modes(run):
        reason = f"scored only {', '.join(run.parts)}, the policy needs {policy.mode.value}"
    elif policy.mode is not Mode.HEURISTIC and not _is_scorer_of(policy, run):
        what = "guard" if run.stamp.get("guard") else "model"
        reason = (
            f"was scored by {what} {run.scorer} ({(run.model_sha256 or '')[:12]}), the policy's "
            f"threshold is for {policy.scorer} ({(policy.scorer_sha256 or '')[:12]})"
        )
    if reason:
        raise ConfigError(
            f"policy {policy.title} cannot be judged by run {run.run_id}: it {reason}"
        )
    return Candidate(run.run_id, policy.mode, policy.threshold, policy.bands, policy.title)


def candidate_of(
    run: RunInfo,
    thresholds: Mapping[str, float],
    *,
    mode: Mode | None = None,
    policy: Policy | None = None,
) -> Candidate:
    """Return what of a run is judged: a policy, a mode, or hybrid where the run has both parts.

    Args:
        run: Whose scores.
        thresholds: By mode; .5 where a mode is not named.
        mode: Which parts decide; by default hybrid, or the only part there is.
        policy: Decides mode, threshold and bands.

    Raises:
        ConfigError: The policy does not fit the run, or the run lacks what the mode needs.
    """
    if policy is not None:
        return of_policy(policy, run)
    possible = available_modes(run)
    mode = mode or (Mode.HYBRID if Mode.HYBRID in possible else possible[0])
    check_modes(run, mode)
    return Candidate(run.run_id, mode, _threshold(run, mode, thresholds))


def baseline_of(
    candidate: Candidate, run: RunInfo, baseline: RunInfo, thresholds: Mapping[str, float]
) -> Candidate:
    """Return another run as what `candidate` is compared with, decided as alike as possible.

    Mode and bands are the candidate's. So is the threshold, if the same model file scored both runs
    or no model is asked; otherwise it is the baseline's own, because scores of another model mean
    something else.

    Args:
        candidate: What is judged.
        run: The candidate's run.
        baseline: The run to compare with.
        thresholds: Of the baseline's run, by mode.
    """
    is_same = candidate.mode is Mode.HEURISTIC or run.model_sha256 == baseline.model_sha256
    threshold = candidate.threshold if is_same else _threshold(baseline, candidate.mode, thresholds)
    return Candidate(baseline.run_id, candidate.mode, threshold, candidate.bands)


def overlap(store: Store, run_ids: Sequence[str]) -> RowOverlap:
    """Return how many rows the runs have in common, by text and label; cheap to ask first."""
    runs = {run_id: store.runs.find(run_id) for run_id in dict.fromkeys(run_ids)}
    if len({(run.dataset_id, run.rows) for run in runs.values()}) == 1 and all(
        run.rows_done == run.rows for run in runs.values()
    ):  # whole runs of one dataset version; hashing a million rows would take seconds
        first = next(iter(runs.values()))
        return RowOverlap(first.rows_done, dict.fromkeys(runs, 0))
    keys = {run_id: _row_keys(store, run_id) for run_id in runs}
    common = set.intersection(*(set(rows) for rows in keys.values()))
    return RowOverlap(
        len(common), {run_id: len(rows) - len(common) for run_id, rows in keys.items()}
    )


def align(store: Store, candidates: Sequence[Candidate], *, intersect: bool = False) -> Aligned:
    """Return candidates as views of the same rows.

    Args:
        store: Where the runs lie.
        candidates: At least one.
        intersect: Where rows differ, keep those that all have instead of refusing.

    Raises:
        ConfigError: There is no candidate, tasks or rows differ, no row is common, or a run lacks
            the part that a mode needs.
    """
    if not candidates:
        raise ConfigError("nothing to compare: choose at least one candidate")
    runs = {candidate.run_id: store.runs.find(candidate.run_id) for candidate in candidates}
    tasks = sorted({run.task.value for run in runs.values()})
    if len(tasks) > 1:
        raise ConfigError(f"runs of different tasks cannot be compared: {', '.join(tasks)}")
    for candidate in candidates:
        check_modes(runs[candidate.run_id], candidate.mode)
    scores = {run_id: store.runs.scores(run_id) for run_id in runs}
    first = runs[candidates[0].run_id]
    left_out = dict.fromkeys(runs, 0)
    if len(runs) > 1:
        rows, left_out = _common_rows(store, runs, scores)
        if any(left_out.values()) and not intersect:
            counted = ", ".join(f"run {name} has {n:,} more" for name, n in left_out.items() if n)
            raise ConfigError(
                f"the rows differ: {len(rows[first.run_id]):,} are common, {counted}. Compare on "
                "the common rows, or score one dataset version with both"
            )
        if not len(rows[first.run_id]):
            raise ConfigError("the runs have no row in common")
        scores = {run_id: subset(own, rows[run_id]) for run_id, own in scores.items()}
    return Aligned(
        candidates=tuple(candidates),
        views=tuple(
            mode_view(
                scores[candidate.run_id], candidate.mode, candidate.threshold, candidate.bands
            )
            for candidate in candidates
        ),
        groups=row_groups(store, first.dataset_id, scores[first.run_id]),
        dataset_id=first.dataset_id,
        left_out=left_out,
    )


def subset(scores: Scores, rows: NDArray[Any]) -> Scores:
    """Return the scores of some rows: a mask, or positions in the order wanted."""
    changed: dict[str, Any] = {}
    for item in fields(Scores):
        value = getattr(scores, item.name)
        if isinstance(value, np.ndarray):
            changed[item.name] = value[rows]
        elif item.name == "parts_ms":
            changed[item.name] = {name: ms[rows] for name, ms in value.items()}
        else:
            changed[item.name] = value
    return Scores(**changed)


def _common_rows(
    store: Store, runs: Mapping[str, RunInfo], scores: Mapping[str, Scores]
) -> tuple[dict[str, NDArray[np.int64]], dict[str, int]]:
    """Return for each run the positions of the rows that all have, in the first run's order."""
    first = next(iter(scores.values())).row_index
    if len({run.dataset_id for run in runs.values()}) == 1 and all(
        np.array_equal(own.row_index, first) for own in scores.values()
    ):
        return dict.fromkeys(runs, np.arange(len(first))), dict.fromkeys(runs, 0)
    keys = {run_id: _row_keys(store, run_id) for run_id in runs}
    order, *others = keys.values()
    common = [key for key in order if all(key in other for other in others)]
    return (
        {
            run_id: np.array([places[key] for key in common], dtype=np.int64)
            for run_id, places in keys.items()
        },
        {run_id: len(scores[run_id]) - len(common) for run_id in runs},
    )


def _row_keys(store: Store, run_id: str) -> dict[Any, int]:
    """Return each row's identity and its position in the run.

    Rows are the same if text and label are; of equal ones the first pairs with the first.
    """
    seen: dict[Any, int] = {}
    keys: dict[Any, int] = {}
    for position, (digest, label) in enumerate(store.runs.row_hashes(run_id)):
        number = seen[digest, label] = seen.get((digest, label), -1) + 1
        keys[digest, label, number] = position
    return keys


def _is_scorer_of(policy: Policy, run: RunInfo) -> bool:
    """Return whether what scored the run is what the policy's threshold is for.

    A policy that names no digest goes by the guard's name; no model has another's guard.
    """
    if policy.scorer_sha256 is not None:
        return policy.scorer_sha256 == run.model_sha256
    return policy.guard == (run.stamp.get("guard") or {}).get("name")


def _threshold(run: RunInfo, mode: Mode, thresholds: Mapping[str, float]) -> float | None:
    """Return a mode's threshold, .5 if none is known; three classes may do without."""
    return thresholds.get(mode.value, None if run.task is Task.SENTIMENT else DEFAULT_THRESHOLD)

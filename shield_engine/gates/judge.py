"""Judge a gate by stored scores: pass, fail or inconclusive, with the numbers and what would settle it.

A requirement passes only if a one-sided confidence bound clears its limit, so a gate whose truth lies
at the limit passes at most 5% of the time at 95%. All requirements must pass, hence no correction
for their number is needed (an intersection-union test, Berger 1982).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.decide.candidates import (
    Aligned,
    Candidate,
    align,
    baseline_of,
    candidate_of,
    of_policy,
)
from shield_engine.errors import ConfigError
from shield_engine.gates.claim import Claim
from shield_engine.gates.document import BASELINE, Gate, Requirement, shown
from shield_engine.gates.question import Question
from shield_engine.store.library import named_policy

if TYPE_CHECKING:
    from shield_engine.statistics.arrays import Mask
    from shield_engine.store import RunInfo, Store


__all__ = ["GateOutcome", "Judgement", "Outcome", "judge"]

ThresholdsOf = Callable[["RunInfo"], Mapping[str, float]]
"""Gives a run's threshold for each mode, used where no policy says one."""

_SHOWN_VALUES = 8


class Outcome(StrEnum):
    """What came of a requirement, or of a whole gate."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    SKIPPED = "not applicable"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of one requirement.

    Attributes:
        requirement: What was asked.
        outcome: Pass, fail, inconclusive, or not applicable to this task.
        subject: What was judged, and against what.
        value: The figure, or for a comparison the difference from the baseline.
        low: The truth is at least this at the requirement's confidence.
        high: The truth is at most this at the requirement's confidence.
        limit: What a bound must clear, in the unit of `value`.
        is_upper: True if the upper bound must not lie above `limit`.
        n: Rows in the denominator.
        method: How the bounds came about.
        reason: The numbers in a sentence.
        advice: What would settle it; empty unless inconclusive.
        rows_needed: About so many more rows would settle it; `None` if unknown, or not a matter of
            rows.
        before: The baseline's figure.
        after: The candidate's figure, in a comparison.
    """

    requirement: Requirement
    outcome: Outcome
    subject: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    is_upper: bool = False
    n: int = 0
    method: str = ""
    reason: str = ""
    advice: str = ""
    rows_needed: int | None = None
    before: float | None = None
    after: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the judgement as plain JSON values."""
        return {
            "requirement": self.requirement.as_document(),
            "title": self.requirement.title,
            "outcome": self.outcome.value,
            "subject": self.subject,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "limit": self.limit,
            "bound": "upper" if self.is_upper else "lower",
            "n": self.n,
            "method": self.method,
            "reason": self.reason,
            "advice": self.advice,
            "rows_needed": self.rows_needed,
            "baseline_value": self.before,
            "candidate_value": self.after,
        }


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """What came of a gate.

    Attributes:
        gate: What was asked.
        judgements: One a requirement, in its order.
        run_id: Whose scores were judged.
        candidate: Mode and threshold, or policy, that was judged.
        baseline_run_id: Whose scores it was compared with; `None` without a baseline.
        baseline: Mode and threshold of the baseline; empty without one.
        seed: Of the resampling.
        stamp: The run's, to repeat it.
    """

    gate: Gate
    judgements: tuple[Judgement, ...]
    run_id: str
    candidate: str
    baseline_run_id: str | None
    baseline: str
    seed: int
    stamp: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """Fail if any requirement fails, else inconclusive if any is, else pass."""
        outcomes = {judgement.outcome for judgement in self.judgements}
        for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
            if outcome in outcomes:
                return outcome
        return Outcome.PASS

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        counts = Counter(judgement.outcome for judgement in self.judgements)
        parts = [f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome]]
        return f"Gate {self.gate.name}: {self.outcome.value} ({', '.join(parts)})."

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as plain JSON values."""
        return {
            "gate": self.gate.name,
            "outcome": self.outcome.value,
            "run_id": self.run_id,
            "candidate": self.candidate,
            "baseline_run_id": self.baseline_run_id,
            "baseline": self.baseline or None,
            "seed": self.seed,
            "requirements": [judgement.as_dict() for judgement in self.judgements],
            "stamp": dict(self.stamp),
        }


def judge(
    store: Store,
    gate: Gate,
    candidate: Candidate,
    *,
    thresholds_of: ThresholdsOf,
    baseline: Candidate | None = None,
    seed: int = 7,
) -> GateOutcome:
    """Judge a gate by a run's stored scores.

    Args:
        store: Where the runs lie.
        gate: What is asked.
        candidate: What is judged where a requirement names neither mode nor policy.
        thresholds_of: Each run's threshold by mode, for requirements that name a mode or a run.
        baseline: What `no_worse_than = "baseline"` means.
        seed: Of the resampling.

    Raises:
        ConfigError: No requirement is about this task, a baseline is missing, rows differ, or a
            policy or mode does not fit the run.
        UnknownNameError: A run or policy does not exist.
    """
    court = _Court(store, gate, candidate, baseline, thresholds_of, seed)
    judgements = tuple(
        court.judgement(requirement, f"gate {gate.name}, requirement {number}")
        for number, requirement in enumerate(gate.requirements, start=1)
    )
    if all(judgement.outcome is Outcome.SKIPPED for judgement in judgements):
        raise ConfigError(
            f"gate {gate.name} asks nothing of task {court.run.task.value}; "
            f"run {candidate.run_id} is of that task"
        )
    return GateOutcome(
        gate=gate,
        judgements=judgements,
        run_id=candidate.run_id,
        candidate=candidate.words,
        baseline_run_id=None if baseline is None else baseline.run_id,
        baseline="" if baseline is None else baseline.words,
        seed=seed,
        stamp=court.run.stamp,
    )


@dataclass(frozen=True, slots=True)
class _Court:
    """What every requirement of one gate is judged with."""

    store: Store
    gate: Gate
    candidate: Candidate
    baseline: Candidate | None
    thresholds_of: ThresholdsOf
    seed: int
    _seen: dict[Any, Any] = field(default_factory=dict)

    @property
    def run(self) -> RunInfo:
        return self._run(self.candidate.run_id)

    def judgement(self, requirement: Requirement, where: str) -> Judgement:
        """Return what came of one requirement."""
        if requirement.task is not None and requirement.task is not self.run.task:
            reason = f"the run is of task {self.run.task.value}, not {requirement.task.value}"
            return Judgement(requirement, Outcome.SKIPPED, "", reason=reason)
        sides = [self._candidate(requirement)]
        if requirement.is_paired:
            sides.append(self._baseline(requirement, sides[0], where))
        aligned = self._aligned(tuple(sides), intersect=requirement.common_rows)
        subject = " against ".join(f"{side.words}, run {side.run_id}" for side in sides)
        rows, missing = self._rows(requirement, aligned)
        question = Question(requirement, aligned, rows, self.seed)
        figure = question.bounds()
        if missing and not figure.n:
            figure = replace(figure, reason=missing)
        judged = _judged(Claim(requirement, figure), subject)
        if requirement.is_paired:
            after, before = question.values()
            judged = replace(judged, before=before, after=after)
            if after is not None and before is not None:
                after_text, before_text = (
                    shown(value, requirement.kind.unit) for value in (after, before)
                )
                reason = f"{after_text} against {before_text}: {judged.reason}"
                judged = replace(judged, reason=reason)
            judged = self._comparability(judged, sides)
        return self._completeness(judged, aligned)

    def _candidate(self, requirement: Requirement) -> Candidate:
        if requirement.policy is not None:
            return of_policy(named_policy(self.store, requirement.policy), self.run)
        if requirement.mode is not None:
            return candidate_of(self.run, self.thresholds_of(self.run), mode=requirement.mode)
        return self.candidate

    def _baseline(self, requirement: Requirement, side: Candidate, where: str) -> Candidate:
        if requirement.no_worse_than != BASELINE:
            other = self._run(str(requirement.no_worse_than))
            return baseline_of(side, self.run, other, self.thresholds_of(other))
        if self.baseline is None:
            raise ConfigError(f"{where}: compares with a baseline; name one with --baseline RUN_ID")
        if requirement.mode is None:
            return self.baseline
        other = self._run(self.baseline.run_id)
        return baseline_of(side, self.run, other, self.thresholds_of(other))

    def _run(self, run_id: str) -> RunInfo:
        if run_id not in self._seen:
            self._seen[run_id] = self.store.runs.find(run_id)
        run: RunInfo = self._seen[run_id]
        return run

    def _aligned(self, sides: tuple[Candidate, ...], *, intersect: bool) -> Aligned:
        key = (sides, intersect)
        if key not in self._seen:
            self._seen[key] = align(self.store, sides, intersect=intersect)
        aligned: Aligned = self._seen[key]
        return aligned

    def _rows(self, requirement: Requirement, aligned: Aligned) -> tuple[Mask, str]:
        """Return the rows of the requirement's slice, and why there are none."""
        wanted = requirement.rows
        if wanted is None:
            return np.ones(len(aligned.row_index), dtype=bool), ""
        values = self.store.datasets.slices(aligned.dataset_id, wanted.column)[aligned.row_index]
        rows = np.asarray(values == wanted.value, dtype=bool)
        if rows.any():
            return rows, ""
        there = sorted({str(value) for value in values if value})
        if not there:
            return rows, f"the dataset has no slice column {wanted.column}"
        listed = ", ".join(there[:_SHOWN_VALUES]) + (", ..." if len(there) > _SHOWN_VALUES else "")
        return rows, f"no row has {wanted.column} = {wanted.value}; there are {listed}"

    def _comparability(self, judged: Judgement, sides: list[Candidate]) -> Judgement:
        """Leave a comparison of latencies open that were not measured alike."""
        machines = [self._run(side.run_id).stamp.get("machine") for side in sides]
        if judged.requirement.kind.unit != "ms" or machines[0] == machines[1]:
            return judged
        return replace(
            judged,
            outcome=Outcome.INCONCLUSIVE,
            advice=(
                "the runs were measured on different machines, or with other numbers of workers: "
                "score both on one"
            ),
            rows_needed=None,
        )

    def _completeness(self, judged: Judgement, aligned: Aligned) -> Judgement:
        """Hold back a pass while rows lack a score: they may be those that matter."""
        for side, view in zip(aligned.candidates, aligned.views, strict=True):
            run = self._run(side.run_id)
            scored = int(view.is_scored.sum()) + aligned.left_out.get(side.run_id, 0)
            missing = max(0, run.rows - scored)
            if judged.outcome is Outcome.PASS and missing > self.gate.max_unscored * run.rows:
                return replace(
                    judged,
                    outcome=Outcome.INCONCLUSIVE,
                    advice=(
                        f"{missing:,} of {run.rows:,} rows of run {run.run_id} have no score: score "
                        f"them (shield runs --resume {run.run_id} --retry-errors), or allow a share "
                        "with max_unscored"
                    ),
                    rows_needed=None,
                )
        return judged


def _judged(claim: Claim, subject: str) -> Judgement:
    requirement, figure = claim.requirement, claim.figure
    judged = Judgement(
        requirement=requirement,
        outcome=Outcome.INCONCLUSIVE,
        subject=subject,
        value=figure.value,
        low=figure.low,
        high=figure.high,
        limit=claim.limit,
        is_upper=claim.is_upper,
        n=figure.n,
        method=figure.method,
        reason=claim.numbers(),
    )
    if figure.value is None:
        return replace(judged, reason=figure.reason or "", advice="there is no figure to judge")
    if figure.n < requirement.min_rows:
        missing = requirement.min_rows - figure.n
        rows = requirement.kind.rows
        advice = f"the gate asks for {requirement.min_rows:,} {rows}: {missing:,} more"
        return replace(judged, advice=advice, rows_needed=missing)
    if claim.is_met:
        return replace(judged, outcome=Outcome.PASS)
    if claim.is_missed:
        return replace(judged, outcome=Outcome.FAIL, reason=claim.numbers(is_failed=True))
    needed, advice = claim.advice(figure.value)
    return replace(judged, advice=advice, rows_needed=needed)

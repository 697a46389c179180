"""A policy from what was decided, with the evidence it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shield_engine.policy import SENTIMENT_LABELS, Policy
from shield_engine.types import Mode, Task, Variant

if TYPE_CHECKING:
    from shield_engine.decide.candidates import Candidate
    from shield_engine.decide.figures import Evaluated
    from shield_engine.decide.splits import Optimism, SplitReport
    from shield_engine.store import DatasetInfo, RunInfo

__all__ = ["choice_evidence", "new_policy"]


def choice_evidence(report: SplitReport, optimism: Optimism, seed: int) -> dict[str, Any]:
    """Return what a policy keeps of how its rule holds on rows that did not choose."""
    split: dict[str, Any] = {
        "seed": seed,
        "units": report.units,
        "choosing_rows": report.choosing.n,
        "reporting_rows": report.reporting.n,
        "threshold": report.choice.threshold,
        "chosen": report.chosen,
        "reported": report.reported,
        "gap": report.gap,
    }
    if report.choice.problem:
        split["problem"] = report.choice.problem
    low, high = (None, None) if optimism.interval is None else optimism.interval
    ends = {"low": low, "high": high}
    return {
        "split": split,
        "optimism": {"value": optimism.value, **ends, "resamples": optimism.resamples},
    }


def new_policy(
    candidate: Candidate,
    run: RunInfo,
    dataset: DatasetInfo,
    figures: Evaluated,
    *,
    note: str,
    chosen_by: str,
    allowed_labels: Sequence[str] = SENTIMENT_LABELS,
    extra: Mapping[str, Any] | None = None,
) -> Policy:
    """Return a policy with the evidence it rests on: run, rows, figures with intervals, stamp.

    Args:
        candidate: What was decided on; its title is the policy's name.
        run: Whose scores.
        dataset: The run's.
        figures: Of the candidate on those scores.
        note: Why, in the user's words.
        chosen_by: The rule that chose the threshold, in words.
        allowed_labels: Of sentiment.
        extra: Further evidence.
    """
    mode, is_tone = candidate.mode, run.task is Task.SENTIMENT
    uses_model = mode is not Mode.HEURISTIC
    guard = run.stamp.get("guard") if uses_model else None
    metrics = {
        name: {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}
        for name, figure in figures.metrics.items()
        if figure.value is not None
    }
    return Policy(
        name=candidate.title.strip(),
        task=run.task,
        mode=mode,
        threshold=candidate.threshold,
        bands=candidate.bands,
        model_id=run.model_id if uses_model and not guard else None,
        variant=Variant(run.variant) if uses_model and run.variant and not guard else None,
        model_sha256=run.model_sha256 if uses_model else None,
        guard=guard["name"] if guard else None,
        guard_version=(guard["version"] or None) if guard else None,
        rules_version=run.stamp.get("rules_version") if mode is not Mode.ML else None,
        allowed_labels=tuple(allowed_labels) if is_tone else SENTIMENT_LABELS,
        note=note.strip(),
        evidence={
            "run": run.run_id,
            "dataset": dataset.title,
            "dataset_hash": dataset.content_hash,
            "rows": figures.n,
            "errors": figures.errors,
            "chosen_by": chosen_by,
            "figures": metrics,
            "latency_p95_ms": figures.latency.p95,
            **(extra or {}),
        },
    )

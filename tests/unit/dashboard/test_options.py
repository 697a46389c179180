"""Ways to judge a run: which modes, policies and other runs are offered, and by what words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dashboard.options import judge_options, mode_options, policy_options, run_options
from shield_engine.config import Bands
from shield_engine.decide.candidates import Candidate
from shield_engine.policy import Policy
from shield_engine.store import RunInfo
from shield_engine.types import Mode, Task, Variant

KEYS = ["mode:heuristic", "mode:ml", "mode:hybrid", "mode:both"]


def run_of(
    run_id: str, dataset_id: str = "d1", parts: tuple[str, ...] = ("heuristic", "ml")
) -> RunInfo:
    """Return a finished run."""
    return RunInfo(
        run_id, dataset_id, Task.PROMPT_INJECTION, parts, "mini" if "ml" in parts else None,
        "INT8" if "ml" in parts else None, "a" * 64 if "ml" in parts else None, {}, {}, "done",
        4, 4, 0, None, 1.0, datetime(2025, 1, 1, tzinfo=UTC), None,
    )  # fmt: skip


def test_modes_of_a_run_are_options_at_their_thresholds() -> None:
    """A run of both parts offers four modes; a run of one part that part."""
    options = mode_options(run_of("r1"), {"ml": 0.3})
    assert [option.key for option in options] == KEYS
    assert [option.candidate.threshold for option in options] == [0.5, 0.3, 0.5, 0.5]
    assert [o.key for o in mode_options(run_of("r1", parts=("ml",)), {})] == ["mode:ml"]


def test_policies_are_options_where_they_fit_and_reasons_where_not() -> None:
    """Another task's policies are not even mentioned; another model's are refused with the model."""
    policies = [
        Policy("strict", Task.PROMPT_INJECTION, Mode.HYBRID, 0.2, Bands(0.8), "mini", Variant.INT8,
               "a" * 64, version=2),
        Policy("old", Task.PROMPT_INJECTION, Mode.ML, 0.4, Bands(), "mini", Variant.INT8, "b" * 64,
               version=1),
        Policy("tox", Task.TOXICITY, Mode.HEURISTIC, 0.4, version=1),
    ]  # fmt: skip
    options, reasons = policy_options(run_of("r1"), policies)
    assert [(o.key, o.label) for o in options] == [
        ("policy:strict:2", "Policy strict v2 (Hybrid, threshold 0.2)")
    ]
    assert options[0].candidate == Candidate("r1", Mode.HYBRID, 0.2, Bands(0.8), "Policy strict v2")
    assert len(reasons) == 1
    assert "policy old v1 cannot be judged" in reasons[0]


def test_other_runs_are_options_those_of_the_same_dataset_first() -> None:
    """The run itself, older runs alike and its own rules are left out; names are made visible."""
    others = [
        run_of("r1"),
        run_of("far-away", "d2", ("ml",)),
        replace(run_of("near-by", "d1"), model_id="other"),
        replace(run_of("near-by-before", "d1"), model_id="other"),
    ]
    options = run_options(run_of("r1"), others, {"d2": "a\u200bb"}, lambda _: {"ml": 0.7})
    assert [option.key for option in options] == [
        *(f"run:near-by:{mode}" for mode in ("ml", "hybrid", "both")),
        "run:far-away:ml",
    ]
    assert [option.candidate.title for option in options[:3]] == [
        "other INT8",
        "rules + other INT8",
        "rules or other INT8",
    ]
    assert options[-1].label == "mini INT8 on a⟨U+200B⟩b"
    assert options[-1].candidate.threshold == 0.7


def policy_of(name: str, mode: Mode, **changes: Any) -> Policy:
    """Return a stored policy."""
    given: dict[str, Any] = {"model_id": "mini", "variant": Variant.INT8, "version": 2} | changes
    return Policy(name, Task.PROMPT_INJECTION, mode, 0.62, Bands(0.8), **given)


def test_modes_and_fitting_policies_can_judge() -> None:
    """Modes come at their balanced thresholds; policies of another model or part are left out."""
    given = [
        policy_of("strict", Mode.HYBRID),
        policy_of("other model", Mode.ML, model_sha256="zzz"),
        Policy("toxic", Task.TOXICITY, Mode.HEURISTIC, 0.1),
    ]
    options = judge_options(run_of("r1"), {"ml": 0.7}, given)
    assert list(options) == ["heuristic", "ml", "hybrid", "both", "policy:strict:2"]
    assert [option.threshold for option in options.values()] == [0.5, 0.7, 0.5, 0.5, 0.62]
    assert options["policy:strict:2"].candidate.bands == Bands(0.8)
    assert options["policy:strict:2"].label == "Policy strict v2 (hybrid)"
    assert list(judge_options(run_of("r1", parts=("heuristic",)), {}, given)) == ["heuristic"]

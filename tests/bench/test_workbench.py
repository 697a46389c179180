"""The workbench benchmark proves its answers; no time is asserted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shield_engine.benchmark import run_workbench, workbench
from shield_engine.benchmark.workbench import synthetic_run
from shield_engine.errors import ShieldError
from shield_engine.store import Store


def test_every_operation_is_timed_and_counted() -> None:
    """Each operation has a first call, p50 and p95 of the calls asked for; users' calls add up."""
    document = run_workbench(3_000, calls=4)
    figures = {figure["name"]: figure for figure in document["figures"]}
    assert figures["workbench.rows.page.first"]["n"] == 1
    assert figures["workbench.rows.page.p50"]["n"] == 4
    assert figures["workbench.open.compare_four_modes.p95"]["n"] == 3
    assert figures["workbench.four_users.p50"]["n"] == 16
    assert all(figure["value"] > 0 for figure in figures.values())
    assert figures["workbench.rows.page.p50"]["detail"]["rows"] == 3_000


def test_a_wrong_answer_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that is off by one is an error that names the operation."""
    right = workbench.count_rows

    def wrong(*arguments: Any) -> Any:
        found = right(*arguments)
        return replace(found, false_positives=found.false_positives + 1)

    monkeypatch.setattr(workbench, "count_rows", wrong)
    with pytest.raises(ShieldError, match="count_by_kind answered"):
        run_workbench(2_000, calls=3)


def test_the_same_seed_makes_the_same_run() -> None:
    """The synthetic run repeats, so two benchmarks ask the same questions."""
    with Store.in_memory() as one, Store.in_memory() as other:
        first, second = synthetic_run(one, 1_500), synthetic_run(other, 1_500)
        before, after = one.runs.scores(first.run_id), other.runs.scores(second.run_id)
    assert before.model is not None
    assert after.model is not None
    assert (before.model == after.model).all()
    assert first.rows_done == 1_500

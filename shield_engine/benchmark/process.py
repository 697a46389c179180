"""What a fresh process costs: memory, and the time to its first verdict."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shield_engine.benchmark.document import Measure
from shield_engine.benchmark.measuring import MeasuredRows, band
from shield_engine.benchmark.subject import Subject
from shield_engine.benchmark.timing import mean_estimate
from shield_engine.errors import ShieldError

__all__ = ["fresh_processes"]


def fresh_processes(subject: Subject) -> MeasuredRows:
    """Start Python anew, load every model and ask what each added."""
    answers = [_probe(subject) for _ in range(subject.effort.processes)]

    def memory(name: str, megabytes: Sequence[float], what: str, target: str | None) -> Measure:
        estimate = mean_estimate(megabytes, "fresh processes")
        detail = {"what": what}
        return Measure(f"memory.{name}", estimate, "MB", "memory", target=target, detail=detail)

    yield Measure(
        "start_to_first_verdict",
        mean_estimate([answer["first_verdict_ms"] for answer in answers], "fresh processes"),
        "ms",
        "load",
        detail={"what": "from starting Python to the first ML verdict, rules built on the way"},
    )
    above = "resident memory above Python with NumPy"
    what = f"{above}: the engine and the injection rules, no model"
    yield memory("engine", [answer["engine_mb"] for answer in answers], what, None)
    for position, entry in enumerate(subject.entries.values()):
        what = "resident memory added by its scanner, its model and one scan"
        if position == 0:
            what += "; the first one brings ONNX Runtime and tokenizers themselves"
        name, target = f"{entry.id}.{entry.variant.value}", band("memory_model", entry)
        yield memory(name, [answer["models_mb"][position] for answer in answers], what, target)
    what = f"{above}: the engine with all three models"
    yield memory("total", [answer["total_mb"] for answer in answers], what, "memory_total")


def _probe(subject: Subject) -> dict[str, Any]:
    """Return what a fresh process measured of itself; see `probe.py`."""
    settings = subject.shield.settings
    order = {
        "home": str(settings.home),
        "registry": str(settings.registry) if settings.registry else None,
        "offline": settings.offline,
        "models": [(task.value, entry.variant.value) for task, entry in subject.entries.items()],
    }
    program = str(Path(__file__).with_name("probe.py"))
    started = time.time()
    # -P keeps this folder off the import path, where `timing` and others would be in the way.
    answer = subprocess.run(
        [sys.executable, "-P", program, json.dumps(order)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if answer.returncode:
        reason = answer.stderr.strip().rpartition("\n")[2] or f"exit code {answer.returncode}"
        raise ShieldError(
            f"memory could not be measured in a fresh process: {reason}; "
            "check that the package is installed and the models are there (shield doctor)"
        )
    measured: dict[str, Any] = json.loads(answer.stdout)
    return {**measured, "first_verdict_ms": (measured["first_verdict_at"] - started) * 1_000}

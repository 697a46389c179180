"""The benchmark: what is measured, in which order, and the document that comes of it.

A section is a generator of rows: it warms up, measures and proves its counts.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from shield_engine.benchmark import model, scan
from shield_engine.benchmark.document import TARGETS, Measure, Target
from shield_engine.benchmark.measuring import MeasuredRows
from shield_engine.benchmark.process import fresh_processes
from shield_engine.benchmark.subject import Effort, Subject
from shield_engine.engine import Shield
from shield_engine.settings import usable_cpus

__all__ = ["collected", "run_benchmark"]

_Progress = Callable[[str, float], None]

_SECTIONS: tuple[tuple[str, float, Callable[[Subject], MeasuredRows]], ...] = (
    ("loading models", 1, model.loading),
    ("tokenizing", 0.5, model.tokenizing),
    ("inference", 8, model.inference),
    ("against bare ONNX Runtime", 2, model.against_bare),
    ("INT8 against others", 2, model.variants),
    ("cache", 0.5, scan.caching),
    ("cache sizes", 0.5, scan.hit_rates),
    ("heuristics", 5, scan.heuristics),
    ("matcher against re", 1, scan.matching),
    ("end to end", 8, scan.end_to_end),
    ("three scanners", 4, scan.three_scanners),
    ("peers", 2, model.peers),
    ("throughput", 6, scan.throughput),
    ("traffic replay", 1.5, scan.replay),
    ("open traffic", 8, scan.arrivals),
    ("fresh processes", 3, fresh_processes),
)
"""Title, about how many seconds of a quick run, and the section."""


def run_benchmark(
    shield: Shield,
    *,
    quick: bool = False,
    on_progress: _Progress | None = None,
    effort: Effort | None = None,
) -> dict[str, Any]:
    """Measure this machine and return the document that is stored, shown and compared.

    Takes some minutes, with `quick` well under one; a quick p99 has no upper bound.

    Args:
        shield: The engine to measure; its scanners and caches are left alone.
        quick: Fewer repetitions.
        on_progress: Called with a title and the share done, 0..1.
        effort: Other repetitions than those of `quick` or of the default suite.

    Returns:
        JSON-safe: `format`, `created_at`, `quick`, `seconds`, `machine`, `figures`, `ratios`,
        `targets`. An end of an interval may be `None`; a ratio that this machine cannot show
        is absent.

    Raises:
        ShieldError: A model or sample is missing, a scan fails, or counts do not add up.
    """
    chosen = effort or (Effort.quick() if quick else Effort.full())
    return collected(_measured(shield, chosen, on_progress), quick=quick, targets=TARGETS)


def _measured(shield: Shield, effort: Effort, on_progress: _Progress | None) -> MeasuredRows:
    subject = Subject.of(shield, effort)
    whole, done = sum(weight for _, weight, _ in _SECTIONS), 0.0
    for title, weight, section in _SECTIONS:
        if on_progress is not None:
            on_progress(title, done / whole)
        yield from section(subject)
        done += weight
    if on_progress is not None:
        on_progress("done", 1.0)


def collected(
    measured: MeasuredRows, *, quick: bool, targets: Sequence[Target] = ()
) -> dict[str, Any]:
    """Return the document of what `measured` yields, and how long that took."""
    started = time.perf_counter()
    document: dict[str, Any] = {
        "format": 1,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": _machine_facts(),
        "figures": [],
        "ratios": [],
        "targets": [target.as_dict() for target in targets],
    }
    for row in measured:
        document["figures" if isinstance(row, Measure) else "ratios"].append(row.as_dict())
    return {**document, "seconds": time.perf_counter() - started}


def _machine_facts() -> dict[str, Any]:
    """Return what tells one machine from another, and how busy it was at the start."""
    import psutil

    packages = ("llm-shield", "google-re2", "numpy", "onnxruntime", "tokenizers")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cpus(),
        "memory_mb": psutil.virtual_memory().total // 1_000_000,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "load_1_minute": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []  # not Linux
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

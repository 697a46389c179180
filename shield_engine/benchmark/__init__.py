"""Measures this machine, and shows and compares what was measured."""

from __future__ import annotations

from shield_engine.benchmark.document import (
    TARGETS,
    Target,
    benchmark_markdown,
    compare_benchmarks,
    comparison_markdown,
    number,
    read_document,
)
from shield_engine.benchmark.run import run_benchmark
from shield_engine.benchmark.soak import run_soak
from shield_engine.benchmark.workbench import run_workbench

__all__ = [
    "TARGETS",
    "Target",
    "benchmark_markdown",
    "compare_benchmarks",
    "comparison_markdown",
    "number",
    "read_document",
    "run_benchmark",
    "run_soak",
    "run_workbench",
]

"""Measures this machine, and shows and compares what was measured."""

from __future__ import annotations

from shield_engine.benchmark.document import TARGETS, Target, as_markdown, compare
from shield_engine.benchmark.suite import run_benchmark
from shield_engine.benchmark.workbench import run_workbench

__all__ = ["TARGETS", "Target", "as_markdown", "compare", "run_benchmark", "run_workbench"]

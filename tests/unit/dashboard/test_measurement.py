"""One benchmark at a time in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dashboard.performance.measurement import Measurement
from shield_engine.errors import ShieldError

Note = Callable[[str, float], None]
WAIT_S = 30


def test_a_second_start_leaves_the_first_alone() -> None:
    """While one measures, its progress shows and another start does nothing."""
    noted, go_on = threading.Event(), threading.Event()
    kept: list[dict[str, Any]] = []

    def measure(note: Note) -> dict[str, Any]:
        note("halfway", 0.5)
        noted.set()
        assert go_on.wait(WAIT_S)
        return {"format": 1}

    def keep(document: dict[str, Any]) -> str:
        kept.append(document)
        return "abc"

    measurement = Measurement()
    assert not measurement.is_active
    assert measurement.start(measure, keep)
    assert noted.wait(WAIT_S)
    assert (measurement.title, measurement.share) == ("halfway", 0.5)
    assert measurement.is_active
    assert not measurement.start(measure, keep)
    go_on.set()
    measurement.wait(WAIT_S)
    assert not measurement.is_active
    assert measurement.benchmark_id == "abc"
    assert kept == [{"format": 1}]


def test_a_failure_is_kept_and_logged_until_the_next_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error in the thread reaches whoever looks, and does not block the next measurement."""

    def fail(note: Note) -> dict[str, Any]:
        raise ShieldError("a model is missing")

    measurement = Measurement()
    with caplog.at_level(logging.ERROR):
        measurement.start(fail, lambda document: "never")
        measurement.wait(WAIT_S)
    assert str(measurement.error) == "a model is missing"
    assert measurement.benchmark_id is None
    assert "ended early" in caplog.text
    assert measurement.start(lambda note: {}, lambda document: "next")
    measurement.wait(WAIT_S)
    assert measurement.error is None
    assert measurement.benchmark_id == "next"

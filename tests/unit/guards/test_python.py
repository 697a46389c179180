"""A Python function is a guard: its answers are checked, its faults are row errors."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import pytest

from shield_engine.errors import ConfigError
from shield_engine.guards.entry import PythonEntry
from shield_engine.guards.python import PythonGuard, probabilities_of
from shield_engine.types import Task

HERE = "tests.unit.guards.test_python"
NOT_CALLABLE = 3


def risk(text: str) -> float:
    """Return a risk, or misbehave as the text says."""
    if text == "raise":
        raise ZeroDivisionError(text)
    if text == "exit":
        raise SystemExit(3)
    if text == "hang":
        time.sleep(1)
    return {"nan": float("nan"), "high": 2.0}.get(text, 0.25)


def made(level: float) -> Any:
    """Return a function of a fixed risk."""
    return lambda _text: level


def entry(name: str = "risk", **changes: Any) -> PythonEntry:
    """Return an entry of a function of this module."""
    values = {"name": "house", "task": Task.PROMPT_INJECTION, "callable": f"{HERE}:{name}"}
    return PythonEntry(**{**values, **changes})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("fine", None),
        ("raise", "raised ZeroDivisionError"),
        ("exit", "raised RuntimeError"),
        ("nan", "gave nan, which is not in 0..1"),
        ("high", "gave 2.0, which is not in 0..1"),
    ],
)
def test_each_text_gets_a_score_or_an_error(text: str, error: str | None) -> None:
    """A risk becomes two probabilities; a fault becomes the row's error without the text."""
    with closing(PythonGuard(entry())) as guard:
        (reply,) = guard.ask([text])
    assert reply.error == error
    assert reply.probabilities == (None if error else (0.75, 0.25))


def test_a_factory_makes_the_function_from_options() -> None:
    """With `factory` the callable is called once with the options and gives the function."""
    with closing(PythonGuard(entry("made", factory=True, options={"level": 0.5}))) as guard:
        assert guard.ask(["a", "b"])[1].probabilities == (0.5, 0.5)


def test_a_text_that_hangs_does_not_hold_the_next() -> None:
    """A text that takes too long is an error, and the next one is asked at once."""
    with closing(PythonGuard(entry(timeout_s=0.05))) as guard:
        assert guard.ask(["hang"])[0].error == "no answer within 0.05 s"
        assert guard.ask(["fine"])[0].probabilities == (0.75, 0.25)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package.x:y", "cannot be imported: No module named 'no_such_package'"),
        (f"{HERE}:nothing", "is not there: module"),
        (f"{HERE}:NOT_CALLABLE", "is int, which cannot be called"),
        ("unknown", "is not there: no installed package offers it; offered: none"),
    ],
)
def test_a_callable_that_is_not_there_is_refused(name: str, message: str) -> None:
    """What cannot be imported or called is named before any text is asked."""
    with pytest.raises(ConfigError, match="guard house: callable") as caught:
        PythonGuard(entry(callable=name))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "task", "expected"),
    [
        (1, Task.TOXICITY, (0.0, 1.0)),
        ([0.2, 0.3, 0.5], Task.SENTIMENT, (0.2, 0.3, 0.5)),
        ({"positive": 0.5, "negative": 0.2, "neutral": 0.3}, Task.SENTIMENT, (0.2, 0.3, 0.5)),
    ],
)
def test_every_shape_of_answer_is_understood(
    answer: Any, task: Task, expected: tuple[float, ...]
) -> None:
    """A risk, a sequence and a mapping give the probabilities in the order of the labels."""
    assert probabilities_of(answer, task) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "task", "message"),
    [
        ("high", Task.TOXICITY, "gave 4 numbers|gave str"),
        (True, Task.TOXICITY, "gave bool, not a number"),
        (None, Task.TOXICITY, "gave NoneType, not a number"),
        (0.5, Task.SENTIMENT, "gave one number; sentiment needs"),
        ([0.5, 0.6], Task.TOXICITY, "sum to 1.100"),
        ([0.5], Task.TOXICITY, "gave 1 numbers for 2 labels"),
        ({"positive": 1.0}, Task.SENTIMENT, "has no label negative"),
    ],
)
def test_other_shapes_are_refused(answer: Any, task: Task, message: str) -> None:
    """What is no probability is refused with what it was."""
    with pytest.raises(ValueError, match=message):
        probabilities_of(answer, task)

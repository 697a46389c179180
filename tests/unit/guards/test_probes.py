"""Each probe passes a sound guard and fails one that has the fault it looks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from shield_engine.errors import InferenceError
from shield_engine.guards import PythonEntry, Reply
from shield_engine.guards.answers import score_of
from shield_engine.guards.probes import ATTACKS, CALLS, HARMLESS, Probe, check_guard
from shield_engine.guards.python import probabilities_of
from shield_engine.ml import MLScore
from shield_engine.types import Task

_RISKY = ("instructions", "rules", "bypass", "override", "prompt.")


def sound(text: str) -> float:
    """Score by words, with a little of the length, so that scores differ."""
    is_risky = any(word in text.casefold() for word in _RISKY)
    return (0.85 if is_risky else 0.05) + len(text) % 10 / 100


class FunctionGuard:
    """A guard that is a function; what it raises is the row's error, or comes through."""

    def __init__(
        self, function: Callable[[str], Any], *, lets_through: bool = False, **fields: Any
    ) -> None:
        values: dict[str, Any] = {"name": "fake", "task": Task.PROMPT_INJECTION, **fields}
        self.entry = PythonEntry(callable="fake:risk", **values)
        self.function = function
        self.lets_through = lets_through
        self.asked: list[str] = []

    def ask(self, texts: Sequence[str]) -> list[Reply]:
        """Return one reply a text."""
        self.asked += texts
        return [self._ask(text) for text in texts]

    def _ask(self, text: str) -> Reply:
        try:
            return Reply(probabilities_of(self.function(text), self.entry.task))
        except Exception as error:
            if self.lets_through:
                raise
            return Reply(None, f"raised {type(error).__name__}")

    def close(self) -> None:
        """Do nothing."""

    def check(self, **limits: float) -> dict[str, Probe]:
        """Return its probes by name."""
        probes = check_guard(self.entry, lambda text: score_of(self, text), self.ask, **limits)
        return {probe.name: probe for probe in probes}


def noisy() -> Callable[[str], float]:
    """Return a guard whose score drifts from call to call."""
    calls = iter(range(10_000))
    return lambda text: sound(text) * (1 - next(calls) % 7 / 50)


def remembering() -> Callable[[str], float]:
    """Return a guard whose score depends on the text before."""
    last = [""]

    def risk(text: str) -> float:
        before, last[0] = last[0], text
        return sound(text) * (0.9 if sound(before) > 0.5 else 1)

    return risk


def encoding(text: str) -> float:
    """Fail on what UTF-8 cannot hold."""
    text.encode()
    return sound(text)


def swallowing(text: str) -> float:
    """Pass what UTF-8 cannot hold."""
    try:
        return encoding(text)
    except UnicodeEncodeError:
        return 0.0


def empty_refusing(text: str) -> float:
    """Fail on nothing to read."""
    return sound(text) if text.strip() else 1 / len(text.strip())


def test_a_sound_guard_passes() -> None:
    """Every probe that judges passes; latency is reported for 1 caller and for 8."""
    probes = FunctionGuard(sound, batch=4).check()
    assert {name for name, probe in probes.items() if not probe.passed} == {"latency"}
    assert probes["latency"].passed is None
    assert probes["latency"].evidence.count("p50") == probes["latency"].evidence.count("p95") == 2
    assert all(probe.title.endswith(".") and probe.evidence for probe in probes.values())


@pytest.mark.parametrize(
    ("name", "function", "fields"),
    [
        ("attack", lambda text: 0.3 + len(text) % 2 / 2, {}),
        ("side", lambda text: 1 - sound(text), {}),
        ("range", lambda text: 0.5 + sound(text) / 10, {}),
        ("repeat", noisy(), {}),
        ("order", remembering(), {}),
        ("long", lambda text: sound(text[:2_000]), {}),
        ("chat", lambda text: sound(text.rsplit("\n", 1)[-1]), {}),
        ("empty", empty_refusing, {"lets_through": True}),
        ("characters", encoding, {"lets_through": True}),
        ("errors", swallowing, {}),
        ("errors", encoding, {"lets_through": True}),
    ],
)
def test_a_faulty_guard_fails_its_probe(
    name: str, function: Callable[[str], float], fields: dict[str, Any]
) -> None:
    """The probe of a fault fails, with evidence."""
    probe = FunctionGuard(function, **fields).check()[name]
    assert probe.passed is False, probe
    assert probe.evidence


def test_a_turned_score_is_named() -> None:
    """A score of the safe label is told as such."""
    assert "turned round" in FunctionGuard(lambda text: 1 - sound(text)).check()["side"].evidence


def test_a_batch_that_mixes_texts_fails() -> None:
    """A score that depends on the neighbours in a batch is found."""

    class Mixing(FunctionGuard):
        def ask(self, texts: Sequence[str]) -> list[Reply]:
            mean = sum(map(sound, texts)) / len(texts)
            return [Reply((1 - mean, mean)) for _ in texts]

    assert Mixing(sound, batch=6).check()["batch"].passed is False


def test_a_batch_of_too_few_answers_fails() -> None:
    """A batch that gives another number of answers is found."""

    class Short(FunctionGuard):
        def ask(self, texts: Sequence[str]) -> list[Reply]:
            return super().ask(texts)[: max(1, len(texts) - 1)]

    probe = Short(sound, batch=6).check()["batch"]
    assert probe.passed is False
    assert "5 answers came for 6 texts" in probe.evidence


def test_a_clear_error_is_no_fault() -> None:
    """A guard that says that it cannot read a text passes the probes of odd texts."""
    probes = FunctionGuard(encoding).check()
    assert probes["characters"].passed
    assert probes["errors"].passed
    assert "UnicodeEncodeError" in probes["errors"].evidence


def test_a_hanging_call_is_left_behind() -> None:
    """A megabyte that never comes back fails its probe, and the check ends."""

    def hanging(text: str) -> float:
        if len(text) > 500_000:
            time.sleep(30)
        return sound(text)

    probe = FunctionGuard(hanging).check(call_s=0.5)["megabyte"]
    assert probe.passed is False
    assert "no answer within" in probe.evidence


@pytest.mark.parametrize("wrong", [float("nan"), 1.5])
def test_what_is_no_probability_is_an_error(wrong: float) -> None:
    """A score that is NaN or outside 0..1 fails, whatever the guard calls it."""

    def ask(text: str) -> MLScore:
        risk = wrong if "egg" in text else sound(text)
        return MLScore(risk, (1 - risk, risk), (0, len(text)), 1, 0, 0.0, 0.0)

    entry = FunctionGuard(sound).entry
    probes = {probe.name: probe for probe in check_guard(entry, ask)}
    assert probes["errors"].passed is False
    assert "no probability" in probes["errors"].evidence


def test_a_silent_guard_is_asked_no_further() -> None:
    """After three failures at the start nothing more is asked, and the reason is told."""
    asked = []

    def ask(text: str) -> MLScore:
        asked.append(text)
        raise InferenceError("status 401")

    probes = check_guard(FunctionGuard(sound).entry, ask)
    assert len(asked) == 3
    assert probes[0].passed is False
    assert "status 401" in probes[0].evidence
    assert {probe.passed for probe in probes[1:]} == {None}


def test_a_check_costs_what_it_says() -> None:
    """A check asks about `CALLS` texts where every probe applies."""
    guard = FunctionGuard(sound, batch=4)
    guard.check()
    assert len(guard.asked) == CALLS


def test_a_check_ends_in_time() -> None:
    """Probes that time leaves no room for are named, not passed."""

    def slow(text: str) -> float:
        time.sleep(0.03)
        return sound(text)

    probes = FunctionGuard(slow).check(check_s=0.6)
    assert probes["megabyte"].passed is None
    assert "not tried" in probes["megabyte"].evidence


def test_a_declared_limit_is_no_fault() -> None:
    """A guard that says how much it reads is not blamed for the end of a longer text."""
    probe = FunctionGuard(lambda text: sound(text[:2_000]), longest_text=2_000).check()["long"]
    assert probe.passed is None
    assert "2,000" in probe.evidence


def test_a_sentiment_is_judged_as_a_whole() -> None:
    """The two probes of a hidden attack do not apply to a sentiment."""
    risky = set(ATTACKS[Task.SENTIMENT])

    def mood(text: str) -> tuple[float, ...]:
        return (0.8, 0.1, 0.1) if text in risky else (0.1, 0.1, 0.8)

    probes = FunctionGuard(mood, task=Task.SENTIMENT).check()
    assert probes["long"].passed is None
    assert probes["chat"].passed is None
    assert probes["attack"].passed


@pytest.mark.parametrize("task", list(Task))
def test_each_task_has_its_texts(task: Task) -> None:
    """There are six different texts of each side."""
    assert len({*ATTACKS[task], *HARMLESS[task]}) == 12
    assert len(ATTACKS[task]) == len(HARMLESS[task])

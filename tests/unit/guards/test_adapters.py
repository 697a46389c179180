"""Adapters of packages of other makers; those that bring weights are stood in for by modules."""

from __future__ import annotations

import sys
from contextlib import closing
from importlib import metadata, util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shield_engine.guards import PythonEntry, Reply, open_guard
from shield_engine.guards.adapters import installed_peers
from shield_engine.types import Task


def replies(entry: PythonEntry, *texts: str) -> list[Reply]:
    """Return what a guard says of each text."""
    with closing(open_guard(entry)) as guard:
        return [guard.ask([text])[0] for text in texts]


def adapter(name: str, **options: Any) -> PythonEntry:
    """Return an entry of one of our adapters."""
    return PythonEntry(
        name=name,
        task=Task.PROMPT_INJECTION,
        callable=f"shield_engine.guards.adapters:{name}",
        factory=True,
        options=options,
    )


def test_absent_packages_are_no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only packages that are installed are offered."""
    monkeypatch.setattr(util, "find_spec", lambda _name: None)
    assert installed_peers(Task.PROMPT_INJECTION) == ()


def test_vader_speaks_by_its_own_cuts() -> None:
    """Its label gets all the probability."""
    (entry,) = installed_peers(Task.SENTIMENT)
    texts = "What a wonderful day, I love it!", "This is horrible.", "The train leaves at nine."
    labels = [np.argmax(reply.probabilities or ()) for reply in replies(entry, *texts)]
    assert labels == [2, 0, 1]


def test_packages_are_asked_as_they_want(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """StackOne with its own divisor and threshold, alt-profanity-check by probability."""
    (tmp_path / "classifier_config.json").write_text(
        '{"calibration": {"temperatureT": 2.0, "highRiskThreshold": 0.6}}'
    )

    class Classifier:
        def __init__(self, temperature_t: float) -> None:
            self.divisor = temperature_t

        def classify(self, text: str) -> float:
            return len(text) / 10 / self.divisor

    def module(name: str, **contents: Any) -> None:
        made = ModuleType(name)
        made.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, made)

    module("stackone_defender")
    module("stackone_defender.classifiers")
    module(
        "stackone_defender.classifiers.onnx_classifier",
        OnnxClassifier=Classifier,
        get_default_model_path=lambda: str(tmp_path),
    )
    module("profanity_check", predict_prob=lambda texts: np.array([0.25] * len(texts)))
    monkeypatch.setattr(util, "find_spec", lambda _name: object())
    monkeypatch.setattr(metadata, "version", lambda _name: "9.9")
    (stackone,) = installed_peers(Task.PROMPT_INJECTION)
    assert (stackone.threshold, stackone.title) == (0.6, "stackone-defender 9.9")
    assert replies(stackone, "abcdefgh")[0].probabilities == pytest.approx((0.6, 0.4))
    (profanity,) = installed_peers(Task.TOXICITY)
    assert replies(profanity, "any")[0].probabilities == (0.75, 0.25)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"valid": False, "score": 0.9}, 0.9),
        ({"valid": False, "score": None}, 1.0),
        ({"valid": True, "score": None}, 0.0),
        ({"valid": None, "score": None}, "raised ValueError"),
        ({"valid": False, "score": None, "extra": {"parse_failure": True}}, "raised ValueError"),
    ],
)
def test_any_guardrail_gives_score_or_verdict(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], expected: float | str
) -> None:
    """A score counts before a verdict; an answer that could not be read is an error."""
    made = ModuleType("any_guardrail")
    guard = SimpleNamespace(validate=lambda _text: SimpleNamespace(**answer))
    made.__dict__.update(
        GuardrailName=str, AnyGuardrail=SimpleNamespace(create=lambda _name, **_: guard)
    )
    monkeypatch.setitem(sys.modules, "any_guardrail", made)
    (reply,) = replies(adapter("any_guardrail", guardrail="prompt_guard"), "text")
    told = reply.error if reply.probabilities is None else reply.probabilities[1]
    assert told == expected


@pytest.mark.parametrize(("score", "risk"), [(-1.0, 0.0), (0.0, 0.5), (0.4, 0.7), (1.0, 1.0)])
def test_llm_guard_scores_are_stretched(
    monkeypatch: pytest.MonkeyPatch, score: float, risk: float
) -> None:
    """Scores from -1 to 1 become risks with the scanner's own threshold at one half."""
    made = ModuleType("gorget.input_scanners")
    scanner = SimpleNamespace(scan=lambda text: (text, True, score))
    made.__dict__.update(PromptInjection=lambda **_: scanner)
    monkeypatch.setitem(sys.modules, "gorget", ModuleType("gorget"))
    monkeypatch.setitem(sys.modules, "gorget.input_scanners", made)
    (reply,) = replies(adapter("llm_guard", scanner="PromptInjection"), "text")
    assert reply.probabilities == pytest.approx((1 - risk, risk))

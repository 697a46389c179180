"""Peers: scanners of other makers on a run's rows; packages are stood in for by modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from shield_engine.decide.figures import evaluate_peer, evaluate_run
from shield_engine.errors import ConfigError
from shield_engine.guards.peers import WrappedPeer, installed_peers
from shield_engine.store import Store
from shield_engine.types import Mode, Task
from tests.stored_runs import add_dataset, add_run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty store."""
    made = Store.open(tmp_path / "shield.duckdb")
    yield made
    made.close()


def test_a_peer_is_judged_on_the_rows_of_the_run(store: Store) -> None:
    """The same scores give the figures of the model; a failure is that row's error."""
    labels = [0, 1, 0, 1, 1, 0]
    scores = [0.2, 0.9, 0.6, 0.7, 0.1, 0.3]
    dataset = add_dataset(store, labels)
    run = add_run(store, dataset, scores)
    by_text = {f"text {place}": score for place, score in enumerate(scores)}
    asked: list[str] = []

    def ask(text: str) -> tuple[float, ...]:
        asked.append(text)
        return 1 - by_text[text], by_text[text]

    peer = WrappedPeer("other", Task.PROMPT_INJECTION, 0.5, "1.0", ask)
    theirs = evaluate_peer(store, run.run_id, peer, workers=2)
    ours = evaluate_run(store, run.run_id, modes=[Mode.ML])[Mode.ML]
    assert sorted(asked) == sorted(by_text)
    assert theirs.metrics == ours.metrics
    assert (theirs.n, theirs.errors, theirs.asked, theirs.variant) == (6, 0, 0, "1.0")
    assert theirs.latency.n == 6

    del by_text["text 3"]
    broken = evaluate_peer(store, run.run_id, peer)
    assert (broken.n, broken.errors) == (5, 1)
    strict = WrappedPeer("strict", Task.PROMPT_INJECTION, 0.95, "1.0", ask)
    assert evaluate_peer(store, run.run_id, strict).flagged == 0
    with pytest.raises(ConfigError, match="other is for toxicity"):
        evaluate_peer(store, run.run_id, WrappedPeer("other", Task.TOXICITY, 0.5, "1", ask))


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which package is missing and how to get it."""
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"stackone_defender.*llm-shield\[peers\]"):
        installed_peers(Task.PROMPT_INJECTION)


def test_vader_speaks_by_its_own_cuts() -> None:
    """Its label gets all the probability; there is no threshold."""
    (peer,) = installed_peers(Task.SENTIMENT)
    assert peer.threshold is None
    assert np.argmax(peer.score("What a wonderful day, I love it!")) == 2
    assert np.argmax(peer.score("This is horrible and I hate it.")) == 0
    assert np.argmax(peer.score("The train leaves at nine.")) == 1


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
    monkeypatch.setattr(util, "find_spec", lambda name: object())
    monkeypatch.setattr(metadata, "version", lambda name: "9.9")
    (stackone,) = installed_peers(Task.PROMPT_INJECTION)
    assert (stackone.threshold, stackone.version) == (0.6, "9.9")
    assert stackone.score("abcdefgh") == pytest.approx((0.6, 0.4))
    (profanity,) = installed_peers(Task.TOXICITY)
    assert profanity.score("any") == (0.75, 0.25)

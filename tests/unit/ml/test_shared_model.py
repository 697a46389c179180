"""One file with a head for each task: one session, one pass, the same scores as alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shield_engine.errors import ArtifactError
from shield_engine.ml import ArtifactStore, InferenceEngine, ModelLoader, ModelRegistry
from shield_engine.ml.loader import Handover, WindowLogits
from shield_engine.ml.tokenizer import Place
from shield_engine.types import Task
from tests import tiny_models

TEXT = "ignore terrible awful"
LONG = "the quick brown fox jumps over the lazy dog. " * 6 + TEXT


class CountingSession:
    """Passes calls on to a session and counts them."""

    def __init__(self, session: object) -> None:
        self.session = session
        self.calls = 0

    def run(self, *arguments: object) -> object:
        """Run and count."""
        self.calls += 1
        return self.session.run(*arguments)  # type: ignore[attr-defined]


def _engines(folder: Path) -> tuple[dict[Task, InferenceEngine], CountingSession]:
    rows = tiny_models.build_shared(folder)
    registry = ModelRegistry.load(tiny_models.write_registry(folder, *rows))
    loader = ModelLoader(registry, ArtifactStore(folder / "cache", offline=True))
    models = [loader.load(entry) for entry in registry.entries]
    assert len({id(model.session) for model in models}) == 1
    session = CountingSession(models[0].session)
    for model in models:
        object.__setattr__(model, "session", session)
    return {model.entry.task: InferenceEngine(model) for model in models}, session


def test_three_scanners_cost_one_pass(tmp_path: Path) -> None:
    """The first task runs the model once; the two others take what that pass left them."""
    engines, session = _engines(tmp_path)
    scores = {task: engine.infer(TEXT) for task, engine in engines.items()}
    assert session.calls == scores[Task.TOXICITY].windows == 1
    assert scores[Task.PROMPT_INJECTION].score > 0.9
    assert scores[Task.TOXICITY].score > 0.9
    assert scores[Task.SENTIMENT].probabilities[0] > 0.8
    assert scores[Task.SENTIMENT].infer_ms == scores[Task.SENTIMENT].tokenize_ms == 0.0


@pytest.mark.parametrize("text", [TEXT, LONG, ""])
def test_taken_scores_equal_those_of_a_pass_alone(tmp_path: Path, text: str) -> None:
    """Score, probabilities, window and counts are the same to the last bit, long texts included."""
    alone, _ = _engines(tmp_path / "a")
    together, _ = _engines(tmp_path / "b")
    for task in (Task.SENTIMENT, Task.TOXICITY, Task.PROMPT_INJECTION):
        taken = together[task].infer(text)
        for other in alone.values():
            other.model.handover._waiting.clear()  # type: ignore[union-attr]
        fresh = alone[task].infer(text)
        for field in ("score", "probabilities", "window", "windows", "tokens"):
            assert getattr(taken, field) == getattr(fresh, field)


def test_scanning_again_computes_again(tmp_path: Path) -> None:
    """What a pass left is handed out once a task, so a second scan never looks faster than it is."""
    engines, session = _engines(tmp_path)
    for _ in range(3):
        engines[Task.TOXICITY].infer(TEXT)
    assert session.calls == 3
    engines[Task.SENTIMENT].infer(TEXT)
    assert session.calls == 3
    engines[Task.SENTIMENT].infer(TEXT)
    assert session.calls == 4


def test_handover_is_bounded() -> None:
    """Old texts are forgotten, and a text of many windows is not kept at all."""
    window = WindowLogits(Place(0, 1, 1, 1), {"a": np.zeros((1, 2)), "b": np.zeros((1, 2))}, 0.0)
    handover = Handover(texts=2)
    for text in ("one", "two", "three"):
        handover.put(text, [window], ["b"])
    assert handover.take("one", "b") is None
    assert handover.take("two", "a") is None
    assert handover.take("two", "b") == [window]
    assert handover.take("two", "b") is None
    handover.put("long", [window] * 100, ["b"])
    assert handover.take("long", "b") is None


def test_a_budget_counts_a_shared_file_once(tmp_path: Path) -> None:
    """Three entries of one file fit where two files would not; an unloaded one leaves the others."""
    rows = tiny_models.build_shared(tmp_path)
    registry = ModelRegistry.load(tiny_models.write_registry(tmp_path, *rows))
    store = ArtifactStore(tmp_path / "cache", offline=True)
    loader = ModelLoader(registry, store, max_memory_mb=30)
    models = [loader.load(entry) for entry in registry.entries]
    loader.unload(models[0].entry.id, models[0].entry.variant)
    with InferenceEngine(models[1]) as engine:
        assert engine.infer(TEXT).score > 0.9


def test_an_output_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The message names the outputs the file has."""
    row = tiny_models.build_shared(tmp_path)[0] | {"output": "spam"}
    registry = ModelRegistry.load(tiny_models.write_registry(tmp_path, row))
    loader = ModelLoader(registry, ArtifactStore(tmp_path / "cache", offline=True))
    with pytest.raises(ArtifactError, match=r"no output spam; it has prompt_injection, toxicity"):
        loader.load(registry.entries[0])


def test_labels_of_the_own_output_are_checked(tmp_path: Path) -> None:
    """Labels in another order than the file's for that head are refused."""
    row = tiny_models.build_shared(tmp_path)[1] | {"labels": ["toxic", "clean"]}
    registry = ModelRegistry.load(tiny_models.write_registry(tmp_path, row))
    loader = ModelLoader(registry, ArtifactStore(tmp_path / "cache", offline=True))
    with pytest.raises(ArtifactError, match="says its labels are clean, toxic"):
        loader.load(registry.entries[0])


def test_many_windows_need_more_to_be_flagged(tmp_path: Path) -> None:
    """The penalty takes its log-odds times ln(windows) from the riskiest window, and only there."""
    plain = tiny_models.build(tmp_path, name="plain")
    strict = tiny_models.build(tmp_path, name="strict") | {"window_penalty": 1.5}
    registry = ModelRegistry.load(tiny_models.write_registry(tmp_path, plain, strict))
    loader = ModelLoader(registry, ArtifactStore(tmp_path / "cache", offline=True))
    before, after = (InferenceEngine(loader.load(entry)) for entry in registry.entries)
    assert before.infer("ignore").score == after.infer("ignore").score
    old, new = before.infer(LONG), after.infer(LONG)
    odds = np.log(old.score / (1 - old.score)) - np.log(new.score / (1 - new.score))
    assert odds == pytest.approx(1.5 * np.log(old.windows), rel=1e-6)
    assert new.window == old.window
    assert sum(new.probabilities) == pytest.approx(1.0, abs=1e-12)

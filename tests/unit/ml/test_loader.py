"""Models load once, are shared, stay in budget, and are what the registry says."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from shield_engine.errors import ArtifactError, ConfigError
from shield_engine.ml import ArtifactStore, LoadedModel, ModelEntry, ModelFiles, ModelLoader
from shield_engine.ml import ModelRegistry as Registry
from shield_engine.types import Variant
from tests import tiny_models


class _CountingStore(ArtifactStore):
    """The real store, counting how often a model is fetched."""

    fetched = 0

    def fetch(self, entry: ModelEntry, progress: Any = None) -> ModelFiles:
        self.fetched += 1
        return super().fetch(entry, progress)


def _loader(folder: Path, *rows: dict[str, Any], **options: Any) -> ModelLoader:
    registry = Registry.load(tiny_models.write_registry(folder, *rows))
    return ModelLoader(registry, _CountingStore(folder / "cache", offline=True), **options)


def test_eight_threads_load_once(tmp_path: Path) -> None:
    """Eight threads that ask at the same moment get one and the same model."""
    loader = _loader(tmp_path, tiny_models.build(tmp_path))
    entry, start = loader.registry.entries[0], threading.Barrier(8)
    models: list[LoadedModel] = []

    def ask() -> None:
        start.wait()
        models.append(loader.load(entry))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(models) == 8
    assert len({id(model) for model in models}) == 1
    assert loader.loads_ok == 1
    assert loader.artifacts.fetched == 1


def test_loaded_says_what_runs(tmp_path: Path) -> None:
    """`loaded` names id, variant, digest, cost and provider, and forgets what was unloaded."""
    loader = _loader(tmp_path, tiny_models.build(tmp_path))
    entry = loader.registry.entries[0]
    assert loader.loaded() == ()
    first = loader.load(entry)
    (info,) = loader.loaded()
    assert (info.id, info.variant, info.sha256) == ("tiny", Variant.FP32, entry.sha256)
    assert info.load_ms > 0
    assert info.memory_mb >= 0
    assert info.providers == ("CPUExecutionProvider",)
    assert not loader.has_gpu
    assert loader.unload("tiny", Variant.FP32)
    assert not loader.unload("tiny", Variant.FP32)
    assert loader.loaded() == ()
    assert loader.load(entry) is not first


def test_budget_refuses_before_loading(tmp_path: Path) -> None:
    """A model that does not fit beside the others is refused by name, and fits after an unload."""
    rows = [tiny_models.build(tmp_path, name=name) for name in ("one", "two")]
    loader = _loader(tmp_path, *rows, max_memory_mb=30)
    one, two = loader.registry.entries
    loader.load(one)
    with pytest.raises(ArtifactError, match=r"two FP32 needs about 16 MB .* budget of 30 MB"):
        loader.load(two)
    assert loader.artifacts.fetched == 1
    assert loader.loads_failed == 1
    loader.unload("one", Variant.FP32)
    assert loader.load(two).entry is two


def test_failure_is_counted_and_not_remembered(tmp_path: Path) -> None:
    """A missing file fails the load; once it is back, the same call works."""
    loader = _loader(tmp_path, tiny_models.build(tmp_path))
    (tmp_path / "tiny.onnx").rename(tmp_path / "away")
    with pytest.raises(ArtifactError, match="is not a file"):
        loader.load(loader.registry.entries[0])
    assert (loader.loads_ok, loader.loads_failed) == (0, 1)
    (tmp_path / "away").rename(tmp_path / "tiny.onnx")
    loader.load(loader.registry.entries[0])
    assert (loader.loads_ok, loader.loads_failed) == (1, 1)


@pytest.mark.parametrize("metadata", [["benign", "injection"], {"0": "benign", "1": "injection"}])
def test_labels_that_agree_with_the_file_load(tmp_path: Path, metadata: object) -> None:
    """An `id2label` in the file that says the same, as list or object, is accepted."""
    assert tiny_models.load(tmp_path, metadata=metadata).entry.labels == ("benign", "injection")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"0": "injection", "1": "benign"}, "says its labels are injection, benign"),
        ({"1": "benign", "2": "injection"}, "id2label that cannot be read"),
        (7, "id2label that cannot be read"),
    ],
)
def test_labels_that_contradict_the_file_are_refused(
    tmp_path: Path, metadata: object, message: str
) -> None:
    """Labels in another order than the model's own would turn every verdict round."""
    with pytest.raises(ArtifactError, match=message):
        tiny_models.load(tmp_path, metadata=metadata)


def test_wrong_number_of_labels_is_refused(tmp_path: Path) -> None:
    """A graph with two logits cannot be registered with three labels."""
    row = tiny_models.build(tmp_path)
    row |= {"labels": ["benign", "injection", "x"], "label_map": {"x": "injection"}}
    loader = _loader(tmp_path, row)
    with pytest.raises(ArtifactError, match="gives 2 logits but tiny is registered with 3 labels"):
        loader.load(loader.registry.entries[0])


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """Bytes with the right hash that are no ONNX graph, or no tokenizer, are named."""
    row = tiny_models.build(tmp_path)
    swapped = row | {"sources": row["tokenizer_sources"], "sha256": row["tokenizer_sha256"]}
    loader = _loader(tmp_path, swapped)
    with pytest.raises(ArtifactError, match="cannot be opened as an ONNX model"):
        loader.load(loader.registry.entries[0])
    swapped = row | {"tokenizer_sources": row["sources"], "tokenizer_sha256": row["sha256"]}
    loader = _loader(tmp_path, swapped)
    with pytest.raises(ArtifactError, match=r"is not a tokenizer\.json"):
        loader.load(loader.registry.entries[0])


def test_unknown_provider_is_refused(tmp_path: Path) -> None:
    """A provider that this build lacks is an error, never a silent run on the CPU."""
    loader = _loader(
        tmp_path, tiny_models.build(tmp_path), providers=("ImaginaryExecutionProvider",)
    )
    with pytest.raises(ConfigError, match=r"has no ImaginaryExecutionProvider; it has .*CPU"):
        loader.load(loader.registry.entries[0])


@pytest.mark.parametrize("options", [{"intra_threads": 0}, {"max_memory_mb": 0}])
def test_useless_settings_are_refused(tmp_path: Path, options: dict[str, int]) -> None:
    """No threads or no memory is a mistake that shows at once."""
    with pytest.raises(ConfigError, match="must be above 0"):
        _loader(tmp_path, tiny_models.build(tmp_path), **options)

"""The registry finds models, and a mistake in its file is traced to its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shield_engine.errors import RegistryError, UnknownNameError
from shield_engine.ml import ModelRegistry
from shield_engine.types import Task, Variant


def _row(**changes: Any) -> dict[str, Any]:
    row = {
        "id": "tiny",
        "task": "prompt_injection",
        "variant": "INT8",
        "sources": ["tiny.onnx"],
        "sha256": "a" * 64,
        "size_bytes": 10,
        "labels": ["benign", "injection"],
        "revision": "r1",
        "licence": "MIT",
        "max_length": 16,
        "stride": 4,
        "tokenizer_sources": ["tokenizer.json"],
        "tokenizer_sha256": "B" * 64,
        "post_processing": "softmax",
        "thresholds": {"ml": 0.4},
        "metrics": {"accuracy": 0.9},
        "version": "1.2",
        "description": "One.",
    }
    return {key: value for key, value in (row | changes).items() if value is not ...}


def _write(folder: Path, *rows: Any, name: str = "registry.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"schema": 1, "models": rows}, indent=2), encoding="utf-8")
    return path


def _line_of(path: Path, text: str, nth: int = 0) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if text in line][nth]


def test_entry_keeps_what_the_file_says(tmp_path: Path) -> None:
    """Every value arrives typed, digests in lower case, sources relative to the file's folder."""
    entry = ModelRegistry.load(_write(tmp_path, _row())).get("tiny")
    assert entry.task is Task.PROMPT_INJECTION
    assert entry.variant is Variant.INT8
    assert entry.tokenizer_sha256 == "b" * 64
    assert dict(entry.thresholds) == {"ml": 0.4}
    assert entry.root == tmp_path.resolve()
    assert entry.task_index == (0, 1)


def test_bundled_registry_is_valid_and_has_a_model_for_each_task() -> None:
    """The registry that travels with the package passes its own schema."""
    registry = ModelRegistry.load()
    assert {entry.task for entry in registry.entries} == set(Task)
    assert all(registry.default_for(task, Variant.INT8).thresholds for task in Task)


def test_queries_by_id_task_and_variant(tmp_path: Path) -> None:
    """`get`, `find` and `default_for` choose by name, task and variant, in file order."""
    rows = [
        _row(),
        _row(variant="FP32"),
        _row(id="other"),
        _row(id="mood", task="sentiment", labels=["positive", "negative", "neutral"]),
    ]
    registry = ModelRegistry.load(_write(tmp_path, *rows))
    assert registry.get("tiny").variant is Variant.INT8
    assert registry.get("tiny", Variant.FP32).variant is Variant.FP32
    assert [entry.id for entry in registry.find(variant=Variant.INT8)] == ["tiny", "other", "mood"]
    assert registry.default_for(Task.PROMPT_INJECTION, Variant.FP32).id == "tiny"
    assert registry.default_for(Task.SENTIMENT).task_index == (2, 0, 1)
    with pytest.raises(UnknownNameError, match="did you mean tiny"):
        registry.get("tinny")
    with pytest.raises(UnknownNameError, match="has no variant FP16; the registry has INT8, FP32"):
        registry.get("tiny", Variant.FP16)
    with pytest.raises(UnknownNameError, match="no model for toxicity"):
        registry.default_for(Task.TOXICITY)


def test_own_registry_is_read_after_the_first(tmp_path: Path) -> None:
    """Two files make one registry; each entry stays relative to its own file."""
    (tmp_path / "own").mkdir()
    first = _write(tmp_path, _row())
    second = _write(tmp_path / "own", _row(id="mine"))
    registry = ModelRegistry.from_files([first, second])
    assert [entry.id for entry in registry.entries] == ["tiny", "mine"]
    assert registry.get("mine").root == (tmp_path / "own").resolve()


def test_duplicate_entry_names_both_places(tmp_path: Path) -> None:
    """The same id and variant twice, even over two files, is an error at the second place."""
    first = _write(tmp_path, _row())
    second = _write(tmp_path, _row(id="x"), _row(), name="own.json")
    line = _line_of(second, "    {", 1)
    with pytest.raises(RegistryError) as caught:
        ModelRegistry.from_files([first, second])
    message = str(caught.value)
    assert message.startswith(f"{second}:{line}: tiny INT8 is already registered at {first}:4")


def test_newer_revisions_compare_numbers_not_text(tmp_path: Path) -> None:
    """1.10 is newer than 1.2, and 1.2.0 is not."""
    here = ModelRegistry.load(_write(tmp_path, _row(), _row(id="same"), _row(id="gone")))
    rows = _row(version="1.10"), _row(id="same", version="1.2.0"), _row(id="new", version="9")
    catalogue = ModelRegistry.load(_write(tmp_path, *rows, name="catalogue.json"))
    (found,) = here.newer_revisions(catalogue)
    assert (found.current.version, found.newer.version) == ("1.2", "1.10")


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"task": "spam"}, "task", "`task` is 'spam'; it must be one of prompt_injection"),
        ({"variant": "int8"}, "variant", "it must be one of FP32, FP16, INT8"),
        ({"sha256": "xyz"}, "sha256", "64 hexadecimal digits"),
        ({"size_bytes": True}, "size_bytes", "whole number from 1"),
        ({"size_bytes": "10"}, "size_bytes", "whole number from 1"),
        ({"labels": []}, "labels", "list of texts that is not empty"),
        ({"labels": ["benign", "benign"]}, "labels", "names one value twice"),
        ({"labels": ["ok", "bad"]}, "labels", "'ok' is no label of prompt_injection"),
        ({"labels": ["injection"]}, "labels", "no label stands for benign"),
        ({"stride": 9}, "stride", "more than half"),
        ({"thresholds": {"ml": 2}}, "thresholds", "lies in 0..1"),
        ({"thresholds": {"fast": 0.5}}, "thresholds", "names mode 'fast'"),
        ({"metrics": {"f1": "high"}}, "metrics", "not a number"),
        ({"metrics": {"f1": float("nan")}}, "metrics", "not finite"),
        ({"version": "v1"}, "version", "dotted numbers"),
        ({"id": "../x"}, "id", "letters, digits"),
        ({"description": " "}, "description", "text that is not empty"),
        ({"post_processing": "relu"}, "post_processing", "softmax, sigmoid"),
        ({"label_map": {"nope": "benign"}}, "label_map", "not in `labels`"),
        ({"label_map": ["benign"]}, "label_map", "an object of model label"),
        ({"sources": ["http://models.example/x"]}, "sources", "this machine only"),
        ({"tokenizer_sources": ["/abs/t.json"]}, "tokenizer_sources", "leaves the folder"),
        ({"treshold": 1}, "treshold", "unknown key 'treshold'; did you mean 'thresholds'"),
    ],
)
def test_mistake_is_named_with_file_line_and_entry(
    tmp_path: Path, changes: dict[str, Any], key: str, message: str
) -> None:
    """A wrong value is reported at the line of its key, with the entry it belongs to."""
    path = _write(tmp_path, _row(id="first"), _row(**changes))
    nth = 0 if key in {"treshold", "label_map"} else 1
    line = _line_of(path, f'"{key}":', nth)
    with pytest.raises(RegistryError) as caught:
        ModelRegistry.load(path)
    said = str(caught.value)
    assert said.startswith(f"{path}:{line}: entry 2 (")
    assert message in said


def test_missing_keys_are_listed_at_the_entry(tmp_path: Path) -> None:
    """All missing keys are named at once, at the line where the entry starts."""
    path = _write(tmp_path, _row(id="first"), _row(sha256=..., licence=...))
    with pytest.raises(
        RegistryError, match=r":\d+: entry 2 \(tiny\): missing sha256, licence$"
    ) as e:
        ModelRegistry.load(path)
    assert f"{path}:{_line_of(path, '    {', 1)}:" in str(e.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: not valid JSON at column 1"),
        ('{"models": [\n  {"id": "x",}\n]}', ":2: not valid JSON"),
        ("[]", r":1: a registry is an object"),
        ('{"models": {}}', r":1: a registry is an object"),
        ('{\n"models": [],\n"model": []}', ":3: unknown key 'model'"),
        ('{"schema": 2,\n"models": []}', ":1: schema 2 is not known"),
        ('{"models": [\n7]}', ":2: entry 1 is not an object"),
        ('{"models": [\n{"id": "a"},\n{"id": "b",\n"id": "c"}]}', ":4: key 'id' stands twice"),
    ],
)
def test_broken_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """A file that is no registry at all says where it stops being one."""
    path = tmp_path / "registry.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RegistryError, match=message):
        ModelRegistry.load(path)


def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    """A missing file and one that is not UTF-8 are said to be so."""
    with pytest.raises(RegistryError, match="cannot be read"):
        ModelRegistry.load(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'{"models": ["\xe9"]}')
    with pytest.raises(RegistryError, match="not UTF-8"):
        ModelRegistry.load(tmp_path / "latin.json")


def test_a_followed_registry_is_read_again_when_a_file_changes(tmp_path: Path) -> None:
    """A file that appears, changes or goes is seen; one that breaks is told of."""
    path = tmp_path / "later.json"
    registry = ModelRegistry.following([path])
    assert registry.entries == ()
    path.write_text(json.dumps({"models": [_row(id="new")]}))
    assert registry.get("new").id == "new"
    assert registry.entries is registry.entries
    path.write_text("{")
    with pytest.raises(RegistryError, match=r"later\.json"):
        registry.find()
    path.unlink()
    assert registry.find() == ()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("temperature", 0, "must be a number from 0.01 to 100"),
        ("bias", {"other": 1.0}, "which is not in `labels`"),
        ("bias", {"benign": 1e999}, "not finite|not valid"),
    ],
)
def test_scaling_of_logits_is_checked(tmp_path: Path, key: str, value: object, words: str) -> None:
    """A temperature is a positive number; a bias names labels of the model."""
    path = tmp_path / "registry.json"
    path.write_text(json.dumps({"models": [_row(**{key: value})]}))
    with pytest.raises(RegistryError, match=words):
        ModelRegistry.load(path)

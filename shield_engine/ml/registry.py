"""The model registry: a table of classifiers, read from JSON and checked before anything runs.

Hides the schema and how a mistake is traced back to its line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from shield_engine.errors import RegistryError, UnknownNameError
from shield_engine.ml.sources import parse_source
from shield_engine.settings import bundled
from shield_engine.types import LABELS, Mode, Task, Variant

__all__ = ["OPERATING_POINTS", "ModelEntry", "ModelRegistry", "NewerRevision"]

OPERATING_POINTS = ("balanced", "low_false_alarms", "high_catch")
"""Policies that a model may bring a threshold for: best balanced accuracy, 1% false alarms, 95%
recall, each on validation rows from sources that the model was not trained on."""

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One variant of one model.

    Attributes:
        id: Name of the model; its variants share it.
        task: What it looks for.
        variant: Numeric precision of this file.
        sources: Where the ONNX file may be found, tried in order.
        sha256: Hex digest of the ONNX file.
        size_bytes: Size of the ONNX file.
        labels: Names of the model's outputs, in the model's own order.
        revision: Revision of the weights, such as a commit or a training date.
        licence: SPDX name of the weights' licence.
        max_length: Window in tokens, special ones included.
        stride: Tokens that neighbouring windows share.
        tokenizer_sources: Where `tokenizer.json` may be found, tried in order.
        tokenizer_sha256: Hex digest of `tokenizer.json`.
        post_processing: What turns logits into probabilities.
        thresholds: The `balanced` threshold of each mode.
        metrics: Figures that came with the model.
        version: Dotted number that grows with each release.
        description: One sentence for a reader.
        label_map: The model's label → the task's label, where the names differ.
        output: Name of the graph's output, where the file has one for each of several tasks.
        operating_points: Threshold on the model's score by policy: `balanced`,
            `low_false_alarms`, `high_catch`.
        window_penalty: Log-odds taken from the riskiest of n windows per natural logarithm of n:
            more windows are more chances of a false alarm.
        root: Folder that bundled sources are relative to.
    """

    id: str
    task: Task
    variant: Variant
    sources: tuple[str, ...]
    sha256: str
    size_bytes: int
    labels: tuple[str, ...]
    revision: str
    licence: str
    max_length: int
    stride: int
    tokenizer_sources: tuple[str, ...]
    tokenizer_sha256: str
    post_processing: Literal["softmax", "sigmoid"]
    thresholds: Mapping[str, float]
    metrics: Mapping[str, float]
    version: str
    description: str
    label_map: Mapping[str, str] = field(default_factory=dict)
    output: str | None = None
    operating_points: Mapping[str, float] = field(default_factory=dict)
    window_penalty: float = 0.0
    root: Path = Path()

    @property
    def task_index(self) -> tuple[int, ...]:
        """For each output of the model, the index of its class in `LABELS[task]`."""
        return _task_index(self.task, self.labels, self.label_map)


@dataclass(frozen=True, slots=True)
class NewerRevision:
    """A model of this registry that a catalogue has in a newer version."""

    current: ModelEntry
    newer: ModelEntry


class ModelRegistry:
    """Entries in the order of their files; (id, variant) is unique."""

    def __init__(self, entries: Iterable[ModelEntry]) -> None:
        self.entries = tuple(entries)
        self._by_key: dict[tuple[str, Variant], ModelEntry] = {}
        for entry in self.entries:
            if self._by_key.setdefault((entry.id, entry.variant), entry) is not entry:
                raise RegistryError(
                    f"model {entry.id} {entry.variant.value} is registered twice; "
                    "give one of the two entries another id"
                )

    @classmethod
    def load(cls, path: Path | None = None) -> ModelRegistry:
        """Read one registry file, the bundled one by default.

        Raises:
            RegistryError: The file cannot be read or breaks the schema; the message names file,
                line and entry.
        """
        return cls.from_files([path or bundled("models", "registry.json")])

    @classmethod
    def from_files(cls, paths: Iterable[Path]) -> ModelRegistry:
        """Read several registry files as one, in order.

        Raises:
            RegistryError: A file breaks the schema, or two entries share id and variant.
        """
        entries: list[ModelEntry] = []
        seen: dict[tuple[str, Variant], str] = {}
        for path in paths:
            document = _Document.read(path)
            for position, entry in enumerate(document.entries()):
                place = document.place("models", position)
                first = seen.setdefault((entry.id, entry.variant), place)
                if first is not place:
                    raise RegistryError(
                        f"{place}: {entry.id} {entry.variant.value} is already registered at "
                        f"{first}; give one of the two another id"
                    )
                entries.append(entry)
        return cls(entries)

    def get(self, model_id: str, variant: Variant | None = None) -> ModelEntry:
        """Return the entry of that id, the first variant listed unless one is named.

        Raises:
            UnknownNameError: No such model, or not in that variant.
        """
        entries = [entry for entry in self.entries if entry.id == model_id]
        if not entries:
            known = sorted({entry.id for entry in self.entries})
            close = get_close_matches(model_id, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known) or 'none'}"
            raise UnknownNameError(f"no model is called {model_id!r}; {hint}")
        if variant is None:
            return entries[0]
        entry = self._by_key.get((model_id, variant))
        if entry is None:
            there = ", ".join(entry.variant.value for entry in entries)
            raise UnknownNameError(
                f"model {model_id} has no variant {variant.value}; the registry has {there}"
            )
        return entry

    def find(
        self, *, task: Task | None = None, variant: Variant | None = None
    ) -> tuple[ModelEntry, ...]:
        """Return the entries of a task, a variant, or both, in order."""
        return tuple(
            entry
            for entry in self.entries
            if (task is None or entry.task is task)
            and (variant is None or entry.variant is variant)
        )

    def default_for(self, task: Task, variant: Variant | None = None) -> ModelEntry:
        """Return the first entry of a task.

        Raises:
            UnknownNameError: There is none.
        """
        entries = self.find(task=task, variant=variant)
        if not entries:
            what = f"{task.value} in variant {variant.value}" if variant else task.value
            raise UnknownNameError(
                f"no model for {what} is registered; add one to a registry file "
                "(SHIELD_REGISTRY) or name another variant"
            )
        return entries[0]

    def newer_revisions(self, catalogue: ModelRegistry) -> tuple[NewerRevision, ...]:
        """Return the models that `catalogue` has in a higher version."""
        return tuple(
            NewerRevision(entry, newer)
            for entry in self.entries
            if (newer := catalogue._by_key.get((entry.id, entry.variant)))
            and _numbers(newer.version) > _numbers(entry.version)
        )


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:  # 1.0 and 1.0.0 are the same version
        numbers.pop()
    return tuple(numbers)


def _task_index(
    task: Task, labels: tuple[str, ...], label_map: Mapping[str, str]
) -> tuple[int, ...]:
    known = {label.casefold(): index for index, label in enumerate(LABELS[task])}
    return tuple(known[label_map.get(label, label).casefold()] for label in labels)


# The schema: what each key of an entry must look like. Each check returns the value as the entry
# keeps it and raises ValueError with the end of the sentence "`key` ...".


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not empty")
    return value


def _identifier(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][\w.\-]{0,99}", value):
        raise ValueError("must be letters, digits, dots, dashes and underscores")
    return value


def _one_of(names: Iterable[str]) -> Callable[[object], str]:
    known = tuple(names)

    def check(value: object) -> str:
        if value not in known:
            raise ValueError(f"is {value!r}; it must be one of {', '.join(known)}")
        return str(value)

    return check


def _digest(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError("must be a SHA-256 of 64 hexadecimal digits")
    return value.lower()


def _integer(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"is {value!r}; it must be a whole number from {low} to {high}")
        return value

    return check


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ValueError("must be a list of texts that is not empty")
    if len(set(value)) != len(value):
        raise ValueError("names one value twice")
    return tuple(value)


def _sources(value: object) -> tuple[str, ...]:
    sources = _names([value] if isinstance(value, str) else value)
    for source in sources:
        parse_source(source)
    return sources


def _figures(value: object) -> Mapping[str, float]:
    if not isinstance(value, dict):
        raise ValueError("must be an object of numbers")
    for name, figure in value.items():
        if isinstance(figure, bool) or not isinstance(figure, (int, float)):
            raise ValueError(f"has {figure!r} under {name!r}, which is not a number")
        if not math.isfinite(figure):
            raise ValueError(f"has {figure!r} under {name!r}, which is not finite")
    return MappingProxyType({name: float(figure) for name, figure in value.items()})


def _thresholds(value: object) -> Mapping[str, float]:
    thresholds = _figures(value)
    modes = {mode.value for mode in Mode}
    for mode, threshold in thresholds.items():
        if mode not in modes:
            raise ValueError(f"names mode {mode!r}; modes are {', '.join(sorted(modes))}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"has {threshold} under {mode!r}; a threshold lies in 0..1")
    return thresholds


def _operating_points(value: object) -> Mapping[str, float]:
    points = _figures(value)
    for name, threshold in points.items():
        if name not in OPERATING_POINTS:
            raise ValueError(f"names {name!r}; policies are {', '.join(OPERATING_POINTS)}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"has {threshold} under {name!r}; a threshold lies in 0..1")
    return points


def _penalty(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10:
        raise ValueError(f"is {value!r}; it must be a number from 0 to 10")
    return float(value)


def _version(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,9}(\.\d{1,9}){0,5}", value):
        raise ValueError(f"is {value!r}; it must be dotted numbers such as 1.2.0")
    return value


def _label_map(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("must be an object of model label to task label")
    return MappingProxyType(dict(value))


_SCHEMA: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "id": _identifier,
        "task": _one_of(task.value for task in Task),
        "variant": _one_of(variant.value for variant in Variant),
        "sources": _sources,
        "sha256": _digest,
        "size_bytes": _integer(1, 1 << 41),
        "labels": _names,
        "revision": _text,
        "licence": _text,
        "max_length": _integer(3, 1 << 17),
        "stride": _integer(0, 1 << 17),
        "tokenizer_sources": _sources,
        "tokenizer_sha256": _digest,
        "post_processing": _one_of(("softmax", "sigmoid")),
        "thresholds": _thresholds,
        "metrics": _figures,
        "version": _version,
        "description": _text,
        "label_map": _label_map,
        "output": _text,
        "operating_points": _operating_points,
        "window_penalty": _penalty,
    }
)
_OPTIONAL = frozenset({"label_map", "metrics", "output", "operating_points", "window_penalty"})


class _Document:
    """A parsed registry file that knows on which line each value stands."""

    def __init__(self, path: Path, data: object, lines: Mapping[tuple[object, ...], int]) -> None:
        self._path = path
        self._data = data
        self._lines = lines

    @classmethod
    def read(cls, path: Path) -> _Document:
        try:
            text = path.read_text(encoding="utf-8-sig")
            data = json.loads(text)
            lines = _line_numbers(text)
        except OSError as error:
            raise RegistryError(
                f"{path}: the registry cannot be read ({error.strerror}); check the path"
            ) from error
        except UnicodeDecodeError as error:
            raise RegistryError(f"{path}: the registry is not UTF-8; save it as UTF-8") from error
        except json.JSONDecodeError as error:
            raise RegistryError(
                f"{path}:{error.lineno}: not valid JSON at column {error.colno}: {error.msg}"
            ) from error
        except _DuplicateKeyError as error:
            raise RegistryError(
                f"{path}:{error.line}: key {error.key!r} stands twice in one object; keep one"
            ) from error
        except RecursionError as error:
            raise RegistryError(f"{path}: the registry is nested too deeply") from error
        return cls(path, data, lines)

    def place(self, *keys: object) -> str:
        while keys not in self._lines and keys:
            keys = keys[:-1]
        return f"{self._path}:{self._lines.get(keys, 1)}"

    def entries(self) -> Iterable[ModelEntry]:
        data = self._data
        if not isinstance(data, dict) or not isinstance(data.get("models"), list):
            raise RegistryError(
                f'{self.place()}: a registry is an object {{"models": [...]}} with a list of '
                "entries"
            )
        for key in data:
            if key not in {"models", "schema", "$comment"}:
                raise RegistryError(
                    f"{self.place(key)}: unknown key {key!r}; a registry has `models` and `schema`"
                )
        if data.get("schema", 1) != 1:
            raise RegistryError(
                f"{self.place('schema')}: schema {data['schema']!r} is not known; this version "
                "reads schema 1"
            )
        for position, row in enumerate(data["models"]):
            yield self._entry(position, row)

    def _entry(self, position: int, row: object) -> ModelEntry:
        if not isinstance(row, dict):
            raise RegistryError(
                f"{self.place('models', position)}: entry {position + 1} is not an object"
            )
        name = f"entry {position + 1} ({row.get('id', 'without id')})"

        def fail(key: object, sentence: str) -> RegistryError:
            return RegistryError(f"{self.place('models', position, key)}: {name}: {sentence}")

        for key in row:
            if key not in _SCHEMA:
                close = get_close_matches(key, _SCHEMA, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_SCHEMA)}"
                raise fail(key, f"unknown key {key!r}; {hint}")
        missing = [key for key in _SCHEMA if key not in row and key not in _OPTIONAL]
        if missing:
            raise fail(None, f"missing {', '.join(missing)}")
        values: dict[str, Any] = {"metrics": _EMPTY}
        for key, value in row.items():
            try:
                values[key] = _SCHEMA[key](value)
            except ValueError as error:
                raise fail(key, f"`{key}` {error}") from error
        values["task"], values["variant"] = Task(values["task"]), Variant(values["variant"])
        for key, sentence in _contradictions(values):
            raise fail(key, sentence)
        return ModelEntry(**values, root=self._path.resolve().parent)


def _contradictions(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield what is wrong between keys that are each right alone."""
    task: Task = values["task"]
    labels, label_map = values["labels"], values.get("label_map", _EMPTY)
    classes = LABELS[task]
    known = {label.casefold() for label in classes}
    if values["stride"] * 2 > values["max_length"]:
        yield (
            "stride",
            f"`stride` {values['stride']} is more than half of `max_length` "
            f"{values['max_length']}; windows would hardly advance",
        )
    for label in label_map:
        if label not in labels:
            yield "label_map", f"`label_map` names {label!r}, which is not in `labels`"
    for label in labels:
        if label_map.get(label, label).casefold() not in known:
            yield (
                "label_map" if label in label_map else "labels",
                f"label {label!r} is no label of {task.value} ({', '.join(classes)}); "
                "say what it means in `label_map`",
            )
            return
    covered = {classes[index] for index in _task_index(task, labels, label_map)}
    if values["post_processing"] == "softmax":
        needed, why = set(classes), "softmax"
    else:
        needed, why = {classes[-1]}, "sigmoid"
        if len(classes) != 2:
            yield "post_processing", f"{task.value} has {len(classes)} classes and needs softmax"
    if needed - covered:
        yield (
            "labels",
            f"no label stands for {', '.join(sorted(needed - covered))}; {why} needs "
            f"{'each class' if why == 'softmax' else 'the risky class'}",
        )


class _DuplicateKeyError(ValueError):
    def __init__(self, key: object, line: int) -> None:
        super().__init__(key, line)
        self.key, self.line = key, line


_SYMBOL = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def _line_numbers(text: str) -> dict[tuple[object, ...], int]:
    """Return the line of each value of a valid JSON text, by its path of keys and positions.

    A member of an object is on the line of its key.
    """
    lines: dict[tuple[object, ...], int] = {}
    path: list[object] = []
    key_line: int | None = None
    previous, line, offset = "", 1, 0
    symbols = list(_SYMBOL.finditer(text))
    for position, match in enumerate(symbols):
        symbol = match.group()
        line += text.count("\n", offset, match.start())
        offset = match.start()
        if symbol in "}]":
            if previous not in "{[":
                path.pop()
        elif symbol == ",":
            last = path.pop()
            if isinstance(last, int):
                path.append(last + 1)
        elif symbol != ":":
            if previous == "[":
                path.append(0)
            follows = symbols[position + 1].group() if position + 1 < len(symbols) else ""
            if symbol.startswith('"') and follows == ":":
                path.append(json.loads(symbol))
                key_line = line
            else:
                here = tuple(path)
                if here in lines:
                    raise _DuplicateKeyError(path[-1], line if key_line is None else key_line)
                lines[here] = line if key_line is None else key_line
                key_line = None
        previous = symbol
    return lines

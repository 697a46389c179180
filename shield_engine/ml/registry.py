"""The model registry: a table of classifiers, read from JSON and checked before anything runs.

Hides the schema and how a mistake is traced back to its line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from shield_engine.documents import Check, Constraint, Shape
from shield_engine.errors import RegistryError, UnknownNameError
from shield_engine.ml.sources import parse_source
from shield_engine.settings import bundled
from shield_engine.types import LABELS, Mode, Task, Variant

__all__ = ["OPERATING_POINTS", "ModelEntry", "ModelRegistry", "NewerRevision"]

OPERATING_POINTS = ("balanced", "low_false_alarms", "high_catch")
"""Policies that a model may bring a threshold for: best balanced accuracy, 1% false alarms, 95%
recall, each on validation rows from sources that the model was not trained on."""

# What a key of an entry holds beyond its type; each sentence goes on after the key.
_FILLED = Constraint("must be a text that is not empty", str.strip)
_IDENTIFIER = Constraint(
    "must be letters, digits, dots, dashes and underscores",
    re.compile(r"[A-Za-z0-9][\w.\-]{0,99}").fullmatch,
)
_VERSION = Constraint(
    "is {value!r}; it must be dotted numbers such as 1.2.0",
    re.compile(r"\d{1,9}(\.\d{1,9}){0,5}").fullmatch,
)
_LABEL_MAP = Constraint("must be an object of model label to task label")
_PENALTY = Constraint(
    "is {value!r}; it must be a number from 0 to 10", lambda value: 0 <= value <= 10
)
_TEMPERATURE = Constraint(
    "is {value!r}; it must be a number from 0.01 to 100", lambda value: 0.01 <= value <= 100
)


def _whole(low: int, high: int) -> Constraint:
    sentence = f"is {{value!r}}; it must be a whole number from {low} to {high}"
    return Constraint(sentence, lambda value: low <= value <= high)


def _digest(value: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError("must be a SHA-256 of 64 hexadecimal digits")
    return value.lower()


def _names(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must be a list of texts that is not empty")
    if len(set(value)) != len(value):
        raise ValueError("names one value twice")
    return value


def _sources(value: tuple[str, ...]) -> tuple[str, ...]:
    for source in _names(value):
        parse_source(source)
    return value


def _finite(value: Mapping[str, float]) -> Mapping[str, float]:
    for name, figure in value.items():
        if not math.isfinite(figure):
            raise ValueError(f"has {figure!r} under {name!r}, which is not finite")
    return MappingProxyType(dict(value))


def _shares(what: str, names: Iterable[str], value: Mapping[str, float]) -> Mapping[str, float]:
    known = tuple(names)
    for name, threshold in value.items():
        if name not in known:
            raise ValueError(f"names {what.format(name)}{', '.join(known)}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"has {threshold} under {name!r}; a threshold lies in 0..1")
    return MappingProxyType(dict(value))


_SHA256 = Check(_digest)
_SOURCES = Check(_sources)
_MODES = Check(partial(_shares, "mode {!r}; modes are ", tuple(Mode)))
_POLICIES = Check(partial(_shares, "{!r}; policies are ", OPERATING_POINTS))


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
        temperature: What the logits are divided by before they become probabilities; above 1 the
            scores move towards the middle.
        bias: Model's label → what is added to its logit before that; 0 for a label left out.
        default_optimisations: Run as ONNX Runtime does by itself, so that scores are those of the
            model's own package; INT8 is up to 1.2 times slower, and scores move by up to 0.01.
        root: Folder that bundled sources are relative to.
    """

    id: Annotated[str, _IDENTIFIER]
    task: Task
    variant: Variant
    sources: Annotated[tuple[str, ...], _SOURCES]
    sha256: Annotated[str, _SHA256]
    size_bytes: Annotated[int, _whole(1, 1 << 41)]
    labels: Annotated[tuple[str, ...], Check(_names)]
    revision: Annotated[str, _FILLED]
    licence: Annotated[str, _FILLED]
    max_length: Annotated[int, _whole(3, 1 << 17)]
    stride: Annotated[int, _whole(0, 1 << 17)]
    tokenizer_sources: Annotated[tuple[str, ...], _SOURCES]
    tokenizer_sha256: Annotated[str, _SHA256]
    post_processing: Literal["softmax", "sigmoid"]
    thresholds: Annotated[Mapping[str, float], _MODES]
    metrics: Annotated[Mapping[str, float], Check(_finite)]
    version: Annotated[str, _VERSION]
    description: Annotated[str, _FILLED]
    label_map: Annotated[Mapping[str, str], _LABEL_MAP] = field(default_factory=dict)
    output: Annotated[str | None, _FILLED] = None
    operating_points: Annotated[Mapping[str, float], _POLICIES] = field(default_factory=dict)
    window_penalty: Annotated[float, _PENALTY] = 0.0
    temperature: Annotated[float, _TEMPERATURE] = 1.0
    bias: Annotated[Mapping[str, float], Check(_finite)] = field(default_factory=dict)
    default_optimisations: bool = False
    root: Path = Path()

    @property
    def task_index(self) -> tuple[int, ...]:
        """For each output of the model, the index of its class in `LABELS[task]`."""
        known = {label.casefold(): index for index, label in enumerate(LABELS[self.task])}
        return tuple(known[self.label_map.get(label, label).casefold()] for label in self.labels)


@dataclass(frozen=True, slots=True)
class NewerRevision:
    """A model of this registry that a catalogue has in a newer version."""

    current: ModelEntry
    newer: ModelEntry


class ModelRegistry:
    """Entries in the order of their files; (id, variant) is unique.

    One that was made by `following` reads its files anew when they change.
    """

    def __init__(self, entries: Iterable[ModelEntry]) -> None:
        self._entries = tuple(entries)
        self._files: tuple[Path, ...] = ()
        self._times: tuple[int, ...] = ()

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """All entries; the same tuple until a file changes.

        Raises:
            RegistryError: A file was changed and now breaks the schema.
        """
        if self._files and (times := _times_of_change(self._files)) != self._times:
            files = [path for path, time in zip(self._files, times, strict=True) if time]
            self._entries = ModelRegistry.from_files(files).entries
            self._times = times
        return self._entries

    @classmethod
    def following(cls, paths: Iterable[Path]) -> ModelRegistry:
        """Read several registry files, and again when one changes; one that is absent has nothing.

        Raises:
            RegistryError: As for `from_files`.
        """
        registry = cls(())
        registry._files = tuple(paths)
        registry.entries  # noqa: B018 - a broken file is told of now, not at the first use
        return registry

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
        for entry in entries:
            if entry.variant is variant:
                return entry
        there = ", ".join(entry.variant.value for entry in entries)
        raise UnknownNameError(
            f"model {model_id} has no variant {variant.value}; the registry has {there}"
        )

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
        known = {(entry.id, entry.variant): entry for entry in catalogue.entries}
        return tuple(
            NewerRevision(entry, newer)
            for entry in self.entries
            if (newer := known.get((entry.id, entry.variant)))
            and _numbers(newer.version) > _numbers(entry.version)
        )


def _times_of_change(paths: Iterable[Path]) -> tuple[int, ...]:
    """Return when each file was last written; 0 for one that is not there."""
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:  # 1.0 and 1.0.0 are the same version
        numbers.pop()
    return tuple(numbers)


@dataclass(frozen=True, slots=True)
class _Document:
    """A parsed registry file that knows on which line each value stands."""

    path: Path
    data: object
    lines: Mapping[tuple[object, ...], int]

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
        while keys not in self.lines and keys:
            keys = keys[:-1]
        return f"{self.path}:{self.lines.get(keys, 1)}"

    def entries(self) -> Iterable[ModelEntry]:
        data = self.data
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

        def fail(key: str | None, sentence: str) -> RegistryError:
            return RegistryError(f"{self.place('models', position, key)}: {name}: {sentence}")

        values = {"metrics": {}, **row}
        for key in ("sources", "tokenizer_sources"):
            if isinstance(source := values.get(key), str):
                values[key] = [source]
        entry = _ENTRY.read(values, fail, root=self.path.resolve().parent)
        for key, sentence in _contradictions(entry):
            raise fail(key, sentence)
        return entry


_ENTRY = Shape(
    ModelEntry,
    unknown="unknown key {key!r}; {hint}",
    missing="missing {keys}",
    choice="`{key}` is {value!r}; it must be one of {choices}",
    wrong="`{key}` has {value!r}, which is not {wanted}",
    problem="`{key}` {problem}",
)


def _contradictions(entry: ModelEntry) -> Iterator[tuple[str, str]]:
    """Yield what is wrong between keys that are each right alone."""
    classes, label_map = LABELS[entry.task], entry.label_map
    known = {label.casefold() for label in classes}
    if entry.stride * 2 > entry.max_length:
        yield (
            "stride",
            f"`stride` {entry.stride} is more than half of `max_length` {entry.max_length}; "
            "windows would hardly advance",
        )
    for key, names in (("label_map", label_map), ("bias", entry.bias)):
        for label in names:
            if label not in entry.labels:
                yield key, f"`{key}` names {label!r}, which is not in `labels`"
    for label in entry.labels:
        if label_map.get(label, label).casefold() not in known:
            yield (
                "label_map" if label in label_map else "labels",
                f"label {label!r} is no label of {entry.task.value} ({', '.join(classes)}); "
                "say what it means in `label_map`",
            )
            return
    # A model of two sentiments is a sentiment model that never says neutral.
    needed, whom = set(classes) - {"neutral"}, "softmax needs each class"
    if entry.post_processing == "sigmoid":
        needed, whom = {classes[-1]}, "sigmoid needs the risky class"
        if len(classes) != 2:
            yield (
                "post_processing",
                f"{entry.task.value} has {len(classes)} classes and needs softmax",
            )
    absent = needed - {classes[index] for index in entry.task_index}
    if absent:
        yield "labels", f"no label stands for {', '.join(sorted(absent))}; {whom}"


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

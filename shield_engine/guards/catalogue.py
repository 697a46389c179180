"""The catalogue: models that are known by name, with what their makers say of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from shield_engine.documents import Shape
from shield_engine.errors import ConfigError
from shield_engine.ml import ModelRegistry
from shield_engine.types import Task

__all__ = ["KnownModel", "find_known", "known_models"]


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model of the catalogue.

    Attributes:
        name: Short; `add_onnx` takes it as a source.
        source: Where it lies, as `add_onnx` takes it.
        task: What it is about.
        labels: The task's label of each of its outputs, in the model's order.
        licence: Of the weights.
        max_length: Window in tokens.
        gated: Its terms must be accepted before it can be fetched.
        onnx: Whether its repository is known to hold an ONNX file.
        post_processing: What turns its logits into probabilities.
        temperature: What its logits are divided by.
        threshold: Its own.
        languages: Those it was made for.
        sha256: Of the ONNX file, where it was seen when this catalogue was written.
    """

    name: str
    source: str
    task: Task
    labels: tuple[str, ...]
    licence: str
    max_length: int
    gated: bool = False
    onnx: bool = False
    post_processing: Literal["softmax", "sigmoid"] = "softmax"
    temperature: float = 1.0
    threshold: float = 0.5
    languages: tuple[str, ...] = ("en",)
    sha256: str | None = None

    def state(self, registry: ModelRegistry) -> str:
        """Return whether its file was seen here, and by which hash."""
        for entry in registry.entries:
            places = {_place(source) for source in entry.sources}
            if _place(self.source) in places or entry.sha256 == self.sha256:
                return f"fetched, SHA-256 {entry.sha256[:12]}"
        return "not fetched here"


@cache
def known_models() -> tuple[KnownModel, ...]:
    """Return the catalogue."""
    path = Path(__file__).with_name("catalogue.json")
    rows = json.loads(path.read_text(encoding="utf-8"))["models"]

    def fail(_: str | None, sentence: str) -> ConfigError:
        return ConfigError(f"{path}: {sentence}")

    return tuple(Shape(KnownModel).read(row, fail) for row in rows)


def find_known(text: str) -> KnownModel | None:
    """Return the model of the catalogue with that name, place or hash."""
    for known in known_models():
        if text in {known.name, known.sha256} or _place(text) == _place(known.source):
            return known
    return None


def _place(source: str) -> str:
    """Return a source without its revision and the path inside its repository."""
    match = re.match(r"hf:[\w.-]+/[\w.-]+", source)
    return match.group().casefold() if match else source

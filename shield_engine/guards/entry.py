"""What a guard is: anything that gives a text a risk, and what the user declared of it.

A guard takes the place of the model part in a run. It is one method wide: texts in, one `Reply` a
text out. A guard that fails a text says so in its reply; it never passes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from shield_engine.types import Task, Variant

__all__ = ["Guard", "GuardEntry", "HttpEntry", "OnnxEntry", "PythonEntry", "Reply"]

_NOT_DECIDING = frozenset(
    {"headers", "timeout_s", "concurrency", "per_second", "price_per_1000", "languages",
     "longest_text", "threshold", "batch"}
)  # fmt: skip
"""Fields that change no score: another key, price or speed is still the same guard."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a guard said of one text.

    Attributes:
        probabilities: One for each of `LABELS[task]`, summing to 1; `None` if it failed.
        error: Why there is no score; never holds the text or a secret.
        latency_ms: Time of the call; of a batch, its share.
    """

    probabilities: tuple[float, ...] | None
    error: str | None = None
    latency_ms: float = 0.0


class Guard(Protocol):
    """A guard that is ready to be asked; safe to share between `concurrency` threads."""

    @property
    def entry(self) -> GuardEntry:
        """What the user declared."""
        ...

    def ask(self, texts: Sequence[str]) -> Sequence[Reply]:
        """Return one reply a text, in order; at most `entry.batch` texts.

        Raises:
            InferenceError: The guard as a whole is out of order, and asking on is no use.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class GuardEntry:
    """What every kind of guard has.

    Attributes:
        name: What candidates are called; unique.
        task: What its risk is about.
        version: Of the service, package or model; shown, and part of its identity.
        threshold: Its own; a risk at or above it is flagged.
        price_per_1000: Money a thousand calls; estimates show it.
        timeout_s: Longest wait for one call.
        concurrency: Calls at once.
        per_second: Most calls a second; no limit by default.
        batch: Texts a call.
        languages: Those it was made for, as ISO 639-1; empty if unknown.
        longest_text: Characters it reads; `None` if unknown.
    """

    name: str
    task: Task
    version: str = ""
    threshold: float = 0.5
    price_per_1000: float = 0.0
    timeout_s: float = 10.0
    concurrency: int = 1
    per_second: float | None = None
    batch: int = 1
    languages: tuple[str, ...] = ()
    longest_text: int | None = None

    kind: Literal["http", "python", "onnx", "scores"] = field(init=False, default="scores")

    @property
    def title(self) -> str:
        """Name and version, as candidates are called."""
        return f"{self.name} {self.version}".rstrip()

    @property
    def fingerprint(self) -> str:
        """Digest of everything declared that decides a score; keys and limits are left out."""
        deciding = {key: value for key, value in asdict(self).items() if key not in _NOT_DECIDING}
        plain = json.dumps(deciding, sort_keys=True, default=_plain)
        return hashlib.sha256(plain.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class HttpEntry(GuardEntry):
    """A guard behind an HTTP API.

    Attributes:
        url: Where to POST.
        headers: As sent; a value `env:NAME` is read from the environment when it is sent.
        body: JSON to send; `{text}` stands for the text, `{texts}` for the list of a batch.
        score: JMESPath of the risk, 0..1; of a batch, of the list of risks.
        verdict: JMESPath of a verdict instead of a risk.
        flagged: Verdicts that mean risky; their risk is 1, that of all others 0.
        attempts: Tries of a call that failed for a passing reason.
    """

    url: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    score: str | None = None
    verdict: str | None = None
    flagged: tuple[Any, ...] = ()
    attempts: int = 5
    kind: Literal["http", "python", "onnx", "scores"] = field(init=False, default="http")


@dataclass(frozen=True, kw_only=True)
class PythonEntry(GuardEntry):
    """A Python function, or an adapter of an installed package.

    Attributes:
        callable: `package.module:attribute`; called with a text, gives a risk, a probability for
            each label, or a mapping of label to probability.
        options: Keyword arguments of an adapter that makes the function.
        thread_safe: False: one call at a time.
    """

    callable: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    thread_safe: bool = True
    kind: Literal["http", "python", "onnx", "scores"] = field(init=False, default="python")


@dataclass(frozen=True, kw_only=True)
class OnnxEntry(GuardEntry):
    """A model of the registry under a name of its own.

    Attributes:
        model: Id in the registry.
        variant: Precision of its weights.
    """

    model: str
    variant: Variant = Variant.INT8
    kind: Literal["http", "python", "onnx", "scores"] = field(init=False, default="onnx")


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)

"""What a guard is: anything that gives a text a risk, and what the user declared of it.

A guard takes the place of the model part in a run. It is one method wide: texts in, one `Reply` a
text out. A guard that fails a text says so in its reply; it never passes it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Protocol
from urllib.parse import urlsplit

from shield_engine.decision import Stage, cascade_digest
from shield_engine.documents import Check, Constraint
from shield_engine.errors import ConfigError
from shield_engine.policy import Policy
from shield_engine.types import Task, Variant

__all__ = ["CascadeEntry", "Guard", "GuardEntry", "HttpEntry", "OnnxEntry", "PythonEntry", "Reply"]

_SECRET_NAME = re.compile("auth|key|token|secret|password|cookie", re.IGNORECASE)
_NOT_DECIDING = frozenset(
    {"headers", "timeout_s", "concurrency", "per_second", "price_per_1000", "languages",
     "longest_text", "threshold", "batch"}
)  # fmt: skip
"""Fields that change no score: another key, price or speed is still the same guard."""

_SHARE = Constraint("is a number in 0..1, got {value!r}", lambda share: 0 <= share <= 1)
_NOT_BELOW_0 = Constraint("is a number from 0, got {value!r}", lambda value: 0 <= value < math.inf)
_ABOVE_0 = Constraint("is a number above 0, got {value!r}", lambda value: 0 < value < math.inf)
_COUNT = Constraint(
    "is a whole number from 1 to 1,000,000, got {value!r}", lambda n: 0 < n <= 10**6
)


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"is an address http://... or https://..., got {url!r}")
    if parts.username or parts.password:
        raise ValueError("holds a password; put it into headers as env:NAME")
    return url


def _secretless(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if _SECRET_NAME.search(name) and "env:" not in value:
            raise ValueError(
                f"has {name} written out; write env:NAME and set that variable instead"
            )
    return headers


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
        """Return one reply a text, in order; at most `entry.batch` texts."""
        ...

    def close(self) -> None:
        """Let go of connections and threads."""
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
    threshold: Annotated[float, _SHARE] = 0.5
    price_per_1000: Annotated[float, _NOT_BELOW_0] = 0.0
    timeout_s: Annotated[float, _ABOVE_0] = 10.0
    concurrency: Annotated[int, _COUNT] = 1
    per_second: Annotated[float | None, _ABOVE_0] = None
    batch: Annotated[int, _COUNT] = 1
    languages: tuple[str, ...] = ()
    longest_text: Annotated[int | None, _COUNT] = None

    kind: ClassVar[str] = "scores"

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable():
            raise ConfigError(f"a guard needs a name on one line, got {self.name!r}")

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
        range: What the service's scores run from and to; they are stretched to 0..1.
        attempts: Tries of a call that failed for a passing reason.
    """

    url: Annotated[str, Check(_address)]
    body: Mapping[str, Any]
    headers: Annotated[Mapping[str, str], Check(_secretless)] = field(default_factory=dict)
    score: str | None = None
    verdict: str | None = None
    flagged: tuple[Any, ...] = ()
    range: tuple[float, float] = (0.0, 1.0)
    attempts: Annotated[int, _COUNT] = 5
    kind: ClassVar[str] = "http"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.score is None) == (self.verdict is None):
            raise ConfigError(
                f"guard {self.name}: needs either score (JMESPath of a risk) or verdict with flagged"
            )
        if self.verdict is not None and not self.flagged:
            raise ConfigError(
                f"guard {self.name}: verdict needs flagged, the values that are risky"
            )
        if not self.range[0] < self.range[1]:
            raise ConfigError(f"guard {self.name}: range is [lowest, highest], got {self.range}")
        mark = "{text}" if self.batch == 1 else "{texts}"
        if mark not in json.dumps(self.body):
            raise ConfigError(f"guard {self.name}: body has no {mark}, so no text would be sent")
        if self.task is Task.SENTIMENT:
            raise ConfigError(f"guard {self.name}: sentiment needs three scores; use kind python")


@dataclass(frozen=True, kw_only=True)
class PythonEntry(GuardEntry):
    """A Python function, or an adapter of an installed package.

    Attributes:
        callable: `package.module:attribute`; called with a text, gives a risk, a probability for
            each label, or a mapping of label to probability.
        factory: True: it is called once, without a text, and returns the function.
        options: Keyword arguments of that call.
        thread_safe: False: one call at a time.
    """

    callable: str
    factory: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    thread_safe: bool = True
    kind: ClassVar[str] = "python"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.options and not self.factory:
            raise ConfigError(f"guard {self.name}: options are for a factory; add factory = true")


@dataclass(frozen=True, kw_only=True)
class OnnxEntry(GuardEntry):
    """A model of the registry under a name of its own.

    Attributes:
        model: Id in the registry.
        variant: Precision of its weights.
    """

    model: str
    variant: Variant = Variant.INT8
    kind: ClassVar[str] = "onnx"


@dataclass(frozen=True, kw_only=True)
class CascadeEntry(GuardEntry):
    """A chain of guards under a policy's name.

    Attributes:
        stages: In the order in which they are asked.
    """

    stages: tuple[Stage, ...]
    kind: ClassVar[str] = "cascade"

    @classmethod
    def of(cls, policy: Policy) -> CascadeEntry:
        """Return the chain that a policy describes."""
        return cls(
            name=policy.name,
            task=policy.task,
            version=str(policy.version or ""),
            threshold=policy.threshold or 0.0,
            stages=policy.cascade,
        )

    @property
    def fingerprint(self) -> str:
        """Digest of the stages with their bands and the threshold, by whatever name."""
        return cascade_digest(self.task, self.stages, self.threshold)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)

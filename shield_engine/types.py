"""The words of the engine as values: tasks, modes, severities, and what a scan returns.

Nothing here computes anything heavier than a comparison, and nothing here imports a package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

__all__ = [
    "LABELS",
    "Entity",
    "Method",
    "Mode",
    "ModelStamp",
    "RiskFactor",
    "RuleHit",
    "ScanResult",
    "Severity",
    "Task",
    "Timings",
    "Variant",
]


class Task(StrEnum):
    """What a scanner looks for."""

    PROMPT_INJECTION = "prompt_injection"
    TOXICITY = "toxicity"
    SENTIMENT = "sentiment"


LABELS: Mapping[Task, tuple[str, ...]] = MappingProxyType(
    {
        Task.PROMPT_INJECTION: ("benign", "injection"),
        Task.TOXICITY: ("clean", "toxic"),
        Task.SENTIMENT: ("negative", "neutral", "positive"),
    }
)
"""Class names of each task, in the order of a model's outputs; index 1 is the risky class of two."""


class Mode(StrEnum):
    """Which parts of a scanner decide."""

    HEURISTIC = "heuristic"
    ML = "ml"
    HYBRID = "hybrid"
    BOTH = "both"


class Variant(StrEnum):
    """Numeric precision of a model's weights."""

    FP32 = "FP32"
    FP16 = "FP16"
    INT8 = "INT8"


class Method(StrEnum):
    """Which way a score came about."""

    HEURISTIC = "heuristic"
    ML = "ml"
    HEURISTIC_SHORT_CIRCUIT = "heuristic_short_circuit"
    ML_FALLBACK_TO_HEURISTIC = "ml_fallback_to_heuristic"
    HYBRID_BOTH = "hybrid_both"


class Severity(StrEnum):
    """Bands of risk: none = 0, low > 0, medium >= .4, high >= .7, critical >= .9."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @classmethod
    def of(cls, score: float) -> Severity:
        """Return the band of a risk score in 0..1."""
        for bound, band in ((0.9, cls.CRITICAL), (0.7, cls.HIGH), (0.4, cls.MEDIUM)):
            if score >= bound:
                return band
        return cls.LOW if score > 0 else cls.NONE


@dataclass(frozen=True, slots=True)
class RuleHit:
    """One match of one rule: `text[start:end]` of the text as given."""

    rule_id: str
    category: str
    description: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RiskFactor:
    """One reason for a score.

    Attributes:
        type: Category of a rule (`instruction_override`), kind of obfuscation, or `model`.
        description: One sentence for a reader.
        severity: Band of `score`.
        score: What this reason alone would give, 0..1.
    """

    type: str
    description: str
    severity: Severity
    score: float


@dataclass(frozen=True, slots=True)
class Entity:
    """A span of the scanned text, in characters of the text as given (`text[start:end]`)."""

    type: str
    start: int
    end: int
    text: str
    score: float
    source: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds spent in each part of one scan; `None` where a part did not run."""

    normalise_ms: float | None = None
    rules_ms: float | None = None
    tokenize_ms: float | None = None
    infer_ms: float | None = None
    cache_ms: float | None = None
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelStamp:
    """Which model gave a score; a guard has no variant, and its digest is its fingerprint."""

    id: str
    variant: Variant | None
    sha256: str

    @property
    def title(self) -> str:
        """Id and variant, as shown to users."""
        return f"{self.id} {self.variant.value}" if self.variant else self.id


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What one scanner says of one text.

    Attributes:
        text: The text to pass on; equal to the input unless a scanner sanitizes.
        is_valid: True if the text may pass at the threshold in force.
        risk_score: Raw risk in 0..1, before any threshold (sentiment: P(negative)).
        severity: Band of `risk_score`.
        risk_factors: Reasons, strongest first.
        entities: Spans behind the reasons.
        scanner: Name of the scanner instance.
        method: Which way the score came about.
        cache_hit: True if the raw scores came from the result cache.
        timings: Milliseconds by part.
        model: The model that was asked; `None` if none was.
        metadata: Extra facts, such as label probabilities and both parts' scores.
    """

    text: str
    is_valid: bool
    risk_score: float
    severity: Severity
    risk_factors: tuple[RiskFactor, ...] = ()
    entities: tuple[Entity, ...] = ()
    scanner: str = ""
    method: Method = Method.HEURISTIC
    cache_hit: bool = False
    timings: Timings = field(default_factory=Timings)
    model: ModelStamp | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def passed(cls, text: str, *, scanner: str = "", risk_score: float = 0.0) -> ScanResult:
        """Return a result that lets `text` through."""
        return cls(text, True, risk_score, Severity.of(risk_score), scanner=scanner)

    @classmethod
    def failed(
        cls,
        text: str,
        risk_score: float,
        risk_factors: Sequence[RiskFactor] = (),
        *,
        scanner: str = "",
    ) -> ScanResult:
        """Return a result that stops `text`, with its reasons."""
        return cls(
            text, False, risk_score, Severity.of(risk_score), tuple(risk_factors), scanner=scanner
        )

    def combine(self, other: ScanResult) -> ScanResult:
        """Return the result of both: the higher risk, valid only if both are valid.

        The text is the later one's; reasons and spans are joined, strongest first; method, model
        and metadata are the riskier one's.
        """
        risk = max(self.risk_score, other.risk_score)
        riskier = self if self.risk_score >= other.risk_score else other
        factors = sorted(self.risk_factors + other.risk_factors, key=lambda f: -f.score)
        return ScanResult(
            text=other.text,
            is_valid=self.is_valid and other.is_valid,
            risk_score=risk,
            severity=Severity.of(risk),
            risk_factors=tuple(factors),
            entities=self.entities + other.entities,
            scanner=f"{self.scanner}+{other.scanner}",
            method=riskier.method,
            cache_hit=self.cache_hit and other.cache_hit,
            timings=Timings(total_ms=self.timings.total_ms + other.timings.total_ms),
            model=riskier.model,
            metadata=riskier.metadata,
        )

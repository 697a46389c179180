"""The three scanners: two parts, one decision, reasons and spans.

A scanner is one method wide (`scan`). Hides the cache, the circuit breaker and the fallback; none
of the three can change a score without saying so in the result.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from shield_engine.cache import ResultCache, text_digest
from shield_engine.config import ScannerConfig
from shield_engine.decision import model_decides
from shield_engine.errors import ConfigError, InferenceError, ShieldError
from shield_engine.heuristics import (
    HeuristicPart,
    Views,
    heuristic_for,
    linear_tier,
    load_rules,
)
from shield_engine.ml import MLScore
from shield_engine.parts import (
    CircuitBreaker,
    MLPart,
    Parts,
    RawScores,
    elapsed_ms,
    part_confidence,
)
from shield_engine.types import (
    LABELS,
    Entity,
    Method,
    Mode,
    RiskFactor,
    ScanResult,
    Severity,
    Task,
    Timings,
)

__all__ = [
    "KINDS",
    "PartsScanner",
    "PromptInjection",
    "Scanner",
    "ScannerStats",
    "Sentiment",
    "Toxicity",
]

logger = logging.getLogger(__name__)


class Scanner(Protocol):
    """Anything that can judge a text."""

    @property
    def name(self) -> str:
        """Name of this instance; results carry it."""
        ...

    def scan(self, text: str) -> ScanResult:
        """Judge `text`."""
        ...


@dataclass(frozen=True, slots=True)
class ScannerStats:
    """Counts since the scanner was made."""

    scans: int
    cache_hits: int
    model_calls: int
    model_ms: float
    model_failures: int
    fallbacks: int
    escalations: int
    breaker: str


class PartsScanner:
    """A scanner of a heuristic part and a model part, decided by its mode.

    Build one with `PromptInjection.create`, `Toxicity.create` or `Sentiment.create`, or let
    `Shield.scanner` bring the model.
    """

    task: Task

    def __init__(
        self,
        config: ScannerConfig,
        heuristic: HeuristicPart,
        model: MLPart | None,
        thresholds: Mapping[str, float],
        cache: ResultCache[RawScores],
        breaker: CircuitBreaker,
    ) -> None:
        self.config = config
        self.name = config.name or type(self).__name__
        self.heuristic = heuristic
        self.model = model
        self.cache = cache
        self.breaker = breaker
        self.threshold = config.threshold_for(
            config.mode, model.thresholds if model else thresholds
        )
        is_tiered = config.mode is Mode.HYBRID and config.bands.safe is not None
        linear = linear_tier(self.task) if is_tiered else None
        self._parts = Parts(
            self.task,
            heuristic if config.mode is not Mode.ML else None,
            linear,
            partial(self._ask, model) if model else None,
            config.mode,
            config.bands,
        )
        self._key = (
            self.task.value,
            config.mode.value,
            config.bands if config.mode is Mode.HYBRID else None,
            heuristic.version,
            linear.version if linear else "",
            model.key if model else "",
        )
        self._allowed_patterns = _compiled(config.allow.patterns)
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(
            ("scans", "cache_hits", "model_calls", "model_failures", "fallbacks", "escalations"), 0
        )
        self._model_ms = 0.0

    @classmethod
    def create(
        cls,
        config: ScannerConfig | None = None,
        model: MLPart | None = None,
        *,
        thresholds: Mapping[str, float] | None = None,
        cache: ResultCache[RawScores] | None = None,
        breaker: CircuitBreaker | None = None,
    ) -> PartsScanner:
        """Return a ready scanner.

        Args:
            config: Mode, thresholds, rules; heuristics only by default.
            model: The model part; modes other than `heuristic` need it.
            thresholds: Balanced threshold by mode where no model brings its own; .5 by default.
            cache: Shared result cache; one of the configured size by default.
            breaker: Shared circuit breaker of the model; a new one by default.

        Raises:
            ConfigError: A rule, pattern or id in `config` cannot be used.
            InferenceError: The mode needs a model and none was given.
        """
        config = config or ScannerConfig()
        if config.mode is not Mode.HEURISTIC and model is None:
            raise InferenceError(
                f"{cls.__name__} in mode {config.mode.value} needs a model; "
                "use Shield.scanner, which brings the registry's"
            )
        extra = load_rules(Path(config.rules_file), cls.task) if config.rules_file else ()
        part = heuristic_for(cls.task, extra_rules=extra, disabled_rules=config.disabled_rules)
        return cls(
            config,
            part,
            model if config.mode is not Mode.HEURISTIC else None,
            thresholds or {},
            cache if cache is not None else ResultCache(config.ml.cache),
            breaker or CircuitBreaker(),
        )

    def scan(self, text: str) -> ScanResult:
        """Judge `text` at the threshold in force.

        Raises:
            InferenceError: The model failed and the settings allow no fallback.
        """
        started = time.perf_counter()
        if self._is_allowed(text):
            return ScanResult.passed(text, scanner=self.name)
        key = (text_digest(text), self._key)
        raw = self.cache.get(key) if self.config.cache_enabled else None
        hit = raw is not None
        cache_ms = elapsed_ms(started) if self.config.cache_enabled else None
        if raw is None:
            raw = self._score(text)
            if self.config.cache_enabled and raw.error is None:
                self.cache.put(key, raw)
        with self._lock:
            self._counts["scans"] += 1
            self._counts["cache_hits"] += hit
        return self._result(text, raw, hit, cache_ms, started)

    def stats(self) -> ScannerStats:
        """Return the counts so far."""
        with self._lock:
            return ScannerStats(
                **self._counts, model_ms=self._model_ms, breaker=self.breaker.state.value
            )

    def _is_allowed(self, text: str) -> bool:
        if not self.config.allow:
            return False
        if text in self.config.allow.texts:
            return True
        # RE2 reads UTF-8, which has no lone surrogates.
        encodable = text.encode("utf-8", "replace").decode()
        return any(pattern.fullmatch(encodable) for pattern in self._allowed_patterns)

    def _score(self, text: str) -> RawScores:
        raw = self._parts.score(text)
        if raw.model is None and raw.error is None:
            return raw
        falls_back = raw.error is not None and self.config.ml.use_fallback
        with self._lock:
            self._counts["escalations"] += self.config.mode is not Mode.ML
            self._counts["fallbacks"] += falls_back
        if raw.error is None:
            return raw
        if not falls_back:
            raise raw.error
        logger.warning("%s fell back to heuristics: %s", self.name, raw.error)
        return raw if raw.heuristic else replace(raw, heuristic=self.heuristic.score(text))

    def _ask(self, model: MLPart, text: str, views: Views) -> MLScore:
        if not self.breaker.allows():
            raise InferenceError(
                f"the circuit breaker of {model.stamp.id} is {self.breaker.state.value} "
                "after repeated failures"
            )
        started = time.perf_counter()
        try:
            score = model.infer(text, views)
        except BaseException as error:  # an interrupted try must not leave the breaker half-open
            self.breaker.fail()
            with self._lock:
                self._counts["model_failures"] += 1
            if isinstance(error, ShieldError) or not isinstance(error, Exception):
                raise
            raise InferenceError(f"{model.stamp.id} failed: {error}") from error
        self.breaker.succeed()
        with self._lock:
            self._counts["model_calls"] += 1
            self._model_ms += elapsed_ms(started)
        return score

    def _result(
        self, text: str, raw: RawScores, hit: bool, cache_ms: float | None, started: float
    ) -> ScanResult:
        heuristic, model = raw.heuristic, raw.model
        scored = [part for part in (heuristic, model) if part is not None]
        takes_model = (
            heuristic is not None
            and model is not None
            and model_decides(
                self.config.mode,
                part_confidence(self.task, heuristic.probabilities),
                part_confidence(self.task, model.probabilities),
                self.config.bands,
                raw.linear,
            )
        )
        chosen = scored[-1 if takes_model else 0]  # a part that scored alone decides
        verdict = self._verdict(chosen.probabilities)
        metadata: dict[str, Any] = {
            "label": verdict,
            "threshold": self.threshold,
            "probabilities": dict(zip(LABELS[self.task], chosen.probabilities, strict=True)),
        }
        if heuristic is not None:
            metadata["heuristic_score"] = heuristic.score
        if raw.linear is not None:
            metadata["linear_score"] = raw.linear
        if model is not None:
            metadata["ml_score"] = model.score
            metadata["window"] = model.window
            metadata["windows"] = model.windows
            metadata["tokens"] = model.tokens
        if raw.error is not None:
            metadata["fallback_reason"] = str(raw.error)
        return ScanResult(
            text=text,
            is_valid=self._is_valid(verdict),
            risk_score=chosen.score,
            severity=Severity.of(chosen.score),
            risk_factors=self._factors(raw),
            entities=self._entities(text, raw),
            scanner=self.name,
            method=self._method(raw),
            cache_hit=hit,
            timings=_timings(raw, hit, cache_ms, started),
            model=self.model.stamp if self.model and model else None,
            metadata=metadata,
        )

    def _verdict(self, probabilities: Sequence[float]) -> str:
        labels = LABELS[self.task]
        if self.task is Task.SENTIMENT:
            return labels[max(range(len(labels)), key=probabilities.__getitem__)]
        return labels[probabilities[1] >= self.threshold]

    def _is_valid(self, verdict: str) -> bool:
        if self.task is Task.SENTIMENT:
            return verdict in self.config.allowed_labels
        return verdict == LABELS[self.task][0]

    def _method(self, raw: RawScores) -> Method:
        if raw.error is not None:
            return Method.ML_FALLBACK_TO_HEURISTIC
        if self.config.mode is Mode.HEURISTIC:
            return Method.HEURISTIC
        if raw.model is None:
            return Method.HEURISTIC_SHORT_CIRCUIT
        return Method.HYBRID_BOTH if raw.heuristic is not None else Method.ML

    def _factors(self, raw: RawScores) -> tuple[RiskFactor, ...]:
        factors = [
            RiskFactor(hit.category, hit.description, Severity.of(hit.score), hit.score)
            for hit in (raw.heuristic.hits if raw.heuristic is not None else ())
        ]
        model = raw.model
        if model is not None and self.model is not None:
            label = LABELS[self.task][1 if self.task is not Task.SENTIMENT else 0]
            description = (
                f"{self.model.stamp.id} ({self.model.stamp.variant or 'guard'}) gives {label} "
                f"a probability of {model.score:.3f}, window {model.window[0]}-"
                f"{model.window[1]} of {model.windows}"
            )
            factors.append(RiskFactor("model", description, Severity.of(model.score), model.score))
        return tuple(sorted(factors, key=lambda factor: -factor.score))

    def _entities(self, text: str, raw: RawScores) -> tuple[Entity, ...]:
        spans = [
            (hit.category, hit.start, hit.end, hit.score, hit.rule_id)
            for hit in (raw.heuristic.hits if raw.heuristic is not None else ())
        ]
        model = raw.model
        if model is not None and self.model is not None and model.windows > 1:
            spans.append(("window", *model.window, model.score, self.model.stamp.id))
        return tuple(
            Entity(kind, start, end, text[start:end], score, source)
            for kind, start, end, score, source in spans
        )


class PromptInjection(PartsScanner):
    """Finds text that tries to make the model depart from its operator's instructions."""

    task = Task.PROMPT_INJECTION


class Toxicity(PartsScanner):
    """Finds insult, threat, obscene abuse and identity hate aimed at someone."""

    task = Task.TOXICITY


class Sentiment(PartsScanner):
    """Tells negative, neutral and positive apart; the policy says which may pass."""

    task = Task.SENTIMENT


KINDS: Mapping[Task, type[PartsScanner]] = {
    kind.task: kind for kind in (PromptInjection, Toxicity, Sentiment)
}
"""The scanner class of each task."""


def _timings(raw: RawScores, hit: bool, cache_ms: float | None, started: float) -> Timings:
    """Return what scoring took; a hit took none of it."""
    heuristic, model = (None, None) if hit else (raw.heuristic, raw.model)
    return Timings(
        normalise_ms=heuristic.normalise_ms if heuristic else None,
        rules_ms=heuristic.rules_ms if heuristic else None,
        tokenize_ms=model.tokenize_ms if model else None,
        infer_ms=model.infer_ms if model else None,
        cache_ms=cache_ms,
        total_ms=elapsed_ms(started),
    )


def _compiled(patterns: Sequence[str]) -> tuple[Any, ...]:
    import re2

    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re2.compile(pattern))
        except re2.error as error:
            raise ConfigError(
                f"allow-list pattern {pattern!r} is not valid RE2: {error}"
            ) from error
    return tuple(compiled)

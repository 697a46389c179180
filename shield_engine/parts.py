"""The parts that score a text, and the one place where they do: a scan and a run share it.

A part scores, it decides nothing. Hides the order in which parts are asked, the readings of a
disguised text, and the breaker that leaves a failing model alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from shield_engine.config import Bands
from shield_engine.decision import asks_model
from shield_engine.errors import ShieldError
from shield_engine.heuristics import HeuristicPart, HeuristicScore, LinearTier, Views
from shield_engine.heuristics.normalizer import hidden_readings
from shield_engine.ml import MLScore
from shield_engine.types import Mode, ModelStamp, Task

__all__ = [
    "BreakerState",
    "CircuitBreaker",
    "MLPart",
    "Parts",
    "RawScores",
    "elapsed_ms",
    "part_confidence",
]


@dataclass(frozen=True, slots=True)
class MLPart:
    """A model: what scores one text (loading it first if need be), its stamp and thresholds.

    Attributes:
        ask: Scores a text as it stands.
        stamp: Which model that is.
        tokenizer_key: What else of the part decides a score.
        thresholds: Balanced threshold by mode.
        reads_disguises: Whether it is also asked about what a disguise hid.
    """

    ask: Callable[[str], MLScore]
    stamp: ModelStamp
    tokenizer_key: str
    thresholds: Mapping[str, float]
    reads_disguises: bool = False

    @property
    def key(self) -> str:
        """Everything of the model part that decides a score."""
        return f"{self.stamp.sha256}:{self.stamp.variant}:{self.tokenizer_key}"

    def infer(self, text: str, views: Views | None = None) -> MLScore:
        """Score a text as it stands and as read without its disguises; the highest risk counts.

        A tokenizer sees noise where an attack is spelled backwards or in base64. Nearly every text
        has no disguise and is scored once.
        """
        best = self.ask(text)
        if not self.reads_disguises:
            return best
        for reading in hidden_readings((views or Views(text)).normalized):
            score = self.ask(reading.text)
            tokenize_ms = best.tokenize_ms + score.tokenize_ms
            infer_ms = best.infer_ms + score.infer_ms
            if score.score > best.score:
                best = replace(score, window=reading.span(*score.window))
            best = replace(best, tokenize_ms=tokenize_ms, infer_ms=infer_ms)
        return best


@dataclass(frozen=True, slots=True)
class RawScores:
    """What the parts gave, before any threshold; what caches keep.

    Attributes:
        heuristic: The rules' or lexicon's score; `None` if they were not asked.
        model: The model's; `None` if it was not asked, or failed.
        linear: The linear tier's; `None` if it was not asked.
        linear_ms: Time in that tier.
        error: Why a model that was asked gave none.
    """

    heuristic: HeuristicScore | None
    model: MLScore | None
    linear: float | None = None
    linear_ms: float | None = None
    error: ShieldError | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """The ready parts of a scanner or a run.

    Attributes:
        task: What they look for.
        heuristic: Rules or lexicon.
        linear: The middle tier of hybrid.
        infer: Scores a text and its views by the model.
        mode: Where it is given, a part is asked only if this mode needs it to decide; else every
            part is, so that any mode can be derived afterwards.
        bands: Of mode `hybrid`.
    """

    task: Task
    heuristic: HeuristicPart | None = None
    linear: LinearTier | None = None
    infer: Callable[[str, Views], MLScore] | None = None
    mode: Mode | None = None
    bands: Bands = field(default_factory=Bands)

    def score(self, text: str, known: MLScore | None = None) -> RawScores:
        """Score `text`; a failure of the model is the result's error, never a score.

        Args:
            text: Any text. It is normalised once, however many parts read its views.
            known: The model's score, where an earlier run has it.
        """
        views = Views(text)
        heuristic = self.heuristic.score(text, views) if self.heuristic is not None else None
        is_silent = heuristic is None or heuristic.score <= 0
        linear, linear_ms = None, None
        if self.linear is not None and (self.mode is None or is_silent):
            started = time.perf_counter()
            linear = self.linear.score(text)
            linear_ms = elapsed_ms(started)
        model, error = known, None
        if self.infer is not None and model is None and self._asks_model(heuristic, linear):
            try:
                model = self.infer(text, views)
            except ShieldError as failure:
                error = failure
        return RawScores(heuristic, model, linear, linear_ms, error)

    def _asks_model(self, heuristic: HeuristicScore | None, linear: float | None) -> bool:
        if self.mode is None or heuristic is None:
            return True
        sure = part_confidence(self.task, heuristic.probabilities)
        return asks_model(self.mode, sure, self.bands, linear)


def part_confidence(task: Task, probabilities: Sequence[float]) -> float:
    """Return what modes compare of one text: the risk of two classes, the highest of three."""
    return max(probabilities) if task is Task.SENTIMENT else probabilities[1]


def elapsed_ms(started: float) -> float:
    """Return the milliseconds since `started`, a reading of `time.perf_counter`."""
    return (time.perf_counter() - started) * 1_000


class BreakerState(StrEnum):
    """Closed lets calls through, open refuses them, half-open lets one through to try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Opens after `failures` in a row and tries again after `reset_s` seconds. Thread-safe."""

    def __init__(
        self,
        failures: int = 5,
        reset_s: float = 30.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._reset_s = reset_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._opened_at: float | None = None
        self._trying = False

    @property
    def state(self) -> BreakerState:
        """The state as of now."""
        with self._lock:
            if self._opened_at is None:
                return BreakerState.CLOSED
            if self._clock() - self._opened_at >= self._reset_s:
                return BreakerState.HALF_OPEN
            return BreakerState.OPEN

    def allows(self) -> bool:
        """Return whether a call may go through; in half-open state only the first one may."""
        with self._lock:
            if self._opened_at is None:
                return True
            if self._trying or self._clock() - self._opened_at < self._reset_s:
                return False
            self._trying = True
            return True

    def succeed(self) -> None:
        """Note a call that went well: the breaker closes.

        A call begun before the breaker opened proves nothing about now and leaves it open.
        """
        with self._lock:
            if self._opened_at is not None and not self._trying:
                return
            self._failures = 0
            self._opened_at = None
            self._trying = False

    def fail(self) -> None:
        """Note a call that failed; the `failures`-th in a row opens the breaker."""
        with self._lock:
            self._failures += 1
            if self._trying or self._failures >= self._limit:
                self._opened_at = self._clock()
            self._trying = False

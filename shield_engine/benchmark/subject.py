"""What a benchmark measures: an engine, its models, and texts of known lengths.

The texts are those of the bundled samples, as they are or cut and joined to a wanted length.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from shield_engine.cache import ResultCache
from shield_engine.config import CacheConfig, MLConfig, ScannerConfig
from shield_engine.engine import Shield
from shield_engine.errors import ShieldError
from shield_engine.ml import LoadedModel, ModelEntry
from shield_engine.scanners import KINDS, PartsScanner
from shield_engine.settings import bundled
from shield_engine.types import Mode, Task

__all__ = ["Effort", "Subject", "Tally", "describe"]


@dataclass(frozen=True, slots=True)
class Effort:
    """How often things are repeated.

    Attributes:
        calls: Timed calls behind a percentile; p99 has an upper bound from 368 on.
        cheap_calls: The same for calls of microseconds.
        batches: Timed calls of 16 texts.
        loads: Cold loads of each model.
        processes: Fresh processes for memory and the first verdict.
        rounds: Rounds behind a rate.
        round_texts: Texts of a round that asks the model.
        requests: Requests of the traffic replay.
    """

    calls: int
    cheap_calls: int
    batches: int
    loads: int
    processes: int
    rounds: int
    round_texts: int
    requests: int

    @classmethod
    def full(cls) -> Self:
        """Some minutes on two cores."""
        return cls(1_000, 5_000, 400, 10, 8, 20, 100, 5_000)

    @classmethod
    def quick(cls) -> Self:
        """Under 45 seconds on two cores."""
        return cls(200, 1_000, 60, 3, 3, 6, 50, 800)


class Tally:
    """Proves a measurement: the scanner's own counters must agree with what was timed."""

    def __init__(self, scanner: PartsScanner) -> None:
        self._scanner = scanner
        self._before = scanner.stats()

    def counts(self) -> tuple[int, int]:
        """Return scans and cache hits since this tally was made."""
        now, before = self._scanner.stats(), self._before
        return now.scans - before.scans, now.cache_hits - before.cache_hits

    def check(self, *, scans: int, hits: int) -> None:
        """Compare the scanner's counts since this tally was made.

        Raises:
            ShieldError: The scanner counted something else.
        """
        counted = self.counts()
        if counted != (scans, hits):
            raise ShieldError(
                f"the benchmark timed {scans} scans with {hits} cache hits, but "
                f"{self._scanner.name} counted {counted[0]} with {counted[1]}: its figures would "
                "be wrong; report this"
            )

    def shares(self) -> dict[str, float]:
        """Return cache hits, escalations and model calls per scan since this tally was made."""
        now, before = self._scanner.stats(), self._before
        scans, hits = self.counts()
        shares = {
            "hit_rate": hits / scans,
            "model_asked_share": (now.model_calls - before.model_calls) / scans,
        }
        if self._scanner.config.mode is Mode.HYBRID:
            shares["escalated_share"] = (now.escalations - before.escalations) / scans
        return shares


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine with its three models, and the bundled samples.

    Attributes:
        shield: The engine.
        effort: How often things are repeated.
        entries: The model of each task.
        rows: Distinct sample texts of each task, in the file's order, and their labels.
    """

    shield: Shield
    effort: Effort
    entries: Mapping[Task, ModelEntry]
    rows: Mapping[Task, Mapping[str, int]]

    @classmethod
    def of(cls, shield: Shield, effort: Effort) -> Self:
        """Return the engine with the models that `shield eval` would use and the samples.

        Raises:
            ShieldError: A model is not in the registry, or a sample is not here.
        """
        entries = {task: shield.entry_for(task, MLConfig.evaluation()) for task in Task}
        return cls(shield, effort, entries, {task: _sample(task) for task in Task})

    @property
    def entry(self) -> ModelEntry:
        """The injection model."""
        return self.entries[Task.PROMPT_INJECTION]

    @property
    def model(self) -> LoadedModel:
        """The injection model, loaded."""
        return self.shield.loader.load(self.entry)

    def texts(self, task: Task = Task.PROMPT_INJECTION) -> list[str]:
        """Return the sample's texts as they are."""
        return list(self.rows[task])

    def ordinary(self) -> list[str]:
        """Return the injection sample's benign texts."""
        return [text for text, label in self.rows[Task.PROMPT_INJECTION].items() if label == 0]

    def prompts(self, chars: int, n: int) -> list[str]:
        """Return up to `n` distinct pieces of benign ASCII texts, `chars` characters each."""
        stream = " ".join(text for text in self.ordinary() if text.isascii())
        starts = np.linspace(0, len(stream) - chars, n).astype(int)
        return list(dict.fromkeys(stream[start : start + chars] for start in starts))

    def of_tokens(self, tokens: int, n: int) -> list[str]:
        """Return `n` texts that the injection model reads as exactly `tokens` tokens.

        Runs of whole words of the ASCII texts; special tokens are counted.

        Raises:
            ShieldError: The sample does not give that many.
        """
        windows = self.model.windows

        def count(text: str) -> int:
            return len(next(windows.windows(text)).ids)

        words = " ".join(text for text in self.texts() if text.isascii()).split()
        texts: list[str] = []
        for first in range(len(words)):
            low, high = 1, tokens
            while low < high:
                middle = (low + high) // 2
                if count(" ".join(words[first : first + middle])) < tokens:
                    low = middle + 1
                else:
                    high = middle
            text = " ".join(words[first : first + low])
            if count(text) == tokens:
                texts.append(text)
                if len(texts) == n:
                    return texts
        raise ShieldError(
            f"the injection sample gives {len(texts)} texts of {tokens} tokens, {n} are needed; "
            "restore datasets/prompt_injection_sample.jsonl"
        )

    def scanner(
        self, mode: Mode, task: Task = Task.PROMPT_INJECTION, *, cache: int | None = None
    ) -> PartsScanner:
        """Return a new scanner, so that no count and no cache of the engine is touched.

        Args:
            mode: Which parts decide.
            task: The scanner's kind.
            cache: Entries of its own cache; `None` switches caching off.
        """
        config = ScannerConfig.for_mode(mode, self.entries[task].variant)
        return KINDS[task].create(
            replace(config, cache_enabled=cache is not None),
            self.shield.model_part(self.entries[task]),
            cache=ResultCache(CacheConfig(size=cache or 0)),
        )


def describe(texts: Sequence[str]) -> dict[str, Any]:
    """Return how many texts there are and how long they are, for a figure's detail."""
    chars = sorted(len(text) for text in texts)
    return {
        "texts": len(texts),
        "distinct_texts": len(set(texts)),
        "chars_p5": chars[len(chars) // 20],
        "chars_p50": chars[len(chars) // 2],
        "chars_p95": chars[len(chars) * 19 // 20],
        "chars_max": chars[-1],
    }


def _sample(task: Task) -> dict[str, int]:
    path = bundled("datasets", f"{task.value}_sample.jsonl")
    rows: dict[str, int] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            row = json.loads(line)
            rows.setdefault(row["text"], row["label"])
    return rows

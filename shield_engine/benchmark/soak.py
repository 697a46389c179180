"""The soak: traffic for a long time, and proof that scores and memory stay as they are.

Hides how the traffic is made and how a slope of memory is told from noise.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from shield_engine.benchmark.subject import Effort, Subject, Tally
from shield_engine.engine import Shield
from shield_engine.errors import ShieldError
from shield_engine.scanners import PartsScanner
from shield_engine.types import Mode, Task

__all__ = ["run_soak"]

_CACHE = 400  # fewer than the texts, so that entries come and go all the time
_SAMPLES = 240
_SETTLING = 0.2  # the first part of a run fills caches and pools


def run_soak(
    shield: Shield,
    *,
    minutes: float,
    threads: int = 8,
    on_progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Let `threads` callers scan the samples at random, by every task and mode, for some time.

    Every result is compared with the score that the same text got on one thread before; resident
    memory is sampled all along.

    Args:
        shield: The engine; its own scanners and caches are left alone.
        minutes: How long, above 0.
        threads: Callers at once.
        on_progress: Called with a title and the share done, 0..1.

    Returns:
        JSON-safe: `minutes`, `threads`, `scans` (also by scanner), `cache_hits`, `wrong_scores`,
        `memory_mb` (first and last after settling, highest), `memory_slope_mb_per_hour`.

    Raises:
        ShieldError: A model or sample is missing, a scan fails, or a caller hangs.
    """
    subject = Subject.of(shield, Effort.quick())
    # Tasks one after another within a mode: where one model file serves them, so does one pass.
    scanners = {
        f"{task.value}.{mode.value}": subject.scanner(mode, task, cache=_CACHE)
        for mode in Mode
        for task in Task
    }
    texts = [text for task in Task for text in subject.texts(task)]
    expected = _expected(scanners, texts, on_progress)
    tallies = {name: Tally(scanner) for name, scanner in scanners.items()}
    end = time.monotonic() + minutes * 60
    stop = threading.Event()

    def call(number: int) -> int:
        draw = random.Random(number)  # noqa: S311 - an order, not a secret
        names, wrong = list(scanners), 0
        while time.monotonic() < end and not stop.is_set():
            name, text = draw.choice(names), draw.choice(texts)
            wrong += scanners[name].scan(text).risk_score != expected[name, text]
        return wrong

    with ThreadPoolExecutor(threads) as pool:
        callers = [pool.submit(call, number) for number in range(threads)]
        memory = _watched(callers, stop, minutes, on_progress)
        wrong = sum(_result(caller, minutes) for caller in callers)
    counts = {name: tally.counts() for name, tally in tallies.items()}
    return {
        "minutes": minutes,
        "threads": threads,
        "scans": sum(scans for scans, _ in counts.values()),
        "cache_hits": sum(hits for _, hits in counts.values()),
        "wrong_scores": wrong,
        **_memory(memory),
        "scans_by_scanner": {name: scans for name, (scans, _) in counts.items()},
    }


def _watched(
    callers: Sequence[Future[int]],
    stop: threading.Event,
    minutes: float,
    on_progress: Callable[[str, float], None] | None,
) -> list[tuple[float, float]]:
    """Sample resident memory, as (seconds, megabytes), until the end or until a caller fails."""
    import psutil

    process, end = psutil.Process(), time.monotonic() + minutes * 60
    samples = []
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(max(0.05, minutes * 60 / _SAMPLES), left))
        samples.append((time.monotonic(), process.memory_info().rss / 1e6))
        if on_progress is not None:
            on_progress("soaking", 1 - left / (minutes * 60))
        if any(caller.done() for caller in callers):
            stop.set()  # one has failed, or all are at their end; an error is raised later
            break
    return samples


def _result(caller: Future[int], minutes: float) -> int:
    try:
        return caller.result(timeout=60)
    except TimeoutError as error:
        raise ShieldError(
            f"a caller still scans 60 s after the end of {minutes:g} minutes: a deadlock; "
            "report this"
        ) from error


def _expected(
    scanners: Mapping[str, PartsScanner],
    texts: list[str],
    on_progress: Callable[[str, float], None] | None,
) -> dict[tuple[str, str], float]:
    """Return each text's score by each scanner, scanned once on this thread."""
    expected = {}
    for position, text in enumerate(texts):
        for name, scanner in scanners.items():
            expected[name, text] = scanner.scan(text).risk_score
        if on_progress is not None and position % 20 == 0:
            on_progress("scoring on one thread", position / len(texts))
    return expected


def _memory(samples: list[tuple[float, float]]) -> dict[str, Any]:
    settled = samples[int(len(samples) * _SETTLING) :]
    hours = np.array([moment for moment, _ in settled]) / 3600
    megabytes = np.array([resident for _, resident in settled])
    slope = float(np.polyfit(hours - hours[0], megabytes, 1)[0]) if len(settled) > 2 else None
    return {
        "memory_mb": {
            "first": float(megabytes[0]),
            "last": float(megabytes[-1]),
            "highest": float(megabytes.max()),
        },
        "memory_slope_mb_per_hour": slope,
    }

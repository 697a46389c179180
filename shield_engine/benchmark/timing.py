"""Times calls and says how sure the result is; knows nothing of scanners.

What is counted is what came back: a call that raises is no observation, it ends the measurement.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from shield_engine.statistics import Figure
from shield_engine.statistics.arrays import Floats
from shield_engine.statistics.intervals import percentile_ranks

__all__ = [
    "Round",
    "Timed",
    "mean_estimate",
    "percentile_estimate",
    "ratio_of_rounds",
    "time_arrivals",
    "time_interleaved",
    "time_threads",
]

_Item = TypeVar("_Item")
Result = TypeVar("Result")

_CONFIDENCE = 0.95
_TAIL = (1 - _CONFIDENCE) / 2


@dataclass(frozen=True, slots=True)
class Timed(Generic[Result]):
    """Calls that came back.

    Attributes:
        wall_s: Seconds of each call, shape (n,).
        results: What the calls returned, in the same order.
    """

    wall_s: Floats
    results: tuple[Result, ...]

    @property
    def n(self) -> int:
        """How many calls returned."""
        return len(self.results)


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over a list of texts, on one or several threads.

    Attributes:
        n: Texts that came back scored.
        wall_s: From the common start to the last thread's end.
        cpu_s: CPU time of the whole process meanwhile.
    """

    n: int
    wall_s: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        """Texts per second of wall time."""
        return self.n / self.wall_s


def time_interleaved(
    calls: Mapping[str, Callable[[_Item], Any]], items: Sequence[_Item]
) -> dict[str, Timed[Any]]:
    """Time every call on every item, side by side, so that a machine's drift hits all alike.

    For each item all calls run one after the other, and each item begins with the next call.
    """
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    results: dict[str, list[Any]] = {name: [] for name in names}
    for position, item in enumerate(items):
        shift = position % len(names)
        for name in names[shift:] + names[:shift]:
            call = calls[name]
            started = time.perf_counter()
            result = call(item)
            ended = time.perf_counter()
            seconds[name].append(ended - started)
            results[name].append(result)
    return {name: Timed(np.asarray(seconds[name]), tuple(results[name])) for name in names}


def time_threads(scan: Callable[[str], object], texts: Sequence[str], threads: int) -> Round:
    """Scan `texts` once, dealt out to `threads` threads that start together."""
    start = threading.Barrier(threads + 1)

    def work(share: Sequence[str]) -> int:
        start.wait()
        done = 0
        for text in share:
            scan(text)
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, texts[first::threads]) for first in range(threads)]
        start.wait()
        wall, cpu = time.perf_counter(), time.process_time()
        n = sum(future.result() for future in futures)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Round(n, wall, cpu)


def time_arrivals(
    call: Callable[[_Item], Result],
    items: Sequence[_Item],
    per_second: float,
    threads: int,
    seed: int,
) -> Timed[Result]:
    """Call for items that arrive at random times, whether or not the earlier ones are done.

    Args:
        call: What is timed, from the moment an item arrives: waiting for a free thread counts.
        items: In the order of arrival.
        per_second: Mean rate of a Poisson process.
        threads: Callers that serve the queue.
        seed: Decides the gaps.
    """
    gaps = np.random.default_rng(seed).exponential(1 / per_second, len(items))
    due = np.cumsum(gaps)
    started = time.perf_counter()
    seconds = np.empty(len(items))

    def serve(position: int) -> Result:
        result = call(items[position])
        seconds[position] = time.perf_counter() - started - due[position]
        return result

    with ThreadPoolExecutor(threads) as pool:
        futures = []
        for position, moment in enumerate(due):
            wait = moment - (time.perf_counter() - started)
            if wait > 0:
                time.sleep(wait)
            futures.append(pool.submit(serve, position))
        results = tuple(future.result() for future in futures)
    return Timed(seconds, results)


def percentile_estimate(values: ArrayLike, share: float) -> Figure:
    """Return a percentile (linearly interpolated) with the interval of its order statistics.

    How many values lie below the percentile is binomial, which gives the two ranks (David and
    Nagaraja, Order Statistics, section 7.1). An end is `None` where no value lies far enough out:
    the upper end of p99 takes 368 values. Of very few values the interpolated percentile may lie
    outside; it is moved to the nearer end.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    upper, lower = percentile_ranks(n, share, 1 - _TAIL)
    low = None if lower is None else float(ordered[lower - 1])
    high = None if upper is None else float(ordered[upper - 1])
    method = "order statistics of the calls; an open end lies beyond the sample"
    value = float(np.clip(np.quantile(ordered, share), low, high))
    return Figure(value, low, high, n, method=method)


def mean_estimate(values: ArrayLike, of: str = "rounds") -> Figure:
    """Return a mean with its Student's t interval; one value has no interval.

    Args:
        values: Observations.
        of: What one observation is, for the reader.
    """
    given = np.asarray(values, dtype=np.float64)
    mean, method = float(given.mean()), f"Student's t over {of}"
    if len(given) < 2:
        return Figure(mean, None, None, len(given), method=method)
    spread = float(special.stdtrit(len(given) - 1, 1 - _TAIL))
    spread *= float(given.std(ddof=1)) / math.sqrt(len(given))
    return Figure(mean, mean - spread, mean + spread, len(given), method=method)


def ratio_of_rounds(above: Sequence[Round], below: Sequence[Round]) -> Figure:
    """Return how many times the texts per second of `below` those of `above` are.

    The geometric mean over pairs of rounds, with Student's t over the logarithms.
    """
    gains = [math.log(a.per_second / b.per_second) for a, b in zip(above, below, strict=True)]
    logs = mean_estimate(gains, "the logarithms of paired rounds")
    value, low, high = (
        None if end is None else math.exp(end) for end in (logs.value, logs.low, logs.high)
    )
    return Figure(value, low, high, logs.n, method=logs.method)

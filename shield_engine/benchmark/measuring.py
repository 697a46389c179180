"""From timed calls to rows of the document: percentiles, rates and paired ratios, warmed and proved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from shield_engine.benchmark.document import TARGETS, Measure, Ratio
from shield_engine.benchmark.subject import Tally
from shield_engine.benchmark.timing import (
    Round,
    Timed,
    mean_estimate,
    percentile_estimate,
    time_interleaved,
    time_threads,
)
from shield_engine.ml import ModelEntry
from shield_engine.scanners import PartsScanner
from shield_engine.statistics import Figure
from shield_engine.statistics.arrays import Floats
from shield_engine.statistics.intervals import wilson

__all__ = [
    "Calls",
    "MeasuredRows",
    "band",
    "counted_share",
    "cycled",
    "paired",
    "percentiles",
    "proved_round",
    "rate",
    "rounds_of",
    "side_by_side",
]

MeasuredRows = Iterator[Measure | Ratio]
Calls = dict[str, Callable[[Any], Any]]
_Item = TypeVar("_Item")

_WARM_UP = 20
_STEPS = 41
_PERCENTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def cycled(items: Sequence[_Item], n: int) -> list[_Item]:
    """Return `n` items, beginning anew where they end."""
    return [items[position % len(items)] for position in range(n)]


def side_by_side(
    calls: Calls,
    items: Sequence[Any],
    n: int,
    proved: Mapping[str, PartsScanner] | None = None,
) -> dict[str, Timed[Any]]:
    """Time `n` calls of each kind over the items in turn, after some to warm up.

    Args:
        calls: What is called, by name.
        items: What each call is given.
        n: Timed calls of each.
        proved: The scanner behind a call: it must have counted as many scans, and no cache hit.

    Raises:
        ShieldError: A scanner counted something else.
    """
    time_interleaved(calls, items[:_WARM_UP])
    tallies = {name: Tally(scanner) for name, scanner in (proved or {}).items()}
    timed = time_interleaved(calls, cycled(items, n))
    for name, tally in tallies.items():
        tally.check(scans=timed[name].n, hits=0)
    return timed


def percentiles(
    name: str, timed: Timed[Any], group: str, detail: Mapping[str, Any], target: str | None = None
) -> Iterator[Measure]:
    """Yield p50, p95 and p99 in milliseconds; the first carries the whole distribution to draw."""
    steps = np.quantile(timed.wall_s, np.linspace(0, 1, _STEPS)) * 1_000
    extra: dict[str, Any] = {"quantiles": steps.tolist()}
    for label, share in _PERCENTILES:
        estimate = percentile_estimate(timed.wall_s, share).scaled(1_000)
        row_detail = {**detail, **extra}
        yield Measure(f"{name}.{label}", estimate, "ms", group, target=target, detail=row_detail)
        extra = {}


def rounds_of(scanner: PartsScanner, texts: Sequence[str], n: int) -> list[Round]:
    """Time `n` rounds on one thread, after one to warm up."""
    time_threads(scanner.scan, texts, 1)
    return [proved_round(scanner, texts, 1) for _ in range(n)]


def proved_round(scanner: PartsScanner, texts: Sequence[str], threads: int) -> Round:
    """Time one round; its scanner must have counted its texts, and no cache hit."""
    tally = Tally(scanner)
    done = time_threads(scanner.scan, texts, threads)
    tally.check(scans=done.n, hits=0)
    return done


def rate(
    name: str, rounds: Sequence[Round], detail: Mapping[str, Any], target: str | None = None
) -> Measure:
    """Return texts per second over rounds, with the CPU time behind them."""
    scanned = sum(done.n for done in rounds)
    cpu_s, wall_s = sum(done.cpu_s for done in rounds), sum(done.wall_s for done in rounds)
    detail = {
        **detail,
        "texts_scanned": scanned,
        "cpu_ms_per_text": cpu_s / scanned * 1_000,
        "wall_ms_per_text": wall_s / scanned * 1_000,
        "cpus_busy": cpu_s / wall_s,
    }
    estimate = mean_estimate([done.per_second for done in rounds])
    return Measure(name, estimate, "texts/s", "throughput", "higher", target, detail)


def paired(above: Floats, below: Floats) -> Figure:
    """Return the median of paired ratios: a call that the machine held up moves it little."""
    return percentile_estimate(above / below, 0.5)


def counted_share(hits: int, n: int, method: str) -> Figure:
    """Return a share of 0..1 with its Wilson interval."""
    interval = wilson(hits, n)
    return Figure(hits / n, interval.low, interval.high, n, method=method)


def band(operation: str, entry: ModelEntry) -> str | None:
    """Return the name of the target for this operation and variant, if there is one."""
    name = f"{operation}_{entry.variant.value.lower()}"
    return name if any(target.name == name for target in TARGETS) else None

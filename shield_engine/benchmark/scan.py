"""What scans cost: rules, cache, whole scanners, one caller or many, and traffic that repeats."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from shield_engine.benchmark.document import Measure, Ratio
from shield_engine.benchmark.measuring import (
    Calls,
    MeasuredRows,
    counted_share,
    cycled,
    paired,
    percentiles,
    proved_round,
    rate,
    rounds_of,
    side_by_side,
)
from shield_engine.benchmark.subject import Subject, Tally, describe
from shield_engine.benchmark.timing import (
    Round,
    Timed,
    mean_estimate,
    percentile_estimate,
    ratio_of_rounds,
    time_arrivals,
    time_interleaved,
    time_threads,
)
from shield_engine.cache import ResultCache, text_digest
from shield_engine.config import CacheConfig
from shield_engine.heuristics import Normalizer, load_rules
from shield_engine.heuristics.ruleset import RuleMatcher
from shield_engine.parts import RawScores
from shield_engine.pipeline import ScannerPipeline
from shield_engine.settings import usable_cpus
from shield_engine.types import Mode, ScanResult, Task

__all__ = [
    "arrivals",
    "caching",
    "end_to_end",
    "heuristics",
    "hit_rates",
    "matching",
    "replay",
    "three_scanners",
    "throughput",
]

_SEED = 7
_ZIPF_EXPONENT = 1.1
_LOADS = (0.5, 0.8)
_DISTINCT = 50_000
_CROWDED_ROUNDS = 4
_CALLERS = (1, 2, 4, 8, 16, 32)
_CACHE_SIZES = (100, 1_000, 10_000)
_REPEATS = {"rare": 0.7, "some": 0.9, "often": 1.1}  # exponents of Zipf draws
_PARTS = ("normalise", "rules", "tokenize", "infer")


def caching(subject: Subject) -> MeasuredRows:
    """Time a digest and a lookup, beside a call that does nothing."""
    texts = subject.prompts(200, 1_000)
    cache: ResultCache[RawScores] = ResultCache(CacheConfig(size=1_000))
    part = ("prompt_injection", "hybrid")
    for text in texts:
        cache.put((text_digest(text), part), RawScores(None, None))
    asked = cycled(texts, subject.effort.cheap_calls)
    random.Random(_SEED).shuffle(asked)  # noqa: S311 - an order, not a secret
    calls: Calls = {
        "digest": text_digest,
        "lookup": lambda text: cache.get((text_digest(text), part)),
        "nothing": lambda text: text,
    }
    timed = side_by_side(calls, asked, len(asked))
    hits = sum(scores is not None for scores in timed["lookup"].results)
    detail = {
        **describe(texts),
        "entries": len(cache),
        "empty_call_p50_ms": 1_000 * float(np.median(timed["nothing"].wall_s)),
    }
    yield from percentiles("cache_digest", timed["digest"], "cache", detail)
    detail = {**detail, "what": "digest and lookup", "hit_rate": hits / len(asked)}
    yield from percentiles("cache_lookup", timed["lookup"], "cache", detail, "cache_lookup")


def _zipf(generator: np.random.Generator, distinct: int, n: int, exponent: float) -> list[int]:
    """Draw `n` of `distinct` ranks, each as often as its rank to the power of -`exponent`."""
    weights = 1 / np.arange(1, distinct + 1) ** exponent
    drawn: list[int] = generator.choice(distinct, n, p=weights / weights.sum()).tolist()
    return drawn


def hit_rates(subject: Subject) -> MeasuredRows:
    """Count the hits of caches of several sizes under several repeat distributions."""
    n = subject.effort.requests * 4
    for repeats, exponent in _REPEATS.items():
        requests = _zipf(np.random.default_rng(_SEED), _DISTINCT, n, exponent)
        for size in _CACHE_SIZES:
            cache: ResultCache[RawScores] = ResultCache(CacheConfig(size=size))
            for request in requests:
                if cache.get(request) is None:
                    cache.put(request, RawScores(None, None))
            hits = cache.stats().hits
            share = counted_share(hits, n, "Wilson").scaled(100)
            name = f"hit_rate.repeats_{repeats}.size_{size}"
            detail = {"requests": n, "distinct_texts": _DISTINCT, "zipf_exponent": exponent}
            yield Measure(name, share, "%", "hit_rate", "higher", detail=detail)


def heuristics(subject: Subject) -> MeasuredRows:
    """Scan by rules alone: texts seen before, new texts, and plain prompts."""
    effort = subject.effort
    for task in Task:
        scanner, texts = subject.scanner(Mode.HEURISTIC, task), subject.texts(task)
        for text in texts:
            scanner.scan(text)
        calls: Calls = {"scan": scanner.scan}
        timed = side_by_side(calls, texts, effort.cheap_calls, {"scan": scanner})["scan"]
        detail = {"what": "texts the rules' automaton has seen", "threads": 1, **describe(texts)}
        first = {
            "what": "each text for the first time, after the other half of the sample",
            **describe(texts),
        }
        name = f"heuristic.{task.value}"
        yield from percentiles(name, timed, "heuristic", detail)
        visits = _first_visits(subject, task)
        yield from percentiles(f"{name}.new_texts", visits, "heuristic", first)
        rounds = rounds_of(scanner, texts, effort.rounds)
        yield rate(f"throughput.{name}", rounds, detail, "throughput_heuristic")
    prompts = subject.prompts(200, effort.cheap_calls)
    rounds = rounds_of(subject.scanner(Mode.HEURISTIC), prompts, effort.rounds)
    detail = {
        "what": "injection scans of plain benign prompts seen before, no cache",
        "threads": 1,
        **describe(prompts),
    }
    figure = rate("throughput.heuristic.200_chars", rounds, detail)
    yield figure
    yield Ratio("heuristic_per_second", figure.estimate, 30_000, detail=figure.detail)


def _first_visits(subject: Subject, task: Task) -> Timed[ScanResult]:
    """Time each text once, on a scanner that has seen only the other half of the sample.

    RE2 builds its automaton as texts need it, so a new text costs more than one seen before.
    """
    texts = subject.texts(task)
    halves = (texts[::2], texts[1::2])
    visits: list[Timed[ScanResult]] = []
    for seen, new in (halves, halves[::-1]):
        scan = subject.scanner(Mode.HEURISTIC, task).scan
        for text in seen:
            scan(text)
        visits.append(time_interleaved({"scan": scan}, new)["scan"])
    return _joined(visits)


def _joined(parts: Sequence[Timed[ScanResult]]) -> Timed[ScanResult]:
    return Timed(
        np.concatenate([part.wall_s for part in parts]),
        tuple(result for part in parts for result in part.results),
    )


def matching(subject: Subject) -> MeasuredRows:
    """Ask which rules match, of the matcher and of one `re` search per rule."""
    rules = load_rules(None, Task.PROMPT_INJECTION)
    matcher, normalizer = RuleMatcher(rules), Normalizer()
    patterns = [
        re.compile(rule.pattern, re.MULTILINE | (0 if rule.case_sensitive else re.IGNORECASE))
        for rule in rules
    ]
    views = [normalizer.normalize(text).text for text in subject.texts()]

    def one_by_one(text: str) -> list[int]:
        return [index for index, pattern in enumerate(patterns) if pattern.search(text)]

    for view in views:
        matcher.matching(view)
    calls: Calls = {"matcher": matcher.matching, "re": one_by_one}
    timed = time_interleaved(calls, views)
    pairs = zip(timed["matcher"].results, timed["re"].results, strict=True)
    detail = {
        "what": "time of one `re` search per rule / time of the matcher; which rules match",
        "rules": len(rules),
        "texts_with_equal_answers": sum(fast == slow for fast, slow in pairs),
        **describe(views),
    }
    gain = paired(timed["re"].wall_s, timed["matcher"].wall_s)
    yield Ratio("heuristic_vs_re", gain, 100, detail=detail)


def end_to_end(subject: Subject) -> MeasuredRows:
    """Scan by every mode, side by side: with an empty cache, then with a full one."""
    texts = subject.texts()
    scanners = {mode: subject.scanner(mode, cache=len(texts)) for mode in Mode}
    calls: Calls = {mode.value: scanner.scan for mode, scanner in scanners.items()}
    for text in texts:
        for mode in (Mode.HYBRID, Mode.HEURISTIC, Mode.BOTH):
            scanners[mode].heuristic.score(text)
    time_interleaved(calls, texts[:20])
    tallies = {mode: Tally(scanner) for mode, scanner in scanners.items()}
    passes: list[dict[str, Timed[ScanResult]]] = []
    for first in range(0, subject.effort.calls, len(texts)):
        for scanner in scanners.values():
            scanner.cache.clear()
        passes.append(time_interleaved(calls, texts[: subject.effort.calls - first]))
    for mode, tally in tallies.items():
        timed = _joined([each[mode.value] for each in passes])
        tally.check(scans=timed.n, hits=0)
        detail = {
            "what": "texts the rules' automaton has seen",
            **tally.shares(),
            **describe(texts),
        }
        target = None if mode is Mode.HEURISTIC else "end_to_end_ml"
        name = f"end_to_end.{mode.value}.miss"
        yield from percentiles(name, timed, "end_to_end", detail, target)
        yield from _parts(mode, timed.results)
    for text in texts:
        for call in calls.values():
            call(text)
    tallies = {mode: Tally(scanner) for mode, scanner in scanners.items()}
    hits = time_interleaved(calls, cycled(texts, subject.effort.cheap_calls))
    for mode, tally in tallies.items():
        timed = hits[mode.value]
        tally.check(scans=timed.n, hits=timed.n)
        detail = {**tally.shares(), **describe(texts)}
        name = f"end_to_end.{mode.value}.hit"
        yield from percentiles(name, timed, "end_to_end", detail, "end_to_end_cached")
        if mode is Mode.HYBRID:
            median = percentile_estimate(timed.wall_s, 0.5).scaled(1_000_000)
            yield Ratio("cached_p50_us", median, 15, "lower", detail)


def _parts(mode: Mode, results: Sequence[ScanResult]) -> MeasuredRows:
    """Return the mean milliseconds that each part of a scan takes; a part left out takes none.

    Texts of one window only: the windows of a longer one run side by side, and their times overlap.
    """
    results = [result for result in results if result.metadata.get("windows", 1) == 1]
    took = {
        part: np.array([getattr(result.timings, f"{part}_ms") or 0.0 for result in results])
        for part in _PARTS
    }
    took["rest"] = np.array([result.timings.total_ms for result in results]) - sum(took.values())
    whole = sum(map(np.sum, took.values()))
    for part, ms in took.items():
        if ms.any():
            detail = {
                "what": "mean over scans of texts of at most one window, cache misses",
                "share": float(ms.sum() / whole),
            }
            name = f"parts.{mode.value}.{part}"
            yield Measure(name, mean_estimate(ms), "ms", "parts", detail=detail)


def three_scanners(subject: Subject) -> MeasuredRows:
    """Run all three ML scanners beside one."""
    three = ScannerPipeline([subject.scanner(Mode.ML, task) for task in Task])
    single, texts = subject.scanner(Mode.ML), subject.texts()
    calls: Calls = {"three": three.execute, "one": single.scan}
    timed = side_by_side(calls, texts, subject.effort.calls)
    is_shared = len({entry.sha256 for entry in subject.entries.values()}) == 1
    detail = {
        "what": "time of all three ML scanners / of the injection scanner; "
        + ("one file serves all three" if is_shared else "each has a model of its own"),
        "scans_by_three": sum(len(result.results) for result in timed["three"].results),
        "scans_by_one": timed["one"].n,
        **describe(texts),
    }
    ratio = paired(timed["three"].wall_s, timed["one"].wall_s)
    yield Ratio("three_scanners_vs_one", ratio, 1.5 if is_shared else 2.7, "lower", detail)


def throughput(subject: Subject) -> MeasuredRows:
    """Count texts per second: hybrid with one caller, ML with one to thirty-two."""
    effort = subject.effort
    ordinary = subject.ordinary()[: 2 * effort.round_texts]
    hybrid = subject.scanner(Mode.HYBRID)
    tally = Tally(hybrid)
    rounds = rounds_of(hybrid, ordinary, effort.rounds)
    detail = {
        "what": "benign texts of the sample, no cache; one caller, windows of a long text on the "
        "engine's threads",
        "threads": 1,
        "engine_threads": subject.shield.settings.workers,
        **tally.shares(),
        **describe(ordinary),
    }
    figure = rate("throughput.hybrid", rounds, detail, "throughput_hybrid")
    yield figure
    yield Ratio("hybrid_per_second", figure.estimate, 2_000, detail=figure.detail)

    texts, scanner = subject.of_tokens(64, effort.round_texts), subject.scanner(Mode.ML)
    done: dict[int, list[Round]] = {threads: [] for threads in _CALLERS}
    for threads in _CALLERS:
        time_threads(scanner.scan, texts, threads)
    for position in range(effort.rounds):
        # What more callers than CPUs gain or lose shows in a few rounds.
        levels = [n for n in _CALLERS if n <= usable_cpus() or position < _CROWDED_ROUNDS]
        for threads in levels if position % 2 else reversed(levels):
            done[threads].append(proved_round(scanner, texts, threads))
    figures = {}
    for threads, rounds in done.items():
        detail = {
            "what": "ML scans, no cache",
            "threads": threads,
            "tokens_a_text": 64,
            "hit_rate": 0.0,
            **describe(texts),
        }
        figures[threads] = rate(f"throughput.ml.threads_{threads}", rounds, detail)
    yield from figures.values()
    gain = ratio_of_rounds(done[2], done[1])
    yield Ratio("two_threads_vs_one", gain, 1.8, detail=figures[2].detail)


def _traffic(subject: Subject) -> tuple[list[str], dict[str, Any]]:
    """Return requests of which some come often, and how they were drawn."""
    pool = [text for task in Task for text in subject.texts(task)]
    generator, n = np.random.default_rng(_SEED), subject.effort.requests
    generator.shuffle(pool)
    requests = [pool[index] for index in _zipf(generator, len(pool), n, _ZIPF_EXPONENT)]
    drawn = f"Zipf, exponent {_ZIPF_EXPONENT}, over {len(pool)} texts, seed {_SEED}"
    return requests, {"repeats": drawn, **describe(requests)}


def _served(
    subject: Subject, arrival: str, serve: Callable[[Callable[[str], ScanResult]], Timed[Any]]
) -> tuple[Timed[Any], dict[str, Any]]:
    """Return what `serve` timed on a new hybrid scanner, proved, and how the traffic was served."""
    scanner = subject.scanner(Mode.HYBRID, cache=1_000)
    scanner.scan("Good morning.")
    tally = Tally(scanner)
    timed = serve(scanner.scan)
    tally.check(scans=timed.n, hits=_hits(timed))
    cache = "1,000 entries, empty at the start"
    return timed, {"arrival": arrival, "cache": cache, **tally.shares()}


def _hits(timed: Timed[Any]) -> int:
    return sum(result.cache_hit for result in timed.results)


def replay(subject: Subject) -> MeasuredRows:
    """Serve traffic that repeats, one request after the other."""
    requests, drawn = _traffic(subject)
    timed, served = _served(
        subject,
        "closed loop, one at a time",
        lambda scan: time_interleaved({"scan": scan}, requests)["scan"],
    )
    detail = {**drawn, **served}
    share = counted_share(_hits(timed), timed.n, "Wilson, as if requests were drawn")
    yield Measure("replay.zipf.hit_rate", share, "share", "replay", "higher", detail=detail)
    yield from percentiles("replay.zipf.hybrid", timed, "replay", detail)


def arrivals(subject: Subject) -> MeasuredRows:
    """The same traffic as it arrives, not as it is served: who waits for others waits in full."""
    requests, drawn = _traffic(subject)
    probe = subject.scanner(Mode.HYBRID, cache=1_000)
    callers = usable_cpus()
    rates = []
    for _ in range(3):
        probe.cache.clear()
        rates.append(time_threads(probe.scan, requests, callers).per_second)
    capacity = float(np.median(rates))
    for share in _LOADS:
        timed, served = _served(
            subject,
            f"open loop, Poisson, {share * capacity:.0f} a second, {share:.0%} of what {callers} "
            "callers can serve; from arrival to answer",
            partial(
                time_arrivals,
                items=requests,
                per_second=share * capacity,
                threads=callers,
                seed=_SEED,
            ),
        )
        yield from percentiles(
            f"replay.open.load_{share * 100:.0f}", timed, "replay", {**drawn, **served}
        )

"""The suite: what is measured, in which order, and the document that comes of it.

Each section warms up, measures and proves its counts. A section is a generator of figures and
ratios; `_SECTIONS` lists them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from shield_engine.benchmark.document import TARGETS, Measurement, Ratio
from shield_engine.benchmark.subject import Effort, Subject, Tally, describe
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
from shield_engine.engine import Shield
from shield_engine.errors import ConfigError, ShieldError
from shield_engine.guards.peers import Peer, installed_peers, stackone_parts
from shield_engine.heuristics import Normalizer, load_rules
from shield_engine.heuristics.ruleset import RuleMatcher
from shield_engine.ml import ArtifactStore, LoadedModel, MLScore, ModelEntry, ModelLoader
from shield_engine.ml.loader import default_session
from shield_engine.ml.tokenizer import Window
from shield_engine.pipeline import ScannerPipeline
from shield_engine.scanners import PartsScanner, RawScores
from shield_engine.settings import usable_cpus
from shield_engine.statistics import Figure
from shield_engine.statistics.arrays import Floats
from shield_engine.statistics.intervals import wilson
from shield_engine.types import Mode, ScanResult, Task, Variant

__all__ = ["machine_facts", "run_benchmark"]

Measured = Iterator[Measurement | Ratio]
Item = TypeVar("Item")

_SEED = 7
_WARM_UP = 20
_LENGTHS = (16, 32, 64, 128)
_PERCENTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
_ZIPF_EXPONENT = 1.1
_SAME_SCORE = 0.01
_LOADS = (0.5, 0.8)
_STEPS = 41
_DISTINCT = 50_000
_CROWDED_ROUNDS = 4
_CALLERS = (1, 2, 4, 8, 16, 32)
_CACHE_SIZES = (100, 1_000, 10_000)
_REPEATS = {"rare": 0.7, "some": 0.9, "often": 1.1}  # exponents of Zipf draws
_PARTS = ("normalise", "rules", "tokenize", "infer")


def _percentiles(
    name: str, timed: Timed[Any], group: str, detail: Mapping[str, Any], target: str | None = None
) -> Iterator[Measurement]:
    # The first carries the whole distribution, for whoever draws it.
    steps = np.quantile(timed.wall_s, np.linspace(0, 1, _STEPS)) * 1_000
    extra: dict[str, Any] = {"quantiles": steps.tolist()}
    for label, share in _PERCENTILES:
        estimate = percentile_estimate(timed.wall_s, share).scaled(1_000)
        yield Measurement(
            f"{name}.{label}", estimate, "ms", group, target=target, detail={**detail, **extra}
        )
        extra = {}


def _rate(
    name: str, rounds: Sequence[Round], detail: Mapping[str, Any], target: str | None = None
) -> Measurement:
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
    return Measurement(name, estimate, "texts/s", "throughput", "higher", target, detail)


def _paired(above: Floats, below: Floats) -> Figure:
    """Return the median of paired ratios: a call that the machine held up moves it little."""
    return percentile_estimate(above / below, 0.5)


def _cycled(items: Sequence[Item], n: int) -> list[Item]:
    return [items[position % len(items)] for position in range(n)]


def _band(operation: str, entry: ModelEntry) -> str | None:
    """Return the name of the target for this operation and variant, if there is one."""
    name = f"{operation}_{entry.variant.value.lower()}"
    return name if any(target.name == name for target in TARGETS) else None


def _rounds(scanner: PartsScanner, texts: Sequence[str], n: int) -> list[Round]:
    """Time `n` rounds on one thread, after one to warm up."""
    time_threads(scanner.scan, texts, 1)
    return [_proved_round(scanner, texts, 1) for _ in range(n)]


def _proved_round(scanner: PartsScanner, texts: Sequence[str], threads: int) -> Round:
    tally = Tally(scanner)
    done = time_threads(scanner.scan, texts, threads)
    tally.check(scans=done.n, hits=0)
    return done


# --- sections ---------------------------------------------------------------------------------


def _loading(subject: Subject) -> Measured:
    shield, entries = subject.shield, list(subject.entries.values())
    for entry in entries:
        shield.loader.load(entry)
    loads: list[list[float]] = [[] for _ in entries]
    for _ in range(subject.effort.loads):
        for entry, milliseconds in zip(entries, loads, strict=True):
            artifacts = ArtifactStore(shield.settings.models, offline=shield.settings.offline)
            loader = ModelLoader(shield.registry, artifacts)
            started = time.perf_counter()
            loader.load(entry)
            milliseconds.append((time.perf_counter() - started) * 1_000)
    detail = {
        "what": "a new session each time: SHA-256, tokenizer and graph; the packages are imported "
        "and the files are in the page cache"
    }
    for entry, milliseconds in zip(entries, loads, strict=True):
        yield Measurement(
            f"load_cold.{entry.id}.{entry.variant.value}",
            mean_estimate(milliseconds, "loads"),
            "ms",
            "load",
            target=_band("load_cold", entry),
            detail={**detail, "size_bytes": entry.size_bytes},
        )
    again = time_interleaved(
        {"load": shield.loader.load}, _cycled(entries, subject.effort.cheap_calls)
    )
    yield from _percentiles("load_cached", again["load"], "load", {}, "load_cached")


def _tokenizing(subject: Subject) -> Measured:
    windows, texts = subject.model.windows, subject.texts()
    tokens = sum(windows.count(text) for text in texts)
    rates = []
    for _ in range(subject.effort.rounds):
        started = time.perf_counter()
        counted = sum(windows.count(text) for text in texts)
        rates.append(counted / (time.perf_counter() - started))
    yield Measurement(
        "tokenization",
        mean_estimate(rates),
        "tokens/s",
        "tokenization",
        "higher",
        "tokenization",
        {**describe(texts), "tokens_a_round": tokens, "threads": 1},
    )


def _inference(subject: Subject) -> Measured:
    entry, engine = subject.entry, subject.shield.inference(subject.entry)
    texts = {length: subject.of_tokens(length, 50) for length in _LENGTHS}

    def infer(length: int, position: int) -> MLScore:
        return engine.infer(texts[length][position % 50])

    calls = {str(length): partial(infer, length) for length in _LENGTHS}
    time_interleaved(calls, range(_WARM_UP))
    model = {"model": entry.id, "variant": entry.variant.value}
    for length, timed in time_interleaved(calls, range(subject.effort.calls)).items():
        detail = {
            "what": "one text: tokenize, run, soft maximum",
            "tokens_with_special_ones": int(length),
            **describe(texts[int(length)]),
            **model,
        }
        yield from _percentiles(
            f"inference.{length}_tokens", timed, "inference", detail, _band("inference", entry)
        )
    batches = [texts[64][first : first + 16] for first in range(0, 32, 4)]
    for batch in batches:
        engine.infer_batch(batch)
    asked = _cycled(batches, subject.effort.batches)
    timed = time_interleaved({"batch": engine.infer_batch}, asked)["batch"]
    threads = subject.shield.settings.workers
    detail = {"texts_a_call": 16, "tokens_a_text": 64, "threads": threads, **model}
    yield from _percentiles("inference.16_texts", timed, "inference", detail, "inference_batch_16")
    scored = np.asarray([len(scores) for scores in timed.results])
    yield Measurement(
        "throughput.16_texts",
        mean_estimate(scored / timed.wall_s, "calls"),
        "texts/s",
        "throughput",
        "higher",
        "throughput_batch_16",
        {**detail, "texts_scanned": int(scored.sum())},
    )


def _bare_inference(subject: Subject) -> Measured:
    scanner, model = subject.scanner(Mode.ML), subject.model
    pairs: list[tuple[str, dict[str, Any]]] = []
    for text in subject.texts():
        first, *others = model.windows.windows(text)
        if not others:
            pairs.append((text, _feeds(model, first)))
    calls: dict[str, Callable[[tuple[str, dict[str, Any]]], Any]] = {
        "scan": lambda pair: scanner.scan(pair[0]),
        "bare": lambda pair: model.session.run(model.outputs[:1], pair[1]),
    }
    time_interleaved(calls, pairs[:_WARM_UP])
    tally = Tally(scanner)
    timed = time_interleaved(calls, _cycled(pairs, subject.effort.calls))
    tally.check(scans=timed["scan"].n, hits=0)
    detail = {
        "what": "time of session.run on the same arrays / time of a whole ML scan without cache",
        "tokens_p50": float(np.median([feeds["input_ids"].size for _, feeds in pairs])),
        **describe([text for text, _ in pairs]),
    }
    yield Ratio(
        "ml_vs_bare_ort", _paired(timed["bare"].wall_s, timed["scan"].wall_s), 0.9, detail=detail
    )


def _variants(subject: Subject) -> Measured:
    """INT8 beside ONNX Runtime's own settings for the same file, and beside FP32 if it was built."""
    entry, model, shield = subject.entry, subject.model, subject.shield
    if entry.variant is not Variant.INT8:
        return
    texts = subject.of_tokens(32, 50)
    path = shield.loader.artifacts.fetch(entry).model
    sessions = {"int8": model.session, "plain": default_session(path, model.session)}
    wide = [
        other
        for other in shield.registry.find(task=entry.task, variant=Variant.FP32)
        if other.id == entry.id and shield.loader.artifacts.is_present(other)
    ]
    if wide:
        sessions["fp32"] = shield.loader.load(wide[0]).session
    feeds = [_feeds(model, next(model.windows.windows(text))) for text in texts]

    def run(session: Any, arrays: dict[str, Any]) -> Any:
        return session.run(model.outputs[:1], arrays)

    calls = {name: partial(run, session) for name, session in sessions.items()}
    time_interleaved(calls, feeds[:_WARM_UP])
    timed = time_interleaved(calls, _cycled(feeds, subject.effort.calls))
    for name, ratio, target in (
        ("plain", "int8_vs_plain_int8_32", 1.08),
        ("fp32", "int8_vs_fp32_32", 3.7),
    ):
        if name in timed:
            detail = {
                "what": f"session.run at 32 tokens: time of {name} / time of the engine's INT8",
                "intra_op_threads": model.session.get_session_options().intra_op_num_threads,
            }
            paired = _paired(timed[name].wall_s, timed["int8"].wall_s)
            yield Ratio(ratio, paired, target, detail=detail)


def _feeds(model: LoadedModel, window: Window) -> dict[str, Any]:
    arrays = {
        "input_ids": window.ids,
        "attention_mask": np.ones_like(window.ids),
        "token_type_ids": window.type_ids,
    }
    return {name: arrays[name].astype(kind)[np.newaxis] for name, kind in model.inputs}


def _caching(subject: Subject) -> Measured:
    texts = subject.prompts(200, 1_000)
    cache: ResultCache[RawScores] = ResultCache(CacheConfig(size=1_000))
    part = ("prompt_injection", "hybrid")
    for text in texts:
        cache.put((text_digest(text), part), RawScores(None, None))
    asked = _cycled(texts, subject.effort.cheap_calls)
    random.Random(_SEED).shuffle(asked)  # noqa: S311 - an order, not a secret
    calls: dict[str, Callable[[str], Any]] = {
        "digest": text_digest,
        "lookup": lambda text: cache.get((text_digest(text), part)),
        "nothing": lambda text: text,
    }
    time_interleaved(calls, asked[:_WARM_UP])
    timed = time_interleaved(calls, asked)
    hits = sum(found is not None for found in timed["lookup"].results)
    detail = {
        **describe(texts),
        "entries": len(cache),
        "empty_call_p50_ms": 1_000 * float(np.median(timed["nothing"].wall_s)),
    }
    yield from _percentiles("cache_digest", timed["digest"], "cache", detail)
    detail = {**detail, "what": "digest and lookup", "hit_rate": hits / len(asked)}
    yield from _percentiles("cache_lookup", timed["lookup"], "cache", detail, "cache_lookup")


def _zipf(generator: np.random.Generator, distinct: int, n: int, exponent: float) -> list[int]:
    """Draw `n` of `distinct` ranks, each as often as its rank to the power of -`exponent`."""
    weights = 1 / np.arange(1, distinct + 1) ** exponent
    drawn: list[int] = generator.choice(distinct, n, p=weights / weights.sum()).tolist()
    return drawn


def _hit_rates(subject: Subject) -> Measured:
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
            found = wilson(hits, n)
            rate = Figure(100 * hits / n, 100 * found.low, 100 * found.high, n, method="Wilson")
            yield Measurement(
                f"hit_rate.repeats_{repeats}.size_{size}",
                rate, "%", "hit_rate", "higher",
                detail={"requests": n, "distinct_texts": _DISTINCT, "zipf_exponent": exponent},
            )  # fmt: skip


def _heuristics(subject: Subject) -> Measured:
    effort = subject.effort
    for task in Task:
        scanner, texts = subject.scanner(Mode.HEURISTIC, task), subject.texts(task)
        for text in texts:
            scanner.scan(text)
        tally = Tally(scanner)
        timed = time_interleaved({"scan": scanner.scan}, _cycled(texts, effort.cheap_calls))["scan"]
        tally.check(scans=timed.n, hits=0)
        detail = {"what": "texts the rules' automaton has seen", "threads": 1, **describe(texts)}
        name = f"heuristic.{task.value}"
        yield from _percentiles(name, timed, "heuristic", detail)
        yield from _percentiles(f"{name}.new_texts", _first_visits(subject, task), "heuristic", {
            "what": "each text for the first time, after the other half of the sample",
            **describe(texts),
        })  # fmt: skip
        yield _rate(
            f"throughput.{name}", _rounds(scanner, texts, effort.rounds), detail,
            "throughput_heuristic",
        )  # fmt: skip
    prompts = subject.prompts(200, effort.cheap_calls)
    rounds = _rounds(subject.scanner(Mode.HEURISTIC), prompts, effort.rounds)
    figure = _rate("throughput.heuristic.200_chars", rounds, {
        "what": "injection scans of plain benign prompts seen before, no cache", "threads": 1,
        **describe(prompts),
    })  # fmt: skip
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


def _matching(subject: Subject) -> Measured:
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
    calls: dict[str, Callable[[str], list[int]]] = {"matcher": matcher.matching, "re": one_by_one}
    timed = time_interleaved(calls, views)
    pairs = zip(timed["matcher"].results, timed["re"].results, strict=True)
    detail = {
        "what": "time of one `re` search per rule / time of the matcher; which rules match",
        "rules": len(rules),
        "texts_with_equal_answers": sum(fast == slow for fast, slow in pairs),
        **describe(views),
    }
    yield Ratio(
        "heuristic_vs_re", _paired(timed["re"].wall_s, timed["matcher"].wall_s), 100, detail=detail
    )


def _end_to_end(subject: Subject) -> Measured:
    texts, n = subject.texts(), subject.effort.calls
    scanners = {mode: subject.scanner(mode, cache=len(texts)) for mode in Mode}
    calls = {mode.value: scanner.scan for mode, scanner in scanners.items()}
    for text in texts:
        scanners[Mode.HYBRID].heuristic.score(text)
        scanners[Mode.HEURISTIC].heuristic.score(text)
        scanners[Mode.BOTH].heuristic.score(text)
    time_interleaved(calls, texts[:_WARM_UP])
    tallies = {mode: Tally(scanner) for mode, scanner in scanners.items()}
    passes: list[dict[str, Timed[ScanResult]]] = []
    for first in range(0, n, len(texts)):
        for scanner in scanners.values():
            scanner.cache.clear()
        passes.append(time_interleaved(calls, texts[: n - first]))
    for mode, tally in tallies.items():
        timed = _joined([each[mode.value] for each in passes])
        tally.check(scans=timed.n, hits=0)
        yield from _percentiles(
            f"end_to_end.{mode.value}.miss", timed, "end_to_end",
            {"what": "texts the rules' automaton has seen", **tally.shares(), **describe(texts)},
            None if mode is Mode.HEURISTIC else "end_to_end_ml",
        )  # fmt: skip
        yield from _parts(mode, timed.results)
    for text in texts:
        for call in calls.values():
            call(text)
    tallies = {mode: Tally(scanner) for mode, scanner in scanners.items()}
    hits = time_interleaved(calls, _cycled(texts, subject.effort.cheap_calls))
    for mode, tally in tallies.items():
        timed = hits[mode.value]
        tally.check(scans=timed.n, hits=timed.n)
        detail = {**tally.shares(), **describe(texts)}
        name = f"end_to_end.{mode.value}.hit"
        yield from _percentiles(name, timed, "end_to_end", detail, "end_to_end_cached")
        if mode is Mode.HYBRID:
            median = percentile_estimate(timed.wall_s, 0.5).scaled(1_000_000)
            yield Ratio("cached_p50_us", median, 15, "lower", detail)


def _parts(mode: Mode, results: Sequence[ScanResult]) -> Measured:
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
            what = "mean over scans of texts of at most one window, cache misses"
            yield Measurement(
                f"parts.{mode.value}.{part}", mean_estimate(ms), "ms", "parts",
                detail={"what": what, "share": float(ms.sum() / whole)},
            )  # fmt: skip


def _three_scanners(subject: Subject) -> Measured:
    three = ScannerPipeline([subject.scanner(Mode.ML, task) for task in Task])
    one, texts = subject.scanner(Mode.ML), subject.texts()
    calls: dict[str, Callable[[str], Any]] = {"three": three.execute, "one": one.scan}
    time_interleaved(calls, texts[:_WARM_UP])
    timed = time_interleaved(calls, _cycled(texts, subject.effort.calls))
    is_shared = len({entry.sha256 for entry in subject.entries.values()}) == 1
    detail = {
        "what": "time of all three ML scanners / of the injection scanner; "
        + ("one file serves all three" if is_shared else "each has a model of its own"),
        "scans_by_three": sum(len(result.results) for result in timed["three"].results),
        "scans_by_one": timed["one"].n,
        **describe(texts),
    }
    ratio = _paired(timed["three"].wall_s, timed["one"].wall_s)
    yield Ratio("three_scanners_vs_one", ratio, 1.5 if is_shared else 2.7, "lower", detail)


def _peers(subject: Subject) -> Measured:
    """Installed scanners of other makers beside our model, and StackOne's file in our engine."""
    for task in Task:
        try:
            peers = installed_peers(task)
        except ConfigError:
            continue
        texts, own = subject.texts(task), subject.shield.model_part(subject.entries[task])
        calls: dict[str, Callable[[str], Any]] = {subject.entries[task].id: own.infer}
        calls |= {peer.name: peer.score for peer in peers}
        time_interleaved(calls, texts[:_WARM_UP])
        timed = time_interleaved(calls, _cycled(texts, subject.effort.calls))
        for name, found in timed.items():
            detail = {"what": "the score of one text, no cache", **describe(texts)}
            yield from _percentiles(f"peers.{task.value}.{name}", found, "peers", detail)
        stackone = next((peer for peer in peers if peer.name == "stackone-defender"), None)
        if stackone is not None:
            yield _stackone_file(subject, stackone)


def _stackone_file(subject: Subject, package: Peer) -> Ratio:
    """Return how much faster our engine runs StackOne's file than its own package does.

    Raises:
        ShieldError: The two give one text different scores.
    """
    folder, divisor, _ = stackone_parts()
    model, tokenizer = folder / "model_quantized.onnx", folder / "tokenizer.json"
    entry = replace(
        subject.entry,
        id="stackone-file",
        sources=(model.as_uri(),),
        sha256=_sha256(model),
        size_bytes=model.stat().st_size,
        labels=("injection", "benign"),
        output="logits",
        post_processing="sigmoid",
        window_penalty=0.0,
        operating_points={},
        tokenizer_sources=(tokenizer.as_uri(),),
        tokenizer_sha256=_sha256(tokenizer),
    )
    engine = subject.shield.inference(entry)

    def ours(text: str) -> float:
        risk = float(engine.infer(text).score)
        return 1.0 / (1.0 + math.pow((1.0 - risk) / risk, 1.0 / divisor))

    texts = subject.of_tokens(64, 50)
    # A dynamic INT8 score moves with the order of the sums before each rounding.
    change = float(np.mean([abs(ours(text) - package.score(text)[1]) for text in texts]))
    if change > _SAME_SCORE:
        raise ShieldError(f"StackOne's file scores {change:.3f} away in our engine; report this")
    calls: dict[str, Callable[[str], Any]] = {"package": package.score, "ours": ours}
    time_interleaved(calls, texts[:_WARM_UP])
    timed = time_interleaved(calls, _cycled(texts, subject.effort.calls))
    detail = {
        "what": "time of stackone-defender / time of our engine, same file",
        "mean_score_change": change,
        **describe(texts),
    }
    paired = _paired(timed["package"].wall_s, timed["ours"].wall_s)
    return Ratio("stackone_vs_its_package", paired, 1.2, detail=detail)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _throughput(subject: Subject) -> Measured:
    effort = subject.effort
    ordinary = subject.ordinary()[: 2 * effort.round_texts]
    hybrid = subject.scanner(Mode.HYBRID)
    tally = Tally(hybrid)
    rounds = _rounds(hybrid, ordinary, effort.rounds)
    detail = {
        "what": "benign texts of the sample, no cache; one caller, windows of a long text on the "
        "engine's threads",
        "threads": 1,
        "engine_threads": subject.shield.settings.workers,
        **tally.shares(),
        **describe(ordinary),
    }
    figure = _rate("throughput.hybrid", rounds, detail, "throughput_hybrid")
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
            done[threads].append(_proved_round(scanner, texts, threads))
    figures = {
        threads: _rate(f"throughput.ml.threads_{threads}", rounds, {
            "what": "ML scans, no cache", "threads": threads, "tokens_a_text": 64, "hit_rate": 0.0,
            **describe(texts),
        })
        for threads, rounds in done.items()
    }  # fmt: skip
    yield from figures.values()
    if 2 in figures:
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


def _replay(subject: Subject) -> Measured:
    requests, drawn = _traffic(subject)
    timed, served = _served(
        subject,
        "closed loop, one at a time",
        lambda scan: time_interleaved({"scan": scan}, requests)["scan"],
    )
    detail = {**drawn, **served}
    hits, n = _hits(timed), timed.n
    interval = wilson(hits, n)
    rate = Figure(
        hits / n, interval.low, interval.high, n, method="Wilson, as if requests were drawn"
    )
    yield Measurement("replay.zipf.hit_rate", rate, "share", "replay", "higher", detail=detail)
    yield from _percentiles("replay.zipf.hybrid", timed, "replay", detail)


def _arrivals(subject: Subject) -> Measured:
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
        yield from _percentiles(
            f"replay.open.load_{share * 100:.0f}", timed, "replay", {**drawn, **served}
        )


def _memory(subject: Subject) -> Measured:
    entries = subject.entries
    answers = [_probe(subject) for _ in range(subject.effort.processes)]

    def estimate(values: Sequence[float]) -> Figure:
        return mean_estimate(values, "fresh processes")

    yield Measurement(
        "start_to_first_verdict", estimate([answer["first_verdict_ms"] for answer in answers]),
        "ms", "load",
        detail={"what": "from starting Python to the first ML verdict, rules built on the way"},
    )  # fmt: skip
    above = "resident memory above Python with NumPy"
    yield Measurement(
        "memory.engine", estimate([answer["engine_mb"] for answer in answers]), "MB", "memory",
        detail={"what": f"{above}: the engine and the injection rules, no model"},
    )  # fmt: skip
    for position, entry in enumerate(entries.values()):
        what = "resident memory added by its scanner, its model and one scan"
        if position == 0:
            what += "; the first one brings ONNX Runtime and tokenizers themselves"
        yield Measurement(
            f"memory.{entry.id}.{entry.variant.value}",
            estimate([answer["models_mb"][position] for answer in answers]), "MB", "memory",
            target=_band("memory_model", entry), detail={"what": what},
        )  # fmt: skip
    yield Measurement(
        "memory.total", estimate([answer["total_mb"] for answer in answers]), "MB", "memory",
        target="memory_total", detail={"what": f"{above}: the engine with all three models"},
    )  # fmt: skip


def _probe(subject: Subject) -> dict[str, Any]:
    """Return what a fresh process measured of itself; see `probe.py`."""
    settings = subject.shield.settings
    order = {
        "home": str(settings.home),
        "registry": str(settings.registry) if settings.registry else None,
        "offline": settings.offline,
        "models": [(task.value, entry.variant.value) for task, entry in subject.entries.items()],
    }
    program = str(Path(__file__).with_name("probe.py"))
    started = time.time()
    # -P keeps this folder off the import path, where `timing` and others would be in the way.
    answer = subprocess.run(
        [sys.executable, "-P", program, json.dumps(order)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if answer.returncode:
        reason = answer.stderr.strip().rpartition("\n")[2] or f"exit code {answer.returncode}"
        raise ShieldError(
            f"memory could not be measured in a fresh process: {reason}; "
            "check that the package is installed and the models are there (shield doctor)"
        )
    measured: dict[str, Any] = json.loads(answer.stdout)
    return {**measured, "first_verdict_ms": (measured["first_verdict_at"] - started) * 1_000}


_SECTIONS: tuple[tuple[str, float, Callable[[Subject], Measured]], ...] = (
    ("loading models", 1, _loading),
    ("tokenizing", 0.5, _tokenizing),
    ("inference", 8, _inference),
    ("against bare ONNX Runtime", 2, _bare_inference),
    ("INT8 against others", 2, _variants),
    ("cache", 0.5, _caching),
    ("cache sizes", 0.5, _hit_rates),
    ("heuristics", 5, _heuristics),
    ("matcher against re", 1, _matching),
    ("end to end", 8, _end_to_end),
    ("three scanners", 4, _three_scanners),
    ("peers", 2, _peers),
    ("throughput", 6, _throughput),
    ("traffic replay", 1.5, _replay),
    ("open traffic", 8, _arrivals),
    ("fresh processes", 3, _memory),
)
"""Title, about how many seconds of a quick run, and the section."""


def run_benchmark(
    shield: Shield,
    *,
    quick: bool = False,
    on_progress: Callable[[str, float], None] | None = None,
    effort: Effort | None = None,
) -> dict[str, Any]:
    """Measure this machine and return the document that is stored, shown and compared.

    Takes some minutes, with `quick` well under one; a quick p99 has no upper bound.

    Args:
        shield: The engine to measure; its scanners and caches are left alone.
        quick: Fewer repetitions.
        on_progress: Called with a title and the share done, 0..1.
        effort: Other repetitions than those of `quick` or of the default suite.

    Returns:
        JSON-safe: `format`, `created_at`, `quick`, `seconds`, `machine`, `figures`, `ratios`,
        `targets`. An end of an interval may be `None`; a ratio that this machine cannot show
        is absent.

    Raises:
        ShieldError: A model or sample is missing, a scan fails, or counts do not add up.
    """
    started = time.perf_counter()
    document: dict[str, Any] = {
        "format": 1,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": machine_facts(),
        "figures": [],
        "ratios": [],
        "targets": [target.as_dict() for target in TARGETS],
    }
    subject = Subject.of(shield, effort or (Effort.quick() if quick else Effort.full()))
    whole, done = sum(weight for _, weight, _ in _SECTIONS), 0.0
    for title, weight, section in _SECTIONS:
        if on_progress is not None:
            on_progress(title, done / whole)
        for measured in section(subject):
            kind = "figures" if isinstance(measured, Measurement) else "ratios"
            document[kind].append(measured.as_dict())
        done += weight
    if on_progress is not None:
        on_progress("done", 1.0)
    return {**document, "seconds": time.perf_counter() - started}


def machine_facts() -> dict[str, Any]:
    """Return what tells one machine from another, and how busy it was at the start."""
    import psutil

    packages = ("llm-shield", "google-re2", "numpy", "onnxruntime", "tokenizers")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cpus(),
        "memory_mb": psutil.virtual_memory().total // 1_000_000,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "load_1_minute": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []  # not Linux
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

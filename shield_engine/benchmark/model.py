"""What one model costs: loading, tokenizing, inference, beside other files and other engines."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from shield_engine.benchmark.document import Measure, Ratio
from shield_engine.benchmark.measuring import (
    Calls,
    MeasuredRows,
    band,
    paired,
    percentiles,
    side_by_side,
)
from shield_engine.benchmark.subject import Subject, describe
from shield_engine.benchmark.timing import mean_estimate
from shield_engine.errors import ShieldError
from shield_engine.guards.adapters import installed_peers, stackone_parts
from shield_engine.ml import ArtifactStore, LoadedModel, MLScore, ModelLoader
from shield_engine.ml.loader import default_session
from shield_engine.ml.tokenizer import Window
from shield_engine.settings import file_sha256
from shield_engine.types import Mode, Task, Variant

__all__ = ["against_bare", "inference", "loading", "peers", "tokenizing", "variants"]

_LENGTHS = (16, 32, 64, 128)
_SAME_SCORE = 0.01


def loading(subject: Subject) -> MeasuredRows:
    """Load every model anew, and again from memory."""
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
        yield Measure(
            f"load_cold.{entry.id}.{entry.variant.value}",
            mean_estimate(milliseconds, "loads"),
            "ms",
            "load",
            target=band("load_cold", entry),
            detail={**detail, "size_bytes": entry.size_bytes},
        )
    again = side_by_side({"load": shield.loader.load}, entries, subject.effort.cheap_calls)
    yield from percentiles("load_cached", again["load"], "load", {}, "load_cached")


def tokenizing(subject: Subject) -> MeasuredRows:
    """Count the tokens of the injection sample."""
    windows, texts = subject.model.windows, subject.texts()
    tokens = sum(windows.count(text) for text in texts)
    rates = []
    for _ in range(subject.effort.rounds):
        started = time.perf_counter()
        counted = sum(windows.count(text) for text in texts)
        rates.append(counted / (time.perf_counter() - started))
    detail = {**describe(texts), "tokens_a_round": tokens, "threads": 1}
    name = "tokenization"
    yield Measure(name, mean_estimate(rates), "tokens/s", name, "higher", name, detail)


def inference(subject: Subject) -> MeasuredRows:
    """Score single texts of several lengths, and sixteen at once."""
    entry, engine = subject.entry, subject.shield.inference(subject.entry)
    texts = {length: subject.of_tokens(length, 50) for length in _LENGTHS}

    def infer(length: int, position: int) -> MLScore:
        return engine.infer(texts[length][position])

    calls: Calls = {str(length): partial(infer, length) for length in _LENGTHS}
    model = {"model": entry.id, "variant": entry.variant.value}
    for length, timed in side_by_side(calls, range(50), subject.effort.calls).items():
        detail = {
            "what": "one text: tokenize, run, soft maximum",
            "tokens_with_special_ones": int(length),
            **describe(texts[int(length)]),
            **model,
        }
        yield from percentiles(
            f"inference.{length}_tokens", timed, "inference", detail, band("inference", entry)
        )
    batches = [texts[64][first : first + 16] for first in range(0, 32, 4)]
    timed = side_by_side({"batch": engine.infer_batch}, batches, subject.effort.batches)["batch"]
    threads = subject.shield.settings.workers
    detail = {"texts_a_call": 16, "tokens_a_text": 64, "threads": threads, **model}
    yield from percentiles("inference.16_texts", timed, "inference", detail, "inference_batch_16")
    scored = np.asarray([len(scores) for scores in timed.results])
    yield Measure(
        "throughput.16_texts",
        mean_estimate(scored / timed.wall_s, "calls"),
        "texts/s",
        "throughput",
        "higher",
        "throughput_batch_16",
        {**detail, "texts_scanned": int(scored.sum())},
    )


def against_bare(subject: Subject) -> MeasuredRows:
    """Time whole ML scans beside ONNX Runtime alone on the same arrays."""
    scanner, model = subject.scanner(Mode.ML), subject.model
    pairs: list[tuple[str, dict[str, Any]]] = []
    for text in subject.texts():
        first, *others = model.windows.windows(text)
        if not others:
            pairs.append((text, _feeds(model, first)))
    calls: Calls = {
        "scan": lambda pair: scanner.scan(pair[0]),
        "bare": lambda pair: model.session.run(model.outputs[:1], pair[1]),
    }
    timed = side_by_side(calls, pairs, subject.effort.calls, {"scan": scanner})
    detail = {
        "what": "time of session.run on the same arrays / time of a whole ML scan without cache",
        "tokens_p50": float(np.median([feeds["input_ids"].size for _, feeds in pairs])),
        **describe([text for text, _ in pairs]),
    }
    share = paired(timed["bare"].wall_s, timed["scan"].wall_s)
    yield Ratio("ml_vs_bare_ort", share, 0.9, detail=detail)


def variants(subject: Subject) -> MeasuredRows:
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

    calls: Calls = {name: partial(run, session) for name, session in sessions.items()}
    timed = side_by_side(calls, feeds, subject.effort.calls)
    for name, ratio, target in (
        ("plain", "int8_vs_plain_int8_32", 1.08),
        ("fp32", "int8_vs_fp32_32", 3.7),
    ):
        if name in timed:
            detail = {
                "what": f"session.run at 32 tokens: time of {name} / time of the engine's INT8",
                "intra_op_threads": model.session.get_session_options().intra_op_num_threads,
            }
            gain = paired(timed[name].wall_s, timed["int8"].wall_s)
            yield Ratio(ratio, gain, target, detail=detail)


def _feeds(model: LoadedModel, window: Window) -> dict[str, Any]:
    arrays = {
        "input_ids": window.ids,
        "attention_mask": np.ones_like(window.ids),
        "token_type_ids": window.type_ids,
    }
    return {name: arrays[name].astype(kind)[np.newaxis] for name, kind in model.inputs}


def peers(subject: Subject) -> MeasuredRows:
    """Installed scanners of other makers beside our model, and StackOne's file in our engine."""
    for task in Task:
        parts = {peer.name: subject.shield.guard_part(peer).infer for peer in installed_peers(task)}
        if not parts:
            continue
        texts, own = subject.texts(task), subject.shield.model_part(subject.entries[task])
        calls: Calls = {subject.entries[task].id: own.infer}
        calls |= parts
        detail = {"what": "the score of one text, no cache", **describe(texts)}
        for name, timed in side_by_side(calls, texts, subject.effort.calls).items():
            yield from percentiles(f"peers.{task.value}.{name}", timed, "peers", detail)
        if "stackone-defender" in parts:
            yield _stackone_file(subject, parts["stackone-defender"])


def _stackone_file(subject: Subject, package: Callable[[str], MLScore]) -> Ratio:
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
        sha256=file_sha256(model),
        size_bytes=model.stat().st_size,
        labels=("injection", "benign"),
        output="logits",
        post_processing="sigmoid",
        window_penalty=0.0,
        operating_points={},
        tokenizer_sources=(tokenizer.as_uri(),),
        tokenizer_sha256=file_sha256(tokenizer),
    )
    engine = subject.shield.inference(entry)

    def ours(text: str) -> float:
        risk = float(engine.infer(text).score)
        return 1.0 / (1.0 + math.pow((1.0 - risk) / risk, 1.0 / divisor))

    texts = subject.of_tokens(64, 50)
    # A dynamic INT8 score moves with the order of the sums before each rounding.
    change = float(np.mean([abs(ours(text) - package(text).score) for text in texts]))
    if change > _SAME_SCORE:
        raise ShieldError(f"StackOne's file scores {change:.3f} away in our engine; report this")
    calls: Calls = {"package": package, "ours": ours}
    timed = side_by_side(calls, texts, subject.effort.calls)
    detail = {
        "what": "time of stackone-defender / time of our engine, same file",
        "mean_score_change": change,
        **describe(texts),
    }
    gain = paired(timed["package"].wall_s, timed["ours"].wall_s)
    return Ratio("stackone_vs_its_package", gain, 1.2, detail=detail)

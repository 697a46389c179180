"""Runs: score a dataset version once, keep every part's score and timing, survive a crash.

Rows go through in batches. A sequential pass asks the result cache (so hits and misses do not
depend on threads), then the misses of the batch are scored over threads, then the batch is stored
in one transaction. A crash loses at most the batch in flight.
"""

from __future__ import annotations

import json
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shield_engine.cache import ResultCache, text_digest
from shield_engine.config import CacheConfig, MLConfig
from shield_engine.engine import Shield
from shield_engine.errors import ConfigError, ShieldError, StoreError
from shield_engine.heuristics import (
    NORMALIZER_VERSION,
    HeuristicPart,
    HeuristicScore,
    LinearTier,
    heuristic_for,
    linear_tier,
    load_rules,
)
from shield_engine.ml import MLScore, ModelEntry
from shield_engine.store import DatasetInfo, RunInfo, RunStamp, RunStatus, Store, StoredRow
from shield_engine.store.rows import stored_rows
from shield_engine.types import Mode, Task, Variant

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Estimate",
    "Progress",
    "RunSpec",
    "estimate",
    "execute",
    "parts_for",
    "resume",
    "reusable_run",
    "start",
]

BATCH_ROWS = 1_000
PARTS = ("heuristic", "ml")


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What to score a dataset with.

    Attributes:
        parts: `heuristic`, `ml` or both; modes are derived afterwards.
        variant: Precision of the model's weights.
        model_id: A registry id; the task's default model if `None`.
        cache: The result cache of the run; it starts empty.
        workers: Threads; the engine's setting if `None`.
        limit: Score only the first rows (a trial); `None` scores all.
        rules_file: Own rules, added to the bundled ones.
        disabled_rules: Ids of rules that stay silent.
        reuse: Take the model's scores from an earlier run of the same dataset and model, if there
            is one. They have no latency in this run.
    """

    parts: tuple[str, ...] = PARTS
    variant: Variant = Variant.INT8
    model_id: str | None = None
    cache: CacheConfig = field(default_factory=CacheConfig.aggressive)
    workers: int | None = None
    limit: int | None = None
    rules_file: str | None = None
    disabled_rules: tuple[str, ...] = ()
    reuse: bool = False

    def __post_init__(self) -> None:
        if not self.parts or set(self.parts) - set(PARTS):
            raise ConfigError(f"parts {self.parts} are not among {PARTS}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"a run of {self.limit} rows scores nothing; the limit starts at 1")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> RunSpec:
        """Return the spec that a stored run was made with."""
        return cls(
            **{
                **settings,
                "parts": tuple(settings["parts"]),
                "variant": Variant(settings["variant"]),
                "cache": CacheConfig(**settings["cache"]),
                "disabled_rules": tuple(settings["disabled_rules"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; `rows_per_s` and `eta_s` speak of this sitting only."""

    rows_done: int
    rows: int
    errors: int
    hits: int
    seconds: float
    rows_per_s: float
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a run would take, from a timed sample of its own rows."""

    rows: int
    sampled: int
    rows_per_s: float
    seconds: float


@dataclass(slots=True)
class _Slot:
    """Scores of one text; filled by a worker after the cache handed it out."""

    heuristic: HeuristicScore | None = None
    linear: float | None = None
    linear_ms: float | None = None
    model: MLScore | None = None
    is_reused: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Parts:
    """The ready parts of a run."""

    heuristic: HeuristicPart | None
    linear: LinearTier | None
    infer: Callable[[str], MLScore] | None
    entry: ModelEntry | None

    def score(self, text: str, slot: _Slot) -> None:
        """Fill what `slot` lacks; an ML failure is kept as the row's error, never as a score."""
        if self.heuristic is not None:
            slot.heuristic = self.heuristic.score(text)
        if self.linear is not None:
            started = time.perf_counter()
            slot.linear = self.linear.score(text)
            slot.linear_ms = (time.perf_counter() - started) * 1000
        if self.infer is not None and slot.model is None:
            try:
                slot.model = self.infer(text)
            except ShieldError as error:
                slot.error = str(error)


def parts_for(modes: Sequence[Mode]) -> tuple[str, ...]:
    """Return the parts a run must score so that `modes` can be derived."""
    needed = set()
    for mode in modes:
        if mode is not Mode.ML:
            needed.add("heuristic")
        if mode is not Mode.HEURISTIC:
            needed.add("ml")
    return tuple(part for part in PARTS if part in needed)


def start(store: Store, shield: Shield, dataset_id: str, spec: RunSpec) -> RunInfo:
    """Note a new run of `spec` over a dataset; `execute` scores it.

    Raises:
        UnknownNameError: No such dataset, model or variant.
        ArtifactError: The model cannot be loaded.
        StoreError: The dataset's texts were purged.
    """
    dataset = store.datasets.find(dataset_id)
    parts = _ready_parts(shield, dataset.task, spec)
    store.datasets.texts(dataset_id, 0, 1)
    rows = min(dataset.rows, spec.limit or dataset.rows)
    entry = parts.entry
    stamp = _stamp(dataset, shield, parts)
    if spec.reuse and (earlier := _run_alike(store, dataset_id, stamp)) is not None:
        stamp["reused_run"] = earlier.run_id
    return store.runs.add(
        dataset,
        parts=spec.parts,
        rows=rows,
        model_id=entry.id if entry else None,
        variant=entry.variant.value if entry else None,
        model_sha256=entry.sha256 if entry else None,
        settings=asdict(spec),
        stamp=stamp,
    )


def reusable_run(store: Store, shield: Shield, dataset_id: str, spec: RunSpec) -> RunInfo | None:
    """Return a finished run whose model scores a run of `spec` would only repeat, if there is one.

    It has the same dataset version, and the same model, tokenizer, windows, normaliser and
    inference packages.
    """
    if "ml" not in spec.parts:
        return None
    dataset = store.datasets.find(dataset_id)
    entry = shield.entry_for(dataset.task, MLConfig.evaluation(spec.variant), spec.model_id)
    return _run_alike(store, dataset_id, {"model": _model_stamp(entry), "packages": _packages()})


def _run_alike(store: Store, dataset_id: str, stamp: RunStamp) -> RunInfo | None:
    if stamp["model"] is None:
        return None
    alike = (
        run
        for run in store.runs.all(dataset_id)
        if run.status == RunStatus.DONE
        and run.stamp["model"] == stamp["model"]
        and run.stamp["packages"] == stamp["packages"]
    )
    # The newest of those that hold most rows: a trial may have come last.
    return max(alike, key=lambda run: run.rows_done, default=None)


def resume(
    store: Store, shield: Shield, run_id: str, *, retry_errors: bool = False, **options: Any
) -> RunInfo:
    """Score the rows a run has not scored yet, and its errored rows if asked.

    Raises:
        ConfigError: The rules or the model are no longer those the run began with.
    """
    return execute(store, shield, run_id, retry_errors=retry_errors, **options)


def execute(
    store: Store,
    shield: Shield,
    run_id: str,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    batch_rows: int = BATCH_ROWS,
    retry_errors: bool = False,
) -> RunInfo:
    """Score what is left of a run and return it, done or cancelled.

    Args:
        store: Where the run lies.
        shield: Brings models and settings.
        run_id: A run made by `start`.
        on_progress: Called after each stored batch, in this thread.
        cancel: When set, the run stops after the batch in flight and can be resumed.
        batch_rows: Rows stored together, and so the most a crash can lose.
        retry_errors: Score errored rows again.

    Raises:
        ShieldError: The run cannot go on; it is marked failed, with the reason, and can be resumed.
            A run that is done stays as it was.
    """
    run = store.runs.find(run_id)
    spec = RunSpec.from_settings(run.settings)
    is_done = run.status == RunStatus.DONE
    if is_done and not (retry_errors and run.errors):
        return run
    try:
        parts = _ready_parts(shield, run.task, spec)
        _check_same_parts(run, parts)
        is_done = False
        if retry_errors:
            store.runs.drop_errors(run_id)
        store.runs.set_status(run_id, RunStatus.RUNNING)
        run = store.runs.find(run_id)
        _score_rest(store, run, spec, parts, shield, on_progress, cancel, batch_rows)
    except BaseException as error:
        # On a full disk this fails, too; the next start then shows the run as interrupted.
        with suppress(StoreError):
            if not is_done:
                store.runs.set_status(run_id, RunStatus.FAILED, str(error) or type(error).__name__)
        raise
    stopped = (
        cancel is not None and cancel.is_set() and store.runs.find(run_id).rows_done < run.rows
    )
    store.runs.set_status(run_id, RunStatus.CANCELLED if stopped else RunStatus.DONE)
    return store.runs.find(run_id)


def estimate(
    store: Store, shield: Shield, dataset_id: str, spec: RunSpec, sample: int = 48
) -> Estimate:
    """Time `sample` rows spread over the dataset and extrapolate; nothing is stored."""
    dataset = store.datasets.find(dataset_id)
    rows = min(dataset.rows, spec.limit or dataset.rows)
    if rows == 0:
        return Estimate(0, 0, 0.0, 0.0)
    parts = _ready_parts(shield, dataset.task, spec)
    step = max(1, rows // sample)
    texts = [
        store.datasets.texts(dataset_id, index, index + 1)[0][1] for index in range(0, rows, step)
    ]
    parts.score(texts[0], _Slot())  # the first call pays for lazy set-up
    workers = spec.workers or shield.settings.workers
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda text: parts.score(text, _Slot()), texts))
    seconds = max(time.perf_counter() - started, 1e-9)
    rate = len(texts) / seconds
    return Estimate(rows, len(texts), rate, rows / rate)


def _score_rest(
    store: Store,
    run: RunInfo,
    spec: RunSpec,
    parts: _Parts,
    shield: Shield,
    on_progress: Callable[[Progress], None] | None,
    cancel: threading.Event | None,
    batch_rows: int,
) -> None:
    done = store.runs.done_rows(run.run_id)
    cache: ResultCache[_Slot] = ResultCache(spec.cache)
    hits, errors, fresh = 0, run.errors, 0
    began = time.perf_counter()
    with ThreadPoolExecutor(spec.workers or shield.settings.workers) as pool:
        for begin in range(0, run.rows, batch_rows):
            if cancel is not None and cancel.is_set():
                return
            started = time.perf_counter()
            rows = store.datasets.texts(run.dataset_id, begin, min(begin + batch_rows, run.rows))
            kept = [row for row in rows if row[0] in done]
            if kept:
                _replay(store, run, kept, cache)
            rows = [row for row in rows if row[0] not in done]
            if not rows:
                continue
            known = _known(
                store, run.dataset_id, run.stamp.get("reused_run"), [row[0] for row in rows]
            )
            table, batch_hits, batch_errors = _score_batch(rows, parts, cache, pool, known)
            table = table.append_column("run_id", _repeat(run.run_id, len(rows)))
            store.runs.append(run.run_id, table, time.perf_counter() - started)
            hits, errors, fresh = hits + batch_hits, errors + batch_errors, fresh + len(rows)
            if on_progress is not None:
                seconds = time.perf_counter() - began
                rate = fresh / seconds
                left = run.rows - len(done) - fresh
                on_progress(
                    Progress(
                        len(done) + fresh, run.rows, errors, hits, seconds, rate,
                        left / rate if rate else None,
                    )
                )  # fmt: skip


def _score_batch(
    rows: Sequence[tuple[int, str, str]],
    parts: _Parts,
    cache: ResultCache[_Slot],
    pool: ThreadPoolExecutor,
    known: Mapping[int, MLScore],
) -> tuple[pa.Table, int, int]:
    slots: list[tuple[_Slot, float | None]] = []
    misses: list[tuple[str, _Slot]] = []
    keys: list[bytes] = []
    for index, text, _ in rows:
        started = time.perf_counter()
        key = text_digest(text)
        slot = cache.get(key)
        if slot is None:
            slot = _Slot(model=known.get(index), is_reused=index in known)
            cache.put(key, slot)
            misses.append((text, slot))
            slots.append((slot, None))
        else:
            slots.append((slot, (time.perf_counter() - started) * 1_000))
        keys.append(key)
    list(pool.map(lambda miss: parts.score(*miss), misses))
    for key, (slot, _) in zip(keys, slots, strict=True):
        if slot.error is not None:
            cache.remove(key)  # a failure is never kept for later rows
    hits = sum(hit_ms is not None for _, hit_ms in slots)
    errors = sum(slot.error is not None for slot, _ in slots)
    return _table([row[0] for row in rows], slots), hits, errors


def _known(
    store: Store, dataset_id: str, run_id: str | None, indexes: Sequence[int]
) -> dict[int, MLScore]:
    """Return what an earlier run's model said of these rows; a run deleted since says nothing."""
    if run_id is None:
        return {}
    rows = stored_rows(store, dataset_id, indexes, run_id)
    models = {row.row_index: _model_from(row) for row in rows}
    return {index: model for index, model in models.items() if model is not None}


def _replay(
    store: Store,
    run: RunInfo,
    rows: Sequence[tuple[int, str, str]],
    cache: ResultCache[_Slot],
) -> None:
    """Bring the cache to where it was after rows stored earlier, from their stored scores."""
    stored = stored_rows(store, run.dataset_id, [row[0] for row in rows], run.run_id)
    for (_, text, _), row in zip(rows, stored, strict=True):
        key = text_digest(text)
        if row.error is None and cache.get(key) is None:
            cache.put(key, _slot_from(row))


def _slot_from(row: StoredRow) -> _Slot:
    from shield_engine.heuristics import RuleHit

    slot = _Slot()
    if row.heuristic is not None:
        hits = tuple(RuleHit(**span) for span in row.matches)
        probabilities = tuple(row.heuristic)
        slot.heuristic = HeuristicScore(_risk(probabilities), probabilities, hits, 0.0, 0.0)
    slot.linear = row.linear
    slot.model = _model_from(row)
    return slot


def _model_from(row: StoredRow) -> MLScore | None:
    start, end, windows, tokens = row.window_start, row.window_end, row.windows, row.tokens
    if row.model is None or start is None or end is None or windows is None or tokens is None:
        return None
    probabilities = tuple(row.model)
    return MLScore(
        score=_risk(probabilities),
        probabilities=probabilities,
        window=(start, end),
        windows=windows,
        tokens=tokens,
        tokenize_ms=0.0,
        infer_ms=0.0,
    )


def _risk(probabilities: Sequence[float]) -> float:
    return probabilities[1] if len(probabilities) == 2 else probabilities[0]


def _table(indexes: Sequence[int], slots: Sequence[tuple[_Slot, float | None]]) -> pa.Table:
    import pyarrow as pa

    def column(values: list[Any], kind: Any) -> Any:
        return pa.array(values, kind)

    heuristics = [slot.heuristic for slot, _ in slots]
    models = [slot.model for slot, _ in slots]
    is_hit = [hit_ms is not None for _, hit_ms in slots]
    fresh_h = [None if hit else h for h, hit in zip(heuristics, is_hit, strict=True)]
    fresh_m = [
        None if hit or s.is_reused else s.model for (s, _), hit in zip(slots, is_hit, strict=True)
    ]
    return pa.table(
        {
            "row_index": column(list(indexes), pa.int64()),
            "heuristic": column(
                [h and list(h.probabilities) for h in heuristics], pa.list_(pa.float64())
            ),
            "model": column([m and list(m.probabilities) for m in models], pa.list_(pa.float64())),
            "linear": column([slot.linear for slot, _ in slots], pa.float64()),
            "rules": column(
                [h and sorted({hit.rule_id for hit in h.hits}) for h in heuristics],
                pa.list_(pa.string()),
            ),
            "spans": column(
                [h and json.dumps([asdict(hit) for hit in h.hits]) for h in heuristics],
                pa.string(),
            ),
            "window_start": column([m and m.window[0] for m in models], pa.int64()),
            "window_end": column([m and m.window[1] for m in models], pa.int64()),
            "windows": column([m and m.windows for m in models], pa.int32()),
            "tokens": column([m and m.tokens for m in models], pa.int32()),
            "normalise_ms": column([h and h.normalise_ms for h in fresh_h], pa.float64()),
            "rules_ms": column([h and h.rules_ms for h in fresh_h], pa.float64()),
            "linear_ms": column(
                [None if hit else s.linear_ms for (s, _), hit in zip(slots, is_hit, strict=True)],
                pa.float64(),
            ),
            "tokenize_ms": column([m and m.tokenize_ms for m in fresh_m], pa.float64()),
            "infer_ms": column([m and m.infer_ms for m in fresh_m], pa.float64()),
            "is_hit": column(is_hit, pa.bool_()),
            "hit_ms": column([hit_ms for _, hit_ms in slots], pa.float64()),
            "error": column([slot.error for slot, _ in slots], pa.string()),
        }
    )


def _repeat(value: str, times: int) -> Any:
    import pyarrow as pa

    return pa.array([value] * times, pa.string())


def _ready_parts(shield: Shield, task: Task, spec: RunSpec) -> _Parts:
    heuristic = None
    if "heuristic" in spec.parts:
        extra = load_rules(Path(spec.rules_file), task) if spec.rules_file else ()
        heuristic = heuristic_for(task, extra_rules=extra, disabled_rules=spec.disabled_rules)
    if "ml" not in spec.parts:
        return _Parts(heuristic, None, None, None)
    entry = shield.entry_for(task, MLConfig.evaluation(spec.variant), spec.model_id)
    shield.inference(entry)  # loads now: a missing file stops the run before its first row
    # Only hybrid asks the tier, and hybrid needs both parts.
    linear = linear_tier(task) if heuristic is not None else None
    return _Parts(heuristic, linear, shield.model_part(entry).infer, entry)


def _check_same_parts(run: RunInfo, parts: _Parts) -> None:
    now = {
        "rule-set version": parts.heuristic.version if parts.heuristic else None,
        "linear tier": parts.linear.version if parts.linear else None,
        "model SHA-256": parts.entry.sha256 if parts.entry else None,
    }
    then = {
        "rule-set version": run.stamp["rules_version"],
        "linear tier": run.stamp.get("linear_version"),
        "model SHA-256": run.model_sha256,
    }
    for name, value in now.items():
        if value != then[name]:
            raise ConfigError(
                f"run {run.run_id} began with {name} {then[name]}, now it is {value}: "
                "scores of two kinds must not be mixed; start a new run"
            )


def _stamp(dataset: DatasetInfo, shield: Shield, parts: _Parts) -> RunStamp:
    """Return what is needed to repeat a run: data, rules, model, packages, machine, commit."""
    return {
        "dataset_hash": dataset.content_hash,
        "rules_version": parts.heuristic.version if parts.heuristic else None,
        "linear_version": parts.linear.version if parts.linear else None,
        "model": _model_stamp(parts.entry) if parts.entry else None,
        "packages": _packages(),
        "machine": {
            "platform": platform.platform(),
            "processor": platform.machine(),
            "python": platform.python_version(),
            "workers": shield.settings.workers,
        },
        "git_commit": _git_commit(),
    }


def _model_stamp(entry: ModelEntry) -> dict[str, Any]:
    """Return everything that decides a model's score of a text."""
    return {
        "id": entry.id,
        "variant": entry.variant.value,
        "sha256": entry.sha256,
        "revision": entry.revision,
        "tokenizer_sha256": entry.tokenizer_sha256,
        "max_length": entry.max_length,
        "stride": entry.stride,
        "window_penalty": entry.window_penalty,
        "normalizer": NORMALIZER_VERSION,
    }


def _packages() -> dict[str, str]:
    names = ("llm-shield", "onnxruntime", "tokenizers", "numpy", "duckdb")
    return {name: metadata.version(name) for name in names}


def _git_commit() -> str | None:
    """Return the commit of the checkout this engine runs from, `None` where it is installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None

"""Runs: score a dataset version once, keep every part's score and timing, survive a crash.

Rows go through in batches. A sequential pass asks the result cache (so hits and misses do not
depend on threads), then the misses of the batch are scored over threads, then the batch is stored
in one transaction. A crash loses at most the batch in flight.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from shield_engine.cache import ResultCache, text_digest
from shield_engine.config import CacheConfig, MLConfig
from shield_engine.engine import Shield
from shield_engine.errors import ConfigError, GuardError, ShieldError, StoreError
from shield_engine.guards import OnnxEntry
from shield_engine.guards.answers import LoggedGuard
from shield_engine.heuristics import heuristic_for, linear_tier, load_rules
from shield_engine.ml import InferenceEngine, MLScore
from shield_engine.parts import Parts, RawScores
from shield_engine.runs.results import ScoredRow, result_table, stored_model, stored_scores
from shield_engine.runs.stamp import Scorer, check_same_parts, packages, run_stamp
from shield_engine.store import RunInfo, RunStamp, RunStatus, Store
from shield_engine.store.connection import interruptible
from shield_engine.store.rows import stored_rows
from shield_engine.types import Mode, Task, Variant

__all__ = [
    "Progress",
    "RunSpec",
    "execute",
    "parts_for",
    "ready_parts",
    "reusable_run",
    "scorer_of",
    "start",
    "workers_of",
]

RUN_BATCH_ROWS = 1_000
_FIRST_FAILURES = 20  # of a guard that has not answered yet
_LATER_FAILURES = 100
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
        timeout_s: Longest time for the model's score of one text; a text that takes longer is a row
            error. Asked between a text's windows.
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
    timeout_s: float = 60.0
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


def parts_for(modes: Sequence[Mode]) -> tuple[str, ...]:
    """Return the parts a run must score so that `modes` can be derived."""
    heuristic = ("heuristic",) if set(modes) - {Mode.ML} else ()
    return heuristic + (("ml",) if set(modes) - {Mode.HEURISTIC} else ())


def start(store: Store, shield: Shield, dataset_id: str, spec: RunSpec) -> RunInfo:
    """Note a new run of `spec` over a dataset; `execute` scores it.

    Raises:
        UnknownNameError: No such dataset, model or variant.
        ArtifactError: The model cannot be loaded.
        StoreError: The dataset's texts were purged.
    """
    dataset = store.datasets.find(dataset_id)
    parts, scorer = ready_parts(shield, dataset.task, spec)
    store.datasets.texts(dataset_id, 0, 1)
    rows = min(dataset.rows, spec.limit or dataset.rows)
    stamp = run_stamp(dataset, parts, scorer, shield.settings.workers)
    if spec.reuse and (earlier := _run_alike(store, dataset_id, stamp)) is not None:
        stamp["reused_run"] = earlier.run_id
    return store.runs.add(
        dataset,
        parts=spec.parts,
        rows=rows,
        model_id=scorer.name,
        variant=scorer.variant,
        model_sha256=scorer.sha256,
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
    scorer = scorer_of(shield, dataset.task, spec)
    return _run_alike(store, dataset_id, {"model": scorer.identity, "packages": packages()})


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


def execute(
    store: Store,
    shield: Shield,
    run_id: str,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    batch_rows: int = RUN_BATCH_ROWS,
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
        ConfigError: The rules or the model are no longer those the run began with.
        ShieldError: The run cannot go on; it is marked failed, with the reason, and can be resumed.
            A run that is done stays as it was.
    """
    run = store.runs.find(run_id)
    spec, cancel = RunSpec.from_settings(run.settings), cancel or threading.Event()
    is_done = run.status == RunStatus.DONE
    if is_done and not (retry_errors and run.errors):
        return run
    _refuse_given(run)
    try:
        scorer = scorer_of(shield, run.task, spec)
        with interruptible(), ExitStack() as stack:
            guard = _logged(shield, scorer, run_id)
            if guard is not None:
                stack.enter_context(closing(guard))
            parts, _ = ready_parts(shield, run.task, spec, guard, cancel)
            check_same_parts(run, parts, scorer)
            is_done = False
            if retry_errors:
                store.runs.drop_errors(run_id)
            store.runs.set_status(run_id, RunStatus.RUNNING)
            run = store.runs.find(run_id)
            pool = stack.enter_context(ThreadPoolExecutor(workers_of(shield, spec, scorer)))
            sitting = _Sitting(store, run, parts, ResultCache(spec.cache), pool, cancel, guard)
            sitting.score_rest(batch_rows, on_progress)
    except BaseException as error:
        # On a full disk this fails, too; the next start then shows the run as interrupted.
        with suppress(StoreError):
            if not is_done:
                store.runs.set_status(run_id, *_ending(error))
        raise
    stopped = cancel.is_set() and store.runs.find(run_id).rows_done < run.rows
    store.runs.set_status(run_id, RunStatus.CANCELLED if stopped else RunStatus.DONE)
    if not stopped:
        _answers_path(shield, run_id).unlink(missing_ok=True)  # every answer is in the store
    return store.runs.find(run_id)


def _ending(error: BaseException) -> tuple[RunStatus, str | None]:
    """Return what a run is after an error: stopped by hand, or failed with the reason."""
    if isinstance(error, KeyboardInterrupt):
        return RunStatus.INTERRUPTED, None
    return RunStatus.FAILED, str(error) or type(error).__name__


@dataclass(slots=True)
class _Slot:
    """Scores of one text: the cache hands it out before a worker fills it, unless cancelled."""

    raw: RawScores | None = None
    known: MLScore | None = None


class _Watch:
    """Stops a run whose guard answers nothing: each call of it may cost time and money."""

    def __init__(self) -> None:
        self._failures = 0
        self._limit = _FIRST_FAILURES
        self._reason: str | None = None
        self._lock = threading.Lock()

    def note(self, error: ShieldError | None) -> None:
        """Count a call that failed, or one that did not."""
        with self._lock:
            if error is None:
                self._failures, self._limit = 0, _LATER_FAILURES
                return
            self._failures += 1
            if self._failures >= self._limit:
                self._reason = (
                    f"the run was stopped: {self._failures} calls failed one after the other, the "
                    f"last with: {error}. Check the guard (its address, key, timeout_s), then resume"
                )

    def check(self) -> None:
        """Go on, unless too many calls failed.

        Raises:
            GuardError: They did.
        """
        if self._reason is not None:
            raise GuardError(self._reason)


@dataclass(frozen=True, slots=True)
class _Sitting:
    """One go at a run, from its start or from where an earlier one stopped."""

    store: Store
    run: RunInfo
    parts: Parts
    cache: ResultCache[_Slot]
    pool: ThreadPoolExecutor
    cancel: threading.Event
    guard: LoggedGuard | None = None
    watch: _Watch = field(default_factory=_Watch)

    def score_rest(self, batch_rows: int, on_progress: Callable[[Progress], None] | None) -> None:
        """Score the rows without a result, batch by batch, until all have one or `cancel`."""
        run = self.run
        done = self.store.runs.done_rows(run.run_id)
        hits, errors, fresh = 0, run.errors, 0
        began = time.perf_counter()
        for begin in range(0, run.rows, batch_rows):
            if self.cancel.is_set():
                return
            rows = self._score_batch(begin, min(begin + batch_rows, run.rows), done)
            fresh += len(rows)
            hits += sum(row.is_hit for row in rows)
            errors += sum(row.raw.error is not None for row in rows)
            if rows and on_progress is not None:
                seconds = time.perf_counter() - began
                rows_done, rate = len(done) + fresh, fresh / seconds
                eta_s = (run.rows - rows_done) / rate
                on_progress(Progress(rows_done, run.rows, errors, hits, seconds, rate, eta_s))

    def _score_batch(self, begin: int, end: int, done: set[int]) -> list[ScoredRow]:
        """Score and store what is left of the rows from `begin` to `end`."""
        started = time.perf_counter()
        texts = {
            index: text
            for index, text, _ in self.store.datasets.texts(self.run.dataset_id, begin, end)
        }
        self._replay({index: text for index, text in texts.items() if index in done})
        texts = {index: text for index, text in texts.items() if index not in done}
        if not texts:
            return []
        rows = self._scored(texts, self._known(list(texts)))
        if not rows:
            return []
        self.store.runs.append(self.run.run_id, result_table(rows), time.perf_counter() - started)
        return rows

    def _scored(self, texts: Mapping[int, str], known: Mapping[int, MLScore]) -> list[ScoredRow]:
        slots: list[tuple[bytes, _Slot, float | None]] = []
        misses: list[tuple[str, _Slot]] = []
        for index, text in texts.items():
            started = time.perf_counter()
            key = text_digest(text)
            slot = self.cache.get(key)
            hit_ms = None if slot is None else (time.perf_counter() - started) * 1_000
            if slot is None:
                slot = _Slot(known=known.get(index))
                self.cache.put(key, slot)
                misses.append((text, slot))
            slots.append((key, slot, hit_ms))

        def fill(text: str, slot: _Slot) -> None:
            self.watch.check()
            if self.cancel.is_set():
                return
            raw = self.parts.score(text, slot.known)
            if self.guard is not None:
                self.watch.note(raw.error)
            if not (raw.error and self.cancel.is_set()):  # else it was ended in its midst
                slot.raw = raw

        if self.guard is not None:
            self.guard.ask_ahead([text for text, _ in misses], self.pool)
        list(self.pool.map(fill, *zip(*misses, strict=True)) if misses else ())
        for key, slot, _ in slots:
            if slot.raw is None or slot.raw.error is not None:
                self.cache.remove(key)  # a failure is never kept for later rows
        return [
            ScoredRow(self.run.run_id, index, slot.raw, hit_ms, slot.known is not None)
            for index, (_, slot, hit_ms) in zip(texts, slots, strict=True)
            if slot.raw is not None
        ]

    def _known(self, indexes: Sequence[int]) -> dict[int, MLScore]:
        """Return the model's scores of an earlier run; one deleted since has none."""
        run_id = self.run.stamp.get("reused_run")
        if run_id is None:
            return {}
        rows = stored_rows(self.store, self.run.dataset_id, indexes, run_id)
        models = {row.row_index: stored_model(row) for row in rows}
        return {index: model for index, model in models.items() if model is not None}

    def _replay(self, texts: Mapping[int, str]) -> None:
        """Bring the cache to where it was after rows stored earlier, from their stored scores."""
        if not texts:
            return
        rows = stored_rows(self.store, self.run.dataset_id, list(texts), self.run.run_id)
        for text, row in zip(texts.values(), rows, strict=True):
            key = text_digest(text)
            if row.error is None and self.cache.get(key) is None:
                self.cache.put(key, _Slot(stored_scores(row)))


def _refuse_given(run: RunInfo) -> None:
    if run.is_given:
        raise ConfigError(
            f"run {run.run_id} holds the scores of a file, and nobody can be asked again: correct "
            "the file and import it again"
        )


def scorer_of(shield: Shield, task: Task, spec: RunSpec) -> Scorer:
    """Return what a run asks beside the rules."""
    if "ml" not in spec.parts:
        return Scorer()
    named = shield.guard_of(spec.model_id)
    guard = shield.guard(named.name, task) if named else None
    if guard is not None and not isinstance(guard, OnnxEntry):
        return Scorer(guard=guard)
    model, variant = (guard.model, guard.variant) if guard else (spec.model_id, spec.variant)
    return Scorer(shield.entry_for(task, MLConfig.evaluation(variant), model), guard)


def workers_of(shield: Shield, spec: RunSpec, scorer: Scorer) -> int:
    """Return how many threads score: those asked for, or as many as the guard takes calls."""
    at_once = scorer.guard.concurrency if scorer.guard else 1
    return spec.workers or max(shield.settings.workers, at_once)


def _answers_path(shield: Shield, run_id: str) -> Path:
    return shield.settings.answers / f"{run_id}.jsonl"


def _logged(shield: Shield, scorer: Scorer, run_id: str) -> LoggedGuard | None:
    """Return the outside guard of a run, with what it answered before."""
    if scorer.guard is None or scorer.model is not None:
        return None
    return LoggedGuard(shield.open_guard(scorer.guard), _answers_path(shield, run_id))


def ready_parts(
    shield: Shield,
    task: Task,
    spec: RunSpec,
    guard: LoggedGuard | None = None,
    cancel: threading.Event | None = None,
) -> tuple[Parts, Scorer]:
    """Return the parts of a run, and what scores beside the rules.

    Args:
        shield: Brings models and guards.
        task: Of the dataset.
        spec: What the run asks for.
        guard: The outside guard, where the run keeps its answers.
        cancel: When set, a model ends the text in hand.
    """
    heuristic = None
    if "heuristic" in spec.parts:
        extra = load_rules(Path(spec.rules_file), task) if spec.rules_file else ()
        heuristic = heuristic_for(task, extra_rules=extra, disabled_rules=spec.disabled_rules)
    scorer = scorer_of(shield, task, spec)
    if scorer.name is None:
        return Parts(task, heuristic), scorer
    # Only hybrid asks the tier, and hybrid needs both parts.
    linear = linear_tier(task) if heuristic is not None else None
    if scorer.guard is not None:
        part = shield.guard_part(scorer.guard, guard.score if guard else None)
    elif scorer.model is not None:
        engine = shield.inference(scorer.model)  # loads now: a missing file stops the start
        ask = partial(_ask_within, engine, spec.timeout_s, cancel)
        part = replace(shield.model_part(scorer.model), ask=ask)
    return Parts(task, heuristic, linear, part.infer), scorer


def _ask_within(
    engine: InferenceEngine, timeout_s: float, cancel: threading.Event | None, text: str
) -> MLScore:
    """Score a text, unless that takes too long or the run is cancelled."""
    deadline = time.monotonic() + timeout_s

    def until() -> str | None:
        if cancel is not None and cancel.is_set():
            return "the run was cancelled"
        return None if time.monotonic() < deadline else f"one text took over {timeout_s:g} s"

    return engine.infer(text, until=until)

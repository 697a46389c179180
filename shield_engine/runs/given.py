"""Scores that came in a file, stored as runs: one for each guard the file speaks of.

A run of them has no engine behind it, only the file's numbers, and is a candidate like any other:
where the texts are there, the rules score them too, so that hybrid and both can be derived.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from shield_engine.datasets import ColumnMapping, GivenScores, JoinedScores, join_rows
from shield_engine.datasets.scores import check_task
from shield_engine.engine import Shield
from shield_engine.errors import ConfigError, InferenceError, UnknownNameError
from shield_engine.guards import GuardEntry
from shield_engine.heuristics import heuristic_for, linear_tier
from shield_engine.ml import MLScore
from shield_engine.parts import Parts, RawScores
from shield_engine.runs.execution import PARTS, RUN_BATCH_ROWS, Progress, RunSpec
from shield_engine.runs.results import ScoredRow, result_table
from shield_engine.runs.stamp import Scorer, run_stamp
from shield_engine.store import DatasetInfo, RunInfo, RunStamp, RunStatus, Store
from shield_engine.types import Task

__all__ = ["ScoresEntry", "find_dataset", "join_scores", "store_given_scores"]


@dataclass(frozen=True, kw_only=True)
class ScoresEntry(GuardEntry):
    """A guard of which only its scores are known.

    Attributes:
        digest: SHA-256 of those.
    """

    digest: str
    kind: ClassVar[str] = "scores"

    @property
    def fingerprint(self) -> str:
        """Digest of the scores: other numbers under the same name are another guard."""
        return self.digest


def find_dataset(store: Store, name: str, task: Task) -> DatasetInfo:
    """Return the stored version meant by an id, `NAME@VERSION`, a title, or a name: its latest.

    Raises:
        UnknownNameError: There is none of that task.
    """
    versions = [info for info in store.datasets.all() if info.task is task]
    for info in sorted(versions, key=lambda info: info.version, reverse=True):
        if name in {info.dataset_id, info.name, info.title, f"{info.name}@{info.version}"}:
            return info
    stored = ", ".join(sorted({info.title for info in versions})) or "none"
    if store.path is None:
        stored += " (the store is closed: --no-store leaves it so, or another process holds it)"
    raise UnknownNameError(f"no stored dataset {name!r} of {task.value}; there are: {stored}")


def join_scores(store: Store, dataset_id: str, path: Path, mapping: ColumnMapping) -> JoinedScores:
    """Give each row of a stored version its scores of a file without texts.

    Args:
        store: Where the version lies.
        dataset_id: Which one; purged texts do not matter.
        path: The file.
        mapping: Its `scores`, and `id` or `text_sha256`: what rows are known by.

    Raises:
        UnknownNameError: No such dataset.
        ConfigError: The mapping names no scores or no key, or the task has three classes.
        DatasetError: The file cannot be read, names a row twice, or fits no row.
    """
    dataset = store.datasets.find(dataset_id)
    check_task(dataset.task, mapping.scores)
    column = "row_id" if mapping.id is not None else "text_sha256"
    rows = store.fetch(
        f"SELECT {column} FROM dataset_rows WHERE dataset_id = ? ORDER BY row_index", [dataset_id]
    )
    return join_rows(path, mapping, [key for (key,) in rows])


def store_given_scores(
    store: Store,
    shield: Shield,
    dataset: DatasetInfo,
    scores: Sequence[GivenScores],
    *,
    rules: bool = True,
    limit: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[RunInfo]:
    """Store a run for each guard a file speaks of, and return them in that order.

    The same scores again give the run there is. What fails leaves no run behind.

    Args:
        store: Where the dataset lies.
        shield: Knows which names are taken.
        dataset: The version that the scores belong to.
        scores: Of each guard, one value a row.
        rules: Score the rules beside them, if the texts are there.
        limit: Only the first rows.
        on_progress: Called after each stored batch.

    Raises:
        ConfigError: A guard has the name of a model or of a declared guard, the rows are not the
            dataset's, or the task has three classes.
        StoreError: The runs cannot be written.
    """
    check_task(dataset.task, scores)
    for given in scores:
        _check(shield, dataset, given)
    rows = min(dataset.rows, limit or dataset.rows)
    parts = Parts(dataset.task)
    if rules and not dataset.purged:
        parts = Parts(dataset.task, heuristic_for(dataset.task), linear_tier(dataset.task))
    began = time.perf_counter()
    runs: list[RunInfo] = []
    new: list[tuple[RunInfo, GivenScores]] = []
    try:
        for given in scores:
            run = _run(store, shield, dataset, parts, given, rows)
            runs.append(run)
            if run.status != RunStatus.DONE:
                new.append((run, given))
        for begin in range(0, rows if new else 0, RUN_BATCH_ROWS):
            end = min(begin + RUN_BATCH_ROWS, rows)
            _store_batch(store, dataset, parts, new, begin, end)
            if on_progress is not None:
                seconds = time.perf_counter() - began
                rate = end / seconds
                on_progress(Progress(end, rows, 0, 0, seconds, rate, (rows - end) / rate))
    except BaseException:
        for run, _ in new:
            store.runs.delete(run.run_id)
        raise
    for run, _ in new:
        store.runs.set_status(run.run_id, RunStatus.DONE)
    return [store.runs.find(run.run_id) for run in runs]


def _check(shield: Shield, dataset: DatasetInfo, given: GivenScores) -> None:
    name = given.column.guard
    if name in shield.guards or name in {entry.id for entry in shield.registry.find()}:
        raise ConfigError(
            f"column {given.column.column!r}: {name!r} is the name of a guard or model that is "
            "here; give the column another: COLUMN=NAME"
        )
    if len(given) != dataset.rows:
        raise ConfigError(
            f"guard {name}: {len(given):,} scores for {dataset.rows:,} rows of {dataset.title}"
        )


def _run(
    store: Store,
    shield: Shield,
    dataset: DatasetInfo,
    parts: Parts,
    given: GivenScores,
    rows: int,
) -> RunInfo:
    """Return the run of these scores that is stored, or a new one without rows."""
    name = given.column.guard
    scorer = Scorer(guard=ScoresEntry(name=name, task=dataset.task, digest=given.digest))
    stamp = run_stamp(dataset, parts, scorer, shield.settings.workers)
    stamp["scores"] = asdict(given.column)
    names = PARTS if parts.heuristic is not None else ("ml",)
    for run in store.runs.all(dataset.dataset_id):
        if (
            run.status == RunStatus.DONE
            and (run.parts, run.rows) == (names, rows)
            and all(_same(run.stamp, stamp, key) for key in ("model", "guard", "rules_version"))
        ):
            return run
    spec = RunSpec(parts=names, model_id=name, limit=None if rows == dataset.rows else rows)
    return store.runs.add(
        dataset,
        parts=names,
        rows=rows,
        model_id=scorer.name,
        variant=None,
        model_sha256=scorer.sha256,
        settings=asdict(spec),
        stamp=stamp,
    )


def _store_batch(
    store: Store,
    dataset: DatasetInfo,
    parts: Parts,
    new: Sequence[tuple[RunInfo, GivenScores]],
    begin: int,
    end: int,
) -> None:
    """Score the rules of some rows once, and store them with each guard's scores."""
    started = time.perf_counter()
    texts = [""] * (end - begin)
    if not dataset.purged:
        texts = [text for _, text, _ in store.datasets.texts(dataset.dataset_id, begin, end)]
    raws = [parts.score(text) for text in texts]
    for run, given in new:
        rows = [
            _row(run.run_id, begin + place, raw, text, given)
            for place, (raw, text) in enumerate(zip(raws, texts, strict=True))
        ]
        store.runs.append(run.run_id, result_table(rows), time.perf_counter() - started)
        started = time.perf_counter()


def _row(run_id: str, index: int, raw: RawScores, text: str, given: GivenScores) -> ScoredRow:
    error = given.errors.get(index)
    if error is not None:
        raw = replace(raw, error=InferenceError(f"{given.column.guard}: {error}"))
        return ScoredRow(run_id, index, raw, None, is_reused=False)
    risk, latency_ms = given.risks[index], given.latency_ms[index]
    model = MLScore(
        score=risk,
        probabilities=(1 - risk, risk),
        window=(0, len(text)),
        windows=1,
        tokens=0,
        tokenize_ms=0.0,
        infer_ms=latency_ms,
    )
    # Without a measured time the columns of times stay empty, as where a score is reused.
    return ScoredRow(run_id, index, replace(raw, model=model), None, math.isnan(latency_ms))


def _same(then: RunStamp, now: RunStamp, key: str) -> bool:
    return then.get(key) == now.get(key)

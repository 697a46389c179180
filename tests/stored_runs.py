"""Runs with chosen scores in a store, without an engine: verdicts are known by construction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from shield_engine.store import DatasetInfo, RunInfo, RunStatus, Store
from shield_engine.types import LABELS, Task

__all__ = ["add_dataset", "add_run"]

STAMP = {
    "dataset_hash": "d" * 64,
    "rules_version": "rules-1",
    "packages": {"llm-shield": "0.1.0"},
    "machine": {"platform": "test", "workers": 1},
    "git_commit": None,
}


def add_dataset(
    store: Store,
    labels: Sequence[int | None],
    *,
    task: Task = Task.PROMPT_INJECTION,
    texts: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    slices: Sequence[dict[str, str]] | None = None,
    name: str = "set",
) -> DatasetInfo:
    """Store rows with these labels; texts are numbered unless given."""
    count = len(labels)
    texts = texts or [f"text {number}" for number in range(count)]
    digests = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for text in texts]
    table = pa.table(
        {
            "row_index": pa.array(range(count), pa.int64()),
            "row_id": pa.array([f"r{number}" for number in range(count)]),
            "text": pa.array(texts, pa.string()),
            "label": pa.array(labels, pa.int8()),
            "group": pa.array(groups or [None] * count, pa.string()),
            "slices": pa.array(
                [json.dumps(one) for one in slices] if slices else [None] * count, pa.string()
            ),
            "text_sha256": pa.array(digests),
            "chars": pa.array([len(text) for text in texts], pa.int32()),
        }
    )
    columns = sorted({key for one in slices or () for key in one})
    return store.datasets.add(
        name,
        task,
        table,
        content_hash=hashlib.sha256("|".join([*digests, *map(str, labels)]).encode()).hexdigest(),
        source=f"{name}.jsonl",
        details={"mapping": {"text": "text", "label": "label", "slices": columns}},
    )


def add_run(
    store: Store,
    dataset: DatasetInfo,
    scores: Sequence[Sequence[float] | float | None],
    *,
    part: str = "ml",
    ms: Sequence[float] | float = 1.0,
    sha256: str = "a" * 64,
    model_id: str = "tiny",
    rules: Sequence[Sequence[str]] | None = None,
    rows: int | None = None,
    machine: str = "test",
    heuristic: Sequence[Sequence[float] | float] | None = None,
) -> RunInfo:
    """Store a run of one part with these scores: the risk of two classes, or all probabilities.

    A score of `None` is a row on which the part failed. With `heuristic`, those are the rules'
    scores, and `scores` the model's.
    """
    has_model = part == "ml"
    run = store.runs.add(
        dataset,
        parts=[part] if heuristic is None else ["heuristic", "ml"],
        rows=dataset.rows if rows is None else rows,
        model_id=model_id if has_model else None,
        variant="INT8" if has_model else None,
        model_sha256=sha256 if has_model else None,
        settings={"limit": None},
        stamp=STAMP | {"machine": {"platform": machine, "workers": 1}},
    )
    width = len(LABELS[dataset.task])
    probabilities = [_probabilities(score, width) for score in scores]
    count = len(probabilities)
    times = np.broadcast_to(np.asarray(ms, dtype=np.float64), count)
    nothing = pa.nulls(count, pa.list_(pa.float64()))
    given = pa.array(probabilities, pa.list_(pa.float64()))
    rules_say = nothing
    if heuristic is not None:
        rules_say = pa.array([_probabilities(one, width) for one in heuristic], given.type)
    store.runs.append(
        run.run_id,
        pa.table(
            {
                "run_id": pa.array([run.run_id] * count),
                "row_index": pa.array(range(count), pa.int64()),
                "heuristic": rules_say if has_model else given,
                "model": given if has_model else nothing,
                "rules": pa.array(rules or [[]] * count, pa.list_(pa.string())),
                "normalise_ms": pa.array(times / 2),
                "rules_ms": pa.array(times / 2),
                "tokenize_ms": pa.array(times / 2),
                "infer_ms": pa.array(times / 2),
                "is_hit": pa.array([False] * count),
                "hit_ms": pa.nulls(count, pa.float64()),
                "error": pa.array([None if row else "failed" for row in probabilities], pa.string()),
            }
        ),
        1.0,
    )  # fmt: skip
    store.runs.set_status(run.run_id, RunStatus.DONE)
    return store.runs.find(run.run_id)


def _probabilities(score: Sequence[float] | float | None, width: int) -> list[float] | None:
    if score is None:
        return None
    if isinstance(score, int | float):
        assert width == 2
        return [1 - float(score), float(score)]
    return [float(value) for value in score]

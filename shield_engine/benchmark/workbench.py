"""How fast the workbench answers over a large run: opening, paging, filtering, a threshold's move.

The run is synthetic (invented texts, drawn scores), so that any size can be measured anywhere and
every answer is known. Each timed answer is checked; four users ask at once at the end.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.benchmark.document import Measurement
from shield_engine.benchmark.suite import machine_facts
from shield_engine.benchmark.timing import percentile_estimate
from shield_engine.decide.candidates import Candidate, align
from shield_engine.decide.compare import compare
from shield_engine.decide.figures import evaluate_run, mode_view
from shield_engine.decide.judged import RowJudge, verdicts_of
from shield_engine.decide.lab import lab_of
from shield_engine.decide.splits import optimism
from shield_engine.decide.thresholds import Rule, ScoreColumn, rates_at
from shield_engine.errors import ShieldError
from shield_engine.store import RunInfo, RunStatus, Scores, Store
from shield_engine.store.rows import (
    RowFilter,
    RowKind,
    count_rows,
    judged_rows,
    stored_rows,
)
from shield_engine.types import Mode, Task

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["run_workbench", "synthetic_run"]

_SEED = 7
_BATCH = 100_000
_LANGUAGES = ("en", "de", "fr")
_USERS = 4


def run_workbench(
    rows: int = 1_000_000,
    *,
    calls: int = 20,
    on_progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Measure the workbench over a synthetic run and return a benchmark document.

    Args:
        rows: Rows of the run.
        calls: Timed calls of each quick operation; slow ones get a quarter.
        on_progress: Called with a title and the share done, 0..1.

    Raises:
        ShieldError: An answer was wrong, or the temporary store cannot be written.
    """
    started = time.perf_counter()
    document: dict[str, Any] = {
        "format": 1,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": rows < 1_000_000,
        "machine": machine_facts(),
        "figures": [],
        "ratios": [],
        "targets": [],
    }
    with tempfile.TemporaryDirectory(prefix="shield-workbench-") as folder:
        path = Path(folder) / "shield.duckdb"
        with Store.open(path) as store:
            run = synthetic_run(store, rows)
        with Store.open(path) as store:
            for position, figure in enumerate(_measured(store, run, calls)):
                document["figures"].append(figure.as_dict())
                if on_progress is not None:
                    on_progress(figure.name, min(0.99, (position + 1) / 26))
    return {**document, "seconds": time.perf_counter() - started}


def synthetic_run(store: Store, rows: int, seed: int = _SEED) -> RunInfo:
    """Store an invented dataset and a run of both parts over it, 10% risky, with ties and hits."""
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.1).astype(np.int8)
    texts = [f"message {row} about topic {row % 97}" for row in range(rows)]
    slices = [f'{{"language":"{_LANGUAGES[row % 3]}"}}' for row in range(rows)]
    table = pa.table(
        {
            "row_index": np.arange(rows),
            "row_id": pa.array([str(row) for row in range(rows)]),
            "text": pa.array(texts),
            "label": pa.array(labels, pa.int8()),
            "group": pa.nulls(rows, pa.string()),
            "slices": pa.array(slices),
            "text_sha256": pa.array([hashlib.sha256(text.encode()).hexdigest() for text in texts]),
            "chars": pa.array([len(text) for text in texts], pa.int64()),
        }
    )
    dataset = store.datasets.add(
        "synthetic", Task.PROMPT_INJECTION, table, content_hash=f"{rows}-{seed}", source="none",
        details={"mapping": {"slices": ["language"]}},
    )  # fmt: skip
    run = store.runs.add(
        dataset, parts=["heuristic", "ml"], rows=rows, model_id="synthetic", variant="INT8",
        model_sha256="0" * 64, settings={}, stamp={"rules_version": "synthetic"},
    )  # fmt: skip
    silent = rng.random(rows) < 0.7
    heuristic = np.round(np.where(silent, 0.0, rng.beta(2, 5, rows) + 0.3 * labels).clip(0, 1), 2)
    model = np.where(labels == 1, rng.beta(5, 2, rows), rng.beta(1, 9, rows))
    is_hit = rng.random(rows) < 0.1
    model_ms = rng.lognormal(0, 0.4, rows)
    for start in range(0, rows, _BATCH):
        part = slice(start, min(rows, start + _BATCH))
        store.runs.append(
            run.run_id,
            _results(run, start, heuristic[part], model[part], is_hit[part], model_ms[part]),
            1.0,
        )
    store.runs.set_status(run.run_id, RunStatus.DONE)
    store.compact()
    return store.runs.find(run.run_id)


def _results(
    run: RunInfo,
    start: int,
    heuristic: NDArray[np.float64],
    model: NDArray[np.float64],
    is_hit: NDArray[np.bool_],
    model_ms: NDArray[np.float64],
) -> pa.Table:
    import pyarrow as pa

    count = len(heuristic)

    def pairs(risk: NDArray[np.float64]) -> pa.Array:
        flat = pa.array(np.column_stack((1 - risk, risk)).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, 2).cast(pa.list_(pa.float64()))

    def fresh(ms: Any) -> pa.Array:
        return pa.array(np.broadcast_to(ms, count), mask=is_hit)

    return pa.table(
        {
            "run_id": pa.array([run.run_id] * count),
            "row_index": np.arange(start, start + count),
            "heuristic": pairs(heuristic),
            "model": pairs(model),
            "rules": pa.array([["rule"] if risk >= 0.3 else [] for risk in heuristic]),
            "spans": pa.array(["[]"] * count),
            "windows": pa.array(np.ones(count, np.int32)),
            "normalise_ms": fresh(0.01),
            "rules_ms": fresh(0.02),
            "tokenize_ms": fresh(0.1),
            "infer_ms": fresh(model_ms),
            "is_hit": pa.array(is_hit),
            "hit_ms": pa.array(np.full(count, 0.01), mask=~is_hit),
            "error": pa.nulls(count, pa.string()),
        }
    )


def _measured(store: Store, run: RunInfo, calls: int) -> Iterator[Measurement]:
    """Time each operation, checking its answer."""
    few, dataset = max(3, calls // 4), run.dataset_id
    scores = store.runs.scores(run.run_id)
    verdicts = partial(verdicts_of, store, scores=scores)
    judge = RowJudge(run.run_id, Mode.ML, 0.5)
    view = mode_view(scores, Mode.ML, 0.5)
    lab = lab_of(view, store.runs.units(run.run_id), None)
    assert view.risk is not None  # noqa: S101 - two classes
    flagged = view.risk >= 0.5
    alarms = int((flagged & (view.labels == 0)).sum())
    misses = int((~flagged & (view.labels == 1)).sum())
    middle, page = run.rows // 2, min(50, run.rows)
    middle_page = range(middle, min(middle + page, run.rows))

    def lab_opens() -> int:
        found = store.runs.scores(run.run_id)
        return lab_of(mode_view(found, Mode.ML, 0.5), store.runs.units(run.run_id), None).column.n

    def all_modes() -> int:
        candidates = [Candidate(run.run_id, mode, 0.5, title=mode.value) for mode in Mode]
        return compare(align(store, candidates)).n

    def counts(threshold: float) -> int:
        return int(lab.column.at(threshold).fp[0])

    def found(rows: RowFilter, offset: int = 0) -> int:
        return len(judged_rows(store, verdicts(judge), rows, offset=offset))

    operations: list[tuple[str, int, Callable[[], object], object, float]] = [
        ("open.run", calls, lambda: store.runs.find(run.run_id).rows_done, run.rows, 2_000),
        ("open.threshold_lab", few, lab_opens, run.rows, 2_000),
        ("open.figures_of_a_mode", few,
         lambda: evaluate_run(store, run.run_id, modes=[Mode.ML])[Mode.ML].n, run.rows, 2_000),
        ("open.compare_four_modes", few, all_modes, run.rows, 2_000),
        ("rows.page", calls,
         lambda: stored_rows(store, dataset, middle_page, run.run_id)[0].row_index, middle,
         300),
        ("rows.count_by_kind", calls,
         lambda: count_rows(store, verdicts(judge), RowFilter()).false_positives, alarms, 300),
        ("rows.errors_by_regret", calls,
         lambda: min(page, found(RowFilter())), min(page, alarms + misses), 300),
        ("rows.filter_slice", calls,
         lambda: found(RowFilter(kind=RowKind.ALL, slices=(("language", "de"),))), page, 300),
        ("rows.search", calls,
         lambda: found(RowFilter(kind=RowKind.ALL, search="TOPIC 55")),
         min(50, sum(row % 97 == 55 for row in range(run.rows))), 300),
        ("threshold.counts", calls, lambda: counts(0.5), alarms, 300),
        ("threshold.rates_with_intervals", calls,
         lambda: rates_at(lab.column, 0.5, resamples=1_000)["fpr"].n, len(lab.column.harmless),
         1_000),
        ("threshold.choose_by_limit", calls,
         lambda: Rule("fpr", limit=0.05).choose(lab.column).threshold is not None, True, 1_000),
        ("threshold.optimism", few,
         lambda: optimism(lab.column, Rule("f1")).resamples, 200, 1_000),
    ]  # fmt: skip
    for name, times, ask, answer, aim_ms in operations:
        taken = []
        for _ in range(times + 1):
            began = time.perf_counter()
            said = ask()
            taken.append(time.perf_counter() - began)
            if said != answer:
                raise ShieldError(f"workbench: {name} answered {said!r}, expected {answer!r}")
        detail = {"rows": run.rows, "aim_ms": aim_ms}
        first = percentile_estimate(taken[:1], 0.5).scaled(1_000)
        yield Measurement(f"workbench.{name}.first", first, "ms", "workbench", detail=detail)
        for label, share in (("p50", 0.5), ("p95", 0.95)):
            estimate = percentile_estimate(taken[1:], share).scaled(1_000)
            yield Measurement(
                f"workbench.{name}.{label}", estimate, "ms", "workbench", detail=detail
            )
    yield from _four_users(store, run, scores, lab.column, calls)


def _four_users(
    store: Store, run: RunInfo, scores: Scores, column: ScoreColumn, calls: int
) -> Iterator[Measurement]:
    """Have several users ask at once, each for other rows and thresholds; check every answer."""
    taken: list[list[float]] = [[] for _ in range(_USERS)]
    wrong: list[str] = []
    expected = {cut: column.at(cut) for cut in (0.2, 0.4, 0.6, 0.8)}

    def user(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(calls):
            cut = (0.2, 0.4, 0.6, 0.8)[int(rng.integers(4))]
            offset = int(rng.integers(run.rows))
            began = time.perf_counter()
            (row,) = stored_rows(store, run.dataset_id, [offset], run.run_id)
            judge = RowJudge(run.run_id, Mode.ML, cut)
            said = count_rows(store, verdicts_of(store, judge, scores), RowFilter())
            taken[number].append(time.perf_counter() - began)
            right = (int(expected[cut].fp[0]), int(expected[cut].fn[0]))
            if row.row_index != offset or row.row_id != str(offset):
                wrong.append(f"user {number} asked for row {offset}, got {row.row_index}")
            if (said.false_positives, said.false_negatives) != right:
                wrong.append(f"user {number} at {cut}: {said}, expected {right}")

    users = [threading.Thread(target=user, args=(number,)) for number in range(_USERS)]
    for one in users:
        one.start()
    for one in users:
        one.join()
    answers = [seconds for one in taken for seconds in one]
    if wrong or len(answers) != _USERS * calls:
        raise ShieldError(f"workbench: {len(answers)} answers, {'; '.join(wrong[:3])}")
    detail = {"rows": run.rows, "users": _USERS, "aim_ms": 600, "asks": "a page and the counts"}
    for label, share in (("p50", 0.5), ("p95", 0.95)):
        estimate = percentile_estimate(answers, share).scaled(1_000)
        yield Measurement(
            f"workbench.four_users.{label}", estimate, "ms", "workbench", detail=detail
        )

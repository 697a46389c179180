"""How fast the workbench answers over a large run: opening, paging, filtering, a threshold's move.

The run is synthetic (invented texts, drawn scores), so that any size can be measured anywhere and
every answer is known. Each timed answer is checked; four users ask at once at the end.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.benchmark.document import Measure
from shield_engine.benchmark.run import collected
from shield_engine.benchmark.timing import percentile_estimate
from shield_engine.decide.candidates import Candidate, align
from shield_engine.decide.column import ScoreColumn, lab_of, rates_at
from shield_engine.decide.compare import compare
from shield_engine.decide.figures import evaluate_run
from shield_engine.decide.splits import optimism
from shield_engine.decide.thresholds import ThresholdRule
from shield_engine.decide.views import RowJudge, mode_view, verdicts_of
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
    return collected(_sessions(rows, calls, on_progress), quick=rows < 1_000_000)


def _sessions(
    rows: int, calls: int, on_progress: Callable[[str, float], None] | None
) -> Iterator[Measure]:
    """Make the run in one session of a store, and measure in the next."""
    with tempfile.TemporaryDirectory(prefix="shield-workbench-") as folder:
        path = Path(folder) / "shield.duckdb"
        with Store.open(path) as store:
            run = synthetic_run(store, rows)
        with Store.open(path) as store:
            for position, measurement in enumerate(_measured(store, run, calls)):
                yield measurement
                if on_progress is not None:
                    on_progress(measurement.name, min(0.99, (position + 1) / 41))


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
        "synthetic",
        Task.PROMPT_INJECTION,
        table,
        content_hash=f"{rows}-{seed}",
        source="none",
        details={"mapping": {"slices": ["language"]}},
    )
    run = store.runs.add(
        dataset,
        parts=["heuristic", "ml"],
        rows=rows,
        model_id="synthetic",
        variant="INT8",
        model_sha256="0" * 64,
        settings={},
        stamp={"rules_version": "synthetic"},
    )
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


@dataclass(frozen=True, slots=True)
class _Operation:
    """A question of a page: how it is asked, the answer it must give, and how fast it should be."""

    name: str
    ask: Callable[[], object]
    answer: object
    aim_ms: float
    is_slow: bool = False


def _measured(store: Store, run: RunInfo, calls: int) -> Iterator[Measure]:
    """Time each operation, checking its answer."""
    scores = store.runs.scores(run.run_id)
    view = mode_view(scores, Mode.ML, 0.5)
    column = lab_of(view, store.runs.units(run.run_id), None).column
    if view.risk is None:
        raise ShieldError("workbench: the synthetic run has no risk of two classes")
    flagged = view.risk >= 0.5
    alarms = int((flagged & (view.labels == 0)).sum())
    misses = int((~flagged & (view.labels == 1)).sum())
    operations = [
        *_openings(store, run),
        *_row_questions(store, run, scores, alarms, misses),
        *_threshold_questions(column, alarms),
    ]
    for operation in operations:
        yield from _timed(operation, max(3, calls // 4) if operation.is_slow else calls, run.rows)
    yield from _four_users(store, run, scores, column, calls)


def _openings(store: Store, run: RunInfo) -> Iterator[_Operation]:
    def threshold_lab() -> int:
        view = mode_view(store.runs.scores(run.run_id), Mode.ML, 0.5)
        return lab_of(view, store.runs.units(run.run_id), None).column.n

    def figures() -> int:
        return evaluate_run(store, run.run_id, modes=[Mode.ML])[Mode.ML].n

    def all_modes() -> int:
        candidates = [Candidate(run.run_id, mode, 0.5, title=mode.value) for mode in Mode]
        return compare(align(store, candidates)).n

    rows = run.rows
    yield _Operation("open.run", lambda: store.runs.find(run.run_id).rows_done, rows, 2_000)
    yield _Operation("open.threshold_lab", threshold_lab, rows, 2_000, is_slow=True)
    yield _Operation("open.figures_of_a_mode", figures, rows, 2_000, is_slow=True)
    yield _Operation("open.compare_four_modes", all_modes, rows, 2_000, is_slow=True)


def _row_questions(
    store: Store, run: RunInfo, scores: Scores, alarms: int, misses: int
) -> Iterator[_Operation]:
    judge = RowJudge(run.run_id, Mode.ML, 0.5)
    middle, page = run.rows // 2, min(50, run.rows)
    middle_page = range(middle, min(middle + page, run.rows))
    in_german = RowFilter(kind=RowKind.ALL, slices=(("language", "de"),))
    on_topic = RowFilter(kind=RowKind.ALL, search="TOPIC 55")
    of_topic = min(50, sum(row % 97 == 55 for row in range(run.rows)))

    def first_of_page() -> int:
        return stored_rows(store, run.dataset_id, middle_page, run.run_id)[0].row_index

    def false_alarms() -> int:
        return count_rows(store, verdicts_of(store, judge, scores), RowFilter()).false_positives

    def listed(rows: RowFilter) -> int:
        return len(judged_rows(store, verdicts_of(store, judge, scores), rows, offset=0))

    yield _Operation("rows.page", first_of_page, middle, 300)
    yield _Operation("rows.count_by_kind", false_alarms, alarms, 300)
    worst = min(page, alarms + misses)
    yield _Operation("rows.errors_by_regret", lambda: min(page, listed(RowFilter())), worst, 300)
    yield _Operation("rows.filter_slice", lambda: listed(in_german), page, 300)
    yield _Operation("rows.search", lambda: listed(on_topic), of_topic, 300)


def _threshold_questions(column: ScoreColumn, alarms: int) -> Iterator[_Operation]:
    def rates() -> int:
        return rates_at(column, 0.5, resamples=1_000)["fpr"].n

    def is_chosen() -> bool:
        return ThresholdRule("fpr", limit=0.05).choose(column).threshold is not None

    def resamples() -> int:
        return optimism(column, ThresholdRule("f1")).resamples

    harmless = len(column.harmless)
    yield _Operation("threshold.counts", lambda: int(column.at(0.5).fp[0]), alarms, 300)
    yield _Operation("threshold.rates_with_intervals", rates, harmless, 1_000)
    yield _Operation("threshold.choose_by_limit", is_chosen, True, 1_000)
    yield _Operation("threshold.optimism", resamples, 200, 1_000, is_slow=True)


def _timed(operation: _Operation, times: int, rows: int) -> Iterator[Measure]:
    """Ask once and then `times` more; every answer must be right."""
    seconds = []
    for _ in range(times + 1):
        began = time.perf_counter()
        answer = operation.ask()
        seconds.append(time.perf_counter() - began)
        if answer != operation.answer:
            raise ShieldError(
                f"workbench: {operation.name} answered {answer!r}, expected {operation.answer!r}"
            )
    detail = {"rows": rows, "aim_ms": operation.aim_ms}
    yield _percentile(f"{operation.name}.first", seconds[:1], 0.5, detail)
    yield from _percentiles(operation.name, seconds[1:], detail)


def _percentiles(
    name: str, seconds: Sequence[float], detail: Mapping[str, Any]
) -> Iterator[Measure]:
    yield _percentile(f"{name}.p50", seconds, 0.5, detail)
    yield _percentile(f"{name}.p95", seconds, 0.95, detail)


def _percentile(
    name: str, seconds: Sequence[float], share: float, detail: Mapping[str, Any]
) -> Measure:
    estimate = percentile_estimate(seconds, share).scaled(1_000)
    return Measure(f"workbench.{name}", estimate, "ms", "workbench", detail=detail)


def _four_users(
    store: Store, run: RunInfo, scores: Scores, column: ScoreColumn, calls: int
) -> Iterator[Measure]:
    """Have several users ask at once, each for other rows and thresholds; check every answer."""
    seconds: list[list[float]] = [[] for _ in range(_USERS)]
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
            counts = count_rows(store, verdicts_of(store, judge, scores), RowFilter())
            seconds[number].append(time.perf_counter() - began)
            right = (int(expected[cut].fp[0]), int(expected[cut].fn[0]))
            if row.row_index != offset or row.row_id != str(offset):
                wrong.append(f"user {number} asked for row {offset}, got {row.row_index}")
            if (counts.false_positives, counts.false_negatives) != right:
                wrong.append(f"user {number} at {cut}: {counts}, expected {right}")

    users = [threading.Thread(target=user, args=(number,)) for number in range(_USERS)]
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
    answers = [second for own in seconds for second in own]
    if wrong or len(answers) != _USERS * calls:
        raise ShieldError(f"workbench: {len(answers)} answers, {'; '.join(wrong[:3])}")
    detail = {"rows": run.rows, "users": _USERS, "aim_ms": 600, "asks": "a page and the counts"}
    yield from _percentiles("four_users", answers, detail)

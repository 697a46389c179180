"""Candidates over stored runs: which fit, which rows they share, and what is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from shield_engine.config import Bands
from shield_engine.decide.candidates import Candidate, align, of_policy, overlap, subset
from shield_engine.decide.compare import compare
from shield_engine.errors import ConfigError, UnknownNameError
from shield_engine.policy import Policy
from shield_engine.store import RunInfo, Store
from shield_engine.types import Mode, Task, Variant

Row = tuple[str, int | None]

ROWS: list[Row] = [("a", 0), ("b", 1), ("c", 1), ("b", 1)]


def digest(text: str) -> str:
    """Return the SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def stored_run(
    store: Store,
    rows: Sequence[Row],
    scores: Sequence[float | None],
    *,
    parts: Sequence[str] = ("heuristic", "ml"),
    task: Task = Task.TOXICITY,
    groups: Sequence[str | None] | None = None,
    windows: Sequence[int] | None = None,
    done: int | None = None,
    limit: int | None = None,
) -> RunInfo:
    """Store rows and a run whose parts both gave `scores`; `None` is a failed model."""
    n = len(rows)
    table = pa.table(
        {
            "row_index": pa.array(range(n), pa.int64()),
            "row_id": pa.array([f"r{number}" for number in range(n)], pa.string()),
            "text": pa.array([text for text, _ in rows], pa.string()),
            "label": pa.array([label for _, label in rows], pa.int8()),
            "group": pa.array(groups or [None] * n, pa.string()),
            "slices": pa.array([None] * n, pa.string()),
            "text_sha256": pa.array([digest(text) for text, _ in rows], pa.string()),
            "chars": pa.array([len(text) for text, _ in rows], pa.int32()),
        }
    )
    dataset = store.datasets.add(
        "set", task, table, content_hash=digest(repr((rows, groups))), source="set.csv"
    )
    run = store.runs.add(
        dataset, parts=parts, rows=limit or n, model_id="mini" if "ml" in parts else None,
        variant="INT8" if "ml" in parts else None,
        model_sha256="a" * 64 if "ml" in parts else None, settings={}, stamp={},
    )  # fmt: skip
    seen = done or limit or n
    pairs = [None if score is None else [1 - score, score] for score in scores][:seen]
    empty = [None] * seen
    results = pa.table(
        {
            "run_id": pa.array([run.run_id] * seen, pa.string()),
            "row_index": pa.array(range(seen), pa.int64()),
            "heuristic": pa.array(
                [pair or [0.5, 0.5] for pair in pairs] if "heuristic" in parts else empty,
                pa.list_(pa.float64()),
            ),
            "model": pa.array(pairs if "ml" in parts else empty, pa.list_(pa.float64())),
            "rules": pa.array(empty, pa.list_(pa.string())),
            "spans": pa.array(empty, pa.string()),
            "window_start": pa.array(empty, pa.int64()),
            "window_end": pa.array(empty, pa.int64()),
            "windows": pa.array(windows or empty, pa.int32()),
            "tokens": pa.array(empty, pa.int32()),
            "normalise_ms": pa.array([0.5] * seen, pa.float64()),
            "rules_ms": pa.array([0.5] * seen, pa.float64()),
            "tokenize_ms": pa.array([1.0] * seen, pa.float64()),
            "infer_ms": pa.array([2.0] * seen, pa.float64()),
            "is_hit": pa.array([False] * seen, pa.bool_()),
            "hit_ms": pa.array(empty, pa.float64()),
            "error": pa.array(
                ["failed" if score is None else None for score in scores][:seen], pa.string()
            ),
        }
    )
    store.runs.append(run.run_id, results, 1.0)
    return store.runs.find(run.run_id)


def test_modes_of_one_run_share_all_rows() -> None:
    """Nothing is left out, and each candidate has its own verdicts and times."""
    store = Store.in_memory()
    run = stored_run(store, ROWS, [0.1, 0.6, 0.2, 0.9])
    found = align(
        store,
        [Candidate(run.run_id, Mode.HEURISTIC, 0.5), Candidate(run.run_id, Mode.ML, 0.15)],
    )
    assert found.left_out == {run.run_id: 0}
    assert [view.predicted.tolist() for view in found.views] == [[0, 1, 0, 1], [0, 1, 1, 1]]
    assert found.views[0].latency_ms.tolist() == [1.0] * 4
    assert found.views[1].latency_ms.tolist() == [3.0] * 4
    assert found.groups is None
    assert found.row_index.tolist() == [0, 1, 2, 3]


def test_rows_count_where_all_have_a_score_and_the_row_a_label() -> None:
    """A failed model and a missing label each take a row out for every candidate."""
    store = Store.in_memory()
    run = stored_run(store, [("a", 0), ("b", None), ("c", 1)], [None, 0.5, 0.9])
    found = align(store, [Candidate(run.run_id, mode, 0.5) for mode in Mode])
    assert found.counts.tolist() == [False, False, True]


def test_runs_over_one_version_pair_row_by_row_even_with_equal_texts() -> None:
    """Two runs of the same rows keep their order; nothing is matched by text."""
    store = Store.in_memory()
    first = stored_run(store, ROWS, [0.1, 0.2, 0.3, 0.4])
    second = stored_run(store, ROWS, [0.5, 0.6, 0.7, 0.8])
    assert first.dataset_id == second.dataset_id
    assert overlap(store, [first.run_id, second.run_id]).is_same
    found = align(
        store,
        [Candidate(first.run_id, Mode.ML, 0.5), Candidate(second.run_id, Mode.ML, 0.5)],
    )
    assert found.views[1].scores.row_index.tolist() == [0, 1, 2, 3]
    risk = found.views[1].risk
    assert risk is not None
    assert risk.tolist() == pytest.approx([0.5, 0.6, 0.7, 0.8])


def test_differing_rows_are_refused_with_the_numbers_or_met_on_request() -> None:
    """Common rows are those with text and label alike; of twins as many as both have."""
    store = Store.in_memory()
    first = stored_run(store, ROWS, [0.1, 0.2, 0.3, 0.4], groups=["g", None, "h", "g"])
    others: list[Row] = [("b", 1), ("c", 0), ("a", 0), ("new", 1)]
    second = stored_run(store, others, [0.9, 0.8, 0.7, 0.6])
    candidates = [Candidate(first.run_id, Mode.ML, 0.5), Candidate(second.run_id, Mode.ML, 0.5)]
    met = overlap(store, [first.run_id, second.run_id])
    assert (met.common, met.only, met.is_same) == (
        2, {first.run_id: 2, second.run_id: 2}, False,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=f"2 are common, run {first.run_id} has 2 more"):
        align(store, candidates)
    found = align(store, candidates, intersect=True)
    assert found.left_out == {first.run_id: 2, second.run_id: 2}
    assert found.row_index.tolist() == [0, 1]  # a, and the first b
    assert found.views[1].scores.row_index.tolist() == [2, 0]
    assert found.groups is not None
    assert found.groups.tolist() == [0, 1]  # group g, and a row of its own
    assert compare(found).n == 2


def test_an_unfinished_run_has_fewer_rows() -> None:
    """A run that was cut off is compared on what it has, if asked."""
    store = Store.in_memory()
    whole = stored_run(store, ROWS, [0.1, 0.2, 0.3, 0.4])
    part = stored_run(store, ROWS, [0.5, 0.6, 0.7, 0.8], done=2)
    met = overlap(store, [whole.run_id, part.run_id])
    assert (met.common, met.only) == (2, {whole.run_id: 2, part.run_id: 0})
    found = align(
        store,
        [Candidate(part.run_id, Mode.ML, 0.5), Candidate(whole.run_id, Mode.ML, 0.5)],
        intersect=True,
    )
    assert found.row_index.tolist() == [0, 1]


def test_a_run_of_the_first_rows_is_not_the_same_as_a_whole_one() -> None:
    """A finished try of two rows shares two rows with the finished run of all."""
    store = Store.in_memory()
    whole = stored_run(store, ROWS, [0.1, 0.2, 0.3, 0.4])
    some = stored_run(store, ROWS, [0.1, 0.2, 0.3, 0.4], limit=2)
    met = overlap(store, [whole.run_id, some.run_id])
    assert (met.common, met.only) == (2, {whole.run_id: 2, some.run_id: 0})


def test_what_cannot_be_compared_is_said() -> None:
    """No candidate, another task, a part that was not scored, no common row, an unknown run."""
    store = Store.in_memory()
    run = stored_run(store, ROWS, [0.1, 0.2, 0.3, 0.4])
    rules = stored_run(store, ROWS, [0.1, 0.2, 0.3, 0.4], parts=("heuristic",))
    other_task = stored_run(store, ROWS, [0.1] * 4, task=Task.PROMPT_INJECTION)
    apart = stored_run(store, [("z", 0)], [0.1])
    own = Candidate(run.run_id, Mode.ML, 0.5)
    with pytest.raises(ConfigError, match="choose at least one candidate"):
        align(store, [])
    with pytest.raises(ConfigError, match="different tasks cannot be compared"):
        align(store, [own, Candidate(other_task.run_id, Mode.ML, 0.5)])
    with pytest.raises(ConfigError, match="scored only heuristic; it cannot answer for hybrid"):
        align(store, [own, Candidate(rules.run_id, Mode.HYBRID, 0.5)])
    with pytest.raises(ConfigError, match="no row in common"):
        align(store, [own, Candidate(apart.run_id, Mode.ML, 0.5)], intersect=True)
    with pytest.raises(UnknownNameError):
        align(store, [Candidate("gone", Mode.ML, 0.5)])


def test_policies_become_candidates_with_their_threshold_and_bands() -> None:
    """A policy of the run's model keeps what it decides."""
    store = Store.in_memory()
    run = stored_run(store, ROWS, [0.1, 0.2, 0.3, 0.4])
    policy = Policy(
        "strict", Task.TOXICITY, Mode.HYBRID, 0.2, Bands(0.8, 0.1), "mini", Variant.INT8, "a" * 64,
        version=3,
    )  # fmt: skip
    assert of_policy(policy, run) == Candidate(
        run.run_id, Mode.HYBRID, 0.2, Bands(0.8, 0.1), "strict v3"
    )


@pytest.mark.parametrize(
    ("policy", "parts", "reason"),
    [
        (Policy("p", Task.SENTIMENT, Mode.HEURISTIC, None), ("heuristic", "ml"), "is of task"),
        (
            Policy("p", Task.TOXICITY, Mode.ML, 0.5, Bands(), "mini", Variant.INT8),
            ("heuristic",),
            "scored only heuristic, the policy needs ml",
        ),
        (
            Policy("p", Task.TOXICITY, Mode.ML, 0.5, Bands(), "mini", Variant.FP32, "b" * 64),
            ("heuristic", "ml"),
            "was scored by model mini INT8",
        ),
    ],
    ids=["another task", "a part missing", "another model"],
)
def test_policies_that_do_not_fit_say_why(
    policy: Policy, parts: tuple[str, ...], reason: str
) -> None:
    """A threshold is void for scores that it was not chosen on."""
    store = Store.in_memory()
    run = stored_run(store, ROWS, [0.1, 0.2, 0.3, 0.4], parts=parts)
    with pytest.raises(ConfigError, match=reason):
        of_policy(policy, run)


def test_subset_takes_every_column_along() -> None:
    """A mask and positions give the same rows; parts' times go with them."""
    store = Store.in_memory()
    scores = store.runs.scores(stored_run(store, ROWS, [0.1, 0.2, 0.3, 0.4]).run_id)
    masked = subset(scores, np.array([False, True, False, True]))
    picked = subset(scores, np.array([3, 1]))
    assert masked.row_index.tolist() == [1, 3]
    assert picked.row_index.tolist() == [3, 1]
    assert picked.model is not None
    assert picked.model[:, 1].tolist() == [0.4, 0.2]
    assert len(picked.parts_ms["infer_ms"]) == len(picked.chars) == 2


def test_rows_beyond_the_window_are_those_of_several_windows() -> None:
    """Rows that the model read in one piece, and runs without a model, are not among them."""
    store = Store.in_memory()
    run = stored_run(store, ROWS, [0.1, 0.2, 0.3, 0.4], windows=[1, 3, 1, 2])
    assert store.runs.beyond_window(run.run_id).tolist() == [1, 3]
    rules = stored_run(store, ROWS, [0.1, 0.2, 0.3, 0.4], parts=("heuristic",))
    assert store.runs.beyond_window(rules.run_id).tolist() == []

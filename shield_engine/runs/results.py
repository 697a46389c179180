"""A run's rows as the store keeps them: raw scores into columns, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from shield_engine.heuristics import HeuristicScore
from shield_engine.ml import MLScore
from shield_engine.parts import RawScores
from shield_engine.store import StoredRow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RESULT_COLUMNS", "ScoredRow", "result_table", "stored_model", "stored_scores"]

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One row of a batch.

    Attributes:
        run_id: The run it belongs to.
        row_index: The dataset's row.
        raw: What the parts gave.
        hit_ms: Time of the cache's answer; `None` where the row was scored.
        is_reused: Whether the model's score is an earlier run's.
    """

    run_id: str
    row_index: int
    raw: RawScores
    hit_ms: float | None
    is_reused: bool

    @property
    def is_hit(self) -> bool:
        """Whether the cache answered: then no part took any time."""
        return self.hit_ms is not None

    @property
    def heuristic_run(self) -> HeuristicScore | None:
        """The heuristic score that took time on this row."""
        return None if self.is_hit else self.raw.heuristic

    @property
    def model_run(self) -> MLScore | None:
        """The model's score that took time on this row."""
        return None if self.is_hit or self.is_reused else self.raw.model


def _of(part: _Part | None, value: Callable[[_Part], Any]) -> Any:
    return None if part is None else value(part)


RESULT_COLUMNS: tuple[tuple[str, str, Callable[[ScoredRow], Any]], ...] = (
    ("run_id", "string", lambda row: row.run_id),
    ("row_index", "int64", lambda row: row.row_index),
    ("heuristic", "double[]", lambda row: _of(row.raw.heuristic, lambda h: h.probabilities)),
    ("model", "double[]", lambda row: _of(row.raw.model, lambda m: m.probabilities)),
    ("linear", "double", lambda row: row.raw.linear),
    ("rules", "string[]", lambda row: _of(row.raw.heuristic, _rule_ids)),
    ("spans", "string", lambda row: _of(row.raw.heuristic, _spans)),
    ("window_start", "int64", lambda row: _of(row.raw.model, lambda m: m.window[0])),
    ("window_end", "int64", lambda row: _of(row.raw.model, lambda m: m.window[1])),
    ("windows", "int32", lambda row: _of(row.raw.model, lambda m: m.windows)),
    ("tokens", "int32", lambda row: _of(row.raw.model, lambda m: m.tokens)),
    ("normalise_ms", "double", lambda row: _of(row.heuristic_run, lambda h: h.normalise_ms)),
    ("rules_ms", "double", lambda row: _of(row.heuristic_run, lambda h: h.rules_ms)),
    ("linear_ms", "double", lambda row: None if row.is_hit else row.raw.linear_ms),
    ("tokenize_ms", "double", lambda row: _of(row.model_run, lambda m: m.tokenize_ms)),
    ("infer_ms", "double", lambda row: _of(row.model_run, lambda m: m.infer_ms)),
    ("is_hit", "bool", lambda row: row.is_hit),
    ("hit_ms", "double", lambda row: row.hit_ms),
    ("error", "string", lambda row: _of(row.raw.error, str)),
)
"""What a run stores of a row: column, Arrow type (`[]` for a list of it), and its value."""


def result_table(rows: Sequence[ScoredRow]) -> pa.Table:
    """Return scored rows as the store takes them."""
    import pyarrow as pa

    def arrow_type(name: str) -> Any:
        item = pa.type_for_alias(name.removesuffix("[]"))
        return pa.list_(item) if name.endswith("[]") else item

    return pa.table(
        {
            column: pa.array([value(row) for row in rows], arrow_type(kind))
            for column, kind, value in RESULT_COLUMNS
        }
    )


def stored_scores(row: StoredRow) -> RawScores:
    """Return a stored row's scores; they took no time now."""
    heuristic = None
    if row.heuristic is not None:
        probabilities = tuple(row.heuristic)
        heuristic = HeuristicScore(_risk(probabilities), probabilities, row.hits, 0.0, 0.0)
    return RawScores(heuristic, stored_model(row), row.linear)


def stored_model(row: StoredRow) -> MLScore | None:
    """Return a stored row's score of the model, if it has one; it took no time now."""
    start, end, windows, tokens = row.window_start, row.window_end, row.windows, row.tokens
    if row.model is None or start is None or end is None or windows is None or tokens is None:
        return None
    probabilities = tuple(row.model)
    return MLScore(_risk(probabilities), probabilities, (start, end), windows, tokens, 0.0, 0.0)


def _risk(probabilities: Sequence[float]) -> float:
    return probabilities[1] if len(probabilities) == 2 else probabilities[0]


def _rule_ids(heuristic: HeuristicScore) -> list[str]:
    return sorted({hit.rule_id for hit in heuristic.hits})


def _spans(heuristic: HeuristicScore) -> str:
    return json.dumps([asdict(hit) for hit in heuristic.hits])

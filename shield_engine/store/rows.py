"""Rows to show: as they are stored, and as one way of deciding judges them, filtered and paged.

Hides the SQL of the filters. Verdicts come from outside as an Arrow table, as there is one decision
rule; SQL reads it where it lies, so counts of a million rows cost one scan.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.config import DEFAULT_THRESHOLD
from shield_engine.errors import ConfigError
from shield_engine.store.datasets import slice_pointer
from shield_engine.store.notes import LATEST_ANNOTATIONS
from shield_engine.store.runs import RunInfo
from shield_engine.store.store import Store
from shield_engine.types import RuleHit, Task

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = [
    "Classes",
    "Disagreement",
    "ErrorCounts",
    "JudgedRow",
    "RowChoices",
    "RowFilter",
    "RowKind",
    "StoredRow",
    "Verdicts",
    "count_rows",
    "dataset_page",
    "judged_rows",
    "matching_rows",
    "row_choices",
    "same_text",
    "stored_rows",
]

MOST_CHOICES = 200
"""Values of a slice and rules that are offered, the most frequent first."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A dataset's row, and what a run stored of it; all that follows `text_sha256` is the run's.

    Attributes:
        text: `None` once the texts are purged.
        label: Class index; `None` without one.
        slices: JSON of slice column → value.
        heuristic: Probabilities of the rules, by label.
        model: Probabilities of the model, by label.
        linear: Score of hybrid's linear tier.
        rules: Ids of the rules that matched.
        spans: JSON of where they matched; `None` once the texts are purged.
        window_start: First character of the window that decided.
        window_end: The character after it.
        windows: How many windows the model read.
        tokens: How many tokens it read.
    """

    row_index: int
    row_id: str
    text: str | None
    label: int | None
    group_id: str | None
    slices: str | None
    chars: int
    text_sha256: str
    heuristic: Sequence[float] | None = None
    model: Sequence[float] | None = None
    linear: float | None = None
    rules: Sequence[str] | None = None
    spans: str | None = None
    window_start: int | None = None
    window_end: int | None = None
    windows: int | None = None
    tokens: int | None = None
    normalise_ms: float | None = None
    rules_ms: float | None = None
    linear_ms: float | None = None
    tokenize_ms: float | None = None
    infer_ms: float | None = None
    is_hit: bool | None = None
    hit_ms: float | None = None
    error: str | None = None

    @property
    def hits(self) -> tuple[RuleHit, ...]:
        """What rules matched, and where."""
        return _hits(self.spans)


_ROW_COLUMNS = tuple(item.name for item in fields(StoredRow) if item.default is MISSING)
_RESULT_COLUMNS = tuple(item.name for item in fields(StoredRow) if item.default is not MISSING)


class RowKind(StrEnum):
    """Which rows of a run are asked for."""

    ERRORS = "errors"
    FALSE_POSITIVES = "false_positives"
    FALSE_NEGATIVES = "false_negatives"
    NEAR = "near"
    CORRECT = "correct"
    FAILED = "failed"
    ALL = "all"


class Disagreement(StrEnum):
    """How rules and model part on a row."""

    ANY = "any"
    RULES_ONLY = "rules_only"
    MODEL_ONLY = "model_only"


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes that a judgement tells apart.

    Attributes:
        task: Whose labels.
        names: In the order of verdicts; of two the second is the risky one.
        label_indexes: Index into `LABELS[task]` of each.
    """

    task: Task
    names: tuple[str, ...]
    label_indexes: tuple[int, ...]

    @property
    def is_binary(self) -> bool:
        """True if a threshold decides; else the most probable of three labels does."""
        return len(self.names) == 2


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows to show; conditions combine.

    Attributes:
        kind: Which rows.
        near: Widest distance to the threshold that is near (three classes: to the runner-up).
        slices: (column, value) of slices; all must hold.
        chars: (least, most) characters, `None` for no bound.
        is_beyond_window: True for rows longer than the model's window, False for the others.
        rule: Rows that this rule matched.
        category: Rows that a rule of this category matched.
        disagreement: Rows on which rules and model part.
        part_thresholds: Thresholds of rules and model by which they part.
        search: Rows whose text contains this, letter by letter but for case.
        label: Rows of this class, an index into `Classes.names`.
        tag: Rows that bear this tag.
        is_annotated: True for rows with note, corrected label or tag, False for the others.
    """

    kind: RowKind = RowKind.ERRORS
    near: float = 0.05
    slices: tuple[tuple[str, str], ...] = ()
    chars: tuple[int | None, int | None] = (None, None)
    is_beyond_window: bool | None = None
    rule: str | None = None
    category: str | None = None
    disagreement: Disagreement | None = None
    part_thresholds: tuple[float, float] = (DEFAULT_THRESHOLD, DEFAULT_THRESHOLD)
    search: str = ""
    label: int | None = None
    tag: str | None = None
    is_annotated: bool | None = None


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Rows by kind.

    Attributes:
        rows: All that pass the filter, whatever their kind.
        labelled: Those with a label.
        failed: Those without a score.
        correct: Labelled and scored rows whose verdict is their label.
        errors: Labelled and scored rows whose verdict is not their label.
        false_positives: Harmless rows that were flagged; 0 for three classes.
        false_negatives: Risky rows that were passed; 0 for three classes.
        near: Rows near the threshold.
    """

    rows: int
    labelled: int
    failed: int
    correct: int
    errors: int
    false_positives: int
    false_negatives: int
    near: int

    def of(self, kind: RowKind) -> int:
        """Return how many rows are of a kind."""
        return self.rows if kind is RowKind.ALL else int(getattr(self, kind.value))


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """One row's verdict.

    Attributes:
        row_index: Which row of the dataset.
        truth: Index of its label into `Classes.names`; `None` without one.
        verdict: Index of what was said; `None` without a score.
        risk: Of two classes the risk, of three the probability of the verdict, 0..1.
        regret: How far the score is on the wrong side of the threshold, negative if it is on the
            right one; of three classes P(verdict) - P(label). `None` without label or score.
        distance: To the threshold; of three classes from the verdict to the runner-up.
    """

    row_index: int
    truth: int | None
    verdict: int | None
    risk: float | None
    regret: float | None
    distance: float | None

    @property
    def is_error(self) -> bool:
        """True if label and verdict are there and differ."""
        return None not in {self.truth, self.verdict} and self.truth != self.verdict


_JUDGED = tuple(item.name for item in fields(JudgedRow))


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The rows of a run as one way of deciding sees them; see `decide.views.verdicts_of`.

    Attributes:
        run: Whose rows.
        classes: What `truth` and `verdict` index.
        table: In row order, the columns of `JudgedRow`; of a run with both parts `rules` and
            `model` too: each part's risk, of three classes its verdict.
    """

    run: RunInfo
    classes: Classes
    table: pa.Table

    def row(self, row_index: int) -> JudgedRow | None:
        """Return the verdict on one row; `None` if the run has not scored it."""
        place = int(np.searchsorted(self.table["row_index"].to_numpy(), row_index))
        at_place = self.table.select(_JUDGED).slice(place, 1).to_pylist()
        rows = [JudgedRow(**row) for row in at_place if row["row_index"] == row_index]
        return rows[0] if rows else None


@dataclass(frozen=True, slots=True)
class RowChoices:
    """What the rows of a run can be filtered by.

    Attributes:
        slices: Slice column → its values with their rows, the most frequent first, at most 200.
        rules: Rule → rows it matched, the most frequent first, at most 200.
        categories: Rule → its category, for the same rules.
        has_long: True if some text is longer than the model's window.
    """

    slices: Mapping[str, Mapping[str, int]]
    rules: Mapping[str, int]
    categories: Mapping[str, str]
    has_long: bool


def count_rows(store: Store, verdicts: Verdicts, rows: RowFilter) -> ErrorCounts:
    """Return how many rows of each kind pass a filter; the filter's own kind is left aside."""
    counts = ", ".join(f"count(*) FILTER ({_kind(kind, verdicts, rows)})" for kind in _COUNTED)
    query, values = _passing(f"count(*), count(truth), {counts}", verdicts, rows)
    ((total, labelled, *of_kinds),) = store.fetch(query, values, {"verdicts": verdicts.table})
    return ErrorCounts(int(total), int(labelled), *(int(count) for count in of_kinds))


def judged_rows(
    store: Store, verdicts: Verdicts, rows: RowFilter, *, offset: int = 0, limit: int = 50
) -> list[JudgedRow]:
    """Return one page of the rows of a filter's kind, the most regretted first.

    Rows near the threshold come nearest first, failed rows in their own order; rows without regret
    come last.
    """
    query, values = _listed(", ".join(_JUDGED), verdicts, rows, offset, limit)
    return [JudgedRow(*row) for row in store.fetch(query, values, {"verdicts": verdicts.table})]


def matching_rows(
    store: Store, verdicts: Verdicts, rows: RowFilter, *, limit: int | None = None
) -> NDArray[np.int64]:
    """Return the indexes of the rows of a filter's kind, in the order of `judged_rows`."""
    query, values = _listed("row_index", verdicts, rows, 0, limit)
    table = store.arrow(query, values, {"verdicts": verdicts.table})
    indexes: NDArray[np.int64] = table["row_index"].to_numpy().astype(np.int64)
    return indexes


def stored_rows(
    store: Store, dataset_id: str, indexes: Sequence[int], run_id: str | None = None
) -> list[StoredRow]:
    """Return some rows, with a run's results where `run_id` is given, in the order of `indexes`.

    Rows that the dataset lacks are left out.
    """
    rows = _stored(
        store,
        dataset_id,
        run_id,
        "d.row_index IN (SELECT unnest(?::BIGINT[]))",
        [[int(index) for index in indexes]],
    )
    by_index = {row.row_index: row for row in rows}
    return [by_index[int(index)] for index in indexes if int(index) in by_index]


def dataset_page(
    store: Store, dataset_id: str, *, search: str = "", offset: int = 0, limit: int = 50
) -> list[StoredRow]:
    """Return one page of a dataset's rows, in row order.

    Args:
        store: Where the dataset lies.
        dataset_id: Whose rows.
        search: Only texts that contain this, without regard to case.
        offset: Rows to skip.
        limit: Rows to return at most.
    """
    if search:
        condition = "contains(lower(d.text), lower(?)) ORDER BY d.row_index LIMIT ? OFFSET ?"
        return _stored(store, dataset_id, None, condition, [search, limit, offset])
    # Row indexes have no gaps, so a page is a range, found without counting off rows:
    # 5 ms instead of 170 in the middle of a million.
    condition = "d.row_index >= ? AND d.row_index < ? ORDER BY d.row_index"
    return _stored(store, dataset_id, None, condition, [offset, offset + limit])


def _stored(
    store: Store, dataset_id: str, run_id: str | None, condition: str, values: Sequence[Any]
) -> list[StoredRow]:
    columns, source, run_values = ", ".join(f"d.{name}" for name in _ROW_COLUMNS), "", []
    if run_id is not None:
        columns += "".join(f", s.{name}" for name in _RESULT_COLUMNS)
        source = "LEFT JOIN results s ON s.run_id = ? AND s.row_index = d.row_index"
        run_values = [run_id]
    table = store.arrow(
        f"SELECT {columns} FROM dataset_rows d {source} WHERE d.dataset_id = ? AND {condition}",
        [*run_values, dataset_id, *values],
    )
    return [StoredRow(**row) for row in table.to_pylist()]


def same_text(store: Store, dataset_id: str, row_index: int, limit: int = 50) -> list[int]:
    """Return the other rows of a dataset whose text is exactly that of a row, in row order."""
    rows = store.fetch(
        """
        SELECT row_index FROM dataset_rows
        WHERE dataset_id = ? AND row_index <> ? AND text_sha256 = (
            SELECT text_sha256 FROM dataset_rows WHERE dataset_id = ? AND row_index = ?)
        ORDER BY row_index LIMIT ?
        """,
        [dataset_id, row_index, dataset_id, row_index, limit],
    )
    return [int(index) for (index,) in rows]


def row_choices(store: Store, run_id: str) -> RowChoices:
    """Return what the rows of a run can be filtered by."""
    run = store.runs.find(run_id)
    rules = store.fetch(
        "SELECT rule, count(*) AS n, any_value(spans) FROM ("
        "SELECT unnest(rules) AS rule, spans FROM results WHERE run_id = ?) "
        f"GROUP BY rule ORDER BY n DESC, rule LIMIT {MOST_CHOICES}",
        [run_id],
    )
    ((has_long,),) = store.fetch(
        "SELECT coalesce(max(windows), 0) > 1 FROM results WHERE run_id = ?", [run_id]
    )
    return RowChoices(
        slices={
            name: _slice_values(store, run.dataset_id, name)
            for name in _slice_names(store, run.dataset_id)
        },
        rules={rule: int(count) for rule, count, _ in rules},
        categories={
            hit.rule_id: hit.category
            for rule, _, spans in rules
            for hit in _hits(spans)
            if hit.rule_id == rule
        },
        has_long=bool(has_long),
    )


def _hits(spans: str | None) -> tuple[RuleHit, ...]:
    return tuple(RuleHit(**span) for span in json.loads(spans or "[]"))


def _slice_names(store: Store, dataset_id: str) -> list[str]:
    """Return the slice columns; every row of an import has the same ones."""
    rows = store.fetch(
        "SELECT json_keys(slices) FROM dataset_rows WHERE dataset_id = ? AND slices IS NOT NULL "
        "ORDER BY row_index LIMIT 1",
        [dataset_id],
    )
    return [str(name) for (names,) in rows for name in names]


def _slice_values(store: Store, dataset_id: str, name: str) -> dict[str, int]:
    rows = store.fetch(
        "SELECT coalesce(slices ->> ?, '') AS value, count(*) AS n FROM dataset_rows "
        f"WHERE dataset_id = ? GROUP BY value ORDER BY n DESC, value LIMIT {MOST_CHOICES}",
        [slice_pointer(name), dataset_id],
    )
    return {str(value): int(count) for value, count in rows}


# --- the query ------------------------------------------------------------------------------

_COUNTED = (
    RowKind.FAILED,
    RowKind.CORRECT,
    RowKind.ERRORS,
    RowKind.FALSE_POSITIVES,
    RowKind.FALSE_NEGATIVES,
    RowKind.NEAR,
)


def _kind(kind: RowKind, verdicts: Verdicts, rows: RowFilter) -> str:
    is_binary = verdicts.classes.is_binary
    return {
        RowKind.ERRORS: "verdict <> truth",
        RowKind.FALSE_POSITIVES: "verdict = 1 AND truth = 0" if is_binary else "false",
        RowKind.FALSE_NEGATIVES: "verdict = 0 AND truth = 1" if is_binary else "false",
        RowKind.NEAR: f"distance <= {float(rows.near)!r}",
        RowKind.CORRECT: "verdict = truth",
        RowKind.FAILED: "verdict IS NULL",
        RowKind.ALL: "true",
    }[kind]


def _listed(
    columns: str, verdicts: Verdicts, rows: RowFilter, offset: int, limit: int | None
) -> tuple[str, list[Any]]:
    """Return the SQL of a filter's rows of its kind in their order, and its values."""
    order = {
        RowKind.NEAR: "distance, row_index",
        RowKind.FAILED: "row_index",
    }.get(rows.kind, "regret DESC NULLS LAST, distance NULLS LAST, row_index")
    query, values = _passing(columns, verdicts, rows)
    query += f" AND {_kind(rows.kind, verdicts, rows)} ORDER BY {order}"
    return f"{query} LIMIT ? OFFSET ?", [*values, limit, offset]


def _passing(columns: str, verdicts: Verdicts, rows: RowFilter) -> tuple[str, list[Any]]:
    """Return the SQL of every row that passes a filter but for its kind, and its values."""
    run = verdicts.run
    sources = (
        ("dataset_rows WHERE dataset_id = ?", run.dataset_id, _of_the_row(rows)),
        ("results WHERE run_id = ?", run.run_id, _of_the_result(rows)),
        (f"({LATEST_ANNOTATIONS}) WHERE true", run.dataset_id, _of_the_review(rows)),
    )
    conditions: list[str] = ["true"]
    values: list[Any] = []
    if rows.label is not None:
        conditions.append("truth = ?")
        values.append(rows.label)
    if rows.disagreement is not None:
        conditions.append(_disagreement(verdicts, rows))
        values += rows.part_thresholds * verdicts.classes.is_binary
    for source, key, wanted in sources:
        if wanted:
            both = " AND ".join([source, *(condition for condition, _ in wanted)])
            conditions.append(f"row_index IN (SELECT row_index FROM {both})")
            values += [key, *(value for _, given in wanted for value in given)]
    if rows.is_annotated is False:
        conditions.append(f"row_index NOT IN (SELECT row_index FROM ({LATEST_ANNOTATIONS}))")
        values.append(run.dataset_id)
    return f"SELECT {columns} FROM verdicts WHERE {' AND '.join(conditions)}", values


def _of_the_row(rows: RowFilter) -> list[tuple[str, list[Any]]]:
    wanted: list[tuple[str, list[Any]]] = [
        ("coalesce(slices ->> ?, '') = ?", [slice_pointer(name), value])
        for name, value in rows.slices
    ]
    least, most = rows.chars
    if least is not None:
        wanted.append(("chars >= ?", [least]))
    if most is not None:
        wanted.append(("chars <= ?", [most]))
    if rows.search:
        # Case-insensitive and literal; lower() of a million texts takes twice as long.
        wanted.append(("regexp_matches(text, ?, 'il')", [rows.search]))
    return wanted


def _of_the_result(rows: RowFilter) -> list[tuple[str, list[Any]]]:
    wanted: list[tuple[str, list[Any]]] = []
    if rows.is_beyond_window is not None:
        wanted.append(("coalesce(windows > 1, false) = ?", [rows.is_beyond_window]))
    if rows.rule:
        wanted.append(("list_contains(rules, ?)", [rows.rule]))
    if rows.category:
        # The plain search spares most rows the reading of their JSON.
        in_json = "list_contains(spans ->> '$[*].category', ?)"
        values = [json.dumps(rows.category), rows.category]
        wanted.append((f"contains(spans::VARCHAR, ?) AND {in_json}", values))
    return wanted


def _of_the_review(rows: RowFilter) -> list[tuple[str, list[Any]]]:
    wanted: list[tuple[str, list[Any]]] = [("true", [])] if rows.is_annotated else []
    if rows.tag:
        wanted.append(("list_contains(tags, ?)", [rows.tag]))
    return wanted


def _disagreement(verdicts: Verdicts, rows: RowFilter) -> str:
    if "rules" not in verdicts.table.column_names:
        run = verdicts.run
        raise ConfigError(
            f"run {run.run_id} scored only {', '.join(run.parts)}; it cannot answer for both"
        )
    if not verdicts.classes.is_binary:
        if rows.disagreement is not Disagreement.ANY:
            raise ConfigError("three classes have no side that flags; ask for any disagreement")
        return "rules <> model"
    return {
        Disagreement.RULES_ONLY: "rules >= ? AND NOT model >= ?",
        Disagreement.MODEL_ONLY: "NOT rules >= ? AND model >= ?",
    }.get(rows.disagreement or Disagreement.ANY, "(rules >= ?) <> (model >= ?)")

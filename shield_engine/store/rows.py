"""The rows of a run as one way of deciding sees them: verdict, regret, filters, pages.

Verdicts are computed in SQL from stored scores, so a page of a million rows costs one scan. Hides
that SQL; it says the same as `decision.decided` and `evaluation.mode_view`, and a test holds the
two together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from shield_engine.config import DEFAULT_THRESHOLD, Bands
from shield_engine.errors import ConfigError
from shield_engine.store.notes import LATEST_ANNOTATIONS
from shield_engine.store.runs import RunInfo
from shield_engine.store.store import Store
from shield_engine.types import LABELS, Mode, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Classes",
    "Disagreement",
    "ErrorCounts",
    "JudgedRow",
    "Judgement",
    "RowChoices",
    "RowFilter",
    "RowKind",
    "RuleMatch",
    "StoredRow",
    "count_rows",
    "dataset_page",
    "judged_classes",
    "judged_row",
    "judged_rows",
    "matching_rows",
    "row_choices",
    "same_text",
    "stored_rows",
]

MOST_CHOICES = 200
"""Values of a slice and rules that are offered, the most frequent first."""

_RISKY = "negative"


class RuleMatch(TypedDict):
    """One match of a rule: characters `start` to `end`, and what it means."""

    rule_id: str
    category: str
    description: str
    score: float
    start: int
    end: int


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
    def matches(self) -> list[RuleMatch]:
        """What rules matched, and where."""
        matches: list[RuleMatch] = json.loads(self.spans or "[]")
        return matches


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
class Judgement:
    """How the rows of a run are judged.

    Attributes:
        run_id: Whose scores.
        mode: Which parts decide.
        threshold: A row is flagged if its risk is at least this; without meaning for three classes.
        bands: Hybrid bands.
        is_corrected: Judge by corrected labels where a row has one.
    """

    run_id: str
    mode: Mode
    threshold: float = DEFAULT_THRESHOLD
    bands: Bands = field(default_factory=Bands)
    is_corrected: bool = False


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


def judged_classes(store: Store, judgement: Judgement) -> Classes:
    """Return the classes that a judgement tells apart.

    A sentiment set in which two labels occur is judged as two classes, as `mode_view` does.
    """
    run = store.runs.find(judgement.run_id)
    names = LABELS[run.task]
    if run.task is not Task.SENTIMENT:
        return Classes(run.task, names, (0, 1))
    values = [*_annotation_values(run, judgement), run.dataset_id, run.run_id]
    rows = store.fetch(
        f"SELECT DISTINCT {_label(judgement)} AS truth {_source(judgement)} ORDER BY truth", values
    )
    present = [int(truth) for (truth,) in rows if truth is not None]
    if len(present) != 2:
        return Classes(run.task, names, tuple(range(len(names))))
    risky = names.index(_RISKY) if names.index(_RISKY) in present else present[0]
    other = present[1] if risky == present[0] else present[0]
    return Classes(run.task, (names[other], names[risky]), (other, risky))


def count_rows(store: Store, judgement: Judgement, rows: RowFilter) -> ErrorCounts:
    """Return how many rows of each kind pass a filter; the filter's own kind is left aside."""
    query, values = _judged(store, judgement, rows)
    counts = ", ".join(f"count(*) FILTER ({_kind(kind, rows)})" for kind in _COUNTED)
    ((total, labelled, *found),) = store.fetch(
        f"SELECT count(*), count(truth), {counts} FROM ({query})", values
    )
    return ErrorCounts(int(total), int(labelled), *(int(count) for count in found))


def judged_rows(
    store: Store, judgement: Judgement, rows: RowFilter, *, offset: int = 0, limit: int = 50
) -> list[JudgedRow]:
    """Return one page of the rows of a filter's kind, the most regretted first.

    Rows near the threshold come nearest first, failed rows in their own order; rows without regret
    come last.
    """
    query, values = _judged(store, judgement, rows)
    found = store.fetch(
        f"SELECT row_index, truth, verdict, risk, regret, distance FROM ({query}) "
        f"WHERE {_kind(rows.kind, rows)} ORDER BY {_order(rows.kind)} "
        f"LIMIT {int(limit)} OFFSET {int(offset)}",
        values,
    )
    return [JudgedRow(*row) for row in found]


def judged_row(store: Store, judgement: Judgement, row_index: int) -> JudgedRow | None:
    """Return the verdict on one row; `None` if the run has not scored it."""
    query, values = _judged(store, judgement, RowFilter(kind=RowKind.ALL), row_index)
    found = store.fetch(
        f"SELECT row_index, truth, verdict, risk, regret, distance FROM ({query})", values
    )
    return JudgedRow(*found[0]) if found else None


def matching_rows(
    store: Store, judgement: Judgement, rows: RowFilter, *, limit: int | None = None
) -> NDArray[np.int64]:
    """Return the indexes of the rows of a filter's kind, in the order of `judged_rows`."""
    query, values = _judged(store, judgement, rows)
    table = store.arrow(
        f"SELECT row_index FROM ({query}) WHERE {_kind(rows.kind, rows)} "
        f"ORDER BY {_order(rows.kind)}" + ("" if limit is None else f" LIMIT {int(limit)}"),
        values,
    )
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
            rule: category
            for rule, _, spans in rules
            for category in [_category(rule, spans)]
            if category
        },
        has_long=bool(has_long),
    )


def _category(rule: str, spans: str | None) -> str | None:
    return next(
        (span["category"] for span in json.loads(spans or "[]") if span["rule_id"] == rule), None
    )


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
        [_pointer(name), dataset_id],
    )
    return {str(value): int(count) for value, count in rows}


def _pointer(name: str) -> str:
    """Return a JSON pointer to a key, whatever its letters (RFC 6901)."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


# --- the query ------------------------------------------------------------------------------

_COUNTED = (
    RowKind.FAILED,
    RowKind.CORRECT,
    RowKind.ERRORS,
    RowKind.FALSE_POSITIVES,
    RowKind.FALSE_NEGATIVES,
    RowKind.NEAR,
)


def _kind(kind: RowKind, rows: RowFilter) -> str:
    return {
        RowKind.ERRORS: "verdict <> truth",
        RowKind.FALSE_POSITIVES: "is_binary AND verdict = 1 AND truth = 0",
        RowKind.FALSE_NEGATIVES: "is_binary AND verdict = 0 AND truth = 1",
        RowKind.NEAR: f"distance <= {float(rows.near)!r}",
        RowKind.CORRECT: "verdict = truth",
        RowKind.FAILED: "verdict IS NULL",
        RowKind.ALL: "true",
    }[kind]


def _order(kind: RowKind) -> str:
    if kind is RowKind.NEAR:
        return "distance, row_index"
    if kind is RowKind.FAILED:
        return "row_index"
    return "regret DESC NULLS LAST, distance NULLS LAST, row_index"


def _judged(
    store: Store, judgement: Judgement, rows: RowFilter, row_index: int | None = None
) -> tuple[str, list[Any]]:
    """Return the SQL of every row that passes a filter but for its kind, and its values."""
    run = store.runs.find(judgement.run_id)
    needed = {"heuristic", "ml"} if judgement.mode in {Mode.HYBRID, Mode.BOTH} else set()
    needed |= {judgement.mode.value} & {"heuristic", "ml"}
    if needed - set(run.parts) or (rows.disagreement and len(run.parts) < 2):
        raise ConfigError(
            f"run {run.run_id} scored only {', '.join(run.parts)}; "
            f"it cannot answer for {judgement.mode.value if needed - set(run.parts) else 'both'}"
        )
    classes = judged_classes(store, judgement)
    conditions, condition_values = _conditions(classes, rows, _label(judgement))
    needs_annotations = judgement.is_corrected or rows.tag or rows.is_annotated is not None
    values: list[Any] = [float(judgement.threshold)]
    if needs_annotations:
        values.append(run.dataset_id)
    values += [run.dataset_id, run.run_id]
    if row_index is not None:
        conditions.append("s.row_index = ?")
        condition_values.append(row_index)
    inner = f"""
        SELECT s.row_index, {_truth(classes, _label(judgement))} AS truth,
            {_scores(classes.task, judgement)} AS p, ?::DOUBLE AS threshold
        {_source(judgement, has_annotations=bool(needs_annotations))}
        {"".join(f" AND {condition}" for condition in conditions)}
    """
    return _verdicts(classes, inner), values + condition_values


def _source(judgement: Judgement, *, has_annotations: bool | None = None) -> str:
    is_joined = judgement.is_corrected if has_annotations is None else has_annotations
    joined = f"LEFT JOIN ({LATEST_ANNOTATIONS}) a ON a.row_index = s.row_index" if is_joined else ""
    return f"""
        FROM results s JOIN dataset_rows d ON d.row_index = s.row_index {joined}
        WHERE d.dataset_id = ? AND s.run_id = ?
    """


def _annotation_values(run: RunInfo, judgement: Judgement) -> list[str]:
    return [run.dataset_id] if judgement.is_corrected else []


def _label(judgement: Judgement) -> str:
    return "coalesce(a.label, d.label)" if judgement.is_corrected else "d.label"


def _truth(classes: Classes, label: str) -> str:
    if classes.label_indexes == tuple(range(len(classes.names))):
        return label
    cases = " ".join(
        f"WHEN {index} THEN {position}" for position, index in enumerate(classes.label_indexes)
    )
    return f"CASE {label} {cases} END"


def _scores(task: Task, judgement: Judgement) -> str:
    """Return the deciding part's scores: the risk of two classes, all probabilities of three.

    NULL stands for NaN: a row whose mode needed a model that failed.
    """
    h, m = (_part(task, name) for name in ("heuristic", "model"))
    if judgement.mode is Mode.HEURISTIC:
        return h
    if judgement.mode is Mode.ML:
        return m
    h_sure, m_sure = (f"list_max({h})", f"list_max({m})") if task is Task.SENTIMENT else (h, m)
    if judgement.mode is Mode.BOTH:
        return (
            f"CASE WHEN {h_sure} IS NULL OR {m_sure} IS NULL THEN NULL "
            f"WHEN {m_sure} > {h_sure} THEN {m} ELSE {h} END"
        )
    bands = judgement.bands
    lower = -1.0 if bands.lower is None else bands.lower
    asks = f"{h_sure} < {float(bands.upper)!r} AND {h_sure} > {float(lower)!r}"
    if bands.safe is not None:
        asks += f" AND NOT coalesce({h_sure} <= 0 AND s.linear <= {float(bands.safe)!r}, false)"
    return f"CASE WHEN {asks} THEN {m} ELSE {h} END"


def _part(task: Task, name: str) -> str:
    if task is Task.SENTIMENT:
        return f"CASE WHEN isnan(s.{name}[1]) THEN NULL ELSE s.{name} END"
    return f"CASE WHEN isnan(s.{name}[2]) THEN NULL ELSE s.{name}[2] END"


def _risk(classes: Classes, scores: str) -> str:
    """Return the risk of two classes; of two sentiment labels the third one's share is dropped."""
    if classes.task is not Task.SENTIMENT:
        return scores
    other, risky = (f"({scores})[{index + 1}]" for index in classes.label_indexes)
    return (
        f"CASE WHEN {other} IS NULL THEN NULL WHEN {risky} + {other} > 0 "
        f"THEN {risky} / ({risky} + {other}) ELSE 0.5::DOUBLE END"
    )


def _verdicts(classes: Classes, inner: str) -> str:
    if classes.is_binary:
        return f"""
            SELECT row_index, truth, true AS is_binary, risk, (risk >= threshold)::INTEGER AS verdict,
                CASE truth WHEN 1 THEN threshold - risk WHEN 0 THEN risk - threshold END AS regret,
                abs(risk - threshold) AS distance
            FROM (SELECT row_index, truth, threshold, {_risk(classes, "p")} AS risk FROM ({inner}))
        """
    return f"""
        SELECT row_index, truth, false AS is_binary, highest AS risk,
            list_position(p, highest) - 1 AS verdict, highest - p[truth + 1] AS regret,
            highest - list_sort(p, 'DESC')[2] AS distance
        FROM (SELECT row_index, truth, p, list_max(p) AS highest FROM ({inner}))
    """


def _conditions(classes: Classes, rows: RowFilter, label: str) -> tuple[list[str], list[Any]]:
    found: list[tuple[str, list[Any]]] = []
    for name, value in rows.slices:
        found.append(("coalesce(d.slices ->> ?, '') = ?", [_pointer(name), value]))
    least, most = rows.chars
    if least is not None:
        found.append(("d.chars >= ?", [least]))
    if most is not None:
        found.append(("d.chars <= ?", [most]))
    if rows.is_beyond_window is not None:
        found.append(("coalesce(s.windows > 1, false) = ?", [rows.is_beyond_window]))
    if rows.rule:
        found.append(("list_contains(s.rules, ?)", [rows.rule]))
    if rows.category:
        # The plain search spares most rows the reading of their JSON.
        found.append(
            (
                "contains(s.spans::VARCHAR, ?) AND list_contains(s.spans ->> '$[*].category', ?)",
                [json.dumps(rows.category), rows.category],
            )
        )
    if rows.label is not None:
        found.append((f"{label} = ?", [classes.label_indexes[rows.label]]))
    if rows.search:
        # Case-insensitive and literal; lower() of a million texts takes twice as long.
        found.append(("regexp_matches(d.text, ?, 'il')", [rows.search]))
    if rows.tag:
        found.append(("list_contains(a.tags, ?)", [rows.tag]))
    if rows.is_annotated is not None:
        found.append(("(a.row_index IS NOT NULL) = ?", [rows.is_annotated]))
    if rows.disagreement is not None:
        found.append(_disagreement(classes, rows))
    return [condition for condition, _ in found], [value for _, values in found for value in values]


def _disagreement(classes: Classes, rows: RowFilter) -> tuple[str, list[Any]]:
    h, m = (_part(classes.task, name) for name in ("heuristic", "model"))
    if not classes.is_binary:
        if rows.disagreement is not Disagreement.ANY:
            raise ConfigError("three classes have no side that flags; ask for any disagreement")
        said = (f"list_position({part}, list_max({part}))" for part in (h, m))
        return " <> ".join(said), []
    flags = tuple(f"({_risk(classes, part)}) >= ?" for part in (h, m))
    condition = {
        Disagreement.ANY: "({}) <> ({})",
        Disagreement.RULES_ONLY: "({}) AND NOT ({})",
        Disagreement.MODEL_ONLY: "NOT ({}) AND ({})",
    }[rows.disagreement or Disagreement.ANY]
    return condition.format(*flags), [float(limit) for limit in rows.part_thresholds]

"""Columns that hold what a guard said of each row: its score, or its verdict, and how long it took.

Hides spellings and what can be wrong with a cell. A cell that holds no score is an error of that
row of that guard, with the reason; the row itself is imported, and other guards keep their scores.
"""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal

from shield_engine.datasets.labels import label_key
from shield_engine.datasets.records import Numeral, UnfitError, is_nan, scalar, type_name
from shield_engine.errors import ConfigError, DatasetError
from shield_engine.types import Task

__all__ = [
    "GivenScores",
    "ScoreColumn",
    "ScoreReader",
    "ScoreRole",
    "check_names",
    "check_task",
    "parse_scores",
    "score_hints",
]

ScoreRole = Literal["score", "verdict", "latency"]

_HINTS: Mapping[ScoreRole, re.Pattern[str]] = {
    "latency": re.compile(r"(.+_)?(latency|latency_ms|duration_ms|elapsed_ms)"),
    "verdict": re.compile(r"(.+_)?(verdict|flagged|blocked)"),
    "score": re.compile(r"(.+_)?(score|risk|prob|probability)"),
}
_SHOWN_CHARS = 40
_SHOWN_VALUES = 10


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """A column with what one guard said of each row.

    Attributes:
        column: Its name in the file.
        guard: The guard it stands for; the column's name by default.
        flagged: Of a verdict column, the values that mean risky: 1, and all others 0. Empty for
            a column of scores in 0..1.
        latency: The column of the guard's milliseconds, if there is one.
    """

    column: str
    guard: str = ""
    flagged: tuple[str, ...] = ()
    latency: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "guard", self.guard or self.column)
        if not self.guard.strip() or not self.guard.isprintable():
            raise ConfigError(
                f"column {self.column!r}: a guard needs a name on one line, got {self.guard!r}"
            )

    @property
    def role(self) -> ScoreRole:
        """What the column holds."""
        return "verdict" if self.flagged else "score"

    @property
    def options(self) -> tuple[str, ...]:
        """The command's options that mean it, as `parse_scores` reads them."""
        values = f"{'|'.join(self.flagged)}:" if self.flagged else ""
        words: tuple[str, ...] = (f"--{self.role}", f"{self.column}={values}{self.guard}")
        if self.latency is not None:
            words += ("--latency", f"{self.latency}={self.guard}")
        return words

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read for it."""
        return (self.column,) if self.latency is None else (self.column, self.latency)


@dataclass(frozen=True, slots=True, eq=False)
class GivenScores:
    """What a file says one guard said of each row, in row order.

    Attributes:
        column: Where it comes from.
        risks: As in the file, bit by bit; NaN where there is none.
        errors: Why a row has none, by its position.
        latency_ms: NaN where none is given.
        warnings: What the user should know of the column.
    """

    column: ScoreColumn
    risks: array[float]
    errors: Mapping[int, str]
    latency_ms: array[float]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.risks)

    @property
    def digest(self) -> str:
        """SHA-256 of all values, in hex: what tells two guards of one name apart."""
        values = hashlib.sha256(self.risks.tobytes())
        if self.column.latency is not None:
            values.update(self.latency_ms.tobytes())
        return values.hexdigest()

    def at(self, positions: Sequence[int | None], missing: str) -> GivenScores:
        """Return the values of other rows: those at `positions`, and the error `missing` at none."""
        errors = {
            row: missing if position is None else self.errors[position]
            for row, position in enumerate(positions)
            if position is None or position in self.errors
        }

        def moved(values: array[float]) -> array[float]:
            return array("d", (math.nan if at is None else values[at] for at in positions))

        return replace(
            self, risks=moved(self.risks), errors=errors, latency_ms=moved(self.latency_ms)
        )


class ScoreReader:
    """Takes a column's cells one by one."""

    def __init__(self, column: ScoreColumn) -> None:
        self.column = column
        self._flagged = {label_key(value) for value in column.flagged}
        self._verdicts: Counter[str] = Counter()
        self._risks = array("d")
        self._errors: dict[int, str] = {}
        self._latency = array("d")
        self._untimed: Counter[str] = Counter()

    def add(self, values: Mapping[str, object]) -> None:
        """Take what a record says; what is no score becomes the row's error."""
        column = self.column
        cell = values.get(column.column)
        risk = math.nan
        try:
            risk = self._verdict(cell) if column.flagged else _risk(cell, column.column)
        except UnfitError as reason:
            self._errors[len(self._risks)] = str(reason)
        self._risks.append(risk)
        latency_ms = math.nan
        if column.latency is not None:
            try:
                latency_ms = _milliseconds(values.get(column.latency), column.latency)
            except UnfitError as reason:
                self._untimed[str(reason)] += 1
        self._latency.append(latency_ms)

    def is_same(self, first: int, second: int) -> bool:
        """Return whether two rows have one score, or both none."""
        risks = self._risks
        return risks[first] == risks[second] or {first, second} <= self._errors.keys()

    def finish(self, path: Path) -> GivenScores:
        """Return what was taken.

        Raises:
            DatasetError: Not one row has a score, so the column is none of scores.
        """
        rows = len(self._risks)
        if rows == len(self._errors):
            raise DatasetError(
                f"{path}: no row has a {self.column.role} of guard {self.column.guard}; the first "
                f"of {rows:,}: {self._errors.get(0, 'there is none')}. Nothing was imported; map "
                "another column, divide percentages by 100, or leave this one out."
            )
        warnings = [
            f"guard {self.column.guard}: no latency where {reason} ({count:,} rows)"
            for reason, count in self._untimed.most_common(3)
        ]
        if self.column.flagged and not any(risk == 1 for risk in self._risks):
            seen = self._verdicts.most_common(_SHOWN_VALUES)
            values = ", ".join(f"{_shown(value)} ({count:,})" for value, count in seen)
            warnings.append(
                f"guard {self.column.guard} flags no row: column {self.column.column!r} holds "
                f"{values}, never {' or '.join(map(repr, self.column.flagged))}"
            )
        return GivenScores(self.column, self._risks, self._errors, self._latency, tuple(warnings))

    def _verdict(self, cell: object) -> float:
        name = self.column.column
        value = None if _is_empty(cell) else scalar(cell, name)
        if value is None:
            raise UnfitError(f"column {name!r} is empty")
        if len(self._verdicts) < _SHOWN_VALUES or value in self._verdicts:
            self._verdicts[value] += 1
        return float(label_key(value) in self._flagged)


def parse_scores(
    scores: Sequence[str] = (), verdicts: Sequence[str] = (), latencies: Sequence[str] = ()
) -> tuple[ScoreColumn, ...]:
    """Read the command's options, or a suite's keys, as columns of guards.

    Args:
        scores: Each `COLUMN[=NAME]`.
        verdicts: Each `COLUMN=FLAGGED|FLAGGED[:NAME]`.
        latencies: Each `COLUMN[=NAME]`; the name may be left out where there is one guard.

    Raises:
        ConfigError: One cannot be read, two guards have one name, or a latency has no guard.
    """
    columns = [ScoreColumn(*_pair("score", text)) for text in scores]
    for text in verdicts:
        column, rest = _pair("verdict", text)
        values, _, guard = rest.partition(":")
        flagged = tuple(filter(None, map(str.strip, values.split("|"))))
        if not flagged:
            raise ConfigError(
                f"verdict {text!r}: say which values mean risky: COLUMN=FLAGGED|FLAGGED[:NAME]"
            )
        columns.append(ScoreColumn(column, guard.strip(), flagged))
    check_names(columns)
    by_guard = {column.guard: column for column in columns}
    names = ", ".join(by_guard) or "none"
    for text in latencies:
        latency, guard = _pair("latency", text)
        if not guard and len(by_guard) != 1:
            raise ConfigError(f"latency {text!r}: say whose it is: COLUMN=NAME; guards: {names}")
        guard = guard or next(iter(by_guard))
        if guard not in by_guard:
            raise ConfigError(f"latency {text!r}: no score or verdict is called {guard!r}: {names}")
        if by_guard[guard].latency is not None:
            raise ConfigError(f"latency {text!r}: guard {guard} has one already")
        by_guard[guard] = replace(by_guard[guard], latency=latency)
    return tuple(by_guard.values())


def check_names(columns: Sequence[ScoreColumn]) -> None:
    """Refuse two guards of one name.

    Raises:
        ConfigError: There are.
    """
    seen: dict[str, str] = {}
    for column in columns:
        if column.guard in seen:
            raise ConfigError(
                f"two guards are called {column.guard!r} (columns {seen[column.guard]!r} and "
                f"{column.column!r}): name one of them otherwise, COLUMN=NAME"
            )
        seen[column.guard] = column.column


def check_task(task: Task, scores: Sequence[ScoreColumn | GivenScores]) -> None:
    """Refuse one number a row where three classes need three.

    Raises:
        ConfigError: There are scores, and the task has three classes.
    """
    if scores and task is Task.SENTIMENT:
        raise ConfigError(
            "a score column is one risk a row, and sentiment needs a probability of each of three "
            "classes: declare the guard with kind python instead"
        )


def score_hints(columns: Sequence[str]) -> dict[str, ScoreRole]:
    """Return the columns whose names are those of scores, verdicts or latencies; only a hint."""
    hints: dict[str, ScoreRole] = {}
    for column in columns:
        key = label_key(column)
        role = next((role for role, name in _HINTS.items() if name.fullmatch(key)), None)
        if role is not None:
            hints[column] = role
    return hints


def _pair(option: str, text: str) -> tuple[str, str]:
    column, _, name = (part.strip() for part in text.partition("="))
    if not column:
        raise ConfigError(f"{option} {text!r}: names no column")
    return column, name


def _is_empty(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _risk(cell: object, name: str) -> float:
    number = _number(cell, name)
    if number is None or not 0 <= number <= 1:
        shown = "NaN" if number is not None and math.isnan(number) else _shown(cell)
        raise UnfitError(f"column {name!r} holds {shown}, which is no number in 0..1")
    return number


def _milliseconds(cell: object, name: str) -> float:
    if _is_empty(cell) or is_nan(cell):
        return math.nan
    number = _number(cell, name)
    if number is None or not 0 <= number < math.inf:
        raise UnfitError(f"column {name!r} holds {_shown(cell)}, which is no time in milliseconds")
    return number


def _number(cell: object, name: str) -> float | None:
    """Return a cell as the number it is, `None` if it is none.

    Raises:
        UnfitError: It is empty.
    """
    if _is_empty(cell):
        raise UnfitError(f"column {name!r} is empty")
    if isinstance(cell, str):
        try:
            return None if "_" in cell else float(cell)  # float() takes 0_1
        except ValueError:
            return None
    is_number = isinstance(cell, int | float | Decimal) and not isinstance(cell, bool)
    return float(cell) if is_number else None  # type: ignore[arg-type]


def _shown(cell: object) -> str:
    """Return a cell as a message shows it: short, and text that can be stored."""
    if not isinstance(cell, str | int | float | Decimal) or isinstance(cell, bool):
        return type_name(cell)
    text = str(cell).encode("utf-8", "backslashreplace").decode("utf-8")
    text = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
    return text if not isinstance(cell, str) or isinstance(cell, Numeral) else repr(text)

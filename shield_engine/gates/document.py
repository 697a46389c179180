"""A gate as data: what is required, read from and written to TOML, strictly.

Hides the file format. An unknown key, a metric that does not exist or a limit that no figure can
meet is an error that names requirement and key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from shield_engine.documents import Constraint, OneOf, Shape, read_toml
from shield_engine.errors import ConfigError
from shield_engine.metrics.table import METRICS, Metric
from shield_engine.types import Mode, Task

__all__ = [
    "BASELINE",
    "GATE_FORMAT",
    "Gate",
    "Requirement",
    "SliceFilter",
    "parse_gate",
    "read_gate",
    "shown",
    "write_gate",
]

GATE_FORMAT = 1
"""Version of the file format; a file of a later one is refused."""

BASELINE = "baseline"
"""The run that the caller names as the baseline."""


_LIMITS = ("at_least", "at_most", "no_worse_than")
_RANGES = {"mcc": (-1.0, 1.0)}

# What each field of a gate holds.
_METRIC = OneOf(tuple(METRICS))
_TEXT = Constraint("is text, got {value!r}", str.strip)
_NUMBER = Constraint("is a number, got {value!r}", math.isfinite)
_FROM_ZERO = Constraint("is 0 or more, got {value!r}", lambda value: 0 <= value < math.inf)
_SHARE = Constraint("is a share below 1, not below 0, got {value!r}", lambda value: 0 <= value < 1)
_CONFIDENCE = Constraint(
    "lies above 0.5 and up to 0.999, got {value!r}", lambda value: 0.5 < value <= 0.999
)
_COUNT = Constraint("is a whole number from 0, got {value!r}", lambda value: value >= 0)
_SLICE = Constraint('is a table such as {{column = "language", value = "de"}}, got {value!r}')


@dataclass(frozen=True, slots=True)
class SliceFilter:
    """Only the rows whose slice column holds one value."""

    column: str
    value: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of a gate: a figure and what it must clear.

    Attributes:
        metric: A key of `METRICS`.
        at_least: The lower bound of the figure must not lie below this.
        at_most: The upper bound of the figure must not lie above this.
        no_worse_than: Run id, or `baseline` for the one that the caller names.
        by_more_than: How much worse it may be, in the metric's own unit.
        confidence: Of the one-sided bound.
        task: Only for runs of this task; others leave the requirement out.
        mode: Judge this mode instead of the one that the caller chose.
        policy: Judge under this stored policy, `NAME` or `NAME@VERSION`.
        rows: Only these rows.
        min_rows: Below so many rows in the denominator the requirement is not judged.
        common_rows: In a comparison of runs over different rows, use those that both have.
    """

    metric: Annotated[str, _METRIC]
    at_least: Annotated[float | None, _NUMBER] = None
    at_most: Annotated[float | None, _NUMBER] = None
    no_worse_than: Annotated[str | None, _TEXT] = None
    by_more_than: Annotated[float, _FROM_ZERO] = 0.0
    confidence: Annotated[float, _CONFIDENCE] = 0.95
    task: Task | None = None
    mode: Mode | None = None
    policy: Annotated[str | None, _TEXT] = None
    rows: Annotated[SliceFilter | None, _SLICE] = None
    min_rows: Annotated[int, _COUNT] = 0
    common_rows: bool = False

    @property
    def kind(self) -> Metric:
        """What the metric is."""
        return METRICS[self.metric]

    @property
    def is_paired(self) -> bool:
        """True if it compares with a baseline."""
        return self.no_worse_than is not None

    @property
    def title(self) -> str:
        """The requirement in words: `recall >= 90%, where language is de`."""
        if self.at_least is not None:
            head = f"{self.metric} >= {self.text(self.at_least)}"
        elif self.at_most is not None:
            head = f"{self.metric} <= {self.text(self.at_most)}"
        else:
            margin = self.text(self.by_more_than).lstrip("+")
            worse = f" by more than {margin}" if self.by_more_than else ""
            whom = "the baseline" if self.no_worse_than == BASELINE else self.no_worse_than
            head = f"{self.metric} no worse than {whom}{worse}"
        parts = [head]
        if self.mode is not None:
            parts.append(f"mode {self.mode.value}")
        if self.policy is not None:
            parts.append(f"policy {self.policy}")
        if self.rows is not None:
            parts.append(f"where {self.rows.column} is {self.rows.value}")
        return ", ".join(parts)

    def text(self, value: float | None) -> str:
        """Return a value of what is judged as text: of the figure, or of its difference."""
        return shown(value, self.kind.unit, is_difference=self.is_paired)

    @classmethod
    def from_document(cls, document: Mapping[str, Any], where: str) -> Requirement:
        """Return the requirement that `as_document` gave.

        Raises:
            ConfigError: A key is unknown or missing, or a value cannot be used.
        """
        # A missing metric is told with the choices, as an unknown one is.
        values: dict[str, Any] = {"metric": None, **document}

        def fail(key: str | None, sentence: str) -> ConfigError:
            is_field = key == "slice" or key in cls.__dataclass_fields__
            has_metric = is_field and key != "metric" and values["metric"] in (*METRICS,)
            place = f"{where}, {values['metric']}" if has_metric else where
            return ConfigError(f"{place}: {sentence}")

        requirement = _REQUIREMENT.read(values, fail)
        for problem in _contradictions(requirement, document):
            raise ConfigError(f"{where}, {requirement.metric}: {problem}")
        return requirement

    def as_document(self) -> dict[str, Any]:
        """Return the requirement as plain JSON and TOML values; defaults are left out."""
        rows = None
        if self.rows is not None:
            rows = {"column": self.rows.column, "value": self.rows.value}
        document: dict[str, Any] = {
            "metric": self.metric,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "no_worse_than": self.no_worse_than,
            "by_more_than": self.by_more_than if self.is_paired else None,
            "confidence": self.confidence,
            "task": None if self.task is None else self.task.value,
            "mode": None if self.mode is None else self.mode.value,
            "policy": self.policy,
            "slice": rows,
            "min_rows": self.min_rows or None,
            "common_rows": self.common_rows or None,
        }
        return {key: value for key, value in document.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Gate:
    """What must hold before something is released.

    Attributes:
        name: Shown to users.
        requirements: At least one.
        note: Why, in the user's words.
        max_unscored: Share of the run's rows that may lack a score without holding back a pass.
    """

    name: str
    requirements: tuple[Requirement, ...]
    note: Annotated[str, _TEXT] = ""
    max_unscored: Annotated[float, _SHARE] = 0.0

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """Columns that requirements ask for, each once."""
        columns = [line.rows.column for line in self.requirements if line.rows is not None]
        return tuple(dict.fromkeys(columns))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], where: str = "gate") -> Gate:
        """Return the gate that `as_document` gave.

        Raises:
            ConfigError: A key is unknown or missing, or a value cannot be used.
        """
        version = document.get("format")
        if version != GATE_FORMAT:
            raise ConfigError(f"{where} has format {version!r}, this program reads {GATE_FORMAT}")
        head = {key: value for key, value in document.items() if key not in {"format", "require"}}
        gate = _GATE.read(head | {"require": []}, lambda _, text: ConfigError(f"{where}: {text}"))
        if not gate.name.strip() or not gate.name.isprintable():
            raise ConfigError(f"{where}: needs a name on one line, got {gate.name!r}")
        tables = document.get("require")
        if not isinstance(tables, list) or not tables:
            raise ConfigError(f"{where}: needs at least one [[require]] table")
        requirements = []
        for number, table in enumerate(tables, start=1):
            if not isinstance(table, Mapping):
                raise ConfigError(f"{where}, requirement {number}: is no table, got {table!r}")
            requirements.append(Requirement.from_document(table, f"{where}, requirement {number}"))
        return replace(gate, requirements=tuple(requirements))

    def as_document(self) -> dict[str, Any]:
        """Return the gate as plain JSON and TOML values."""
        document: dict[str, Any] = {"format": GATE_FORMAT, "name": self.name}
        if self.note:
            document["note"] = self.note
        if self.max_unscored:
            document["max_unscored"] = self.max_unscored
        return document | {"require": [line.as_document() for line in self.requirements]}


_REQUIREMENT = Shape(Requirement, names={"rows": "slice"})
_GATE = Shape(Gate, names={"requirements": "require"}, missing="needs a {keys} on one line")


def parse_gate(text: str, where: str = "gate") -> Gate:
    """Return the gate of a TOML text.

    Args:
        text: TOML.
        where: Names the text in an error.

    Raises:
        ConfigError: The text is no TOML (the message has the line), or no fit gate.
    """
    return Gate.from_document(read_toml(text, where), where)


def read_gate(path: Path) -> Gate:
    """Read a gate from a TOML file.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or holds no fit gate.
    """
    where = f"gate file {path}"
    return Gate.from_document(read_toml(path, where), where)


def write_gate(gate: Gate) -> str:
    """Return the gate as the text of a TOML file."""
    import tomli_w

    return "# An LLM Shield gate: shield gate FILE --run RUN_ID\n\n" + tomli_w.dumps(
        gate.as_document()
    )


def shown(value: float | None, unit: str, *, is_difference: bool = False) -> str:
    """Return a figure as `93.1%`, `12.3 ms` or `0.812`, a difference as `+0.5 points`."""
    if value is None:
        return "-"
    if is_difference:
        forms = {"share": f"{100 * value:+.3g} points", "ms": f"{value:+.3g} ms"}
        return forms.get(unit, f"{value:+.3f}")
    if unit == "share":
        return f"{100 * value:.4g}%" if abs(value) < 0.01 and value else f"{_short(100 * value)}%"
    if unit == "ms":
        return f"{value:,.0f} ms" if abs(value) >= 100 else f"{value:.3g} ms"
    return f"{value:.3f}"


def _short(percent: float) -> str:
    text = f"{percent:.2f}"
    return text.rstrip("0").rstrip(".") if text.endswith("0") else text


def _contradictions(requirement: Requirement, document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong between fields that are each right alone."""
    limits = [key for key in _LIMITS if key in document]
    if len(limits) != 1:
        yield f"needs exactly one of {', '.join(_LIMITS)}, got {', '.join(limits) or 'none'}"
    for key in ("by_more_than", "common_rows"):
        if key in document and not requirement.is_paired:
            yield f"{key} belongs to no_worse_than"
    kind = requirement.kind
    if requirement.is_paired and kind.is_better_high is None:
        yield "is a property of the rows, not of what is compared"
    if "policy" in document and "mode" in document:
        yield "a policy has its own mode; give one of policy and mode"
    low, high = _RANGES.get(kind.name, (0.0, math.inf if kind.unit == "ms" else 1.0))
    for key in ("at_least", "at_most"):
        value = getattr(requirement, key)
        if value is not None and not low <= value <= high:
            hint = "; a share is written 0.9, not 90" if 1 < value <= 100 and high == 1 else ""
            yield f"{key} lies within {low:g}..{high:g}, got {value:g}{hint}"
    if kind.unit != "ms" and requirement.by_more_than >= 1:
        yield f"by_more_than = {requirement.by_more_than:g}; half a point is written 0.005"

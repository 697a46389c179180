"""A gate as data: what is required, read from and written to TOML, strictly.

Hides the file format. An unknown key, a metric that does not exist or a limit that no figure can
meet is an error that names requirement and key.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from shield_engine.config import check_task
from shield_engine.errors import ConfigError
from shield_engine.metrics.figures import METRIC_HELP, NUMBERS
from shield_engine.types import Mode, Task

__all__ = [
    "BASELINE",
    "FORMAT",
    "METRICS",
    "Gate",
    "GateMetric",
    "Requirement",
    "SliceFilter",
    "parse_gate",
    "read_gate",
    "shown",
    "shown_difference",
    "write_gate",
]

FORMAT = 1
"""Version of the file format; a file of a later one is refused."""

BASELINE = "baseline"
"""The run that the caller names as the baseline."""


@dataclass(frozen=True, slots=True)
class GateMetric:
    """What a requirement may be about.

    Attributes:
        name: As written in a gate.
        unit: `share` (0..1, shown as percent), `ms`, or `number`.
        is_better_high: What counts as worse in a comparison; `None` if neither does.
        rows: What its n counts.
        help: What it says.
    """

    name: str
    unit: str
    is_better_high: bool | None
    rows: str
    help: str


_ROWS = {
    "recall": "risky rows",
    "fpr": "harmless rows",
    "precision": "flagged rows",
    "flag_rate": "scored rows",
    "escalated": "scored rows",
}
_BETTER_LOW = frozenset({"fpr", "fpr_at_95_recall", "brier", "ece", "flag_rate", "escalated"})
_OTHERS = {
    "flag_rate": "Share of scored rows that are flagged; needs no labels.",
    "escalated": "Share of scored rows on which the model is asked; needs no labels.",
    "p50_ms": "Median latency of a scan that the cache does not answer, milliseconds.",
    "p95_ms": "95th percentile of the latency of a scan that the cache does not answer.",
    "p99_ms": "99th percentile of the latency of a scan that the cache does not answer.",
}


def _metric(name: str, text: str) -> GateMetric:
    is_latency = name.endswith("_ms")
    unit = "ms" if is_latency else "number" if name in NUMBERS else "share"
    better: bool | None = not (is_latency or name in _BETTER_LOW)
    rows = "rows not from the cache" if is_latency else _ROWS.get(name, "labelled rows")
    return GateMetric(name, unit, None if name == "length_only_auc" else better, rows, text)


METRICS: Mapping[str, GateMetric] = MappingProxyType(
    {name: _metric(name, text) for name, text in (*METRIC_HELP.items(), *_OTHERS.items())}
)
"""Every metric that a requirement may name."""

_GATE_KEYS = ("format", "name", "note", "max_unscored", "require")
_LIMITS = ("at_least", "at_most", "no_worse_than")
_REQUIREMENT_KEYS = (
    "metric", *_LIMITS, "by_more_than", "confidence", "task", "mode", "policy", "slice",
    "min_rows", "common_rows",
)  # fmt: skip
_RANGES = {"mcc": (-1.0, 1.0)}


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

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    no_worse_than: str | None = None
    by_more_than: float = 0.0
    confidence: float = 0.95
    task: Task | None = None
    mode: Mode | None = None
    policy: str | None = None
    rows: SliceFilter | None = None
    min_rows: int = 0
    common_rows: bool = False

    @property
    def kind(self) -> GateMetric:
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
            head = f"{self.metric} >= {shown(self.at_least, self.kind.unit)}"
        elif self.at_most is not None:
            head = f"{self.metric} <= {shown(self.at_most, self.kind.unit)}"
        else:
            worse = "" if not self.by_more_than else f" by more than {self._margin}"
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

    @property
    def _margin(self) -> str:
        return shown_difference(self.by_more_than, self.kind.unit).lstrip("+")

    @classmethod
    def from_document(cls, document: Mapping[str, Any], where: str) -> Self:
        """Return the requirement that `as_document` gave.

        Raises:
            ConfigError: A key is unknown or missing, or a value cannot be used.
        """
        _known(document, _REQUIREMENT_KEYS, where)
        metric = document.get("metric")
        if not isinstance(metric, str) or metric not in METRICS:
            raise ConfigError(
                f"{where}: unknown metric {metric!r}; choose one of {', '.join(METRICS)}"
            )
        given = [key for key in _LIMITS if key in document]
        if len(given) != 1:
            raise ConfigError(
                f"{where}, {metric}: needs exactly one of {', '.join(_LIMITS)}, "
                f"got {', '.join(given) or 'none'}"
            )
        where = f"{where}, {metric}"
        paired = given == ["no_worse_than"]
        for key in ("by_more_than", "common_rows"):
            if key in document and not paired:
                raise ConfigError(f"{where}: {key} belongs to no_worse_than")
        if paired and METRICS[metric].is_better_high is None:
            raise ConfigError(f"{where}: is a property of the rows, not of what is compared")
        if "policy" in document and "mode" in document:
            raise ConfigError(f"{where}: a policy has its own mode; give one of policy and mode")
        task = document.get("task")
        mode = document.get("mode")
        return cls(
            metric=metric,
            at_least=_limit(document, "at_least", metric, where),
            at_most=_limit(document, "at_most", metric, where),
            no_worse_than=_words(document, "no_worse_than", where),
            by_more_than=_at_least_zero(document, "by_more_than", where),
            confidence=_confidence(document, where),
            task=None if task is None else _task(task, where),
            mode=None if mode is None else _mode(mode, where),
            policy=_words(document, "policy", where),
            rows=_slice(document, where),
            min_rows=_count(document, "min_rows", where),
            common_rows=_flag(document, "common_rows", where),
        )

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
    note: str = ""
    max_unscored: float = 0.0

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """Columns that requirements ask for, each once."""
        columns = [one.rows.column for one in self.requirements if one.rows is not None]
        return tuple(dict.fromkeys(columns))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], where: str = "gate") -> Self:
        """Return the gate that `as_document` gave.

        Raises:
            ConfigError: A key is unknown or missing, or a value cannot be used.
        """
        found = document.get("format")
        if found != FORMAT:
            raise ConfigError(f"{where} has format {found!r}, this program reads {FORMAT}")
        _known(document, _GATE_KEYS, where)
        name = _words(document, "name", where)
        if name is None or not name.strip() or not name.isprintable():
            raise ConfigError(f"{where}: needs a name on one line, got {document.get('name')!r}")
        tables = document.get("require")
        if not isinstance(tables, list) or not tables:
            raise ConfigError(f"{where}: needs at least one [[require]] table")
        requirements = []
        for number, table in enumerate(tables, start=1):
            if not isinstance(table, Mapping):
                raise ConfigError(f"{where}, requirement {number}: is no table, got {table!r}")
            requirements.append(Requirement.from_document(table, f"{where}, requirement {number}"))
        unscored = _at_least_zero(document, "max_unscored", where)
        if unscored >= 1:
            raise ConfigError(f"{where}: max_unscored is a share below 1, got {unscored:g}")
        return cls(name, tuple(requirements), _words(document, "note", where) or "", unscored)

    def as_document(self) -> dict[str, Any]:
        """Return the gate as plain JSON and TOML values."""
        document: dict[str, Any] = {"format": FORMAT, "name": self.name}
        if self.note:
            document["note"] = self.note
        if self.max_unscored:
            document["max_unscored"] = self.max_unscored
        return document | {"require": [one.as_document() for one in self.requirements]}


def parse_gate(text: str, where: str = "gate") -> Gate:
    """Return the gate of a TOML text.

    Args:
        text: TOML.
        where: Names the text in an error.

    Raises:
        ConfigError: The text is no TOML (the message has the line), or no fit gate.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is no TOML: {error}") from error
    return Gate.from_document(document, where)


def read_gate(path: Path) -> Gate:
    """Read a gate from a TOML file.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or holds no fit gate.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"gate file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"gate file {path} is no TOML: {error}") from error
    return parse_gate(text, f"gate file {path}")


def write_gate(gate: Gate) -> str:
    """Return the gate as the text of a TOML file."""
    import tomli_w

    return "# An LLM Shield gate: shield gate FILE --run RUN_ID\n\n" + tomli_w.dumps(
        gate.as_document()
    )


def shown(value: float | None, unit: str) -> str:
    """Return a figure as text: `93.1%`, `12.3 ms`, `0.812`."""
    if value is None:
        return "-"
    if unit == "share":
        return f"{100 * value:.4g}%" if abs(value) < 0.01 and value else f"{_short(100 * value)}%"
    if unit == "ms":
        return f"{value:,.0f} ms" if abs(value) >= 100 else f"{value:.3g} ms"
    return f"{value:.3f}"


def shown_difference(value: float | None, unit: str) -> str:
    """Return a difference as text with its sign: `+0.5 points`, `-1.2 ms`."""
    if value is None:
        return "-"
    if unit == "share":
        return f"{100 * value:+.3g} points"
    if unit == "ms":
        return f"{value:+.3g} ms"
    return f"{value:+.3f}"


def _short(percent: float) -> str:
    text = f"{percent:.2f}"
    return text.rstrip("0").rstrip(".") if text.endswith("0") else text


# --- checks of values ------------------------------------------------------------------------


def _known(document: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(document) - set(keys))
    if unknown:
        raise ConfigError(f"{where}: unknown key {', '.join(unknown)}; there are {', '.join(keys)}")


def _number(document: Mapping[str, Any], key: str, where: str) -> float | None:
    value = document.get(key)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ConfigError(f"{where}: {key} is a number, got {value!r}")
    return float(value)


def _limit(document: Mapping[str, Any], key: str, metric: str, where: str) -> float | None:
    value = _number(document, key, where)
    if value is None:
        return None
    low, high = _RANGES.get(metric, (0.0, 1.0))
    if METRICS[metric].unit == "ms":
        high = math.inf
    if not low <= value <= high:
        hint = "; a share is written 0.9, not 90" if 1 < value <= 100 and high == 1 else ""
        raise ConfigError(f"{where}: {key} lies within {low:g}..{high:g}, got {value:g}{hint}")
    return value


def _at_least_zero(document: Mapping[str, Any], key: str, where: str) -> float:
    value = _number(document, key, where) or 0.0
    if value < 0:
        raise ConfigError(f"{where}: {key} is 0 or more, got {value:g}")
    if key == "by_more_than" and METRICS[document["metric"]].unit != "ms" and value >= 1:
        raise ConfigError(f"{where}: {key} = {value:g}; half a point is written 0.005")
    return value


def _confidence(document: Mapping[str, Any], where: str) -> float:
    value = _number(document, "confidence", where)
    if value is None:
        return 0.95
    if not 0.5 < value <= 0.999:
        raise ConfigError(f"{where}: confidence lies above 0.5 and up to 0.999, got {value:g}")
    return value


def _count(document: Mapping[str, Any], key: str, where: str) -> int:
    value = document.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{where}: {key} is a whole number from 0, got {value!r}")
    return value


def _flag(document: Mapping[str, Any], key: str, where: str) -> bool:
    value = document.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {key} is true or false, got {value!r}")
    return value


def _words(document: Mapping[str, Any], key: str, where: str) -> str | None:
    value = document.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ConfigError(f"{where}: {key} is text, got {value!r}")
    return value


def _task(value: Any, where: str) -> Task:
    try:
        return check_task(str(value))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _mode(value: Any, where: str) -> Mode:
    try:
        return Mode(value)
    except ValueError as error:
        raise ConfigError(
            f"{where}: unknown mode {value!r}; choose one of {', '.join(Mode)}"
        ) from error


def _slice(document: Mapping[str, Any], where: str) -> SliceFilter | None:
    value = document.get("slice")
    if value is None:
        return None
    fits = isinstance(value, Mapping) and set(value) == {"column", "value"}
    if not fits or not all(isinstance(value[key], str) for key in value):
        raise ConfigError(
            f'{where}: slice is a table such as {{column = "language", value = "de"}}, '
            f"got {value!r}"
        )
    return SliceFilter(value["column"], value["value"])

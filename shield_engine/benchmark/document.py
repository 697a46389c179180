"""What a benchmark leaves behind: figures, ratios, targets, as JSON, as Markdown, side by side.

Hides how a strange file is read. Pure: nothing here measures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from shield_engine.errors import ConfigError
from shield_engine.statistics import Figure

__all__ = [
    "TARGETS",
    "Measure",
    "Ratio",
    "Target",
    "benchmark_markdown",
    "compare_benchmarks",
    "comparison_markdown",
    "number",
    "read_document",
]

Better = Literal["lower", "higher"]

_MAX_ROWS = 2_000
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Target:
    """What the reference system aimed at for one operation; nobody measured it.

    Attributes:
        name: Key that figures refer to.
        operation: For a reader.
        unit: Unit of the bounds.
        better: Which direction is good.
        target: Bound of the target band.
        acceptable: Bound of the acceptable band, if one was stated.
        poor: Beyond this it is poor, if stated.
    """

    name: str
    operation: str
    unit: str
    better: Better
    target: float
    acceptable: float | None = None
    poor: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the row as the document carries it."""
        return {**asdict(self), "kind": "target"}


TARGETS: tuple[Target, ...] = (
    Target("load_cold_fp16", "model load, cold, FP16", "ms", "lower", 500, 1_000, 2_000),
    Target("load_cold_int8", "model load, cold, INT8", "ms", "lower", 200, 1_000, 2_000),
    Target("load_cached", "model load, cached", "ms", "lower", 10, 50, 100),
    Target("tokenization", "tokenization", "tokens/s", "higher", 10_000, 5_000, 1_000),
    Target("inference_fp16", "inference, FP16", "ms", "lower", 150, 300, 500),
    Target("inference_int8", "inference, INT8", "ms", "lower", 80, 150, 300),
    Target("inference_batch_16", "inference, batch of 16", "ms", "lower", 1_000),
    Target("cache_lookup", "cache lookup", "ms", "lower", 0.1, 1, 5),
    Target("end_to_end_cached", "end to end, cached", "ms", "lower", 1, 5, 10),
    Target("end_to_end_ml", "end to end, ML", "ms", "lower", 200, 400, 600),
    Target("throughput_heuristic", "throughput, heuristic", "texts/s", "higher", 15_000),
    Target("throughput_cached_80", "throughput, 80% cache hits", "texts/s", "higher", 12_000),
    Target("throughput_ml_fp16", "throughput, ML FP16, one thread", "texts/s", "higher", 150),
    Target("throughput_hybrid", "throughput, hybrid", "texts/s", "higher", 2_000),
    Target("throughput_batch_16", "throughput, batch of 16", "texts/s", "higher", 800),
    Target("memory_model_fp16", "memory, model FP16", "MB", "lower", 200, 250, 500),
    Target("memory_model_int8", "memory, model INT8", "MB", "lower", 100, 150, 300),
    Target("memory_cache_1000", "memory, cache of 1,000", "MB", "lower", 20, 50, 100),
    Target("memory_cache_10000", "memory, cache of 10,000", "MB", "lower", 200, 500, 1_000),
    Target("memory_tokenizer", "memory, tokenizer", "MB", "lower", 100, 150, 300),
    Target("memory_total", "memory, total", "MB", "lower", 400, 600, 1_000),
)
"""The reference system's targets, set for models of 184 M parameters; a range keeps its upper end.

They were never measured by the reference: bands to draw beside a figure, no baselines.
"""


@dataclass(frozen=True, slots=True)
class Measure:
    """One measured number.

    Attributes:
        name: Dotted path, the same in every benchmark.
        estimate: The number, its interval and how many calls or rounds are behind it.
        unit: Its unit.
        group: What it belongs to (`load`, `inference`, `end_to_end`, ...).
        better: Which direction is good.
        target: Name of the `TARGETS` row to show beside it.
        detail: Texts, escalated share, hit rate, CPU time, whatever it takes to read the number.
    """

    name: str
    estimate: Figure
    unit: str
    group: str
    better: Better = "lower"
    target: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the figure as the document carries it."""
        return {
            "name": self.name,
            "value": self.estimate.value,
            "unit": self.unit,
            "low": self.estimate.low,
            "high": self.estimate.high,
            "n": self.estimate.n,
            "kind": "measured",
            "group": self.group,
            "better": self.better,
            "target": self.target,
            "detail": {**self.detail, "interval": self.estimate.method},
        }


@dataclass(frozen=True, slots=True)
class Ratio:
    """A number with an aim of this project's own, most of them ratios of one run.

    Attributes:
        name: One of the names that all documents share.
        estimate: The number.
        target: The aim.
        better: Which direction is good.
        detail: What was divided by what, on which texts.
    """

    name: str
    estimate: Figure
    target: float
    better: Better = "higher"
    detail: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the ratio as the document carries it."""
        return {
            "name": self.name,
            "value": self.estimate.value,
            "low": self.estimate.low,
            "high": self.estimate.high,
            "target": self.target,
            "n": self.estimate.n,
            "better": self.better,
            "detail": {**self.detail, "interval": self.estimate.method},
        }


def read_document(content: bytes) -> dict[str, Any]:
    """Return the benchmark that `shield bench --json` wrote.

    Raises:
        ConfigError: It is something else; the message names the place.
    """
    try:
        document = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"the file is no JSON ({error}); give what `shield bench --json FILE` wrote"
        ) from error
    if not isinstance(document, dict) or document.get("format") != 1:
        raise ConfigError(
            "the file is no benchmark of format 1; give what `shield bench --json FILE` wrote"
        )
    for kind in ("figures", "ratios", "targets"):
        _check_rows(document.get(kind), kind)
    try:
        benchmark_markdown(document)
    except (ArithmeticError, AttributeError, KeyError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the benchmark is incomplete ({type(error).__name__}: {error}); "
            "write it anew with `shield bench --json FILE`"
        ) from error
    return document


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")


def _check_rows(rows: object, kind: str) -> None:
    if not isinstance(rows, list) or len(rows) > _MAX_ROWS:
        raise ConfigError(f"{kind!r} of the benchmark is no list of at most {_MAX_ROWS:,} rows")
    names: set[str] = set()
    for position, row in enumerate(rows):
        place = f"{kind}[{position}] of the benchmark"
        name = row.get("name") if isinstance(row, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or name in names:
            raise ConfigError(f"{place} has no name of its own")
        names.add(name)
        place += f" ({ascii(name)[1:-1]})"
        needed = ("target",) if kind == "targets" else ("value",)
        for key in (*needed, "low", "high", "n", "acceptable", "poor"):
            if not _is_number(row.get(key)) and (key in needed or row.get(key) is not None):
                raise ConfigError(f"{key!r} of {place} is no finite number")
        for key in ("unit", "group", "better"):
            if not isinstance(row.get(key, ""), str):
                raise ConfigError(f"{key!r} of {place} is no text")


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    )  # NaN and endless integers fail the comparison


def compare_benchmarks(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Set each figure and ratio that both documents have, in the same unit, side by side.

    Intervals cover what varies within a run. Another load or another machine moves every time at
    once, so read the ratios first and repeat a run before blaming a change.

    Returns:
        Rows of `name`, `unit`, `better`, `before`, `after`, `ratio` (after / before, `None` for a
        zero), `is_disjoint` (the intervals share no value; an open end reaches without bound) and
        `verdict`: `better` or `worse` where they are disjoint, else `not decisive`.

    Raises:
        ConfigError: One of them is no benchmark document.
    """
    old, new = _named(before, "first"), _named(after, "second")
    rows = []
    for name, figure in new.items():
        earlier = old.get(name)
        if earlier is None or earlier.get("unit") != figure.get("unit"):
            continue
        is_above = _end(figure, "low", -math.inf) > _end(earlier, "high", math.inf)
        is_below = _end(figure, "high", math.inf) < _end(earlier, "low", -math.inf)
        is_better = is_above if figure.get("better") == "higher" else is_below
        is_disjoint = is_above or is_below
        rows.append(
            {
                "name": name,
                "unit": figure.get("unit", ""),
                "better": figure.get("better", "lower"),
                "before": earlier["value"],
                "after": figure["value"],
                "ratio": figure["value"] / earlier["value"] if earlier["value"] else None,
                "is_disjoint": is_disjoint,
                "verdict": ("better" if is_better else "worse") if is_disjoint else "not decisive",
            }
        )
    return rows


def _end(figure: Mapping[str, Any], end: str, unbounded: float) -> float:
    value = figure.get(end)
    return unbounded if value is None else float(value)


def _named(document: Mapping[str, Any], which: str) -> dict[str, Mapping[str, Any]]:
    try:
        rows = [*document["figures"], *document["ratios"]]
        return {row["name"]: row for row in rows if math.isfinite(row["value"])}
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"the {which} document is no benchmark ({error!r}); "
            "give what `shield bench --json` wrote"
        ) from error


def comparison_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what `compare_benchmarks` tells: how many figures moved, and a table of those that did."""
    by_verdict = {
        verdict: [row for row in rows if row["verdict"] == verdict]
        for verdict in ("worse", "better", "not decisive")
    }
    lines = [
        f"Of {len(rows):,} figures that both have, {len(by_verdict['worse']):,} got worse, "
        f"{len(by_verdict['better']):,} got better, and {len(by_verdict['not decisive']):,} have "
        "intervals that overlap. Another load moves all times at once: repeat before you blame "
        "a change.",
    ]
    moved = by_verdict["worse"] + by_verdict["better"]
    if moved:
        lines += [
            "",
            "| figure | before | after | unit | after / before | verdict |",
            "| --- | ---: | ---: | --- | ---: | --- |",
        ]
    for row in moved:
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(
            f"| {row['name']} | {number(row['before'])} | {number(row['after'])} "
            f"| {row['unit']} | {ratio} | {row['verdict']} |"
        )
    return "\n".join(lines) + "\n"


def benchmark_markdown(document: Mapping[str, Any]) -> str:
    """Return the document as tables: figures, the reference's targets beside them, and ratios."""
    machine = document["machine"]
    targets = {target["name"]: target for target in document["targets"]}
    facts = [
        f"{document['created_at']}, {document['seconds']:.0f} s",
        machine["cpu"],
        f"{machine['usable_cores']} of {machine['cores']} cores usable",
        f"{machine['memory_mb']:,} MB",
        machine["platform"],
        f"Python {machine['python']}",
        *(f"{name} {version}" for name, version in machine["packages"].items()),
    ]
    if machine["load_1_minute"] is not None:
        facts.append(f"load average {machine['load_1_minute']:.2f} at the start")
    lines = [
        "# Benchmark" + (" (quick)" if document["quick"] else ""),
        "",
        "; ".join(facts) + ".",
        "",
        "| figure (measured) | value | unit | 95% interval | n | beside it "
        "| reference's target (not measured) |",
        "| --- | ---: | --- | --- | ---: | --- | --- |",
    ]
    lines += [
        f"| {figure['name']} | {number(figure['value'])} | {figure['unit']} | {_interval(figure)} "
        f"| {figure['n']:,} | {_beside(figure['detail'])} "
        f"| {_band(targets.get(figure['target']))} |"
        for figure in document["figures"]
    ]
    lines += [
        "",
        "| ratio (measured) | value | 95% interval | n | beside it | aim |",
        "| --- | ---: | --- | ---: | --- | --- |",
    ]
    for ratio in document["ratios"]:
        sign = "≥" if ratio["better"] == "higher" else "≤"
        lines.append(
            f"| {ratio['name']} | {number(ratio['value'])} | {_interval(ratio)} "
            f"| {ratio['n']:,} | {_beside(ratio['detail'])} | {sign} {number(ratio['target'])} |"
        )
    return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    """Return three significant digits, large numbers whole and grouped; "-" for none."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 9)}f}"


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["low"], row["high"]
    if low is None and high is None:
        return "-"
    return f"{'?' if low is None else number(low)} - {'?' if high is None else number(high)}"


def _beside(detail: Mapping[str, Any]) -> str:
    """Return what a speed must not be read without."""
    parts = []
    if detail.get("escalated_share") is not None:
        parts.append(f"{detail['escalated_share']:.1%} escalated")
    if detail.get("hit_rate") is not None:
        parts.append(f"{detail['hit_rate']:.1%} hits")
    if detail.get("cpus_busy") is not None:
        parts.append(f"{detail['cpus_busy']:.2f} CPUs busy")
    return ", ".join(parts)


def _band(target: Mapping[str, Any] | None) -> str:
    if target is None:
        return ""
    sign, beyond = ("<", ">") if target["better"] == "lower" else (">", "<")
    text = f"{sign} {target['target']:,g} {target['unit']}"
    if target["acceptable"] is not None:
        text += f", acceptable {sign} {target['acceptable']:,g}"
    if target["poor"] is not None:
        text += f", poor {beyond} {target['poor']:,g}"
    return text

"""A comparison in words: which misses fewer, which raises fewer false alarms, at what latency.

Only what is decided after Holm's adjustment is said as a fact; the rest says what would decide it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shield_engine.types import LABELS, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shield_engine.decide.paired import LatencyRatio
    from shield_engine.statistics import Figure
    from shield_engine.statistics.tests import PairTest

__all__ = ["Nouns", "about", "latency_phrase", "pair_sentence"]

_SAME_LATENCY = 0.05
_RISKY_NOUNS = {"injection": "attacks", "toxic": "toxic texts"}
_HARMLESS_NOUNS = {"benign": "benign rows", "clean": "clean rows"}


@dataclass(frozen=True, slots=True)
class Nouns:
    """What rows of a kind are called.

    Attributes:
        risky: Plural of the rows that should be flagged; empty for three classes.
        harmless: Plural of the others; empty for three classes.
    """

    risky: str
    harmless: str

    @classmethod
    def of(cls, task: Task, label_names: Sequence[str]) -> Nouns:
        """Return the nouns of a task, or of the two labels that occur in a sentiment set."""
        if len(label_names) != 2:
            return cls("", "")
        other, risky = label_names if task is Task.SENTIMENT else LABELS[task]
        return cls(
            _RISKY_NOUNS.get(risky, f"{risky} texts"), _HARMLESS_NOUNS.get(other, f"{other} texts")
        )


def about(rows: int) -> str:
    """Return a number of rows rounded up to two digits that count: 412 is "420"."""
    step = 10 ** max(0, len(str(rows)) - 2)
    return f"{math.ceil(rows / step) * step:,}"


def latency_phrase(ratio: LatencyRatio | None) -> str:
    """Return "at 2.1 times the p95 latency", or nothing where it was not measured."""
    if ratio is None or ratio.ratio is None:
        return ""
    times = ratio.ratio
    is_same = ratio.low is not None and ratio.high is not None and ratio.low <= 1 <= ratio.high
    if is_same or abs(times - 1) < _SAME_LATENCY:
        return f"at about the same p{ratio.percentile} latency"
    written = (
        f"{times:,.0f}" if times >= 10 else f"{times:.1f}" if times >= 0.95 else f"{times:.2g}"
    )
    return f"at {written} times the p{ratio.percentile} latency"


def pair_sentence(
    candidate: str,
    baseline: str,
    *,
    nouns: Nouns,
    n: int,
    differing: int,
    differences: Mapping[str, Figure],
    tests: Sequence[PairTest],
    latency: LatencyRatio | None,
) -> str:
    """Return one sentence of verdict on a candidate against the baseline.

    Args:
        candidate: Its title.
        baseline: Its title.
        nouns: What the rows are called.
        n: Rows with a label and every score.
        differing: Rows of those on which the two verdicts differ.
        differences: Candidate minus baseline, as `Pair.differences`.
        tests: Adjusted tests of this pair.
        latency: p95 of the candidate over that of the baseline.
    """
    at = latency_phrase(latency)
    if n == 0:
        return (
            f"No row has both a label and a score of each, so {candidate} and {baseline} can be "
            "compared only on what they flag and how long they take"
            + (f": {candidate} works {at}." if at else ".")
        )
    if n == 1:
        return f"Not decisive: one labelled row cannot tell {candidate} from {baseline}."
    if not differing:
        return f"{candidate} and {baseline} gave the same verdict on all {n:,} labelled rows" + (
            f", {candidate} {at}." if at else "."
        )
    by_scope: dict[str, PairTest] = {test.scope: test for test in tests}
    if nouns.risky:
        return _binary(candidate, baseline, nouns, n, differences, by_scope, at)
    return _multiclass(candidate, baseline, differences, by_scope["all"], at)


def _binary(
    candidate: str,
    baseline: str,
    nouns: Nouns,
    n: int,
    differences: Mapping[str, Figure],
    tests: Mapping[str, PairTest],
    at: str,
) -> str:
    misses, alarms = tests.get("risky"), tests.get("harmless")
    facts: list[tuple[bool, str]] = []
    if misses and misses.is_decided:
        is_better, size = _sized(differences["recall"])
        word = "fewer" if is_better else "more"
        facts.append((is_better, f"misses {size} {word} {nouns.risky} per 1,000"))
    if alarms and alarms.is_decided:
        is_more, size = _sized(differences["fpr"])
        word = "more" if is_more else "fewer"
        facts.append((not is_more, f"raises {size} {word} false alarms per 1,000 {nouns.harmless}"))
    overall = tests["all"]
    if not facts and overall.is_decided:
        is_better, size = _sized(differences["accuracy"])
        word = "more" if is_better else "fewer"
        facts.append((is_better, f"gets {size} {word} rows per 1,000 right"))
    open_points = [
        _open_point("missed " + nouns.risky, nouns.risky, misses),
        _open_point("false alarms", nouns.harmless, alarms),
    ]
    left = [point for point in open_points if point]
    if not facts:
        head = f"Not decisive: on these {n:,} rows {candidate} cannot be told from {baseline}"
        return "; ".join([head, *left]) + (f"; {candidate} works {at}." if at else ".")
    head = f"{candidate} {facts[0][1]} than {baseline}"
    if len(facts) == 2:
        joint = "and" if facts[0][0] == facts[1][0] else "but"
        head += f" {joint} {facts[1][1]}"
    return "; ".join([f"{head}, {at}" if at else head, *left]) + "."


def _multiclass(
    candidate: str, baseline: str, differences: Mapping[str, Figure], test: PairTest, at: str
) -> str:
    if not test.is_decided:
        needed = _would(test, "labelled rows")
        head = f"Not decisive: on these {test.n:,} rows {candidate} cannot be told from {baseline}"
        return f"{head} by accuracy{needed}" + (f"; {candidate} works {at}." if at else ".")
    is_better, size = _sized(differences["accuracy"])
    word = "more" if is_better else "fewer"
    macro = differences["macro_f1"]
    aside = "" if macro.value is None else f" (macro F1 {_points(macro)} points)"
    head = f"{candidate} gets {size} {word} texts per 1,000 right than {baseline}{aside}"
    return f"{head}, {at}." if at else f"{head}."


def _open_point(what: str, rows: str, test: PairTest | None) -> str:
    """Return what a test leaves open, empty if it is decided."""
    if test is None:
        return f"there are no {rows}, so {what} are unknown"
    if test.is_decided:
        return ""
    if not test.only_baseline + test.only_candidate:
        return f"on {what} they agree in all {test.n:,} {rows}"
    return f"on {what} the data cannot decide{_would(test, rows)}"


def _would(test: PairTest, rows: str) -> str:
    if test.rows_needed is None:
        return ", and no difference shows"
    return f", about {about(test.rows_needed)} more {rows} would"


def _sized(figure: Figure) -> tuple[bool, str]:
    """Return whether a difference is positive, and its size per 1,000: "3 to 9" or "about 3"."""
    value = figure.value or 0.0
    ends = (figure.low, figure.high)
    if ends[0] is None or ends[1] is None or ends[0] * ends[1] <= 0:
        return value > 0, f"about {_per_thousand(value)}"
    low, high = (_per_thousand(end) for end in sorted(ends, key=abs))  # type: ignore[arg-type]
    return value > 0, f"about {low}" if low == high else f"{low} to {high}"


def _per_thousand(share: float) -> str:
    size = 1_000 * abs(share)
    if size >= 0.95:
        return f"{size:,.0f}"
    return f"{size:.1f}" if size >= 0.05 else "less than 0.1"


def _points(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{100 * (figure.value or 0.0):+.1f}"
    return f"{100 * figure.low:+.1f} to {100 * figure.high:+.1f}"

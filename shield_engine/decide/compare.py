"""Candidates against a baseline on the same rows: figures, differences, tests and a verdict.

One function for the page, gates and reports; pure. Hides how rows are counted, resampled and tested
(`paired`), broken down (`slices`), and put in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.decide.figures import Evaluated, figures_of
from shield_engine.decide.paired import (
    LatencyRatio,
    Patterns,
    auc_difference,
    latency_ratio,
)
from shield_engine.decide.slices import Counted, FrontierPoint, SliceTable, frontier, slice_table
from shield_engine.metrics.inputs import group_codes
from shield_engine.statistics import Figure
from shield_engine.statistics.tests import PairTest, Scope, holm, pair_test, settled
from shield_engine.types import LABELS, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shield_engine.decide.candidates import Aligned
    from shield_engine.decide.views import ModeView

__all__ = [
    "Comparison",
    "Nouns",
    "Pair",
    "about",
    "compare",
    "compare_slices",
    "latency_phrase",
    "pair_sentence",
]

MOST_RESAMPLED_ROWS = 200_000
"""Above this many rows in groups a candidate's own F1, MCC and areas are given without an interval:
200 resamples of a million rows take some ten seconds a candidate. Differences always have theirs.
"""

_NO_SLICES: Mapping[str, NDArray[np.object_]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Pair:
    """One candidate against the baseline.

    Attributes:
        candidate: Its title.
        baseline: Its title.
        n: Rows with a label and a score of every candidate.
        scored: Rows that both scored, labelled or not.
        differing: Rows of those on which their verdicts differ.
        differences: Candidate minus baseline, by metric, with paired intervals.
        tests: On all, risky and harmless rows, as far as there are any.
        latency: At p50 and p95.
        verdict: One sentence in words.
    """

    candidate: str
    baseline: str
    n: int
    scored: int
    differing: int
    differences: Mapping[str, Figure]
    tests: tuple[PairTest, ...]
    latency: tuple[LatencyRatio, LatencyRatio]
    verdict: str

    def test(self, scope: str) -> PairTest | None:
        """Return the test on one kind of rows, `None` if there are no such rows."""
        return next((test for test in self.tests if test.scope == scope), None)

    def as_dict(self) -> dict[str, Any]:
        """Return the pair as plain JSON values."""
        return {
            "candidate": self.candidate,
            "baseline": self.baseline,
            "verdict": self.verdict,
            "n": self.n,
            "scored": self.scored,
            "differing": self.differing,
            "differences": {
                name: {**figure.as_dict(), "method": figure.method}
                for name, figure in self.differences.items()
            },
            "tests": [test.as_dict() for test in self.tests],
            "latency": [ratio.as_dict() for ratio in self.latency],
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidates on the same rows.

    Attributes:
        task: Of all candidates.
        label_names: The task's labels, or the two that occur in a sentiment set.
        rows: Rows that all candidates share.
        n: Rows of those with a label and a score of every candidate; metrics use these.
        positives: Risky rows among `n`; `None` for three classes.
        metric: What the winner is chosen by: f1, accuracy if one class is missing, or macro_f1.
        standings: Every candidate, in the order given.
        baseline: Position of the baseline.
        winner: Position of the highest `metric`, the first of equals; `None` without labels.
        pairs: Every other candidate against the baseline, in the order given.
        slices: By slice column.
        frontier: Accuracy, latency and cost; empty without labels.
        confidence: Of every interval, and of the whole family of tests.
        seed: Of every resampling.
    """

    task: Task
    label_names: tuple[str, ...]
    rows: int
    n: int
    positives: int | None
    metric: str
    standings: tuple[Evaluated, ...]
    baseline: int
    winner: int | None
    pairs: tuple[Pair, ...]
    slices: Mapping[str, SliceTable]
    frontier: tuple[FrontierPoint, ...]
    confidence: float
    seed: int

    @property
    def lead(self) -> Pair | None:
        """The winner against the baseline, or the best other one if the baseline wins."""
        if not self.pairs:
            return None
        values = {
            standing.title: standing.metrics[self.metric].value or 0.0
            for standing in self.standings
        }
        return max(self.pairs, key=lambda pair: values[pair.candidate])

    @property
    def verdict(self) -> str:
        """The verdict on the best candidate against the baseline, in one sentence."""
        lead = self.lead
        return lead.verdict if lead else "There is one candidate only; add another to compare."

    def priced(self, price_per_hour: float | None) -> Comparison:
        """Return the comparison with costs at a machine's price per hour, in any currency."""
        standings = tuple(standing.priced(price_per_hour) for standing in self.standings)
        points = _frontier(standings, self.metric) if self.frontier else ()
        return replace(self, standings=standings, frontier=points)

    @property
    def tests(self) -> tuple[PairTest, ...]:
        """The family that Holm adjusts."""
        return tuple(test for pair in self.pairs for test in pair.tests)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        return {
            "task": self.task.value,
            "labels": list(self.label_names),
            "rows": self.rows,
            "n": self.n,
            "positives": self.positives,
            "metric": self.metric,
            "baseline": self.standings[self.baseline].title,
            "winner": None if self.winner is None else self.standings[self.winner].title,
            "verdict": self.verdict,
            "confidence": self.confidence,
            "seed": self.seed,
            "tests_in_family": len(self.tests),
            "candidates": [standing.as_candidate() for standing in self.standings],
            "pairs": [pair.as_dict() for pair in self.pairs],
            "slices": {name: table.as_dict() for name, table in self.slices.items()},
            "frontier": [point.as_dict() for point in self.frontier],
        }


def compare(
    aligned: Aligned,
    baseline: int = 0,
    slices: Mapping[str, NDArray[np.object_]] = _NO_SLICES,
    *,
    seed: int = 7,
    confidence: float = 0.95,
    price_per_hour: float | None = None,
    resamples: int | None = None,
) -> Comparison:
    """Compare candidates with a baseline on their common rows.

    Metrics, differences and tests use rows with a label and a score of every candidate. Each other
    candidate gives up to three tests (all, risky and harmless rows; three classes: all rows), and
    Holm adjusts over all of them together. Rows without labels give flag rates, disagreement and
    latency only.

    Args:
        aligned: Candidates as views of the same rows.
        baseline: Position of the one that the others are compared with.
        slices: Slice column → each row's value, in the order of `aligned`'s rows.
        seed: Of every resampling.
        confidence: Of every interval, and of the family of tests.
        price_per_hour: Of the machine that scans, in any currency; gives the cost.
        resamples: Of each candidate's own figures; see `binary_metrics`. By default
            `resample_count(n)`, and none above `MOST_RESAMPLED_ROWS` in groups.

    Raises:
        ValueError: There is no such baseline.
    """
    views = aligned.views
    if not 0 <= baseline < len(views):
        raise ValueError(f"baseline {baseline} is none of {len(views)} candidates")
    counted = _counted(aligned)
    labels, names = counted.labels, views[0].label_names
    standings = _standings(aligned, counted, seed, confidence, resamples)
    metric = _metric(views[0], labels)
    winner = _winner(standings, metric) if len(labels) else None
    tables = {} if winner is None else slices
    return Comparison(
        task=views[0].task,
        label_names=names,
        rows=len(aligned.counts),
        n=len(labels),
        positives=int((labels == 1).sum()) if len(names) == 2 else None,
        metric=metric,
        standings=standings,
        baseline=baseline,
        winner=winner,
        pairs=_pairs(aligned, counted, baseline, seed, confidence),
        slices={
            name: compare_slices(
                aligned, name, values, winner or 0, seed=seed, confidence=confidence
            )
            for name, values in tables.items()
        },
        frontier=_frontier(standings, metric) if winner is not None else (),
        confidence=confidence,
        seed=seed,
    ).priced(price_per_hour)


def compare_slices(
    aligned: Aligned,
    name: str,
    values: NDArray[np.object_],
    winner: int,
    *,
    seed: int = 7,
    confidence: float = 0.95,
) -> SliceTable:
    """Return candidates by the values of one slice column; see `slice_table`.

    Args:
        aligned: Candidates as views of the same rows.
        name: Of the slice column.
        values: Each row's value, in the order of `aligned`'s rows.
        winner: Position of the candidate that leads overall.
        seed: Of the resampling.
        confidence: Of intervals, and of the table's own family of tests.
    """
    counted, values = _counted(aligned), values[aligned.counts]
    return slice_table(name, values, counted, winner, seed=seed, confidence=confidence)


def _counted(aligned: Aligned) -> Counted:
    """Return the rows that count for every candidate, groups numbered without gaps."""
    rows, views, groups = aligned.counts, aligned.views, aligned.groups
    return Counted(
        titles=_titles(aligned),
        labels=views[0].labels[rows],
        verdicts=np.column_stack([view.predicted[rows] for view in views]),
        n_classes=len(views[0].label_names),
        groups=None if groups is None else group_codes(groups[rows], int(rows.sum())),
    )


def _titles(aligned: Aligned) -> tuple[str, ...]:
    """Return each candidate's title, numbered where two are the same."""
    titles: list[str] = []
    for candidate in aligned.candidates:
        title = wanted = candidate.title or candidate.mode.value
        number = 1
        while title in titles:
            number += 1
            title = f"{wanted} ({number})"
        titles.append(title)
    return tuple(titles)


def _standings(
    aligned: Aligned, counted: Counted, seed: int, confidence: float, resamples: int | None
) -> tuple[Evaluated, ...]:
    if resamples is None and counted.groups is not None:
        resamples = 0 if len(counted.labels) > MOST_RESAMPLED_ROWS else None
    return tuple(
        figures_of(
            view,
            aligned.counts,
            aligned.groups,
            title=title,
            seed=seed,
            resamples=resamples,
            confidence=confidence,
        )
        for view, title in zip(aligned.views, counted.titles, strict=True)
    )


def _metric(view: ModeView, labels: NDArray[np.int64]) -> str:
    if view.risk is None:
        return "macro_f1"
    return "f1" if len(np.unique(labels)) == 2 else "accuracy"


def _winner(standings: Sequence[Evaluated], metric: str) -> int:
    values = [standing.metrics[metric].value or 0.0 for standing in standings]
    return values.index(max(values))


def _pair_tests(counted: Counted, baseline: int, place: int) -> tuple[PairTest, ...]:
    labels = counted.labels
    scopes: dict[Scope, NDArray[np.bool_]] = {"all": labels >= 0}
    if counted.n_classes == 2:
        scopes |= {"risky": labels == 1, "harmless": labels == 0}
    return tuple(
        pair_test(scope, part.is_right[:, baseline], part.is_right[:, place], part.groups)
        for scope, rows in scopes.items()
        if rows.any()
        for part in [counted.at(rows)]
    )


def _family(
    pairs: Sequence[tuple[PairTest, ...]], confidence: float
) -> tuple[tuple[PairTest, ...], ...]:
    """Return the tests of all pairs, adjusted together."""
    adjusted = holm([test.p_value for tests in pairs for test in tests])
    undecided = int(np.sum(adjusted > 1 - confidence))
    level = (1 - confidence) / max(1, undecided)
    left = iter(adjusted.tolist())
    return tuple(
        tuple(settled(test, next(left), level, confidence) for test in tests) for tests in pairs
    )


def _pairs(
    aligned: Aligned, counted: Counted, baseline: int, seed: int, confidence: float
) -> tuple[Pair, ...]:
    """Return every other candidate against the baseline."""
    others = [place for place in range(len(counted.titles)) if place != baseline]
    family = _family([_pair_tests(counted, baseline, place) for place in others], confidence)
    patterns = Patterns.of(
        counted.labels, counted.verdicts, counted.n_classes, groups=counted.groups, seed=seed
    )
    return tuple(
        _pair(aligned, counted, (baseline, place), patterns, tests, seed, confidence)
        for place, tests in zip(others, family, strict=True)
    )


def _pair(
    aligned: Aligned,
    counted: Counted,
    places: tuple[int, int],
    patterns: Patterns,
    tests: tuple[PairTest, ...],
    seed: int,
    confidence: float,
) -> Pair:
    """Return the second of two places against the first."""
    keep, (old, new) = aligned.counts, (aligned.views[place] for place in places)
    baseline, candidate = (counted.titles[place] for place in places)
    differences = patterns.differences(*places, confidence)
    if old.risk is not None and new.risk is not None:
        risks = old.risk[keep], new.risk[keep]
        differences["roc_auc"] = auc_difference(
            counted.labels, *risks, groups=counted.groups, confidence=confidence
        )
    is_scored = old.is_scored & new.is_scored
    before, after = (np.where(is_scored, view.latency_ms, np.nan) for view in (old, new))
    p50, p95 = (
        latency_ratio(before, after, percentile, seed=seed, confidence=confidence)
        for percentile in (50, 95)
    )
    differs = is_scored & (old.predicted != new.predicted)
    pair = Pair(
        candidate=candidate,
        baseline=baseline,
        n=len(counted.labels),
        scored=int(is_scored.sum()),
        differing=int(differs.sum()),
        differences=differences,
        tests=tests,
        latency=(p50, p95),
        verdict="",
    )
    nouns = Nouns.of(old.task, old.label_names)
    return replace(pair, verdict=pair_sentence(pair, nouns, int((differs & keep).sum())))


def _frontier(standings: Sequence[Evaluated], metric: str) -> tuple[FrontierPoint, ...]:
    return frontier(
        [standing.title for standing in standings],
        [1 - (standing.metrics[metric].value or 0.0) for standing in standings],
        [standing.latency.p95 for standing in standings],
        [standing.asked_rate or 0.0 for standing in standings],
        [standing.cost_per_million for standing in standings],
    )


# --- the verdict in words ---------------------------------------------------------------------
#
# Only what is decided after Holm's adjustment is said as a fact; the rest says what would decide it.

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


def pair_sentence(pair: Pair, nouns: Nouns, differing: int) -> str:
    """Return one sentence of verdict on a candidate against the baseline.

    Args:
        pair: The two, with differences and adjusted tests.
        nouns: What the rows are called.
        differing: Labelled rows that both scored and on which the two verdicts differ.
    """
    candidate, baseline, n = pair.candidate, pair.baseline, pair.n
    at = latency_phrase(pair.latency[1])
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
    return _binary(pair, nouns, at) if nouns.risky else _multiclass(pair, at)


def _binary(pair: Pair, nouns: Nouns, at: str) -> str:
    candidate, baseline, differences = pair.candidate, pair.baseline, pair.differences
    misses, alarms, overall = (pair.test(scope) for scope in ("risky", "harmless", "all"))
    facts: list[tuple[bool, str]] = []
    if misses and misses.is_decided:
        is_better, size = _sized(differences["recall"])
        word = "fewer" if is_better else "more"
        facts.append((is_better, f"misses {size} {word} {nouns.risky} per 1,000"))
    if alarms and alarms.is_decided:
        is_more, size = _sized(differences["fpr"])
        word = "more" if is_more else "fewer"
        facts.append((not is_more, f"raises {size} {word} false alarms per 1,000 {nouns.harmless}"))
    if not facts and overall and overall.is_decided:
        is_better, size = _sized(differences["accuracy"])
        word = "more" if is_better else "fewer"
        facts.append((is_better, f"gets {size} {word} rows per 1,000 right"))
    open_points = [
        _open_point("missed " + nouns.risky, nouns.risky, misses),
        _open_point("false alarms", nouns.harmless, alarms),
    ]
    left = [point for point in open_points if point]
    if not facts:
        head = f"Not decisive: on these {pair.n:,} rows {candidate} cannot be told from {baseline}"
        return "; ".join([head, *left]) + (f"; {candidate} works {at}." if at else ".")
    head = f"{candidate} {facts[0][1]} than {baseline}"
    if len(facts) == 2:
        joint = "and" if facts[0][0] == facts[1][0] else "but"
        head += f" {joint} {facts[1][1]}"
    return "; ".join([f"{head}, {at}" if at else head, *left]) + "."


def _multiclass(pair: Pair, at: str) -> str:
    candidate, baseline, differences = pair.candidate, pair.baseline, pair.differences
    (test,) = pair.tests
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

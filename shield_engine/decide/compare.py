"""Candidates against a baseline on the same rows: figures, differences, tests and a verdict.

One function for the page, gates and reports; pure. Hides how rows are counted, resampled and tested
(`paired`), said in words (`verdict`) and broken down (`breakdown`).
"""

from __future__ import annotations

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
from shield_engine.decide.slices import FrontierPoint, SliceTable, frontier, slice_table
from shield_engine.decide.verdict import Nouns, pair_sentence
from shield_engine.metrics.inputs import group_codes
from shield_engine.statistics import Figure
from shield_engine.statistics.tests import PairTest, holm, pair_test, settled
from shield_engine.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shield_engine.decide.candidates import Aligned
    from shield_engine.decide.views import ModeView

__all__ = ["Comparison", "Pair", "compare", "compare_slices"]

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
    titles = _titles(aligned)
    keep = aligned.counts
    labels = views[0].labels[keep]
    names = views[0].label_names
    groups = _codes(aligned, keep)
    if resamples is None and groups is not None and len(labels) > MOST_RESAMPLED_ROWS:
        resamples = 0
    standings = tuple(
        figures_of(
            view,
            keep,
            aligned.groups,
            title=title,
            seed=seed,
            resamples=resamples,
            confidence=confidence,
        ).priced(price_per_hour)
        for view, title in zip(views, titles, strict=True)
    )
    verdicts = np.column_stack([view.predicted[keep] for view in views])
    patterns = Patterns.of(labels, verdicts, len(names), groups=groups, seed=seed)
    others = [place for place in range(len(views)) if place != baseline]
    family = _family(
        [_pair_tests(labels, verdicts, baseline, place, groups, len(names)) for place in others],
        confidence,
    )
    metric = _metric(views[0], labels)
    winner = _winner(standings, metric) if len(labels) else None
    return Comparison(
        task=views[0].task,
        label_names=names,
        rows=len(keep),
        n=len(labels),
        positives=int((labels == 1).sum()) if len(names) == 2 else None,
        metric=metric,
        standings=standings,
        baseline=baseline,
        winner=winner,
        pairs=tuple(
            _pair(aligned, titles, baseline, place, patterns, tests, groups, seed, confidence)
            for place, tests in zip(others, family, strict=True)
        ),
        slices={}
        if winner is None
        else {
            name: compare_slices(aligned, name, values, winner, seed=seed, confidence=confidence)
            for name, values in slices.items()
        },
        frontier=_frontier(standings, metric) if winner is not None else (),
        confidence=confidence,
        seed=seed,
    )  # fmt: skip


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
    keep = aligned.counts
    return slice_table(
        name,
        values[keep],
        _titles(aligned),
        aligned.views[0].labels[keep],
        np.column_stack([view.predicted[keep] for view in aligned.views]),
        winner=winner,
        n_classes=len(aligned.views[0].label_names),
        groups=_codes(aligned, keep),
        seed=seed,
        confidence=confidence,
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


def _codes(aligned: Aligned, keep: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Return the group of each row that counts, numbered without gaps."""
    return None if aligned.groups is None else group_codes(aligned.groups[keep], int(keep.sum()))


def _metric(view: ModeView, labels: NDArray[np.int64]) -> str:
    if view.risk is None:
        return "macro_f1"
    return "f1" if len(np.unique(labels)) == 2 else "accuracy"


def _winner(standings: Sequence[Evaluated], metric: str) -> int:
    values = [standing.metrics[metric].value or 0.0 for standing in standings]
    return values.index(max(values))


def _pair_tests(
    labels: NDArray[np.int64],
    verdicts: NDArray[np.int64],
    baseline: int,
    place: int,
    groups: NDArray[np.int64] | None,
    n_classes: int,
) -> tuple[PairTest, ...]:
    before, after = verdicts[:, baseline] == labels, verdicts[:, place] == labels
    scopes = {"all": labels >= 0}
    if n_classes == 2:
        scopes |= {"risky": labels == 1, "harmless": labels == 0}
    return tuple(
        pair_test(
            scope,  # type: ignore[arg-type]
            before[rows],
            after[rows],
            None if groups is None else groups[rows],
        )
        for scope, rows in scopes.items()
        if rows.any()
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


def _pair(
    aligned: Aligned,
    titles: Sequence[str],
    baseline: int,
    place: int,
    patterns: Patterns,
    tests: tuple[PairTest, ...],
    groups: NDArray[np.int64] | None,
    seed: int,
    confidence: float,
) -> Pair:
    keep = aligned.counts
    old, new = aligned.views[baseline], aligned.views[place]
    differences = patterns.differences(baseline, place, confidence)
    if old.risk is not None and new.risk is not None:
        differences["roc_auc"] = auc_difference(
            old.labels[keep], old.risk[keep], new.risk[keep], groups=groups, confidence=confidence
        )
    before, after = old.latency_ms, new.latency_ms
    is_scored = old.is_scored & new.is_scored
    before, after = (np.where(is_scored, ms, np.nan) for ms in (before, after))
    latency = tuple(
        latency_ratio(before, after, percentile, seed=seed, confidence=confidence)
        for percentile in (50, 95)
    )
    differs = is_scored & (old.predicted != new.predicted)
    n = int(keep.sum())
    return Pair(
        candidate=titles[place],
        baseline=titles[baseline],
        n=n,
        scored=int(is_scored.sum()),
        differing=int(differs.sum()),
        differences=differences,
        tests=tests,
        latency=(latency[0], latency[1]),
        verdict=pair_sentence(
            titles[place], titles[baseline], nouns=Nouns.of(old.task, old.label_names), n=n,
            differing=int((differs & keep).sum()), differences=differences, tests=tests,
            latency=latency[1],
        ),
    )  # fmt: skip


def _frontier(standings: Sequence[Evaluated], metric: str) -> tuple[FrontierPoint, ...]:
    return frontier(
        [standing.title for standing in standings],
        [1 - (standing.metrics[metric].value or 0.0) for standing in standings],
        [standing.latency.p95 for standing in standings],
        [standing.asked_rate or 0.0 for standing in standings],
        [standing.cost_per_million for standing in standings],
    )

"""Where candidates part: by slice, by agreement of rules and model, and by what each costs.

Views of the same rows in, counts with the rows behind them out. Nothing here reads the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import proportion
from shield_engine.statistics.resampling import paired_difference, resample_count
from shield_engine.statistics.tests import holm, pair_p_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shield_engine.decide.views import ModeView
    from shield_engine.statistics.arrays import Ints, Mask
    from shield_engine.store.rows import RowFilter


__all__ = [
    "LENGTH_BANDS",
    "Change",
    "Counted",
    "FrontierPoint",
    "Lattice",
    "LatticeLine",
    "Prefilter",
    "SliceRow",
    "SliceTable",
    "SliceTest",
    "frontier",
    "in_length_band",
    "lattice",
    "length_bands",
    "slice_table",
]

MOST_SLICES = 40
"""Values of one slice column that are compared, the largest first; the others are counted."""

_BAND_EDGES = (50, 200, 500, 2_000)
LENGTH_BANDS = (
    "up to 50 characters",
    "51 to 200 characters",
    "201 to 500 characters",
    "501 to 2,000 characters",
    "over 2,000 characters",
    "beyond the model's window",
)
"""Length bands in order; the last one outranks the characters where windows are known."""

Finding = Literal["", "loses", "seems to lose"]


@dataclass(frozen=True, slots=True)
class SliceTest:
    """The overall winner against one rival in one slice.

    Attributes:
        rival: Its title.
        difference: Accuracy of the winner minus that of the rival in the slice.
        low: Lower end of its interval (paired bootstrap); `None` if there is none.
        high: Upper end.
        p_value: Exact McNemar; with groups, whole groups change sides.
        p_adjusted: After Holm over all slices and rivals of the table.
    """

    rival: str
    difference: float
    low: float | None
    high: float | None
    p_value: float
    p_adjusted: float


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One value of a slice column.

    Attributes:
        value: The slice's value; empty where rows have none.
        n: Labelled rows scored by all candidates.
        figures: By title: accuracy, and for two classes recall and fpr, with Wilson intervals.
        tests: The winner against each other candidate.
        finding: "loses" if some rival is better and Holm decides it, "seems to lose" if a rival is
            ahead but that is not decided.
    """

    value: str
    n: int
    figures: Mapping[str, Mapping[str, Figure]]
    tests: tuple[SliceTest, ...]
    finding: Finding

    @property
    def worst(self) -> SliceTest | None:
        """The test against the rival that is furthest ahead, or least behind."""
        return min(self.tests, key=lambda test: test.difference, default=None)


@dataclass(frozen=True, slots=True)
class SliceTable:
    """A slice column's values, the largest first (length bands in order).

    Attributes:
        name: Of the slice column.
        winner: Title of the overall winner.
        rows: Its values.
        left_out: Values beyond `MOST_SLICES`, and their rows.
    """

    name: str
    winner: str
    rows: tuple[SliceRow, ...]
    left_out: tuple[int, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the table as plain JSON values."""
        return {
            "name": self.name,
            "winner": self.winner,
            "left_out": {"values": self.left_out[0], "rows": self.left_out[1]},
            "rows": [
                {
                    "value": row.value,
                    "n": row.n,
                    "finding": row.finding,
                    "figures": {
                        title: {name: figure.as_dict() for name, figure in figures.items()}
                        for title, figures in row.figures.items()
                    },
                    "tests": [asdict(test) for test in row.tests],
                }
                for row in self.rows
            ],
        }


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """One candidate among accuracy, latency and cost.

    Attributes:
        title: The candidate.
        error: 1 minus the metric decided on, 0..1.
        p95_ms: Milliseconds; `None` if nothing was measured.
        calls: Share of rows that ask the model, 0..1.
        cost_per_million: Of a million scans; `None` without a price.
        is_optimal: True if no other candidate is at least as good in all and better in one.
        beaten_by: Titles of those that are.
    """

    title: str
    error: float
    p95_ms: float | None
    calls: float
    cost_per_million: float | None
    is_optimal: bool
    beaten_by: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the point as plain JSON values."""
        return asdict(self) | {"beaten_by": list(self.beaten_by)}


@dataclass(frozen=True, slots=True, eq=False)
class LatticeLine:
    """Rows with one label and one pair of verdicts.

    Attributes:
        label: Index of the label, -1 for none.
        heuristic: What the rules said.
        model: What the model said.
        rows: Positions of the rows.
        meaning: In words.
    """

    label: int
    heuristic: int
    model: int
    rows: Ints
    meaning: str


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What hybrid did to some rows: `what` in words, and their positions."""

    what: str
    rows: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Prefilter:
    """What the rules before the model save, and what that costs.

    Attributes:
        n: Rows scored by hybrid.
        avoided: Rows that hybrid decided without the model.
        risky: Risky rows scored by hybrid and by the model; 0 for three classes.
        lost: Positions of risky rows that the rules let through unasked and the model would have
            flagged at its threshold.
        harmless: Harmless rows scored by both.
        alarms: Positions of harmless rows that the rules flagged unasked and the model would not.
    """

    n: int
    avoided: int
    risky: int
    lost: Ints
    harmless: int
    alarms: Ints

    @property
    def avoided_share(self) -> float | None:
        """Share of model calls avoided; `None` without rows."""
        return self.avoided / self.n if self.n else None

    @property
    def lost_recall(self) -> float | None:
        """Recall lost to the prefilter; `None` without risky rows."""
        return len(self.lost) / self.risky if self.risky else None

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON values."""
        return {
            "n": self.n,
            "avoided": self.avoided,
            "avoided_share": self.avoided_share,
            "risky": self.risky,
            "lost": len(self.lost),
            "lost_recall": self.lost_recall,
            "harmless": self.harmless,
            "alarms": len(self.alarms),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """How the verdicts of rules and model meet the labels, and what hybrid made of it.

    Attributes:
        label_names: Names of labels and verdicts.
        n: Rows that both parts scored.
        lines: Each combination that occurs, disagreements first, then the largest first; they
            share no row and together hold all `n`.
        changes: What hybrid fixed and broke against each part, and where all are wrong; empty
            without labels or without hybrid.
        prefilter: What the rules save; `None` without hybrid.
    """

    label_names: tuple[str, ...]
    n: int
    lines: tuple[LatticeLine, ...]
    changes: tuple[Change, ...]
    prefilter: Prefilter | None

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON values; the rows behind them stay here."""
        names = self.label_names
        return {
            "n": self.n,
            "lines": [
                {
                    "label": names[line.label] if line.label >= 0 else None,
                    "heuristic": names[line.heuristic],
                    "model": names[line.model],
                    "rows": len(line.rows),
                    "meaning": line.meaning,
                }
                for line in self.lines
            ],
            "changes": [{"what": change.what, "rows": len(change.rows)} for change in self.changes],
            "prefilter": None if self.prefilter is None else self.prefilter.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows with a label and a verdict of every candidate.

    Attributes:
        titles: Of the candidates.
        labels: Shape (n,), none missing.
        verdicts: Shape (n, candidates), none missing.
        n_classes: Labels there are.
        groups: Codes of rows that belong together, shape (n,); `None` if none do.
    """

    titles: tuple[str, ...]
    labels: Ints
    verdicts: Ints
    n_classes: int
    groups: Ints | None = None

    @property
    def is_right(self) -> Mask:
        """True where a candidate's verdict is the label, shape (n, candidates)."""
        right: Mask = self.verdicts == self.labels[:, None]
        return right

    def at(self, rows: Mask | Ints) -> Counted:
        """Return some of the rows; groups keep their codes."""
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, labels=self.labels[rows], verdicts=self.verdicts[rows], groups=groups)


def length_bands(chars: Ints, is_beyond: Mask | None = None) -> NDArray[np.object_]:
    """Return the length band of each row.

    Args:
        chars: Characters of each text, shape (n,).
        is_beyond: True where the text took more than one of the model's windows, shape (n,).
    """
    names = np.array(LENGTH_BANDS, dtype=object)
    bands: NDArray[np.object_] = names[np.searchsorted(_BAND_EDGES, chars, side="left")]
    if is_beyond is not None:
        bands[is_beyond] = LENGTH_BANDS[-1]
    return bands


def in_length_band(rows: RowFilter, band: str) -> RowFilter:
    """Return a filter narrowed to one of `LENGTH_BANDS`.

    As in `length_bands`, rows beyond the model's window are in a band of their own.
    """
    place = LENGTH_BANDS.index(band)
    if place > len(_BAND_EDGES):
        return replace(rows, is_beyond_window=True)
    least = _BAND_EDGES[place - 1] + 1 if place else None
    most = _BAND_EDGES[place] if place < len(_BAND_EDGES) else None
    return replace(rows, chars=(least, most), is_beyond_window=False)


def slice_table(
    name: str,
    values: NDArray[np.object_],
    counted: Counted,
    winner: int,
    *,
    seed: int = 7,
    confidence: float = 0.95,
) -> SliceTable:
    """Return every candidate's figures by slice, with the slices where the winner loses.

    Args:
        name: Of the slice column.
        values: Each row's value, shape (n,).
        counted: Those rows.
        winner: Position of the overall winner.
        seed: Of the resampling.
        confidence: Of intervals, and of the family of tests.
    """
    titles = counted.titles
    places: dict[str, int] = {}
    codes = np.fromiter(
        (places.setdefault(str(value), len(places)) for value in values), np.int64, len(values)
    )
    names, counts = list(places), np.bincount(codes, minlength=len(places)).tolist()
    order = sorted(range(len(names)), key=lambda place: _slice_order(names[place], counts[place]))
    shown, hidden = order[:MOST_SLICES], order[MOST_SLICES:]
    by_code, ends = np.argsort(codes, kind="stable"), np.cumsum(counts)
    members = [counted.at(by_code[ends[place] - counts[place] : ends[place]]) for place in shown]
    rivals = [place for place in range(len(titles)) if place != winner]
    drafts = [
        [_slice_test(rows, rival, winner, seed, confidence) for rival in rivals] for rows in members
    ]
    adjusted = iter(holm([test.p_value for tests in drafts for test in tests]).tolist())
    lines = []
    for place, rows, tests in zip(shown, members, drafts, strict=True):
        final = tuple(replace(test, p_adjusted=next(adjusted)) for test in tests)
        behind = [test for test in final if test.difference < 0]
        finding: Finding = "seems to lose" if behind else ""
        if any(test.p_adjusted <= 1 - confidence for test in behind):
            finding = "loses"
        figures = {title: _rates(rows, column, confidence) for column, title in enumerate(titles)}
        lines.append(SliceRow(names[place], len(rows.labels), figures, final, finding))
    left_out = (len(hidden), sum(counts[place] for place in hidden))
    return SliceTable(name, titles[winner], tuple(lines), left_out)


def _slice_order(value: str, count: int) -> tuple[int, int, str]:
    band = LENGTH_BANDS.index(value) if value in LENGTH_BANDS else -1
    return band, 0 if band >= 0 else -count, value


def _slice_test(rows: Counted, rival: int, winner: int, seed: int, confidence: float) -> SliceTest:
    before, after, groups = rows.is_right[:, rival], rows.is_right[:, winner], rows.groups
    codes = None if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    resamples = 1_000 if groups is None else resample_count(len(before))
    gain = paired_difference(
        before, after, groups=codes, confidence=confidence, resamples=resamples, seed=seed
    )
    p_value = pair_p_value(before, after, codes)
    return SliceTest(rows.titles[rival], gain.value or 0.0, gain.low, gain.high, p_value, p_value)


def _rates(rows: Counted, place: int, confidence: float) -> dict[str, Figure]:
    labels, verdict = rows.labels, rows.verdicts[:, place]
    parts = {"accuracy": (verdict == labels, np.ones(len(labels), dtype=bool))}
    if rows.n_classes == 2:
        parts |= {"recall": (verdict == 1, labels == 1), "fpr": (verdict == 1, labels == 0)}
    empty = "no rows of this kind in the slice"
    return {
        name: proportion(hits, counted, rows.groups, confidence=confidence, empty=empty)
        for name, (hits, counted) in parts.items()
    }


def frontier(
    titles: Sequence[str],
    errors: Sequence[float],
    p95_ms: Sequence[float | None],
    calls: Sequence[float],
    costs: Sequence[float | None],
) -> tuple[FrontierPoint, ...]:
    """Return which candidates no other beats on error, p95 latency, and cost or model calls.

    Candidates are compared on what both have; without a price the share of model calls stands for
    the cost. Of equals none beats the other.
    """
    aims = [
        (error, latency, call if cost is None else cost)
        for error, latency, call, cost in zip(errors, p95_ms, calls, costs, strict=True)
    ]
    points = []
    for place, own in enumerate(aims):
        beaten_by = tuple(
            titles[other] for other, aim in enumerate(aims) if other != place and _beats(aim, own)
        )
        given = titles[place], errors[place], p95_ms[place], calls[place], costs[place]
        points.append(FrontierPoint(*given, not beaten_by, beaten_by))
    return tuple(points)


def _beats(first: Sequence[float | None], second: Sequence[float | None]) -> bool:
    known = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return all(a <= b for a, b in known) and any(a < b for a, b in known)


def lattice(heuristic: ModeView, model: ModeView, hybrid: ModeView | None = None) -> Lattice:
    """Return how the verdicts of rules and model meet each label, and what hybrid made of it.

    All are views of the same rows; rows that a part could not score are in no line.
    """
    labels, names = heuristic.labels, heuristic.label_names
    scored = heuristic.is_scored & model.is_scored
    width = len(names)
    code = ((labels + 1) * width + heuristic.predicted) * width + model.predicted
    places = np.flatnonzero(scored)
    places = places[np.argsort(code[places], kind="stable")]
    values, first = np.unique(code[places], return_index=True)
    lines = []
    for value, rows in zip(values.tolist(), np.split(places, first[1:]), strict=False):
        label, rules, model_says = value // width**2 - 1, value // width % width, value % width
        meaning = _meaning(label, rules, model_says)
        lines.append(LatticeLine(label, rules, model_says, rows, meaning))
    lines.sort(key=lambda line: (line.heuristic == line.model, -len(line.rows)))
    changes: tuple[Change, ...] = ()
    if hybrid is not None and bool((labels >= 0).any()):
        changes = _changes(heuristic, model, hybrid, scored & hybrid.counts)
    return Lattice(
        label_names=names,
        n=int(scored.sum()),
        lines=tuple(lines),
        changes=changes,
        prefilter=None if hybrid is None else _prefilter(model, hybrid),
    )


def _meaning(label: int, rules: int, model: int) -> str:
    if label < 0:
        return "they agree" if rules == model else "they disagree"
    if rules == model:
        return "both right" if rules == label else "both wrong: hard row, or the label is"
    if rules == label:
        return "only the heuristic is right"
    return "only the model is right" if model == label else "both wrong, differently"


def _changes(
    heuristic: ModeView, model: ModeView, hybrid: ModeView, rows: Mask
) -> tuple[Change, ...]:
    right = [view.predicted == view.labels for view in (heuristic, model, hybrid)]
    by_rules, by_model, by_hybrid = right
    return tuple(
        Change(what, np.flatnonzero(rows & mask))
        for what, mask in (
            ("Hybrid is right where the heuristic is wrong", by_hybrid & ~by_rules),
            ("Hybrid is wrong where the heuristic is right", ~by_hybrid & by_rules),
            ("Hybrid is right where the model is wrong", by_hybrid & ~by_model),
            ("Hybrid is wrong where the model is right", ~by_hybrid & by_model),
            (
                "All are wrong: hard rows, or the label is",
                ~by_rules & ~by_model & ~by_hybrid,
            ),
        )
    )


def _prefilter(model: ModeView, hybrid: ModeView) -> Prefilter:
    scored = hybrid.is_scored
    both = scored & model.is_scored
    skipped = both & ~hybrid.asked
    is_binary = hybrid.risk is not None
    risky = both & (hybrid.labels == 1) & is_binary
    harmless = both & (hybrid.labels == 0) & is_binary
    return Prefilter(
        n=int(scored.sum()),
        avoided=int((scored & ~hybrid.asked).sum()),
        risky=int(risky.sum()),
        lost=np.flatnonzero(risky & skipped & (hybrid.predicted == 0) & (model.predicted == 1)),
        harmless=int(harmless.sum()),
        alarms=np.flatnonzero(
            harmless & skipped & (hybrid.predicted == 1) & (model.predicted == 0)
        ),
    )

"""What the Compare page offers and says: candidates to choose from, tables of what was compared.

Pure: stored runs, policies and comparisons in, options and frames out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboard.text import milliseconds, visible
from shield_engine.decide.compare import Comparison, Pair, about
from shield_engine.decide.figures import Evaluated
from shield_engine.decide.paired import LatencyRatio
from shield_engine.decide.slices import Lattice, LatticeLine, SliceRow, SliceTable, SliceTest
from shield_engine.decide.views import ModeView
from shield_engine.metrics.curves import confusion
from shield_engine.metrics.table import METRICS, figure_text, percent
from shield_engine.statistics import Figure
from shield_engine.statistics.tests import PairTest
from shield_engine.types import Mode

__all__ = [
    "SCOPE_TITLES",
    "change_frame",
    "delta_frame",
    "evidence_frame",
    "figure_frame",
    "frontier_frame",
    "headline",
    "latency_frame",
    "lattice_frame",
    "lattice_members",
    "load_frame",
    "matrix_of",
    "ratio_text",
    "slice_frame",
    "slice_note",
    "standing_frame",
]

SCOPE_TITLES: Mapping[str, str] = {
    "all": "all rows",
    "risky": "risky rows (misses)",
    "harmless": "harmless rows (false alarms)",
}


# --- what is said ---------------------------------------------------------------------------


def headline(comparison: Comparison) -> str:
    """Return who leads, and the verdict on the lead against the baseline."""
    if comparison.winner is None:
        return comparison.verdict
    best = comparison.standings[comparison.winner]
    figure = figure_text(comparison.metric, best.metrics[comparison.metric])
    rows = "this 1 row" if comparison.n == 1 else f"these {comparison.n:,} rows"
    head = f"On {rows} {best.title} has the highest {METRICS[comparison.metric].title}, {figure}."
    if len(comparison.standings) == 1:
        return f"{head} There is nothing else to compare it with: choose another candidate."
    return f"{head} {comparison.verdict}"


def ratio_text(ratio: LatencyRatio) -> str:
    """Return a latency ratio with its interval: "2.1 x (1.9-2.4)"."""
    if ratio.ratio is None:
        return "-"
    text = f"{ratio.ratio:.3g} x"
    if ratio.low is None or ratio.high is None:
        return text
    return f"{text} ({ratio.low:.3g}-{ratio.high:.3g})"


# --- tables ---------------------------------------------------------------------------------


def standing_frame(comparison: Comparison, names: Sequence[str]) -> pd.DataFrame:
    """Return one row a candidate: each metric with its interval, its threshold, and n."""
    return pd.DataFrame(
        [
            {"Candidate": standing.title}
            | {METRICS[name].title: figure_text(name, standing.metrics[name]) for name in names}
            | {
                "Threshold": "-" if standing.threshold is None else f"{standing.threshold:.3g}",
                "n": comparison.n,
            }
            for standing in comparison.standings
        ]
    )


def _marked(comparison: Comparison, place: int) -> str:
    title = comparison.standings[place].title
    return f"{title} (baseline)" if place == comparison.baseline else title


def delta_frame(comparison: Comparison, names: Sequence[str]) -> pd.DataFrame:
    """Return one row for each other candidate: its metrics minus the baseline's, in points."""
    return pd.DataFrame(
        [
            {"Candidate": pair.candidate, "Decided": _decided(pair)}
            | {
                METRICS[name].title: figure_text(name, pair.differences[name], "change")
                for name in names
            }
            for pair in comparison.pairs
        ]
    )


def _decided(pair: Pair) -> str:
    words = {"risky": "misses", "harmless": "false alarms", "all": "accuracy"}
    decided = [word for scope, word in words.items() if (t := pair.test(scope)) and t.is_decided]
    return ", ".join(decided) or "nothing"


def evidence_frame(comparison: Comparison) -> pd.DataFrame:
    """Return every test of the comparison with what it found and what would settle it."""
    return pd.DataFrame([_test_row(pair, test) for pair in comparison.pairs for test in pair.tests])


def _test_row(pair: Pair, test: PairTest) -> dict[str, Any]:
    return {
        "Candidate": pair.candidate,
        "Rows": SCOPE_TITLES[test.scope],
        "n": test.n,
        "Decided": "yes" if test.is_decided else "no",
        "More rows needed": "-" if test.rows_needed is None else f"about {about(test.rows_needed)}",
        "Would show from": "-"
        if test.detectable is None
        else f"{100 * test.detectable:.1f} points",
        "Only candidate right": test.only_candidate,
        "Only baseline right": test.only_baseline,
        "p": test.p_value,
        "p, Holm": test.p_adjusted,
    }


def figure_frame(comparison: Comparison) -> pd.DataFrame:
    """Return every metric of every candidate as numbers, with its difference to the baseline."""
    differences = {pair.candidate: pair.differences for pair in comparison.pairs}
    rows = []
    for standing in comparison.standings:
        for name, figure in standing.metrics.items():
            delta = differences.get(standing.title, {}).get(name)
            rows.append(
                {
                    "candidate": standing.title,
                    "metric": name,
                    "value": figure.value,
                    "low": figure.low,
                    "high": figure.high,
                    "n": figure.n,
                    "method": figure.method,
                    "reason": figure.reason,
                    "difference": None if delta is None else delta.value,
                    "difference_low": None if delta is None else delta.low,
                    "difference_high": None if delta is None else delta.high,
                    "difference_method": None if delta is None else delta.method,
                }
            )
    return pd.DataFrame(rows)


def matrix_of(view: ModeView, rows: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Return a confusion matrix: rows are labels, columns verdicts.

    Args:
        view: Whose verdicts.
        rows: Which rows count; those with label and score if `None`.
    """
    keep = view.counts if rows is None else rows
    return confusion(view.labels[keep], view.predicted[keep], len(view.label_names))


def latency_frame(comparison: Comparison) -> pd.DataFrame:
    """Return p50, p95 and p99 of each candidate, for misses and hits, and times the baseline."""
    ratios = {pair.candidate: pair.latency for pair in comparison.pairs}
    rows = []
    for place, standing in enumerate(comparison.standings):
        is_derived = standing.mode in {Mode.HYBRID, Mode.BOTH}
        for kind, summary in (("miss", standing.latency), ("hit", standing.latency_hit)):
            is_miss = kind == "miss"
            pair = ratios.get(standing.title) if is_miss else None
            p50, p95 = ("-", "-") if pair is None else map(ratio_text, pair)
            rows.append(
                {
                    "Candidate": _marked(comparison, place),
                    "Cache": kind,
                    "p50": milliseconds(summary.p50),
                    "p95": milliseconds(summary.p95),
                    "p99": milliseconds(summary.p99),
                    "n": summary.n,
                    "p50 against baseline": p50,
                    "p95 against baseline": p95,
                    "How": "summed from its parts" if is_derived and is_miss else "measured",
                }
            )
    return pd.DataFrame(rows)


def load_frame(comparison: Comparison) -> pd.DataFrame:
    """Return what each candidate flags and how often it asks the model, against the baseline."""
    base = comparison.standings[comparison.baseline]
    differing = {pair.candidate: pair for pair in comparison.pairs}
    rows = []
    for place, standing in enumerate(comparison.standings):
        pair = differing.get(standing.title)
        rows.append(
            {
                "Candidate": _marked(comparison, place),
                "Scored": standing.n,
                "Errors": comparison.rows - standing.n,
                "Flagged": _share_text(standing.flag_rate, base.flag_rate, pair is None),
                "Model asked": _share_text(standing.asked_rate, base.asked_rate, pair is None),
                "Verdicts unlike the baseline's": "-"
                if pair is None
                else f"{pair.differing:,} of {pair.scored:,}",
                "p95 against baseline": "-" if pair is None else ratio_text(pair.latency[1]),
                "Cost per million": _cost_text(standing, base, pair is None),
            }
        )
    return pd.DataFrame(rows)


def _share_text(value: float | None, base: float | None, is_baseline: bool) -> str:
    if value is None or base is None or is_baseline:
        return percent(value)
    return f"{percent(value)} ({100 * (value - base):+.1f} points)"


def _cost_text(standing: Evaluated, base: Evaluated, is_baseline: bool) -> str:
    cost, other = standing.cost_per_million, base.cost_per_million
    if cost is None:
        return "-"
    if is_baseline or other is None:
        return f"{cost:,.2f}"
    return f"{cost:,.2f} ({cost - other:+,.2f})"


def frontier_frame(comparison: Comparison) -> pd.DataFrame:
    """Return each candidate's error, latency, model calls and cost, and who beats it."""
    return pd.DataFrame(
        [
            {
                "Candidate": _marked(comparison, place),
                f"1 - {METRICS[comparison.metric].title}": percent(point.error),
                "p95": milliseconds(point.p95_ms),
                "Model asked": percent(point.calls),
                "Cost per million": "-"
                if point.cost_per_million is None
                else f"{point.cost_per_million:,.2f}",
                "On the frontier": "yes" if point.is_optimal else "no",
                "Beaten by": ", ".join(point.beaten_by) or "-",
            }
            for place, point in enumerate(comparison.frontier)
        ]
    )


def slice_frame(table: SliceTable, metric: str, baseline: str) -> pd.DataFrame:
    """Return one row a slice: each candidate's figure, and how the winner does against the rest."""
    return pd.DataFrame(
        [
            {"Slice": visible(row.value) or "(none)", "n": row.n, "Winner here": _finding(row)}
            | {title: _with_n(figures[metric], row.n) for title, figures in row.figures.items()}
            | {
                "Winner against baseline": _against(_rival(row, baseline), row.n),
                "Winner against its hardest rival": _against(row.worst, row.n, named=True),
            }
            for row in table.rows
        ]
    )


def _finding(row: SliceRow) -> str:
    return {"": "not behind", "seems to lose": "seems to lose", "loses": "loses, decided"}[
        row.finding
    ]


def _with_n(figure: Figure, n: int) -> str:
    text = percent(figure.value, figure.low, figure.high)
    return text if figure.n == n or figure.value is None else f"{text}, n = {figure.n:,}"


def _rival(row: SliceRow, title: str) -> SliceTest | None:
    return next((test for test in row.tests if test.rival == title), None)


def _against(test: SliceTest | None, n: int, *, named: bool = False) -> str:
    """Return the winner's lead in accuracy in points, with interval and adjusted p."""
    if test is None:
        return "-"
    size = figure_text("accuracy", Figure(test.difference, test.low, test.high, n), "change")
    rival = f" to {test.rival}" if named else ""
    return f"{size}{rival}, p = {test.p_adjusted:.2g}"


def slice_note(table: SliceTable) -> str:
    """Return in words where the overall winner loses."""
    lost = [visible(row.value) or "(none)" for row in table.rows if row.finding == "loses"]
    behind = [
        visible(row.value) or "(none)" for row in table.rows if row.finding == "seems to lose"
    ]
    sentences = [f"{table.winner} leads overall."]
    if lost:
        sentences.append(f"It loses, beyond chance, in: {', '.join(lost)}.")
    if behind:
        sentences.append(f"It seems to lose, but that may be chance, in: {', '.join(behind)}.")
    if not lost and not behind:
        sentences.append("It is behind in no slice.")
    values, rows = table.left_out
    if values:
        sentences.append(f"{values:,} smaller slices with {rows:,} rows are not shown.")
    return " ".join(sentences)


def lattice_frame(verdicts: Lattice) -> pd.DataFrame:
    """Return how heuristic and model verdicts meet each label, disagreements first."""
    names = verdicts.label_names
    return pd.DataFrame(
        [
            {
                "Label": _label(verdicts, line),
                "Heuristic says": names[line.heuristic],
                "ML says": names[line.model],
                "Rows": len(line.rows),
                "Share": percent(len(line.rows) / verdicts.n),
                "Meaning": line.meaning,
            }
            for line in verdicts.lines
        ],
        columns=["Label", "Heuristic says", "ML says", "Rows", "Share", "Meaning"],
    )


def _label(verdicts: Lattice, line: LatticeLine) -> str:
    return verdicts.label_names[line.label] if line.label >= 0 else "none"


def change_frame(verdicts: Lattice) -> pd.DataFrame:
    """Return what hybrid fixed and broke, and where all are wrong."""
    return pd.DataFrame(
        [{"What": change.what, "Rows": len(change.rows)} for change in verdicts.changes],
        columns=["What", "Rows"],
    )


def lattice_members(verdicts: Lattice) -> list[tuple[str, NDArray[np.int64]]]:
    """Return every count of the agreement in words, with the positions of its rows."""
    names = verdicts.label_names
    members = [
        (
            f"Label {_label(verdicts, line)}, heuristic {names[line.heuristic]}, "
            f"ML {names[line.model]}",
            line.rows,
        )
        for line in verdicts.lines
    ]
    members += [(change.what, change.rows) for change in verdicts.changes]
    if verdicts.prefilter is not None:
        members += [
            ("Risky rows lost to the rules before the model", verdicts.prefilter.lost),
            ("Harmless rows flagged by the rules before the model", verdicts.prefilter.alarms),
        ]
    return members

"""The Threshold lab's sentences and tables, from choices computed by hand."""

from __future__ import annotations

import pytest

from dashboard.threshold_lab.tables import (
    bands_frame,
    choice_text,
    counts_frame,
    day_frame,
    optimism_text,
    ordered_bands,
    slices_frame,
    split_text,
    sweep_frame,
)
from shield_engine.config import Bands
from shield_engine.decide.bands import BandPoint, Traffic, day_of
from shield_engine.decide.column import ScoreColumn
from shield_engine.decide.evidence import choice_evidence
from shield_engine.decide.splits import Optimism, SliceChoice, SplitReport
from shield_engine.decide.thresholds import Choice, ThresholdRule
from shield_engine.statistics import Figure
from shield_engine.statistics.intervals import Interval

COLUMN = ScoreColumn.of([0, 0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.6, 0.5, 0.9])
FOUND = Choice(0.5, "highest f1", tp=2, fp=1, fn=0, tn=3, bound=0.75, value=0.8)
NONE = Choice(None, "x", problem="infeasible: this needs about 9 more negatives")


def point(upper: float, lower: float | None, cells: tuple[int, int, int, int], asked: float):  # type: ignore[no-untyped-def]
    """Return a pair of bands with counts tp, fp, fn, tn."""
    return BandPoint(Bands(upper, lower), *cells, asked=asked, lost=0, won=0, mean_ms=None)


def test_choice_says_counts_rates_and_the_proved_bound() -> None:
    """A threshold comes with counts out of their rows; none comes with the reason as a sentence."""
    assert choice_text(FOUND) == (
        "Threshold 0.5: 2 of 2 risky rows found (recall 100.0%), 1 of 4 harmless rows flagged "
        "(FPR 25.0%), proved bound 75.00%."
    )
    assert choice_text(NONE) == "Infeasible: this needs about 9 more negatives."


def test_split_says_its_sizes_and_what_the_other_half_gave() -> None:
    """Sizes, units, the threshold, the reported rates and the gap in points."""
    report = SplitReport(FOUND, COLUMN, COLUMN, 5, 0.8, 0.75, 0.05)
    said = split_text(report, ThresholdRule("f1"))
    assert "6 rows to choose on, 6 to report on; 5 groups or distinct texts" in said
    assert "Chosen there: 0.5. On the other half it gives recall 100.0% and FPR 25.0%." in said
    assert said.endswith("flattered by +5.00 points.")
    assert split_text(report, ThresholdRule("cost")).endswith("+0.05 cost units per text.")
    empty = SplitReport(NONE, COLUMN, COLUMN, 5, None, None, None)
    assert "On the choosing half: Infeasible" in split_text(empty, ThresholdRule("fpr"))


def test_optimism_is_said_in_points_or_as_unknown() -> None:
    """The mean, its spread and how far the threshold moves; without one, that it cannot be told."""
    found = Optimism(0.014, Interval(-0.02, 0.052), 0.7, 0.686, Interval(0.25, 0.5), 200, 0)
    said = optimism_text(found, ThresholdRule("f1"))
    assert "flatters by 1.40 points on average (-2.00 to 5.20 over 200 resamples)" in said
    assert "between 0.25 and 0.5" in said
    none = Optimism(None, None, None, None, None, 0, 200)
    assert "cannot be told" in optimism_text(none, ThresholdRule("f1"))


def test_evidence_keeps_how_the_rule_held_elsewhere() -> None:
    """Split with seed, sizes and gap, and the optimism with its range; a problem is kept too."""
    found = Optimism(0.01, Interval(-0.02, 0.05), 0.7, 0.69, Interval(0.2, 0.5), 200, 0)
    evidence = choice_evidence(SplitReport(FOUND, COLUMN, COLUMN, 5, 0.8, 0.75, 0.05), found, 3)
    assert evidence["split"] == {
        "seed": 3, "units": 5, "choosing_rows": 6, "reporting_rows": 6, "threshold": 0.5,
        "chosen": 0.8, "reported": 0.75, "gap": 0.05,
    }  # fmt: skip
    assert evidence["optimism"] == {"value": 0.01, "low": -0.02, "high": 0.05, "resamples": 200}
    unfound = Optimism(None, None, None, None, None, 0, 200)
    infeasible = SplitReport(NONE, COLUMN, COLUMN, 5, None, None, None)
    kept = choice_evidence(infeasible, unfound, 3)
    assert kept["split"]["problem"] == NONE.problem
    assert kept["optimism"]["low"] is None


def test_bands_are_ordered_by_f1_or_by_cost() -> None:
    """Dear misses and a free model want the model asked; a dear model does not."""
    often = point(0.9, None, (9, 1, 1, 9), 1.0)
    seldom = point(0.5, 0.2, (7, 1, 3, 9), 0.2)
    by_f1 = ordered_bands([seldom, often], None, 5.0)
    assert [one for one, _ in by_f1] == [often, seldom]
    assert "Cost of 1,000 texts" not in bands_frame(by_f1).columns
    rule = ThresholdRule("cost", prevalence=0.1, miss=10, false_alarm=1)
    # A text costs .1 x 10 x .1 + .9 x .1 = .19 with the model, .1 x 10 x .3 + .09 = .39 without.
    free = ordered_bands([seldom, often], rule, 0.0)
    assert [cost for _, cost in free] == pytest.approx([190, 390])
    assert free[0][0] is often
    # A call of 1 adds 1.0 and .2: 1.19 and .59.
    dear = ordered_bands([seldom, often], rule, 1.0)
    assert [cost for _, cost in dear] == pytest.approx([590, 1_190])
    assert dear[0][0] is seldom
    assert bands_frame(dear)["Cost of 1,000 texts"].tolist() == pytest.approx([590, 1_190])


def test_bands_without_a_class_have_no_cost() -> None:
    """Without harmless rows the cost is unknown and its pair comes last."""
    rule = ThresholdRule("cost", prevalence=0.1, miss=10, false_alarm=1)
    unknown, known = point(0.9, None, (5, 0, 5, 0), 0.0), point(0.8, None, (5, 1, 5, 9), 1.0)
    assert ordered_bands([unknown, known], rule, 0.0)[-1] == (unknown, None)


def test_tables_count_what_the_column_holds() -> None:
    """Confusion at .5 by hand; the sweep starts at the highest score and ends with all flagged."""
    table = counts_frame(COLUMN, 0.5, ("benign", "injection"))
    assert table.to_numpy().tolist() == [["benign", 3, 1], ["injection", 0, 2]]
    sweep = sweep_frame(COLUMN)
    assert sweep["threshold"].tolist() == [0.9, 0.6, 0.5, 0.3, 0.2, 0.1]
    assert (sweep["tp"].iloc[-1], sweep["fp"].iloc[-1]) == (2, 4)


def test_a_day_is_rounded_with_its_range_and_unknown_stays_unknown() -> None:
    """Whole texts, tenths of hours; no risky rows leave misses unknown."""
    fpr = Figure(0.02, 0.01, 0.03, 500)
    known = day_frame(day_of(Figure(0.9, 0.8, 0.95, 100), fpr, Traffic(100_000, 0.01, 3)))
    said = dict(zip(known["A day"], known["Expected"], strict=True))
    assert said["Risky texts let through"] == "100 (50 to 200)"
    assert said["Harmless texts flagged"] == "1,980 (990 to 2,970)"
    assert said["Hours of review"] == "144.0 (89.5 to 196.0)"
    unknown = day_frame(day_of(Figure(None, None, None, 0, "no"), fpr, Traffic(100_000, 0.01, 3)))
    assert unknown["Expected"].tolist()[0] == "unknown"
    alone = day_frame(day_of(Figure(0.9, None, None, 1, "one row"), fpr, Traffic(100_000, 0.01, 3)))
    assert alone["Expected"].tolist()[:2] == ["100", "900"]


@pytest.mark.parametrize(
    ("choice", "is_decided", "rows", "advice"),
    [
        (FOUND, True, 60, "a lower one decides better here"),
        (FOUND, False, 60, "keep the common one: these rows cannot tell the two apart"),
        (FOUND, True, 10, "a lower one decides better here; chosen on fewer than 50 rows of a "
         "class, do not rely on it"),
        (FOUND, False, 10, "keep the common one: these rows cannot tell the two apart (few rows)"),
        (NONE, False, 60, NONE.problem),
    ],
)  # fmt: skip
def test_slices_say_what_to_make_of_them(
    choice: Choice, is_decided: bool, rows: int, advice: str
) -> None:
    """Only a decided slice with enough rows is said to want a threshold of its own."""
    item = SliceChoice("de", rows, rows, choice, COLUMN.at(0.7), 0.01, is_decided)
    table = slices_frame([item], 0.7)
    assert table["What to make of it"].tolist() == [advice]
    assert table["Recall at common"].tolist() == ["50.0%"]

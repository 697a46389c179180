"""What the Compare page offers, says and draws, from comparisons made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from dashboard.compare.charts import (
    MOST_POINTS,
    candidate_forest,
    curve_chart,
    difference_forest,
    frontier_chart,
    latency_chart,
    slice_chart,
)
from dashboard.compare.tables import (
    change_frame,
    delta_frame,
    evidence_frame,
    figure_frame,
    frontier_frame,
    headline,
    latency_frame,
    lattice_frame,
    load_frame,
    matrix_of,
    ratio_text,
    slice_frame,
    slice_note,
    standing_frame,
)
from dashboard.theme import PALETTE, confusion_heatmap, looks
from shield_engine.decide.candidates import Aligned, Candidate
from shield_engine.decide.compare import Comparison, compare, compare_slices
from shield_engine.decide.paired import LatencyRatio
from shield_engine.decide.slices import lattice
from shield_engine.decide.views import mode_view
from shield_engine.metrics.table import compared_names, figure_text
from shield_engine.statistics import Figure
from shield_engine.store import Scores
from shield_engine.types import Mode, Task

NAMES = ("benign", "injection")
KEYS = ["mode:heuristic", "mode:ml", "mode:hybrid", "mode:both"]
LABELS = [0, 1] * 100
RIGHT = [0.1, 0.9] * 100
GUESS = [0.1, 0.9, 0.9, 0.1] * 50
"""Half of the risky rows missed, half of the harmless ones flagged."""


def aligned_of(
    labels: Sequence[int], heuristic: Sequence[float], model: Sequence[float]
) -> Aligned:
    """Return the four modes of one run at threshold .5."""
    rules, net = np.array(heuristic, dtype=float), np.array(model, dtype=float)
    n = len(labels)
    stored = Scores(
        task=Task.PROMPT_INJECTION, row_index=np.arange(n), row_id=np.array(["x"] * n, dtype=object),
        labels=np.array(labels), chars=np.arange(n), heuristic=np.column_stack([1 - rules, rules]),
        model=np.column_stack([1 - net, net]), heuristic_ms=np.full(n, 1.0),
        model_ms=np.full(n, 3.0), hit_ms=np.full(n, np.nan), is_hit=np.zeros(n, dtype=bool),
        has_error=np.isnan(net),
    )  # fmt: skip
    titles = ("Heuristic", "ML", "Hybrid", "Both")
    candidates = tuple(
        Candidate("run", mode, 0.5, title=title) for mode, title in zip(Mode, titles, strict=True)
    )
    views = tuple(mode_view(stored, candidate.mode, 0.5) for candidate in candidates)
    return Aligned(candidates, views, None, "dataset", {})


def compared(
    labels: Sequence[int] = LABELS,
    heuristic: Sequence[float] = GUESS,
    model: Sequence[float] = RIGHT,
) -> Comparison:
    """Return the four modes against the heuristic."""
    return compare(aligned_of(labels, heuristic, model), price_per_hour=3.6)


# --- words ----------------------------------------------------------------------------------


def test_headline_names_the_leader_and_the_verdict_against_the_baseline() -> None:
    """The leader is told with its figure and interval, then what is decided about it."""
    said = headline(compared())
    assert said.startswith("On these 200 rows ML has the highest F1, 100.0%")
    assert "ML misses " in said
    assert " fewer attacks per 1,000 than Heuristic and raises " in said


def test_headline_of_one_row_and_of_one_candidate() -> None:
    """One row decides nothing; one candidate has nothing to be compared with."""
    said = headline(compared([1], [0.1], [0.9]))
    assert said.startswith("On this 1 row ML has the highest Accuracy, 100.0%")
    assert "Not decisive" in said
    views = aligned_of(LABELS, GUESS, RIGHT)
    alone = compare(Aligned(views.candidates[:1], views.views[:1], None, "dataset", {}))
    assert headline(alone).endswith("nothing else to compare it with: choose another candidate.")


def test_points_and_ratios_are_written_with_their_intervals() -> None:
    """Differences are in points but MCC, which is no share; what is missing is a dash."""
    assert figure_text("f1", Figure(0.031, 0.012, 0.05, 9), "change") == "+3.1 (+1.2 to +5.0)"
    assert (
        figure_text("mcc", Figure(-0.031, -0.05, 0.012, 9), "change") == "-0.031 (-0.050 to +0.012)"
    )
    assert figure_text("f1", Figure(0.0, None, None, 9), "change") == "+0.0"
    assert figure_text("f1", Figure(None, None, None, 9), "change") == "-"
    assert ratio_text(LatencyRatio(95, 1, 2.1, 2.1, 1.9, 2.4, 9)) == "2.1 x (1.9-2.4)"
    assert ratio_text(LatencyRatio(95, None, None, None, None, None, 0)) == "-"


# --- tables ---------------------------------------------------------------------------------


def test_every_table_marks_the_baseline_and_tells_the_others_apart_from_it() -> None:
    """Figures have every line, differences the others'; latency and load mark the baseline."""
    found = compared()
    names = compared_names(len(found.label_names))
    others = ["ML", "Hybrid", "Both"]
    assert standing_frame(found, names)["Candidate"].tolist() == ["Heuristic", *others]
    deltas = delta_frame(found, names)
    assert deltas["Candidate"].tolist() == others
    assert deltas["Decided"][0] == "misses, false alarms, accuracy"
    assert deltas["Recall"][0].startswith("+50.0 (")
    latency = latency_frame(found)
    assert len(latency) == 8
    assert latency["p95 against baseline"][2].startswith("3 x")
    assert latency[latency["How"] == "summed from its parts"]["Candidate"].tolist() == [
        "Hybrid", "Both",
    ]  # fmt: skip
    load = load_frame(found)
    assert load["Candidate"].tolist() == ["Heuristic (baseline)", *others]
    assert load["Verdicts unlike the baseline's"].tolist()[:2] == ["-", "100 of 200"]
    assert load["Model asked"].tolist()[:2] == ["0.0%", "100.0% (+100.0 points)"]
    assert load["Cost per million"].tolist()[:2] == ["1.00", "3.00 (+2.00)"]


def test_tests_and_figures_are_listed_whole() -> None:
    """Three tests for each of three candidates, every metric of four with its difference."""
    found = compared()
    tests = evidence_frame(found)
    assert len(tests) == 9
    assert tests["Rows"].tolist()[:3] == [
        "all rows", "risky rows (misses)", "harmless rows (false alarms)",
    ]  # fmt: skip
    # Hybrid and both flag every harmless row that the rules flag: no difference, nothing decided.
    assert tests["Decided"].tolist() == [*["yes"] * 5, "no", "yes", "yes", "no"]
    assert tests["More rows needed"].tolist()[-1] == "-"
    figures = figure_frame(found)
    recall = figures[(figures["candidate"] == "ML") & (figures["metric"] == "recall")]
    assert recall["difference"].tolist() == [0.5]
    assert figures[figures["candidate"] == "Heuristic"]["difference"].isna().all()


def test_frontier_table_says_who_beats_whom() -> None:
    """Both is as good as ML and slower."""
    frame = frontier_frame(compared())
    assert frame["On the frontier"].tolist()[:2] == ["yes", "yes"]
    assert "ML" in frame["Beaten by"].tolist()[3]


def test_slices_are_listed_with_what_the_winner_does_there() -> None:
    """The note names the slices by finding; hostile names are made visible."""
    views = aligned_of(LABELS, GUESS, RIGHT)
    values = np.array(["a\u200bb", "c"] * 100, dtype=object)
    table = compare_slices(views, "part", values, winner=0)
    frame = slice_frame(table, "accuracy", "ML")
    assert frame["Slice"].tolist() == ["a⟨U+200B⟩b", "c"]
    assert frame["Winner here"].tolist() == ["loses, decided", "loses, decided"]
    assert frame["Winner against its hardest rival"][0].startswith("-50.0 (")
    assert " to ML, p = " in frame["Winner against its hardest rival"][0]
    assert frame["Winner against baseline"][0].startswith("-50.0 (")
    assert slice_frame(table, "accuracy", "Heuristic")["Winner against baseline"][0] == "-"
    assert slice_note(table) == (
        "Heuristic leads overall. It loses, beyond chance, in: a⟨U+200B⟩b, c."
    )
    best = compare_slices(views, "part", values, winner=1)
    assert slice_note(best) == "ML leads overall. It is behind in no slice."
    assert "n = 100" not in slice_frame(best, "recall", "Heuristic")["ML"][1]


def test_lattice_tables_hold_every_row_once() -> None:
    """Lines partition the rows that both scored; changes count what hybrid did."""
    views = aligned_of([0, 0, 1, 1, -1], [0.9, 0.1, 0.9, 0.1, 0.1], [0.1, 0.1, 0.9, 0.9, np.nan])
    found = lattice(*views.views[:3])
    frame = lattice_frame(found)
    assert frame["Rows"].sum() == 4
    assert frame["Heuristic says"][0] != frame["ML says"][0]
    changes = change_frame(found)
    assert changes["Rows"].tolist() == [1, 0, 0, 1, 0]


def test_matrix_leaves_out_rows_without_label_or_score() -> None:
    """Rows are labels, columns verdicts; unlabelled and failed rows count nowhere."""
    view = aligned_of([0, 1, 1, -1, 0], [0.5] * 5, [0.9, 0.9, 0.1, 0.9, np.nan]).views[1]
    assert matrix_of(view).tolist() == [[0, 1], [1, 1]]
    assert matrix_of(view, np.array([True, False, False, False, False])).tolist() == [
        [0, 1],
        [0, 0],
    ]


# --- charts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [LABELS, [0] * 200, [-1] * 200], ids=["both", "one", "none"])
def test_figures_are_drawn_for_any_labels(labels: list[int]) -> None:
    """Charts of one class, or none, are drawn as far as they mean something."""
    found = compared(labels)
    names, styles = compared_names(len(found.label_names)), looks(KEYS)
    assert len(candidate_forest(found, styles, names).data) == 4
    assert len(difference_forest(found, styles, names).data) == 3
    assert latency_chart(found).data[0].y[0] == 1.0
    assert bool(found.frontier) is (labels[0] >= 0)
    if found.frontier:
        assert len(frontier_chart(found, styles).data) == 5


def test_forest_of_differences_shows_what_is_decided() -> None:
    """Filled: decided; open: not; with a dot: no test. Every mark says so on hover."""
    found = compared()
    forest = difference_forest(found, looks(KEYS), compared_names(len(found.label_names)))
    ml = forest.data[0]
    said = {
        point[0]: (symbol, point[4])
        for point, symbol in zip(ml.customdata, ml.marker.symbol, strict=True)
    }
    assert said["Recall"] == ("circle", ", decided")
    assert said["F1"] == ("circle-open-dot", ", not tested")
    same = compared(heuristic=RIGHT)
    forest = difference_forest(same, looks(KEYS), compared_names(len(same.label_names)))
    assert forest.data[0].marker.symbol[0] == "circle-open"


def test_curves_have_their_thresholds_as_marks_and_stay_drawable() -> None:
    """Each candidate has a curve and a mark; a long curve is thinned but keeps its ends."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 8_000)
    views = aligned_of(labels.tolist(), rng.random(8_000).tolist(), rng.random(8_000).tolist())
    titles, styles = [candidate.title for candidate in views.candidates], looks(KEYS)
    roc = curve_chart("roc_auc", titles, views, styles)
    assert len(roc.data) == 9
    assert len(roc.data[1].x) == MOST_POINTS
    assert (roc.data[1].x[0], roc.data[1].x[-1]) == (0, 100)
    precision = curve_chart("pr_auc", titles, views, styles)
    assert len(precision.data) == 8
    assert len(precision.data[1].x) == 1


def test_slice_chart_marks_where_the_winner_is_behind_and_shows_names_as_text() -> None:
    """Names of slices come from files: they are shown letter by letter."""
    values = np.array(["<b>x</b>", "y"] * 100, dtype=object)
    table = compare_slices(aligned_of(LABELS, GUESS, RIGHT), "part", values, winner=0)
    chart = slice_chart(table, looks(KEYS), "accuracy")
    assert chart.layout.yaxis.ticktext == ("&lt;b&gt;x&lt;/b&gt; (!), n = 100", "y (!), n = 100")
    assert list(chart.data[1].x) == [100.0, 100.0]


def test_every_candidate_looks_its_own() -> None:
    """No two share a colour, a dash or a marker, and a mode keeps its look in any company."""
    keys = [
        "policy:a:1",
        "mode:hybrid",
        "run:x:ml",
        "policy:a:2",
        "mode:ml",
        "run:y:ml",
        "p",
        "q",
        "r",
    ]
    styles = looks(keys)
    for part in ("color", "dash", "marker"):
        assert len({getattr(style, part) for style in styles}) == len(keys)
    assert styles[4] == looks(KEYS)[1]
    assert [style.color for style in looks(KEYS)] == [PALETTE[mode.value] for mode in Mode]


def test_confusion_heatmap_writes_counts_and_row_shares() -> None:
    """Each cell has its count and its share of the row; an empty row has shares of 0."""
    figure = confusion_heatmap([[3, 1], [0, 0]], NAMES)
    assert figure.data[0].text[0][0] == "3<br>75.0%"
    assert figure.data[0].text[1][1] == "0<br>0.0%"

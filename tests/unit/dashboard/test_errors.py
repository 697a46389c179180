"""What the Errors page shows: kinds of rows, tables, the chart."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from dashboard.errors.charts import contrast_chart
from dashboard.errors.tables import (
    KIND_TEXTS,
    contrast_frame,
    history_frame,
    judged_frame,
    kinds_of,
    lineage_frame,
    mode_frame,
    neighbour_frame,
    suspect_frame,
    timing_frame,
    verdict_text,
)
from shield_engine.review.contrasts import Contrast
from shield_engine.review.suspects import Neighbour, Suspect
from shield_engine.store import DatasetInfo, StoredRow
from shield_engine.store.notes import Annotation
from shield_engine.store.rows import Classes, JudgedRow, RowKind
from shield_engine.types import Mode, Task

TWO = Classes(Task.PROMPT_INJECTION, ("benign", "injection"), (0, 1))
THREE = Classes(Task.SENTIMENT, ("negative", "neutral", "positive"), (0, 1, 2))
WRONG = JudgedRow(4, 0, 1, 0.8, 0.3, 0.3)
WHEN = datetime(2026, 5, 4, 3, 2)


def stored(row_index: int, row_id: str, text: str | None = "t", **values: Any) -> StoredRow:
    """Return a stored row without a label or a result but for `values`."""
    row: dict[str, Any] = {"label": None, "group_id": None, "slices": None, "chars": 1}
    row |= {"row_index": row_index, "row_id": row_id, "text": text, "text_sha256": "h"}
    return StoredRow(**row | values)


def test_kinds_follow_the_classes_and_labels() -> None:
    """Only two classes have false positives; rows without labels have no errors."""
    assert RowKind.FALSE_POSITIVES in kinds_of(TWO, is_labelled=True)
    assert RowKind.FALSE_NEGATIVES not in kinds_of(THREE, is_labelled=True)
    assert kinds_of(TWO, is_labelled=False) == (RowKind.NEAR, RowKind.FAILED, RowKind.ALL)
    assert len({KIND_TEXTS[kind][1] for kind in RowKind}) == len(RowKind)


def test_rows_are_shown_with_label_verdict_and_review() -> None:
    """Hidden characters are written out, the open row is marked, absent values are words."""
    rows = [WRONG, JudgedRow(7, None, None, None, None, None)]
    contents = {
        4: stored(4, "a\u200b", "x\u202ey", rules=["r.one", "r.two"]),
        7: stored(7, "b", None),
    }
    said = {4: Annotation(4, "why", 1, ("odd",))}
    frame = judged_frame(rows, contents, said, TWO, Task.PROMPT_INJECTION, current=7)
    assert frame.iloc[0].tolist() == [
        "", "a⟨U+200B⟩", "benign", "injection", 0.8, 0.3, "r.one, r.two",
        "label injection, odd, note", "x⟨U+202E⟩y",
    ]  # fmt: skip
    assert frame["Open"].tolist() == ["", "▶"]
    assert frame.iloc[1]["Verdict"] == "no score"
    assert (frame.iloc[1]["Label"], frame.iloc[1]["Text"]) == ("none", "(purged)")
    assert list(judged_frame([], {}, {}, TWO, Task.TOXICITY).columns) == list(frame.columns)


@pytest.mark.parametrize(
    ("row", "classes", "expected"),
    [
        (WRONG, TWO, "Score 0.800 is at or above the threshold 0.5: said to be injection. "
         "The label says benign; regret 0.300."),
        (JudgedRow(1, 0, 0, 0.2, -0.3, 0.3), TWO,
         "Score 0.200 is below the threshold 0.5: said to be benign. The label agrees."),
        (JudgedRow(1, None, 2, 0.6, None, 0.1), THREE,
         "Said to be positive with probability 0.600. It has no label."),
        (JudgedRow(1, 1, None, None, None, None), TWO,
         "This mode needed the model, and the model failed on this row: there is no score."),
    ],
)  # fmt: skip
def test_verdict_is_told_in_words(row: JudgedRow, classes: Classes, expected: str) -> None:
    """Score, threshold, verdict, label and regret make one sentence."""
    assert verdict_text(row, classes, 0.5) == expected


def test_modes_are_right_wrong_or_silent() -> None:
    """A mode without a score and a row without a label are neither right nor wrong."""
    frame = mode_frame(
        {
            Mode.HEURISTIC: (WRONG, TWO, 0.5),
            Mode.ML: (JudgedRow(4, 0, None, None, None, None), TWO, 0.25),
            Mode.HYBRID: (JudgedRow(4, 0, 0, 0.1, -0.4, 0.4), TWO, 0.5),
            Mode.BOTH: (JudgedRow(4, None, 1, 0.9, None, 0.4), TWO, 0.5),
        }
    )
    assert frame["Is"].tolist() == ["wrong", "", "right", ""]
    assert frame["Verdict"].tolist() == ["injection", "no score", "benign", "injection"]
    assert frame["Threshold"].tolist() == ["0.5", "0.25", "0.5", "0.5"]


def test_neighbours_are_copies_first_with_their_conflicts() -> None:
    """A copy is listed once; near-duplicates with another label conflict, merely alike rows do not."""
    rows = {n: stored(n, f"r{n}", label=1) for n in (1, 2, 3)}
    near = [Neighbour(n, similarity, 1) for n, similarity in ((1, 1.0), (2, 0.9), (3, 0.5))]
    frame = neighbour_frame([1], near, rows, 0, Task.TOXICITY)
    assert frame["Is"].tolist() == ["same text", "nearly the same", "alike"]
    assert frame["Conflict"].tolist() == ["other label", "other label", ""]
    assert neighbour_frame([], [], {}, None, Task.TOXICITY).empty


def test_suspects_history_lineage_and_timings_are_tabled() -> None:
    """Each table says what is there and what is not."""
    suspects = [
        Suspect(4, 0, 1, 0.7, {"heuristic": 0.1, "ml": 0.2}, 2, 3),
        Suspect(5, 0, 1, 0.6, {"heuristic": 0.1, "ml": 0.2}, 0, 0),
        Suspect(6, 0, 1, 0.5, {"heuristic": 0.1, "ml": 0.2}),
    ]
    contents = {n: stored(n, f"r{n}") for n in (4, 5, 6)}
    frame = suspect_frame(suspects, contents, {}, Task.PROMPT_INJECTION)
    assert frame["Neighbours"].tolist() == ["2 of 3 agree", "none alike", ""]
    assert frame["Model: P(label)"].tolist() == [0.2, 0.2, 0.2]
    history = history_frame([Annotation(4, "n", 1, ("a", "b"), WHEN)], Task.TOXICITY)
    assert history.iloc[0].tolist() == ["2026-05-04 03:02 UTC", "toxic", "a, b", "n"]
    change = {"corrected_from": {"title": "set v1", "relabelled": 3, "excluded": 1}}
    info = DatasetInfo("d", "set", 2, Task.TOXICITY, "h", 8, 8, 0, "s", change, False, WHEN, "p")
    line = lineage_frame([info])
    assert line.iloc[0].tolist()[:5] == ["set v2", 8, "set v1", "3", "1"]
    assert timing_frame(stored(4, "r", infer_ms=3.2))["Time"].tolist() == ["3.20 ms"]


def test_contrasts_are_tabled_and_drawn_without_markup() -> None:
    """Counts have shares; decided bars are full, others hatched; markup in a name is disarmed."""
    found = [Contrast("<b>x</b>", 6, 5, 2.0, 3.4, True), Contrast("word", 2, 1, 0.7, 1.1, False)]
    frame = contrast_frame(found, "Words", 12, 100)
    assert frame.iloc[0].tolist() == ["<b>x</b>", "6 (50%)", "5 (5%)", 2.0, 3.4, "yes"]
    figure = contrast_chart(found, 12, 100)
    assert figure.layout.yaxis.ticktext == ("&lt;b&gt;x&lt;/b&gt;", "word")
    assert figure.data[0].marker.pattern.shape == ("", "/")
    assert list(figure.data[0].x) == [3.4, 1.1]

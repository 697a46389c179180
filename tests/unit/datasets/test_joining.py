"""Scores without texts meet the rows of a dataset, and every row of both sides is accounted for."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from shield_engine.datasets import ColumnMapping, JoinedScores, ScoreColumn, join_rows
from shield_engine.errors import ConfigError, DatasetError

Write = Callable[[str], Path]
BY_ID = ColumnMapping("", id="id", scores=(ScoreColumn("s"),))
BY_HASH = ColumnMapping("", text_sha256="sha", scores=(ScoreColumn("s"),))


@pytest.fixture
def csv_file(tmp_path: Path) -> Write:
    """Return a function that writes CSV text and returns the path."""

    def write(text: str) -> Path:
        path = tmp_path / "scores.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def check_books(joined: JoinedScores, rows: int) -> None:
    """Every row of the dataset is matched or not, and has a score or an error."""
    assert joined.matched + joined.only_in_dataset_count == rows
    for given in joined.scores:
        assert len(given) == rows
        assert {n for n, risk in enumerate(given.risks) if math.isnan(risk)} == set(given.errors)


def test_rows_meet_by_id_whatever_their_order(csv_file: Write) -> None:
    """Each row of the dataset gets the score of its id; the rest is reported for both sides."""
    path = csv_file("id,s\nr3,0.3\nr1,0.1\nzz,0.9\nr4,high\n")
    joined = join_rows(path, BY_ID, ["r1", "r2", "r3", "r4"])
    check_books(joined, 4)
    (given,) = joined.scores
    assert (given.risks[0], given.risks[2]) == (0.1, 0.3)
    assert dict(given.errors) == {
        1: "scores.csv has no row of this id",
        3: "column 's' holds 'high', which is no number in 0..1",
    }
    assert (joined.rows_read, joined.matched, joined.quarantined) == (4, 3, ())
    assert (joined.only_in_file, joined.only_in_file_count) == (((4, "zz"),), 1)
    assert (joined.only_in_dataset, joined.only_in_dataset_count) == (("r2",), 1)
    assert joined.warnings == (
        "1 rows of the dataset are not in the file and have no score: r2",
        "1 rows of the file are not in the dataset and were left out: zz (line 4)",
    )


def test_a_text_that_stands_twice_is_one_hash(csv_file: Write) -> None:
    """By hash a text may repeat on both sides if its score is one; the case of hex does not matter."""
    path = csv_file("sha,s\nAA,0.1\nbb,0.2\naA,0.1\n")
    joined = join_rows(path, BY_HASH, ["aa", "bb", "aa"])
    check_books(joined, 3)
    assert list(joined.scores[0].risks) == [0.1, 0.2, 0.1]
    with pytest.raises(DatasetError, match="'aa' in lines 2, 4"):
        join_rows(csv_file("sha,s\naa,0.1\nbb,0.2\naa,0.4\n"), BY_HASH, ["aa", "bb"])


def test_doubled_ids_are_refused_with_their_lines(csv_file: Write) -> None:
    """An id that stands twice in the file is refused, even with one score."""
    path = csv_file("id,s\nr1,0.1\nr2,0.2\nr1,0.1\nr2,0.3\nr1,0.1\n")
    with pytest.raises(DatasetError, match="'r1' in lines 2, 4, 6; 'r2' in lines 3, 5"):
        join_rows(path, BY_ID, ["r1", "r2"])


def test_ids_that_the_dataset_doubles_are_refused(csv_file: Write) -> None:
    """Where the dataset has an id twice, the file cannot say which row it means."""
    path = csv_file("id,s\nr1,0.1\nr2,0.2\n")
    with pytest.raises(DatasetError, match=r"more than once: 'r1' \(2 rows\).*text_sha256"):
        join_rows(path, BY_ID, ["r1", "r2", "r1"])
    assert join_rows(path, BY_ID, ["r1", "r2", "r9", "r9"]).only_in_dataset_count == 2


def test_a_row_without_a_key_is_quarantined(csv_file: Write) -> None:
    """A missing id is set aside with its line, and counted."""
    joined = join_rows(csv_file("id,s\nr1,0.1\n,0.2\n"), BY_ID, ["r1"])
    assert [(row.line, row.reason) for row in joined.quarantined] == [
        (3, "the key is missing (column 'id')")
    ]
    assert joined.warnings == (
        "1 rows were quarantined; the first, line 3: the key is missing (column 'id')",
    )
    assert joined.rows_read == joined.matched + joined.only_in_file_count + 1


@pytest.mark.parametrize(
    ("content", "mapping", "message"),
    [
        ("id,s\na,0.1\nb,0.2\n", BY_ID, "none of its 2 rows is in the dataset; the file has a, b"),
        ("id,s\n,0.1\n", BY_ID, "none of 1 rows has a key; line 2: the key is missing"),
        ("id,s\nr1,high\n", BY_ID, "no row has a score of guard s"),
        ("id,t\nr1,0.1\n", BY_ID, "no column 's'"),
        ("row,s\nr1,0.1\n", BY_ID, "no column 'id'"),
    ],
)
def test_files_that_fit_nothing_are_refused(
    csv_file: Write, content: str, mapping: ColumnMapping, message: str
) -> None:
    """A file without a partner, a key or a score names what is wrong."""
    with pytest.raises(DatasetError, match=message):
        join_rows(csv_file(content), mapping, ["r1", "r2"])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (ColumnMapping("", id="id"), "no score column is named"),
        (ColumnMapping("", scores=BY_ID.scores), "either by a column of ids or by one of"),
        (ColumnMapping("", id="a", text_sha256="b", scores=BY_ID.scores), "either by a column"),
    ],
)
def test_a_mapping_without_scores_or_one_key_is_refused(
    csv_file: Write, mapping: ColumnMapping, message: str
) -> None:
    """The file is not even opened."""
    with pytest.raises(ConfigError, match=message):
        join_rows(csv_file("id,s\nr1,0.1\n"), mapping, ["r1"])

"""Columns of scores, verdicts and latencies: what is taken, what is an error, what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from shield_engine.datasets import (
    ColumnMapping,
    ImportedDataset,
    ScoreColumn,
    SourceFile,
    parse_scores,
    score_hints,
)
from shield_engine.errors import ConfigError, DatasetError
from shield_engine.types import Task

Write = Callable[[str], Path]


@pytest.fixture
def csv_file(tmp_path: Path) -> Write:
    """Return a function that writes CSV text and returns the path."""

    def write(text: str) -> Path:
        path = tmp_path / "rows.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def read(path: Path, *scores: ScoreColumn, task: Task = Task.PROMPT_INJECTION) -> ImportedDataset:
    """Import a file's texts, labels and these score columns."""
    return SourceFile.open(path).read(task, ColumnMapping("text", "label", scores=scores))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scores": ["risk"]}, (ScoreColumn("risk", "risk"),)),
        (
            {"scores": ["a=Vendor A", " b = B "]},
            (ScoreColumn("a", "Vendor A"), ScoreColumn("b", "B")),
        ),
        (
            {"verdicts": ["action=BLOCK|REDACT:their:API"]},
            (ScoreColumn("action", "their:API", ("BLOCK", "REDACT")),),
        ),
        ({"verdicts": ["flag=true"]}, (ScoreColumn("flag", "flag", ("true",)),)),
        (
            {"scores": ["risk=A"], "latencies": ["ms"]},
            (ScoreColumn("risk", "A", latency="ms"),),
        ),
        (
            {"scores": ["risk=A"], "verdicts": ["v=1:B"], "latencies": ["y=B", "x=A"]},
            (ScoreColumn("risk", "A", latency="x"), ScoreColumn("v", "B", ("1",), "y")),
        ),
    ],
)
def test_options_name_columns_and_guards(
    options: dict[str, list[str]], expected: tuple[ScoreColumn, ...]
) -> None:
    """Each option is a guard under the name given, or its column's; a latency is its guard's."""
    assert parse_scores(**options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": ["=A"]}, "names no column"),
        ({"verdicts": ["action"]}, "say which values mean risky"),
        ({"verdicts": ["action=|:A"]}, "say which values mean risky"),
        ({"scores": ["a=A", "b=A"]}, r"two guards are called 'A' \(columns 'a' and 'b'\)"),
        ({"scores": ["a", "b"], "latencies": ["ms"]}, "say whose it is: COLUMN=NAME; guards: a, b"),
        ({"latencies": ["ms"]}, "say whose it is: COLUMN=NAME; guards: none"),
        ({"scores": ["a"], "latencies": ["ms=B"]}, "no score or verdict is called 'B': a"),
        ({"scores": ["a"], "latencies": ["x", "y"]}, "guard a has one already"),
        ({"scores": ["a=two\nlines"]}, "needs a name on one line"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    options: dict[str, list[str]], message: str
) -> None:
    """What is ambiguous or names nothing is refused in a sentence that says what to write."""
    with pytest.raises(ConfigError, match=message):
        parse_scores(**options)


def test_a_column_is_written_as_the_options_it_was_read_from() -> None:
    """The options of a column give that column back."""
    column = ScoreColumn("v", "B", ("BLOCK", "1"), "ms")
    _, verdict, _, latency = column.options
    assert column.options[::2] == ("--verdict", "--latency")
    assert parse_scores(verdicts=[verdict], latencies=[latency]) == (column,)


def test_two_guards_of_one_name_are_refused() -> None:
    """A mapping cannot hold two columns for the same guard."""
    with pytest.raises(ConfigError, match="two guards are called 'x'"):
        ColumnMapping("text", scores=(ScoreColumn("a", "x"), ScoreColumn("x")))


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("1.7", "holds '1.7', which is no number in 0..1"),
        ("-0.1", "holds '-0.1', which is no number in 0..1"),
        ("high", "holds 'high', which is no number in 0..1"),
        ("NaN", "holds NaN, which is no number in 0..1"),
        ("inf", "holds 'inf', which is no number in 0..1"),
        ("0_1", "holds '0_1', which is no number in 0..1"),
        ('"0,5"', "holds '0,5', which is no number in 0..1"),
        ("", "is empty"),
        ("  ", "is empty"),
        ("x" * 100, "holds '" + "x" * 40 + "...', which is no number in 0..1"),
    ],
)
def test_a_cell_without_a_score_is_an_error_of_its_row(
    csv_file: Write, cell: str, reason: str
) -> None:
    """The row is imported, its score is an error with the reason, and its neighbours keep theirs."""
    path = csv_file(f"text,label,s,other\na,1,0.25,0.5\nb,0,{cell},0.75\nc,0,1,1e-3\n")
    dataset = read(path, ScoreColumn("s"), ScoreColumn("other"))
    assert dataset.table["text"].to_pylist() == ["a", "b", "c"]
    assert dataset.quarantined == ()
    first, second = dataset.scores
    assert dict(first.errors) == {1: f"column 's' {reason}"}
    assert (first.risks[0], first.risks[2]) == (0.25, 1.0)
    assert math.isnan(first.risks[1])
    assert (list(second.risks), dict(second.errors)) == ([0.5, 0.75, 0.001], {})


def test_values_of_other_formats_are_taken_as_they_are(tmp_path: Path) -> None:
    """Numbers, decimals and text count in Parquet and JSON; booleans, lists and nothing do not."""
    path = tmp_path / "rows.jsonl"
    values = [0.5, 1, "0.25", True, None, [0.5], math.nan]
    rows = [{"text": "t", "label": 0, "s": value} for value in values]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": "t", "label": 1}]))
    (given,) = read(path, ScoreColumn("s")).scores
    assert list(given.risks[:3]) == [0.5, 1.0, 0.25]
    assert dict(given.errors) == {
        3: "column 's' holds a boolean, which is no number in 0..1",
        4: "column 's' is empty",
        5: "column 's' holds an array, which is no number in 0..1",
        6: "column 's' holds NaN, which is no number in 0..1",
        7: "column 's' is empty",
    }
    table = {"text": ["a", "b"], "label": [0, 1], "s": [Decimal("0.10"), Decimal("0.90")]}
    parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    (given,) = read(tmp_path / "rows.parquet", ScoreColumn("s")).scores
    assert list(given.risks) == [0.1, 0.9]


def test_a_verdict_is_one_or_zero(csv_file: Write) -> None:
    """Flagged values are 1 whatever their case, others 0, and an empty cell is an error."""
    path = csv_file("text,label,v\na,1,block\nb,0,Allow\nc,1,Redact PII\nd,0,\n")
    (given,) = read(path, ScoreColumn("v", "api", ("BLOCK", "redact_pii"))).scores
    assert list(given.risks[:3]) == [1.0, 0.0, 1.0]
    assert dict(given.errors) == {3: "column 'v' is empty"}
    assert given.warnings == ()


def test_a_verdict_that_never_flags_is_warned_about(csv_file: Write) -> None:
    """A misspelt flagged value is seen, because the values that are there are named."""
    path = csv_file("text,label,v\na,1,block\nb,0,allow\n")
    dataset = read(path, ScoreColumn("v", "api", ("BLOCKED",)))
    warning = "guard api flags no row: column 'v' holds 'block' (1), 'allow' (1), never 'BLOCKED'"
    assert warning in dataset.profile.warnings


def test_latency_is_kept_or_absent(csv_file: Write) -> None:
    """A time is milliseconds from 0; an empty one is absent, a wrong one too and is warned about."""
    path = csv_file("text,label,s,ms\na,1,0.5,12.5\nb,0,0.5,\nc,0,0.5,-1\nd,0,0.5,fast\n")
    dataset = read(path, ScoreColumn("s", latency="ms"))
    (given,) = dataset.scores
    assert given.latency_ms[0] == 12.5
    assert all(math.isnan(value) for value in given.latency_ms[1:])
    assert not given.errors
    warned = [text for text in dataset.profile.warnings if "no latency where" in text]
    assert len(warned) == 2


def test_scores_follow_their_rows_past_quarantined_ones(csv_file: Write) -> None:
    """A row that is set aside takes its score with it."""
    path = csv_file("text,label,s\na,1,0.1\nb,,0.2\nc,0,0.3\nd,0\ne,1,0.5\n")
    dataset = read(path, ScoreColumn("s"))
    assert dataset.table["text"].to_pylist() == ["a", "c", "e"]
    assert list(dataset.scores[0].risks) == [0.1, 0.3, 0.5]
    assert dataset.rows_read == 3 + dataset.quarantined_count


def test_a_column_without_any_score_is_refused(csv_file: Write) -> None:
    """Percentages, or the wrong column, stop the import before it stores anything."""
    path = csv_file("text,label,s\na,1,87\nb,0,12\n")
    with pytest.raises(DatasetError, match=r"no row has a score of guard s.*'87'.*percentages"):
        read(path, ScoreColumn("s"))


def test_what_cannot_hold_scores_is_refused(csv_file: Write) -> None:
    """An unknown column, three classes, and a mapping without texts are named."""
    path = csv_file("text,label,score\na,1,0.5\n")
    with pytest.raises(DatasetError, match=r"no column 'scor'\. Did you mean 'score'"):
        read(path, ScoreColumn("scor"))
    with pytest.raises(DatasetError, match="no column 'ms'"):
        read(path, ScoreColumn("score", latency="ms"))
    with pytest.raises(ConfigError, match="sentiment needs a probability of each of three"):
        read(path, ScoreColumn("score"), task=Task.SENTIMENT)
    with pytest.raises(DatasetError, match=r"no column of texts is named.*--join"):
        SourceFile.open(path).read(Task.TOXICITY, ColumnMapping("", scores=(ScoreColumn("score"),)))


def test_names_of_score_columns_are_hints_only(csv_file: Write) -> None:
    """A column named like a score is spoken of and not used until it is mapped."""
    names = ["text", "Risk", "azure score", "flagged", "latency_ms", "a_latency", "scores", "ms"]
    assert score_hints(names) == {
        "Risk": "score",
        "azure score": "score",
        "flagged": "verdict",
        "latency_ms": "latency",
        "a_latency": "latency",
    }
    path = csv_file("text,label,score,latency_ms\na,1,0.5,3\n")
    unused = SourceFile.open(path).read(Task.TOXICITY)
    assert unused.scores == ()
    assert any(
        "'score' (score), 'latency_ms' (latency)" in text for text in unused.profile.warnings
    )
    used = read(path, ScoreColumn("score", latency="latency_ms"))
    assert not any("look like" in text for text in used.profile.warnings)


def test_scores_do_not_change_the_rows_identity(csv_file: Write) -> None:
    """The same rows with other scores are the same dataset version, under another digest."""
    first = read(csv_file("text,label,s,ms\na,1,0.5,1\n"), ScoreColumn("s"))
    second = read(csv_file("text,label,s,ms\na,1,0.6,2\n"), ScoreColumn("s"))
    timed = read(csv_file("text,label,s,ms\na,1,0.6,2\n"), ScoreColumn("s", latency="ms"))
    assert first.content_hash == second.content_hash
    digests = {dataset.scores[0].digest for dataset in (first, second, timed)}
    assert len(digests) == 3

"""Rows for training: read, split and put into batches, or refused by file and line."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shield_engine.errors import DatasetError, TrainingError
from shield_engine.training.network import batches_of
from shield_engine.training.rows import TrainingRows, read_rows, split_rows
from shield_engine.types import Task


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON Lines, compressed if the name says so."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def binary_rows(benign: int, attacks: int) -> list[dict[str, Any]]:
    """Return rows of two sources."""
    return [
        {"text": f"t{n}", "label": int(n >= benign), "source": "ab"[n % 2]}
        for n in range(benign + attacks)
    ]


def split(rows: TrainingRows, sources: tuple[str, ...] = ()) -> tuple[TrainingRows, TrainingRows]:
    """Split toxicity rows, a fiftieth held out where no source is."""
    return split_rows(rows, Task.TOXICITY, sources=sources, share=0.02, seed=7)


def test_rows_are_read_with_labels_as_numbers_or_names(tmp_path: Path) -> None:
    """0/1 and class names mean the same; sources are kept; gzip is read."""
    rows = [{"text": "a", "label": 0, "source": "s"}, {"text": "b", "label": "injection"}]
    for name in ("rows.jsonl", "rows.jsonl.gz"):
        read = read_rows(written(tmp_path / name, rows), Task.PROMPT_INJECTION)
        assert read.texts == ["a", "b"]
        assert read.labels.tolist() == [0, 1]
        assert read.sources == ["s", ""]


def test_rows_are_read_from_csv_letter_by_letter(tmp_path: Path) -> None:
    """Line ends, quotes and formula prefixes inside a cell stay; source may be absent or empty."""
    content = '\ufefflabel,text,source\r\n1,"=a ""b""\r\nc\rd",s\nbenign,"plain, text",\n'
    path = tmp_path / "rows.csv"
    path.write_bytes(content.encode())
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(content.encode()))
    for name in ("rows.csv", "rows.csv.gz"):
        read = read_rows(tmp_path / name, Task.PROMPT_INJECTION)
        assert read.texts == ['=a "b"\r\nc\rd', "plain, text"]
        assert read.labels.tolist() == [1, 0]
        assert read.sources == ["s", ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"rows.csv:1: expected a header with text and label; label and text is missing"),
        ("text,class\na,1\n", r"rows.csv:1: expected a header .* label is missing"),
        ("text,label\na,1\nb,7\n", r"rows.csv:3: expected a row .* found 'b,7'"),
        ("text,label\na,1,2\n", r"rows.csv:2: 3 cells where the header has 2"),
        ('text,label\n"a,1\n', r"rows.csv:2: no valid CSV"),
    ],
)
def test_bad_csv_is_named_by_line(tmp_path: Path, content: str, message: str) -> None:
    """A CSV that cannot be used stops training before it starts, never half read."""
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(DatasetError, match=message):
        read_rows(path, Task.TOXICITY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json\n", r"rows.jsonl:1: expected a JSON object"),
        ('{"text": "a", "label": 0}\n{"text": "b", "label": 7}\n', r"rows.jsonl:2"),
        ('{"label": 0}\n', r"rows.jsonl:1"),
    ],
)
def test_bad_row_is_named_by_line(tmp_path: Path, content: str, message: str) -> None:
    """A line that cannot be used stops training before it starts."""
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DatasetError, match=message):
        read_rows(path, Task.TOXICITY)


def test_missing_file_and_missing_class_are_told(tmp_path: Path) -> None:
    """Neither is a traceback."""
    with pytest.raises(DatasetError, match="cannot be opened"):
        read_rows(tmp_path / "none.jsonl", Task.TOXICITY)
    path = written(tmp_path / "rows.jsonl", [{"text": "a", "label": 0}])
    with pytest.raises(TrainingError, match="lacks a class"):
        read_rows(path, Task.TOXICITY)


def test_split_holds_out_whole_sources_where_named(tmp_path: Path) -> None:
    """No row of a validation source is trained on."""
    rows = read_rows(written(tmp_path / "r.jsonl", binary_rows(60, 40)), Task.TOXICITY)
    training, validation = split(rows, sources=("b",))
    assert set(validation.sources) == {"b"}
    assert set(training.sources) == {"a"}
    assert len(training.texts) + len(validation.texts) == 100


def test_split_without_sources_has_every_class_on_both_sides(tmp_path: Path) -> None:
    """A share of each class is held out, however small; the seed decides which."""
    rows = read_rows(written(tmp_path / "r.jsonl", binary_rows(116, 4)), Task.TOXICITY)
    training, validation = split(rows)
    assert set(validation.labels.tolist()) == set(training.labels.tolist()) == {0, 1}
    assert not set(training.texts) & set(validation.texts)
    assert split(rows)[1].texts == validation.texts


def test_split_refuses_to_lose_a_class(tmp_path: Path) -> None:
    """Holding out all of a class's sources is an error that names the class."""
    rows = [{"text": str(n), "label": n % 2, "source": "ab"[n % 2]} for n in range(10)]
    read = read_rows(written(tmp_path / "r.jsonl", rows), Task.TOXICITY)
    with pytest.raises(TrainingError, match="no toxic row is left for training"):
        split(read, sources=("b",))


def test_batches_hold_each_row_once_with_neighbours_of_like_length() -> None:
    """An epoch is a permutation, and a batch's lengths lie close together."""
    lengths = [random.Random(5).randint(1, 200) for _ in range(333)]
    batches = list(batches_of(lengths, 8, random.Random(1)))
    assert sorted(row for batch in batches for row in batch) == list(range(333))
    spread = [max(lengths[r] for r in b) - min(lengths[r] for r in b) for b in batches]
    assert np.mean(spread) < 30

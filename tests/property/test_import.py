"""Laws of import: texts survive every format, and every row is accounted for."""

import csv
import io
import json
import re
import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from shield_engine.datasets import ColumnMapping, SourceFile
from shield_engine.errors import DatasetError
from shield_engine.types import Task

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    'ab",;\t\r\n|{[ \x00\ufeff', max_size=12
)
ROWS = st.lists(st.tuples(TEXT, st.integers(0, 1)), min_size=1, max_size=12)


def run(name, data, mapping=None):
    """Import bytes under a file name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        return SourceFile.open(path).read(Task.PROMPT_INJECTION, mapping)


def run_or_refuse(name, data, message):
    """Import bytes; `None` if they are refused, with an error that matches `message`."""
    refusal = None
    try:
        return run(name, data)
    except DatasetError as error:
        refusal = str(error)
    assert re.search(message, refusal)
    return None


def as_csv(rows, delimiter=","):
    """Write rows as the csv module does."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["text", "label"])
    writer.writerows(rows)
    return out.getvalue().encode()


def as_parquet(rows):
    """Write rows as Parquet."""
    sink = io.BytesIO()
    table = pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    parquet.write_table(table, sink)
    return sink.getvalue()


@given(ROWS)
@example([('"', 0), ('"', 1), ('"', 1), ("a\r\nb\rc\n", 0)])
def test_every_format_gives_the_same_rows(rows):
    """Texts and hash are the same from CSV, TSV, JSON lines, JSON and Parquet."""
    objects = [{"text": text, "label": label} for text, label in rows]
    found = [
        run("a.csv", as_csv(rows)),
        run("a.tsv", as_csv(rows, "\t")),
        run("a.jsonl", "".join(json.dumps(row) + "\n" for row in objects).encode()),
        run("a.json", json.dumps(objects, ensure_ascii=False).encode()),
        run("a.parquet", as_parquet(rows)),
    ]
    for dataset in found:
        assert dataset.table["text"].to_pylist() == [text for text, _ in rows]
        assert dataset.table["label"].to_pylist() == [label for _, label in rows]
        assert dataset.quarantined_count == 0
    assert len({dataset.content_hash for dataset in found}) == 1


LINE = st.one_of(
    st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")),
    TEXT.map(lambda text: json.dumps({"text": text}).encode()),
    st.recursive(st.none() | st.booleans() | st.floats() | TEXT, st.lists).map(
        lambda value: json.dumps({"text": value}).encode()
    ),
)


@given(st.lists(LINE, max_size=10))
def test_each_json_line_is_imported_or_quarantined(lines):
    """Behind one good row, every line that is not blank is counted once."""
    data = b'{"text": "first"}\n' + b"\n".join(lines)
    expected = sum(
        1
        for line in data.split(b"\n")
        if line and not line.decode("utf-8", "surrogateescape").isspace()
    )
    dataset = run_or_refuse("a.jsonl", data, "UTF-8|NUL")
    if dataset is not None:
        assert dataset.rows_read == expected
        assert dataset.table.num_rows + dataset.quarantined_count == expected


PLAIN = st.text("abc xyz.", min_size=1, max_size=20)


@given(st.lists(PLAIN, min_size=2, max_size=30), st.data())
def test_a_stray_quote_costs_one_row(texts, data):
    """One quote that is never closed quarantines its own row and no other."""
    stray = data.draw(st.integers(0, len(texts) - 1))
    lines = ["text,label"]
    lines += [f"{chr(34) * (n == stray)}{text},{n % 2}" for n, text in enumerate(texts)]
    dataset = run("a.csv", "\n".join(lines).encode())
    kept = [text for n, text in enumerate(texts) if n != stray]
    assert dataset.table["text"].to_pylist() == kept
    assert [row.line for row in dataset.quarantined] == [stray + 2]


@given(st.lists(st.text('a,"\r', max_size=12), max_size=10))
def test_no_mess_of_quotes_takes_the_rows_behind_it(mess):
    """Rows of two plain cells are all imported, whatever quotes stand above them."""
    good = [f"good{number}" for number in range(40)]
    lines = ["text,label", "first,0", *mess, '"",0', *(f"{text},1" for text in good)]
    dataset = run("a.csv", "\n".join(lines).encode(), ColumnMapping("text"))
    imported = dataset.table["text"].to_pylist()
    assert imported[0] == "first"
    assert [value for value in imported if "good" in value] == good
    assert dataset.rows_read == len(imported) + dataset.quarantined_count


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt", "a.parquet"]), st.binary())
def test_any_bytes_are_rows_or_a_clear_error(name, data):
    """Arbitrary bytes never raise anything but a DatasetError that names the file."""
    dataset = run_or_refuse(name, data, re.escape(name))
    if dataset is not None:
        assert dataset.rows_read == dataset.table.num_rows + dataset.quarantined_count


@given(ROWS, st.data())
def test_a_damaged_file_is_rows_or_a_clear_error(rows, data):
    """A good file with some bytes overwritten keeps the books balanced in every format."""
    name, content = data.draw(
        st.sampled_from([("a.csv", as_csv(rows)), ("a.parquet", as_parquet(rows))])
    )
    position = data.draw(st.integers(0, len(content) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=4))
    damaged = content[:position] + patch + content[position + len(patch) :]
    dataset = run_or_refuse(name, damaged, re.escape(name))
    if dataset is not None:
        assert dataset.rows_read == dataset.table.num_rows + dataset.quarantined_count

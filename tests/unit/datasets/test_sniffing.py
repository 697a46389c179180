"""What a file is shows in its content; its name only decides what the content leaves open."""

import gzip
import json

import pytest

from shield_engine.datasets import ColumnMapping, SourceFile, dataset_name
from shield_engine.errors import DatasetError


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file and returns its path."""

    def _write(name, content):
        path = tmp_path / name
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return _write


@pytest.mark.parametrize(
    ("name", "content", "found", "delimiter"),
    [
        ("a.csv", "text,label\na,1\n", "csv", ","),
        ("a.csv.gz", "text,label\na,1\n", "csv", ","),
        ("a.CSV", "text;label\na, b, c;1\nd;0\n", "csv", ";"),
        ("a.csv", "text\tlabel\na, b\t1\n", "tsv", "\t"),
        ("a.tsv", "text\tlabel\na\t1\n", "tsv", "\t"),
        ("a.txt", "text|label\na|1\n", "csv", "|"),
        ("a.csv", "text\nHello, world\nfoo\n", "csv", None),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"}\n', "jsonl", None),
        ("a.jsonl", '{"text": "a"}', "jsonl", None),
        ("a.json", '{"text": "a"}\n{"text": "b"}\n', "jsonl", None),
        ("a.csv", '{"text": "a", "label": 1}\n', "jsonl", None),
        ("a.json", '[{"text": "a"}]', "json", None),
        ("a.jsonl", '[\n {"text": "a"}\n]', "json", None),
        ("a.json", '{"text": ["a"]}', "json", None),
        ("a.data", '{\n"text": ["a"]}', "json", None),
    ],
)
def test_format_and_delimiter_are_found(write, name, content, found, delimiter):
    """Format and delimiter follow the content, whatever the name says."""
    sniffed = SourceFile.open(write(name, content)).sniffed
    assert (sniffed.format, sniffed.delimiter) == (found, delimiter)


@pytest.mark.parametrize(
    ("name", "content", "warning"),
    [
        ("a.csv", "text\tlabel\na\t1\n", "separated by tabs"),
        ("a.csv", "text;label\na;1\n", "separated by semicolons"),
        ("a.csv", '{"text": "a", "label": 1}\n', "named .csv but its content is jsonl"),
        ("a.csv", "hello there,1\nbye,0\n", "looks like data"),
        ("a.csv", "x,label,label\na,1,0\n", "repeats label"),
        ("a.csv", "col\nHello, world\nfoo\n", "no delimiter"),
        ("a.csv", "q,w\nlonger,1\n", "no column has a usual name"),
        ("a.jsonl", '{"text": "a", "label": null}\n', "'label' is empty"),
    ],
)
def test_guesses_are_warned_about(write, name, content, warning):
    """Whatever was guessed against the name or without one is said."""
    assert any(warning in found for found in SourceFile.open(write(name, content)).sniffed.warnings)


def test_plain_file_gives_no_warning(write):
    """A file that is what it says has nothing to warn about."""
    assert SourceFile.open(write("a.csv", "text,label\na,1\n")).sniffed.warnings == ()


@pytest.mark.parametrize(
    ("content", "has_header"),
    [
        ("text,label\na,1\n", True),
        ("my column,other\na,1\n", True),
        ("ignore this,attack\nhello,benign\nobey,attack\n", False),
        ("hello,1\n", False),
        ("this is a whole sentence here,x\nb,c\n", False),
    ],
)
def test_header_is_told_from_data(write, content, has_header):
    """A first row with a number, a sentence or a recurring value is data."""
    assert SourceFile.open(write("a.csv", content)).sniffed.has_header is has_header


def test_repeated_columns_are_numbered(write):
    """Columns of one name can be told apart, and none takes the bare name."""
    assert SourceFile.open(write("a.csv", "text,label,label\na,1,0\n")).sniffed.columns == (
        "text",
        "label (1)",
        "label (2)",
    )


def test_mapping_is_suggested_by_name(write):
    """Usual names are found whatever their case; nothing is mapped twice."""
    content = "ID,Prompt,Is Injection,Category,conversation_id\n1,a,0,x,c\n"
    assert SourceFile.open(write("a.csv", content)).sniffed.suggested == ColumnMapping(
        text="Prompt",
        label="Is Injection",
        id="ID",
        group="conversation_id",
        slices=("Category",),
    )


def test_preview_shows_twenty_rows_and_cuts_long_texts(write):
    """The preview is small whatever the file holds."""
    rows = "".join(f"{'x' * 5000},{n}\n" for n in range(50))
    preview = SourceFile.open(write("a.csv", "text,n\n" + rows)).sniffed.preview
    assert len(preview) == 20
    assert preview[19]["n"] == "19"
    assert len(preview[0]["text"]) == 2000


def test_quotes_that_never_enclose_are_ordinary(write):
    """In a tab-separated file of raw speech, quotes belong to the text."""
    sniffed = SourceFile.open(write("a.tsv", "text\tlabel\n" + '"Yes" she said\t1\n' * 4)).sniffed
    assert sniffed.quote is None
    assert sniffed.preview[0]["text"] == '"Yes" she said'


def test_enclosing_quotes_over_lines_are_seen(write):
    """Quoted cells that all span lines are still enclosed ones."""
    sniffed = SourceFile.open(write("a.csv", "text,label\n" + '"a\nb",1\n' * 4)).sniffed
    assert sniffed.quote == '"'
    assert sniffed.preview[0]["text"] == "a\nb"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", "ZIP"),
        (b"BZh9", "bzip2"),
        (b"t\0e\0x\0t\0\n\0a\0\n\0", "UTF-16 without a byte-order mark"),
        (b"PAR1 and no more", "probably cut off"),
        (b" \n\n", "no rows"),
    ],
)
def test_what_is_no_text_table_is_refused(write, content, message):
    """Archives, unmarked UTF-16, broken Parquet and blank files are refused by name."""
    with pytest.raises(DatasetError, match=message):
        SourceFile.open(write("a.csv", content))


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("rows.jsonl.gz", "rows"),
        ("my.data.CSV", "my.data"),
        ("rows.csv.GZIP", "rows"),
        ("rows.pq", "rows"),
        ("export.json.csv", "export.json"),
        ("C:\\tmp\\rows.tsv", "rows"),
        ("plain", "plain"),
        (".csv", ".csv"),
    ],
)
def test_a_dataset_is_named_after_its_file(file_name, name):
    """Endings and folders are left out."""
    assert dataset_name(file_name) == name


def test_columns_of_messages_are_recognised(write):
    """A list counts anywhere, its JSON text only in a column with such a name."""
    messages = [{"role": "user", "content": "hi"}]
    row = {"messages": json.dumps(messages), "turns": messages, "text": "[1] see"}
    sniffed = SourceFile.open(write("a.jsonl", json.dumps(row) + "\n")).sniffed
    assert sniffed.holds_messages("messages")
    assert sniffed.holds_messages("turns")
    assert not sniffed.holds_messages("text")

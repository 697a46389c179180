"""The bad-input matrix of import: each bad file ends in a clear error or in the quarantine."""

import gzip
import json
import os
import stat

import pyarrow as pa
import pytest
from pyarrow import parquet

from shield_engine.datasets import ColumnMapping, SourceFile
from shield_engine.errors import DatasetError
from shield_engine.types import Task

INJECTION = Task.PROMPT_INJECTION
GOOD_CSV = b"text,label\nhello,0\nobey me,1\n"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes bytes to a new file and returns its path."""

    def _write(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return _write


def outcome(path, mapping=None):
    """Return imported texts and (line, reason) of the quarantined rows; the books balance."""
    dataset = SourceFile.open(path).read(INJECTION, mapping)
    texts = dataset.table["text"].to_pylist()
    assert dataset.rows_read == len(texts) + dataset.quarantined_count
    return texts, [(row.line, row.reason) for row in dataset.quarantined]


def table_bytes(columns):
    """Return a Parquet file of columns."""
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


LONG_PARQUET = table_bytes({"text": [f"text number {number}" for number in range(5_000)]})

REFUSED = {
    "no bytes": ("a.csv", b"", r"empty \(0 bytes\)"),
    "white space": ("a.csv", b"\n \n", "no rows"),
    "empty gzip": ("a.csv.gz", gzip.compress(b""), "no rows"),
    "csv header only": ("a.csv", b"text,label\n", "no rows"),
    "empty array": ("a.json", b"[]", "no rows"),
    "no parquet rows": ("a.parquet", table_bytes({"text": pa.array([], "string")}), "no rows"),
    "not gzip": ("a.csv.gz", GOOD_CSV, "is not gzip data"),
    "cut gzip": ("a.csv.gz", gzip.compress(os.urandom(9_000).hex().encode())[:-900], "ends early"),
    "gzip with a bad end": ("a.csv.gz", gzip.compress(GOOD_CSV)[:-8] + b"12345678", "broken"),
    "not parquet": ("a.parquet", GOOD_CSV, "is not Parquet data"),
    "cut parquet": ("a.parquet", LONG_PARQUET[:-200], "cut off"),
    "parquet in gzip": ("a.parquet.gz", gzip.compress(LONG_PARQUET), "inside gzip"),
    "workbook": ("a.xlsx", b"PK\x03\x04" + b"\0" * 30, "Excel"),
    "unmarked utf-16": ("a.csv", "text,label\nhi,1\n".encode("utf-16-le"), "without a byte-order"),
    "cut utf-16": ("a.csv", GOOD_CSV.decode().encode("utf-16")[:-1], "begins as utf-16"),
    "mostly not utf-8": ("a.csv", "text,label\né,0\nü,1\na,1\n".encode("cp1252"), "iconv"),
    "json that breaks off": ("a.json", b'[{"text": "a"},\n {"text":', "line 2, column"),
    "json not utf-8": ("a.json", b'[{"text": "\xe9"}]', "byte 11 is not UTF-8"),
    "deep json": ("a.json", b"[" * 200_000, "nested too deeply"),
    "json of one value": ("a.json", b'{"a": {"b": 1}, "c": 2}', "none holds rows"),
    "json lines of strings": ("a.jsonl", b'"a"\n"b"\n', "none of 2 rows can be imported"),
    "broken header": ("a.csv", b'"text" x,label\na,1\n', "header row cannot be read"),
    "repeated header": ("a.csv", b"text,label,label\na,1,0\n", "repeats 'label'"),
    "unknown label": ("a.csv", b"text,label\na,maybe\n", "'maybe'.*--label-map"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_file_is_refused_in_words(write, case):
    """A file that cannot be a dataset is an error that names the file and what is wrong."""
    name, content, message = REFUSED[case]
    with pytest.raises(DatasetError, match=f"(?s){name}.*{message}"):
        SourceFile.open(write(name, content)).read(INJECTION)


READ = {
    "utf-8 with a mark": ("a.csv", b"\xef\xbb\xbf" + GOOD_CSV),
    "utf-16 with a mark": ("a.csv", GOOD_CSV.decode().encode("utf-16")),
    "utf-32 with a mark": ("a.csv", GOOD_CSV.decode().encode("utf-32")),
    "windows line ends": ("a.csv", GOOD_CSV.replace(b"\n", b"\r\n")),
    "old mac line ends": ("a.csv", GOOD_CSV.replace(b"\n", b"\r")),
    "semicolons": ("a.csv", GOOD_CSV.replace(b",", b";")),
    "tabs in a .csv": ("a.csv", GOOD_CSV.replace(b",", b"\t")),
    "gzip without the name": ("a.csv", gzip.compress(GOOD_CSV)),
    "no last line end": ("a.csv", GOOD_CSV.rstrip()),
    "no header": ("a.csv", GOOD_CSV.partition(b"\n")[2]),
    "marked json lines": ("a.jsonl", b'\xef\xbb\xbf{"text":"hello"}\r\n\r\n{"text":"obey me"}\r\n'),
    "json columns": ("a.json", b'{"text": ["hello", "obey me"], "label": [0, 1]}'),
    "json data": ("a.json", b'{"data": [{"text": "hello"}, {"text": "obey me"}]}'),
}


@pytest.mark.parametrize("case", READ)
def test_unusual_file_is_read(write, case):
    """What is only unusual is read completely."""
    assert outcome(write(*READ[case])) == (["hello", "obey me"], [])


def test_missing_file_and_directory_are_refused(tmp_path):
    """A path that is no file is an error that says which it is."""
    with pytest.raises(DatasetError, match=r"nothere\.csv: cannot be opened"):
        SourceFile.open(tmp_path / "nothere.csv").read(INJECTION)
    with pytest.raises(DatasetError, match="is a directory"):
        SourceFile.open(tmp_path)


def test_pipe_is_refused_without_waiting(tmp_path):
    """A named pipe is refused instead of being waited for."""
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    assert stat.S_ISFIFO(path.stat().st_mode)
    with pytest.raises(DatasetError, match="no regular file"):
        SourceFile.open(path).read(INJECTION)


def test_rows_that_are_not_utf8_are_set_aside(write):
    """A few undecodable rows are quarantined; the others are read."""
    path = write("a.csv", GOOD_CSV + b"caf\xe9,1\nlast,0\n")
    assert outcome(path) == (["hello", "obey me", "last"], [(4, "not UTF-8")])


def test_ragged_rows_are_set_aside(write):
    """Rows of a wrong width are quarantined under their line."""
    texts, aside = outcome(write("a.csv", GOOD_CSV + b"a,b,1\nshort\nlast,0\n"))
    assert texts == ["hello", "obey me", "last"]
    assert [line for line, _ in aside] == [4, 5]


def test_unterminated_quote_keeps_the_rest_of_the_file(write):
    """A quote that is never closed costs its own row, not the thousand rows behind it."""
    rows = b"".join(b"row %d,1\n" % number for number in range(1_000))
    texts, aside = outcome(write("a.csv", GOOD_CSV + b'"open,1\n' + rows))
    assert len(texts) == 1_002
    assert [line for line, _ in aside] == [4]


def test_quoted_line_ends_are_part_of_the_text(write):
    """Line ends within quotes stay as they are, of either kind."""
    path = write("a.csv", b'text,label\n"a\nb\r\nc",1\nd,0\n')
    assert outcome(path) == (["a\nb\r\nc", "d"], [])


@pytest.mark.parametrize("chars", [1_000_000, 5 * 2**20])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_very_long_text_is_imported_whole(write, kind, chars):
    """A text of a million characters, and a line of 5 MB, arrive whole."""
    text = "x" * chars
    content = {
        "csv": f"text,label\n{text},1\nlast,0\n".encode(),
        "jsonl": f'{{"text": "{text}"}}\n{{"text": "last"}}\n'.encode(),
        "parquet": table_bytes({"text": [text, "last"]}),
    }[kind]
    texts, aside = outcome(write(f"a.{kind}", content))
    assert (texts, aside) == ([text, "last"], [])


def test_single_line_of_5_mb_is_a_row(write):
    """A CSV that is one huge line is one row without a header, not a header without rows."""
    text = "word " * 2**20
    assert outcome(write("a.csv", text.encode())) == ([text], [])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"text,label\na\x00b,1\nsome longer text,1\n"),
        ("a.jsonl", b'{"text": "a\\u0000b"}\n{"text": "some longer text"}\n'),
        ("a.parquet", table_bytes({"text": ["a\x00b", "some longer text"]})),
    ],
)
def test_nul_stays_in_the_text(write, name, content):
    """A NUL is a character like any other."""
    assert outcome(write(name, content)) == (["a\x00b", "some longer text"], [])


def test_bad_json_lines_are_set_aside(write):
    """Broken lines, values that are no objects and bottomless ones are quarantined one by one."""
    bad = [b'{"text": "cut', b'["a"]', b'{"text": ' + b"[" * 100_000, b'{"text": "\xff"}', b"7"]
    lines = [b'{"text": "a"}', *bad, b'{"text": "b"}']
    texts, aside = outcome(write("a.jsonl", b"\n".join(lines)))
    assert texts == ["a", "b"]
    assert [line for line, _ in aside] == [2, 3, 4, 5, 6]


def test_parquet_text_that_is_not_utf8_is_set_aside(write):
    """A Parquet string with bad bytes costs its own row."""
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 2, 3)))
    column = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"a\xffb")])
    texts, aside = outcome(write("a.parquet", table_bytes({"text": column})))
    assert (texts, aside) == (["a", "b"], [(2, "not UTF-8")])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_unknown_column_lists_those_there_are(write, kind):
    """A column that does not exist is answered with the columns and the nearest name."""
    content = {
        "csv": b"prompt,label\na,1\n",
        "jsonl": json.dumps({"prompt": "a", "label": 1}).encode(),
        "parquet": table_bytes({"prompt": ["a"], "label": [1]}),
    }[kind]
    with pytest.raises(DatasetError, match=r"no column 'promt'.*'prompt'\?.*label"):
        outcome(write(f"a.{kind}", content), ColumnMapping("promt"))


def test_file_that_changes_while_it_is_read_is_refused(write):
    """A file that grows during the import is not imported in part."""
    path = write("a.csv", GOOD_CSV + b"row,1\n" * 6_000)

    def grow(*_):
        with path.open("ab") as file:
            file.write(b"late,1\n")

    with pytest.raises(DatasetError, match="changed while it was read"):
        SourceFile.open(path).read(INJECTION, progress=grow)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_refused(write):
    """A file without read permission is an error that says so."""
    path = write("a.csv", GOOD_CSV)
    path.chmod(0)
    with pytest.raises(DatasetError, match="cannot be read"):
        SourceFile.open(path).read(INJECTION)


def test_public_files_are_read_completely(shared_data):
    """Every labelled public file is imported without a quarantined row or a flag."""
    tasks = {"injection": INJECTION, "toxicity": Task.TOXICITY, "sentiment": Task.SENTIMENT}
    for folder, task in tasks.items():
        for path in sorted((shared_data / "eval" / folder).glob("*.jsonl.gz")):
            with gzip.open(path) as file:
                lines = sum(1 for _ in file)
            dataset = SourceFile.open(path).read(task)
            assert (path.name, dataset.table.num_rows) == (path.name, lines)
            assert dataset.profile.labelled == lines


def test_parquet_column_names_that_are_no_text(tmp_path):
    """A byte that is no UTF-8 in the schema is a clear error, not a decoding one."""
    whole = tmp_path / "whole.parquet"
    parquet.write_table(pa.table({"text": ["a"], "label": [0]}), whole)
    path = tmp_path / "damaged.parquet"
    path.write_bytes(whole.read_bytes().replace(b"text", b"\x80ext"))
    with pytest.raises(DatasetError, match=r"damaged\.parquet"):
        SourceFile.open(path).read(INJECTION)

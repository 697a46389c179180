"""Records come out of text one by one, readable or quarantined with their line."""

import pytest

from shield_engine.datasets import records
from shield_engine.datasets.records import (
    Cells,
    Numeral,
    QuarantinedRow,
    Row,
    quarantine,
    read_cells,
    read_json_lines,
    rows_of_document,
)
from shield_engine.errors import DatasetError


def cells(text, width=2, quote='"'):
    """Return (line, cells) of good records and (line, reason) of quarantined ones."""
    found = read_cells(iter(text.splitlines(keepends=True)), ",", quote, width)
    return [
        (record.line, record.cells if isinstance(record, Cells) else record.reason)
        for record in found
    ]


def test_cells_keep_quoted_newlines_delimiters_and_quotes():
    """A quoted cell keeps what it encloses, and the next record has its physical line."""
    assert cells('"a\nb, ""c""",1\nx,0\n') == [(1, ['a\nb, "c"', "1"]), (3, ["x", "0"])]


def test_unclosed_quote_costs_only_its_own_line():
    """Rows behind a quote that is never closed are read one by one."""
    found = cells('a,0\n"b,1\nc,0\nd,1\n')
    assert found[0] == (1, ["a", "0"])
    assert found[1][0] == 2
    assert "never closed" in found[1][1]
    assert "runs to line 4" in found[1][1]
    assert found[2:] == [(3, ["c", "0"]), (4, ["d", "1"])]


def test_stray_quote_that_a_later_quote_closes_costs_only_its_own_line():
    """A stray quote closed by the opening quote of a later row does not join the rows between."""
    found = cells('"b,1\nc,0\n"d, e",1\n"f\ng",0\n')
    assert [line for line, _ in found] == [1, 2, 3, 4]
    assert "text follows a closing quote" in found[0][1]
    assert found[1:] == [(2, ["c", "0"]), (3, ["d, e", "1"]), (4, ["f\ng", "0"])]


def test_inside_of_a_broken_field_is_not_taken_for_a_row():
    """A line left over from a broken quoted cell, with one quote, is quarantined."""
    found = cells('"good "bad" text\nend",0\nx,1\n')
    assert [type(detail) for _, detail in found] == [str, str, list]
    assert found[2] == (3, ["x", "1"])


def test_wide_record_over_several_lines_is_taken_apart():
    """Two stray quotes that join rows into one of the wrong width are undone."""
    found = cells('"a,0\nb,1\nc",1,0\nd,1\n')
    assert found[0][0] == 1
    assert "3 fields where the header has 2" in found[0][1]
    assert found[1] == (2, ["b", "1"])
    assert found[2][0] == 3
    assert found[3] == (4, ["d", "1"])


def test_ragged_records_name_their_width():
    """Too few and too many cells are quarantined with both numbers."""
    assert cells("a\nb,1,2\nc,0\n") == [
        (1, "1 field where the header has 2"),
        (2, "3 fields where the header has 2"),
        (3, ["c", "0"]),
    ]


def test_blank_lines_are_no_records_but_count_as_lines():
    """A blank line is skipped and the next record keeps its physical line."""
    assert cells("a,0\n\nb,1\n") == [(1, ["a", "0"]), (3, ["b", "1"])]


def test_quotes_can_be_ordinary_characters():
    """Without a quote character, quotes stay in the cells."""
    assert cells('"a,0\n', quote=None) == [(1, ['"a', "0"])]


def test_endless_quoted_field_is_cut_off(monkeypatch):
    """A quoted field beyond the limit counts as never closed, and reading goes on behind it."""
    monkeypatch.setattr(records, "MAX_RECORD_CHARS", 20)
    found = cells('"' + "x" * 15 + "\n" + "yyyyy,1\n" * 3 + 'z,0"\nw,1\n')
    assert "never closed" in found[0][1]
    assert found[1] == (2, ["yyyyy", "1"])
    assert found[-1] == (6, ["w", "1"])


def test_lines_are_not_read_over_and_over(monkeypatch):
    """A file made so that every line reopens a quote is still read in linear time."""
    reads = 0
    advance = records._Lines.__next__

    def counted(self):
        nonlocal reads
        reads += 1
        return advance(self)

    monkeypatch.setattr(records._Lines, "__next__", counted)
    assert len(cells('x",",z\n' * 1_000, width=3)) == 1_000
    assert 1_000 < reads <= 3_001


def test_json_lines_keep_numbers_as_spelled_and_text_as_text():
    """Numbers keep their spelling; strings that look like something else stay strings."""
    [row] = read_json_lines(['{"text": "NA", "n": 1.50, "big": 1e999}\n'])
    assert row == Row(1, {"text": "NA", "n": "1.50", "big": "1e999"})
    assert isinstance(row.values["n"], Numeral)
    assert not isinstance(row.values["text"], Numeral)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a"\n', "no valid JSON"),
        ('["a"]\n', "an array where an object is needed"),
        ("3\n", "a number where an object is needed"),
        ("null\n", "null where an object is needed"),
        ("[" * 100_000 + "\n", "nested too deeply"),
        ('{"text": "\udce9"}\n', "not UTF-8"),
    ],
)
def test_json_lines_quarantine_what_is_no_object(line, reason):
    """A bad line is quarantined under its number, and the next one is read."""
    bad, good = read_json_lines([line, '{"text": "b"}\n'])
    assert isinstance(bad, QuarantinedRow)
    assert bad.line == 1
    assert reason in bad.reason
    assert good == Row(2, {"text": "b"})


def test_json_lines_keep_control_characters():
    """NUL arrives escaped or as it is, and stays in the text."""
    found = read_json_lines(['{"text": "a\\u0000b"}\n', '{"text": "a\x00b"}\n'])
    assert [row.values["text"] for row in found] == ["a\x00b", "a\x00b"]


@pytest.mark.parametrize(
    "document",
    [
        [{"text": "a"}, {"text": "b"}],
        {"version": "1", "data": [{"text": "a"}, {"text": "b"}]},
        {"text": ["a", "b"]},
        {"text": {"0": "a", "1": "b"}},
    ],
)
def test_document_shapes_give_the_same_rows(tmp_path, document):
    """Arrays, wrapped arrays, columns and indexed columns are all read as rows."""
    rows = list(rows_of_document(tmp_path / "x.json", document))
    assert rows == [Row(1, {"text": "a"}), Row(2, {"text": "b"})]


def test_document_columns_of_messages_are_columns(tmp_path):
    """Equally long columns stay columns though one of them holds objects."""
    document = {"text": ["a"], "meta": [{"k": 1}]}
    assert list(rows_of_document(tmp_path / "x.json", document)) == [
        Row(1, {"text": "a", "meta": {"k": 1}})
    ]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("text", "is a string"),
        ({}, "is an object"),
        ({"a": 1}, "none holds rows"),
        ({"a": ["x"], "b": []}, "differ in length: a 1, b 0"),
        ({"train": [{"text": "a"}], "test": [{"text": "b"}]}, "several lists of rows"),
    ],
)
def test_document_of_another_shape_is_refused(tmp_path, document, message):
    """A document without one clear table is an error that says what is needed."""
    with pytest.raises(DatasetError, match=message):
        list(rows_of_document(tmp_path / "x.json", document))


def test_large_document_is_refused_with_the_way_out(tmp_path, monkeypatch):
    """A JSON document beyond the limit is refused, and JSON lines are advised."""
    monkeypatch.setattr(records, "MAX_DOCUMENT_BYTES", 10)
    path = tmp_path / "x.json"
    path.write_text('[{"text": "long"}]')
    with pytest.raises(DatasetError, match="held in memory whole"):
        records.load_document(path, None, "utf-8")


def test_sample_is_short_and_storable():
    """A sample has 200 characters at most and can be encoded whatever the row held."""
    row = quarantine(3, "why", "\udce9" + "x" * 500)
    row.sample.encode("utf-8")
    assert row.sample.startswith("\\udce9x")
    assert len(row.sample) < 210

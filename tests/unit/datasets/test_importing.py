"""A record becomes a row by the mapping, and every row is accounted for."""

import hashlib
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from shield_engine.datasets import (
    MAX_LABEL_VALUES,
    ColumnMapping,
    SourceFile,
    importing,
)
from shield_engine.errors import ConfigError, DatasetError
from shield_engine.types import Task

INJECTION = Task.PROMPT_INJECTION


@pytest.fixture
def jsonl(tmp_path):
    """Return a function that writes objects as JSON lines and returns the path."""

    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def csv_file(tmp_path):
    """Return a function that writes CSV text and returns the path."""

    def write(text):
        path = tmp_path / "rows.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def texts(dataset):
    """Return the imported texts."""
    return dataset.table["text"].to_pylist()


def reasons(dataset):
    """Return (line, reason) of the quarantined rows."""
    return [(row.line, row.reason) for row in dataset.quarantined]


def test_table_has_the_promised_columns_and_values(csv_file):
    """Each column of the table is what its documentation says."""
    path = csv_file("id,text,label,source,lang\nr1,Grüße,1,web,de\nr2,,0,,en\n")
    dataset = SourceFile.open(path).read(INJECTION)
    assert dataset.table.schema.names == [
        *("row_index", "row_id", "text", "label", "group", "slices", "text_sha256", "chars"),
    ]
    assert dataset.table.schema.field("label").type == pa.int8()
    assert dataset.table.to_pylist() == [
        {
            "row_index": 0,
            "row_id": "r1",
            "text": "Grüße",
            "label": 1,
            "group": None,
            "slices": '{"source": "web", "lang": "de"}',
            "text_sha256": hashlib.sha256("Grüße".encode()).hexdigest(),
            "chars": 5,
        },
        {
            "row_index": 1,
            "row_id": "r2",
            "text": "",
            "label": 0,
            "group": None,
            "slices": '{"source": "", "lang": "en"}',
            "text_sha256": hashlib.sha256(b"").hexdigest(),
            "chars": 0,
        },
    ]


@pytest.mark.parametrize("text", ["true", "2024-01-01", "NA", "null", "", "007", "1e5", "NaN", " "])
def test_no_text_is_coerced(csv_file, jsonl, tmp_path, text):
    """A text that looks like another type stays the text it is, in every format."""
    from_csv = SourceFile.open(csv_file(f"text,label\n{text},1\n")).read(INJECTION)
    from_json = SourceFile.open(jsonl({"text": text, "label": 1})).read(INJECTION)
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"text": [text], "label": [1]}), path)
    from_parquet = SourceFile.open(path).read(INJECTION)
    assert texts(from_csv) == texts(from_json) == texts(from_parquet) == [text]
    assert from_csv.content_hash == from_json.content_hash == from_parquet.content_hash


def test_row_id_is_the_record_number_without_an_id_column(jsonl):
    """Quarantined rows keep their number, so ids do not move when a row is repaired."""
    dataset = SourceFile.open(jsonl({"text": "a"}, {"text": None}, {"text": "c"})).read(INJECTION)
    assert dataset.table["row_id"].to_pylist() == ["1", "3"]
    assert dataset.table["row_index"].to_pylist() == [0, 1]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": None, "label": 1}, "the text is null"),
        ({"label": 1}, "the text is missing"),
        ({"text": True, "label": 1}, "a boolean, not a string"),
        ({"text": {"a": 1}, "label": 1}, "an object, not a string"),
        ({"text": float("nan"), "label": 1}, "the text is null"),
        ({"text": "x", "label": None}, "the label is missing"),
        ({"text": "x"}, "the label is missing"),
        ({"text": "x", "label": " "}, "the label is missing"),
        ({"text": "x", "label": [1]}, "an array, not a single value"),
        ({"text": "\ud83d", "label": 1}, "half of a surrogate pair"),
    ],
)
def test_unfit_row_is_quarantined_with_its_reason(jsonl, row, reason):
    """A row without a usable text or label is set aside; the others are imported."""
    good = {"text": "good", "label": 0}
    dataset = SourceFile.open(jsonl(good, row, good)).read(INJECTION)
    assert dataset.table.num_rows == 2
    [(line, found)] = reasons(dataset)
    assert line == 2
    assert reason in found
    assert dataset.rows_read == 3


def test_number_in_a_json_text_keeps_its_spelling(tmp_path):
    """A number where a text is expected is kept as it is written."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": 1.50}\n{"text": 12345678901234567890123}\n')
    assert texts(SourceFile.open(path).read(INJECTION)) == ["1.50", "12345678901234567890123"]


def test_unknown_label_blocks_with_counts_line_and_flag(csv_file):
    """A label outside the map stops the import and says how to map it."""
    path = csv_file("text,label\na,0\nb,evil\nc,evil\nd,odd\n")
    with pytest.raises(
        DatasetError, match=r"'evil' \(2 rows\), 'odd' \(1 rows\); first at line 3.*--label-map"
    ):
        SourceFile.open(path).read(INJECTION)


def test_label_map_replaces_the_default(csv_file):
    """The user's map decides, also against the usual meaning."""
    path = csv_file("text,label\na,0\nb,1\n")
    dataset = SourceFile.open(path).read(INJECTION, label_map={"0": 1, "1": 0})
    assert dataset.table["label"].to_pylist() == [1, 0]


def test_endless_label_values_stop_early(jsonl):
    """A text column taken for the label is refused without collecting all its values."""
    rows = ({"text": "a", "label": f"v{number}"} for number in range(2_000))
    with pytest.raises(DatasetError, match="and 991 more"):
        SourceFile.open(jsonl(*rows)).read(INJECTION)


def test_sentiment_names_become_three_classes(jsonl):
    """The three names of sentiment are known without a flag."""
    rows = [{"text": "a", "label": name} for name in ("positive", "negative", "Neutral")]
    assert SourceFile.open(jsonl(*rows)).read(Task.SENTIMENT).table["label"].to_pylist() == [
        2,
        0,
        1,
    ]


def test_unlabelled_dataset_is_welcome(jsonl):
    """Without a label column rows are imported unlabelled, and that is said."""
    dataset = SourceFile.open(jsonl({"prompt": "a"})).read(INJECTION)
    assert dataset.table["label"].to_pylist() == [None]
    assert dataset.profile.labelled == 0
    assert any("unlabelled" in warning for warning in dataset.profile.warnings)


MESSAGES = [
    {"role": "system", "content": "Be nice."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": [{"type": "text", "text": "Bye"}, {"type": "image_url"}]},
]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (("user",), "Hi\n\nBye"),
        (("assistant",), "Hello"),
        (("system", "user"), "Be nice.\n\nHi\n\nBye"),
    ],
)
@pytest.mark.parametrize("encode", [lambda value: value, json.dumps])
def test_messages_are_joined_by_role(jsonl, roles, expected, encode):
    """Messages, as a list or as its JSON, give the contents of the chosen roles."""
    path = jsonl({"messages": encode(MESSAGES)})
    dataset = SourceFile.open(path).read(INJECTION, ColumnMapping("messages", roles=roles))
    assert texts(dataset) == [expected]


def test_messages_of_parquet_and_sharegpt_are_read(tmp_path):
    """A Parquet list of structs and the from/value spelling work as well."""
    path = tmp_path / "rows.parquet"
    turns = [[{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]]
    parquet.write_table(pa.table({"conversations": turns}), path)
    assert texts(SourceFile.open(path).read(INJECTION)) == ["Hi"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([{"role": "tool", "content": "x"}], "no message has the role user"),
        ([{"role": "user", "content": None}], "content of a message is null"),
        (["x"], "a message is a string"),
        ("[not json", "no valid JSON list"),
    ],
)
def test_unusable_messages_are_quarantined(jsonl, value, reason):
    """Messages without a text to scan are set aside with the reason."""
    good = {"messages": MESSAGES}
    [(line, found)] = reasons(SourceFile.open(jsonl(good, {"messages": value})).read(INJECTION))
    assert line == 2
    assert reason in found


def test_json_list_in_a_text_column_stays_text(jsonl):
    """Only a column named for messages is read as messages."""
    text = json.dumps(MESSAGES)
    assert texts(SourceFile.open(jsonl({"text": text})).read(INJECTION)) == [text]


def test_values_of_parquet_become_their_text(tmp_path):
    """Labels of any type are looked up by their text, and a float NaN is a missing one."""
    path = tmp_path / "rows.parquet"
    parquet.write_table(
        pa.table(
            {
                "text": ["a", "b", "c"],
                "label": [1.0, 0.0, float("nan")],
                "user_id": [7, None, 9],
                "category": [True, None, False],
            }
        ),
        path,
    )
    dataset = SourceFile.open(path).read(INJECTION)
    assert dataset.table["label"].to_pylist() == [1, 0]
    assert dataset.table["group"].to_pylist() == ["7", None]
    assert dataset.table["slices"].to_pylist() == ['{"category": "true"}', '{"category": null}']
    assert reasons(dataset) == [(3, "the label is missing (column 'label')")]


def test_blank_group_is_no_group(csv_file):
    """Rows without a group are not put into one common group."""
    dataset = SourceFile.open(csv_file("text,user_id\na,u1\nb,\n")).read(INJECTION)
    assert dataset.table["group"].to_pylist() == ["u1", None]


def test_hash_follows_order_labels_and_ids(jsonl):
    """The content hash changes with order, label, id and text, and with nothing else."""
    first, second = {"id": "1", "text": "a", "label": 1}, {"id": "2", "text": "b", "label": 0}

    def digest(*rows):
        return SourceFile.open(jsonl(*rows)).read(INJECTION).content_hash

    base = digest(first, second)
    assert digest({**first, "note": "x"}, second) == base
    others = [
        digest(second, first),
        digest({**first, "label": 0}, second),
        digest({**first, "id": "3"}, second),
        digest({**first, "text": "c"}, second),
        digest(first),
    ]
    assert len({base, *others}) == 6


def test_hash_follows_groups_and_slices(csv_file):
    """Mapping other slices or groups gives another version: what is stored differs."""
    path = csv_file("text,kind,user_id\na,x,u1\nb,y,u2\n")
    mappings = [
        ColumnMapping("text"),
        ColumnMapping("text", slices=("kind",)),
        ColumnMapping("text", group="user_id"),
    ]
    assert (
        len({SourceFile.open(path).read(INJECTION, mapping).content_hash for mapping in mappings})
        == 3
    )


def test_limit_takes_the_first_rows(csv_file):
    """A limit counts imported rows and still reports those quarantined on the way."""
    path = csv_file("text,label\na,1\nb\nc,0\nd,0\n")
    dataset = SourceFile.open(path).read(INJECTION, limit=2)
    assert texts(dataset) == ["a", "c"]
    assert (dataset.rows_read, dataset.quarantined_count) == (3, 1)


def test_limit_below_one_is_refused(csv_file):
    """A limit of nothing is a mistake."""
    with pytest.raises(ConfigError, match="limit: 0"):
        SourceFile.open(csv_file("text\na\n")).read(INJECTION, limit=0)


def test_progress_rises_to_the_end(jsonl):
    """Progress is reported every 5,000 rows and once at the end."""
    calls = []
    rows = ({"text": "a"} for _ in range(12_000))
    SourceFile.open(jsonl(*rows)).read(INJECTION, progress=lambda *call: calls.append(call))
    assert [rows for rows, _ in calls] == [5_000, 10_000, 12_000]
    assert calls[-1][1] == 1.0
    shares = [share for _, share in calls]
    assert shares == sorted(shares)


def test_many_quarantined_rows_are_counted_but_not_all_kept(jsonl):
    """The first 1,000 quarantined rows are kept; all are counted."""
    rows = [{"text": None} for _ in range(1_200)] + [{"text": "a"}]
    dataset = SourceFile.open(jsonl(*rows)).read(INJECTION)
    assert len(dataset.quarantined) == 1_000
    assert dataset.quarantined_count == 1_200
    assert dataset.rows_read == 1_201


def test_batches_do_not_show(jsonl, monkeypatch):
    """The table is the same however the rows are cut into batches."""
    path = jsonl(*({"text": f"text {number}", "label": number % 2} for number in range(25)))
    whole = SourceFile.open(path).read(INJECTION)
    monkeypatch.setattr(importing, "BATCH_ROWS", 4)
    parts = SourceFile.open(path).read(INJECTION)
    assert parts.table["text"].num_chunks == 7
    assert parts.table.to_pylist() == whole.table.to_pylist()
    assert parts.content_hash == whole.content_hash


def test_unknown_column_names_the_nearest(csv_file):
    """A mistyped column is answered with the columns there are and the likely one."""
    with pytest.raises(DatasetError, match=r"no column 'Txt'.*'text'\? Columns: text, label"):
        SourceFile.open(csv_file("text,label\na,1\n")).read(INJECTION, ColumnMapping("Txt"))


def test_unknown_json_column_is_found_after_reading(jsonl):
    """JSON rows may differ in keys, so a column is unknown only if no row has it."""
    path = jsonl({"text": "a"}, {"text": "b", "note": "x"})
    mapping = ColumnMapping("text", slices=("note",))
    assert (
        SourceFile.open(path).read(INJECTION, mapping).table["slices"].to_pylist()[1]
        == '{"note": "x"}'
    )
    with pytest.raises(DatasetError, match="no column 'body'"):
        SourceFile.open(path).read(INJECTION, ColumnMapping("body"))


def test_repeated_ids_are_reported(jsonl):
    """Ids that repeat are imported and counted."""
    dataset = SourceFile.open(jsonl({"id": "x", "text": "a"}, {"id": "x", "text": "b"})).read(
        INJECTION
    )
    assert dataset.table.num_rows == 2
    assert any("1 rows repeat an id" in warning for warning in dataset.profile.warnings)


def test_unbalanced_books_are_an_error(csv_file, monkeypatch):
    """A row that were lost between reading and the table would fail the import."""

    def lose(intake, *_):
        intake.imported += 1

    monkeypatch.setattr(importing._Intake, "_take", lose)
    with pytest.raises(DatasetError, match="2 rows were read but 0 imported and 1 quarantined"):
        SourceFile.open(csv_file("text,label\na,1\nb\n")).read(INJECTION)


def test_label_values_are_counted_as_the_importer_spells_them(jsonl):
    """Booleans read as words, numbers as in the file; empty labels are left out."""
    values = [1, 1, "1", 1.0, True, "spam", "", None]
    path = jsonl(*({"text": "x", "label": value} for value in values), {"text": "y"})
    assert SourceFile.open(path).label_values("label") == {"1": 3, "1.0": 1, "true": 1, "spam": 1}


def test_only_labels_that_an_import_looks_up_are_offered(jsonl):
    """What has no class to be mapped to is quarantined for it: NaN, nothing, lists, blanks."""
    values = [float("nan"), None, [], {}, " ", "NaN", 0]
    path = jsonl(*({"text": "x", "label": value} for value in values))
    offered = SourceFile.open(path).label_values("label")
    assert offered == {"NaN": 1, "0": 1}
    imported = SourceFile.open(path).read(INJECTION, label_map=dict.fromkeys(offered, 0))
    assert (len(imported.table), imported.quarantined_count) == (2, 5)


def test_a_column_of_too_many_values_is_seen_early(jsonl):
    """Counting stops right after the limit, which tells that the column holds no labels."""
    path = jsonl(*({"text": "x", "label": number} for number in range(500)))
    assert len(SourceFile.open(path).label_values("label")) == MAX_LABEL_VALUES + 1


def test_a_file_is_looked_at_once(csv_file, monkeypatch):
    """Its columns, its labels and its rows all follow from the one look at opening it."""
    looks = []

    def counted(path):
        looks.append(path)
        return inspect_file(path)

    inspect_file = importing.inspect_file
    monkeypatch.setattr(importing, "inspect_file", counted)
    path = csv_file("text,label\na,1\nb,0\n")
    source = SourceFile.open(path)
    assert source.sniffed.columns == ("text", "label")
    assert source.label_values("label") == {"1": 1, "0": 1}
    assert texts(source.read(INJECTION)) == ["a", "b"]
    assert looks == [path]


def test_a_file_changed_after_the_look_is_refused(csv_file):
    """Rows of another file than the one that was shown are never imported."""
    path = csv_file("text,label\na,1\n")
    source = SourceFile.open(path)
    path.write_text("text,label\na,1\nb,0\n")
    with pytest.raises(DatasetError, match="changed"):
        source.read(INJECTION)

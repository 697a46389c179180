"""What a file is and which columns it has, decided from its content before its name.

Hides the guesses: compression, encoding, format, delimiter, header, and which column is which.
Whatever is guessed is in `Sniffed`, to be shown to the user, with a warning where the name of the
file says otherwise.
"""

from __future__ import annotations

import codecs
import io
import json
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from shield_engine.datasets.records import (
    Cells,
    Compression,
    LineStream,
    QuarantinedRow,
    Row,
    load_document,
    open_lines,
    read_bytes,
    read_cells,
    read_delimited,
    read_json_lines,
    read_parquet,
    rows_of_document,
)
from shield_engine.datasets.scores import ScoreColumn, check_names
from shield_engine.errors import DatasetError

__all__ = [
    "ColumnMapping",
    "Format",
    "Inspected",
    "RecordStream",
    "Sniffed",
    "dataset_name",
    "fingerprint",
    "inspect_file",
    "is_messages",
    "open_records",
]

Format = Literal["csv", "tsv", "jsonl", "json", "parquet"]

SAMPLE_BYTES = 256 * 1024
PREVIEW_ROWS = 20
PREVIEW_CHARS = 2_000
SAMPLE_ROWS = 200
"""JSON rows may differ in their keys; the columns shown are those of the first 200."""

_SUFFIXES: Mapping[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_GZIP = (".gz", ".gzip")
_ARCHIVES: Sequence[tuple[bytes, str]] = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "an SQLite database"),
)
_MARKS: Sequence[tuple[bytes, str]] = (
    # The mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_DELIMITERS: Mapping[str, str] = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_NO_DELIMITER = "\x1f"
"""What a file of one column is split at: the unit separator, which texts do not hold."""

_TEXT_NAMES = (
    *("text", "prompt", "messages", "conversation", "conversations", "sentence", "content"),
    *("input", "user_input", "comment_text", "comment", "tweet", "message", "question", "query"),
    *("body", "review", "instruction", "utterance"),
)
_LABEL_NAMES = (
    *("label", "labels", "target", "class", "is_injection", "injection", "is_jailbreak"),
    *("jailbreak", "jailbreaking", "is_attack", "attack", "is_toxic", "toxic", "toxicity"),
    *("sentiment", "polarity"),
)
_ID_NAMES = ("id", "row_id", "uid", "uuid", "example_id", "sample_id", "prompt_id")
_GROUP_NAMES = (
    *("group_id", "conversation_id", "thread_id", "session_id", "user_id", "author_id"),
    *("template_id", "cluster", "cluster_id"),
)
_MESSAGE_COLUMNS = frozenset({"messages", "message", "conversation", "conversations", "chat"})
_SLICE_NAMES = (
    *("group", "category", "source", "language", "lang", "type", "subset", "split", "topic"),
    *("functionality", "difficulty", "obfuscation"),
)


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """Which column plays which part.

    Attributes:
        text: The column that is scanned; it may hold messages (a list of `{role, content}`, or
            that list as a JSON string in a column with a name such as `messages`).
        label: The true class, if there is one.
        id: The user's own name of a row.
        group: Rows that belong together and must be resampled together.
        slices: Columns by which results are broken down.
        roles: Of messages, the roles that are scanned; their contents are joined by blank lines.
        scores: Columns with what other guards said of the rows.
        text_sha256: Of a file without texts (`text` is then ""), the column of their SHA-256.
    """

    text: str
    label: str | None = None
    id: str | None = None
    group: str | None = None
    slices: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("user",)
    scores: tuple[ScoreColumn, ...] = ()
    text_sha256: str | None = None

    def __post_init__(self) -> None:
        check_names(self.scores)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        named = (self.text or None, self.label, self.id, self.group, self.text_sha256)
        of_scores = (name for score in self.scores for name in score.columns)
        used = (*named, *self.slices, *of_scores)
        return tuple(dict.fromkeys(name for name in used if name is not None))


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What a file was found to be.

    Attributes:
        path: The file.
        format: Its format, by content.
        compression: What it is packed with.
        encoding: Codec of its text (`binary` for Parquet).
        size_bytes: Size of the file as it lies on the disk.
        delimiter: Between cells; `None` for other formats and for a file of one column.
        quote: Around cells; `None` if quotes are ordinary characters.
        has_header: Whether the first row names the columns.
        columns: Column names, in order; without a header `column_1` and so on.
        preview: The first 20 readable rows, long texts cut to 2,000 characters.
        suggested: The mapping taken if the user gives none.
        warnings: What the user should look at before importing.
    """

    path: Path
    format: Format
    compression: Compression
    encoding: str
    size_bytes: int
    delimiter: str | None = None
    quote: str | None = None
    has_header: bool = True
    columns: tuple[str, ...] = ()
    preview: tuple[Mapping[str, object], ...] = ()
    suggested: ColumnMapping = ColumnMapping("")
    warnings: tuple[str, ...] = ()

    def holds_messages(self, column: str) -> bool:
        """Return whether a column holds chat messages, so that roles can be chosen."""
        return any(is_messages(column, row.get(column)) for row in self.preview)


class Inspected(NamedTuple):
    """A sniffed file and, for a JSON document, its content, so that it is loaded once."""

    sniffed: Sniffed
    document: object


class RecordStream(NamedTuple):
    """Records of a file, and how much of it (0..1) has been read for them."""

    records: Iterator[Row | QuarantinedRow]
    share: Callable[[], float] | None


class _Dialect(NamedTuple):
    delimiter: str | None
    quote: str | None


def dataset_name(file_name: str) -> str:
    """Return a file's name without folders and endings: versions of one file share it."""
    name = Path(file_name.replace("\\", "/")).name
    for suffixes in (_GZIP, _SUFFIXES):
        stem, suffix = Path(name).stem, Path(name).suffix
        if suffix.lower() in suffixes:
            name = stem
    return name


def is_messages(column: str, value: object) -> bool:
    """Return whether a value is a list of chat messages.

    Its JSON text counts only in a column that is named so.
    """
    if not isinstance(value, str):
        return isinstance(value, list)
    return column.strip().casefold() in _MESSAGE_COLUMNS and value.lstrip().startswith("[")


def fingerprint(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file does; `None` if it is not there, which reading reports."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def inspect_file(path: Path) -> Inspected:
    """Sniff a file and keep what had to be loaded whole for it.

    Raises:
        DatasetError: The file is missing, not a file, empty, or of no format that can be read.
    """
    size = _regular_size(path)
    start = read_bytes(path, None, 8)
    compression: Compression = "gzip" if start.startswith(b"\x1f\x8b") else None
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _GZIP:
        suffixes.pop()
        if compression is None:
            raise DatasetError(
                f"{path}: is named as gzip but is not gzip data. Take {path.suffix} off its name "
                "if it is plain text, or fetch it again."
            )
    named = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    head = read_bytes(path, compression, SAMPLE_BYTES)
    _refuse_binary(path, head, compression, named)
    empty = Sniffed(path, "parquet", compression, "binary", size)
    if head.startswith(b"PAR1"):
        return _complete(empty, None, _parquet_columns(path), named)
    encoding = _encoding(path, head)
    text = codecs.getincrementaldecoder(encoding)("surrogateescape").decode(head)
    if not text.strip():
        raise DatasetError(f"{path}: the file is empty: it holds no rows. Choose another file.")
    is_whole = len(head) < SAMPLE_BYTES
    base = replace(empty, encoding=encoding, format=_text_format(text, named, is_whole=is_whole))
    if base.format == "json":
        document = load_document(path, compression, encoding)
        rows = list(islice(rows_of_document(path, document), SAMPLE_ROWS))
        return _complete(base, document, _keys(rows), named)
    if base.format == "jsonl":
        with open_lines(path, compression, encoding, "\n") as stream:
            rows = list(islice(read_json_lines(stream.lines), SAMPLE_ROWS))
        return _complete(base, None, _keys(rows), named)
    return _inspect_delimited(base, text if is_whole else _whole_lines(text), named)


@contextmanager
def open_records(inspected: Inspected, columns: Sequence[str] | None) -> Iterator[RecordStream]:
    """Open the records of a file that was inspected.

    Args:
        inspected: What `inspect_file` returned.
        columns: The columns needed, `None` for all; formats stored by column read only those.

    Raises:
        DatasetError: The file cannot be read.
    """
    sniffed, document = inspected
    if sniffed.format == "parquet":
        yield RecordStream(read_parquet(sniffed.path, columns), None)
    elif sniffed.format == "json":
        yield RecordStream(rows_of_document(sniffed.path, document), None)
    else:
        is_delimited = sniffed.format != "jsonl"
        with open_lines(
            sniffed.path, sniffed.compression, sniffed.encoding, "" if is_delimited else "\n"
        ) as stream:
            yield RecordStream(_text_records(sniffed, stream), stream.share)


def _text_records(sniffed: Sniffed, stream: LineStream) -> Iterator[Row | QuarantinedRow]:
    if sniffed.format == "jsonl":
        return read_json_lines(stream.lines)
    return read_delimited(
        stream.lines,
        sniffed.delimiter or _NO_DELIMITER,
        sniffed.quote,
        sniffed.columns,
        has_header=sniffed.has_header,
    )


def _regular_size(path: Path) -> int:
    try:
        status = path.stat()
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be opened ({error.strerror or error}). Check the path; relative "
            "paths start at the current directory."
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise DatasetError(f"{path}: is a directory; choose one file in it.")
    if not stat.S_ISREG(status.st_mode):
        raise DatasetError(f"{path}: is no regular file; save its content to a file first.")
    if status.st_size == 0:
        raise DatasetError(f"{path}: the file is empty (0 bytes). Choose another file.")
    return status.st_size


def _refuse_binary(path: Path, head: bytes, compression: Compression, named: Format | None) -> None:
    for mark, what in _ARCHIVES:
        if head.startswith(mark):
            raise DatasetError(
                f"{path}: is {what}. Unpack or export it to CSV, TSV, JSON, JSON lines or Parquet "
                "(plain or gzip) first."
            )
    is_parquet = head.startswith(b"PAR1")
    if is_parquet and compression:
        raise DatasetError(f"{path}: is Parquet inside gzip; unpack it with `gunzip` first.")
    if named == "parquet" and not is_parquet:
        raise DatasetError(
            f"{path}: is named as Parquet but is not Parquet data. Fetch it again, or give it the "
            "name of what it is."
        )


def _encoding(path: Path, head: bytes) -> str:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    # In UTF-16 every second byte of Western text is NUL; a NUL in a UTF-8 text is a rarity.
    if head.count(0) > len(head) // 4:
        raise DatasetError(
            f"{path}: a quarter of the first bytes are NUL, so it is binary, or UTF-16 without a "
            "byte-order mark. Save it as UTF-8."
        )
    return "utf-8"


def _text_format(text: str, named: Format | None, *, is_whole: bool) -> Format:
    """Decide between JSON, JSON lines and delimited text; the content outweighs the name."""
    body = text.lstrip()
    first_line, _, rest = body.partition("\n")
    first = _parsed(first_line)
    if isinstance(first, dict):
        # One object alone may be a document of columns, or a file of one row.
        is_document = not rest.strip() and is_whole and named != "jsonl"
        if is_document and any(isinstance(value, list | dict) for value in first.values()):
            return "json"
        return "jsonl"
    if named == "jsonl":
        opens_array = first_line.strip() == "[" or first_line.startswith("[{")
        return "json" if opens_array else "jsonl"
    if named in {"json", "csv", "tsv"}:
        return named
    if body[0] in "{[":
        return "json"
    return "csv"


def _parsed(line: str) -> object:
    try:
        return json.loads(line, parse_int=str)
    except (ValueError, RecursionError):
        return None


def _whole_lines(text: str) -> str:
    return text[: text.rfind("\n") + 1] or text


def _inspect_delimited(base: Sniffed, sample: str, named: Format | None) -> Inspected:
    path = base.path
    dialect = _dialect(sample, named)
    with open_lines(path, base.compression, base.encoding, "") as stream:
        splitter = dialect.delimiter or _NO_DELIMITER
        records = read_cells(stream.lines, splitter, dialect.quote, None)
        first = next(records, None)
        sample_rows = [
            record.cells for record in islice(records, SAMPLE_ROWS) if isinstance(record, Cells)
        ]
    if not isinstance(first, Cells):
        detail = f"line {first.line}: {first.reason}" if first else "it holds no rows"
        raise DatasetError(
            f"{path}: the header row cannot be read ({detail}). Repair the first line, which "
            "must name the columns."
        )
    warnings = []
    names = [cell.strip() for cell in first.cells]
    has_header = _is_header(names, sample_rows)
    if has_header:
        columns, repeated = _unique(names)
        if repeated:
            warnings.append(
                f"the header repeats {', '.join(repeated)}; the columns are numbered, as in "
                f"'{repeated[0]} (1)'"
            )
    else:
        columns = tuple(f"column_{number}" for number in range(1, len(names) + 1))
        warnings.append(
            "the first row looks like data, not like column names, so it is imported as a row and "
            "the columns are called column_1, column_2 ...; add a header line if that is wrong"
        )
    if dialect.delimiter is None:
        warnings.append("no delimiter was found: each row is one text")
    elif named in {"csv", "tsv"} and dialect.delimiter != ("\t" if named == "tsv" else ","):
        warnings.append(
            f"the file is named .{named} but its cells are separated by "
            f"{_DELIMITERS[dialect.delimiter]}"
        )
    if dialect.quote is None:
        warnings.append("quotes do not enclose cells here and are read as ordinary characters")
    layout = replace(
        base,
        format="tsv" if dialect.delimiter == "\t" else "csv",
        delimiter=dialect.delimiter,
        quote=dialect.quote,
        has_header=has_header,
        warnings=tuple(warnings),
    )
    # The delimiter of a .csv was warned about above, so its name is not held against it again.
    return _complete(layout, None, columns, layout.format)


def _dialect(sample: str, named: Format | None) -> _Dialect:
    """Choose the delimiter under which most records are as wide as the first.

    The delimiter that the name promises wins if at least half of the records agree; another must
    be agreed on by four fifths. The header needs two cells, else the file is one column.
    """
    expected = "\t" if named == "tsv" else ","
    quote = _quote(sample, expected)
    scores = {delimiter: _agreement(sample, delimiter, quote) for delimiter in _DELIMITERS}
    if named and scores[expected] >= 0.5:
        return _Dialect(expected, quote)
    best = max(scores, key=lambda delimiter: scores[delimiter])
    if scores[best] >= 0.8:
        return _Dialect(best, _quote(sample, best))
    return _Dialect(expected if named and scores[expected] > 0 else None, quote)


def _agreement(sample: str, delimiter: str, quote: str | None) -> float:
    lines = io.StringIO(sample, newline="")
    records = list(islice(read_cells(lines, delimiter, quote, None), SAMPLE_ROWS))
    cells = [len(record.cells) for record in records if isinstance(record, Cells)]
    if not cells or cells[0] < 2:
        return 0.0
    return cells.count(cells[0]) / len(records)


def _quote(sample: str, delimiter: str) -> str | None:
    """Return the quote, or `None` if cells begin with quotes but none is properly enclosed."""
    mark = re.escape(delimiter)
    edge = rf"(?:^|{mark})"
    enclosed = re.search(rf'{edge}"(?:[^"]|"")*+"(?=$|\r|{mark})', sample, re.MULTILINE)
    opened = len(re.findall(rf'{edge}"[^"\n]', sample, re.MULTILINE))
    return None if enclosed is None and opened >= 3 else '"'


def _is_header(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return whether a first row names columns.

    It does if a name is a usual one; else if every cell is short, no number and no sentence, and
    none occurs again below it, as a label would.
    """
    usual = {*_TEXT_NAMES, *_LABEL_NAMES[:4], *_ID_NAMES, *_GROUP_NAMES, *_SLICE_NAMES}
    if usual & {_folded(name) for name in names}:
        return True
    if not any(names) or any(
        len(name) > 64 or len(name.split()) > 4 or re.fullmatch(r"[-+]?\d+([.,]\d+)?", name)
        for name in names
    ):
        return False
    return not any(
        name and name == cell.strip()
        for row in rows
        for name, cell in zip(names, row, strict=False)
    )


def _unique(names: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    named = [name or f"column_{number}" for number, name in enumerate(names, start=1)]
    repeated = [name for name, count in Counter(named).items() if count > 1]
    seen: Counter[str] = Counter()
    columns = []
    for name in named:
        seen[name] += 1
        columns.append(f"{name} ({seen[name]})" if name in repeated else name)
    return tuple(columns), repeated


def _parquet_columns(path: Path) -> tuple[str, ...]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        columns = tuple(str(name) for name in parquet.read_schema(path).names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: begins as Parquet but cannot be read ({error}). It was probably cut off; "
            "fetch it again."
        ) from error
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise DatasetError(
            f"{path}: the Parquet file repeats the column {repeated[0]!r}. Write it again with "
            "one name for each column."
        )
    return columns


def _keys(rows: Sequence[Row | QuarantinedRow]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for row in rows if isinstance(row, Row) for key in row.values))


def _complete(
    base: Sniffed, document: object, columns: tuple[str, ...], named: Format | None
) -> Inspected:
    """Add columns, preview and the suggested mapping to a layout."""
    warnings = list(base.warnings)
    if named and named != base.format:
        warnings.append(f"the file is named .{named} but its content is {base.format}")
    layout = Inspected(replace(base, columns=columns), document)
    with open_records(layout, None) as stream:
        rows = (row for row in stream.records if isinstance(row, Row))
        preview = tuple(
            {name: _cut(value) for name, value in row.values.items()}
            for row in islice(rows, PREVIEW_ROWS)
        )
    mapping, doubts = _suggest(columns, preview)
    warnings += doubts
    sniffed = replace(layout.sniffed, preview=preview, suggested=mapping, warnings=tuple(warnings))
    return Inspected(sniffed, document)


def _cut(value: object) -> object:
    return value[:PREVIEW_CHARS] if isinstance(value, str) else value


def _suggest(
    columns: Sequence[str], preview: Sequence[Mapping[str, object]]
) -> tuple[ColumnMapping, list[str]]:
    by_key = {_folded(name): name for name in reversed(columns)}

    def first(names: Sequence[str]) -> str | None:
        return next((by_key[name] for name in names if name in by_key), None)

    doubts = []
    text, label = first(_TEXT_NAMES), first(_LABEL_NAMES)
    if label and preview and all(row.get(label) in (None, "") for row in preview):
        doubts.append(
            f"column {label!r} is empty in the first {len(preview)} rows, so it is not taken for "
            "the label; map it if later rows have labels"
        )
        label = None
    if text is None:
        lengths = {
            name: sum(len(str(row.get(name) or "")) for row in preview)
            for name in columns
            if name != label
        }
        text = max(lengths, key=lambda name: lengths[name], default=columns[0] if columns else "")
        doubts.append(
            f"no column has a usual name for texts; {text!r} holds the longest and is taken"
        )
    slices = tuple(by_key[name] for name in _SLICE_NAMES if name in by_key)
    mapping = ColumnMapping(
        text,
        label,
        first(_ID_NAMES),
        first(_GROUP_NAMES),
        tuple(name for name in slices if name not in {text, label}),
    )
    return mapping, doubts


def _folded(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().casefold())

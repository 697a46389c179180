"""From the bytes of a file to records, one by one, each readable or quarantined with its line.

Hides compression, encodings, quoting and recovery from broken rows. Delimited text goes through
the csv module rather than DuckDB's `read_csv`: it streams, it gives exact physical lines, it lets
a stray quote be undone instead of swallowing the rest of the file, and no SQL engine ever opens a
user's path.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

from shield_engine.errors import DatasetError

__all__ = [
    "NOT_UTF8",
    "Cells",
    "Compression",
    "LineStream",
    "Numeral",
    "QuarantinedRow",
    "Row",
    "UnfitError",
    "is_encodable",
    "is_nan",
    "load_document",
    "open_bytes",
    "open_lines",
    "quarantine",
    "read_bytes",
    "read_cells",
    "read_delimited",
    "read_json_lines",
    "read_parquet",
    "rows_of_document",
    "scalar",
    "type_name",
]

Compression = Literal["gzip"] | None

MAX_LINE_CHARS = 64 * 2**20
"""A longer line is no row of text; it would only fill the memory."""
MAX_RECORD_CHARS = 16 * 2**20
"""A quoted field that runs on for longer over several lines counts as never closed."""
MAX_DOCUMENT_BYTES = 512 * 2**20
"""A JSON document has to be held whole, at about 5 times its size."""
SAMPLE_CHARS = 200
PARQUET_BATCH_ROWS = 1_024

NOT_UTF8 = "not UTF-8"
UNCLOSED = "a quote is opened and never closed"


class Row(NamedTuple):
    """One record that could be read: its 1-based line, and its values by column."""

    line: int
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """One record that could not be imported.

    Attributes:
        line: 1-based line of the file (JSON documents and Parquet: 1-based record).
        reason: Why, in words for the file's owner.
        sample: The first 200 characters of it.
    """

    line: int
    reason: str
    sample: str


class Numeral(str):
    """A JSON number, as it is spelled in the file."""

    __slots__ = ()


class LineStream(NamedTuple):
    """Lines of text, and how much of the file (0..1) has been read for them."""

    lines: Iterator[str]
    share: Callable[[], float]


class UnfitError(Exception):
    """A row cannot be used; the message is the reason."""


class _RecordTooLongError(Exception):
    pass


def quarantine(line: int, reason: str, raw: str) -> QuarantinedRow:
    """Return a quarantined row whose sample is short and can be stored and shown."""
    cut = raw[:SAMPLE_CHARS].rstrip("\r\n")
    return QuarantinedRow(line, reason, cut.encode("utf-8", "backslashreplace").decode("utf-8"))


def is_encodable(text: str) -> bool:
    """Return whether a text is valid Unicode: no half of a surrogate pair in it."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong while a file is read into one sentence with its cure."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(
            f"{path}: the gzip data is broken or ends early ({error}). Nothing was imported; "
            "fetch or compress the file again (`gzip -t FILE` tests it)."
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: the file begins as {error.encoding} but does not go on so "
            f"({error.reason}). Save it as UTF-8 and import it again."
        ) from error
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror or error}). Check the path and its "
            "permissions."
        ) from error


@contextmanager
def open_bytes(path: Path, compression: Compression) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file and its decompressed content.

    Yields:
        The content, and the file below it (whose position tells how far reading is).

    Raises:
        DatasetError: The file cannot be opened.
    """
    with _reading(path):
        raw = path.open("rb")
    with raw:
        if compression == "gzip":
            with gzip.GzipFile(fileobj=raw) as content:
                yield cast("IO[bytes]", content), raw
        else:
            yield raw, raw


def read_bytes(path: Path, compression: Compression, size: int) -> bytes:
    """Return the first `size` bytes of the decompressed content, or fewer if there are no more.

    Raises:
        DatasetError: The file cannot be read, or its gzip data is broken.
    """
    with open_bytes(path, compression) as (content, _), _reading(path):
        return content.read(size)


@contextmanager
def open_lines(
    path: Path, compression: Compression, encoding: str, newline: Literal["", "\n"]
) -> Iterator[LineStream]:
    r"""Open a text file as lines that keep their ends.

    Bytes that are not UTF-8 arrive as lone surrogates, which no valid text holds: `is_encodable`
    finds them row by row.

    Args:
        path: The file.
        compression: What it is packed with.
        encoding: A codec that knows about byte-order marks.
        newline: "" ends a line at \n, \r or \r\n; "\n" only there.

    Raises:
        DatasetError: The file cannot be read, or a line has 64 Mi characters or more.
    """
    with open_bytes(path, compression) as (content, raw):
        size = max(path.stat().st_size, 1)
        text = io.TextIOWrapper(
            cast("Any", content), encoding=encoding, errors="surrogateescape", newline=newline
        )
        yield LineStream(_bounded(path, text), lambda: min(raw.tell() / size, 1.0))


def _bounded(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    with _reading(path):
        while line := text.readline(MAX_LINE_CHARS):
            number += 1
            if len(line) == MAX_LINE_CHARS:
                raise DatasetError(
                    f"{path}: line {number} has {MAX_LINE_CHARS:,} characters or more, so these "
                    "are not rows of text. Check that the file is what its name says, or split it."
                )
            yield line


class _Lines:
    """Physical lines that remember those of the record being read, and can take them back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._returned: deque[str] = deque()
        self._chars = 0
        self.taken: list[str] = []
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._lines)
        self.number += 1
        self.taken.append(line)
        self._chars += len(line)
        if self._chars > MAX_RECORD_CHARS and len(self.taken) > 1:
            raise _RecordTooLongError
        return line

    def start_record(self) -> None:
        self.taken = []
        self._chars = 0

    def keep_only_first(self) -> None:
        """Give back all lines of the record but its first."""
        rest = self.taken[1:]
        self._returned.extendleft(reversed(rest))
        self.number -= len(rest)


class Cells(NamedTuple):
    """The cells of one delimited record."""

    line: int
    cells: list[str]


def read_cells(
    lines: Iterator[str], delimiter: str, quote: str | None, width: int | None
) -> Iterator[Cells | QuarantinedRow]:
    r"""Split delimited text into records; blank lines are none.

    A stray quote joins the rows after it into one field. It shows as text behind a closing quote,
    as the end of the file, or as a wrong number of cells over several lines. Then only the line
    that opened the quote is quarantined, and the lines behind it are read again, each on its own,
    up to the one where reading failed. The next record with an odd number of quotes may be the
    end of the broken field, so it is quarantined too. Every line is read at most three times,
    whatever the file holds.

    Args:
        lines: Physical lines with their ends.
        delimiter: One character.
        quote: One character, or `None` if quotes are ordinary characters.
        width: Number of cells of a good record; `None` takes any.
    """
    # The limit is process-wide; raising it is harmless to others, and lines are bounded anyway.
    if csv.field_size_limit() < MAX_LINE_CHARS:
        csv.field_size_limit(MAX_LINE_CHARS)
    dialect: dict[str, Any] = {"delimiter": delimiter, "strict": True}
    dialect |= {"quoting": csv.QUOTE_NONE} if quote is None else {"quotechar": quote}
    source = _Lines(lines)
    reader = csv.reader(source, **dialect)
    alone_until = 0
    is_open = False
    while True:
        first = source.number + 1
        source.start_record()
        is_alone = first <= alone_until
        attempt = _attempt(csv.reader(islice(source, 1), **dialect) if is_alone else reader)
        raw = source.taken
        if not raw:
            return
        if not attempt.cells and not attempt.fault:
            continue
        fault = attempt.fault
        if is_open and not fault and _has_odd_quotes(raw, quote):
            fault = "a quote without its partner, behind a broken quote"
            is_open = False
        elif not fault and width not in (None, len(attempt.cells)):
            fault = f"{_count(len(attempt.cells), 'field')} where the header has {width}"
        if attempt.fault or (fault and len(raw) > 1):
            is_open = _has_odd_quotes(raw[:1], quote)
        if fault and len(raw) > 1:
            last = source.number
            yield quarantine(first, f"{fault}: a quote opened here runs to line {last}", raw[0])
            source.keep_only_first()
            reader = csv.reader(source, **dialect)
            alone_until = last if attempt.is_unclosed else last - 1
        elif fault or not all(map(is_encodable, raw)):
            yield quarantine(first, fault or NOT_UTF8, "".join(raw))
        else:
            yield Cells(first, attempt.cells)


class _Attempt(NamedTuple):
    cells: list[str]
    fault: str = ""
    is_unclosed: bool = False


def _attempt(reader: Iterator[list[str]]) -> _Attempt:
    """Take one record, or tell why its quotes do not allow it; nothing left gives no cells."""
    try:
        return _Attempt(next(reader, []))
    except _RecordTooLongError:
        return _Attempt([], UNCLOSED, is_unclosed=True)
    except csv.Error as error:
        if "end of data" in str(error):
            return _Attempt([], UNCLOSED, is_unclosed=True)
        return _Attempt([], "text follows a closing quote")


def _has_odd_quotes(lines: Sequence[str], quote: str | None) -> bool:
    return quote is not None and sum(line.count(quote) for line in lines) % 2 == 1


def read_delimited(
    lines: Iterator[str],
    delimiter: str,
    quote: str | None,
    columns: Sequence[str],
    *,
    has_header: bool,
) -> Iterator[Row | QuarantinedRow]:
    """Read CSV or TSV rows below the header; each cell stays the text it is."""
    # The header's own width is that of the columns, so it passes the same check.
    records = read_cells(lines, delimiter, quote, len(columns))
    for record in islice(records, 1 if has_header else 0, None):
        if isinstance(record, Cells):
            yield Row(record.line, dict(zip(columns, record.cells, strict=True)))
        else:
            yield record


# Control characters within strings are no valid JSON but do occur, and their text is plain.
_DECODER = json.JSONDecoder(
    parse_float=Numeral, parse_int=Numeral, parse_constant=Numeral, strict=False
)


def read_json_lines(lines: Iterable[str]) -> Iterator[Row | QuarantinedRow]:
    """Read one JSON object a line; blank lines are no rows."""
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        if not is_encodable(line):
            yield quarantine(number, NOT_UTF8, line)
            continue
        try:
            value = _DECODER.decode(line)
        except RecursionError:
            yield quarantine(number, "JSON is nested too deeply", line)
        except json.JSONDecodeError as error:
            yield quarantine(number, f"no valid JSON: {error.msg} at column {error.colno}", line)
        else:
            yield _object_row(number, value, line)


def load_document(path: Path, compression: Compression, encoding: str) -> object:
    """Load a whole JSON document; numbers become `Numeral`.

    Raises:
        DatasetError: It is larger than 512 MiB, not UTF-8, not JSON, or nested too deeply.
    """
    data = read_bytes(path, compression, MAX_DOCUMENT_BYTES + 1)
    hint = 'Convert it to one object a line: jq -c ".[]" IN.json > OUT.jsonl'
    if len(data) > MAX_DOCUMENT_BYTES:
        raise DatasetError(
            f"{path}: a JSON document of more than {MAX_DOCUMENT_BYTES // 2**20} MiB would have "
            f"to be held in memory whole. {hint}"
        )
    try:
        return _DECODER.decode(data.decode(encoding))
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: byte {error.start} is {NOT_UTF8}. Save the file as UTF-8, or as JSON lines, "
            "where only the broken rows are set aside."
        ) from error
    except RecursionError as error:
        raise DatasetError(f"{path}: the JSON document is nested too deeply. {hint}") from error
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path}: no valid JSON at line {error.lineno}, column {error.colno}: {error.msg}. "
            f"Repair it; in a JSON lines file (.jsonl) only the broken rows would be set aside."
        ) from error


def rows_of_document(path: Path, document: object) -> Iterator[Row | QuarantinedRow]:
    """Read the rows of a JSON document: an array, `{"data": [...]}`, or an object of columns.

    Raises:
        DatasetError: The document has another shape.
    """
    for number, value in enumerate(_document_rows(path, document), start=1):
        yield _object_row(number, value, "")


def _document_rows(path: Path, document: object) -> Iterable[object]:
    if isinstance(document, list):
        return document
    if not isinstance(document, dict) or not document:
        raise DatasetError(
            f"{path}: the JSON document is {type_name(document)}; an array of objects is needed."
        )
    lengths = {name: len(value) for name, value in document.items() if isinstance(value, list)}
    tables = [name for name in lengths if _is_table(document[name])]
    if len(lengths) == len(document) > len(tables) and len(set(lengths.values())) == 1:
        return (
            dict(zip(document, row, strict=True)) for row in zip(*document.values(), strict=True)
        )
    if len(tables) == 1:
        return cast("list[object]", document[tables[0]])
    if tables:
        raise DatasetError(
            f"{path}: the JSON document holds several lists of rows ({', '.join(tables)}); save "
            "the one you want as a file of its own."
        )
    if len(lengths) == len(document):
        raise DatasetError(
            f"{path}: the columns of the JSON document differ in length: "
            + ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            + ". Make them equal."
        )
    if all(isinstance(value, dict) for value in document.values()):
        index = dict.fromkeys(key for column in document.values() for key in column)
        return (
            {name: column[key] for name, column in document.items() if key in column}
            for key in index
        )
    keys = ", ".join(map(repr, islice(document, 10)))
    raise DatasetError(
        f"{path}: the JSON document is an object with the keys {keys}, and none holds rows. "
        'Needed is an array of objects, {"data": [...]}, or an object of equally long columns.'
    )


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _object_row(number: int, value: object, raw: str) -> Row | QuarantinedRow:
    if isinstance(value, dict):
        return Row(number, value)
    return quarantine(number, f"{type_name(value)} where an object is needed", raw or str(value))


def read_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Row | QuarantinedRow]:
    """Read the rows of a Parquet file in batches, in Python values.

    Raises:
        DatasetError: The file is no Parquet file, or a page of it is broken.
    """
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=columns):
                for position in range(batch.num_rows):
                    number += 1
                    yield _parquet_row(number, batch, position)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: cannot be read as Parquet behind record {number:,} ({error}). Write the "
            "file again, or export it as CSV or JSON lines."
        ) from error


def _parquet_row(number: int, batch: Any, position: int) -> Row | QuarantinedRow:
    values: dict[str, object] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values[name] = column[position].as_py()
        except UnicodeDecodeError:
            return quarantine(number, NOT_UTF8, f"column {name}")
    return Row(number, values)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def type_name(value: object) -> str:
    """Return what a value read from a file is, in words."""
    if isinstance(value, Numeral):
        return "a number"
    names = {bool: "a boolean", dict: "an object", list: "an array", type(None): "null"}
    names |= {str: "a string", bytes: "bytes"}
    return names.get(type(value), f"a {type(value).__name__}")


def scalar(value: object, name: str) -> str | None:
    """Return a label, id, group or slice value as text, or `None` if there is none."""
    if value is None or is_nan(value):
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list | dict | bytes):
        raise UnfitError(f"column {name!r} holds {type_name(value)}, not a single value")
    return str(value)


def is_nan(value: object) -> bool:
    """Return whether a value is the NaN that pandas writes for nothing; the text "NaN" is not."""
    if isinstance(value, Numeral):
        return value == "NaN"
    return isinstance(value, float) and math.isnan(value)

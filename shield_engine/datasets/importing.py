"""From a file to an Arrow table of texts and labels, with every row accounted for.

Hides how a record becomes a row: which value is the text, the label, the id. Rows in = rows
imported + rows quarantined, always. No value is coerced: "NA", "true" and "2024-01-01" are texts.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shield_engine.datasets.labels import class_of, default_label_map
from shield_engine.datasets.profile import DatasetProfile, Profiler
from shield_engine.datasets.records import (
    NOT_UTF8,
    QuarantinedRow,
    Row,
    UnfitError,
    is_encodable,
    is_nan,
    quarantine,
    scalar,
    type_name,
)
from shield_engine.datasets.scores import (
    GivenScores,
    ScoreReader,
    check_task,
    score_hints,
)
from shield_engine.datasets.sniffing import (
    ColumnMapping,
    Inspected,
    Sniffed,
    fingerprint,
    inspect_file,
    is_messages,
    open_records,
)
from shield_engine.errors import ConfigError, DatasetError
from shield_engine.types import LABELS, Task

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "MAX_LABEL_VALUES",
    "ImportProgress",
    "ImportedDataset",
    "SourceFile",
    "check_columns",
    "row_code",
]

ImportProgress = Callable[[int, float | None], None]
"""Called with rows read so far and the share of the file read (0..1; `None` if not known)."""

MAX_LABEL_VALUES = 50
"""A column of more distinct values holds no labels."""
KEPT_QUARANTINED = 1_000
BATCH_ROWS = 16_384
BATCH_CHARS = 32 * 2**20
"""Arrow strings hold 2 GiB a batch; at 4 bytes a character this stays far below."""
PROGRESS_ROWS = 5_000
MAX_UNKNOWN_LABELS = 1_000
SHOWN_LABELS = 10

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant"}


@dataclass(frozen=True, slots=True)
class ImportedDataset:
    """Rows of a file, ready to be stored.

    Attributes:
        table: Columns `row_index` int64 (0-based, in file order, among imported rows), `row_id`
            string (the id column's value, else the 1-based number of the record), `text` string,
            `label` int8 or null (index into `LABELS[task]`), `group` string or null, `slices`
            string (a JSON object of strings) or null, `text_sha256` string (hex), `chars` int32.
        content_hash: SHA-256 over ids, texts, labels, groups and slices in order, in hex; the same
            rows give the same hash whatever the format of the file.
        rows_read: Records found; imported plus quarantined.
        quarantined: The first 1,000 records that could not be imported.
        quarantined_count: All of them.
        profile: What the rows look like.
        mapping: The mapping that was used, given or suggested.
        scores: What other guards said of the rows, by the columns mapped so.
    """

    table: pa.Table
    content_hash: str
    rows_read: int
    quarantined: tuple[QuarantinedRow, ...]
    quarantined_count: int
    profile: DatasetProfile
    mapping: ColumnMapping
    scores: tuple[GivenScores, ...] = ()


class _Values(NamedTuple):
    """What a row gives: the label as spelled, before it is looked up."""

    row_id: str
    text: str
    label: str | None
    group: str | None
    slices: str | None


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A user's file that was looked at once; what it is, its labels and its rows follow from that.

    Attributes:
        inspected: What it is; a JSON document's content lies there, too.
        fingerprint: What changes when the file does.
    """

    inspected: Inspected
    fingerprint: tuple[int, int, int] | None

    @classmethod
    def open(cls, path: Path) -> SourceFile:
        """Look at a CSV, TSV, JSON lines, JSON or Parquet file, plain or gzip.

        Raises:
            DatasetError: The file is missing, not a file, empty, or of no format that can be read.
        """
        path = Path(path)
        before = fingerprint(path)
        return cls(inspect_file(path), before)

    @property
    def sniffed(self) -> Sniffed:
        """What the file was found to be."""
        return self.inspected.sniffed

    def label_values(self, column: str) -> dict[str, int]:
        """Return the distinct values of a label column with their rows, commonest first.

        Counting stops after `MAX_LABEL_VALUES` + 1 distinct values: that is no label column. Left
        out are the rows that an import quarantines for their label.

        Raises:
            DatasetError: The file cannot be read.
        """
        counts: Counter[str] = Counter()
        with open_records(self.inspected, [column]) as stream:
            for record in stream.records:
                if not isinstance(record, Row):
                    continue
                with suppress(UnfitError):
                    counts[_label(record.values, column)] += 1
                if len(counts) > MAX_LABEL_VALUES:
                    break
        return dict(counts.most_common())

    def read(
        self,
        task: Task,
        mapping: ColumnMapping | None = None,
        label_map: Mapping[str, int] | None = None,
        *,
        limit: int | None = None,
        progress: ImportProgress | None = None,
    ) -> ImportedDataset:
        """Import the rows; write nothing.

        Args:
            task: Names the classes that labels become.
            mapping: Which column plays which part; `None` takes what sniffing suggests.
            label_map: File value to class index; `None` takes `default_label_map(task)`.
            limit: Stop after this many imported rows.
            progress: Called about every 5,000 rows; what it raises stops the import.

        Raises:
            DatasetError: The file cannot be read, changed since it was looked at, lacks a mapped
                column, holds no readable row or mostly not UTF-8, or has a label value that is not
                mapped.
            ConfigError: `limit` is below 1, or the task has no room for a score column.
        """
        if limit is not None and limit < 1:
            raise ConfigError(f"limit: {limit} rows cannot be imported; give 1 or more, or none.")
        sniffed = self.sniffed
        chosen = mapping or _suggested(sniffed)
        check_task(task, chosen.scores)
        if not chosen.text and chosen.scores:
            raise DatasetError(
                f"{sniffed.path}: no column of texts is named. Scores alone join the stored "
                "version that they were given for (command: --join DATASET)."
            )
        check_columns(sniffed, chosen)
        intake = _Intake(sniffed.path, task, chosen, label_map or default_label_map(task))
        with open_records(self.inspected, chosen.columns) as stream:
            for record in stream.records:
                intake.add(record)
                if progress and intake.rows_read % PROGRESS_ROWS == 0:
                    progress(intake.rows_read, stream.share() if stream.share else None)
                if limit is not None and intake.imported >= limit:
                    break
        if progress:
            progress(intake.rows_read, 1.0)
        if fingerprint(sniffed.path) != self.fingerprint:
            raise DatasetError(
                f"{sniffed.path}: the file changed while it was read. Nothing was imported; wait "
                "until it is complete and import it again."
            )
        return intake.finish(sniffed, mapping is None)


def row_code(
    row_id: str, label: int | None, digest: bytes, group: str | None, slices: str | None
) -> bytes:
    """Return what one row adds to the content hash of its dataset.

    Args:
        row_id: The row's name.
        label: Its class index.
        digest: SHA-256 of its text.
        group: Its group.
        slices: Its slices as a JSON object.
    """
    name = row_id.encode("utf-8")
    # The id is the only part without a fixed length, so it is the one that is preceded by it.
    code = b"-" if label is None else b"%d" % label
    content = b"%d:%b%b%b" % (len(name), name, code, digest)
    # Rows without a group and slices hash as they would in a file that has neither.
    if group is not None or slices is not None:
        extra = json.dumps([group, slices]).encode()
        content += b"+%d:%b" % (len(extra), extra)
    return content


class _Intake:
    """Takes records one by one and keeps the books: imported, quarantined, unknown labels."""

    def __init__(
        self, path: Path, task: Task, mapping: ColumnMapping, label_map: Mapping[str, int]
    ) -> None:
        self._path = path
        self._task = task
        self._label_map = label_map
        self._looked_up: dict[str, int | None] = {}
        self._profiler = Profiler(LABELS[task])
        self._hash = hashlib.sha256()
        self._batches: list[pa.RecordBatch] = []
        self._rows: list[tuple[object, ...]] = []
        self._batch_chars = 0
        self._quarantined: list[QuarantinedRow] = []
        self._reasons: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._unknown_line = 0
        self._seen_columns: set[str] = set()
        self._ids: set[str] = set()
        self._repeated_ids = 0
        self._scores = [ScoreReader(column) for column in mapping.scores]
        self.mapping = mapping
        self.rows_read = 0
        self.imported = 0

    def add(self, record: Row | QuarantinedRow) -> None:
        """Import one record or quarantine it."""
        self.rows_read += 1
        if isinstance(record, QuarantinedRow):
            self._set_aside(record)
            return
        self._seen_columns.update(record.values)
        try:
            values = _values(record.values, self.mapping, self.rows_read)
            label = self._label(values.label, record.line)
        except UnfitError as reason:
            self._set_aside(quarantine(record.line, str(reason), _sample(record.values)))
        else:
            self._take(values, label)
            for reader in self._scores:
                reader.add(record.values)

    def _label(self, value: str | None, line: int) -> int | None:
        if self.mapping.label is None or value is None:
            return None
        if value not in self._looked_up:
            self._looked_up[value] = class_of(value, self._label_map)
        index = self._looked_up[value]
        if index is None:
            self._unknown_line = self._unknown_line or line
            self._unknown[value] += 1
            if len(self._unknown) > MAX_UNKNOWN_LABELS:
                raise self._unknown_labels()
        return index

    def _take(self, values: _Values, label: int | None) -> None:
        encoded = values.text.encode("utf-8")
        digest = hashlib.sha256(encoded)
        self._hash.update(
            row_code(values.row_id, label, digest.digest(), values.group, values.slices)
        )
        self._profiler.add(values.text, digest.digest(), label)
        if self.mapping.id is not None:
            self._repeated_ids += values.row_id in self._ids
            self._ids.add(values.row_id)
        self._rows.append(
            (
                *(self.imported, values.row_id, values.text, label, values.group, values.slices),
                *(digest.hexdigest(), len(values.text)),
            )
        )
        self.imported += 1
        self._batch_chars += len(values.text)
        if len(self._rows) >= BATCH_ROWS or self._batch_chars >= BATCH_CHARS:
            self._flush()

    def _set_aside(self, row: QuarantinedRow) -> None:
        self._reasons[row.reason.split(":")[0]] += 1
        if len(self._quarantined) < KEPT_QUARANTINED:
            self._quarantined.append(row)

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            columns = zip(*self._rows, strict=True)
            schema = _schema()
            arrays = [
                pa.array(column, type=field.type)
                for column, field in zip(columns, schema, strict=True)
            ]
            self._batches.append(pa.record_batch(arrays, schema=schema))
        self._rows = []
        self._batch_chars = 0

    def finish(self, sniffed: Sniffed, is_suggested: bool) -> ImportedDataset:
        """Close the books.

        Raises:
            DatasetError: They do not balance, or the file cannot be used as a dataset.
        """
        import pyarrow as pa

        self._refuse(sniffed)
        scores = tuple(reader.finish(self._path) for reader in self._scores)
        self._flush()
        table = pa.Table.from_batches(self._batches, schema=_schema())
        quarantined = self._reasons.total()
        if self.rows_read != table.num_rows + quarantined:
            raise DatasetError(
                f"{self._path}: {self.rows_read:,} rows were read but {table.num_rows:,} imported "
                f"and {quarantined:,} quarantined. Nothing was imported; report this file's shape "
                "as a bug."
            )
        return ImportedDataset(
            table=table,
            content_hash=self._hash.hexdigest(),
            rows_read=self.rows_read,
            quarantined=tuple(self._quarantined),
            quarantined_count=quarantined,
            profile=self._profiler.profile(
                [
                    *self._warnings(sniffed, is_suggested),
                    *(warning for given in scores for warning in given.warnings),
                ]
            ),
            mapping=self.mapping,
            scores=scores,
        )

    def _refuse(self, sniffed: Sniffed) -> None:
        if self._unknown:
            raise self._unknown_labels()
        if self.rows_read == 0:
            raise DatasetError(f"{self._path}: holds a header or nothing, but no rows.")
        undecoded = self._reasons[NOT_UTF8]
        if undecoded * 2 > self.rows_read:
            raise DatasetError(
                f"{self._path}: {undecoded:,} of {self.rows_read:,} rows are {NOT_UTF8}, so the "
                "file has another encoding. Save it as UTF-8 (from Windows often: "
                "iconv -f WINDOWS-1252 -t UTF-8 IN > OUT)."
            )
        known = self._seen_columns.union(sniffed.columns)
        for name in self.mapping.columns:
            if known and name not in known:
                raise no_column(self._path, name, sorted(known))
        if self.imported == 0:
            first = self._quarantined[0]
            reasons = "; ".join(
                f"{reason} ({count:,})" for reason, count in self._reasons.most_common(3)
            )
            raise DatasetError(
                f"{self._path}: none of {self.rows_read:,} rows can be imported: {reasons}. First "
                f"at line {first.line}: {first.sample[:80]!r}. Check format and text column."
            )

    def _unknown_labels(self) -> DatasetError:
        shown = ", ".join(
            f"{value!r} ({count:,} rows)"
            for value, count in self._unknown.most_common(SHOWN_LABELS)
        )
        more = len(self._unknown) - SHOWN_LABELS
        labels = LABELS[self._task]
        example = ",".join(
            f"{value}={labels[index % len(labels)]}"
            for index, (value, _) in enumerate(self._unknown.most_common(len(labels)))
        )
        return DatasetError(
            f"{self._path}: column {self.mapping.label!r} has values that are no known class of "
            f"{self._task}: {shown}{f' and {more:,} more' if more > 0 else ''}; first at line "
            f"{self._unknown_line}. Nothing was imported. Say what they mean with "
            f"--label-map VALUE=CLASS,... (such as {example}); classes: {', '.join(labels)}."
        )

    def _warnings(self, sniffed: Sniffed, is_suggested: bool) -> list[str]:
        warnings = list(sniffed.warnings)
        if is_suggested and self.mapping.label is None:
            warnings.append(
                "no column has a usual name for labels, so the dataset is unlabelled; columns: "
                + ", ".join(sniffed.columns[:20])
            )
        if self._reasons:
            reasons = ", ".join(
                f"{reason} {count:,}" for reason, count in self._reasons.most_common(3)
            )
            warnings.append(
                f"{self._reasons.total():,} of {self.rows_read:,} rows are quarantined: {reasons}"
            )
        used = self.mapping.columns
        unused = [
            f"{name!r} ({role})"
            for name, role in score_hints(sniffed.columns).items()
            if name not in used
        ]
        if unused:
            warnings.append(
                f"not used, though they look like what a guard said: {', '.join(unused)}; to judge "
                "that guard, give the column its role (command: --score, --verdict, --latency)"
            )
        if self._repeated_ids:
            warnings.append(
                f"{self._repeated_ids:,} rows repeat an id of column {self.mapping.id!r}; they are "
                "told apart by their position"
            )
        return warnings


def _sample(values: Mapping[str, object]) -> str:
    try:
        return json.dumps(dict(values), ensure_ascii=False, default=str)
    except RecursionError:
        return "columns: " + ", ".join(values)


def _values(values: Mapping[str, object], mapping: ColumnMapping, number: int) -> _Values:
    """Read one record by the mapping.

    Raises:
        UnfitError: It has no usable text, or its label is missing or no single value.
    """
    text = _text(values, mapping)
    label = None if mapping.label is None else _label(values, mapping.label)
    row_id = str(number)
    if mapping.id is not None:
        own = scalar(values.get(mapping.id), mapping.id)
        if not own:
            raise UnfitError(f"the id is missing (column {mapping.id!r})")
        row_id = own
    # Rows without a group are not a group of their own.
    group = scalar(values.get(mapping.group), mapping.group) or None if mapping.group else None
    slices = None
    if mapping.slices:
        parts = {name: scalar(values.get(name), name) for name in mapping.slices}
        slices = json.dumps(parts, ensure_ascii=False)
    for name, value in (("text", text), ("id", row_id), ("group", group), ("slices", slices)):
        if value is not None and not is_encodable(value):
            raise UnfitError(f"the {name} holds half of a surrogate pair, which is no character")
    return _Values(row_id, text, label, group, slices)


def _label(values: Mapping[str, object], name: str) -> str:
    label = scalar(values.get(name), name)
    if label is None or not label.strip():
        raise UnfitError(f"the label is missing (column {name!r})")
    return label


def _text(values: Mapping[str, object], mapping: ColumnMapping) -> str:
    name = mapping.text
    value = values.get(name)
    if value is None or is_nan(value):
        reason = "null" if name in values else "missing"
        raise UnfitError(f"the text is {reason} (column {name!r})")
    if isinstance(value, str):
        return _joined(_parsed_messages(value), mapping) if is_messages(name, value) else str(value)
    if isinstance(value, list):
        return _joined(value, mapping)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnfitError(f"the text is {type_name(value)}, not a string (column {name!r})")
    return repr(value)


def _parsed_messages(text: str) -> list[object]:
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise UnfitError("the messages are no valid JSON list") from error
    return list(value)


def _joined(messages: Sequence[object], mapping: ColumnMapping) -> str:
    """Return the contents of the messages of the mapped roles, joined by blank lines."""
    contents = []
    for message in messages:
        if not isinstance(message, dict):
            raise UnfitError(f"a message is {type_name(message)}, not an object")
        role = str(message.get("role", message.get("from", ""))).casefold()
        if role not in mapping.roles and _ROLES.get(role) not in mapping.roles:
            continue
        content = message.get("content", message.get("value"))
        if isinstance(content, list):
            content = "\n\n".join(_parts(content))
        if not isinstance(content, str):
            raise UnfitError(f"the content of a message is {type_name(content)}, not a string")
        contents.append(str(content))
    if not contents:
        raise UnfitError(f"no message has the role {' or '.join(mapping.roles)}")
    return "\n\n".join(contents)


def _parts(content: Sequence[object]) -> list[str]:
    """Return the texts of a message made of parts; images and sounds have none."""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return [str(text) for text in texts if isinstance(text, str)]


def _suggested(sniffed: Sniffed) -> ColumnMapping:
    repeated = [name for name in sniffed.columns if name.endswith(" (2)")]
    if repeated and repeated[0].replace(" (2)", " (1)") in sniffed.columns:
        raise DatasetError(
            f"{sniffed.path}: the header repeats {repeated[0][:-4]!r}, so the columns cannot be "
            f"told apart by name. Name the ones you mean ({', '.join(sniffed.columns)}), or rename "
            "them in the file."
        )
    return sniffed.suggested


def check_columns(sniffed: Sniffed, mapping: ColumnMapping) -> None:
    """Refuse a mapping of columns that the file lacks.

    Raises:
        DatasetError: One is not there.
    """
    # JSON rows need not all have the same keys, so theirs are checked once the file is read.
    if sniffed.format in {"csv", "tsv", "parquet"}:
        for name in mapping.columns:
            if name not in sniffed.columns:
                raise no_column(sniffed.path, name, sniffed.columns)


def no_column(path: Path, name: str, columns: Sequence[str]) -> DatasetError:
    by_fold = {column.casefold(): column for column in columns}
    near = difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.5)
    hint = f" Did you mean {by_fold[near[0]]!r}?" if near else ""
    return DatasetError(
        f"{path}: there is no column {name!r}.{hint} Columns: {', '.join(columns) or 'none'}."
    )


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("row_index", pa.int64(), nullable=False),
            pa.field("row_id", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("label", pa.int8()),
            pa.field("group", pa.string()),
            pa.field("slices", pa.string()),
            pa.field("text_sha256", pa.string(), nullable=False),
            pa.field("chars", pa.int32(), nullable=False),
        ]
    )

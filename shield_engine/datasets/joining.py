"""Scores that come without their texts, laid onto the rows of a stored version.

Rows meet by the user's own id or by the text's SHA-256. Every row of both sides is accounted for:
matched, only in the file, only in the dataset, or quarantined.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shield_engine.datasets.importing import SourceFile, check_columns
from shield_engine.datasets.records import QuarantinedRow, Row, UnfitError, quarantine, scalar
from shield_engine.datasets.scores import GivenScores, ScoreReader
from shield_engine.datasets.sniffing import ColumnMapping, fingerprint, open_records
from shield_engine.errors import ConfigError, DatasetError

__all__ = ["JoinedScores", "join_rows"]

_SHOWN = 5
_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class JoinedScores:
    """Scores of a file, one for each row of a dataset, and how the two met.

    Attributes:
        scores: Of each guard, in the dataset's order; a row that the file lacks is an error.
        rows_read: Records of the file: used, only in the file, or quarantined.
        matched: Rows of the dataset that the file has.
        only_in_file: The first 1,000 (line, key) that the dataset lacks.
        only_in_file_count: All of them.
        only_in_dataset: The first 1,000 keys that the file lacks.
        only_in_dataset_count: All such rows.
        quarantined: Records that could not be read, or have no key.
    """

    scores: tuple[GivenScores, ...]
    rows_read: int
    matched: int
    only_in_file: tuple[tuple[int, str], ...]
    only_in_file_count: int
    only_in_dataset: tuple[str, ...]
    only_in_dataset_count: int
    quarantined: tuple[QuarantinedRow, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know: rows without a partner on either side, and bad columns."""
        warnings = [warning for given in self.scores for warning in given.warnings]
        if self.only_in_dataset_count:
            shown = _listed(self.only_in_dataset)
            warnings.append(
                f"{self.only_in_dataset_count:,} rows of the dataset are not in the file and have "
                f"no score: {shown}"
            )
        if self.only_in_file_count:
            shown = _listed([f"{key} (line {line:,})" for line, key in self.only_in_file])
            warnings.append(
                f"{self.only_in_file_count:,} rows of the file are not in the dataset and were "
                f"left out: {shown}"
            )
        if self.quarantined:
            first = self.quarantined[0]
            warnings.append(
                f"{len(self.quarantined):,} rows were quarantined; the first, line "
                f"{first.line}: {first.reason}"
            )
        return tuple(warnings)


def join_rows(path: Path, mapping: ColumnMapping, row_keys: Sequence[str]) -> JoinedScores:
    """Read a file's scores and give each row of a dataset its own.

    Args:
        path: A file of any format that can be imported.
        mapping: Its `scores`, and `id` or `text_sha256`: what rows are known by.
        row_keys: That key of each row of the dataset, in its order.

    Raises:
        ConfigError: The mapping names no scores, or not one key.
        DatasetError: The file cannot be read or lacks a column, a key stands in it twice, no row
            has a partner, or a column holds no score at all.
    """
    if not mapping.scores:
        raise ConfigError("no score column is named: --score COLUMN[=NAME], or --verdict")
    if (mapping.id is None) == (mapping.text_sha256 is None):
        raise ConfigError("rows are joined either by a column of ids or by one of text_sha256")
    source = SourceFile.open(path)
    check_columns(source.sniffed, mapping)
    keyed = _read(source, mapping)
    if fingerprint(source.sniffed.path) != source.fingerprint:
        raise DatasetError(f"{path}: the file changed while it was read; read it again")
    if mapping.id is not None:
        _refuse_doubled(path, row_keys, keyed)
    positions = [keyed.positions.get(key) for key in row_keys]
    known = set(row_keys)
    absent = [(keyed.lines[at], key) for key, at in keyed.positions.items() if key not in known]
    missing = [key for key, at in zip(row_keys, positions, strict=True) if at is None]
    if len(missing) == len(row_keys):
        raise DatasetError(
            f"{path}: none of its {keyed.rows_read:,} rows is in the dataset; the file has "
            f"{_listed(list(keyed.positions))}, the dataset {_listed(row_keys)}. Choose another "
            "dataset, or the column that holds the same ids."
        )
    what = "id" if mapping.id is not None else "text_sha256"
    return JoinedScores(
        scores=tuple(
            reader.finish(path).at(positions, f"{path.name} has no row of this {what}")
            for reader in keyed.readers
        ),
        rows_read=keyed.rows_read,
        matched=len(row_keys) - len(missing),
        only_in_file=tuple(absent[:_KEPT]),
        only_in_file_count=len(absent),
        only_in_dataset=tuple(missing[:_KEPT]),
        only_in_dataset_count=len(missing),
        quarantined=keyed.quarantined,
    )


@dataclass(frozen=True, slots=True)
class _Keyed:
    """The scores of a file in its order, and where each key stands."""

    readers: Sequence[ScoreReader]
    positions: Mapping[str, int]
    lines: Sequence[int]
    rows_read: int
    quarantined: tuple[QuarantinedRow, ...]


def _read(source: SourceFile, mapping: ColumnMapping) -> _Keyed:
    """Read keys and scores.

    Raises:
        DatasetError: A key stands in the file twice.
    """
    column, is_digest = mapping.id or mapping.text_sha256 or "", mapping.id is None
    readers = [ScoreReader(score) for score in mapping.scores]
    positions: dict[str, int] = {}
    lines: list[int] = []
    doubled: defaultdict[str, list[int]] = defaultdict(list)
    quarantined: list[QuarantinedRow] = []
    rows_read = 0
    with open_records(source.inspected, mapping.columns) as stream:
        for record in stream.records:
            rows_read += 1
            if not isinstance(record, Row):
                quarantined.append(record)
                continue
            try:
                key = _key(record.values, column, is_digest=is_digest)
            except UnfitError as reason:
                quarantined.append(quarantine(record.line, str(reason), str(record.values)))
                continue
            for reader in readers:
                reader.add(record.values)
            first = positions.setdefault(key, len(lines))
            # The same text may stand in a file as often as it likes, if the guard said the same.
            if first != len(lines) and not (
                is_digest and all(reader.is_same(first, len(lines)) for reader in readers)
            ):
                doubled[key].append(record.line)
            lines.append(record.line)
    path = source.sniffed.path
    if doubled:
        shown = [
            f"{key!r} in lines {', '.join(f'{n:,}' for n in (lines[positions[key]], *more))}"
            for key, more in doubled.items()
        ]
        raise DatasetError(
            f"{path}: column {column!r} names rows twice: {_listed(shown, '; ')}. Nothing was "
            "stored; leave one row of each."
        )
    if not positions:
        why = [f"; line {row.line}: {row.reason}" for row in quarantined[:1]]
        raise DatasetError(f"{path}: none of {rows_read:,} rows has a key{''.join(why)}")
    return _Keyed(readers, positions, lines, rows_read, tuple(quarantined))


def _key(values: Mapping[str, object], column: str, *, is_digest: bool) -> str:
    key = scalar(values.get(column), column)
    if not key:
        raise UnfitError(f"the key is missing (column {column!r})")
    return key.strip().lower() if is_digest else key


def _refuse_doubled(path: Path, row_keys: Sequence[str], keyed: _Keyed) -> None:
    """Refuse ids that the dataset has twice: which of its rows the file means is not known."""
    counts = Counter(key for key in row_keys if key in keyed.positions)
    doubled = [f"{key!r} ({count} rows)" for key, count in counts.items() if count > 1]
    if doubled:
        raise DatasetError(
            f"{path}: the dataset itself has these ids more than once: {_listed(doubled)}. Join "
            "by a column of text_sha256 instead."
        )


def _listed(names: Sequence[str], mark: str = ", ") -> str:
    more = len(names) - _SHOWN
    return mark.join(names[:_SHOWN]) + (f"{mark}and {more:,} more" if more > 0 else "")

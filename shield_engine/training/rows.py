"""Labelled rows for training, read from JSON Lines or CSV and split.

Hides the formats; what cannot be used is named by file and line.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.errors import DatasetError, TrainingError
from shield_engine.types import LABELS, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TrainingRows", "read_rows", "split_rows"]


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Texts, the index of each one's class (shape (n,), int64) and its source."""

    texts: list[str]
    labels: NDArray[np.int64]
    sources: list[str]

    def subset(self, indexes: Sequence[int]) -> TrainingRows:
        """Return the rows at `indexes`, in that order."""
        return TrainingRows(
            [self.texts[i] for i in indexes],
            self.labels[list(indexes)],
            [self.sources[i] for i in indexes],
        )


def read_rows(data: Path, task: Task) -> TrainingRows:
    """Read rows with `text`, `label` and, if present, `source`.

    Args:
        data: JSON Lines or CSV by its name, optionally gzip.
        task: Whose labels the rows bear, as names; 0 and 1 will do for two classes.

    Raises:
        DatasetError: The file cannot be opened, or a line is no such row.
        TrainingError: A class is absent.
    """
    opener = gzip.open if data.suffix == ".gz" else open
    names: dict[object, int] = {name: index for index, name in enumerate(LABELS[task])}
    if task is not Task.SENTIMENT:
        names |= {0: 0, 1: 1, "0": 0, "1": 1}
    is_csv = data.name.lower().removesuffix(".gz").endswith(".csv")
    records = _csv_records if is_csv else _json_records
    texts, labels, sources = [], [], []
    try:
        # Line ends are left as they are: a text in a CSV cell may hold any.
        stream = opener(data, "rt", encoding="utf-8", newline="")
    except OSError as error:
        raise DatasetError(f"{data} cannot be opened: {error.strerror}") from error
    with stream as lines:
        for number, row, line in records(data, lines):
            try:
                texts.append(str(row["text"]))
                labels.append(names[row["label"]])
            except (KeyError, TypeError) as error:
                raise DatasetError(
                    f"{data}:{number}: expected {'a row' if is_csv else 'a JSON object'} with text "
                    f"and label (one of {sorted(map(str, names))}); found {line[:80]!r}"
                ) from error
            sources.append(str(row.get("source") or ""))
    if len(set(labels)) < len(LABELS[task]):
        raise TrainingError(f"{data} lacks a class: {task.value} needs {', '.join(LABELS[task])}")
    return TrainingRows(texts, np.asarray(labels, dtype=np.int64), sources)


def _json_records(data: Path, lines: Iterable[str]) -> Iterator[tuple[int, Any, str]]:
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(
                f"{data}:{number}: expected a JSON object with text and label; found {line[:80]!r}"
            ) from error
        yield number, row, line


def _csv_records(data: Path, lines: Iterable[str]) -> Iterator[tuple[int, Any, str]]:
    # The limit is process-wide; a long text is no error here.
    csv.field_size_limit(max(csv.field_size_limit(), 2**26))
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.removeprefix("\ufeff") for name in next(reader, [])]
        if missing := {"text", "label"} - set(header):
            raise DatasetError(
                f"{data}:1: expected a header with text and label; "
                f"{' and '.join(sorted(missing))} is missing"
            )
        for cells in reader:
            if len(cells) != len(header):
                raise DatasetError(
                    f"{data}:{reader.line_num}: {len(cells)} cells where the header has "
                    f"{len(header)}"
                )
            yield reader.line_num, dict(zip(header, cells, strict=True)), ",".join(cells)
    except csv.Error as error:
        raise DatasetError(f"{data}:{reader.line_num}: no valid CSV ({error})") from error


def split_rows(
    rows: TrainingRows, task: Task, *, sources: Sequence[str], share: float, seed: int
) -> tuple[TrainingRows, TrainingRows]:
    """Return rows to train on and rows held out: whole `sources`, or else a share of each class.

    Raises:
        TrainingError: A class would be missing on one side.
    """
    held_out = {i for i, source in enumerate(rows.sources) if source in sources}
    if not held_out:
        generator = random.Random(seed)  # noqa: S311 - a split is no secret
        for label in np.unique(rows.labels):
            members = np.flatnonzero(rows.labels == label).tolist()
            size = max(1, round(len(members) * share))
            held_out.update(generator.sample(members, size))
    training = rows.subset([i for i in range(len(rows.texts)) if i not in held_out])
    validation = rows.subset(sorted(held_out))
    names = LABELS[task]
    for side, part in (("training", training), ("validation", validation)):
        missing = [names[i] for i in range(len(names)) if not (part.labels == i).any()]
        if missing:
            raise TrainingError(
                f"no {' and no '.join(missing)} row is left for {side}; "
                "give more rows of that class, or hold out other sources"
            )
    return training, validation

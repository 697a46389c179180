"""Scores of a file: whatever a column holds, every value is kept to the bit or is an error."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from shield_engine.datasets import (
    ColumnMapping,
    ImportedDataset,
    ScoreColumn,
    SourceFile,
    join_rows,
)
from shield_engine.engine import Shield
from shield_engine.errors import DatasetError
from shield_engine.evaluate import store_rows
from shield_engine.runs.given import store_given_scores
from shield_engine.settings import Settings
from shield_engine.store import Store
from shield_engine.types import Task

FLOATS = st.lists(st.floats(0, 1) | st.just(0.5), min_size=1, max_size=20)
MAPPING = ColumnMapping("text", scores=(ScoreColumn("s"),))


def bits(values: Sequence[float]) -> bytes:
    """Return values as the bytes they are."""
    return struct.pack(f"{len(values)}d", *values)


def imported(folder: Path, ending: str, values: Sequence[float]) -> ImportedDataset:
    """Write numbered texts with these scores in a format, and import them."""
    path = folder / f"rows.{ending}"
    texts = [f"text {number}" for number in range(len(values))]
    if ending == "parquet":
        parquet.write_table(pa.table({"text": texts, "s": pa.array(values, pa.float64())}), path)
    elif ending == "jsonl":
        rows = [{"text": text, "s": value} for text, value in zip(texts, values, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        buffer = io.StringIO()
        csv.writer(buffer).writerows([("text", "s"), *zip(texts, values, strict=True)])
        path.write_text(buffer.getvalue())
    return SourceFile.open(path).read(Task.TOXICITY, MAPPING)


@given(FLOATS, st.sampled_from(["csv", "jsonl", "parquet"]))
def test_any_float_keeps_its_bits_in_every_format(values: list[float], ending: str) -> None:
    """What was written as a float is read as that float."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = imported(Path(folder), ending, values)
    assert bits(dataset.scores[0].risks) == bits(values)


@settings(deadline=None, max_examples=15)
@given(FLOATS)
def test_any_float_keeps_its_bits_through_the_store(values: list[float]) -> None:
    """What a run gives back is what the file held, and the same file again is the same run."""
    with tempfile.TemporaryDirectory() as folder:
        home = Settings(Path(folder), offline=True, workers=1)
        with closing(Store.in_memory()) as store, closing(Shield.create(home)) as shield:
            dataset = imported(Path(folder), "csv", values)
            info = store_rows(store, "set", Task.TOXICITY, Path("rows.csv"), dataset)
            (run,) = store_given_scores(store, shield, info, dataset.scores, rules=False)
            (again,) = store_given_scores(store, shield, info, dataset.scores, rules=False)
            model = store.runs.scores(run.run_id).model
    assert model is not None
    assert bits(model[:, 1].tolist()) == bits(values)
    assert again.run_id == run.run_id


CELLS = st.text(max_size=8) | st.floats().map(repr) | st.sampled_from(["", "NaN", "1", "0.5"])


@given(st.lists(CELLS, min_size=1, max_size=20))
def test_every_cell_is_a_score_or_an_error(cells: list[str]) -> None:
    """Whatever text a cell holds, its row has a score in 0..1 or a reason, never both or neither."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        rows = [{"text": "t", "s": cell} for cell in (*cells, "0.5")]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        dataset = SourceFile.open(path).read(Task.TOXICITY, MAPPING)
    (scores,) = dataset.scores
    assert len(scores) == dataset.table.num_rows
    for position, risk in enumerate(scores.risks):
        assert (0 <= risk <= 1) != (position in scores.errors)
    assert all(reason.encode("utf-8") for reason in scores.errors.values())


@given(
    st.lists(st.integers(0, 12), max_size=12, unique=True),
    st.lists(st.integers(0, 12), min_size=1, max_size=12, unique=True),
)
def test_a_join_loses_no_row_of_either_side(in_file: list[int], in_dataset: list[int]) -> None:
    """Matched and unmatched add up on both sides, and each score stands at its own id."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.csv"
        path.write_text("id,s\n" + "".join(f"r{n},{n / 16}\n" for n in in_file))
        mapping = ColumnMapping("", id="id", scores=(ScoreColumn("s"),))
        common = set(in_file) & set(in_dataset)
        try:
            joined = join_rows(path, mapping, [f"r{n}" for n in in_dataset])
        except DatasetError:
            assert not common
            return
    assert joined.matched == len(common)
    assert joined.rows_read == joined.matched + joined.only_in_file_count
    assert len(in_dataset) == joined.matched + joined.only_in_dataset_count
    for number, risk in zip(in_dataset, joined.scores[0].risks, strict=True):
        assert risk == number / 16 if number in common else math.isnan(risk)

"""The store: versions, pages, purging, backup, locking, repair."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield_engine.errors import StoreBusyError, StoreError, UnknownNameError
from shield_engine.policy import Policy
from shield_engine.store import DatasetInfo, RunStatus, Store
from shield_engine.store.library import (
    benchmarks,
    delete_policy,
    policies,
    save_benchmark,
    save_policy,
)
from shield_engine.store.notes import annotate, annotation, dataset_annotations
from shield_engine.store.rows import dataset_page, stored_rows
from shield_engine.types import Mode, Task
from tests.stored_runs import add_dataset


def digest(text: str) -> str:
    """Return the SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def rows_of(texts: list[str], slices: list[str | None] | None = None) -> pa.Table:
    """Return rows as the importer gives them, labels alternating."""
    count = len(texts)
    return pa.table(
        {
            "row_index": pa.array(range(count), pa.int64()),
            "row_id": pa.array([f"r{number}" for number in range(count)]),
            "text": pa.array(texts, pa.string()),
            "label": pa.array([number % 2 for number in range(count)], pa.int8()),
            "group": pa.array([None] * count, pa.string()),
            "slices": pa.array(slices or [None] * count, pa.string()),
            "text_sha256": pa.array([digest(text) for text in texts]),
            "chars": pa.array([len(text) for text in texts], pa.int32()),
        }
    )


def add(store: Store, texts: list[str], name: str = "set") -> DatasetInfo:
    """Store texts as a dataset version."""
    return store.datasets.add(
        name, Task.TOXICITY, rows_of(texts), content_hash=digest("|".join(texts)), source="set.csv"
    )


def test_same_rows_are_the_same_version_other_rows_the_next() -> None:
    """Importing unchanged rows adds nothing; changed rows are version 2 beside version 1."""
    store = Store.in_memory()
    first = add(store, ["a", "b"])
    assert add(store, ["a", "b"]) == first
    second = add(store, ["a", "c"])
    assert (first.version, second.version) == (1, 2)
    assert second.title == "set v2"
    assert [info.version for info in store.datasets.all()] == [2, 1]
    assert [row.text for row in dataset_page(store, first.dataset_id)] == ["a", "b"]


@pytest.mark.parametrize(
    "text", ["", "true", "2024-01-01", "NULL", "nul\x00inside", "=1+1", "\u202eabc", "é\ufeff", "1"]
)
def test_texts_come_back_as_they_went_in(text: str) -> None:
    """No text is coerced, trimmed or lost."""
    store = Store.in_memory()
    info = add(store, [text, "other"])
    assert store.datasets.texts(info.dataset_id, 0, 1) == [(0, text, digest(text))]


def test_pages_search_and_slices() -> None:
    """Pages keep row order, search ignores case and takes wildcards literally."""
    store = Store.in_memory()
    table = rows_of(
        ["Alpha", "beta 100%", "ALPHABET", "a_b"], ['{"kind": "x"}', None, '{"kind": "y"}', "{}"]
    )
    info = store.datasets.add("set", Task.TOXICITY, table, content_hash="h", source="s")
    shown = dataset_page(store, info.dataset_id, search="alpha")
    assert [row.text for row in shown] == ["Alpha", "ALPHABET"]
    assert [row.text for row in dataset_page(store, info.dataset_id, search="%")] == ["beta 100%"]
    assert [row.text for row in dataset_page(store, info.dataset_id, offset=1, limit=2)] == [
        "beta 100%",
        "ALPHABET",
    ]
    assert [row.row_index for row in stored_rows(store, info.dataset_id, [3, 0])] == [3, 0]
    assert stored_rows(store, info.dataset_id, []) == []
    assert store.datasets.slices(info.dataset_id, "kind").tolist() == ["x", "", "y", ""]
    assert store.datasets.groups(info.dataset_id) is None


def test_unknown_ids_are_named() -> None:
    """Asking for what is not there says so."""
    store = Store.in_memory()
    with pytest.raises(UnknownNameError, match="no dataset nope"):
        store.datasets.find("nope")
    with pytest.raises(UnknownNameError, match="no run nope"):
        store.runs.find("nope")


def test_deleting_a_dataset_takes_its_runs_along() -> None:
    """Nothing of a deleted dataset is left behind."""
    store = Store.in_memory()
    info = add(store, ["a", "b"])
    store.runs.add(
        info, parts=["heuristic"], rows=2, model_id=None, variant=None, model_sha256=None,
        settings={}, stamp={},
    )  # fmt: skip
    store.datasets.delete(info.dataset_id)
    assert set(store.counts().values()) == {0}


def test_purged_rows_can_be_imported_again_as_a_new_version() -> None:
    """A purged version is not mistaken for the rows it once held."""
    store = Store.in_memory()
    info = add(store, ["a", "b"])
    store.datasets.purge_texts(info.dataset_id)
    assert store.datasets.find(info.dataset_id).purged
    with pytest.raises(StoreError, match="purged"):
        store.datasets.texts(info.dataset_id, 0, 2)
    again = add(store, ["a", "b"])
    assert again.dataset_id != info.dataset_id
    assert again.version == 2


def test_purged_and_deleted_texts_leave_the_file_at_the_next_start(tmp_path: Path) -> None:
    """After reopening, no byte of them is left on disk, and the rest is whole."""
    path = tmp_path / "shield.duckdb"
    with Store.open(path) as store:
        purged = add(store, [f"secretmarker {n} " + "x" * 200 for n in range(500)], "one")
        deleted = add(store, [f"othermarker {n} " + "y" * 200 for n in range(500)], "two")
        kept = add(store, [f"keptmarker {n} " + "z" * 200 for n in range(500)], "three")
        store.datasets.purge_texts(purged.dataset_id)
        store.datasets.delete(deleted.dataset_id)
    with Store.open(path) as store:
        assert store.notice is None
        assert store.datasets.texts(kept.dataset_id, 7, 8)[0][1].startswith("keptmarker 7 ")
        assert store.datasets.find(purged.dataset_id).purged
        save_benchmark(store, {})
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"secretmarker" not in content
    assert b"othermarker" not in content
    assert b"keptmarker" in content
    assert [file.name for file in tmp_path.iterdir()] == ["shield.duckdb"]


def test_reopened_store_has_everything_and_marks_what_was_running(tmp_path: Path) -> None:
    """Data survives closing; a run left running by a dead process is interrupted."""
    path = tmp_path / "deep" / "shield.duckdb"
    with Store.open(path) as store:
        info = add(store, ["a", "b"])
        run = store.runs.add(
            info, parts=["heuristic"], rows=2, model_id=None, variant=None, model_sha256=None,
            settings={"a": 1}, stamp={},
        )  # fmt: skip
        save_benchmark(store, {"figures": []})
    with Store.open(path) as store:
        assert store.datasets.all() == [info]
        assert store.runs.find(run.run_id).status == RunStatus.INTERRUPTED
        assert store.runs.find(run.run_id).is_resumable
        assert store.runs.find(run.run_id).settings == {"a": 1}
        assert next(iter(benchmarks(store).values())) == {"figures": []}
        assert store.size_bytes() > 0


def test_store_held_by_another_process_is_busy(tmp_path: Path) -> None:
    """The message says who may hold it and what to do."""
    path = tmp_path / "shield.duckdb"
    script = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(StoreBusyError, match="held by another process"):
            Store.open(path)
        holder.communicate("\n")
    Store.open(path).close()


def test_file_that_is_no_store_is_refused_untouched(tmp_path: Path) -> None:
    """Opening something else is an error and changes nothing."""
    path = tmp_path / "notes.txt"
    path.write_text("my notes " * 2_000)
    with pytest.raises(StoreError, match="not a valid DuckDB"):
        Store.open(path)
    assert path.read_text() == "my notes " * 2_000


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    """A store written by a later version is not touched."""
    path = tmp_path / "shield.duckdb"
    with Store.open(path) as store:
        store.execute("INSERT INTO schema_version VALUES (?)", [99])
    with pytest.raises(StoreError, match="update LLM Shield"):
        Store.open(path)


DIES_WITH_A_LOG = """
import os, sys
from pathlib import Path
from shield_engine.store import Store
from shield_engine.store.library import save_benchmark
store = Store.open(Path(sys.argv[1]))
for number in range(50):
    save_benchmark(store, {"filler": "x" * 500, "number": number})
os._exit(0)
"""


def test_broken_log_is_renamed_aside_and_told(tmp_path: Path) -> None:
    """A write-ahead log that cannot be replayed is kept, the data file opens, a notice says so."""
    path = tmp_path / "shield.duckdb"
    with Store.open(path) as store:
        info = add(store, ["a", "b"])
    subprocess.run([sys.executable, "-c", DIES_WITH_A_LOG, str(path)], check=True)
    log = path.with_name("shield.duckdb.wal")
    content = bytearray(log.read_bytes())
    middle = len(content) // 10  # inside an entry; a broken length would read as a torn tail
    content[middle : middle + 64] = bytes(byte ^ 0x5A for byte in content[middle : middle + 64])
    log.write_bytes(content)
    with Store.open(path) as store:
        assert store.notice is not None
        assert "could not be replayed" in store.notice
        assert store.datasets.all() == [info]
    (kept,) = tmp_path.glob("*.broken-*")
    assert kept.read_bytes() == content


def test_backup_is_a_whole_store_and_overwrites_nothing(tmp_path: Path) -> None:
    """A backup opens as a store with the same rows; an existing file is left alone."""
    with Store.open(tmp_path / "shield.duckdb") as store:
        info = add(store, ["a", "b"])
        target = store.backup(tmp_path / "it's a backup.duckdb")
        with pytest.raises(StoreError, match="exists already"):
            store.backup(target)
    with Store.open(target) as copy:
        assert copy.datasets.all() == [info]


def test_failed_write_keeps_nothing_of_it(tmp_path: Path) -> None:
    """A batch that cannot be written leaves no half of itself."""
    with Store.open(tmp_path / "shield.duckdb") as store:
        info = add(store, ["a"])
        run = store.runs.add(
            info, parts=["heuristic"], rows=1, model_id=None, variant=None, model_sha256=None,
            settings={}, stamp={},
        )  # fmt: skip
        with pytest.raises(StoreError, match="cannot be written"):
            store.runs.append(run.run_id, pa.table({"run_id": [run.run_id], "nonsense": [1]}), 0.1)
        assert store.counts()["results"] == 0
        add(store, ["still", "works"])


def test_a_page_is_a_range_of_rows() -> None:
    """A page starts where asked and ends with the dataset, whatever the limit."""
    with Store.in_memory() as store:
        info = add_dataset(store, [0, 1] * 30)
        assert [row.row_index for row in dataset_page(store, info.dataset_id, offset=55, limit=50)] == [
            55, 56, 57, 58, 59,
        ]  # fmt: skip
        assert len(dataset_page(store, info.dataset_id, offset=3, limit=7)) == 7
        found = dataset_page(store, info.dataset_id, search="TEXT 1", offset=2, limit=3)
        assert [row.row_index for row in found] == [11, 12, 13]
        assert dataset_page(store, info.dataset_id, offset=60) == []


def test_a_clock_set_back_changes_no_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The later correction holds, and the newest dataset, run, policy and benchmark come first."""
    times = iter(datetime(2026, 1, 1) - timedelta(days=day) for day in range(100))
    for module in ("datasets", "runs", "notes", "library"):
        monkeypatch.setattr(f"shield_engine.store.{module}.utc_now", lambda: next(times))
    path = tmp_path / "shield.duckdb"
    with Store.open(path) as store:
        first, second = add(store, ["a"]), add(store, ["b"], "another")
        stored = [
            store.runs.add(
                first,
                parts=["heuristic"],
                rows=1,
                model_id=None,
                variant=None,
                model_sha256=None,
                settings={},
                stamp={},
            ).run_id
            for _ in range(2)
        ]
        store.runs.set_status(stored[0], RunStatus.DONE)
        annotate(store, first.dataset_id, 0, label=0)
        annotate(store, first.dataset_id, 0, label=1)
        for name in ("z", "a"):
            save_policy(store, Policy(name, Task.TOXICITY, Mode.HEURISTIC, 0.5))
        saved = [save_benchmark(store, {"n": n}) for n in range(2)]
        store.plan_rewrite()
    for _ in range(2):
        with Store.open(path) as store:
            assert [info.title for info in store.datasets.all()] == [second.title, first.title]
            assert [run.run_id for run in store.runs.all()] == stored[::-1]
            assert annotation(store, first.dataset_id, 0).label == 1
            assert dataset_annotations(store, first.dataset_id)[0].label == 1
            assert [policy.name for policy in policies(store)] == ["a", "z"]
            assert list(benchmarks(store)) == saved[::-1]
            store.runs.set_status(stored[0], RunStatus.DONE)


def test_a_deleted_policy_version_is_not_given_again(tmp_path: Path) -> None:
    """Version 2 deleted, the next is 3: a report that names version 2 never means another."""
    policy = Policy("strict", Task.TOXICITY, Mode.HEURISTIC, 0.5)
    with Store.open(tmp_path / "shield.duckdb") as store:
        save_policy(store, policy)
        assert save_policy(store, policy).version == 2
        delete_policy(store, "strict", 2)
        delete_policy(store, "strict", 1)
    with Store.open(tmp_path / "shield.duckdb") as store:
        assert save_policy(store, policy).version == 3
        assert save_policy(store, replace(policy, name="other")).version == 1


_NAMES = (
    *('"', "*", "\\", "", 'c\\"d', "a/b", "~", "~1", "$", "$.a", "a.b", "[0]", "a b", "'", "`"),
    *("\n", "\t", "ä", "漢", "😀", "#", "?", "%", "0", "-1", "null", "#-1", "//", "\u200b"),
)


@pytest.mark.parametrize("name", _NAMES)
def test_a_slice_column_may_have_any_name(name: str) -> None:
    """Its values come back and filter whatever its letters mean to JSON or SQL."""
    slices = [json.dumps({name: value, "other": "w"}) for value in ("v", "x")]
    store = Store.in_memory()
    info = store.datasets.add(
        "set", Task.TOXICITY, rows_of(["a", "b"], slices), content_hash="h", source="set.csv"
    )
    assert store.datasets.slices(info.dataset_id, name).tolist() == ["v", "x"]


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text("vwx")))
def test_slices_of_any_names_are_told_apart(values: dict[str, str]) -> None:
    """Each column gives its own value, one that is not there gives nothing."""
    store = Store.in_memory()
    info = store.datasets.add(
        *("set", Task.TOXICITY, rows_of(["a"], [json.dumps(values)])),
        content_hash="h",
        source="set.csv",
    )
    for name, value in values.items():
        assert store.datasets.slices(info.dataset_id, name).tolist() == [value]
        absent = f"{name}!"
        expected = values.get(absent, "")
        assert store.datasets.slices(info.dataset_id, absent).tolist() == [expected]
    store.close()


def test_the_store_is_its_owners_alone(tmp_path: Path) -> None:
    """A new home is open to its owner only, and so is the file, also one of an older program."""
    path = tmp_path / "home" / "shield.duckdb"
    Store.open(path).close()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    Store.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o600

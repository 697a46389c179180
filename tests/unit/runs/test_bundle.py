"""Run bundles: taken in whole, or set aside with their reason while everything else goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shield_engine.errors import ArtifactError, StoreError
from shield_engine.runs.bundle import (
    import_bundle,
    refused_bundles,
    waiting_bundles,
    write_bundle,
)
from shield_engine.settings import file_sha256
from shield_engine.store import Store
from tests.stored_runs import add_dataset, add_run


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A sound bundle of three rows."""
    with Store.in_memory() as store:
        run = add_run(store, add_dataset(store, [0, 1, None]), [0.1, 0.9, None])
        return write_bundle(store, run.run_id, tmp_path / "bundles")


def rewrite(bundle: Path, name: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change one of a bundle's tables and sign it again, as somebody who forges one would."""
    path = bundle / f"{name}.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    changed = change(rows)
    if not isinstance(changed, pa.Table):
        changed = pa.Table.from_pylist(changed or rows, table.schema)
    pq.write_table(changed, path)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][path.name] = file_sha256(path)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def setting(place: int, **values: Any) -> Callable[[list[dict[str, Any]]], None]:
    """Return a change of one row's values."""
    return lambda rows: rows[place].update(values)


MANIFESTS = (
    *("null", "[]", "1", '"x"', "{}", "", "{", "\x00", "[" * 5000, '{"format": 1}'),
    '{"format": 1, "run_id": null, "files": null}',
    '{"format": 1, "files": {}}',
    '{"format": 2, "run_id": "a", "files": {}}',
)
CHANGES: tuple[tuple[str, Any, str], ...] = (
    ("results", setting(0, run_id="ffff"), "another run"),
    ("results", lambda rows: [*rows, rows[0]], "two results"),
    ("results", setting(0, row_index=3), "belongs to no row"),
    ("results", setting(0, row_index=-1), "belongs to no row"),
    ("results", setting(0, model=[float("nan"), 0.5]), "no share"),
    ("results", setting(0, model=[float("inf"), 0.5]), "no share"),
    ("results", setting(0, model=[None, 0.5]), "no share"),
    ("results", setting(0, model=[1.0]), "2 a row"),
    ("results", setting(0, model=[0.2, 0.3, 0.5]), "2 a row"),
    ("results", setting(0, linear=2.0), "no share"),
    ("results", lambda _: pa.table({"x": [1]}), "columns"),
    ("run", setting(0, task="astrology"), "unknown task"),
    ("run", setting(0, task="toxicity"), "unknown task"),
    ("run", setting(0, status="running"), "unknown status"),
    ("run", setting(0, parts=["magic"]), "unknown parts"),
    ("run", setting(0, run_id="../../etc"), "another run"),
    ("run", setting(0, rows=4), "scored 4 of 3"),
    ("run", setting(0, stamp="[]"), "no objects"),
    ("run", setting(0, settings="nonsense"), "JSON"),
    ("run", lambda rows: [*rows, rows[0]], "2 runs"),
    ("dataset", setting(0, task="astrology"), "unknown task"),
    ("dataset", setting(0, rows=2), "not numbered"),
    ("dataset", setting(0, dataset_id="another"), "another dataset"),
    ("dataset_rows", lambda rows: [*rows, rows[0]], "not numbered"),
    ("dataset_rows", setting(0, dataset_id="another"), "another dataset"),
    ("dataset_rows", setting(0, label=7), "a label"),
    ("dataset_rows", setting(0, text="another"), "a text"),
)


def refused(bundle: Path, match: str) -> None:
    """Check that the bundle is set aside with a reason and leaves the store as it was."""
    folder = bundle.parent
    with Store.in_memory() as store:
        before = store.counts()
        with pytest.raises(ArtifactError, match=match):
            import_bundle(store, bundle)
        assert store.counts() == before
    assert waiting_bundles(folder) == []
    ((aside, reason),) = refused_bundles(folder).items()
    assert aside.parent == folder / "refused"
    assert reason


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_malformed_manifest_is_set_aside(bundle: Path, manifest: str) -> None:
    """Whatever JSON, or none, the manifest holds: the bundle waits no more and says why."""
    (bundle / "manifest.json").write_text(manifest)
    refused(bundle, "bundle")


@pytest.mark.parametrize(("table", "change", "reason"), CHANGES)
def test_a_forged_table_is_set_aside(bundle: Path, table: str, change: Any, reason: str) -> None:
    """Tables with the right checksums that are no run over their dataset are not taken in."""
    rewrite(bundle, table, change)
    refused(bundle, reason)


def test_a_sound_bundle_is_taken_in_and_removed(bundle: Path) -> None:
    """All rows arrive; the same run again is left alone."""
    with Store.in_memory() as store:
        run = import_bundle(store, bundle)
        assert (run.rows_done, run.errors) == (3, 1)
    assert not bundle.exists()


def test_a_failed_import_leaves_no_dataset_behind(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dataset, run and results are one transaction; the bundle then waits for another try."""
    with Store.in_memory() as store:
        append = store.append

        def failing(table: str, *rest: Any) -> None:
            if table == "results":
                raise StoreError("no space")
            append(table, *rest)

        monkeypatch.setattr(store, "append", failing)
        with pytest.raises(StoreError, match="no space"):
            import_bundle(store, bundle)
        assert set(store.counts().values()) == {0}
        monkeypatch.undo()
        assert import_bundle(store, bundle).rows_done == 3


def test_an_inner_transaction_is_part_of_the_outer_one() -> None:
    """What an inner one wrote goes with the outer one; the next begins anew."""
    with Store.in_memory() as store:
        with pytest.raises(StoreError, match="nowhere"), store.writing() as cursor:
            _add_and_fail(store, cursor)
        assert store.datasets.all() == []
        add_dataset(store, [0])
        assert len(store.datasets.all()) == 1


def _add_and_fail(store: Store, cursor: duckdb.DuckDBPyConnection) -> None:
    add_dataset(store, [0])
    cursor.execute("SELECT * FROM nowhere")

"""Run bundles: a run as files, written while another process holds the store.

A bundle is a folder of four Parquet files and `manifest.json` with their SHA-256. It appears under
its final name only when it is whole.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from shield_engine.errors import ArtifactError
from shield_engine.settings import file_sha256
from shield_engine.store import RunInfo, Store

__all__ = ["import_bundle", "waiting_bundles", "write_bundle"]

_TABLES = ("dataset", "dataset_rows", "run", "results")
_FORMAT = 1


def write_bundle(store: Store, run_id: str, folder: Path) -> Path:
    """Write a run to `folder/run_id` and return that path."""
    import pyarrow.parquet as pq

    target = folder / run_id
    partial = folder / f".{run_id}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, table in zip(_TABLES, store.runs.tables(run_id), strict=True):
        path = partial / f"{name}.parquet"
        pq.write_table(table, path, compression="zstd")
        digests[path.name] = file_sha256(path)
    manifest = {"format": _FORMAT, "run_id": run_id, "files": digests}
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return partial.rename(target)


def waiting_bundles(folder: Path) -> list[Path]:
    """Return the whole bundles in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    bundles = [path.parent for path in folder.glob("[!.]*/manifest.json")]
    return sorted(bundles, key=lambda path: path.stat().st_mtime)


def import_bundle(store: Store, bundle: Path) -> RunInfo:
    """Take a bundle into the store, then remove it.

    Raises:
        ArtifactError: A file is missing or was altered; the store is unchanged.
    """
    import pyarrow.parquet as pq

    try:
        manifest = json.loads((bundle / "manifest.json").read_text())
        files = manifest["files"]
        if manifest["format"] != _FORMAT:
            raise ArtifactError(f"{bundle} has bundle format {manifest['format']}, not {_FORMAT}")
        for name in _TABLES:
            path = bundle / f"{name}.parquet"
            if file_sha256(path) != files[path.name]:
                raise ArtifactError(f"{path} was altered since it was written; it is not imported")
        tables = [pq.read_table(bundle / f"{name}.parquet") for name in _TABLES]
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{bundle} is not a whole run bundle: {error}") from error
    run = store.runs.add_tables(tables)
    shutil.rmtree(bundle)
    return run

"""What Settings draws: the store and its copies, stored texts, waiting bundles, places and limits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import streamlit as st

from dashboard.state import import_bundles, resources
from dashboard.text import megabytes, plain, visible
from dashboard.widgets import (
    PURGE_WARNING,
    download,
    errors_shown,
    offer_removal,
    pick,
    show_metrics,
    show_table,
)
from shield_engine.runs.bundle import refused_bundles, waiting_bundles

__all__ = ["show_bundles", "show_limits", "show_removal", "show_store"]

_MEANINGS: Mapping[str, str] = {
    "SHIELD_HOME": "Folder of the store, downloaded models and bundles",
    "SHIELD_OFFLINE": "Nothing is downloaded; a missing model is an error",
    "SHIELD_REGISTRY": "Your own model registry, read after the bundled one",
    "SHIELD_WORKERS": "Threads that score rows",
    "SHIELD_MAX_MODEL_MB": "Models beyond this memory are refused",
    "SHIELD_DATA_ROOTS": "Folders this dashboard may read files from",
}
"""What each environment variable sets."""


def _backup_bytes() -> bytes:
    """Return a copy of the whole store as one file's content."""
    with tempfile.TemporaryDirectory(prefix="shield-backup-") as folder:
        return resources().store.backup(Path(folder) / "shield.duckdb").read_bytes()


def show_store() -> None:
    """Show size and counts of the store, and how to copy or compact it."""
    server = resources()
    st.subheader("Store", anchor=False)
    counts = server.store.counts()
    show_metrics(
        ("Size on disk", megabytes(server.store.size_bytes())),
        *((table.replace("_", " ").capitalize(), f"{rows:,}") for table, rows in counts.items()),
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if st.button(
            "Back up into the home folder", key="backup", icon=":material/backup:", type="primary"
        ):
            with errors_shown("No backup was made"):
                folder = server.settings.home / "backups"
                folder.mkdir(parents=True, exist_ok=True)
                name = f"shield-{datetime.now(UTC):%Y%m%dT%H%M%S}.duckdb"
                st.session_state["backup_note"] = str(server.store.backup(folder / name))
        download("Download a backup", _backup_bytes, "shield-backup.duckdb", key="download_backup")
        if st.button(
            "Compact",
            key="compact",
            icon=":material/compress:",
            help="Writes the log into the file. Freed space is used again by later rows.",
        ):
            with errors_shown("The store was not compacted"):
                server.store.compact()
                st.rerun()
    if "backup_note" in st.session_state:
        st.success(plain(f"The store was copied to {st.session_state['backup_note']}."))


def show_removal() -> None:
    """Offer to drop a dataset's prompts, or a dataset."""
    server = resources()
    st.subheader("Stored texts", anchor=False)
    datasets = {info.dataset_id: info for info in server.store.datasets.all()}
    if not datasets:
        st.caption("No dataset is stored, so there is no text to purge.")
        return
    is_busy = bool(server.worker.active())
    titles = {
        name: visible(info.title) + (" (texts purged)" if info.purged else "")
        for name, info in datasets.items()
    }
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = pick("Dataset", titles, key="settings_dataset", width=420)
        offer_removal(
            "Purge its texts",
            PURGE_WARNING,
            "Purge the texts",
            lambda: server.store.datasets.purge_texts(chosen),
            key="settings_purge",
            icon=":material/ink_eraser:",
            disabled=datasets[chosen].purged or is_busy,
            failure="The texts were not purged",
        )
        offer_removal(
            "Delete it",
            "Drops the dataset with its runs and their scores for good.",
            "Delete the dataset",
            lambda: server.store.datasets.delete(chosen),
            key="settings_delete",
            disabled=is_busy,
            failure="The dataset was not deleted",
        )


def show_bundles() -> None:
    """Offer runs that the command line wrote while this process held the store."""
    server = resources()
    st.subheader("Waiting run bundles", anchor=False)
    waiting = waiting_bundles(server.settings.bundles)
    st.caption(
        "`shield eval` writes its run here while the dashboard holds the store. "
        + (f"{len(waiting):,} are waiting." if waiting else "None is waiting.")
    )
    if waiting and st.button("Import them", key="import_bundles", icon=":material/input:"):
        st.session_state["bundle_notes"] = import_bundles(server)
        st.rerun()
    for note in st.session_state.get("bundle_notes", ()):
        st.info(plain(note), icon=":material/info:")
    for refused, reason in refused_bundles(server.settings.bundles).items():
        st.warning(
            plain(f"{refused} was set aside: {reason}. Delete the folder once it is not needed."),
            icon=":material/block:",
        )


def show_limits() -> None:
    """Show where things lie and what limits hold, with what sets each."""
    settings = resources().settings
    st.subheader("Places and limits", anchor=False)
    st.caption("Read once at the start; set the variable and start the dashboard again to change.")
    values = {
        "SHIELD_HOME": settings.home,
        "SHIELD_OFFLINE": "on" if settings.offline else "off",
        "SHIELD_REGISTRY": settings.registry or "bundled only",
        "SHIELD_WORKERS": settings.workers,
        "SHIELD_MAX_MODEL_MB": settings.max_model_mb or "no limit",
        "SHIELD_DATA_ROOTS": ", ".join(map(str, settings.data_roots)) or "none: upload only",
    }
    limits = [
        {"Setting": meaning, "Value": str(values[name]), "Set by": name}
        for name, meaning in _MEANINGS.items()
    ]
    show_table(pd.DataFrame(limits), key="limits", alt="Settings and their variables")
    places = {
        "Store": settings.store_path,
        "Downloaded models": settings.models,
        "Run bundles": settings.bundles,
        "Backups": settings.home / "backups",
    }
    frame = pd.DataFrame({"What": list(places), "Where": [str(path) for path in places.values()]})
    show_table(frame, key="places", alt="Where things lie")

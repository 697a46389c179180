"""Settings: where things lie, how large they are, backup, purge, and the limits in force."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import streamlit as st

from dashboard.state import drop_stale, import_bundles, resources
from dashboard.text import megabytes, plain, visible
from dashboard.widgets import errors_shown, page_title
from shield_engine.runs.bundle import waiting_bundles


def limits_frame(values: Mapping[str, object]) -> pd.DataFrame:
    """Return settings with the environment variable that sets each."""
    meaning = {
        "SHIELD_HOME": "Folder of the store, downloaded models and bundles",
        "SHIELD_OFFLINE": "Nothing is downloaded; a missing model is an error",
        "SHIELD_REGISTRY": "Your own model registry, read after the bundled one",
        "SHIELD_WORKERS": "Threads that score rows",
        "SHIELD_MAX_MODEL_MB": "Models beyond this memory are refused",
        "SHIELD_DATA_ROOTS": "Folders this dashboard may read files from",
    }
    return pd.DataFrame(
        [{"Setting": meaning[name], "Value": str(values[name]), "Set by": name} for name in meaning]
    )


def backup_bytes() -> bytes:
    """Return a copy of the whole store as one file's content."""
    with tempfile.TemporaryDirectory(prefix="shield-backup-") as folder:
        return resources().store.backup(Path(folder) / "shield.duckdb").read_bytes()


def show_store() -> None:
    """Show size and counts of the store, and how to copy or compact it."""
    held = resources()
    st.subheader("Store", anchor=False)
    counts = held.store.counts()
    with st.container(horizontal=True):
        st.metric("Size on disk", megabytes(held.store.size_bytes()), border=True)
        for table, rows in counts.items():
            st.metric(table.replace("_", " ").capitalize(), f"{rows:,}", border=True)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if st.button(
            "Back up into the home folder", key="backup", icon=":material/backup:", type="primary"
        ):
            with errors_shown("No backup was made"):
                folder = held.settings.home / "backups"
                folder.mkdir(parents=True, exist_ok=True)
                name = f"shield-{datetime.now(UTC):%Y%m%dT%H%M%S}.duckdb"
                st.session_state["backup_note"] = str(held.store.backup(folder / name))
        st.download_button(
            "Download a backup",
            backup_bytes,
            file_name="shield-backup.duckdb",
            mime="application/octet-stream",
            key="download_backup",
            icon=":material/download:",
            on_click="ignore",
        )
        if st.button(
            "Compact",
            key="compact",
            icon=":material/compress:",
            help="Writes the log into the file. Freed space is used again by later rows.",
        ):
            with errors_shown("The store was not compacted"):
                held.store.compact()
                st.rerun()
    if "backup_note" in st.session_state:
        st.success(plain(f"The store was copied to {st.session_state['backup_note']}."))


def show_removal() -> None:
    """Offer to drop a dataset's prompts, or a dataset."""
    held = resources()
    st.subheader("Stored texts", anchor=False)
    datasets = {info.dataset_id: info for info in held.store.datasets.all()}
    if not datasets:
        st.caption("No dataset is stored, so there is no text to purge.")
        return
    is_busy = bool(held.worker.active())
    drop_stale("settings_dataset", datasets)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Dataset",
            list(datasets),
            key="settings_dataset",
            format_func=lambda name: (
                visible(datasets[name].title) + (" (texts purged)" if datasets[name].purged else "")
            ),
            width=420,
        )
        with st.popover(
            "Purge its texts",
            disabled=datasets[chosen].purged or is_busy,
            icon=":material/ink_eraser:",
        ):
            st.write(
                "Drops the prompts for good; labels, hashes, scores and figures stay. Their bytes leave "
                "the file when LLM Shield next starts."
            )
            if st.button("Purge the texts", key="settings_purge", type="primary"):
                with errors_shown("The texts were not purged"):
                    held.store.datasets.purge_texts(chosen)
                    st.rerun()
        with st.popover("Delete it", disabled=is_busy, icon=":material/delete:"):
            st.write("Drops the dataset with its runs and their scores for good.")
            if st.button("Delete the dataset", key="settings_delete", type="primary"):
                with errors_shown("The dataset was not deleted"):
                    held.store.datasets.delete(chosen)
                    st.rerun()


def show_bundles() -> None:
    """Offer runs that the command line wrote while this process held the store."""
    held = resources()
    st.subheader("Waiting run bundles", anchor=False)
    waiting = waiting_bundles(held.settings.bundles)
    st.caption(
        "`shield eval` writes its run here while the dashboard holds the store. "
        + (f"{len(waiting):,} are waiting." if waiting else "None is waiting.")
    )
    if waiting and st.button("Import them", key="import_bundles", icon=":material/input:"):
        st.session_state["bundle_notes"] = import_bundles(held)
        st.rerun()
    for note in st.session_state.get("bundle_notes", ()):
        st.info(plain(note), icon=":material/info:")


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
    st.dataframe(limits_frame(values), hide_index=True, alt="Settings and their variables")
    places = {
        "Store": settings.store_path,
        "Downloaded models": settings.models,
        "Run bundles": settings.bundles,
        "Backups": settings.home / "backups",
    }
    st.dataframe(
        pd.DataFrame({"What": list(places), "Where": [str(path) for path in places.values()]}),
        hide_index=True,
        alt="Where things lie",
    )


page_title("Settings", "Everything stays on this machine, in one folder.")
with errors_shown():
    show_store()
    show_removal()
    show_bundles()
    show_limits()

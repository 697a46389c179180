"""What Models draws: the registered files, and what can be done with one."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from dashboard.models.tables import model_facts, models_frame
from dashboard.state import model_place, resources, verify_model
from dashboard.text import megabytes, plain
from dashboard.widgets import errors_shown, show_table
from shield_engine.ml import ModelEntry
from shield_engine.ml.sources import parse_source
from shield_engine.ml.variants import build_fp32

__all__ = ["show_model", "show_models"]

_COLUMN_HELP = {
    "Load time": "Check of the hash, tokenizer and session together, as measured when it was "
    "loaded in this process.",
    "Memory": "Growth of this process while it was loaded.",
}


def show_models(entries: Iterable[ModelEntry]) -> None:
    """List the registered variants with what is known of their files."""
    listed = list(entries)
    places = {entry.sha256: model_place(entry) for entry in listed}
    frame = models_frame(listed, resources().shield.loader.loaded(), places)
    show_table(frame, key="models", columns=_COLUMN_HELP, alt="Registered models")


def show_model(entry: ModelEntry) -> None:
    """Show one variant with what can be done with it."""
    server = resources()
    loader = server.shield.loader
    in_memory = [(info.id, info.variant) for info in loader.loaded()]
    is_loaded = (entry.id, entry.variant) in in_memory
    with st.container(horizontal=True):
        if st.button(
            "Loaded" if is_loaded else "Load and measure",
            key="load_model",
            icon=":material/memory:",
            disabled=is_loaded,
            type="primary",
        ):
            with errors_shown("The model could not be loaded"):
                _load(entry)
        is_checked = st.button("Verify checksums", key="verify", icon=":material/verified_user:")
        if st.button(
            "Unload all models",
            key="unload",
            icon=":material/eject:",
            disabled=not in_memory or bool(server.worker.active()),
            help="Frees their memory. The next scan loads what it needs again. Not while a run "
            "is active.",
        ):
            server.shield.close()
            st.rerun()
    is_built = any(parse_source(source).kind == "built" for source in entry.sources)
    if is_built and not loader.artifacts.is_present(entry):
        st.caption("This file is not shipped: it is the FP16 file with its weights written wide.")
        if st.button("Build it now", key="build", icon=":material/construction:"):
            with errors_shown("The file could not be built"):
                build_fp32(server.shield.registry, loader.artifacts, entry.id)
                st.rerun()
    if is_checked:
        with errors_shown("The files are not the registered ones"):
            path = verify_model(entry)
            st.success(
                plain(f"{path.name} and its tokenizer have the registered SHA-256."),
                icon=":material/verified_user:",
            )
    facts = model_facts(entry)
    show_table(facts, key="model_facts", height="content", alt=f"Facts of {entry.id}")


def _load(entry: ModelEntry) -> None:
    """Load a model, downloading it if it is not here, and show progress."""
    bar = st.progress(0.0, text="Loading")

    def note(done: int, total: int | None) -> None:
        share = min(1.0, done / total) if total else 0.0
        bar.progress(share, text=f"{megabytes(done)} fetched")

    resources().shield.loader.load(entry, note)
    st.rerun()

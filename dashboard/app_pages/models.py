"""Models: what is registered, whether its files are right, and what loading one costs."""

from __future__ import annotations

import streamlit as st

from dashboard.models.tables import model_facts, models_frame
from dashboard.state import model_place, resources, verify_model
from dashboard.text import megabytes, plain
from dashboard.widgets import empty_state, errors_shown, page_title
from shield_engine.ml import ModelEntry
from shield_engine.ml.sources import parse_source
from shield_engine.ml.variants import build_fp32


def load(entry: ModelEntry) -> None:
    """Load a model, downloading it if it is not here, and show progress."""
    bar = st.progress(0.0, text="Loading")

    def note(done: int, total: int | None) -> None:
        share = min(1.0, done / total) if total else 0.0
        bar.progress(share, text=f"{megabytes(done)} fetched")

    held = resources()
    held.shield.loader.load(entry, note)
    st.rerun()


def is_built_here(entry: ModelEntry) -> bool:
    """Return whether the file is made on this machine from another variant."""
    return any(parse_source(source).kind == "built" for source in entry.sources)


def show_model(entry: ModelEntry) -> None:
    """Show one variant with what can be done with it."""
    held = resources()
    is_loaded = any(
        (info.id, info.variant) == (entry.id, entry.variant) for info in held.shield.loader.loaded()
    )
    with st.container(horizontal=True):
        if st.button(
            "Loaded" if is_loaded else "Load and measure",
            key="load_model",
            icon=":material/memory:",
            disabled=is_loaded,
            type="primary",
        ):
            with errors_shown("The model could not be loaded"):
                load(entry)
        is_checked = st.button("Verify checksums", key="verify", icon=":material/verified_user:")
        if st.button(
            "Unload all models",
            key="unload",
            icon=":material/eject:",
            disabled=not held.shield.loader.loaded() or bool(held.worker.active()),
            help="Frees their memory. The next scan loads what it needs again. Not while a run "
            "is active.",
        ):
            held.shield.close()
            st.rerun()
    if is_built_here(entry) and not held.shield.loader.artifacts.is_present(entry):
        st.caption("This file is not shipped: it is the FP16 file with its weights written wide.")
        if st.button("Build it now", key="build", icon=":material/construction:"):
            with errors_shown("The file could not be built"):
                build_fp32(held.shield.registry, held.shield.loader.artifacts, entry.id)
                st.rerun()
    if is_checked:
        with errors_shown("The files are not the registered ones"):
            path = verify_model(entry)
            st.success(
                plain(f"{path.name} and its tokenizer have the registered SHA-256."),
                icon=":material/verified_user:",
            )
    st.dataframe(model_facts(entry), hide_index=True, height="content", alt=f"Facts of {entry.id}")


page_title("Models", "Classifiers of the registry. Any ONNX text classifier can be added.")
held = resources()
entries = {f"{entry.id} {entry.variant.value}": entry for entry in held.shield.registry.entries}
if not entries:
    empty_state(
        "No model is registered",
        "Write a registry of your own and name it in SHIELD_REGISTRY (docs/adding-a-model.md).",
    )
    st.stop()
places = {entry.sha256: model_place(entry) for entry in entries.values()}
st.dataframe(
    models_frame(entries.values(), held.shield.loader.loaded(), places),
    hide_index=True,
    column_config={
        "Load time": st.column_config.TextColumn(
            help="Check of the hash, tokenizer and session together, as measured when it was "
            "loaded in this process."
        ),
        "Memory": st.column_config.TextColumn(help="Growth of this process while it was loaded."),
    },
    alt="Registered models",
)
chosen = st.selectbox("Show model", list(entries), key="shown_model", bind="query-params")
with errors_shown():
    show_model(entries[chosen])
with st.expander("Add a model of your own"):
    st.markdown(
        "Write an entry with its source, SHA-256, labels and tokenizer into a JSON registry, start "
        "the dashboard with `SHIELD_REGISTRY` set to that file, and the model appears here and on "
        "New run. WordPiece, BPE and SentencePiece tokenizers, softmax and sigmoid heads, and any "
        "order of labels work. `docs/adding-a-model.md` walks through an entry; `shield train` "
        "fine-tunes the small encoder on your own labels."
    )

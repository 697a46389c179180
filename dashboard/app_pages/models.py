"""Models: what is registered, whether its files are right, and what loading one costs."""

from __future__ import annotations

import streamlit as st

from dashboard.models.parts import show_model, show_models
from dashboard.state import resources
from dashboard.widgets import empty_state, errors_shown, page_title, pick

page_title("Models", "Classifiers of the registry. Any ONNX text classifier can be added.")
registered = resources().shield.registry.entries
entries = {f"{entry.id} {entry.variant.value}": entry for entry in registered}
if entries:
    show_models(registered)
    chosen = pick("Show model", list(entries), key="shown_model", in_url="shown_model")
    with errors_shown():
        show_model(entries[chosen])
    with st.expander("Add a model of your own"):
        st.markdown(
            "Write an entry with its source, SHA-256, labels and tokenizer into a JSON registry, "
            "start the dashboard with `SHIELD_REGISTRY` set to that file, and the model appears "
            "here and on New run. WordPiece, BPE and SentencePiece tokenizers, softmax and sigmoid "
            "heads, and any order of labels work. `docs/adding-a-model.md` walks through an entry; "
            "`shield train` fine-tunes the small encoder on your own labels."
        )
else:
    empty_state(
        "No model is registered",
        "Write a registry of your own and name it in SHIELD_REGISTRY (docs/adding-a-model.md).",
    )

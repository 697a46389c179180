"""The model registry as tables for the screen. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from dashboard.text import TASK_TITLES, megabytes, visible
from shield_engine.metrics.table import percent
from shield_engine.ml import LoadedInfo, ModelEntry

__all__ = ["model_facts", "models_frame"]


def models_frame(
    entries: Iterable[ModelEntry], loaded: Iterable[LoadedInfo], places: Mapping[str, str]
) -> pd.DataFrame:
    """Return one row a registered variant.

    Args:
        entries: The registry's.
        loaded: What is in memory.
        places: SHA-256 → where the file is.
    """
    in_memory = {(info.id, info.variant): info for info in loaded}
    rows = []
    for entry in entries:
        info = in_memory.get((entry.id, entry.variant))
        rows.append(
            {
                "Model": entry.id,
                "Task": TASK_TITLES[entry.task],
                "Variant": entry.variant.value,
                "Version": entry.version,
                "Licence": entry.licence,
                "Size": megabytes(entry.size_bytes),
                "SHA-256": entry.sha256[:12],
                "File": places.get(entry.sha256, "not looked for"),
                "Load time": f"{info.load_ms:,.0f} ms" if info else "",
                "Memory": f"{info.memory_mb:,.1f} MB" if info else "",
            }
        )
    return pd.DataFrame(rows)


def model_facts(entry: ModelEntry) -> pd.DataFrame:
    """Return what the registry says of one variant, as name and value."""
    facts = {
        "Description": entry.description,
        "Labels, in the model's order": ", ".join(entry.labels),
        "Window": f"{entry.max_length} tokens, {entry.stride} shared with the next",
        "Scores from logits by": entry.post_processing,
        "Balanced thresholds": ", ".join(f"{m} {t:.3g}" for m, t in entry.thresholds.items()),
        **_score_facts(entry),
        "Revision": entry.revision,
        "Licence": entry.licence,
        "SHA-256 of the model": entry.sha256,
        "SHA-256 of the tokenizer": entry.tokenizer_sha256,
        "Sources": ", ".join(entry.sources),
    }
    for name, value in entry.metrics.items():
        facts[f"Model card: {name.replace('_', ' ')}"] = percent(value)
    return pd.DataFrame({"Fact": list(facts), "Value": [visible(v) for v in facts.values()]})


def _score_facts(entry: ModelEntry) -> dict[str, str]:
    facts = {}
    if entry.operating_points:
        facts["Thresholds by policy"] = ", ".join(
            f"{name.replace('_', ' ')} {threshold:.3g}"
            for name, threshold in entry.operating_points.items()
        )
    if share := entry.metrics.get("calibrated_at_risky_share"):
        facts["What a score means"] = (
            f"The chance that the text is risky where {share:.0%} of texts are, judged on rows "
            "from sources the model was not trained on"
        )
    if entry.window_penalty:
        facts["Texts longer than a window"] = (
            f"Riskiest window, less {entry.window_penalty:.3g} log-odds per ln(windows)"
        )
    if entry.output:
        facts["Output of the file"] = entry.output
    return facts

"""What is stored and registered, as tables for the screen. Pure.

Hides column names and rounding.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from dashboard.widgets import clock, duration, megabytes, visible
from shield_engine.config import CacheConfig
from shield_engine.datasets import Sniffed
from shield_engine.metrics.figures import percent
from shield_engine.ml import LoadedInfo, ModelEntry
from shield_engine.store import DatasetInfo, RunInfo, StoredRow
from shield_engine.types import LABELS, Task, Variant

__all__ = [
    "CACHE_PRESETS",
    "PARTS",
    "TASK_TITLES",
    "cache_title",
    "datasets_frame",
    "limits_frame",
    "missing_variants",
    "model_facts",
    "models_frame",
    "preview_frame",
    "rows_frame",
    "run_title",
    "runs_frame",
]

TASK_TITLES: Mapping[Task, str] = {
    Task.PROMPT_INJECTION: "Prompt injection",
    Task.TOXICITY: "Toxicity",
    Task.SENTIMENT: "Sentiment",
}

PARTS: Mapping[str, tuple[str, ...]] = {
    "Rules and model": ("heuristic", "ml"),
    "Rules only": ("heuristic",),
    "Model only": ("ml",),
}
"""What a run may score; from both parts every mode can be derived."""

CACHE_PRESETS: Mapping[str, CacheConfig] = {
    "aggressive": CacheConfig.aggressive(),
    "production": CacheConfig.production(),
    "edge": CacheConfig.edge(),
    "minimal": CacheConfig.minimal(),
    "disabled": CacheConfig.disabled(),
}


# --- datasets -------------------------------------------------------------------------------


def datasets_frame(datasets: Iterable[DatasetInfo]) -> pd.DataFrame:
    """Return one row a dataset version, in the order given."""
    return pd.DataFrame(
        [
            {
                "Dataset": visible(info.name),
                "Version": info.version,
                "Task": TASK_TITLES[info.task],
                "Rows": info.rows,
                "Labelled": info.labelled,
                "Quarantined": info.quarantined,
                "Texts": "purged" if info.purged else "stored",
                "Imported": clock(info.created_at),
                "File": visible(info.source),
            }
            for info in datasets
        ]
    )


def rows_frame(rows: Sequence[StoredRow], task: Task) -> pd.DataFrame:
    """Return a page of a dataset's rows, hidden characters written out."""
    return pd.DataFrame(
        [
            {
                "Row": row.row_index + 1,
                "Id": visible(row.row_id),
                "Text": "(purged)" if row.text is None else visible(row.text),
                "Label": "" if row.label is None else LABELS[task][row.label],
                "Characters": row.chars,
                "Slices": _slices(row.slices),
            }
            for row in rows
        ],
        columns=["Row", "Id", "Text", "Label", "Characters", "Slices"],
    )


def _slices(written: str | None) -> str:
    if not written:
        return ""
    values = json.loads(written)
    return visible(", ".join(f"{name}: {value}" for name, value in values.items() if value))


def preview_frame(sniffed: Sniffed) -> pd.DataFrame:
    """Return a file's first rows as text, lists and objects as JSON."""
    return pd.DataFrame(
        [
            {visible(name): _cell(row.get(name)) for name in sniffed.columns}
            for row in sniffed.preview
        ]
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return visible(json.dumps(value, ensure_ascii=False, default=str))
    return visible(str(value))


# --- runs -----------------------------------------------------------------------------------


def run_title(run: RunInfo, datasets: Mapping[str, str]) -> str:
    """Return what tells a run from its neighbours."""
    dataset = datasets.get(run.dataset_id, run.dataset_id)
    parts = "rules and model" if len(run.parts) == 2 else "model" if run.model_id else "rules"
    return (
        f"{visible(dataset)}, {parts}, {run.rows:,} rows, {run.status}, "
        f"{clock(run.started_at)} ({run.run_id})"
    )


def runs_frame(runs: Iterable[RunInfo], datasets: Mapping[str, str]) -> pd.DataFrame:
    """Return one row a run, in the order given."""
    return pd.DataFrame(
        [
            {
                "Status": run.status,
                "Dataset": visible(datasets.get(run.dataset_id, run.dataset_id)),
                "Rows": f"{run.rows_done:,} / {run.rows:,}",
                "Errors": run.errors,
                "Time": duration(run.seconds),
                "Rows/s": round(run.rows_done / run.seconds) if run.seconds else None,
                "Started": clock(run.started_at),
                "Parts": " + ".join(run.parts),
                "Model": (
                    f"{run.model_id} {run.variant} {(run.model_sha256 or '')[:8]}"
                    if run.model_id
                    else ""
                ),
                "Task": TASK_TITLES[run.task],
                "Run": run.run_id,
            }
            for run in runs
        ]
    )


def cache_title(name: str) -> str:
    """Return a cache preset's name with its size and life."""
    preset = CACHE_PRESETS[name]
    if not preset.size:
        return f"{name}: every row is scored anew"
    return f"{name}: {preset.size:,} results for {duration(preset.ttl_s)}"


# --- models ---------------------------------------------------------------------------------


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


def missing_variants(entries: Iterable[ModelEntry], task: Task) -> list[str]:
    """Return the variants that no registered model of a task has."""
    there = {entry.variant for entry in entries if entry.task is task}
    return [variant.value for variant in Variant if variant not in there]


# --- settings -------------------------------------------------------------------------------


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

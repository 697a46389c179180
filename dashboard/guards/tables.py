"""Models and guards as tables for the screen. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from urllib.parse import urlsplit

import pandas as pd

from dashboard.text import TASK_TITLES, megabytes, milliseconds, visible
from shield_engine.guards import GuardEntry, HttpEntry, OnnxEntry, PythonEntry
from shield_engine.guards.probes import Probe
from shield_engine.metrics.table import percent
from shield_engine.ml import LoadedInfo, MLScore, ModelEntry
from shield_engine.types import LABELS, Mode, Task

__all__ = [
    "Answer",
    "Listed",
    "answers_frame",
    "guard_facts",
    "guard_place",
    "guards_frame",
    "model_facts",
    "probes_frame",
    "scorer_title",
    "variables",
]


@dataclass(frozen=True, slots=True)
class Listed:
    """A model or guard as it is listed.

    Attributes:
        entry: What the registry, the guards' file or a known package declares.
        place: Where it is.
        latency: p50 and p95 of its latest run in milliseconds, if one was timed.
    """

    entry: ModelEntry | GuardEntry
    place: str
    latency: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a guard said of one text when it was tried; a score, or why there is none."""

    kind: str
    text: str
    score: MLScore | None = None
    error: str = ""


def scorer_title(entry: ModelEntry | GuardEntry) -> str:
    """Return what the runs of a model or guard are called by (`RunInfo.scorer`)."""
    return entry.title if isinstance(entry, GuardEntry) else f"{entry.id} {entry.variant.value}"


def guards_frame(listed: Iterable[Listed]) -> pd.DataFrame:
    """Return one row a model or guard: what it is, what it costs, and what it covers."""
    columns = ["Guard", "Task", "Kind", "Version", "Threshold", "Price of 1,000", "p50", "p95"]
    columns += ["Languages", "Longest text", "Where"]
    return pd.DataFrame([_row(item) for item in listed], columns=columns)


def _row(item: Listed) -> dict[str, object]:
    entry = item.entry
    p50, p95 = item.latency or (None, None)
    has_threshold = entry.task is not Task.SENTIMENT  # which takes the most probable class
    row: dict[str, object] = {
        "Guard": visible(scorer_title(entry)),
        "Task": TASK_TITLES[entry.task],
        "Version": visible(entry.version),
        "p50": milliseconds(p50) if p50 is not None else "not run",
        "p95": milliseconds(p95) if p95 is not None else "not run",
        "Where": visible(item.place),
    }
    if isinstance(entry, ModelEntry):
        return row | {
            "Kind": "model",
            "Threshold": entry.thresholds.get(Mode.ML.value) if has_threshold else None,
            "Price of 1,000": 0.0,
            "Languages": "unknown",
            "Longest text": "any, in windows",
        }
    longest = entry.longest_text
    return row | {
        "Kind": entry.kind,
        "Threshold": entry.threshold if has_threshold else None,
        "Price of 1,000": entry.price_per_1000,
        "Languages": visible(", ".join(entry.languages)) or "unknown",
        "Longest text": "unknown" if longest is None else f"{longest:,}",
    }


def guard_place(entry: GuardEntry, declared: Collection[str]) -> str:
    """Return where a guard is: a host, a function, a model, or a package that needs no entry."""
    if entry.name not in declared:
        return "installed package"
    if isinstance(entry, HttpEntry):
        return urlsplit(entry.url).netloc
    if isinstance(entry, PythonEntry):
        return entry.callable
    return f"{entry.model} {entry.variant.value}" if isinstance(entry, OnnxEntry) else entry.kind


def variables(entry: GuardEntry) -> tuple[str, ...]:
    """Return the environment variables that hold a guard's secrets."""
    headers = entry.headers.values() if isinstance(entry, HttpEntry) else ()
    return tuple(value.partition("env:")[2] for value in headers if "env:" in value)


def guard_facts(entry: GuardEntry, unset: Collection[str]) -> pd.DataFrame:
    """Return everything that is declared of a guard, as name and value.

    Args:
        entry: Which guard. Its secrets are names of variables.
        unset: Those of them that are not set.
    """
    facts = {
        field.name: _written(getattr(entry, field.name))
        for field in fields(entry)
        if getattr(entry, field.name) not in (None, "", (), {})
    }
    for name in variables(entry):
        facts[f"variable {name}"] = "not set" if name in unset else "set"
    facts["fingerprint"] = entry.fingerprint
    return _facts_frame(facts)


def _written(value: object) -> str:
    if isinstance(value, Mapping):
        return json.dumps(dict(value), ensure_ascii=False, default=str)
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def answers_frame(answers: Sequence[Answer], task: Task, threshold: float) -> pd.DataFrame:
    """Return what each text was given: score, verdict, time, or the error."""
    rows = []
    for answer in answers:
        row: dict[str, object] = {"Text": answer.kind, "Asked": visible(answer.text)}
        if answer.score is None:
            row |= {"Verdict": "error", "Error": visible(answer.error)}
        else:
            row |= {
                "Error": "",
                "Score": answer.score.score,
                "Verdict": _verdict(answer.score, task, threshold),
                "Time": milliseconds(answer.score.tokenize_ms + answer.score.infer_ms),
            }
        rows.append(row)
    return pd.DataFrame(rows, columns=["Text", "Score", "Verdict", "Time", "Error", "Asked"])


def _verdict(score: MLScore, task: Task, threshold: float) -> str:
    """Return the class that is given: the most probable of three, or that of the threshold."""
    labels, probabilities = LABELS[task], score.probabilities
    if len(labels) > 2:
        return labels[max(range(len(labels)), key=probabilities.__getitem__)]
    return labels[score.score >= threshold]


def probes_frame(probes: Iterable[Probe]) -> pd.DataFrame:
    """Return what was tried on a guard, with the evidence."""
    words = {True: "pass", False: "fail", None: "-"}
    return pd.DataFrame(
        [
            {
                "Result": words[probe.passed],
                "What should hold": probe.title,
                "Evidence": visible(probe.evidence),
            }
            for probe in probes
        ]
    )


def model_facts(entry: ModelEntry, place: str, loaded: LoadedInfo | None) -> pd.DataFrame:
    """Return what is known of one variant of a model, as name and value."""
    facts = {
        "Description": entry.description,
        "File": f"{place}, {megabytes(entry.size_bytes)}",
        "Load time": f"{loaded.load_ms:,.0f} ms" if loaded else "",
        "Memory": f"{loaded.memory_mb:,.1f} MB" if loaded else "",
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
    return _facts_frame(facts)


def _facts_frame(facts: Mapping[str, str]) -> pd.DataFrame:
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

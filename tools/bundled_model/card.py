"""Reproduce the figures of the model card from the committed files.

Runs `shield suite` over the evaluation sets, then INT8 against FP32 on all their rows, twelve
disguises, and attacks inside documents of 4,000 words, and writes the tables between the marks of
the card. Nothing of the sets themselves is written anywhere. About 25 minutes on two cores.
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shield_engine.config import MLConfig
from shield_engine.engine import Shield
from shield_engine.ml.variants import build_fp32
from shield_engine.reports.markdown import replace_figures
from shield_engine.settings import bundled
from shield_engine.statistics.intervals import wilson
from shield_engine.statistics.resampling import paired_difference
from shield_engine.statistics.tests import pair_p_value
from shield_engine.training.compose import DISGUISES, insert, is_kept
from shield_engine.types import LABELS, Task, Variant

__all__ = ["write_card"]

FOLDERS = {
    "injection": Task.PROMPT_INJECTION,
    "toxicity": Task.TOXICITY,
    "sentiment": Task.SENTIMENT,
}
THRESHOLD = 0.5
AREAS = frozenset({"roc_auc", "length_only_auc"})
LONG_WORDS, LONG_DOCUMENTS = 4_000, 300


@dataclass(frozen=True, slots=True)
class EvalSet:
    """Rows of one evaluation file; `labels` are class indexes, -1 for a label the task lacks."""

    name: str
    task: Task
    rows: list[dict[str, Any]]
    labels: np.ndarray[Any, Any]

    def texts(self) -> list[str]:
        """Return the texts."""
        return [row["text"] for row in self.rows]


def read_sets(folder: Path) -> list[EvalSet]:
    """Read every evaluation file."""
    sets = []
    for name, task in FOLDERS.items():
        index = {label: number for number, label in enumerate(LABELS[task])} | {0: 0, 1: 1}
        for path in sorted((folder / name).glob("*.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                rows = [json.loads(line) for line in lines]
            labels = np.array([index.get(row["label"], -1) for row in rows])
            sets.append(EvalSet(path.name.removesuffix(".jsonl.gz"), task, rows, labels))
    return sets


def scorer(shield: Shield, task: Task, variant: Variant) -> Callable[[str], tuple[float, ...]]:
    """Return what gives a text's probabilities, as a scanner would ask for them."""
    part = shield.model_part(shield.entry_for(task, MLConfig.evaluation(variant)))
    return lambda text: part.infer(text).probabilities


def score(
    shield: Shield, task: Task, variant: Variant, texts: Iterable[str]
) -> np.ndarray[Any, Any]:
    """Return probabilities, shape (n, classes)."""
    ask = scorer(shield, task, variant)
    with ThreadPoolExecutor(2) as pool:
        return np.array(list(pool.map(ask, texts)))


def verdicts(probabilities: np.ndarray[Any, Any], task: Task) -> np.ndarray[Any, Any]:
    """Return the class each text gets at the threshold, or by the most probable class."""
    if task is Task.SENTIMENT:
        return np.asarray(probabilities.argmax(1))
    return np.asarray(probabilities[:, 1] >= THRESHOLD, dtype=int)


def flagged(shield: Shield, texts: Sequence[str]) -> int:
    """Return how many texts the injection model flags."""
    task = Task.PROMPT_INJECTION
    return int(verdicts(score(shield, task, Variant.INT8, texts), task).sum())


def percent(share: float) -> str:
    """Return a share as the card writes it."""
    return f"{100 * share:.1f}"


def with_interval(hits: int, n: int) -> str:
    """Return a share with its 95% Wilson interval."""
    interval = wilson(hits, n)
    return f"{percent(hits / n)} ({percent(interval.low)}-{percent(interval.high)})"


def figure(metrics: dict[str, Any], name: str) -> str:
    """Return one figure of `shield suite --json` with its interval; areas are no percentages."""
    value, low, high = (metrics[name][key] for key in ("value", "low", "high"))
    if value is None:
        return "-"
    scale, digits = (1, 3) if name in AREAS else (100, 1)
    text = f"{value * scale:.{digits}f}"
    return text if low is None else f"{text} ({low * scale:.{digits}f}-{high * scale:.{digits}f})"


def suite_report(folder: Path) -> dict[str, Any]:
    """Run `shield suite` on the folder's files and return its JSON."""
    items = [
        {"path": str(path.resolve()), "task": task.value, "text": "text", "label": "label"}
        for name, task in FOLDERS.items()
        for path in sorted((folder / name).glob("*.jsonl.gz"))
    ]
    with tempfile.TemporaryDirectory() as scratch:
        suite, out = Path(scratch) / "suite.json", Path(scratch) / "out.json"
        suite.write_text(json.dumps({"datasets": items}))
        start = "from shield_engine.cli import main; main()"
        command = [sys.executable, "-c", start, "suite", str(suite)]
        options = ["--modes", "heuristic,ml,hybrid", "--json", str(out), "--no-store"]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
        report: dict[str, Any] = json.loads(out.read_text())
    return report


def table(header: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table; the header names its columns with ` | ` between."""
    columns = header.count("|") + 1
    return [
        f"| {header} |",
        "|" + " --- |" * columns,
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def suite_tables(report: dict[str, Any]) -> list[str]:
    """Return a table per task, and the rules alone."""

    def name(item: dict[str, Any]) -> str:
        return Path(item["path"]).name.removesuffix(".jsonl.gz")

    def of(task: str) -> list[dict[str, Any]]:
        return [item for item in report["datasets"] if item["task"] == task]

    columns = {
        "prompt_injection": "accuracy recall fpr f1 roc_auc recall_at_1pct_fpr length_only_auc",
        "toxicity": "accuracy macro_f1 recall fpr roc_auc pr_auc recall_at_1pct_fpr length_only_auc",
        "sentiment": "accuracy macro_f1 macro_recall",
    }
    lines = []
    for task, names in columns.items():
        wanted = names.split()
        rows = [
            [name(item), f"{item['rows']:,}"]
            + [figure(item["modes"]["ml"]["metrics"], metric) for metric in wanted]
            for item in of(task)
        ]
        titles = " | ".join(metric.replace("_", " ") for metric in wanted)
        lines += table(f"{task.replace('_', ' ')} | n | {titles}", rows)
    lines += ["The rules alone (mode `heuristic`) on the same rows:", ""]
    rules = []
    for item in of("prompt_injection") + of("toxicity"):
        metrics = item["modes"]["heuristic"]["metrics"]
        rules.append([name(item), *(figure(metrics, m) for m in ("accuracy", "recall", "fpr"))])
    lines += table("set | accuracy | recall | FPR", rules)
    lines += ["Hybrid at its default bands, beside the model alone:", ""]
    both = []
    for item in of("prompt_injection") + of("toxicity"):
        hybrid, model = item["modes"]["hybrid"], item["modes"]["ml"]
        n = hybrid["n"]
        changes = [
            "-"
            if hybrid["metrics"][m]["value"] is None or model["metrics"][m]["value"] is None
            else f"{100 * (hybrid['metrics'][m]['value'] - model['metrics'][m]['value']):+.1f}"
            for m in ("recall", "fpr", "accuracy")
        ]
        both.append([name(item), f"{n:,}", with_interval(hybrid["model_asked"], n), *changes])
    header = "set | n | asks the model, % | recall, points | FPR, points | accuracy, points"
    return lines + table(header, both)


def _family(group: str) -> str:
    """Return the medium of a BIPIA row, such as `code` or `email, clean`."""
    family = group.partition("/")[0]
    return f"{family}, clean" if group.endswith("/clean") else family


def slice_row(name: str, group: str, right: np.ndarray[Any, Any]) -> list[str]:
    """Return a set's slice, its rows and the share of them that are judged rightly."""
    return [name, group, f"{len(right):,}", with_interval(int(right.sum()), len(right))]


def slice_tables(sets: Sequence[EvalSet], classes: dict[str, np.ndarray[Any, Any]]) -> list[str]:
    """Return accuracy by `group`, and without the rows that PIGuard chose its checkpoint on."""
    rows = []
    for evaluated in sets:
        right = classes[evaluated.name] == evaluated.labels
        groups = [str(row.get("group") or "") for row in evaluated.rows]
        if "bipia" in evaluated.name:
            groups = [_family(group) for group in groups]
        if evaluated.name == "hatecheck_3728":
            groups = ["hateful" if label else "non-hateful" for label in evaluated.labels]
        for group in sorted(set(groups) - {""}):
            own = np.array([g == group for g in groups])
            rows.append(slice_row(evaluated.name, group, right[own]))
        unseen = np.array([not row.get("piguard_valid") for row in evaluated.rows])
        if not unseen.all():
            rows.append(slice_row(evaluated.name, "without `piguard_valid`", right[unseen]))
    return ["Slices:", "", *table("set | slice | n | accuracy", rows)]


def mean_of_three(sets: Sequence[EvalSet], classes: dict[str, np.ndarray[Any, Any]]) -> list[str]:
    """Return the headline of over-defence and bare attacks, with a bootstrap interval."""
    draw = np.random.default_rng(7)
    parts = []
    for name in ("notinject_339", "piguard_wildguard_benign", "piguard_bipia_attack_strings"):
        evaluated = next(item for item in sets if item.name == name)
        right = (classes[name] == evaluated.labels).astype(float)
        groups = np.array([str(row.get("group") or "")[:4] for row in evaluated.rows])
        kinds = sorted(set(groups)) if name.endswith("strings") else [""]
        columns = [right[groups == kind] if kind else right for kind in kinds]
        drawn = np.mean(
            [c[draw.integers(0, len(c), (2_000, len(c)))].mean(1) for c in columns], axis=0
        )
        parts.append((name, float(np.mean([c.mean() for c in columns])), drawn))
    total = np.mean([drawn for *_, drawn in parts], axis=0)
    value = float(np.mean([value for _, value, _ in parts]))
    low, high = np.percentile(total, [2.5, 97.5])
    texts = ", ".join(f"{name} {percent(v)}" for name, v, _ in parts)
    return [
        f"Mean of three (NotInject, WildGuard-benign, BIPIA strings as the mean of text and code): "
        f"**{percent(value)}** ({percent(low)}-{percent(high)}, bootstrap): {texts}.",
        "",
    ]


def parity_tables(
    sets: Sequence[EvalSet],
    int8: dict[str, np.ndarray[Any, Any]],
    fp32: dict[str, np.ndarray[Any, Any]],
) -> list[str]:
    """Return INT8 against FP32: flips and losses, pooled and by set."""
    rows, pooled = [], {task: ([], []) for task in Task}  # type: ignore[var-annotated]
    flips: dict[Task, list[bool]] = {task: [] for task in Task}
    for evaluated in sets:
        narrow, wide = (
            verdicts(int8[evaluated.name], evaluated.task),
            verdicts(fp32[evaluated.name], evaluated.task),
        )
        known = evaluated.labels >= 0
        right = (wide == evaluated.labels)[known], (narrow == evaluated.labels)[known]
        flips[evaluated.task] += (narrow != wide).tolist()
        for column, values in zip(pooled[evaluated.task], right, strict=True):
            column.extend(values.tolist())
        change = np.abs(int8[evaluated.name] - fp32[evaluated.name]).max(1)
        rows.append(
            [
                evaluated.name,
                f"{len(narrow):,}",
                percent(float(np.mean(narrow != wide))),
                f"{100 * (right[1].mean() - right[0].mean()):+.2f}",
                f"{change.mean():.4f}",
                f"{change.max():.2f}",
            ]
        )
    total = []
    groups = [(task.value.replace("_", " "), [task]) for task in Task] + [("all", list(Task))]
    for name, tasks in groups:
        a = [value for task in tasks for value in pooled[task][0]]
        b = [value for task in tasks for value in pooled[task][1]]
        flipped = [value for task in tasks for value in flips[task]]
        paired = paired_difference(a, b)
        p_value = pair_p_value(np.array(a), np.array(b), None)
        low, high = (100 * (paired.low or 0.0), 100 * (paired.high or 0.0))
        total.append(
            [
                name,
                f"{len(flipped):,}",
                with_interval(sum(flipped), len(flipped)),
                f"{100 * (paired.value or 0.0):+.2f} ({low:+.2f} to {high:+.2f})",
                f"{p_value:.3f}",
            ]
        )
    return [
        "INT8 against FP32 (FP16 gives the scores of FP32 to the last bit):",
        "",
        *table(
            "rows | n | verdicts that flip, % | accuracy, points (95% interval) | McNemar p", total
        ),
        *table("set | n | flips, % | accuracy, points | mean score change | largest", rows),
    ]


def disguise_table(shield: Shield, sets: Sequence[EvalSet]) -> list[str]:
    """Return recall on short attacks as they are and in twelve disguises, and false alarms."""
    draw = random.Random(7)  # noqa: S311 - a sample is no secret
    names = {"deepset_prompt_injections", "neuralchemy_core_test", "s_labs_test", "jackhhao_test"}
    pool: dict[int, list[str]] = {0: [], 1: []}
    for evaluated in sets:
        if evaluated.name in names:
            for row, label in zip(evaluated.rows, evaluated.labels, strict=True):
                if 20 <= len(row["text"]) <= 300 and row["text"].isascii():
                    pool[int(label)].append(row["text"])
    chosen = {label: draw.sample(texts, min(400, len(texts))) for label, texts in pool.items()}
    rows = []
    plain: dict[int, int] = {}
    n = len(chosen[1])
    for name, disguise in {"none": lambda text, _: text, **DISGUISES}.items():
        hits = {
            label: flagged(shield, [disguise(text, draw) for text in texts])
            for label, texts in chosen.items()
        }
        plain = plain or hits
        change = f"{100 * (hits[1] - plain[1]) / n:+.1f}"
        alarms = with_interval(hits[0], len(chosen[0]))
        rows.append([name.replace("_", " "), with_interval(hits[1], n), change, alarms])
    return [
        f"Disguises, on {len(chosen[1])} attacks and {len(chosen[0])} harmless texts of up to 300 characters:",
        "",
        *table("disguise | recall | change, points | false alarms", rows),
    ]


LATIN = frozenset(
    [
        "cs",
        "da",
        "de",
        "es",
        "fi",
        "fr",
        "hu",
        "id",
        "it",
        "nl",
        "no",
        "pl",
        "pt",
        "ro",
        "sv",
        "tr",
        "vi",
    ]
)


def language_table(shield: Shield) -> list[str]:
    """Return recall and false alarms by group of languages on the project's held-out texts."""
    groups: dict[str, dict[int, list[str]]] = {}
    for name in ("attack_direct", "benign_short"):
        path = bundled("datasets", "training", f"{name}.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if not is_kept(row["text"]):
                continue
            language = row["language"]
            group = "other Latin script" if language in LATIN else "other scripts"
            group = "English" if language == "en" else group
            groups.setdefault(group, {0: [], 1: []})[row["label"]].append(row["text"])
    rows = []
    for group, texts in sorted(groups.items()):
        cells = [group]
        for label in (1, 0):
            n = len(texts[label])
            cells += [str(n), with_interval(flagged(shield, texts[label]), n)]
        rows.append(cells)
    return [
        "Languages, on the project's own direct attacks and harmless texts that were held out:",
        "",
        *table("language | attacks | recall | harmless | false alarms", rows),
    ]


def long_table(shield: Shield, sets: Sequence[EvalSet]) -> list[str]:
    """Return recall and false alarms on documents of 4,000 words."""
    draw = random.Random(11)  # noqa: S311 - a sample is no secret
    prose = {
        evaluated.name: [" ".join(text.split()) for text in evaluated.texts()]
        for evaluated in sets
        if evaluated.name
        in {"sst2_binary", "sst5_as3", "tweeteval_sentiment_valtest", "glue_sst2_dev"}
    }
    contexts = next(evaluated for evaluated in sets if evaluated.name == "bipia_indirect")
    prose["bipia_indirect"] = [
        row["text"] for row, label in zip(contexts.rows, contexts.labels, strict=True) if not label
    ]

    def document() -> str:
        texts, words, parts = draw.choice(list(prose.values())), 0, []
        while words < LONG_WORDS:
            parts.append(draw.choice(texts))
            words += len(parts[-1].split())
        return "\n".join(parts)

    clean = [document() for _ in range(LONG_DOCUMENTS)]
    alarms = flagged(shield, clean)
    attacks = [
        row["text"]
        for evaluated in sets
        if evaluated.name in {"deepset_prompt_injections", "neuralchemy_core_test", "jackhhao_test"}
        for row, label in zip(evaluated.rows, evaluated.labels, strict=True)
        if label == 1
    ]
    attacks = draw.sample(attacks, 200)
    alone = flagged(shield, attacks)
    hidden = [insert(attack, draw.choice(clean), draw) for attack in attacks]
    inside = flagged(shield, hidden)
    rows = [
        [what, str(n), with_interval(hits, n)]
        for what, hits, n in (
            ("clean documents", alarms, len(clean)),
            ("attacks alone", alone, len(attacks)),
            ("the same attacks inside a document", inside, len(hidden)),
        )
    ]
    return [f"Documents of {LONG_WORDS:,} words:", "", *table("what | n | flagged", rows)]


def write_card(folder: Path, card: Path | None) -> None:
    """Write the figures on the test sets of `folder` into the card, or print them without one."""
    sets = read_sets(folder)
    shield = Shield.create()
    for entry in shield.registry.find(variant=Variant.FP32):
        build_fp32(shield.registry, shield.loader.artifacts, entry.id)
    int8 = {rows.name: score(shield, rows.task, Variant.INT8, rows.texts()) for rows in sets}
    fp32 = {rows.name: score(shield, rows.task, Variant.FP32, rows.texts()) for rows in sets}
    classes = {rows.name: verdicts(int8[rows.name], rows.task) for rows in sets}
    lines = [
        "Mode `ml`, INT8, threshold 0.5 (sentiment: the most probable class); 95% intervals in "
        "brackets; percent but for areas under curves.",
        "",
        *mean_of_three(sets, classes),
        *suite_tables(suite_report(folder)),
        *slice_tables(sets, classes),
        *parity_tables(sets, int8, fp32),
        *disguise_table(shield, sets),
        *language_table(shield),
        *long_table(shield, sets),
    ]
    text = "\n".join(lines)
    if card is None:
        sys.stdout.write(text)
    else:
        replace_figures(card, text)

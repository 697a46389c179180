"""Make a model from a user's rows, going on from a bundled one without forgetting what it knew.

Beside the user's rows the new model sees texts of the project's own with the old model's scores as
labels (learning without forgetting, Li and Hoiem 2016), so nothing third-party has to be at hand.
Before and after are compared on rows that neither was trained on, with paired tests, by the INT8
files that would run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.errors import TrainingError, UnknownNameError
from shield_engine.ml import ArtifactStore, InferenceEngine, ModelEntry, ModelLoader, ModelRegistry
from shield_engine.settings import bundled
from shield_engine.statistics.intervals import wilson
from shield_engine.statistics.tests import holm, mcnemar_exact
from shield_engine.training.compose import compose_injection, compose_toxicity
from shield_engine.training.export import (
    KEPT_WIDE,
    export_heads,
    quantize,
    read_weights,
    store_half,
)
from shield_engine.training.network import (
    Examples,
    FitSettings,
    Tokens,
    encoder_folder,
    fit,
    import_training_packages,
    new_network,
    predict,
)
from shield_engine.training.recipe import ENCODER, Recipe
from shield_engine.training.rows import TrainingRows, read_rows, split_rows
from shield_engine.types import LABELS, Task, Variant

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Comparison", "TrainingReport", "balanced_shift", "train"]

logger = logging.getLogger(__name__)

_INT8, _FP16 = "model.int8.onnx", "model.fp16.onnx"
_SAMPLE_ROWS = 200  # they show how wide the inputs of the matrices are


@dataclass(frozen=True, slots=True)
class Comparison:
    """Old and new model on the same rows.

    Attributes:
        name: What the rows are.
        n: Rows.
        before: Accuracy of the old model at threshold .5 (or by the most probable class).
        after: Accuracy of the new one.
        after_low: Lower end of its 95% Wilson interval.
        after_high: Upper end.
        only_before: Rows that only the old model has right.
        only_after: Rows that only the new one has right.
        p_value: Exact McNemar test, two-sided, Holm-adjusted over the comparisons of the report.
    """

    name: str
    n: int
    before: float
    after: float
    after_low: float
    after_high: float
    only_before: int
    only_after: int
    p_value: float

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `undecided` at 95% confidence."""
        if self.p_value > 0.05:
            return "undecided"
        return "better" if self.only_after > self.only_before else "worse"


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training run made and how it did on rows it never saw.

    Attributes:
        model_path: The INT8 file.
        half_model_path: The FP16 file, which a later run can go on from.
        tokenizer_path: The tokenizer beside them.
        registry_path: A registry with both, for `SHIELD_REGISTRY`.
        model_id: Id of the new model.
        started_from: Id of the model it went on from, or `encoder`.
        recipe: Hyper-parameters.
        rows: Rows trained on.
        validation_rows: Rows held out.
        replay_rows: Texts of the project's own that were replayed.
        seconds: Wall time.
        sources: Rows trained on, by source.
        validation: Accuracy, balanced accuracy and macro F1 on the held-out rows, FP32.
        comparisons: Old against new; empty where there is no old model.
        bias_shift: What was taken from each logit; zeros where a model was gone on from.
    """

    model_path: Path
    half_model_path: Path
    tokenizer_path: Path
    registry_path: Path
    model_id: str
    started_from: str
    recipe: Recipe
    rows: int
    validation_rows: int
    replay_rows: int
    seconds: float
    sources: dict[str, int]
    validation: dict[str, float] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    bias_shift: tuple[float, ...] = ()


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    registry: ModelRegistry | None = None,
    artifacts: ArtifactStore | None = None,
) -> TrainingReport:
    """Fine-tune on `data` and write model, card, report and registry entry to `out`.

    A run that was cut off goes on where it stopped when it is called again with the same arguments.

    Args:
        recipe: Hyper-parameters; `Recipe.for_task` gives sensible ones.
        data: JSON Lines or CSV (by its name; optionally gzip) with `text`, `label` and, if present,
            `source`.
        out: A folder that does not hold a model yet; nothing is ever overwritten.
        registry: Where the model to go on from is found; the bundled one by default.
        artifacts: Where its files come from; bundled files only by default.

    Raises:
        DatasetError: A line is not JSON or CSV, or a label is not one of the task's.
        TrainingError: The extra `[train]` is missing, `out` is taken, a class is absent, or the
            model to go on from cannot be.
        UnknownNameError: The registry has no such model.
    """
    torch, _ = import_training_packages()
    if (out / _INT8).exists():
        raise TrainingError(f"{out} already holds a model; name another folder with --out")
    rows = read_rows(data, recipe.task)
    training, held_out = split_rows(
        rows,
        recipe.task,
        sources=recipe.validation_sources,
        share=recipe.validation_share,
        seed=recipe.seed,
    )
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    registry = registry or ModelRegistry.load()
    artifacts = artifacts or ArtifactStore(out / "cache", offline=True)
    parent = None if recipe.start == ENCODER else _parent(registry, recipe)
    torch.manual_seed(recipe.seed)
    head = recipe.task.value
    network = new_network({head: len(LABELS[recipe.task])})
    if parent is not None:
        _load(network, read_weights(artifacts.fetch(parent).model), parent)
    tokenizer_path = out / "tokenizer.json"
    shutil.copyfile(encoder_folder() / "tokenizer.json", tokenizer_path)
    tokens = Tokens(tokenizer_path, recipe.max_length)
    examples = {
        head: Examples(tokens.encode(training.texts), training.labels.tolist(), recipe.epochs)
    }
    replayed = _replay_texts(recipe, len(training.texts)) if parent else []
    if replayed:
        ids = tokens.encode(replayed)
        chances = _softmax(predict(network, ids, head))
        examples[f"{head}#replay"] = Examples(ids, chances.tolist(), recipe.epochs)
    settings = FitSettings(
        **{name: getattr(recipe, name) for name in FitSettings.__dataclass_fields__}
    )
    fit(network, examples, settings, checkpoint=out / "checkpoint.pt")
    logits = predict(network, tokens.encode(held_out.texts), head)
    shift = np.zeros(logits.shape[1], dtype=np.float32)
    if parent is None:
        shift = balanced_shift(logits, held_out.labels)
        with torch.no_grad():
            network.heads[head].bias -= torch.from_numpy(shift)
        logits -= shift
    files = _export(network, recipe.task, out, examples[head].ids[:_SAMPLE_ROWS])
    entries = _entries(recipe, files, tokenizer_path, parent, out)
    registry_path = out / "registry.json"
    registry_path.write_text(json.dumps({"schema": 1, "models": entries}, indent=2) + "\n")
    report = TrainingReport(
        model_path=files[Variant.INT8],
        half_model_path=files[Variant.FP16],
        tokenizer_path=tokenizer_path,
        registry_path=registry_path,
        model_id=str(entries[0]["id"]),
        started_from=parent.id if parent else ENCODER,
        recipe=recipe,
        rows=len(training.texts),
        validation_rows=len(held_out.texts),
        replay_rows=len(replayed),
        seconds=time.perf_counter() - started,
        sources=dict(sorted(Counter(training.sources).items())),
        validation=_judge(logits, held_out.labels),
        bias_shift=tuple(map(float, shift)),
    )
    if parent is not None:
        new = ModelRegistry.load(registry_path).get(report.model_id, Variant.INT8)
        old = _variant(registry, parent.id, Variant.INT8) or parent
        loader = ModelLoader(registry, artifacts)
        report = replace(report, comparisons=_compare(loader, old, new, held_out))
    _write_report(report, out)
    return report


def balanced_shift(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what to take from each logit so that .5 is the best threshold on these rows.

    Best means the highest balanced accuracy. Training pools have other class shares than traffic
    and teach a model to be too sure; with the shift, rules and model share one threshold. Three
    classes are judged by argmax and stay as they are.
    """
    if logits.shape[1] != 2:
        return np.zeros(logits.shape[1], dtype=np.float32)
    margin = (logits[:, 1] - logits[:, 0]).astype(np.float64)
    candidates = np.linspace(-6.0, 6.0, 241)  # log-odds; .05 apart is finer than the rows resolve
    recall = np.array([(margin[labels == 1] >= c).mean() for c in candidates])
    fpr = np.array([(margin[labels == 0] >= c).mean() for c in candidates])
    best = recall - fpr
    # The middle of the best stretch: its edges are accidents of single rows.
    chosen = candidates[best >= best.max() - 1e-12].mean()
    return np.array([0.0, chosen], dtype=np.float32)


def _parent(registry: ModelRegistry, recipe: Recipe) -> ModelEntry:
    """Return the FP16 entry of the model to go on from."""
    model_id = recipe.start or registry.default_for(recipe.task).id
    task = registry.get(model_id).task
    if task is not recipe.task:
        raise TrainingError(f"model {model_id} is for {task.value}, not for {recipe.task.value}")
    entry = _variant(registry, model_id, Variant.FP16)
    if entry is None:
        raise TrainingError(
            f"model {model_id} has no FP16 variant to go on from; name another with --start, "
            f"or --start {ENCODER}"
        )
    return entry


def _variant(registry: ModelRegistry, model_id: str, variant: Variant) -> ModelEntry | None:
    try:
        return registry.get(model_id, variant)
    except UnknownNameError:
        return None


def _load(network: Any, weights: Mapping[str, NDArray[Any]], parent: ModelEntry) -> None:
    import torch

    state = network.state_dict()
    wanted = {name for name in state if not name.startswith("encoder.pooler")}
    missing = sorted(
        name
        for name in wanted
        if name not in weights or tuple(weights[name].shape) != tuple(state[name].shape)
    )
    if missing:
        raise TrainingError(
            f"{parent.id} was not made by this trainer ({missing[0]} is missing or of another "
            f"shape), so nothing can go on from it; use --start {ENCODER}"
        )
    with torch.no_grad():
        for name in wanted:
            state[name].copy_(torch.from_numpy(np.ascontiguousarray(weights[name])))


def _replay_texts(recipe: Recipe, rows: int) -> list[str]:
    """Return texts of the project's own, a mix of the task's usual ones, without their labels."""
    folder = bundled("datasets", "training")
    composed = [row.text for row in compose_injection(folder, seed=recipe.seed)]
    if recipe.task is not Task.PROMPT_INJECTION:
        composed += [row.text for row in compose_toxicity(folder, seed=recipe.seed)]
    draw = random.Random(recipe.seed)  # noqa: S311 - a sample is no secret
    return draw.sample(composed, min(len(composed), max(200, round(rows * recipe.replay))))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return chances


def _export(
    network: Any, task: Task, out: Path, sample: Sequence[Sequence[int]]
) -> dict[Variant, Path]:
    wide = export_heads(network, [task], out / "model.fp32.onnx")
    # The report's folder is complete only once the INT8 file is there: it is written last.
    half = store_half(wide, out / _FP16)
    int8 = quantize(wide, out / _INT8, keep=KEPT_WIDE, sample=sample)
    wide.unlink()
    return {Variant.INT8: int8, Variant.FP16: half}


def _entries(
    recipe: Recipe,
    files: Mapping[Variant, Path],
    tokenizer: Path,
    parent: ModelEntry | None,
    out: Path,
) -> list[dict[str, Any]]:
    digest = hashlib.sha256(files[Variant.INT8].read_bytes()).hexdigest()
    common = {
        "task": recipe.task.value,
        "labels": list(LABELS[recipe.task]),
        "output": recipe.task.value,
        "revision": f"{digest[:12]} seed {recipe.seed}",
        "version": "1.0",
        "licence": parent.licence if parent else "Apache-2.0",
        "max_length": parent.max_length if parent else 256,
        "stride": parent.stride if parent else 64,
        "tokenizer_sources": [tokenizer.name],
        "tokenizer_sha256": hashlib.sha256(tokenizer.read_bytes()).hexdigest(),
        "post_processing": "softmax",
        "thresholds": dict(parent.thresholds) if parent else {"ml": 0.5},
        "window_penalty": parent.window_penalty if parent else 0.0,
        "description": f"Made from your rows; went on from {parent.id if parent else ENCODER}.",
    }
    return [
        {
            "id": f"{recipe.task.value.replace('_', '-')}-{digest[:8]}",
            "variant": variant.value,
            "sources": [path.relative_to(out).as_posix()],
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_bytes": path.stat().st_size,
            **common,
        }
        for variant, path in files.items()
    ]


def _compare(
    loader: ModelLoader, old: ModelEntry, new: ModelEntry, held_out: TrainingRows
) -> tuple[Comparison, ...]:
    """Compare both INT8 files on the held-out rows and on the bundled sample of the task."""
    sample = read_rows(bundled("datasets", f"{new.task.value}_sample.jsonl"), new.task)
    sets = {"your held-out rows": held_out, "bundled sample": sample}
    found = []
    with InferenceEngine(loader.load(old)) as before, InferenceEngine(loader.load(new)) as after:
        for name, rows in sets.items():
            old_right, new_right = (
                np.array([_class_of(engine, text) for text in rows.texts]) == rows.labels
                for engine in (before, after)
            )
            found.append((name, old_right, new_right))
    lost = [int(np.sum(old_right & ~new_right)) for _, old_right, new_right in found]
    won = [int(np.sum(new_right & ~old_right)) for _, old_right, new_right in found]
    p_values = holm([mcnemar_exact(b, c) for b, c in zip(lost, won, strict=True)])
    comparisons = []
    for position, (name, old_right, new_right) in enumerate(found):
        interval = wilson(int(new_right.sum()), len(new_right))
        comparisons.append(
            Comparison(
                name=name,
                n=len(new_right),
                before=float(old_right.mean()),
                after=float(new_right.mean()),
                after_low=interval.low,
                after_high=interval.high,
                only_before=lost[position],
                only_after=won[position],
                p_value=float(p_values[position]),
            )
        )
    return tuple(comparisons)


def _class_of(engine: InferenceEngine, text: str) -> int:
    return int(np.argmax(engine.infer(text).probabilities))


def _judge(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    predicted = logits.argmax(1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
    }


def _write_report(report: TrainingReport, out: Path) -> None:
    document = asdict(report) | {
        name: getattr(report, name).name
        for name in ("model_path", "half_model_path", "tokenizer_path", "registry_path")
    }
    document["model_sha256"] = hashlib.sha256(report.model_path.read_bytes()).hexdigest()
    (out / "training.json").write_text(json.dumps(document, indent=2) + "\n")
    (out / "README.md").write_text(_card(report))


def _card(report: TrainingReport) -> str:
    recipe = report.recipe
    lines = [
        f"# {report.model_id}",
        "",
        f"A {recipe.task.value} classifier, made from {report.rows:,} rows, going on from "
        f"{report.started_from}; {report.validation_rows:,} rows were held out.",
        "",
        "| setting | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in asdict(recipe).items()),
        f"| replayed texts | {report.replay_rows:,} |",
        f"| seconds | {report.seconds:,.0f} |",
        "",
        "On the held-out rows: "
        + ", ".join(f"{name} {value:.1%}" for name, value in report.validation.items())
        + ".",
        "",
    ]
    if report.comparisons:
        lines += [
            "| rows | n | before | after (95% interval) | only before right | only after right | "
            "p | verdict |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(
                f"| {c.name} | {c.n:,} | {c.before:.1%} | {c.after:.1%} ({c.after_low:.1%} to "
                f"{c.after_high:.1%}) | {c.only_before} | {c.only_after} | {c.p_value:.3f} | "
                f"{c.verdict} |"
                for c in report.comparisons
            ),
            "",
        ]
    lines.append("Use it: `export SHIELD_REGISTRY=.../registry.json`, then name its id.")
    return "\n".join(lines) + "\n"

"""Make a model from a user's rows, going on from a bundled one without forgetting what it knew.

Beside the user's rows the new model sees texts of the project's own with the old model's scores as
labels (learning without forgetting, Li and Hoiem 2016), so nothing third-party has to be at hand.
Before and after are compared on rows that neither was trained on, with paired tests, by the INT8
files that would run.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.errors import TrainingError, UnknownNameError
from shield_engine.ml import ArtifactStore, InferenceEngine, ModelEntry, ModelLoader, ModelRegistry
from shield_engine.settings import bundled, file_sha256, write_file
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
from shield_engine.training.report import ModelComparison, TrainingReport, write_report
from shield_engine.training.rows import TrainingRows, read_rows, split_rows
from shield_engine.types import LABELS, Task, Variant

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["balanced_shift", "train"]

_INT8, _FP16 = "model.int8.onnx", "model.fp16.onnx"
_TOKENIZER, _REGISTRY = "tokenizer.json", "registry.json"
_SAMPLE_ROWS = 200  # they show how wide the inputs of the matrices are


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
        data: JSON Lines or CSV (by its name), plain or gzip, with `text`, `label`, maybe `source`.
        out: A folder that does not hold a model yet; nothing is ever overwritten.
        registry: Where the model to go on from is found; the bundled one by default.
        artifacts: Where its files come from; bundled files only by default.

    Raises:
        DatasetError: A line is not JSON or CSV, or a label is not one of the task's.
        TrainingError: The extra `[train]` or a class is missing, or `out` or the start will not do.
        UnknownNameError: The registry has no such model.
    """
    import_training_packages()
    if (out / _INT8).exists():
        raise TrainingError(f"{out} already holds a model; name another folder with --out")
    training, held_out = _split(read_rows(data, recipe.task), recipe)
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    registry = registry or ModelRegistry.load()
    loader = ModelLoader(registry, artifacts or ArtifactStore(out / "cache", offline=True))
    parent = None if recipe.start == ENCODER else _parent(registry, recipe)
    network = _started(recipe, loader, parent)
    shutil.copyfile(encoder_folder() / "tokenizer.json", out / _TOKENIZER)
    examples, replayed = _fitted(network, recipe, training, out, is_fresh=parent is None)
    logits, shift = _balanced(network, recipe, held_out, out, is_fresh=parent is None)
    _export(network, recipe.task, out, examples.ids[:_SAMPLE_ROWS])
    model_id = _register(recipe, parent, out)
    report = TrainingReport(
        model_path=out / _INT8,
        half_model_path=out / _FP16,
        tokenizer_path=out / _TOKENIZER,
        registry_path=out / _REGISTRY,
        model_id=model_id,
        started_from=parent.id if parent else ENCODER,
        recipe=recipe,
        rows=len(training.texts),
        validation_rows=len(held_out.texts),
        replay_rows=replayed,
        seconds=time.perf_counter() - started,
        sources=dict(sorted(Counter(training.sources).items())),
        validation=_judge(logits, held_out.labels),
        bias_shift=tuple(map(float, shift)),
    )
    if parent is not None:
        old = _variant(registry, parent.id, Variant.INT8) or parent
        report = replace(report, comparisons=_compare(loader, old, report, held_out))
    write_report(report, out)
    return report


def _split(rows: TrainingRows, recipe: Recipe) -> tuple[TrainingRows, TrainingRows]:
    return split_rows(
        rows,
        recipe.task,
        sources=recipe.validation_sources,
        share=recipe.validation_share,
        seed=recipe.seed,
    )


def _started(recipe: Recipe, loader: ModelLoader, parent: ModelEntry | None) -> Any:
    """Return a network with the parent's weights, or with a fresh head on the bare encoder."""
    import torch

    torch.manual_seed(recipe.seed)
    network = new_network({recipe.task.value: len(LABELS[recipe.task])})
    if parent is not None:
        _load(network, loader, parent)
    return network


def _fitted(
    network: Any, recipe: Recipe, training: TrainingRows, out: Path, *, is_fresh: bool
) -> tuple[Examples, int]:
    """Fit to the rows and to replayed texts; return the rows as token ids and how many texts."""
    head = recipe.task.value
    tokens = Tokens(out / _TOKENIZER, recipe.max_length)
    own = Examples(tokens.encode(training.texts), training.labels.tolist(), recipe.epochs)
    examples = {head: own}
    replayed = [] if is_fresh else _replay_texts(recipe, len(training.texts))
    if replayed:
        ids = tokens.encode(replayed)
        chances = _softmax(predict(network, ids, head))
        examples[f"{head}#replay"] = Examples(ids, chances.tolist(), recipe.epochs)
    names = FitSettings.__dataclass_fields__
    settings = FitSettings(**{name: getattr(recipe, name) for name in names})
    fit(network, examples, settings, checkpoint=out / "checkpoint.pt")
    return own, len(replayed)


def _balanced(
    network: Any, recipe: Recipe, held_out: TrainingRows, out: Path, *, is_fresh: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the logits of held-out rows and what was taken from each to balance a fresh head."""
    import torch

    tokens = Tokens(out / _TOKENIZER, recipe.max_length)
    logits = predict(network, tokens.encode(held_out.texts), recipe.task.value)
    if not is_fresh:
        return logits, np.zeros(logits.shape[1], dtype=np.float32)
    shift = balanced_shift(logits, held_out.labels)
    with torch.no_grad():
        network.heads[recipe.task.value].bias -= torch.from_numpy(shift)
    return logits - shift, shift


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


def _load(network: Any, loader: ModelLoader, parent: ModelEntry) -> None:
    """Give the network the weights of a model that this trainer made."""
    import torch

    weights = read_weights(loader.artifacts.fetch(parent).model)
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


def _export(network: Any, task: Task, out: Path, sample: Sequence[Sequence[int]]) -> None:
    wide = export_heads(network, [task], out / "model.fp32.onnx")
    # The report's folder is complete only once the INT8 file is there: it is written last.
    store_half(wide, out / _FP16)
    quantize(wide, out / _INT8, keep=KEPT_WIDE, sample=sample)
    wide.unlink()


def _register(recipe: Recipe, parent: ModelEntry | None, out: Path) -> str:
    """Write a registry of the new files beside them; return the model's id."""
    files = {Variant.INT8: out / _INT8, Variant.FP16: out / _FP16}
    digests = {variant: file_sha256(path) for variant, path in files.items()}
    digest = digests[Variant.INT8]
    model_id = f"{recipe.task.value.replace('_', '-')}-{digest[:8]}"
    common = {
        "id": model_id,
        "task": recipe.task.value,
        "labels": list(LABELS[recipe.task]),
        "output": recipe.task.value,
        "revision": f"{digest[:12]} seed {recipe.seed}",
        "version": "1.0",
        "licence": parent.licence if parent else "Apache-2.0",
        "max_length": parent.max_length if parent else 256,
        "stride": parent.stride if parent else 64,
        "tokenizer_sources": [_TOKENIZER],
        "tokenizer_sha256": file_sha256(out / _TOKENIZER),
        "post_processing": "softmax",
        "thresholds": dict(parent.thresholds) if parent else {"ml": 0.5},
        "window_penalty": parent.window_penalty if parent else 0.0,
        "description": f"Made from your rows; went on from {parent.id if parent else ENCODER}.",
    }
    entries = [
        {
            "variant": variant.value,
            "sources": [path.name],
            "sha256": digests[variant],
            "size_bytes": path.stat().st_size,
            **common,
        }
        for variant, path in files.items()
    ]
    document = {"schema": 1, "models": entries}
    write_file(out / _REGISTRY, json.dumps(document, indent=2) + "\n")
    return model_id


def _compare(
    loader: ModelLoader, old: ModelEntry, report: TrainingReport, held_out: TrainingRows
) -> tuple[ModelComparison, ...]:
    """Compare both INT8 files on the held-out rows and on the bundled sample of the task."""
    new = ModelRegistry.load(report.registry_path).get(report.model_id, Variant.INT8)
    sample = read_rows(bundled("datasets", f"{new.task.value}_sample.jsonl"), new.task)
    sets = {"your held-out rows": held_out, "bundled sample": sample}
    with InferenceEngine(loader.load(old)) as before, InferenceEngine(loader.load(new)) as after:
        pairs = [(_right(before, rows), _right(after, rows)) for rows in sets.values()]
    lost = [int(np.sum(old_right & ~new_right)) for old_right, new_right in pairs]
    won = [int(np.sum(new_right & ~old_right)) for old_right, new_right in pairs]
    p_values = holm([mcnemar_exact(b, c) for b, c in zip(lost, won, strict=True)])
    comparisons = []
    for position, (name, (old_right, new_right)) in enumerate(zip(sets, pairs, strict=True)):
        interval = wilson(int(new_right.sum()), len(new_right))
        comparisons.append(
            ModelComparison(
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


def _right(engine: InferenceEngine, rows: TrainingRows) -> NDArray[np.bool_]:
    """Return which rows the most probable class is right about, shape (n,)."""
    classes = [int(np.argmax(engine.infer(text).probabilities)) for text in rows.texts]
    return np.asarray(np.array(classes) == rows.labels)


def _judge(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    predicted = logits.argmax(1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
    }

"""Train the shared model: one encoder under the heads of all three scanners, in two stages.

The first stage sees the public pools only; the second goes on from it with the project's own rows
added. Of each stage, runs that differ in the seed are averaged in weight space.
"""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from shield_engine.errors import TrainingError
from shield_engine.settings import file_sha256, write_file
from shield_engine.training.export import KEPT_WIDE, export_heads, quantize, store_half
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
from shield_engine.types import Task
from tools.bundled_model.calibrate import (
    Calibration,
    calibrate,
    ece,
    operating_points,
    row_weights,
    temperature,
)
from tools.bundled_model.mixture import (
    HEADS,
    MAX_TOKENS,
    SOURCE_TOKENS,
    Mixture,
    Row,
    load_mixture,
)

__all__ = [
    "MIXTURE_SEED",
    "HeadReport",
    "SharedRecipe",
    "calibrate_heads",
    "finish_shared",
    "fit_shared",
    "load_network",
    "make_model",
]

logger = logging.getLogger(__name__)

# Of the harmful requests, those that the first stage calls abusive teach the toxicity head what abuse
# looks like in a prompt; its doubts about the rest are no labels.
_ABUSIVE = 0.45


@dataclass(frozen=True, slots=True)
class SharedRecipe:
    """What decides a stage, apart from the rows.

    Attributes:
        fit: Settings of the optimiser.
        passes: How often each head's rows are seen.
        source_shares: Share of a source that one pass takes; `SOURCE_SHARES` by default.
        with_project: Add the project's own rows.
    """

    fit: FitSettings = field(default_factory=FitSettings)
    passes: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(HEADS, 1.0))
    source_shares: Mapping[str, float] | None = None
    with_project: bool = True

    def with_seed(self, seed: int) -> SharedRecipe:
        """Return the same recipe under another seed."""
        return replace(self, fit=replace(self.fit, seed=seed))


RECIPES: Mapping[str, SharedRecipe] = {
    "stage 1": SharedRecipe(with_project=False, source_shares={}),
    "stage 2": SharedRecipe(
        fit=FitSettings(seed=21, learning_rate=6e-5, head_learning_rate=3e-4),
        passes={
            "prompt_injection": 0.85,
            "toxicity": 0.53,
            "identity_hate": 0.42,
            "sentiment": 0.7,
        },
    ),
}
"""The stages of the bundled models: of each, runs under two seeds are averaged (see the model card)."""

SEEDS: Mapping[str, tuple[int, int]] = {"stage 1": (7, 8), "stage 2": (21, 23)}
MIXTURE_SEED = 21
"""Draws the rows whose held-out part calibrates, and which the linear tiers learn from."""


def make_model(pools: Path, project: Path, out: Path) -> dict[str, HeadReport]:
    """Fit both stages under their seeds and finish the model in `out/model`; resumes if cut off.

    Raises:
        TrainingError: The extra `[train]` is missing, or there is a model already.
        DatasetError: A pool is missing or malformed.
    """
    import_training_packages()
    weights: list[Path] = []
    for stage, recipe in RECIPES.items():
        starts, weights = weights, []
        for seed in SEEDS[stage]:
            folder = out / f"{stage} {seed}"
            target = folder / "network.pt"
            if not target.exists():
                target = fit_shared(recipe.with_seed(seed), pools, project, folder, starts)
            weights.append(target)
    return finish_shared(weights, load_mixture(pools, project, seed=MIXTURE_SEED), out / "model")


def fit_shared(
    recipe: SharedRecipe, pools: Path, project: Path, out: Path, starts: Sequence[Path] = ()
) -> Path:
    """Fit one stage and return the weights' file, `network.pt` in `out`; resumes if cut off.

    Args:
        recipe: Settings of the stage.
        pools: Folder of the public train pools.
        project: The folder `datasets/training`.
        out: Where the weights and the checkpoint go.
        starts: Weights to start from; several are averaged. The bare encoder by default.

    Raises:
        TrainingError: `out` already holds weights, or a start has other heads.
        DatasetError: A pool is missing or malformed.
    """
    import torch

    target = out / "network.pt"
    if target.exists():
        raise TrainingError(f"{target} is there already; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.fit.seed)
    network = load_network(starts)
    mixture = load_mixture(
        pools,
        project if recipe.with_project else None,
        seed=recipe.fit.seed,
        source_shares=recipe.source_shares,
    )
    extra = _abusive_requests(network, pools) if starts else ()
    examples = {
        head: encode(head, [*rows, *(extra if head == "toxicity" else ())], recipe.passes[head])
        for head, rows in mixture.training.items()
    }
    for head, rows in mixture.training.items():
        logger.info("%s: %s", head, Counter((row.source, row.label) for row in rows))
    fit(network, examples, recipe.fit, checkpoint=out / "checkpoint.pt")
    torch.save(network.state_dict(), target)
    return target


def load_network(starts: Sequence[Path]) -> Any:
    """Return a network with the mean of these weights, or with a fresh head on the bare encoder.

    Raises:
        TrainingError: Weights of another network.
    """
    import torch

    network = new_network(HEADS)
    if starts:
        states = [torch.load(path, weights_only=True) for path in starts]
        mean = {
            name: sum(state[name].double() for state in states).div(len(states)).to(value.dtype)
            if value.is_floating_point()
            else value
            for name, value in states[0].items()
        }
        try:
            network.load_state_dict(mean)
        except RuntimeError as error:
            raise TrainingError(f"{starts[0]} holds the weights of another network") from error
    return network


_TASKS = (Task.PROMPT_INJECTION, Task.TOXICITY, Task.SENTIMENT)
RISKY_SHARE: Mapping[Task, float] = {Task.PROMPT_INJECTION: 0.1, Task.TOXICITY: 0.5}
"""Share of risky texts at which a score is a chance. Attacks are rare in what a guard sees: with one
text in three, 13% of the held-out hard negatives were flagged at .5; with one in ten, 5%."""

_SAMPLE_ROWS = 70
"""Training rows a task that show how wide the inputs of the matrices are."""


def finish_shared(weights: Sequence[Path], mixture: Mixture, out: Path) -> dict[str, HeadReport]:
    """Calibrate fitted weights and write `model.fp16.onnx`, `model.int8.onnx` and a report.

    Args:
        weights: From `fit_shared`; several are averaged.
        mixture: Whose validation rows calibrate and judge.
        out: Where the files go.

    Raises:
        TrainingError: `out` already holds a model.
    """
    if (out / "model.int8.onnx").exists():
        raise TrainingError(f"{out} already holds a model; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    network = load_network(weights)
    reports = calibrate_heads(network, mixture)
    wide = export_heads(network, _TASKS, out / "model.fp32.onnx")
    store_half(wide, out / "model.fp16.onnx")
    draw = random.Random(0)  # noqa: S311 - a sample is no secret
    sample = [
        ids
        for task in _TASKS
        for ids in encode(task.value, draw.sample(mixture.training[task.value], _SAMPLE_ROWS)).ids
    ]
    quantize(wide, out / "model.int8.onnx", keep=KEPT_WIDE, sample=sample)
    document = {
        "rows": {
            head: dict(sorted(Counter(f"{row.source}/{row.label}" for row in rows).items()))
            for head, rows in mixture.training.items()
        },
        "validation": {task: asdict(report) for task, report in reports.items()},
        "sha256": {path.name: file_sha256(path) for path in sorted(out.glob("model.*.onnx"))},
    }
    write_file(out / "training.json", json.dumps(document, indent=2) + "\n")
    return reports


@dataclass(frozen=True, slots=True)
class HeadReport:
    """How one head does on rows it was not trained on, after calibration.

    Attributes:
        rows: Validation rows.
        balanced_accuracy: At threshold .5, or by the most probable class.
        ece: Expected calibration error at `RISKY_SHARE`, sources weighed alike.
        operating_points: Threshold by policy; none where three classes compete.
        by_source: Share of right verdicts by source.
    """

    rows: int
    balanced_accuracy: float
    ece: float
    operating_points: Mapping[str, float]
    by_source: Mapping[str, float]


def calibrate_heads(network: Any, mixture: Mixture) -> dict[str, HeadReport]:
    """Fold calibration into the heads and say how they do; `identity_hate` joins `toxicity`.

    The validation rows decide slope and intercept (two or three numbers a head), so the figures on
    them are slightly too good.
    """
    import torch

    reports = {}
    for task, heads in (
        (Task.PROMPT_INJECTION, ("prompt_injection",)),
        (Task.TOXICITY, ("toxicity", "identity_hate")),
    ):
        rows = [row for head in heads for row in mixture.validation[head]]
        labels = np.array([row.label for row in rows])
        weights = row_weights(labels, [row.source for row in rows], RISKY_SHARE[task])
        ids = encode(heads[0], rows).ids
        logits = [predict(network, ids, head).astype(np.float64) for head in heads]
        margins = np.stack([head[:, 1] - head[:, 0] for head in logits], axis=1)
        fitted = calibrate(margins, labels, weights)
        _fold(network, heads, fitted)
        scores = fitted.scores(margins)
        is_right = (scores >= 0.5) == (labels == 1)
        reports[task.value] = HeadReport(
            rows=len(rows),
            balanced_accuracy=float(
                np.mean(
                    [
                        np.average(is_right[labels == label], weights=weights[labels == label])
                        for label in (0, 1)
                    ]
                )
            ),
            ece=ece(scores, labels == 1, weights),
            operating_points={"balanced": 0.5, **operating_points(scores, labels, weights)},
            by_source=_by_source(rows, is_right),
        )
    rows = list(mixture.validation["sentiment"])
    labels = np.array([row.label for row in rows])
    logits_of_three = predict(network, encode("sentiment", rows).ids, "sentiment")
    divisor = temperature(logits_of_three, labels)
    with torch.no_grad():
        for parameter in network.heads["sentiment"].parameters():
            parameter.div_(divisor)
    scaled = logits_of_three.astype(np.float64) / divisor
    chances = np.exp(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))
    weights = row_weights(labels, [row.source for row in rows])
    is_right = chances.argmax(1) == labels
    reports["sentiment"] = HeadReport(
        rows=len(rows),
        balanced_accuracy=float(np.average(is_right, weights=weights)),
        ece=ece(chances.max(1), is_right, weights),
        operating_points={},
        by_source=_by_source(rows, is_right),
    )
    return reports


def _fold(network: Any, heads: Sequence[str], fitted: Calibration) -> None:
    """Write the calibrated margin into logit 1 of the first head, and 0 into its logit 0."""
    import torch

    target = network.heads[heads[0]]
    with torch.no_grad():
        weight = torch.zeros_like(target.weight)
        bias = torch.zeros_like(target.bias)
        for slope, head in zip(fitted.slopes, heads, strict=True):
            layer = network.heads[head]
            weight[1] += slope * (layer.weight[1] - layer.weight[0])
            bias[1] += slope * (layer.bias[1] - layer.bias[0])
        bias[1] += fitted.intercept
        target.weight.copy_(weight)
        target.bias.copy_(bias)


def _by_source(rows: Sequence[Row], is_right: Any) -> dict[str, float]:
    names = [f"{row.source}/{row.label}" for row in rows]
    return {
        name: float(
            np.mean([right for own, right in zip(names, is_right, strict=True) if own == name])
        )
        for name in sorted(set(names))
    }


def encode(head: str, rows: Sequence[Row], passes: float = 1.0) -> Examples:
    """Return rows as token ids, cut at the head's length or at their source's."""
    path = encoder_folder() / "tokenizer.json"
    by_length = {n: Tokens(path, n) for n in {MAX_TOKENS[head], *SOURCE_TOKENS.values()}}
    ids: list[list[int]] = []
    for row in rows:
        tokens = by_length[SOURCE_TOKENS.get(row.source, MAX_TOKENS[head])]
        ids += tokens.encode([row.text])
    return Examples(ids, [row.label for row in rows], passes)


def _abusive_requests(network: Any, pools: Path) -> list[Row]:
    import torch

    from tools.bundled_model.mixture import harmful_requests

    texts = harmful_requests(pools)
    rows = encode("toxicity", [Row(text, 0, "harmful_requests") for text in texts])
    logits = torch.from_numpy(predict(network, rows.ids, "toxicity"))
    scores = logits.softmax(1)[:, 1].tolist()
    chosen = [
        Row(text, 1, "harmful_requests")
        for text, score in zip(texts, scores, strict=True)
        if score >= _ABUSIVE
    ]
    logger.info("requests judged abusive: %d of %d", len(chosen), len(texts))
    return chosen

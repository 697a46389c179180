"""Everything that decides what a training run gives, apart from the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shield_engine.errors import TrainingError
from shield_engine.types import Task

__all__ = ["ENCODER", "Recipe"]

ENCODER = "encoder"
"""Start from the bare encoder instead of from a model that knows the task."""

_MAX_LENGTH = {Task.PROMPT_INJECTION: 256, Task.TOXICITY: 128, Task.SENTIMENT: 96}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is made from a user's rows.

    Attributes:
        task: What it looks for.
        start: Registry id of the model to go on from; `None` takes the task's default, `encoder`
            the bare encoder.
        epochs: Passes over the rows.
        max_length: Tokens a text is cut to in training.
        batch_size: Rows of a step.
        learning_rate: Of the encoder.
        head_learning_rate: Of the last layer.
        warmup_share: Share of the steps in which the rate rises.
        weight_decay: Of AdamW.
        label_smoothing: Share of the label's weight that is spread over all classes.
        replay: Texts of the project's own per row of the user's: on them the new model learns to
            say what the old one said, so that it does not forget. 0 from the bare encoder.
        seed: Decides the split, the order and a fresh head.
        validation_sources: Sources to hold out; without any, a share of each class is.
        validation_share: That share.
    """

    task: Task
    start: str | None = None
    epochs: int = 2
    max_length: int = 256
    batch_size: int = 32
    learning_rate: float = 2e-5
    head_learning_rate: float = 1e-4
    warmup_share: float = 0.06
    weight_decay: float = 0.01
    label_smoothing: float = 0.02
    replay: float = 1.0
    seed: int = 7
    validation_sources: tuple[str, ...] = ()
    validation_share: float = 0.2

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise TrainingError("epochs and batch_size must be at least 1")
        if not 0 < self.validation_share < 1:
            raise TrainingError(f"validation_share {self.validation_share} is not within 0 and 1")
        if self.replay < 0:
            raise TrainingError(f"replay {self.replay} is below 0")

    @classmethod
    def for_task(cls, task: Task, **changes: Any) -> Recipe:
        """Return the recipe that suits `task`, changed where asked.

        From the bare encoder the rates are four times as high, since there is more to learn.
        """
        settings: dict[str, Any] = {"task": task, "max_length": _MAX_LENGTH[task]}
        if changes.get("start") == ENCODER:
            settings |= {"learning_rate": 8e-5, "head_learning_rate": 8e-4, "replay": 0.0}
        return cls(**{**settings, **changes})

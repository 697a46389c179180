"""A cascade: guards in order, each of which ends the clear texts and leaves the rest to the next.

Works on one score and on arrays alike, so a live scan and stored scores cannot disagree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shield_engine.config import check_share
from shield_engine.errors import ConfigError
from shield_engine.types import Task, Variant

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_STAGES", "Stage", "cascade_digest", "check_cascade", "settled"]

MOST_STAGES = 4


@dataclass(frozen=True, slots=True)
class Stage:
    """One guard of a cascade, and which of its scores end a text.

    Attributes:
        part: What scores: the rules, the linear tier, a model of the registry, or a guard.
        name: Id of the model, or name of the guard.
        variant: Of the model's weights.
        version: Of the rules, the linear tier or the guard.
        sha256: The model's file, or the guard's fingerprint.
        pass_at: A text that scores at most this passes; `None` passes none.
        stop_at: A text that scores at least this is flagged; `None` flags none.
    """

    part: Literal["rules", "linear", "model", "guard"]
    name: str | None = None
    variant: Variant | None = None
    version: str | None = None
    sha256: str | None = None
    pass_at: float | None = None
    stop_at: float | None = None

    @property
    def title(self) -> str:
        """What users know it by."""
        titles = {"rules": "rules", "linear": "linear tier", "model": f"{self.name} {self.variant}"}
        return titles.get(self.part) or f"{self.name} {self.version or ''}".rstrip()


def check_cascade(where: str, stages: Sequence[Stage], threshold: float | None) -> None:
    """Refuse stages that decide nothing, or that contradict each other.

    Raises:
        ConfigError: They do.
    """
    if not 2 <= len(stages) <= MOST_STAGES:
        raise ConfigError(f"{where}: a cascade has 2 to {MOST_STAGES} stages, got {len(stages)}")
    if not threshold:
        raise ConfigError(f"{where}: the last stage of a cascade needs a threshold above 0")
    for number, stage in enumerate(stages, 1):
        place = f"{where}, stage {number} ({stage.title})"
        for name, band in (("pass_at", stage.pass_at), ("stop_at", stage.stop_at)):
            if band is not None:
                check_share(f"{name} of {place}", band)
        if stage.part in {"model", "guard"} and stage.name is None:
            raise ConfigError(f"{place}: a {stage.part} needs a name")
        if stage.part == "model" and stage.variant is None:
            raise ConfigError(f"{place}: a model needs a variant")
        if None not in {stage.pass_at, stage.stop_at} and stage.pass_at >= stage.stop_at:  # type: ignore[operator]
            raise ConfigError(f"{place}: pass_at lies below stop_at")
    last = stages[-1]
    if last.pass_at is not None or last.stop_at is not None:
        raise ConfigError(f"{where}: the last stage decides at the threshold and has no bands")


def cascade_digest(task: Task, stages: Sequence[Stage], threshold: float) -> str:
    """Return the digest of everything that decides a cascade's risk; its name does not."""
    deciding = [task, threshold, [asdict(stage) for stage in stages]]
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()


def settled(stage: Stage, risk: Any, threshold: float) -> NDArray[np.float64]:
    """Return the risk with which a stage that is not the last ends a text, NaN where it does not.

    A flagged text ends at `threshold` or above and a passed one below it, so that one risk and one
    threshold stand for the whole chain. Works elementwise on arrays.
    """
    stop_at = np.inf if stage.stop_at is None else stage.stop_at
    pass_at = -np.inf if stage.pass_at is None else stage.pass_at
    below = np.minimum(risk, np.nextafter(threshold, 0.0))
    passed = np.where(risk <= pass_at, below, np.nan)
    return np.where(risk >= stop_at, np.maximum(risk, threshold), passed)

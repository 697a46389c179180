"""Which part of a scanner decides: one rule, for one text and for a million stored scores alike.

In every mode the result is one part's probabilities, so a stored pair of scores answers for every
mode, threshold and band afterwards. In a cascade each guard ends the texts it is sure of and leaves
the rest to the next. The comparisons below work on floats and on arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shield_engine.config import Bands, check_share
from shield_engine.errors import ConfigError
from shield_engine.types import Mode, Task, Variant

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MOST_STAGES",
    "Stage",
    "asks_model",
    "cascade_digest",
    "check_cascade",
    "confidence",
    "decided",
    "model_decides",
    "stage_risk",
]

MOST_STAGES = 4


def confidence(task: Task, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what modes compare, shape (n,): the risk of two classes, the highest of three."""
    if task is Task.SENTIMENT:
        highest: NDArray[np.float64] = probabilities.max(axis=1)
        return highest
    return probabilities[:, 1]


def asks_model(mode: Mode, heuristic: float, bands: Bands, linear: float | None = None) -> bool:
    """Return whether a scan in `mode` needs the model after the tiers before it.

    Works elementwise on arrays.

    Args:
        mode: The mode.
        heuristic: Confidence of the rules.
        bands: Hybrid bands.
        linear: Score of the linear tier; `None` or NaN where it said nothing.
    """
    if mode is Mode.HEURISTIC:
        return heuristic != heuristic  # noqa: PLR0124 - False, or an array of False
    if mode is Mode.HYBRID:
        lower = -1.0 if bands.lower is None else bands.lower
        asks = (heuristic < bands.upper) & (heuristic > lower)
        if bands.safe is None or linear is None:
            return asks
        return asks & ~np.asarray((heuristic <= 0) & (linear <= bands.safe))  # type: ignore[return-value]
    return heuristic == heuristic  # noqa: PLR0124 - True, or an array of True


def model_decides(
    mode: Mode, heuristic: float, model: float, bands: Bands, linear: float | None = None
) -> bool:
    """Return whether the model's probabilities are the result of `mode`.

    `both` takes the part with the higher confidence; ties go to the heuristic, which has reasons.
    Works elementwise on arrays.
    """
    asks = asks_model(mode, heuristic, bands, linear)
    if mode is Mode.BOTH:
        return asks & (model > heuristic)
    return asks


def decided(
    task: Task,
    mode: Mode,
    heuristic: NDArray[np.float64] | None,
    model: NDArray[np.float64] | None,
    bands: Bands,
    linear: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the probabilities of `mode` for stored scores of both parts.

    Args:
        task: Decides what confidence means.
        mode: The mode to derive.
        heuristic: Shape (n, labels); may be `None` for mode `ml`.
        model: Shape (n, labels), NaN where the model failed; may be `None` for `heuristic`.
        bands: Hybrid bands.
        linear: Scores of the linear tier, shape (n,), NaN where it said nothing.

    Returns:
        Probabilities of shape (n, labels), NaN where `mode` needed a model that failed, and a
        boolean array of shape (n,) that is true where the model was asked.

    Raises:
        ConfigError: `mode` needs a part that has no scores.
    """
    if mode is Mode.HEURISTIC:
        heuristic = _stored(heuristic, "heuristic", mode)
        return heuristic, np.zeros(len(heuristic), dtype=bool)
    model = _stored(model, "model", mode)
    if mode is Mode.ML:
        return model, np.ones(len(model), dtype=bool)
    heuristic = _stored(heuristic, "heuristic", mode)
    h = confidence(task, heuristic)
    m = confidence(task, model)
    asked = np.asarray(asks_model(mode, h, bands, linear))  # type: ignore[arg-type]
    takes_model = np.asarray(model_decides(mode, h, m, bands, linear))  # type: ignore[arg-type]
    result = np.where(takes_model[:, None], model, heuristic)
    result[asked & np.isnan(m)] = np.nan
    return result, asked


def _stored(part: NDArray[np.float64] | None, name: str, mode: Mode) -> NDArray[np.float64]:
    if part is None:
        raise ConfigError(f"mode {mode.value} needs scores of the {name} part; the run has none")
    return part


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


def stage_risk(stage: Stage, risk: Any, threshold: float) -> NDArray[np.float64]:
    """Return the risk with which a stage that is not the last ends a text, NaN where it does not.

    A flagged text ends at `threshold` or above and a passed one below it, so that one risk and one
    threshold stand for the whole chain. Works elementwise on arrays.
    """
    stop_at = np.inf if stage.stop_at is None else stage.stop_at
    pass_at = -np.inf if stage.pass_at is None else stage.pass_at
    below = np.minimum(risk, np.nextafter(threshold, 0.0))
    passed = np.where(risk <= pass_at, below, np.nan)
    return np.where(risk >= stop_at, np.maximum(risk, threshold), passed)

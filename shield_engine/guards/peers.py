"""Scanners of other makers, scored and timed on the same rows as ours.

A peer is anything with a name, a task, a threshold and a `score`; the bundled ones wrap packages of
the extra `[peers]` and are imported when they are first asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Protocol

from shield_engine.errors import ConfigError
from shield_engine.types import Task

__all__ = ["Peer", "WrappedPeer", "installed_peers", "stackone_parts"]


class Peer(Protocol):
    """A scanner of somebody else.

    Attributes:
        name: What figures call it.
        task: What it looks for.
        threshold: At or above it a text is risky; `None` for sentiment.
        version: Of the package or the weights.
    """

    @property
    def name(self) -> str:
        """See the class."""
        ...

    @property
    def task(self) -> Task:
        """See the class."""
        ...

    @property
    def threshold(self) -> float | None:
        """See the class."""
        ...

    @property
    def version(self) -> str:
        """See the class."""
        ...

    def score(self, text: str) -> tuple[float, ...]:
        """Return a probability for each of `LABELS[task]`; safe to call from several threads."""
        ...


@dataclass(frozen=True, slots=True)
class WrappedPeer:
    """A peer made of a function."""

    name: str
    task: Task
    threshold: float | None
    version: str
    ask: Callable[[str], tuple[float, ...]]

    def score(self, text: str) -> tuple[float, ...]:
        """Return what the function says."""
        return self.ask(text)


def installed_peers(task: Task) -> list[Peer]:
    """Return the bundled peers of a task whose packages are installed.

    Raises:
        ConfigError: None is.
    """
    known = _KNOWN[task]
    peers = [make() for package, make in known if util.find_spec(package) is not None]
    if not peers:
        names = ", ".join(package for package, _ in known)
        raise ConfigError(
            f"no peer for {task.value} is installed ({names}); "
            "install the extra: pip install 'llm-shield[peers]'"
        )
    return peers


def _two(risk: float) -> tuple[float, float]:
    return 1 - risk, risk


def stackone_parts() -> tuple[Path, float, float]:
    """Return the folder of the StackOne model, the divisor of its logits and its threshold."""
    from stackone_defender.classifiers.onnx_classifier import get_default_model_path

    folder = Path(get_default_model_path())
    calibration = json.loads((folder / "classifier_config.json").read_text())["calibration"]
    return folder, float(calibration["temperatureT"]), float(calibration["highRiskThreshold"])


def _stackone() -> Peer:
    from stackone_defender.classifiers.onnx_classifier import OnnxClassifier

    _, divisor, threshold = stackone_parts()
    classifier = OnnxClassifier(temperature_t=divisor)
    return WrappedPeer(
        "stackone-defender",
        Task.PROMPT_INJECTION,
        threshold,
        metadata.version("stackone-defender"),
        lambda text: _two(float(classifier.classify(text))),
    )


def _profanity_check() -> Peer:
    from profanity_check import predict_prob

    return WrappedPeer(
        "alt-profanity-check",
        Task.TOXICITY,
        0.5,
        metadata.version("alt-profanity-check"),
        lambda text: _two(float(predict_prob([text])[0])),
    )


def _vader() -> Peer:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer, cut = SentimentIntensityAnalyzer(), 0.05

    def ask(text: str) -> tuple[float, ...]:
        compound = analyzer.polarity_scores(text)["compound"]
        label = 0 if compound <= -cut else 2 if compound >= cut else 1
        # Its verdict by its own cuts; how sure it is plays no part in a verdict.
        return tuple(1.0 if place == label else 0.0 for place in range(3))

    return WrappedPeer(
        "vaderSentiment", Task.SENTIMENT, None, metadata.version("vaderSentiment"), ask
    )


_KNOWN: dict[Task, list[tuple[str, Callable[[], Peer]]]] = {
    Task.PROMPT_INJECTION: [("stackone_defender", _stackone)],
    Task.TOXICITY: [("profanity_check", _profanity_check)],
    Task.SENTIMENT: [("vaderSentiment", _vader)],
}

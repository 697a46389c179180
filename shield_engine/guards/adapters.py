"""Guards of other makers: functions that make a risk function of an installed package.

Each is named in `guards.toml` as `shield_engine.guards.adapters:NAME`, its arguments as `options`.
A package is imported when its adapter is called, and not before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module, metadata, util
from pathlib import Path
from types import MappingProxyType
from typing import Any

from shield_engine.guards.entry import PythonEntry
from shield_engine.types import Task

__all__ = [
    "any_guardrail",
    "installed_peers",
    "llm_guard",
    "profanity_check",
    "stackone",
    "stackone_parts",
    "vader",
]

_HOME = "shield_engine.guards.adapters"
_PEERS: Mapping[Task, tuple[tuple[str, str, str], ...]] = MappingProxyType(
    {
        Task.PROMPT_INJECTION: (("stackone-defender", "stackone_defender", "stackone"),),
        Task.TOXICITY: (("alt-profanity-check", "profanity_check", "profanity_check"),),
        Task.SENTIMENT: (("vaderSentiment", "vaderSentiment", "vader"),),
    }
)
"""By task: distribution, package and adapter of the peers that need no entry."""


def installed_peers(task: Task) -> tuple[PythonEntry, ...]:
    """Return the known peers of a task whose packages are installed, as guards."""
    return tuple(
        PythonEntry(
            name=distribution,
            task=task,
            version=metadata.version(distribution),
            threshold=stackone_parts()[2] if adapter == "stackone" else 0.5,
            callable=f"{_HOME}:{adapter}",
            factory=True,
        )
        for distribution, package, adapter in _PEERS[task]
        if util.find_spec(package) is not None
    )


def any_guardrail(guardrail: str, **options: Any) -> Callable[[str], float]:
    """Return the risk function of a guard of `any-guardrail`, which brings some forty.

    Args:
        guardrail: Its name there (`prompt_guard`, `protectai`, `llama_guard`).
        options: Handed to its constructor (`model_id`, `api_key`).
    """
    package = import_module("any_guardrail")
    name = package.GuardrailName(guardrail)
    guard = package.AnyGuardrail.create(name, **options)

    def risk(text: str) -> float:
        answer = guard.validate(text)
        if (getattr(answer, "extra", None) or {}).get("parse_failure"):
            raise ValueError("its answer could not be read")
        if answer.score is not None:
            return float(answer.score)
        if answer.valid is None:
            raise ValueError("gave neither score nor verdict")
        return float(not answer.valid)

    return risk


def llm_guard(scanner: str, package: str = "gorget", **options: Any) -> Callable[[str], float]:
    """Return the risk function of an input scanner of gorget, or of LLM Guard, which it continues.

    Their scores run from -1 to 1 with 0 at the scanner's own threshold; the risk is
    `(score + 1) / 2`, so .5 is that threshold.

    Args:
        scanner: Class of `input_scanners` (`PromptInjection`, `Toxicity`, `BanSubstrings`).
        package: `gorget` or `llm_guard`.
        options: Handed to its constructor.
    """
    made = getattr(import_module(f"{package}.input_scanners"), scanner)(**options)

    def risk(text: str) -> float:
        _, _, score = made.scan(text)
        return (float(score) + 1) / 2

    return risk


def stackone_parts() -> tuple[Path, float, float]:
    """Return the folder of the StackOne model, the divisor of its logits and its threshold."""
    from stackone_defender.classifiers.onnx_classifier import get_default_model_path

    folder = Path(get_default_model_path())
    calibration = json.loads((folder / "classifier_config.json").read_text())["calibration"]
    return folder, float(calibration["temperatureT"]), float(calibration["highRiskThreshold"])


def stackone() -> Callable[[str], float]:
    """Return the risk function of the model that stackone-defender carries."""
    from stackone_defender.classifiers.onnx_classifier import OnnxClassifier

    classifier = OnnxClassifier(temperature_t=stackone_parts()[1])
    return lambda text: float(classifier.classify(text))


def profanity_check() -> Callable[[str], float]:
    """Return the risk function of alt-profanity-check."""
    from profanity_check import predict_prob

    return lambda text: float(predict_prob([text])[0])


def vader() -> Callable[[str], tuple[float, ...]]:
    """Return VADER's verdict by its own cuts; how sure it is plays no part in a verdict."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer, cut = SentimentIntensityAnalyzer(), 0.05

    def probabilities(text: str) -> tuple[float, ...]:
        compound = analyzer.polarity_scores(text)["compound"]
        label = 0 if compound <= -cut else 2 if compound >= cut else 1
        return tuple(1.0 if place == label else 0.0 for place in range(3))

    return probabilities

"""What a run was made with: enough to repeat it, and to refuse to mix scores of two kinds."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from shield_engine.errors import ConfigError
from shield_engine.guards import GuardEntry
from shield_engine.heuristics import NORMALIZER_VERSION
from shield_engine.ml import ModelEntry
from shield_engine.parts import Parts
from shield_engine.store import DatasetInfo, RunInfo, RunStamp

__all__ = ["Scorer", "check_same_parts", "packages", "run_stamp"]


def run_stamp(dataset: DatasetInfo, parts: Parts, scorer: Scorer, workers: int) -> RunStamp:
    """Return what is needed to repeat a run: data, rules, model, packages, machine, commit."""
    return {
        "dataset_hash": dataset.content_hash,
        "rules_version": parts.heuristic.version if parts.heuristic else None,
        "linear_version": parts.linear.version if parts.linear else None,
        "model": scorer.identity,
        "guard": scorer.guard_facts,
        "packages": packages(),
        "machine": {
            "platform": platform.platform(),
            "processor": platform.machine(),
            "python": platform.python_version(),
            "workers": workers,
        },
        "git_commit": _git_commit(),
    }


@dataclass(frozen=True, slots=True)
class Scorer:
    """What scores beside the rules: a model of the registry, an outside guard, or nothing.

    A guard of kind `onnx` is both: a model under a name and threshold of its own.
    """

    model: ModelEntry | None = None
    guard: GuardEntry | None = None

    @property
    def name(self) -> str | None:
        """Name of the guard, or id of the model."""
        return self.guard.name if self.guard else self.model.id if self.model else None

    @property
    def variant(self) -> str | None:
        """Precision of a model's weights."""
        return self.model.variant.value if self.model else None

    @property
    def sha256(self) -> str | None:
        """Digest of the model's file, or fingerprint of the guard."""
        if self.model is not None:
            return self.model.sha256
        return self.guard.fingerprint if self.guard else None

    @property
    def identity(self) -> dict[str, Any] | None:
        """Everything that decides its score of a text."""
        entry = self.model
        if entry is None:
            identity = {"id": self.name, "variant": None, "sha256": self.sha256}
            return identity if self.guard else None
        return {
            "id": entry.id,
            "variant": entry.variant.value,
            "sha256": entry.sha256,
            "revision": entry.revision,
            "tokenizer_sha256": entry.tokenizer_sha256,
            "max_length": entry.max_length,
            "stride": entry.stride,
            "window_penalty": entry.window_penalty,
            "normalizer": NORMALIZER_VERSION,
        }

    @property
    def guard_facts(self) -> dict[str, Any] | None:
        """What pages and reports say of a guard, whether it is declared later or not."""
        names = ("name", "version", "kind", "threshold", "price_per_1000")
        return {name: getattr(self.guard, name) for name in names} if self.guard else None


def packages() -> dict[str, str]:
    """Return the version of each package that decides scores."""
    names = ("llm-shield", "onnxruntime", "tokenizers", "numpy", "duckdb")
    return {name: metadata.version(name) for name in names}


def check_same_parts(run: RunInfo, parts: Parts, scorer: Scorer) -> None:
    """Refuse to go on with a run whose rules or model are no longer those it began with.

    Raises:
        ConfigError: They are not.
    """
    heuristic, linear = parts.heuristic, parts.linear
    versions = {
        "rule-set version": (run.stamp["rules_version"], heuristic.version if heuristic else None),
        "linear tier": (run.stamp.get("linear_version"), linear.version if linear else None),
        "model SHA-256": (run.model_sha256, scorer.sha256),
    }
    for name, (then, now) in versions.items():
        if now != then:
            raise ConfigError(
                f"run {run.run_id} began with {name} {then}, now it is {now}: "
                "scores of two kinds must not be mixed; start a new run"
            )


def _git_commit() -> str | None:
    """Return the commit of the checkout this engine runs from, `None` where it is installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None

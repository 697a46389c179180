"""The middle tier of hybrid: a linear model of character n-grams that lets plain text pass.

Where the rules are silent it says how much a text resembles one that the model would flag. It never
flags by itself. Hides the features, the weights' file and its version.
"""

from __future__ import annotations

import hashlib
import math
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from shield_engine.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BUCKETS", "LONGEST", "LinearTier", "features", "linear_tier", "weights_path"]

BUCKETS = 1 << 18
LONGEST = 1500
"""Characters; in a longer text a few words say little about the whole, so it scores 1."""

_FOLDER = Path(__file__).with_name("weights")
_STEP, _SPREAD, _MIX = (np.uint32(n) for n in (0x01000193, 0x9E3779B1, 0x85EBCA6B))
_FOLD, _TO_BUCKET = np.uint32(15), np.uint32(32 - 18)
_SHORTEST_GRAM, _LONGEST_GRAM = 3, 5
_WORD = re.compile(r"\w+|[^\w\s]")
_LONGEST_PHRASE = 3


def features(text: str) -> NDArray[np.uint32]:
    """Return the buckets, in [0, BUCKETS), of a text's n-grams in lower case.

    These are 3 to 5 bytes of UTF-8, and 1 to 3 words or signs.
    """
    lowered = text.lower()
    codes = np.frombuffer(f" {lowered} ".encode("utf-8", "replace"), np.uint8).astype(np.uint32)
    spread = codes * _SPREAD
    rolling, buckets = codes, []
    for size in range(2, _LONGEST_GRAM + 1):
        rolling = rolling[:-1] * _STEP + spread[size - 1 :]
        rolling ^= rolling >> _FOLD
        if size >= _SHORTEST_GRAM:
            buckets.append((rolling * _MIX) >> _TO_BUCKET)
    words = np.array(
        [crc32(word.encode("utf-8", "replace")) for word in _WORD.findall(lowered)], np.uint32
    )
    for size in range(1, _LONGEST_PHRASE + 1):
        phrase = words
        for place in range(1, size):
            phrase = phrase[:-1] * _STEP + words[place:]
        buckets.append((phrase * _MIX) >> _TO_BUCKET)
    return np.concatenate(buckets)


class LinearTier:
    """Scores a text by its n-grams; safe to call from several threads.

    Attributes:
        task: What it looks for.
        weights: One a bucket, float32.
        intercept: Log-odds of a text without any n-gram.
        version: Hash of both.
    """

    __slots__ = ("intercept", "task", "version", "weights")

    def __init__(self, task: Task, weights: NDArray[np.float32], intercept: float) -> None:
        self.task = task
        self.weights = weights
        self.intercept = intercept
        digest = hashlib.sha256(weights.tobytes())
        digest.update(repr(intercept).encode())
        self.version = digest.hexdigest()[:16]

    def score(self, text: str) -> float:
        """Return how likely the model is to flag `text`, 0..1; 1 beyond `LONGEST` characters."""
        if len(text) > LONGEST:
            return 1.0
        grams = features(text)
        if not len(grams):
            return 0.0
        margin = self.weights[grams].sum() / math.sqrt(len(grams)) + self.intercept
        return 1.0 / (1.0 + math.exp(-min(max(float(margin), -30.0), 30.0)))


def weights_path(task: Task) -> Path:
    """Return where the bundled weights of a task lie."""
    return _FOLDER / f"{task.value}.npz"


@cache
def linear_tier(task: Task) -> LinearTier | None:
    """Return the bundled tier of a task; sentiment has none."""
    if task is Task.SENTIMENT:
        return None
    with np.load(weights_path(task)) as stored:
        weights = stored["weights"].astype(np.float32)
        return LinearTier(task, weights, float(stored["intercept"]))

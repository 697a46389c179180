"""What one pass through a shared model computed for the scanners that have not asked yet.

A file with a head for each task gives all logits at once. The first scanner of a text keeps its own
and leaves the others here; each is handed out once, so that a text that is scanned again by the
same scanner is computed again and never looks faster than it is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Handover", "WindowLogits"]

_TEXTS = 64  # scanners of one pipeline follow each other closely
_WINDOWS = 64  # a longer text is computed anew, so that memory stays bounded


@dataclass(frozen=True, slots=True)
class WindowLogits:
    """One window of a text and what each head said of it.

    Attributes:
        logits: By name of the output, each of shape (1, n_labels).
        start: First character of the window.
        end: The one after its last.
        tokens: Tokens of the window, special ones not counted.
        fresh: Tokens that the window before did not have.
        infer_ms: Time in the model.
    """

    logits: Mapping[str, NDArray[np.floating[Any]]]
    start: int
    end: int
    tokens: int
    fresh: int
    infer_ms: float


class Handover:
    """A few texts' logits, by text; safe to share between threads."""

    def __init__(self, texts: int = _TEXTS) -> None:
        self._texts = texts
        self._kept: OrderedDict[str, tuple[Sequence[WindowLogits], set[str]]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, text: str, windows: Sequence[WindowLogits], outputs: Sequence[str]) -> None:
        """Keep the windows of `text` for the heads named, unless it is too long."""
        if len(windows) > _WINDOWS:
            return
        with self._lock:
            self._kept[text] = windows, set(outputs)
            self._kept.move_to_end(text)
            if len(self._kept) > self._texts:
                self._kept.popitem(last=False)

    def take(self, text: str, output: str) -> Sequence[WindowLogits] | None:
        """Return the windows of `text` once for each head, or None."""
        with self._lock:
            found = self._kept.get(text)
            if found is None or output not in found[1]:
                return None
            windows, waiting = found
            waiting.discard(output)
            if not waiting:
                del self._kept[text]
            return windows

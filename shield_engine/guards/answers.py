"""What a guard answered, kept as it came: nobody asks, or pays for, the same text twice.

A run stores its rows in batches; a crash loses the batch in flight. The answers in it have cost
money and time, so each is written here at once, and a resumed run takes it from here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import IO

from shield_engine.cache import text_digest
from shield_engine.errors import InferenceError
from shield_engine.guards.entry import Guard, Reply
from shield_engine.ml import MLScore

__all__ = ["LoggedGuard", "score_of"]


class LoggedGuard:
    """A guard that remembers its answers, in memory and in a file; shared by threads.

    Failures are remembered only until `score` has told of them, and never written.
    """

    def __init__(self, guard: Guard, path: Path | None = None) -> None:
        """Remember what `guard` answers.

        Args:
            guard: Who is asked.
            path: Where answers are written, and read from if it is there; in memory only if `None`.
        """
        self.guard = guard
        self._answers: dict[str, Reply] = {}
        self._lock = threading.Lock()
        self._file: IO[str] | None = None
        if path is not None:
            if path.exists():
                self._read(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="ascii")

    def score(self, text: str) -> MLScore:
        """Return the guard's score of a text, asked for at most once.

        Raises:
            InferenceError: The guard failed on it.
        """
        digest = text_digest(text).hex()
        with self._lock:
            reply = self._answers.get(digest)
        if reply is None:
            (reply,) = self.guard.ask([text])
            self._keep(digest, reply)
        if reply.probabilities is None:
            with self._lock:
                self._answers.pop(digest, None)
        return _score(self.guard, text, reply)

    def ask_ahead(self, texts: Sequence[str], pool: Executor) -> None:
        """Ask about texts in batches, if the guard takes batches; `score` then has the answers."""
        if self.guard.entry.batch == 1:
            return
        with self._lock:
            new = {text_digest(text).hex(): text for text in texts}
            new = {digest: text for digest, text in new.items() if digest not in self._answers}

        def ask(part: Sequence[tuple[str, str]]) -> None:
            replies = self.guard.ask([text for _, text in part])
            for (digest, _), reply in zip(part, replies, strict=True):
                self._keep(digest, reply)

        items, size = list(new.items()), self.guard.entry.batch
        list(pool.map(ask, (items[at : at + size] for at in range(0, len(items), size))))

    def close(self) -> None:
        """Close the file and the guard."""
        if self._file is not None:
            self._file.close()
        self.guard.close()

    def _keep(self, digest: str, reply: Reply) -> None:
        with self._lock:
            self._answers[digest] = reply
            if self._file is not None and reply.probabilities is not None:
                line = [digest, reply.probabilities, reply.latency_ms]
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()  # to the system: a kill of this process loses nothing

    def _read(self, path: Path) -> None:
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            try:
                digest, probabilities, latency_ms = json.loads(line)
                self._answers[digest] = Reply(tuple(probabilities), None, latency_ms)
            except (ValueError, TypeError):
                continue  # the line that a crash cut


def score_of(guard: Guard, text: str) -> MLScore:
    """Return a guard's score of one text.

    Raises:
        InferenceError: The guard failed on it.
    """
    return _score(guard, text, guard.ask([text])[0])


def _score(guard: Guard, text: str, reply: Reply) -> MLScore:
    probabilities = reply.probabilities
    if probabilities is None:
        raise InferenceError(f"{guard.entry.name}: {reply.error}")
    return MLScore(
        score=probabilities[1] if len(probabilities) == 2 else probabilities[0],
        probabilities=probabilities,
        window=(0, len(text)),
        windows=1,
        tokens=0,
        tokenize_ms=0.0,
        infer_ms=reply.latency_ms,
    )

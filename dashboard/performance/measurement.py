"""One benchmark at a time in the background of the server, kept in the store when it is done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Measurement"]

logger = logging.getLogger(__name__)

Measuring = Callable[[Callable[[str, float], None]], dict[str, Any]]
Keep = Callable[[dict[str, Any]], str]


class Measurement:
    """Measures in a thread of its own; any session may look at how far it is.

    Attributes:
        title: What is measured now.
        share: How much is done, 0..1.
        benchmark_id: Id of the last one that was kept.
        error: Why the last one ended early, if it did; its traceback is in the log.
    """

    def __init__(self) -> None:
        self.title = ""
        self.share = 0.0
        self.benchmark_id: str | None = None
        self.error: Exception | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def is_active(self) -> bool:
        """Whether something is being measured."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def start(self, measure: Measuring, keep: Keep) -> bool:
        """Begin, and return whether this call did; a measurement under way goes on undisturbed.

        Args:
            measure: Measures, reporting title and share on the way.
            keep: Stores the document and returns its id.
        """
        with self._lock:
            if self.is_active:
                return False
            self.title, self.share, self.error = "getting ready", 0.0, None
            self.benchmark_id = None
            self._thread = threading.Thread(
                target=self._run, args=(measure, keep), name="benchmark", daemon=True
            )
            self._thread.start()
        return True

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the end of what is under way."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, measure: Measuring, keep: Keep) -> None:
        try:
            self.benchmark_id = keep(measure(self._note))
        except Exception as error:  # a thread's error reaches the page through here
            logger.exception("The benchmark ended early")
            self.error = error

    def _note(self, title: str, share: float) -> None:
        self.title, self.share = title, share

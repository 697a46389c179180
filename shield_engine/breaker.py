"""A circuit breaker: after repeated failures calls are refused for a while, then one is let through."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import StrEnum

__all__ = ["BreakerState", "CircuitBreaker"]


class BreakerState(StrEnum):
    """Closed lets calls through, open refuses them, half-open lets one through to try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Opens after `failures` in a row and tries again after `reset_s` seconds. Thread-safe."""

    def __init__(
        self,
        failures: int = 5,
        reset_s: float = 30.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._reset_s = reset_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._opened_at: float | None = None
        self._trying = False

    @property
    def state(self) -> BreakerState:
        """The state as of now."""
        with self._lock:
            if self._opened_at is None:
                return BreakerState.CLOSED
            if self._clock() - self._opened_at >= self._reset_s:
                return BreakerState.HALF_OPEN
            return BreakerState.OPEN

    def allows(self) -> bool:
        """Return whether a call may go through; in half-open state only the first one may."""
        with self._lock:
            if self._opened_at is None:
                return True
            if self._trying or self._clock() - self._opened_at < self._reset_s:
                return False
            self._trying = True
            return True

    def succeed(self) -> None:
        """Note a call that went well: the breaker closes.

        A call begun before the breaker opened proves nothing about now and leaves it open.
        """
        with self._lock:
            if self._opened_at is not None and not self._trying:
                return
            self._failures = 0
            self._opened_at = None
            self._trying = False

    def fail(self) -> None:
        """Note a call that failed; the `failures`-th in a row opens the breaker."""
        with self._lock:
            self._failures += 1
            if self._trying or self._failures >= self._limit:
                self._opened_at = self._clock()
            self._trying = False

"""Guards that are Python functions: a text in; a risk, a probability for each label, or a mapping out.

Hides how the function is found, what shapes of answer are understood, and what is done when it
raises, exits or hangs.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTimeError
from typing import Any

from shield_engine.errors import ConfigError
from shield_engine.guards.entry import PythonEntry, Reply
from shield_engine.types import LABELS, Task

__all__ = ["ENTRY_POINTS", "PythonGuard", "probabilities_of"]

ENTRY_POINTS = "llm_shield.guards"
"""Entry-point group under which an installed package offers its guards."""

_TOLERANCE = 1e-6  # of a sum of probabilities


class PythonGuard:
    """A Python function as a guard."""

    def __init__(self, entry: PythonEntry) -> None:
        """Import the function and make it ready.

        Raises:
            ConfigError: It cannot be imported, made or called.
        """
        self.entry = entry
        self._function = _function_of(entry)
        self._lock = contextlib.nullcontext() if entry.thread_safe else threading.Lock()
        # Each call runs in a thread of its own pool, so that one that hangs can be left behind.
        self._pool = self._new_pool()

    def ask(self, texts: Sequence[str]) -> list[Reply]:
        """Return one reply a text."""
        return [self._ask(text) for text in texts]

    def close(self) -> None:
        """Let go of the threads; one that hangs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _new_pool(self) -> ThreadPoolExecutor:
        workers = self.entry.concurrency if self.entry.thread_safe else 1
        return ThreadPoolExecutor(workers, thread_name_prefix=f"guard-{self.entry.name}")

    def _ask(self, text: str) -> Reply:
        with self._lock:
            started = time.perf_counter()
            future = self._pool.submit(_called, self._function, text)
            try:
                answer = future.result(self.entry.timeout_s)
            except NotInTimeError:
                return self._hung()
            except Exception as error:  # noqa: BLE001 - whatever somebody else's code raises
                return Reply(None, _reason(error), _since_ms(started))
        try:
            return Reply(probabilities_of(answer, self.entry.task), None, _since_ms(started))
        except ValueError as error:
            return Reply(None, str(error), _since_ms(started))

    def _hung(self) -> Reply:
        # The thread cannot be stopped; a new pool takes over from it.
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._new_pool()
        return Reply(
            None, f"no answer within {self.entry.timeout_s:g} s", self.entry.timeout_s * 1_000
        )


def probabilities_of(answer: Any, task: Task) -> tuple[float, ...]:
    """Return what a function gave as one probability for each of `LABELS[task]`.

    Args:
        answer: A risk (of two classes), a probability for each label in the order of the task's
            labels, or a mapping of label to probability.
        task: What the risk is about.

    Raises:
        ValueError: It is none of these, or not within 0..1.
    """
    labels = LABELS[task]
    if isinstance(answer, Mapping):
        missing = [label for label in labels if label not in answer]
        if missing:
            raise ValueError(f"the answer has no label {missing[0]}; it needs {', '.join(labels)}")
        answer = [answer[label] for label in labels]
    elif not hasattr(answer, "__len__"):
        if len(labels) != 2:
            raise ValueError(f"gave one number; {task.value} needs {', '.join(labels)}")
        risk = _number(answer)
        return 1 - risk, risk
    values = tuple(_number(value) for value in answer)
    if len(values) != len(labels):
        raise ValueError(f"gave {len(values)} numbers for {len(labels)} labels")
    total = sum(values)
    if abs(total - 1) > _TOLERANCE * max(1, len(values)) * 1_000:
        raise ValueError(f"gave probabilities that sum to {total:.3f}, not 1")
    return tuple(value / total for value in values)


def _number(value: Any) -> float:
    if isinstance(value, str | bytes | bool) or not hasattr(value, "__float__"):
        raise ValueError(f"gave {type(value).__name__}, not a number")
    number = float(value)
    if not 0 <= number <= 1:  # also where it is NaN
        raise ValueError(f"gave {number}, which is not in 0..1")
    return number


def _function_of(entry: PythonEntry) -> Callable[[str], Any]:
    where = f"guard {entry.name}: callable {entry.callable!r}"
    try:
        target = _imported(entry.callable)
        function = target(**entry.options) if entry.factory else target
    except ImportError as error:
        raise ConfigError(
            f"{where} cannot be imported: {error}; install the package it lies in"
        ) from error
    except (AttributeError, LookupError) as error:
        raise ConfigError(f"{where} is not there: {error}") from error
    except Exception as error:
        raise ConfigError(f"{where} cannot be made: {_reason(error)}") from error
    if not callable(function):
        raise ConfigError(f"{where} is {type(function).__name__}, which cannot be called")
    return function  # type: ignore[no-any-return]


def _imported(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if colon:
        target: Any = importlib.import_module(module)
        for part in attribute.split("."):
            target = getattr(target, part)
        return target
    offered = {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        known = ", ".join(sorted(offered)) or "none"
        raise LookupError(f"no installed package offers it; offered: {known}")
    return offered[name].load()


def _called(function: Callable[[str], Any], text: str) -> Any:
    """Call a function; an exit is an error like any other."""
    try:
        return function(text)
    except SystemExit as error:
        raise RuntimeError(f"asked to exit with {error.code!r}") from None


def _reason(error: BaseException) -> str:
    """Return an error's type; its message might quote the text."""
    return f"raised {type(error).__name__}"


def _since_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1_000

"""Scores texts with a loaded model; the same text always gets the same score.

Each window runs alone and unpadded, because dynamic INT8 takes its activation scale from all that
is in a batch: padding and neighbours would change a text's score. On a CPU batches gain nothing
(unpadded single texts over threads run 3.4-3.9 times faster than padded batches), so speed comes
from threads. Hides windows, feeds, soft maximum, label order and time-outs.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from shield_engine.errors import ConfigError, InferenceError
from shield_engine.ml.loader import LoadedModel, WindowLogits
from shield_engine.ml.registry import ModelEntry
from shield_engine.ml.tokenizer import Window
from shield_engine.types import LABELS

__all__ = ["InferenceEngine", "MLScore", "WindowScore"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class MLScore:
    """What a model says of one text.

    Attributes:
        score: Risk in 0..1: P(risky class) of two classes, P(negative) of sentiment.
        probabilities: In the order of `LABELS[task]`, float64, summing to 1.
        window: First character of the riskiest window and the one after its last.
        windows: How many windows the text was read in.
        tokens: Tokens of the text, special ones not counted.
        tokenize_ms: Time to tokenize.
        infer_ms: Time in the model, all windows added up.
    """

    score: float
    probabilities: tuple[float, ...]
    window: tuple[int, int]
    windows: int
    tokens: int
    tokenize_ms: float
    infer_ms: float


@dataclass(frozen=True, slots=True)
class WindowScore:
    """One window's part of a score; small, so that millions of characters stay cheap.

    Attributes:
        probabilities: In the order of `LABELS[task]`, shape (n_classes,).
        start: First character of the window.
        end: The one after its last.
        tokens: Tokens of the window, special ones not counted.
        fresh: Tokens that the window before did not have.
        infer_ms: Time in the model.
    """

    probabilities: NDArray[np.float64]
    start: int
    end: int
    tokens: int
    fresh: int
    infer_ms: float


class InferenceEngine:
    """Runs one model for any number of threads.

    Of two classes, a text longer than the window gets the score of its riskiest window, less what
    the registry's `window_penalty` takes for the number of windows: one injected sentence is
    enough, but many windows are many chances of a false alarm. A sentiment is judged as a whole:
    its probabilities are the mean over windows, weighted by the tokens that each adds.
    """

    def __init__(
        self, model: LoadedModel, *, threads: int = 1, timeout_s: float | None = None
    ) -> None:
        """Make a ready engine.

        Args:
            model: What to run.
            threads: Texts of a batch, or windows of a long text, that run at once.
            timeout_s: Longest time for one text; no limit by default.

        Raises:
            ConfigError: `threads` or `timeout_s` is not above 0.
        """
        if threads < 1:
            raise ConfigError(f"threads={threads} is not above 0")
        if timeout_s is not None and not timeout_s > 0:
            raise ConfigError(f"timeout_s={timeout_s} is not above 0")
        self.model = model
        self._threads = threads
        self._timeout_s = timeout_s
        self._reduce = _Reduction(model.entry)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"infer-{model.entry.id}")
        self._watchdog = _Watchdog()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def infer(self, text: str) -> MLScore:
        """Score one text; windows of a long one run beside each other.

        Raises:
            InferenceError: The model failed, gave something that is not a finite score per label,
                or took too long.
        """
        self._check_open()
        if self._threads == 1:
            return self._score(text)
        return self._score(text, spread=True)

    def infer_batch(self, texts: Sequence[str]) -> list[MLScore]:
        """Score each text, in order, each as if it were alone.

        Raises:
            InferenceError: As for `infer`, with the position of the first text that failed.
        """
        self._check_open()
        scores: Iterable[MLScore]
        if self._threads == 1 or len(texts) < 2:
            scores = map(self._score_at, enumerate(texts))
        else:
            scores = self._spread(self._score_at, enumerate(texts))
        return list(scores)

    async def infer_async(self, text: str) -> MLScore:
        """Score one text on the engine's threads while the event loop goes on.

        Raises:
            InferenceError: As for `infer`.
        """
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._score, text)

    def window_scores(self, text: str) -> list[WindowScore]:
        """Score each window of one text by itself, in order: where in a long text the risk lies.

        Raises:
            InferenceError: As for `infer`.
        """
        self._check_open()
        with self._watchdog.watch(self._timeout_s) as watched:
            return [self._own(self._run(window, watched)) for window in self._cut(text)]

    def close(self) -> None:
        """Stop the threads after the texts in hand; the model stays loaded."""
        self._is_closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._watchdog.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise InferenceError(
                f"the engine of {self.model.entry.id} was closed; make a new InferenceEngine"
            )

    def _spread(self, run: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """Map over the pool in order, with few items in flight so that memory stays bounded."""
        waiting: deque[Future[_Result]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(run, item))
                if len(waiting) > 2 * self._threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _score_at(self, item: tuple[int, str]) -> MLScore:
        position, text = item
        try:
            return self._score(text)
        except InferenceError as error:
            raise InferenceError(f"text {position} of the batch: {error}") from error

    def _score(self, text: str, *, spread: bool = False) -> MLScore:
        started = time.perf_counter()
        handover, (own, *others) = self.model.handover, self.model.outputs
        if handover and (left := handover.take(text, own)) is not None:
            return self._reduce((self._own(window, 0.0) for window in left), lambda: 0.0)
        kept: list[WindowLogits] = []
        with self._watchdog.watch(self._timeout_s) as watched:
            cutting = _Stopwatch()
            windows = cutting.time(self._cut(text))

            def run(window: Window) -> WindowLogits:
                return self._run(window, watched)

            first = next(windows)
            second = next(windows, None)
            if second is None:
                logits: Iterable[WindowLogits] = [run(first)]
            else:
                rest = _chain(first, second, windows)
                logits = self._spread(run, rest) if spread else map(run, rest)
            if handover:
                logits = _kept_in(kept, logits)
            result = self._reduce(map(self._own, logits), lambda: cutting.total_ms)
        if self._timeout_s is not None and time.perf_counter() - started > self._timeout_s:
            raise self._too_slow()
        if handover:
            handover.put(text, kept, others)
        return result

    def _own(self, window: WindowLogits, infer_ms: float | None = None) -> WindowScore:
        return WindowScore(
            self._reduce.probabilities(window.logits[self.model.outputs[0]]),
            window.start,
            window.end,
            window.tokens,
            window.fresh,
            window.infer_ms if infer_ms is None else infer_ms,
        )

    def _cut(self, text: str) -> Iterator[Window]:
        try:
            yield from self.model.windows.windows(text)
        except InferenceError:
            raise
        except Exception as error:  # the tokenizer raises bare Exception
            raise InferenceError(
                f"the tokenizer of {self.model.entry.id} failed: {error}"
            ) from error

    def _run(self, window: Window, watched: _Watched) -> WindowLogits:
        if watched.is_late():
            raise self._too_slow()
        started = time.perf_counter()
        feeds = {}
        for name, kind in self.model.inputs:
            if name == "input_ids":
                values = window.ids
            elif name == "token_type_ids":
                values = window.type_ids
            else:
                values = np.ones_like(window.ids)
            feeds[name] = values.astype(kind, copy=False)[np.newaxis]
        try:
            found = self.model.session.run(self.model.outputs, feeds, watched.options)
        except Exception as error:  # the package's errors share no narrower class
            if watched.is_late():
                raise self._too_slow() from error
            raise InferenceError(
                f"{self.model.entry.id} {self.model.entry.variant.value} failed on a window of "
                f"{len(window.ids)} tokens: {error}"
            ) from error
        logits = dict(zip(self.model.outputs, map(np.asarray, found), strict=True))
        return WindowLogits(
            logits,
            window.start,
            window.end,
            window.tokens,
            window.fresh,
            (time.perf_counter() - started) * 1000,
        )

    def _too_slow(self) -> InferenceError:
        entry = self.model.entry
        return InferenceError(
            f"{entry.id} {entry.variant.value} took longer than {self._timeout_s} s for one text; "
            "raise the time-out or shorten the text"
        )


def _chain(first: Window, second: Window, rest: Iterator[Window]) -> Iterator[Window]:
    yield first
    yield second
    yield from rest


def _kept_in(kept: list[_Item], items: Iterable[_Item]) -> Iterator[_Item]:
    for item in items:
        kept.append(item)
        yield item


class _Stopwatch:
    """Adds up the time spent inside an iterator."""

    def __init__(self) -> None:
        self.total_ms = 0.0

    def time(self, items: Iterator[_Item]) -> Iterator[_Item]:
        while True:
            started = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.total_ms += (time.perf_counter() - started) * 1000
            yield item


class _Reduction:
    """From logits to a task's probabilities, and from windows to one score."""

    def __init__(self, entry: ModelEntry) -> None:
        self._entry = entry
        self._index = np.asarray(entry.task_index)
        self._n_classes = len(LABELS[entry.task])
        # Index 1 is the risky class of two; of the three sentiments it is the first, negative.
        self._risky = 1 if self._n_classes == 2 else 0

    def probabilities(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """Return the class probabilities of one window, shape (n_classes,).

        Soft maximum: labels of one class add up. Sigmoid: the labels are independent, and the
        highest risky one is the risk.

        Raises:
            InferenceError: Not one finite number per label.
        """
        entry, n_labels = self._entry, len(self._entry.labels)
        if logits.shape not in {(1, n_labels), (n_labels,)}:
            raise InferenceError(
                f"{entry.id} gave an output of shape {logits.shape}, not (1, {n_labels}); correct "
                "`labels` or export a sequence classifier"
            )
        values = logits.reshape(n_labels).astype(np.float64)
        if not np.isfinite(values).all():
            raise InferenceError(
                f"{entry.id} {entry.variant.value} gave a score that is not finite: {values}; "
                "try a wider variant"
            )
        if entry.post_processing == "softmax":
            powers = np.exp(values - values.max())
            classes = np.zeros(self._n_classes)
            np.add.at(classes, self._index, powers / powers.sum())
            return classes
        chances = np.exp(-np.logaddexp(0.0, -values))  # 1 / (1 + e^-x) without overflow
        risk = float(chances[self._index == self._risky].max())
        return np.asarray([1.0 - risk, risk])

    def __call__(self, scores: Iterable[WindowScore], tokenize_ms: Callable[[], float]) -> MLScore:
        """Return one text's score from its windows, first to last."""
        riskiest: WindowScore | None = None
        total = np.zeros(self._n_classes)
        weight = infer_ms = 0.0
        windows = tokens = 0
        for score in scores:
            if riskiest is None or self._risk(score) > self._risk(riskiest):
                riskiest = score
            share = max(score.fresh, 1)
            total += score.probabilities * share
            weight += share
            windows += 1
            tokens += score.fresh
            infer_ms += score.infer_ms
        assert riskiest is not None  # noqa: S101 - every text has a window
        decides = riskiest.probabilities
        if windows > 1:
            decides = total / weight if self._n_classes > 2 else self._corrected(decides, windows)
        return MLScore(
            score=float(decides[self._risky]),
            probabilities=tuple(float(p) for p in decides),
            window=(riskiest.start, riskiest.end),
            windows=windows,
            tokens=tokens,
            tokenize_ms=tokenize_ms(),
            infer_ms=infer_ms,
        )

    def _corrected(self, probabilities: NDArray[np.float64], windows: int) -> NDArray[np.float64]:
        """Take the penalty for `windows` chances from the log-odds of the riskiest window."""
        factor = windows**-self._entry.window_penalty
        safe, risky = probabilities
        whole = safe + risky * factor
        return np.asarray([safe / whole, risky * factor / whole])

    def _risk(self, score: WindowScore) -> float:
        return float(score.probabilities[self._risky])


class _Watched:
    """One text's deadline; its run options tell ONNX Runtime to stop between two nodes."""

    def __init__(self, watchdog: _Watchdog, timeout_s: float | None) -> None:
        self._watchdog = watchdog
        self.deadline: float | None = None
        self.options: Any = None
        if timeout_s is not None:
            import onnxruntime

            self.deadline = time.monotonic() + timeout_s
            self.options = onnxruntime.RunOptions()

    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def stop(self) -> None:
        self.options.terminate = True

    def __enter__(self) -> Self:
        if self.deadline is not None:
            self._watchdog.add(self)
        return self

    def __exit__(self, *exception: object) -> None:
        if self.deadline is not None:
            self._watchdog.remove(self)


class _Watchdog:
    """One thread that stops texts at their deadline; started by the first that has one.

    All deadlines lie equally far ahead, so the oldest text is always the next to expire.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: dict[_Watched, None] = {}
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def watch(self, timeout_s: float | None) -> _Watched:
        return _Watched(self, timeout_s)

    def add(self, watched: _Watched) -> None:
        with self._changed:
            self._watched[watched] = None
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._guard, name="infer-watchdog", daemon=True
                )
                self._thread.start()
            if len(self._watched) == 1:
                self._changed.notify()

    def remove(self, watched: _Watched) -> None:
        with self._changed:
            self._watched.pop(watched, None)

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _guard(self) -> None:
        with self._changed:
            while not self._is_closed:
                oldest = next(iter(self._watched), None)
                if oldest is None or oldest.deadline is None:
                    self._changed.wait()
                elif oldest.is_late():
                    oldest.stop()
                    self._watched.pop(oldest)
                else:
                    self._changed.wait(max(oldest.deadline - time.monotonic(), 0))

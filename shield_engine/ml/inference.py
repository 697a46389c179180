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
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from shield_engine.errors import ConfigError, InferenceError
from shield_engine.ml.loader import LoadedModel, WindowLogits
from shield_engine.ml.registry import ModelEntry
from shield_engine.ml.tokenizer import Place, Window
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
        place: Where the window lies in the text.
        probabilities: In the order of `LABELS[task]`, shape (n_classes,).
        infer_ms: Time in the model.
    """

    place: Place
    probabilities: NDArray[np.float64]
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
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def infer(self, text: str, *, until: Callable[[], str | None] | None = None) -> MLScore:
        """Score one text; windows of a long one run beside each other.

        Args:
            text: Any text.
            until: Asked before each window; a reason that it returns ends the text.

        Raises:
            InferenceError: The model failed, gave something that is not a finite score per label,
                took too long, or was told to end.
        """
        self._check_open()
        return self._score(text, spread=self._threads > 1, until=until)

    def infer_batch(self, texts: Sequence[str]) -> list[MLScore]:
        """Score each text, in order, each as if it were alone.

        Raises:
            InferenceError: As for `infer`, with the position of the first text that failed.
        """
        self._check_open()
        if self._threads == 1 or len(texts) < 2:
            return list(map(self._score_at, enumerate(texts)))
        return list(self._spread(self._score_at, enumerate(texts)))

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
        with self._time_limit() as limit:
            return [self._own(self._run(window, limit)) for window in self._cut(text)]

    def close(self) -> None:
        """Stop the threads after the texts in hand; the model stays loaded."""
        self._is_closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

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

    def _score(
        self, text: str, *, spread: bool = False, until: Callable[[], str | None] | None = None
    ) -> MLScore:
        started = time.perf_counter()
        handover, (own, *others) = self.model.handover, self.model.outputs
        if handover and (left := handover.take(text, own)) is not None:
            return self._reduce([self._own(window, 0.0) for window in left], tokenize_ms=0.0)
        with self._time_limit() as limit:
            cutting = _Stopwatch()
            windows = cutting.time(self._cut(text))
            run = partial(self._run, limit=limit, until=until)
            head = list(islice(windows, 2))
            windows = chain(head, windows)
            is_spread = spread and len(head) > 1
            logits = list(self._spread(run, windows) if is_spread else map(run, windows))
            result = self._reduce(list(map(self._own, logits)), cutting.total_ms)
        if self._timeout_s is not None and time.perf_counter() - started > self._timeout_s:
            raise self._too_slow()
        if handover:
            handover.put(text, logits, others)
        return result

    def _own(self, window: WindowLogits, infer_ms: float | None = None) -> WindowScore:
        return WindowScore(
            window.place,
            self._reduce.probabilities(window.logits[self.model.outputs[0]]),
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

    @contextmanager
    def _time_limit(self) -> Iterator[Any]:
        """Give run options that tell ONNX Runtime to stop between two nodes when time is over.

        Without a time-out there are none, and no thread waits.
        """
        if self._timeout_s is None:
            yield None
            return
        import onnxruntime

        limit = onnxruntime.RunOptions()
        timer = threading.Timer(self._timeout_s, setattr, (limit, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            yield limit
        finally:
            timer.cancel()

    def _run(
        self, window: Window, limit: Any, until: Callable[[], str | None] | None = None
    ) -> WindowLogits:
        if until is not None and (reason := until()) is not None:
            raise InferenceError(f"{self.model.entry.id} was ended: {reason}")
        if limit and limit.terminate:
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
            results = self.model.session.run(self.model.outputs, feeds, limit)
        except Exception as error:  # the package's errors share no narrower class
            if limit and limit.terminate:
                raise self._too_slow() from error
            raise InferenceError(
                f"{self.model.entry.id} {self.model.entry.variant.value} failed on a window of "
                f"{len(window.ids)} tokens: {error}"
            ) from error
        logits = dict(zip(self.model.outputs, map(np.asarray, results), strict=True))
        return WindowLogits(window.place, logits, (time.perf_counter() - started) * 1000)

    def _too_slow(self) -> InferenceError:
        entry = self.model.entry
        return InferenceError(
            f"{entry.id} {entry.variant.value} took longer than {self._timeout_s} s for one text; "
            "raise the time-out or shorten the text"
        )


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
        self._bias = np.asarray([entry.bias.get(label, 0.0) for label in entry.labels])
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
        values = (values + self._bias) / entry.temperature
        if entry.post_processing == "softmax":
            powers = np.exp(values - values.max())
            classes = np.zeros(self._n_classes)
            np.add.at(classes, self._index, powers / powers.sum())
            return classes
        chances = np.exp(-np.logaddexp(0.0, -values))  # 1 / (1 + e^-x) without overflow
        risk = float(chances[self._index == self._risky].max())
        return np.asarray([1.0 - risk, risk])

    def __call__(self, scores: Sequence[WindowScore], tokenize_ms: float) -> MLScore:
        """Return one text's score from its windows, first to last; every text has one."""
        riskiest = max(scores, key=lambda score: float(score.probabilities[self._risky]))
        decides = riskiest.probabilities
        if len(scores) > 1 and self._n_classes > 2:
            shares = [max(score.place.fresh, 1) for score in scores]
            parts = (score.probabilities * n for score, n in zip(scores, shares, strict=True))
            decides = sum(parts, np.zeros(self._n_classes)) / sum(shares)
        elif len(scores) > 1:
            decides = self._corrected(decides, len(scores))
        return MLScore(
            score=float(decides[self._risky]),
            probabilities=tuple(float(p) for p in decides),
            window=(riskiest.place.start, riskiest.place.end),
            windows=len(scores),
            tokens=sum(score.place.fresh for score in scores),
            tokenize_ms=tokenize_ms,
            infer_ms=sum(score.infer_ms for score in scores),
        )

    def _corrected(self, probabilities: NDArray[np.float64], windows: int) -> NDArray[np.float64]:
        """Take the penalty for `windows` chances from the log-odds of the riskiest window."""
        factor = windows**-self._entry.window_penalty
        safe, risky = probabilities
        whole = safe + risky * factor
        return np.asarray([safe / whole, risky * factor / whole])

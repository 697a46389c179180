"""Counting and intervals, against cases computed by hand."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from shield_engine.benchmark.timing import (
    Round,
    mean_estimate,
    percentile_estimate,
    ratio_of_rounds,
    time_arrivals,
    time_interleaved,
    time_threads,
)
from shield_engine.types import ScanResult


class CountingScanner:
    """Passes every text and counts it; fails on one text if told to."""

    name = "counting"

    def __init__(self, fails_on: str | None = None) -> None:
        self.seen: list[str] = []
        self.threads: set[int] = set()
        self._fails_on = fails_on
        self._lock = threading.Lock()

    def scan(self, text: str) -> ScanResult:
        """Let `text` pass."""
        if text == self._fails_on:
            raise ValueError("told to fail")
        with self._lock:
            self.seen.append(text)
            self.threads.add(threading.get_ident())
        return ScanResult.passed(text, scanner=self.name)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_a_round_counts_exactly_the_texts_that_were_scanned(threads: int) -> None:
    """Every text is scanned once and counted once, whatever the number of threads."""
    scanner = CountingScanner()
    texts = [f"text {position}" for position in range(101)]

    done = time_threads(scanner.scan, texts, threads)

    assert done.n == 101
    assert sorted(scanner.seen) == sorted(texts)
    assert len(scanner.threads) == threads
    assert done.wall_s > 0


def test_a_failing_scan_ends_the_round() -> None:
    """A text that could not be scored is never counted as one that was."""
    with pytest.raises(ValueError, match="told to fail"):
        time_threads(CountingScanner(fails_on="b").scan, ["a", "b", "c"], 2)


def test_texts_per_second_is_texts_over_wall_time() -> None:
    """CPU time has no part in the rate."""
    assert Round(n=50, wall_s=0.25, cpu_s=0.5).per_second == 200


def test_interleaved_calls_are_all_counted_and_take_turns_at_being_first() -> None:
    """Each call sees each item once, and each item begins with the next call."""
    order: list[str] = []

    def note(name: str, item: int) -> str:
        order.append(f"{name}{item}")
        return f"{name}{item}"

    timed = time_interleaved(
        {"a": lambda item: note("a", item), "b": lambda item: note("b", item)}, [0, 1, 2]
    )

    assert order == ["a0", "b0", "b1", "a1", "a2", "b2"]
    assert timed["a"].results == ("a0", "a1", "a2")
    assert timed["b"].results == ("b0", "b1", "b2")
    assert timed["a"].n == 3
    assert timed["a"].wall_s.shape == (3,)


def test_the_median_of_ten_lies_between_the_second_and_the_ninth() -> None:
    """P(B <= 1) = 11/1024 and P(B <= 8) = 1013/1024 are the first beyond 2.5% on either side."""
    estimate = percentile_estimate([5, 3, 10, 1, 8, 2, 7, 4, 9, 6], 0.5)

    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (5.5, 2, 9, 10)


def test_p99_has_an_upper_end_from_368_values_on() -> None:
    """1 - .99^367 = .97498 is below .975, 1 - .99^368 = .97523 is not."""
    assert percentile_estimate(np.arange(367), 0.99).high is None
    assert percentile_estimate(np.arange(368), 0.99).high == 367


def test_few_values_bound_a_percentile_on_neither_side() -> None:
    """Five values are too few: the median lies below all of them in 3.1% of samples."""
    estimate = percentile_estimate([1, 2, 3, 4, 5], 0.5)

    assert (estimate.value, estimate.low, estimate.high) == (3, None, None)


def test_a_percentile_of_very_few_values_stays_in_its_interval() -> None:
    """Both of two values lie below p99 98% of the time, so its lower end is the larger one."""
    estimate = percentile_estimate([1.0, 2.0], 0.99)

    assert (estimate.value, estimate.low, estimate.high) == (2, 2, None)


def test_percentile_intervals_cover_the_true_percentile_as_often_as_they_say() -> None:
    """In 2,000 samples of 50 uniform values the true p90 is inside at least 93.5% of the time."""
    generator = np.random.default_rng(3)
    inside = 0
    for _ in range(2_000):
        estimate = percentile_estimate(generator.random(50), 0.9)
        low = -np.inf if estimate.low is None else estimate.low
        high = np.inf if estimate.high is None else estimate.high
        inside += bool(low <= 0.9 <= high)

    assert inside / 2_000 >= 0.935


def test_a_mean_has_the_interval_of_students_t() -> None:
    """For 1, 2, 3: 2 +- 4.302653 / sqrt(3)."""
    estimate = mean_estimate([1, 2, 3], "loads")

    assert estimate.value == 2
    assert estimate.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert estimate.high == pytest.approx(2 + 2.484138, abs=1e-6)
    assert "loads" in estimate.method


def test_one_value_has_no_interval() -> None:
    """What cannot be known is not claimed."""
    estimate = mean_estimate([4.0])

    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (4, None, None, 1)


def test_an_estimate_in_another_unit_keeps_its_open_end() -> None:
    """Scaling touches numbers only."""
    estimate = percentile_estimate(np.arange(200), 0.99).scaled(1_000)

    assert estimate.value == pytest.approx(197_010)
    assert estimate.low == 194_000
    assert estimate.high is None


def test_rounds_are_compared_pair_by_pair() -> None:
    """Twice and eight times as fast is four times as fast on the geometric mean."""
    slow = [Round(100, 1.0, 1.0), Round(100, 4.0, 4.0)]
    fast = [Round(100, 0.5, 1.0), Round(100, 0.5, 1.0)]

    estimate = ratio_of_rounds(fast, slow)

    assert estimate.value == pytest.approx(4)
    assert estimate.n == 2
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low < 4 < estimate.high


def test_waiting_for_a_free_thread_counts() -> None:
    """Ten items that arrive at once on one thread: the last waits for the nine before it."""

    def serve(item: int) -> int:
        time.sleep(0.01)
        return item

    timed = time_arrivals(serve, range(10), per_second=1e6, threads=1, seed=1)

    assert timed.results == tuple(range(10))
    assert timed.wall_s[-1] >= 0.09
    assert np.all(timed.wall_s >= 0.01)


def test_an_arrival_that_fails_ends_the_measurement() -> None:
    """A request without an answer has no latency."""
    with pytest.raises(ZeroDivisionError):
        time_arrivals(lambda item: 1 / item, [1, 0], per_second=1e6, threads=1, seed=1)

"""How long a run would take and what it would cost, from a few of its rows, in bounded time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from shield_engine.engine import Shield
from shield_engine.runs.execution import RunSpec, ready_parts, scorer_of, workers_of
from shield_engine.store import Store

__all__ = ["Estimate", "estimate"]

_SAMPLE = 48
_ASKED_OUTSIDE = 3  # each call of an outside guard may cost money
_LONGEST_S = 5.0
_LONGEST_CHARS = 8_000  # of a sampled text; longer ones take longer in line with their length


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a run would take, from a timed sample of its own rows.

    Attributes:
        rows: Rows of the run.
        sampled: Rows that were timed.
        rows_per_s: Their rate.
        seconds: Of all rows.
        calls: Most calls of an outside guard; repeated texts are asked once.
        price: What those cost.
    """

    rows: int
    sampled: int
    rows_per_s: float
    seconds: float
    calls: int = 0
    price: float = 0.0


def estimate(
    store: Store, shield: Shield, dataset_id: str, spec: RunSpec, sample: int = _SAMPLE
) -> Estimate:
    """Time rows spread over the lengths of a dataset, with the run's workers; nothing is stored.

    A line through time by length of the sampled texts gives the time of all. It takes at most a few
    seconds, whatever the texts are. A sample of 0 asks nothing: calls and price come without a time.
    """
    dataset = store.datasets.find(dataset_id)
    rows = min(dataset.rows, spec.limit or dataset.rows)
    if rows == 0:
        return Estimate(0, 0, 0.0, 0.0)
    scorer = scorer_of(shield, dataset.task, spec)
    guard = scorer.guard
    calls = -(-rows // guard.batch) if guard and scorer.model is None else 0
    price = calls * guard.price_per_1000 / 1_000 if guard else 0.0
    if sample == 0:
        return Estimate(rows, 0, 0.0, 0.0, calls, price)
    parts, _ = ready_parts(shield, dataset.task, spec)
    if guard is not None and scorer.model is None:
        sample = _ASKED_OUTSIDE
    lengths = store.datasets.lengths(dataset_id)[:rows]
    by_length = np.argsort(lengths, kind="stable")
    places = by_length[np.unique(np.linspace(0, rows - 1, min(sample, rows)).astype(int))]
    texts = [
        store.datasets.texts(dataset_id, int(place), int(place) + 1)[0][1][:_LONGEST_CHARS]
        for place in np.random.default_rng(7).permutation(places)
    ]
    parts.score(texts[0][:100])  # the first call pays for lazy set-up

    def timed(text: str) -> tuple[int, float]:
        started = time.perf_counter()
        parts.score(text)
        return len(text), time.perf_counter() - started

    began = time.perf_counter()
    with ThreadPoolExecutor(workers_of(shield, spec, scorer)) as pool:
        asked = [pool.submit(timed, text) for text in texts]
        wait(asked, timeout=_LONGEST_S)
        pool.shutdown(wait=True, cancel_futures=True)
    wall = max(time.perf_counter() - began, 1e-9)
    chars, seconds = np.array([answer.result() for answer in asked if not answer.cancelled()]).T
    at_once = max(1.0, seconds.sum() / wall)
    per_char = max(0.0, np.polyfit(chars, seconds, 1)[0]) if np.ptp(chars) else 0.0
    per_text = max(0.0, (seconds - per_char * chars).mean())
    whole = max((per_text * rows + per_char * float(lengths.sum())) / at_once, 1e-9)
    return Estimate(rows, len(chars), rows / whole, whole, calls, price)

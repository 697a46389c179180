"""A thread-safe LRU + TTL cache of raw scores.

Keys name everything that decides a score and nothing that does not: thresholds stay out, so one
entry serves every threshold. Hides the order of use and the clock.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from shield_engine.config import CacheConfig

__all__ = ["CacheStats", "ResultCache", "text_digest"]

T = TypeVar("T")


def text_digest(text: str) -> bytes:
    """Return 16 bytes that identify `text` (BLAKE2b; lone surrogates are kept apart)."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the cache was made."""

    hits: int
    misses: int
    evictions: int
    expirations: int
    size: int
    capacity: int

    @property
    def hit_rate(self) -> float | None:
        """Hits per lookup; `None` before the first lookup."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else None


class ResultCache(Generic[T]):
    """Least recently used entries leave first; entries older than the TTL are gone.

    Every operation is O(1) and takes one lock. The clock is a parameter so that tests move it.
    """

    def __init__(
        self, config: CacheConfig | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        config = config or CacheConfig.production()
        self._capacity = config.size
        self._ttl_s = config.ttl_s
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = self._evictions = self._expirations = 0

    def get(self, key: Hashable) -> T | None:
        """Return the value stored under `key` and make it the most recently used."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self._misses += 1
                return None
            if entry[0] <= self._clock():
                del self._entries[key]
                self._expirations += 1
                self._misses += 1
                return None
            self._entries.move_to_end(key)
            self._hits += 1
            return entry[1]

    def put(self, key: Hashable, value: T) -> None:
        """Store `value`; storing a key again refreshes its life."""
        if self._capacity == 0:
            return
        with self._lock:
            self._entries[key] = (self._clock() + self._ttl_s, value)
            self._entries.move_to_end(key)
            if len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
                self._evictions += 1

    def remove(self, key: Hashable) -> bool:
        """Drop `key`; return whether it was there."""
        with self._lock:
            return self._entries.pop(key, None) is not None

    def purge_expired(self) -> int:
        """Drop every entry past its life and return how many; O(n), for a periodic clean-up."""
        with self._lock:
            now = self._clock()
            dead = [key for key, (expires, _) in self._entries.items() if expires <= now]
            for key in dead:
                del self._entries[key]
            self._expirations += len(dead)
            return len(dead)

    def clear(self) -> None:
        """Drop every entry; the statistics stay."""
        with self._lock:
            self._entries.clear()

    def stats(self) -> CacheStats:
        """Return the counts so far."""
        with self._lock:
            return CacheStats(
                self._hits,
                self._misses,
                self._evictions,
                self._expirations,
                len(self._entries),
                self._capacity,
            )

    def __len__(self) -> int:
        return len(self._entries)

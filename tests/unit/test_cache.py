"""The result cache: LRU, TTL, statistics, threads."""

from __future__ import annotations

import threading

from shield_engine.cache import ResultCache, text_digest
from shield_engine.config import CacheConfig


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time it was set to."""
        return self.now


def test_least_recently_used_entry_leaves_first() -> None:
    """A full cache drops the entry that was used longest ago, not the oldest one."""
    cache: ResultCache[int] = ResultCache(CacheConfig(2, 60))
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert cache.get("b") is None
    assert (cache.get("a"), cache.get("c")) == (1, 3)
    assert cache.stats().evictions == 1


def test_entry_past_its_life_is_gone_and_counted() -> None:
    """A lookup after the TTL is a miss and an expiration."""
    clock = Clock()
    cache: ResultCache[int] = ResultCache(CacheConfig(2, 10), clock=clock)
    cache.put("a", 1)
    clock.now += 10
    assert cache.get("a") is None
    stats = cache.stats()
    assert (stats.expirations, stats.misses, stats.hits, stats.size) == (1, 1, 0, 0)


def test_storing_again_refreshes_life() -> None:
    """Re-inserting a key gives it a whole TTL again."""
    clock = Clock()
    cache: ResultCache[int] = ResultCache(CacheConfig(2, 10), clock=clock)
    cache.put("a", 1)
    clock.now += 9
    cache.put("a", 2)
    clock.now += 9
    assert cache.get("a") == 2


def test_capacity_zero_stores_nothing() -> None:
    """A disabled cache never answers."""
    cache: ResultCache[int] = ResultCache(CacheConfig.disabled())
    cache.put("a", 1)
    assert cache.get("a") is None
    assert len(cache) == 0


def test_clear_keeps_statistics() -> None:
    """Clearing drops entries but not counts."""
    cache: ResultCache[int] = ResultCache(CacheConfig(2, 10))
    cache.put("a", 1)
    cache.get("a")
    cache.clear()
    assert len(cache) == 0
    assert cache.stats().hits == 1


def test_purge_drops_only_expired_entries() -> None:
    """The periodic clean-up counts what it dropped and leaves the living."""
    clock = Clock()
    cache: ResultCache[int] = ResultCache(CacheConfig(4, 10), clock=clock)
    cache.put("old", 1)
    clock.now += 6
    cache.put("young", 2)
    clock.now += 6
    assert cache.purge_expired() == 1
    assert cache.get("young") == 2


def test_hit_rate_is_undefined_before_the_first_lookup() -> None:
    """No lookups give no rate, one hit of two gives a half."""
    cache: ResultCache[int] = ResultCache()
    assert cache.stats().hit_rate is None
    cache.put("a", 1)
    cache.get("a")
    cache.get("b")
    assert cache.stats().hit_rate == 0.5


def test_threads_lose_no_count() -> None:
    """Eight threads hammering one cache: every lookup is a hit or a miss, size stays bounded."""
    cache: ResultCache[int] = ResultCache(CacheConfig(50, 60))

    def hammer(offset: int) -> None:
        for number in range(2_000):
            key = (number * 7 + offset) % 100
            if cache.get(key) is None:
                cache.put(key, key)

    threads = [threading.Thread(target=hammer, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert stats.hits + stats.misses == 16_000
    assert stats.size <= 50


def test_digest_tells_texts_apart_even_with_lone_surrogates() -> None:
    """Texts that differ only in a surrogate, or in normal form, have digests of their own."""
    texts = ["a", "a\ud800", "a\ud801", "é", "e\u0301", "a\x00", ""]
    assert len({text_digest(text) for text in texts}) == len(texts)

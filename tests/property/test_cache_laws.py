"""The cache against a plain model of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shield_engine.cache import ResultCache
from shield_engine.config import CacheConfig

operations = st.lists(
    st.tuples(st.sampled_from(["get", "put", "tick"]), st.integers(0, 6)), max_size=80
)


@given(operations, st.integers(0, 4))
def test_cache_behaves_as_its_model(steps: list[tuple[str, int]], capacity: int) -> None:
    """Any sequence of operations gives what a slow, obvious LRU + TTL list gives."""
    now = 0.0
    cache: ResultCache[int] = ResultCache(CacheConfig(capacity, 5), clock=lambda: now)
    model: list[tuple[int, float, int]] = []  # key, expiry, value; most recently used last
    for position, (operation, number) in enumerate(steps):
        if operation == "tick":
            now += number
        elif operation == "put":
            model = [entry for entry in model if entry[0] != number]
            model.append((number, now + 5, position))
            model = model[-capacity:] if capacity else []
            cache.put(number, position)
        else:
            found = next((entry for entry in model if entry[0] == number), None)
            model = [entry for entry in model if entry[0] != number]
            expected = None
            if found is not None and found[1] > now:
                model.append(found)
                expected = found[2]
            assert cache.get(number) == expected
        assert len(cache) == len(model)

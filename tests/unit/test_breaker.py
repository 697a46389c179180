"""The circuit breaker's three states."""

from __future__ import annotations

from shield_engine.parts import BreakerState, CircuitBreaker


def test_opens_after_failures_in_a_row_and_tries_one_call_later() -> None:
    """Open refuses; after the reset time exactly one call may try; success closes."""
    now = 0.0
    breaker = CircuitBreaker(failures=3, reset_s=10, clock=lambda: now)
    for _ in range(2):
        breaker.fail()
    assert breaker.state is BreakerState.CLOSED
    breaker.fail()
    assert breaker.state is BreakerState.OPEN
    assert not breaker.allows()
    now = 10
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.allows()
    assert not breaker.allows()
    breaker.succeed()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.allows()


def test_failed_try_opens_again_for_the_whole_time() -> None:
    """A failure in half-open state starts the wait anew."""
    now = 0.0
    breaker = CircuitBreaker(failures=1, reset_s=10, clock=lambda: now)
    breaker.fail()
    now = 10
    assert breaker.allows()
    breaker.fail()
    now = 19
    assert not breaker.allows()
    now = 20
    assert breaker.allows()


def test_late_success_of_an_older_call_leaves_it_open() -> None:
    """A call that began before the breaker opened says nothing about now."""
    breaker = CircuitBreaker(failures=1, reset_s=10, clock=lambda: 0.0)
    assert breaker.allows()
    assert breaker.allows()
    breaker.fail()
    breaker.succeed()
    assert breaker.state is BreakerState.OPEN


def test_success_forgets_earlier_failures() -> None:
    """Only failures in a row count."""
    breaker = CircuitBreaker(failures=2)
    breaker.fail()
    breaker.succeed()
    breaker.fail()
    assert breaker.state is BreakerState.CLOSED

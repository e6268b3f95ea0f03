"""The back-off policy of collections that could not be opened."""

from __future__ import annotations

import math

from app.collections.backoff import Backoff


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_delays_double_up_to_a_minute() -> None:
    assert [Backoff().delay(failures) for failures in range(1, 7)] == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert Backoff().delay(10_000) == 60.0


def test_passing_failure_is_retried_after_its_delay() -> None:
    clock = Clock()
    backoff = Backoff(clock=clock)
    retry_at = backoff.retry_at(2, permanent=False)
    assert retry_at == 1010.0
    clock.now = 1009.9
    assert backoff.is_waiting(retry_at)
    clock.now = 1010.0
    assert not backoff.is_waiting(retry_at)


def test_permanent_failure_is_never_retried_by_time() -> None:
    clock = Clock()
    backoff = Backoff(clock=clock)
    retry_at = backoff.retry_at(1, permanent=True)
    clock.now = 1e12
    assert retry_at == math.inf
    assert backoff.is_waiting(retry_at)

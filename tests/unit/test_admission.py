"""The admission controller: expected waits, and refused queries."""

from __future__ import annotations

import pytest

from app.admission import AdmissionController
from app.errors import Overloaded


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def take(controller: AdmissionController, clock: Clock, seconds: float) -> None:
    entered = controller.acquire()
    clock.now += seconds
    controller.release(entered, completed=True)


def test_expected_wait_is_zero_at_first() -> None:
    assert AdmissionController(1.0).expected_wait() == 0.0


def test_first_queries_are_admitted_up_to_a_limit() -> None:
    controller = AdmissionController(1.0)
    entered = 0.0
    for _ in range(64):
        controller.admit()
        entered = controller.acquire()
    with pytest.raises(Overloaded):
        controller.admit()
    controller.release(entered, completed=True)
    controller.admit()


def test_slow_first_query_does_not_block_others(clock: Clock) -> None:
    """It may load a library; the next ones do not."""
    controller = AdmissionController(max_wait=2.0, clock=clock)
    take(controller, clock, 5.0)
    for _ in range(63):
        controller.admit()
        controller.acquire()
    entered = controller.acquire()
    with pytest.raises(Overloaded, match="an unknown time") as caught:
        controller.admit()
    assert caught.value.retry_after == 1
    controller.release(entered, completed=True)
    controller.admit()


def test_fast_service_admits_many_before_its_mean_is_complete(clock: Clock) -> None:
    controller = AdmissionController(max_wait=2.0, clock=clock)
    take(controller, clock, 0.001)
    for _ in range(1000):
        controller.admit()
        controller.acquire()


def test_expected_wait_follows_littles_law(clock: Clock) -> None:
    controller = AdmissionController(max_wait=100.0, clock=clock)
    for seconds in (1.0, 3.0):
        take(controller, clock, seconds)
        clock.now += 1000.0  # a quiet hour counts for nothing
    assert controller.expected_wait() == 0.0  # none is before it
    for _ in range(3):
        controller.acquire()
    assert controller.expected_wait() == 3 * (1.0 + 3.0) / 2


def test_queries_of_one_batch_share_its_time(clock: Clock) -> None:
    controller = AdmissionController(max_wait=100.0, clock=clock)
    entered = [controller.acquire() for _ in range(4)]
    clock.now += 2.0
    for each in entered:
        controller.release(each, completed=True)
    controller.acquire()
    assert controller.expected_wait() == 2.0 / 4


def test_refused_query_gets_retry_after(clock: Clock) -> None:
    controller = AdmissionController(max_wait=2.0, clock=clock)
    for _ in range(64):
        take(controller, clock, 1.5)
    for _ in range(2):  # 0 and 1.5 seconds are bearable
        controller.admit()
        controller.acquire()
    with pytest.raises(Overloaded, match=r"3\.0 s") as caught:
        controller.admit()
    assert caught.value.retry_after == 1
    assert (controller.in_flight, controller.refused) == (2, 1)
    for _ in range(2):
        controller.release(clock.now, completed=True)
    controller.admit()  # and in again


def test_immediate_failures_do_not_count_as_completions(clock: Clock) -> None:
    controller = AdmissionController(max_wait=2.0, clock=clock)
    take(controller, clock, 1.0)
    entered = controller.acquire()
    for _ in range(100):
        controller.release(controller.acquire(), completed=True, client_error=True)
    assert controller.expected_wait() == 1.0
    clock.now += 3.0
    controller.release(entered, completed=True)
    controller.acquire()
    assert controller.expected_wait() == (1.0 + 3.0) / 2


def test_slow_failures_count_as_completions(clock: Clock) -> None:
    controller = AdmissionController(max_wait=2.0, clock=clock)
    for _ in range(64):
        take(controller, clock, 0.1)
    for _ in range(200):  # images that are broken at their end
        entered = controller.acquire()
        clock.now += 0.1
        controller.release(entered, completed=True, client_error=True)
    take(controller, clock, 0.1)
    controller.acquire()
    assert controller.expected_wait() == pytest.approx(0.1)


def test_cancelled_queries_do_not_count_as_completions(clock: Clock) -> None:
    controller = AdmissionController(max_wait=2.0, clock=clock)
    take(controller, clock, 0.1)
    staying = controller.acquire()
    for _ in range(200):
        entered = controller.acquire()
        clock.now += 0.1
        controller.release(entered, completed=False)
    good = controller.acquire()
    clock.now += 0.1
    controller.release(good, completed=True)
    assert controller.expected_wait() == pytest.approx(0.1)
    controller.release(staying, completed=False)

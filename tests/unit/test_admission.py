"""The gate: what it expects a query to wait, and whom it refuses."""

from __future__ import annotations

import pytest

from app.admission import Gate
from app.errors import Overloaded


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def take(gate: Gate, clock: Clock, seconds: float) -> None:
    entered = gate.enter()
    clock.now += seconds
    gate.leave(entered, worked=True)


def test_nothing_is_known_before_the_first_query_has_ended() -> None:
    assert Gate(1.0).expected_wait() == 0.0


def test_before_anything_is_known_only_so_many_are_let_in() -> None:
    gate = Gate(1.0)
    entered = 0.0
    for _ in range(64):
        gate.check()
        entered = gate.enter()
    with pytest.raises(Overloaded):
        gate.check()
    gate.leave(entered, worked=True)
    gate.check()


def test_a_slow_first_query_keeps_nobody_out(clock: Clock) -> None:
    """What it waited for, such as a library that is loaded, the next do not wait for."""
    gate = Gate(max_wait=2.0, clock=clock)
    take(gate, clock, 5.0)
    for _ in range(63):
        gate.check()
        gate.enter()
    entered = gate.enter()
    with pytest.raises(Overloaded, match="nobody knows yet") as caught:
        gate.check()
    assert caught.value.retry_after == 1
    gate.leave(entered, worked=True)
    gate.check()


def test_a_fast_service_lets_many_in_before_its_mean_is_complete(clock: Clock) -> None:
    gate = Gate(max_wait=2.0, clock=clock)
    take(gate, clock, 0.001)
    for _ in range(1000):
        gate.check()
        gate.enter()


def test_the_expected_wait_is_littles(clock: Clock) -> None:
    gate = Gate(max_wait=100.0, clock=clock)
    for seconds in (1.0, 3.0):
        take(gate, clock, seconds)
        clock.now += 1000.0  # a quiet hour counts for nothing
    assert gate.expected_wait() == 0.0  # none is before it
    for _ in range(3):
        gate.enter()
    assert gate.expected_wait() == 3 * (1.0 + 3.0) / 2


def test_queries_that_end_together_share_the_time(clock: Clock) -> None:
    gate = Gate(max_wait=100.0, clock=clock)
    entered = [gate.enter() for _ in range(4)]
    clock.now += 2.0
    for each in entered:
        gate.leave(each, worked=True)
    gate.enter()
    assert gate.expected_wait() == 2.0 / 4


def test_who_would_wait_too_long_is_refused_and_told_when_to_come_again(clock: Clock) -> None:
    gate = Gate(max_wait=2.0, clock=clock)
    for _ in range(64):
        take(gate, clock, 1.5)
    for _ in range(2):  # 0 and 1.5 seconds are bearable
        gate.check()
        gate.enter()
    with pytest.raises(Overloaded, match=r"3\.0 s") as caught:
        gate.check()
    assert caught.value.retry_after == 1
    assert (gate.under_way, gate.refused) == (2, 1)
    for _ in range(2):
        gate.leave(clock.now, worked=True)
    gate.check()  # and in again


def test_queries_that_fail_at_once_make_nobody_look_fast(clock: Clock) -> None:
    gate = Gate(max_wait=2.0, clock=clock)
    take(gate, clock, 1.0)
    entered = gate.enter()
    for _ in range(100):
        gate.leave(gate.enter(), worked=True, faulty=True)
    assert gate.expected_wait() == 1.0
    clock.now += 3.0
    gate.leave(entered, worked=True)
    gate.enter()
    assert gate.expected_wait() == (1.0 + 3.0) / 2


def test_queries_that_take_a_turn_and_fail_tell_as_much_as_others(clock: Clock) -> None:
    gate = Gate(max_wait=2.0, clock=clock)
    for _ in range(64):
        take(gate, clock, 0.1)
    for _ in range(200):  # images that are broken at their end
        entered = gate.enter()
        clock.now += 0.1
        gate.leave(entered, worked=True, faulty=True)
    take(gate, clock, 0.1)
    gate.enter()
    assert gate.expected_wait() == pytest.approx(0.1)


def test_time_in_which_others_gave_up_is_nobodys(clock: Clock) -> None:
    gate = Gate(max_wait=2.0, clock=clock)
    take(gate, clock, 0.1)
    staying = gate.enter()
    for _ in range(200):
        entered = gate.enter()
        clock.now += 0.1
        gate.leave(entered, worked=False)
    good = gate.enter()
    clock.now += 0.1
    gate.leave(good, worked=True)
    assert gate.expected_wait() == pytest.approx(0.1)
    gate.leave(staying, worked=False)

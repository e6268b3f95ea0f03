"""The gate: what it expects a query to wait, whom it refuses, and what a deadline ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from app.admission import Gate
from app.errors import DeadlineExceeded, Overloaded


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


async def take(gate: Gate, clock: Clock, seconds: float) -> None:
    async with gate.enter():
        clock.now += seconds


def test_nothing_is_known_before_the_first_query_has_ended() -> None:
    assert Gate(1.0, 10.0).expected_wait() == 0.0


def test_the_expected_wait_is_littles() -> None:
    async def main() -> None:
        clock = Clock()
        gate = Gate(max_wait=100.0, deadline=10.0, clock=clock)
        for seconds in (1.0, 3.0):
            await take(gate, clock, seconds)
            clock.now += 1000.0  # a quiet hour counts for nothing
        assert gate.expected_wait() == 0.0  # none is before it
        async with gate.enter(), gate.enter(), gate.enter():
            assert gate.expected_wait() == 3 * (1.0 + 3.0) / 2

    asyncio.run(main())


def test_queries_that_end_together_share_the_time() -> None:
    async def main() -> None:
        clock = Clock()
        gate = Gate(max_wait=100.0, deadline=10.0, clock=clock)
        async with gate.enter(), gate.enter(), gate.enter(), gate.enter():
            clock.now += 2.0
        async with gate.enter():
            assert gate.expected_wait() == 2.0 / 4

    asyncio.run(main())


def test_who_would_wait_too_long_is_refused_and_told_when_to_come_again() -> None:
    async def main() -> None:
        clock = Clock()
        gate = Gate(max_wait=2.0, deadline=10.0, clock=clock)
        await take(gate, clock, 1.5)
        async with AsyncExitStack() as held:
            for _ in range(2):  # 0 and 1.5 seconds are bearable
                await held.enter_async_context(gate.enter())
            with pytest.raises(Overloaded, match=r"3\.0 s") as caught:
                await held.enter_async_context(gate.enter())
            assert caught.value.retry_after == 1
            assert (gate.under_way, gate.refused) == (2, 1)
        assert gate.under_way == 0
        await take(gate, clock, 0.1)  # and in again

    asyncio.run(main())


def test_a_deadline_cancels_the_work() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("cancelled")

    async def main() -> None:
        gate = Gate(max_wait=2.0, deadline=0.01)
        with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
            async with gate.enter():
                await work()
        assert gate.under_way == 0

    asyncio.run(main())
    assert ended == ["cancelled"]


def test_an_error_of_the_query_is_its_own() -> None:
    async def main() -> None:
        gate = Gate(max_wait=2.0, deadline=1.0)
        with pytest.raises(ZeroDivisionError):
            async with gate.enter():
                raise ZeroDivisionError
        assert gate.under_way == 0

    asyncio.run(main())

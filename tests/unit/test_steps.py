"""A query of several steps is handed from thread to thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from app.batching import Lane, Lanes, through
from retrieval.errors import EncoderError
from retrieval.stopwatch import Stopwatch

BAD = "bad"


class Steps:
    """Two steps that note their batches: words to their lengths, lengths to pairs; `BAD` fails in the second."""

    def __init__(self) -> None:
        self.first, self.second = Lanes("first"), Lanes("second")
        self.batches: list[tuple[str, list[Any]]] = []
        self.reached, self.go = threading.Event(), threading.Event()

    def way(self) -> list[tuple[Lanes, Lane]]:
        return [
            (self.first, Lane("a", "a", self._lengths, 8)),
            (self.second, Lane("b", "b", self._pairs, 8)),
        ]

    def _lengths(self, words: Sequence[Any], watch: Stopwatch) -> list[int]:
        with watch.stage("encode"):
            self.batches.append((threading.current_thread().name, list(words)))
        return [0 if word == BAD else len(word) for word in words]

    def _pairs(self, lengths: Sequence[Any], watch: Stopwatch) -> list[tuple[int, int]]:
        with watch.stage("search"):
            self.batches.append((threading.current_thread().name, list(lengths)))
        self.reached.set()
        self.go.wait(10)
        if 0 in lengths:
            raise EncoderError("nothing of no length")
        return [(length, length) for length in lengths]

    def close(self) -> None:
        self.go.set()
        self.first.close()
        self.second.close()


@pytest.fixture
def steps() -> Any:
    made = Steps()
    yield made
    made.close()


async def held(lanes: Lanes) -> threading.Event:
    """The lanes' only thread at work until the event is set."""
    begun, gate = threading.Event(), threading.Event()

    def work(payloads: Sequence[Any], watch: Stopwatch) -> Sequence[Any]:
        begun.set()
        gate.wait(10)
        return payloads

    asyncio.ensure_future(lanes.do(Lane("held", "held", work), None, Stopwatch()))  # noqa: RUF006
    await asyncio.to_thread(begun.wait, 10)
    return gate


def test_what_left_together_is_handed_on_together_and_each_gets_its_own(steps: Steps) -> None:
    steps.go.set()
    watches = [Stopwatch() for _ in range(3)]

    async def main() -> list[Any]:
        gate = await held(steps.first)
        tasks = [
            asyncio.create_task(through(steps.way(), word, watch))
            for word, watch in zip(("a", BAD, "ccc"), watches, strict=True)
        ]
        while steps.first.waiting() < 3:
            await asyncio.sleep(0.001)
        gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, bad, last = asyncio.run(main())
    assert (first, last) == ((1, 1), (3, 3))
    assert isinstance(bad, EncoderError)
    assert steps.batches[:2] == [("first", ["a", BAD, "ccc"]), ("second", [1, 0, 3])]
    assert all(set(watch.took_ms) == {"wait", "encode", "search"} for watch in watches)


def test_who_goes_leaves_the_step_that_it_waits_for(steps: Steps) -> None:
    async def main() -> None:
        gate = await held(steps.second)
        stays, gone = (asyncio.create_task(through(steps.way(), word, Stopwatch())) for word in ("stays", "gone"))
        while steps.second.waiting() < 2:
            await asyncio.sleep(0.001)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert (steps.first.waiting(), steps.second.waiting()) == (0, 1)
        steps.go.set()
        gate.set()
        assert await asyncio.wait_for(stays, 10) == (5, 5)

    asyncio.run(main())
    assert ("second", [5]) in steps.batches


def test_a_step_that_has_ended_drops_what_is_handed_to_it(steps: Steps) -> None:
    async def main() -> None:
        gate = await held(steps.first)
        task = asyncio.create_task(through(steps.way(), "a", Stopwatch()))
        while not steps.first.waiting():
            await asyncio.sleep(0.001)
        steps.second.close()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        with pytest.raises(asyncio.CancelledError):
            await steps.second.do(steps.way()[1][1], 1, Stopwatch())

    asyncio.run(main())

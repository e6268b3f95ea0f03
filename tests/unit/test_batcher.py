"""A query of several steps is handed from thread to thread."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.execution.batcher import Batcher, BatchKey, run_pipeline
from lookalike.errors import EncoderError
from lookalike.stopwatch import Stopwatch

BAD = "bad"


class Steps:
    """Two steps that note their batches: words to their lengths, lengths to pairs; `BAD` fails in the second."""

    def __init__(self) -> None:
        self.first, self.second = Batcher("first"), Batcher("second")
        self.batches: list[tuple[str, list[Any]]] = []
        self.reached, self.go = threading.Event(), threading.Event()

    def way(self) -> list[tuple[Batcher, BatchKey]]:
        return [
            (self.first, BatchKey("a", "a", self._lengths, 8)),
            (self.second, BatchKey("b", "b", self._pairs, 8)),
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


@asynccontextmanager
async def held(batcher: Batcher) -> AsyncIterator[threading.Event]:
    """The lanes' only thread at work until the event is set, at the block's end at the latest."""
    begun, gate = threading.Event(), threading.Event()

    def work(payloads: Sequence[Any], watch: Stopwatch) -> Sequence[Any]:
        begun.set()
        gate.wait(10)
        return payloads

    task = asyncio.create_task(batcher.submit(BatchKey("held", "held", work), None, Stopwatch()))
    await asyncio.to_thread(begun.wait, 10)
    try:
        yield gate
    finally:
        gate.set()
        await asyncio.gather(task, return_exceptions=True)


def test_what_left_together_is_handed_on_together_and_each_gets_its_own(steps: Steps) -> None:
    steps.go.set()
    watches = [Stopwatch() for _ in range(3)]

    async def main() -> list[Any]:
        async with held(steps.first) as gate:
            tasks = [
                asyncio.create_task(run_pipeline(steps.way(), word, watch))
                for word, watch in zip(("a", BAD, "ccc"), watches, strict=True)
            ]
            while steps.first.queue_size() < 3:
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
        async with held(steps.second) as gate:
            stays, gone = (
                asyncio.create_task(run_pipeline(steps.way(), word, Stopwatch())) for word in ("stays", "gone")
            )
            while steps.second.queue_size() < 2:
                await asyncio.sleep(0.001)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            assert (steps.first.queue_size(), steps.second.queue_size()) == (0, 1)
            steps.go.set()
            gate.set()
            assert await asyncio.wait_for(stays, 10) == (5, 5)

    asyncio.run(main())
    assert ("second", [5]) in steps.batches


def test_a_step_that_has_ended_drops_what_is_handed_to_it(steps: Steps) -> None:
    async def main() -> None:
        async with held(steps.first) as gate:
            task = asyncio.create_task(run_pipeline(steps.way(), "a", Stopwatch()))
            while not steps.first.queue_size():
                await asyncio.sleep(0.001)
            steps.second.close()
            gate.set()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 10)
            with pytest.raises(asyncio.CancelledError):
                await steps.second.submit(steps.way()[1][1], 1, Stopwatch())

    asyncio.run(main())


class Heavy:
    """What a failed query must not keep."""


@pytest.mark.parametrize("raised", [EncoderError, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("count", [1, 3])
def test_an_error_keeps_nothing_of_its_query(steps: Steps, raised: type[BaseException], count: int) -> None:
    """Frames of a traceback hold what was being worked on, and a cycle of theirs lasts until the collector comes."""
    seen: list[weakref.ref[Heavy]] = []

    def work(payloads: Sequence[Any], watch: Stopwatch) -> Sequence[Any]:
        pixels = Heavy()
        seen.append(weakref.ref(pixels))
        try:
            raise ValueError("deeper")
        except ValueError as error:
            raise raised("broken") from error

    async def ask() -> None:
        payload = Heavy()
        seen.append(weakref.ref(payload))
        batcher = [(steps.first, BatchKey("w", "w", work, 8)), *steps.way()[1:]]
        told, notes = "", ""
        try:
            await run_pipeline(batcher, payload, Stopwatch())
        except Exception as error:  # not by `pytest.raises`, whose record of it would be a cycle of the test's own
            told, notes = f"{type(error).__name__}: {error}", "".join(getattr(error, "__notes__", []))
        assert told.endswith("broken")
        assert ("in work" in notes) == (raised is not EncoderError)  # where it was, for the log

    async def main() -> None:
        async with held(steps.first) as gate:
            tasks = [asyncio.create_task(ask()) for _ in range(count)]
            while steps.first.queue_size() < count:
                await asyncio.sleep(0.001)
            gate.set()
            await asyncio.gather(*tasks)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
        steps.close()
        steps.first.join(10)  # the thread's own last batch
        assert len(seen) == (2 if count == 1 else 3 + 1 + 3)
        assert [each() for each in seen] == [None] * len(seen)
    finally:
        gc.enable()


def test_who_goes_while_a_step_is_under_way_takes_no_place_in_the_next(steps: Steps) -> None:
    begun, go = threading.Event(), threading.Event()

    def work(payloads: Sequence[Any], watch: Stopwatch) -> Sequence[Any]:
        begun.set()
        go.wait(10)
        return payloads

    async def main() -> None:
        async with held(steps.second) as gate:
            batcher = [(steps.first, BatchKey("w", "w", work, 8)), *steps.way()[1:]]
            task = asyncio.create_task(run_pipeline(batcher, "a", Stopwatch()))
            await asyncio.to_thread(begun.wait, 10)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            go.set()
            await steps.first.submit(BatchKey("next", "next", lambda payloads, _: payloads), None, Stopwatch())
            assert steps.second.queue_size() == 0
            gate.set()

    asyncio.run(main())

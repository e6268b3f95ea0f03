"""Queries of several steps are forwarded from one batcher to the next."""

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


class TwoSteps:
    """Two steps that record their batches: words to lengths, then lengths to pairs; `BAD` fails in the second."""

    def __init__(self) -> None:
        self.first, self.second = Batcher("first"), Batcher("second")
        self.batches: list[tuple[str, list[Any]]] = []
        self.may_continue = threading.Event()

    def pipeline(self) -> list[tuple[Batcher, BatchKey]]:
        return [
            (self.first, BatchKey("a", "a", self._lengths, 8)),
            (self.second, BatchKey("b", "b", self._pairs, 8)),
        ]

    def _lengths(self, words: Sequence[Any], stopwatch: Stopwatch) -> list[int]:
        with stopwatch.stage("encode"):
            self.batches.append((threading.current_thread().name, list(words)))
        return [0 if word == BAD else len(word) for word in words]

    def _pairs(self, lengths: Sequence[Any], stopwatch: Stopwatch) -> list[tuple[int, int]]:
        with stopwatch.stage("search"):
            self.batches.append((threading.current_thread().name, list(lengths)))
        self.may_continue.wait(10)
        if 0 in lengths:
            raise EncoderError("length 0")
        return [(length, length) for length in lengths]

    def close(self) -> None:
        self.may_continue.set()
        self.first.close()
        self.second.close()


@pytest.fixture
def steps() -> Any:
    made = TwoSteps()
    yield made
    made.close()


@asynccontextmanager
async def blocked(batcher: Batcher) -> AsyncIterator[threading.Event]:
    """Keep the batcher's only thread busy until the event is set, or until the end of the block."""
    started, release = threading.Event(), threading.Event()

    def work(payloads: Sequence[Any], stopwatch: Stopwatch) -> Sequence[Any]:
        started.set()
        release.wait(10)
        return payloads

    task = asyncio.create_task(batcher.submit(BatchKey("blocked", "blocked", work), None, Stopwatch()))
    await asyncio.to_thread(started.wait, 10)
    try:
        yield release
    finally:
        release.set()
        await asyncio.gather(task, return_exceptions=True)


async def test_batch_is_forwarded_together_and_each_job_gets_its_result(steps: TwoSteps) -> None:
    steps.may_continue.set()
    stopwatches = [Stopwatch() for _ in range(3)]

    async with blocked(steps.first) as release:
        tasks = [
            asyncio.create_task(run_pipeline(steps.pipeline(), word, stopwatch))
            for word, stopwatch in zip(("a", BAD, "ccc"), stopwatches, strict=True)
        ]
        while steps.first.queue_size() < 3:
            await asyncio.sleep(0.001)
        release.set()
        results: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    first, bad, last = results
    assert (first, last) == ((1, 1), (3, 3))
    assert isinstance(bad, EncoderError)
    assert steps.batches[:2] == [("first", ["a", BAD, "ccc"]), ("second", [1, 0, 3])]
    assert all(set(stopwatch.took_ms) == {"wait", "encode", "search"} for stopwatch in stopwatches)


async def test_cancelled_query_leaves_the_queue_of_its_step(steps: TwoSteps) -> None:
    async with blocked(steps.second) as release:
        kept, cancelled = (
            asyncio.create_task(run_pipeline(steps.pipeline(), word, Stopwatch())) for word in ("kept!", "cancelled")
        )
        while steps.second.queue_size() < 2:
            await asyncio.sleep(0.001)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert (steps.first.queue_size(), steps.second.queue_size()) == (0, 1)
        steps.may_continue.set()
        release.set()
        assert await asyncio.wait_for(kept, 10) == (5, 5)
    assert ("second", [5]) in steps.batches


async def test_closed_batcher_cancels_forwarded_jobs(steps: TwoSteps) -> None:
    async with blocked(steps.first) as release:
        task = asyncio.create_task(run_pipeline(steps.pipeline(), "a", Stopwatch()))
        while not steps.first.queue_size():
            await asyncio.sleep(0.001)
        steps.second.close()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        with pytest.raises(asyncio.CancelledError):
            await steps.second.submit(steps.pipeline()[1][1], 1, Stopwatch())


class Payload:
    """An object that must not outlive a failed query."""


@pytest.mark.parametrize("raised", [EncoderError, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("count", [1, 3])
async def test_error_keeps_no_reference_to_its_query(steps: TwoSteps, raised: type[BaseException], count: int) -> None:
    """Frames of a traceback hold a query's objects, and a reference cycle keeps them until garbage collection."""
    references: list[weakref.ref[Payload]] = []

    def work(payloads: Sequence[Any], stopwatch: Stopwatch) -> Sequence[Any]:
        pixels = Payload()
        references.append(weakref.ref(pixels))
        try:
            raise ValueError("deeper")
        except ValueError as error:
            raise raised("broken") from error

    async def query() -> None:
        payload = Payload()
        references.append(weakref.ref(payload))
        batcher = [(steps.first, BatchKey("w", "w", work, 8)), *steps.pipeline()[1:]]
        message, notes = "", ""
        try:
            await run_pipeline(batcher, payload, Stopwatch())
        except Exception as error:  # `pytest.raises` would create a reference cycle of its own
            message, notes = f"{type(error).__name__}: {error}", "".join(getattr(error, "__notes__", []))
        assert message.endswith("broken")
        assert ("in work" in notes) == (raised is not EncoderError)  # the formatted traceback, for the log

    gc.collect()
    gc.disable()
    try:
        async with blocked(steps.first) as release:
            tasks = [asyncio.create_task(query()) for _ in range(count)]
            while steps.first.queue_size() < count:
                await asyncio.sleep(0.001)
            release.set()
            await asyncio.gather(*tasks)
        steps.close()
        steps.first.join(10)  # for the batch in flight
        assert len(references) == (2 if count == 1 else 3 + 1 + 3)
        assert [reference() for reference in references] == [None] * len(references)
    finally:
        gc.enable()


async def test_query_cancelled_in_a_batch_is_not_forwarded(steps: TwoSteps) -> None:
    started, may_continue = threading.Event(), threading.Event()

    def work(payloads: Sequence[Any], stopwatch: Stopwatch) -> Sequence[Any]:
        started.set()
        may_continue.wait(10)
        return payloads

    async with blocked(steps.second) as release:
        batcher = [(steps.first, BatchKey("w", "w", work, 8)), *steps.pipeline()[1:]]
        task = asyncio.create_task(run_pipeline(batcher, "a", Stopwatch()))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        may_continue.set()
        await steps.first.submit(BatchKey("next", "next", lambda payloads, _: payloads), None, Stopwatch())
        assert steps.second.queue_size() == 0
        release.set()

"""The one thread that owns the device, where queries that arrive together become one batch.

Nothing waits on purpose: a query that comes while the device is idle starts at once, and what comes while it is busy
leaves together as soon as it is free. So batches grow with the load and a lone query pays nothing. Pictures and texts
stand in lanes of their own, for each encoder; the lane whose first query has waited longest goes next. A batch that
fails is tried again query by query, so that an error is told to the one who caused it. It knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from retrieval.search import Searcher
from retrieval.stopwatch import Stopwatch
from retrieval.types import Float32, UInt8

T = TypeVar("T")
Lane = str | tuple[int, str]
"""A kind of query, of an encoder."""
Work = Callable[[Sequence[Any]], Iterable[Any]]
"""Payloads -> results, one each, in order; runs on the device's thread."""

LARGEST_TEXTS = 32
"""Texts in a batch at most, as `Encoder.image_batch` bounds pictures: beyond these a CPU encodes no more a second
(benchmarks/RESULTS.md), and the first one would wait for the last. What a GPU wants has not been measured."""
_DROPPED = object()


@dataclass(slots=True)
class _Job:
    """One query on its way."""

    payload: Any
    work: Work
    watch: Stopwatch
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    kind: str
    since: float = field(default_factory=time.perf_counter)


class Device:
    """Runs calls and batches of queries one after another on its own thread."""

    def __init__(self, observe: Callable[[str, int], None] = lambda kind, size: None) -> None:
        """`observe` hears of every batch: its kind, and how many queries are in it."""
        self._observe = observe
        self._lanes: dict[Lane, deque[_Job]] = {}
        self._largest: dict[Lane, int] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._begun: float | None = None
        self._thread = threading.Thread(target=self._serve, name="device", daemon=True)
        self._thread.start()

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call()` on the device's thread; a call whose caller is gone by then is dropped."""
        result: T = await self._queue("call", 1, None, lambda _: [call()], Stopwatch())
        return result

    async def encode_image(self, searcher: Searcher, pixels: UInt8, watch: Stopwatch) -> Float32:
        """A preprocessed picture (3, S, S) -> (d,) of unit norm; `watch` gets wait and encode."""
        lane = (id(searcher.encoder), "image")
        largest = searcher.encoder.image_batch
        vector: Float32 = await self._queue(
            lane, largest, pixels, lambda batch: searcher.encode_images(np.stack(batch), Stopwatch()), watch
        )
        return vector

    async def encode_text(self, searcher: Searcher, text: str, watch: Stopwatch) -> Float32:
        """A prepared text -> (d,) of unit norm; `watch` gets wait and encode."""
        lane = (id(searcher.encoder), "text")
        vector: Float32 = await self._queue(
            lane, LARGEST_TEXTS, text, lambda batch: searcher.encode_texts(batch, Stopwatch()), watch
        )
        return vector

    def waiting(self) -> int:
        """How many queries are in the lanes."""
        with self._changed:
            return sum(map(len, self._lanes.values()))

    def busy_for(self) -> float:
        """Seconds that the batch on the device has taken so far; 0.0 where there is none."""
        begun = self._begun
        return 0.0 if begun is None else time.perf_counter() - begun

    def close(self) -> None:
        """Lets the running batch finish and drops what waits."""
        with self._changed:
            self._closed = True
            dropped = [job for lane in self._lanes.values() for job in lane]
            self._lanes.clear()
            self._changed.notify()
        for job in dropped:
            _tell(job.loop, [(job, _DROPPED)])

    async def _queue(self, lane: Lane, largest: int, payload: Any, work: Work, watch: Stopwatch) -> Any:
        loop = asyncio.get_running_loop()
        job = _Job(payload, work, watch, loop, loop.create_future(), lane if isinstance(lane, str) else lane[-1])
        with self._changed:
            if self._closed:
                raise asyncio.CancelledError("the device is closed")
            self._lanes.setdefault(lane, deque()).append(job)
            self._largest[lane] = largest
            self._changed.notify()
        return await job.future

    def _serve(self) -> None:
        while (batch := self._next()) is not None:
            begun = self._begun = time.perf_counter()
            outcomes = _outcomes(batch)
            took = time.perf_counter() - begun
            self._begun = None
            self._observe(batch[0].kind, len(batch))
            for job in batch:
                job.watch.add("wait", begun - job.since)
                job.watch.add("encode", took)
            for loop in {job.loop for job in batch}:
                _tell(loop, [(job, outcome) for job, outcome in zip(batch, outcomes, strict=True) if job.loop is loop])

    def _next(self) -> list[_Job] | None:
        """The next batch, when there is one; None once the device is closed."""
        while True:
            with self._changed:
                while not self._closed and not self._lanes:
                    self._changed.wait()
                if self._closed:
                    return None
                name = min(self._lanes, key=lambda lane: self._lanes[lane][0].since)
                lane = self._lanes[name]
                batch: list[_Job] = []
                while lane and len(batch) < self._largest[name]:
                    job = lane.popleft()
                    if not job.future.cancelled():  # its caller has gone
                        batch.append(job)
                if not lane:
                    del self._lanes[name]
            if batch:
                return batch


def _outcomes(batch: Sequence[_Job]) -> list[Any]:
    """A result or an exception for each."""
    try:
        results = list(batch[0].work([job.payload for job in batch]))
        if len(results) != len(batch):
            raise RuntimeError(f"{len(results)} results for {len(batch)} queries")
    except BaseException as error:  # a Rust panic is no Exception: whatever it is, the thread must live on
        if len(batch) == 1:
            plain = isinstance(error, Exception) and not isinstance(error, StopIteration)  # a future takes no other
            return [error if plain else RuntimeError(f"{type(error).__name__}: {error}")]
    else:
        return results
    return [outcome for job in batch for outcome in _outcomes([job])]


def _tell(loop: asyncio.AbstractEventLoop, outcomes: Sequence[tuple[_Job, Any]]) -> None:
    """Delivers a batch's outcomes in one wake-up of the loop."""

    def deliver() -> None:
        for job, outcome in outcomes:
            if job.future.done():
                continue
            if outcome is _DROPPED:
                job.future.cancel()
            elif isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(deliver)

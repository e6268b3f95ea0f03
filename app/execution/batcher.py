"""Threads that take work in batches: queries that arrive together become one batch.

Nothing waits on purpose: a query that comes while a thread is idle starts at once, and what comes while all are busy
leaves together as soon as one is free. So batches grow with the load and a lone query pays nothing. Queries that can't
share a batch stand in lanes of their own; the lane whose first query has waited longest goes next. A batch that fails
is tried again query by query, so that an error is told to the one who caused it. Where a query has several steps, the
thread that did one hands it on to the next: the event loop is woken at the end alone. It knows nothing of HTTP, nor of
what the work is.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from app.execution.tracebacks import clear_traceback
from lookalike.errors import LookalikeError
from lookalike.stopwatch import Stopwatch

Work = Callable[[Sequence[Any], Stopwatch], Iterable[Any]]
"""Payloads -> results, one each, in order; the watch gets the stages, which took as long for each of them."""

_DROPPED = object()
_NICE = 15
_FRAMES = 12
"""Told of a thread that hangs: enough to see where, and no page of a library that is being imported."""


@dataclass(frozen=True, slots=True)
class BatchKey:
    """What queries have in common that may share a batch.

    Attributes:
        key: equal for those that may.
        kind: what they are called in telemetry.
        work: does a batch of them.
        largest: queries in a batch at most.
        owner: lanes of the same owner have `max_concurrent_batches` batches under way at most.
        max_concurrent_batches: see `owner`; a further one leaves only when it is a quarter full. 0: no limit.
    """

    key: Hashable
    kind: str
    work: Work = field(compare=False)
    largest: int = field(default=1, compare=False)
    owner: Hashable = field(default=None, compare=False)
    max_concurrent_batches: int = field(default=0, compare=False)


PipelineStep = tuple["Batcher", BatchKey]
"""Who does a query's step, and in which lane it waits for it."""


@dataclass(slots=True, eq=False)
class _Job:
    """One query on its way; `onward` are the steps after the one that it waits for."""

    payload: Any
    watch: Stopwatch
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    onward: Sequence[PipelineStep]
    since: float = 0.0


async def run_pipeline(steps: Sequence[PipelineStep], payload: Any, watch: Stopwatch) -> Any:
    """The last step's result for one query, each step being given what the one before it made.

    `watch` gets its waits and the stages of its batches. One whose caller goes is dropped. Raises what the work raises
    for it.
    """
    loop = asyncio.get_running_loop()
    job = _Job(payload, watch, loop, loop.create_future(), steps[1:])
    (batcher, lane), *_ = steps
    if not batcher._take(lane, [job]):
        raise asyncio.CancelledError("the threads have ended")
    try:
        return await job.future
    except asyncio.CancelledError:
        for batcher, lane in steps:
            batcher._drop(lane, job)
        raise
    finally:
        del job  # an error's traceback holds this frame, which must not hold the error


class Batcher:
    """Does batches of queries on a few threads of its own."""

    def __init__(
        self,
        name: str,
        threads: int = 1,
        observe: Callable[[str, int], None] = lambda kind, size: None,
    ) -> None:
        """`observe` hears of every batch: its kind, and how many queries are in it."""
        self._observe = observe
        self._batchers: dict[BatchKey, deque[_Job]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._under_way: Counter[Hashable] = Counter()
        self._begun: dict[int, float] = {}
        self.threads = [threading.Thread(target=self._serve, name=name, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    async def submit(self, lane: BatchKey, payload: Any, watch: Stopwatch) -> Any:
        """See `through`, of one step."""
        return await run_pipeline([(self, lane)], payload, watch)

    def _take(self, lane: BatchKey, jobs: Sequence[_Job]) -> bool:
        """Puts queries whose callers are still there into a lane; False once it is closed."""
        now = time.perf_counter()
        for job in jobs:
            job.since = now
        with self._changed:  # who goes while it is held is dropped from the lane afterwards
            staying = [job for job in jobs if not job.future.cancelled()]
            if staying and not self._closed:
                self._batchers.setdefault(lane, deque()).extend(staying)
                self._changed.notify(-(-len(staying) // lane.largest))
            return not self._closed

    def _drop(self, lane: BatchKey, job: _Job) -> None:
        """Takes it out of its lane, where it still is: while a thread hangs its turn may never come."""
        with self._changed:
            jobs = self._batchers.get(lane, deque())
            with suppress(ValueError):
                jobs.remove(job)
                if not jobs:
                    del self._batchers[lane]

    def queue_size(self) -> int:
        """How many queries are in the lanes."""
        with self._changed:
            return sum(map(len, self._batchers.values()))

    def busy_seconds(self) -> float:
        """Seconds that the oldest batch under way has taken so far; 0.0 where there is none."""
        begun = list(self._begun.values())
        return time.perf_counter() - min(begun) if begun else 0.0

    def stack_traces(self) -> list[str]:
        """Where each thread with a batch under way is now: its innermost frames, as tracebacks have them."""
        where = sys._current_frames()
        return ["".join(traceback.format_stack(where[me])[-_FRAMES:]) for me in list(self._begun) if me in where]

    def close(self) -> None:
        """Lets running batches finish and drops what waits."""
        with self._changed:
            self._closed = True
            dropped = [job for lane in self._batchers.values() for job in lane]
            self._batchers.clear()
            self._changed.notify_all()
        for job in dropped:
            _tell(job.loop, [(job, _DROPPED)])

    def join(self, seconds: float) -> None:
        """Waits, once closed, for the batches under way: a thread inside a library must not see Python end."""
        end = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _serve(self) -> None:
        lower_thread_priority()
        while self._do_next():  # a call of its own: nothing of a query, or of a collection, is kept while nothing comes
            pass

    def _do_next(self) -> bool:
        """Does the next batch, when there is one; False once it is closed."""
        found = self._next()
        if found is None:
            return False
        lane, batch = found
        me, watch = threading.get_ident(), Stopwatch()
        begun = self._begun[me] = time.perf_counter()
        outcomes = _outcomes(lane.work, batch, watch)
        del self._begun[me]
        for job in batch:
            job.watch.add("wait", begun - job.since)
            for stage, milliseconds in watch.took_ms.items():
                job.watch.add(stage, milliseconds / 1000.0)
        told = _hand_on(batch, outcomes)  # and only then the books: others wait for it
        for loop in {job.loop for job, _ in told}:
            _tell(loop, [(job, outcome) for job, outcome in told if job.loop is loop])
        with self._changed:
            self._under_way -= Counter([lane.owner])  # which forgets who has none
            if lane.max_concurrent_batches:
                self._changed.notify()
        self._observe(lane.kind, len(batch))
        return True

    def _next(self) -> tuple[BatchKey, list[_Job]] | None:
        """The next batch, when there is one; None once it is closed."""
        with self._changed:
            while not self._closed:
                free = [lane for lane, jobs in self._batchers.items() if self._may_start(lane, len(jobs))]
                if not free:
                    self._changed.wait()
                    continue
                lane = min(free, key=lambda lane: self._batchers[lane][0].since)
                jobs = self._batchers[lane]
                batch: list[_Job] = []
                while jobs and len(batch) < lane.largest:
                    job = jobs.popleft()
                    if not job.future.cancelled():  # its caller has gone
                        batch.append(job)
                if not jobs:
                    del self._batchers[lane]
                if batch:
                    self._under_way[lane.owner] += 1
                    return lane, batch
            return None

    def _may_start(self, lane: BatchKey, queued: int) -> bool:
        under_way = self._under_way[lane.owner]
        return (
            not lane.max_concurrent_batches
            or not under_way
            or (under_way < lane.max_concurrent_batches and 4 * queued >= lane.largest)
        )


def lower_thread_priority() -> None:
    """Lets the calling thread, and those that it starts, compute when the event loop has nothing to do.

    Under load there are more threads that compute than cores, and a loop that gets its share only takes no connection
    for seconds. Linux alone has a priority for each thread.
    """
    if sys.platform == "linux":
        least = min(19, os.getpriority(os.PRIO_PROCESS, 0) + _NICE)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), least)


def _outcomes(work: Work, batch: Sequence[_Job], watch: Stopwatch) -> list[Any]:
    """A result or an exception for each."""
    try:
        results = list(work([job.payload for job in batch], watch))
        if len(results) != len(batch):
            raise RuntimeError(f"{len(results)} results for {len(batch)} queries")
    except BaseException as error:  # a Rust panic is no Exception: whatever it is, the thread must live on
        if len(batch) == 1:
            return [_plain(error)]
    else:
        return results
    return [_DROPPED if job.future.cancelled() else _outcomes(work, [job], watch)[0] for job in batch]


def _plain(error: BaseException) -> Exception:
    """The error as a future takes it, without the frames it went through: they hold images, and the error itself.

    Where nobody foresaw it, a note says what they would have said.
    """
    told: Exception = RuntimeError(f"{type(error).__name__}: {error}")
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        told = error
    if not isinstance(error, LookalikeError):
        with suppress(Exception):  # memory may just have run out
            told.add_note("".join(traceback.format_exception(error)))
    clear_traceback(error)
    return told


def _hand_on(batch: Sequence[_Job], outcomes: Sequence[Any]) -> list[tuple[_Job, Any]]:
    """Those that have come to their end; the others are given to their next step, together."""
    told: list[tuple[_Job, Any]] = []
    onward: dict[PipelineStep, list[_Job]] = {}
    for job, outcome in zip(batch, outcomes, strict=True):
        if not job.onward or outcome is _DROPPED or isinstance(outcome, Exception):
            told.append((job, outcome))
        else:
            step, *job.onward = job.onward
            job.payload = outcome
            onward.setdefault(step, []).append(job)
    for (batcher, lane), jobs in onward.items():
        if not batcher._take(lane, jobs):
            told += [(job, _DROPPED) for job in jobs]
    return told


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

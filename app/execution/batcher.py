"""Dynamic batching: queries that arrive together are processed as one batch on worker threads.

A batch never waits to fill up. A query that arrives while a thread is idle starts immediately. Queries that arrive
while all threads are busy form the next batch, so batches grow with the load and a single query pays no extra latency.
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

BatchFunction = Callable[[Sequence[Any], Stopwatch], Iterable[Any]]
"""Payloads -> one result each, in order. Stages that it times on the stopwatch count for every query of the batch."""

_CANCELLED = object()
"""The outcome of a query that was dropped."""
_NICE_INCREMENT = 15
_MAX_STACK_FRAMES = 12
"""Innermost frames in a stack trace: enough to find a hang, without the import machinery around it."""


@dataclass(frozen=True, slots=True)
class BatchKey:
    """Which queries may share a batch, and how a batch of them is processed.

    Attributes:
        key: equal for queries that may share a batch.
        kind: the batch's name in telemetry.
        function: processes a batch.
        max_size: maximum number of queries in a batch.
        group: what `max_concurrent_batches` is counted for; several keys may belong to the same group.
        max_concurrent_batches: maximum number of the group's batches in flight; 0 for no limit. A batch
            concurrent with another one of its group starts only when it is at least a quarter full.
    """

    key: Hashable
    kind: str
    function: BatchFunction = field(compare=False)
    max_size: int = field(default=1, compare=False)
    group: Hashable = field(default=None, compare=False)
    max_concurrent_batches: int = field(default=0, compare=False)


PipelineStep = tuple["Batcher", BatchKey]
"""The batcher that executes a step, and the key under which queries are queued for it."""


@dataclass(slots=True, eq=False)
class _Job:
    """One query in the pipeline."""

    payload: Any
    stopwatch: Stopwatch
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    remaining: Sequence[PipelineStep]
    queued_at: float = 0.0


async def run_pipeline(steps: Sequence[PipelineStep], payload: Any, stopwatch: Stopwatch) -> Any:
    """Return the last step's result for one query; the result of each step is the payload of the next.

    The thread that completes a step queues the query for the next one. The event loop is woken only at the end.

    Args:
        steps: at least one.
        payload: input of the first step.
        stopwatch: receives the time in queues as `wait`, and the stages of the query's batches.

    Raises:
        asyncio.CancelledError: the caller was cancelled (the query leaves its queue), or a batcher is closed.
        Exception: whatever a batch function raises for this query.
    """
    loop = asyncio.get_running_loop()
    job = _Job(payload, stopwatch, loop, loop.create_future(), steps[1:])
    (batcher, key), *_ = steps
    if not batcher._enqueue(key, [job]):
        raise asyncio.CancelledError("the worker threads have been stopped")
    try:
        return await job.future
    except asyncio.CancelledError:
        for batcher, key in steps:
            batcher._remove(key, job)
        raise
    finally:
        del job  # an error's traceback holds this frame, which must not hold the error


class Batcher:
    """Worker threads that process queues of queries in batches, one queue a `BatchKey`.

    The queue whose first query has waited longest goes next. A batch that fails is retried query by query, so that only
    the query that caused the error fails.
    """

    def __init__(
        self,
        name: str,
        threads: int = 1,
        observe: Callable[[str, int], None] = lambda kind, size: None,
    ) -> None:
        """Start the threads.

        Args:
            name: name of the threads.
            threads: number of threads.
            observe: called after each batch with its kind and size.
        """
        self._observe = observe
        self._queues: dict[BatchKey, deque[_Job]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._in_flight: Counter[Hashable] = Counter()  # batches of each group
        self._started: dict[int, float] = {}  # thread -> when its current batch started
        self.threads = [threading.Thread(target=self._run, name=name, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    async def submit(self, key: BatchKey, payload: Any, stopwatch: Stopwatch) -> Any:
        """Return the result for one query of a single step. Raises as `run_pipeline` does."""
        return await run_pipeline([(self, key)], payload, stopwatch)

    def _enqueue(self, key: BatchKey, jobs: Sequence[_Job]) -> bool:
        """Queue the jobs that have not been cancelled; False once the batcher is closed."""
        now = time.perf_counter()
        for job in jobs:
            job.queued_at = now
        with self._changed:  # a job that is cancelled while the lock is held is removed by `_remove` afterwards
            waiting = [job for job in jobs if not job.future.cancelled()]
            if waiting and not self._closed:
                self._queues.setdefault(key, deque()).extend(waiting)
                self._changed.notify(-(-len(waiting) // key.max_size))
            return not self._closed

    def _remove(self, key: BatchKey, job: _Job) -> None:
        """Remove a cancelled job from its queue: while a thread hangs, none may come to skip it."""
        with self._changed:
            queue = self._queues.get(key, deque())
            with suppress(ValueError):
                queue.remove(job)
                if not queue:
                    del self._queues[key]

    def queue_size(self) -> int:
        """Return the number of queries that wait for a thread."""
        with self._changed:
            return sum(map(len, self._queues.values()))

    def busy_seconds(self) -> float:
        """Return for how many seconds the oldest batch has been running; 0.0 if there is none."""
        started = list(self._started.values())
        return time.perf_counter() - min(started) if started else 0.0

    def stack_traces(self) -> list[str]:
        """Return where each thread that runs a batch is now: its innermost frames, formatted as in a traceback."""
        frames = sys._current_frames()
        threads = [thread for thread in list(self._started) if thread in frames]
        return ["".join(traceback.format_stack(frames[thread])[-_MAX_STACK_FRAMES:]) for thread in threads]

    def close(self) -> None:
        """Cancel the queries that wait; batches in flight finish."""
        with self._changed:
            self._closed = True
            jobs = [job for queue in self._queues.values() for job in queue]
            self._queues.clear()
            self._changed.notify_all()
        for job in jobs:
            _resolve(job.loop, [(job, _CANCELLED)])

    def join(self, seconds: float) -> None:
        """Wait, after `close`, for batches in flight: Python must not exit while a thread is inside a library."""
        end = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        lower_thread_priority()
        while self._run_next_batch():  # a separate call: its locals would keep a query or a collection alive while idle
            pass

    def _run_next_batch(self) -> bool:
        """Wait for a batch and process it; False once the batcher is closed."""
        next_batch = self._next_batch()
        if next_batch is None:
            return False
        key, batch = next_batch
        thread, stopwatch = threading.get_ident(), Stopwatch()
        started = self._started[thread] = time.perf_counter()
        outcomes = _process(key.function, batch, stopwatch)
        del self._started[thread]
        for job in batch:
            job.stopwatch.add("wait", started - job.queued_at)
            for stage, milliseconds in stopwatch.took_ms.items():
                job.stopwatch.add(stage, milliseconds / 1000.0)
        done = _forward(batch, outcomes)  # before the bookkeeping: other threads wait for these
        for loop in {job.loop for job, _ in done}:
            _resolve(loop, [(job, outcome) for job, outcome in done if job.loop is loop])
        with self._changed:
            self._in_flight -= Counter([key.group])  # removes groups that reach 0
            if key.max_concurrent_batches:
                self._changed.notify()
        self._observe(key.kind, len(batch))
        return True

    def _next_batch(self) -> tuple[BatchKey, list[_Job]] | None:
        """Wait for a batch; None once the batcher is closed."""
        with self._changed:
            while not self._closed:
                ready = [key for key, queue in self._queues.items() if self._may_start(key, len(queue))]
                if not ready:
                    self._changed.wait()
                    continue
                key = min(ready, key=lambda key: self._queues[key][0].queued_at)
                if batch := self._pop_batch(key):
                    self._in_flight[key.group] += 1
                    return key, batch
            return None

    def _may_start(self, key: BatchKey, queued: int) -> bool:
        in_flight, limit = self._in_flight[key.group], key.max_concurrent_batches
        return not limit or not in_flight or (in_flight < limit and 4 * queued >= key.max_size)

    def _pop_batch(self, key: BatchKey) -> list[_Job]:
        """Take the first jobs from a queue, without cancelled ones; possibly none."""
        queue = self._queues[key]
        batch: list[_Job] = []
        while queue and len(batch) < key.max_size:
            job = queue.popleft()
            if not job.future.cancelled():
                batch.append(job)
        if not queue:
            del self._queues[key]
        return batch


def lower_thread_priority() -> None:
    """Give the event loop priority over the calling thread and the threads that it starts (Linux only).

    Under load, more threads compute than there are cores. With an equal share of the CPU, the event loop would accept
    no connection for seconds.
    """
    if sys.platform == "linux":  # which has a priority for each thread
        niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + _NICE_INCREMENT)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def _process(function: BatchFunction, batch: Sequence[_Job], stopwatch: Stopwatch) -> list[Any]:
    """Return a result or an exception for each job."""
    try:
        results = list(function([job.payload for job in batch], stopwatch))
        if len(results) != len(batch):
            raise RuntimeError(f"{len(results)} results for {len(batch)} queries")
    except BaseException as error:  # not only `Exception`: a Rust panic must not end the thread
        if len(batch) == 1:
            return [_without_traceback(error)]
    else:
        return results
    return [_CANCELLED if job.future.cancelled() else _process(function, [job], stopwatch)[0] for job in batch]


def _without_traceback(error: BaseException) -> Exception:
    """Return the error as an exception that a future accepts, without its traceback.

    Frames of the traceback hold images and the error itself. For unexpected errors, the formatted traceback is kept as
    a note.
    """
    exception: Exception = RuntimeError(f"{type(error).__name__}: {error}")
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        exception = error
    if not isinstance(error, LookalikeError):
        with suppress(Exception):  # such as MemoryError
            exception.add_note("".join(traceback.format_exception(error)))
    clear_traceback(error)
    return exception


def _forward(batch: Sequence[_Job], outcomes: Sequence[Any]) -> list[tuple[_Job, Any]]:
    """Queue jobs for their next step, those of the same step together; return the jobs that are done."""
    done: list[tuple[_Job, Any]] = []
    next_steps: dict[PipelineStep, list[_Job]] = {}
    for job, outcome in zip(batch, outcomes, strict=True):
        if not job.remaining or outcome is _CANCELLED or isinstance(outcome, Exception):
            done.append((job, outcome))
        else:
            step, *job.remaining = job.remaining
            job.payload = outcome
            next_steps.setdefault(step, []).append(job)
    for (batcher, key), jobs in next_steps.items():
        if not batcher._enqueue(key, jobs):
            done += [(job, _CANCELLED) for job in jobs]
    return done


def _resolve(loop: asyncio.AbstractEventLoop, outcomes: Sequence[tuple[_Job, Any]]) -> None:
    """Resolve the futures of a batch in a single callback on the event loop."""

    def set_outcomes() -> None:
        for job, outcome in outcomes:
            if job.future.done():
                continue
            if outcome is _CANCELLED:
                job.future.cancel()
            elif isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(set_outcomes)

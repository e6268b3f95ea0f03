"""Concurrent queries are processed in one batch, and each gets its own result or its own error."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.execution.batcher import BatchKey, run_pipeline
from app.execution.workers import MAX_TEXT_BATCH_SIZE, EncoderWorkers, SearchWorkers
from lookalike.errors import EncoderError
from lookalike.filters import Filter
from lookalike.row_search import SearchOptions
from lookalike.search import Modality
from lookalike.stopwatch import Stopwatch
from lookalike.types import Float32, UInt8

BAD = "bad"


class FakeSearcher:
    """Encodes texts to their lengths and images to their means; fails on `BAD`; records every call."""

    def __init__(self) -> None:
        self.encoder = SimpleNamespace(image_batch_size=4, max_concurrent_batches=1)
        self.batches: list[Any] = []
        self.threads: set[str] = set()

    def encode_texts(self, texts: Sequence[str], stopwatch: Stopwatch) -> Float32:
        with stopwatch.stage("encode"):
            self.batches.append(list(texts))
        self.threads.add(threading.current_thread().name)
        if BAD in texts:
            raise EncoderError("a bad text")
        return np.array([[len(text)] for text in texts], np.float32)

    def encode_images(self, batch: UInt8, stopwatch: Stopwatch) -> Float32:
        self.batches.append(batch.shape)
        return batch.reshape(len(batch), -1).mean(1, keepdims=True).astype(np.float32)


@asynccontextmanager
async def blocked(workers: EncoderWorkers) -> AsyncIterator[asyncio.Task[None]]:
    """Keep the only thread busy until the block ends, so that new queries wait in queues."""
    release, started = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        release.wait(10)

    task = asyncio.create_task(workers.run(work))
    await asyncio.to_thread(started.wait, 10)
    try:
        yield task
    finally:
        release.set()


@pytest.fixture
def workers() -> Any:
    created = EncoderWorkers(threads=1)
    yield created
    created.close()


@pytest.fixture
def searcher() -> Any:
    return FakeSearcher()


def submit_text(workers: EncoderWorkers, searcher: Any, words: str) -> asyncio.Task[Float32]:
    return asyncio.create_task(run_pipeline([workers.text_step(searcher)], words, Stopwatch()))


async def wait_until_queued(workers: EncoderWorkers, count: int) -> None:
    while workers.queue_size() < count:
        await asyncio.sleep(0.001)


async def test_single_query_is_a_batch_of_one(workers: EncoderWorkers, searcher: Any) -> None:
    stopwatch = Stopwatch()
    vector = await run_pipeline([workers.text_step(searcher)], "four", stopwatch)
    assert vector.tolist() == [4.0]
    assert searcher.batches == [["four"]]
    assert searcher.threads == {"device"}
    assert set(stopwatch.took_ms) == {"wait", "encode"}


async def test_queries_queued_while_busy_form_one_batch(workers: EncoderWorkers, searcher: Any) -> None:
    async with blocked(workers):
        tasks = [submit_text(workers, searcher, "x" * i) for i in range(1, 6)]
        await wait_until_queued(workers, 5)
    assert [vector.tolist() for vector in await asyncio.gather(*tasks)] == [[1.0], [2.0], [3.0], [4.0], [5.0]]
    assert [len(batch) for batch in searcher.batches] == [5]


async def test_batch_size_is_limited(workers: EncoderWorkers, searcher: Any) -> None:
    count = 2 * MAX_TEXT_BATCH_SIZE + 3

    async with blocked(workers):
        tasks = [submit_text(workers, searcher, "x") for _ in range(count)]
        await wait_until_queued(workers, count)
    await asyncio.gather(*tasks)
    assert [len(batch) for batch in searcher.batches] == [MAX_TEXT_BATCH_SIZE, MAX_TEXT_BATCH_SIZE, 3]


@pytest.mark.parametrize(("max_size", "sizes"), [(4, [4, 4, 1]), (8, [8, 1])])
async def test_encoder_sets_the_size_of_image_batches(
    workers: EncoderWorkers, searcher: Any, max_size: int, sizes: list[int]
) -> None:
    searcher.encoder.image_batch_size = max_size

    async with blocked(workers):
        tasks = [
            asyncio.create_task(
                run_pipeline([workers.image_step(searcher)], np.zeros((3, 2, 2), np.uint8), Stopwatch())
            )
            for _ in range(9)
        ]
        await wait_until_queued(workers, 9)
    await asyncio.gather(*tasks)
    assert [shape[0] for shape in searcher.batches] == sizes


async def test_images_and_texts_have_separate_queues(workers: EncoderWorkers, searcher: Any) -> None:
    async with blocked(workers):
        tasks: list[asyncio.Task[Float32]] = [submit_text(workers, searcher, "one")]
        await wait_until_queued(workers, 1)
        for value in (3, 5):
            pixels = np.full((3, 4, 4), value, np.uint8)
            tasks.append(asyncio.create_task(run_pipeline([workers.image_step(searcher)], pixels, Stopwatch())))
        await wait_until_queued(workers, 3)
        tasks.append(submit_text(workers, searcher, "seven"))
        await wait_until_queued(workers, 4)
    assert [float(vector[0]) for vector in await asyncio.gather(*tasks)] == [3.0, 3.0, 5.0, 5.0]
    assert searcher.batches == [["one", "seven"], (2, 3, 4, 4)]  # the queue whose first query waited longest goes first


async def test_encoders_do_not_share_a_batch(workers: EncoderWorkers) -> None:
    one, other = FakeSearcher(), FakeSearcher()

    async with blocked(workers):
        tasks = [submit_text(workers, each, "x") for each in (one, other, one)]
        await wait_until_queued(workers, 3)
    await asyncio.gather(*tasks)
    assert (one.batches, other.batches) == ([["x", "x"]], [["x"]])


async def test_only_the_bad_query_of_a_batch_fails(workers: EncoderWorkers, searcher: Any) -> None:
    async with blocked(workers):
        tasks = [submit_text(workers, searcher, words) for words in ("a", BAD, "ccc")]
        await wait_until_queued(workers, 3)
    results: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    first, bad, last = results
    assert (first.tolist(), last.tolist()) == ([1.0], [3.0])
    assert isinstance(bad, EncoderError)
    assert searcher.batches == [["a", BAD, "ccc"], ["a"], [BAD], ["ccc"]]


async def test_cancelled_query_is_not_retried(workers: EncoderWorkers) -> None:
    failing, cancelled = threading.Event(), threading.Event()

    class SlowSearcher(FakeSearcher):
        def encode_texts(self, texts: Sequence[str], stopwatch: Stopwatch) -> Float32:
            if len(texts) > 1:
                failing.set()
                cancelled.wait(10)
            return super().encode_texts([BAD] if len(texts) > 1 else texts, stopwatch)

    searcher: Any = SlowSearcher()

    async with blocked(workers):
        kept, dropped = submit_text(workers, searcher, "kept!"), submit_text(workers, searcher, "dropped")
        await wait_until_queued(workers, 2)
    await asyncio.to_thread(failing.wait, 10)
    dropped.cancel()
    await asyncio.sleep(0.01)
    cancelled.set()
    assert (await kept).tolist() == [5.0]
    assert searcher.batches == [[BAD], ["kept!"]]


class ControlledSearcher(FakeSearcher):
    """Allows two concurrent batches and completes one for each release of `go`; `sizes` lists the batches started."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SimpleNamespace(image_batch_size=4, max_concurrent_batches=2)
        self.sizes: list[int] = []
        self.go = threading.Semaphore(0)

    def encode_texts(self, texts: Sequence[str], stopwatch: Stopwatch) -> Float32:
        self.sizes.append(len(texts))
        self.go.acquire(timeout=10)
        return super().encode_texts(texts, stopwatch)


async def test_second_concurrent_batch_starts_a_quarter_full() -> None:
    searcher, quarter = ControlledSearcher(), MAX_TEXT_BATCH_SIZE // 4
    with closing(EncoderWorkers(threads=2)) as workers:
        tasks = [submit_text(workers, searcher, "first")]
        while not searcher.sizes:
            await asyncio.sleep(0.001)
        tasks += [submit_text(workers, searcher, "x") for _ in range(quarter - 1)]
        await wait_until_queued(workers, quarter - 1)
        await asyncio.sleep(0.02)
        assert searcher.sizes == [1]  # too small a batch to occupy another core
        tasks.append(submit_text(workers, searcher, "last"))
        while len(searcher.sizes) < 2:
            await asyncio.sleep(0.001)
        assert searcher.sizes == [1, quarter]
        assert workers.busy_seconds() > 0.0
        searcher.go.release(2)
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert workers.busy_seconds() == 0.0


async def test_cancelled_query_leaves_the_queue_of_a_hung_thread() -> None:
    searcher = ControlledSearcher()
    with closing(EncoderWorkers(threads=1)) as workers:
        first = submit_text(workers, searcher, "first")
        while not searcher.sizes:
            await asyncio.sleep(0.001)
        waiting = [submit_text(workers, searcher, "x") for _ in range(5)]
        await wait_until_queued(workers, 5)
        for task in waiting[:4]:
            task.cancel()
        await asyncio.gather(*waiting[:4], return_exceptions=True)
        assert workers.queue_size() == 1  # although no thread has taken them
        searcher.go.release(2)
        await asyncio.wait_for(asyncio.gather(first, waiting[4]), 10)
        assert searcher.sizes == [1, 1]


async def test_encoder_can_limit_itself_to_one_batch() -> None:
    searcher = ControlledSearcher()
    searcher.encoder.max_concurrent_batches = 1
    with closing(EncoderWorkers(threads=2)) as workers:
        tasks = [submit_text(workers, searcher, "first")]
        while not searcher.sizes:
            await asyncio.sleep(0.001)
        tasks += [submit_text(workers, searcher, "x") for _ in range(MAX_TEXT_BATCH_SIZE)]
        await wait_until_queued(workers, MAX_TEXT_BATCH_SIZE)
        await asyncio.sleep(0.02)
        assert searcher.sizes == [1]
        searcher.go.release(2)
        await asyncio.wait_for(asyncio.gather(*tasks), 10)


class FakeIndex:
    """Returns the vector's number `limit` times; records every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def search_vectors(
        self, queries: Float32, options: SearchOptions, stopwatch: Stopwatch, modality: Modality | None
    ) -> list[list[float]]:
        self.calls.append((len(queries), options.limit))
        return [[float(query[0])] * options.limit for query in queries]


async def test_searches_with_equal_options_share_a_batch() -> None:
    index = FakeIndex()
    searcher: Any = index
    like = Filter.model_validate({"must": [{"field": "year", "equals": 2024}]})
    options = [SearchOptions(1), SearchOptions(2), SearchOptions(1), SearchOptions(1, like), SearchOptions(1, like)]
    release, started = threading.Event(), threading.Event()

    def work(payloads: Sequence[Any], stopwatch: Stopwatch) -> Sequence[Any]:
        started.set()
        release.wait(10)
        return payloads

    with closing(SearchWorkers(1)) as workers:
        first = asyncio.create_task(workers.submit(BatchKey("blocked", "blocked", work), None, Stopwatch()))
        await asyncio.to_thread(started.wait, 10)
        tasks = [
            asyncio.create_task(
                run_pipeline([workers.search_step(searcher, each, None)], np.array([number], np.float32), Stopwatch())
            )
            for number, each in enumerate(options)
        ]
        while workers.queue_size() < len(options):
            await asyncio.sleep(0.001)
        release.set()
        await first
        results = await asyncio.gather(*tasks)
    assert results == [[0.0], [1.0, 1.0], [2.0], [3.0], [4.0]]
    assert index.calls == [(2, 1), (1, 2), (2, 1)]


class Panic(BaseException):
    """An error of an extension module that is not an `Exception`."""


@pytest.mark.parametrize("error", [Panic("rust"), StopIteration("no more"), MemoryError()])
async def test_thread_survives_any_error(workers: EncoderWorkers, searcher: Any, error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises((RuntimeError, MemoryError)):
        await asyncio.wait_for(workers.run(fail), 10)
    vector = await asyncio.wait_for(run_pipeline([workers.text_step(searcher)], "four", Stopwatch()), 10)
    assert vector.tolist() == [4.0]


async def test_wrong_number_of_results_is_an_error(workers: EncoderWorkers) -> None:
    class IncompleteSearcher(FakeSearcher):
        def encode_texts(self, texts: Sequence[str], stopwatch: Stopwatch) -> Float32:
            return super().encode_texts(texts, stopwatch)[1:]

    async with blocked(workers):
        tasks = [submit_text(workers, IncompleteSearcher(), words) for words in ("a", "bb")]
        await wait_until_queued(workers, 2)
    errors = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert all("0 results for 1 queries" in str(error) for error in errors)


async def test_cancelled_query_is_dropped(workers: EncoderWorkers, searcher: Any) -> None:
    async with blocked(workers):
        dropped, kept = submit_text(workers, searcher, "dropped"), submit_text(workers, searcher, "kept!")
        await wait_until_queued(workers, 2)
        dropped.cancel()
        await asyncio.sleep(0.01)
    assert (await kept).tolist() == [5.0]
    assert dropped.cancelled()
    assert searcher.batches == [["kept!"]]


async def test_run_returns_or_raises_what_the_call_does(workers: EncoderWorkers) -> None:
    assert await workers.run(lambda: None) is None
    assert await workers.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 // 0)
    assert await workers.run(lambda: threading.current_thread().name) == "device"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
async def test_worker_threads_have_lower_priority(workers: EncoderWorkers) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = niceness()
    assert await workers.run(niceness) == min(19, own + 15)
    assert niceness() == own


async def test_close_cancels_waiting_queries(workers: EncoderWorkers, searcher: Any) -> None:
    async with blocked(workers) as running:
        waiting = submit_text(workers, searcher, "x")
        await wait_until_queued(workers, 1)
        workers.close()
    await running
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(asyncio.CancelledError):
        await run_pipeline([workers.text_step(searcher)], "late", Stopwatch())
    assert searcher.batches == []
    workers.join(10)
    assert not any(thread.is_alive() for thread in workers.threads)

"""Queries that meet at the device leave together, and each gets its own answer or its own error."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.execution.batcher import BatchKey, run_pipeline
from app.execution.workers import MAX_TEXT_BATCH_SIZE, EncoderWorkers, SearchWorkers
from lookalike.errors import EncoderError
from lookalike.filters import Filter
from lookalike.row_search import SearchOptions
from lookalike.stopwatch import Stopwatch
from lookalike.types import Float32, UInt8

BAD = "bad"


class FakeSearcher:
    """Texts become their lengths, images their means; `BAD` fails; every call is noted."""

    def __init__(self) -> None:
        self.encoder = SimpleNamespace(image_batch=4, max_concurrent_batches=1)
        self.batches: list[Any] = []
        self.threads: set[str] = set()

    def encode_texts(self, texts: Sequence[str], watch: Stopwatch) -> Float32:
        with watch.stage("encode"):
            self.batches.append(list(texts))
        self.threads.add(threading.current_thread().name)
        if BAD in texts:
            raise EncoderError("a bad text")
        return np.array([[len(text)] for text in texts], np.float32)

    def encode_images(self, batch: UInt8, watch: Stopwatch) -> Float32:
        self.batches.append(batch.shape)
        return batch.reshape(len(batch), -1).mean(1, keepdims=True).astype(np.float32)


@asynccontextmanager
async def busy(device: EncoderWorkers) -> AsyncIterator[asyncio.Task[None]]:
    """The device at work until the block ends, so that what comes in between has to wait."""
    gate, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait(10)

    task = asyncio.create_task(device.run(work))
    await asyncio.to_thread(begun.wait, 10)
    try:
        yield task
    finally:
        gate.set()


@pytest.fixture
def device() -> Any:
    made = EncoderWorkers(threads=1)
    yield made
    made.close()


@pytest.fixture
def searcher() -> Any:
    return FakeSearcher()


def text(device: EncoderWorkers, searcher: Any, words: str) -> asyncio.Task[Float32]:
    return asyncio.create_task(run_pipeline([device.text_step(searcher)], words, Stopwatch()))


async def arrived(device: EncoderWorkers, count: int) -> None:
    while device.queue_size() < count:
        await asyncio.sleep(0.001)


def test_a_lone_query_is_a_batch_of_one(device: EncoderWorkers, searcher: Any) -> None:
    watch = Stopwatch()
    assert asyncio.run(run_pipeline([device.text_step(searcher)], "four", watch)).tolist() == [4.0]
    assert searcher.batches == [["four"]]
    assert searcher.threads == {"device"}
    assert set(watch.took_ms) == {"wait", "encode"}


def test_what_comes_while_the_device_is_busy_leaves_together(device: EncoderWorkers, searcher: Any) -> None:
    async def main() -> list[list[float]]:
        async with busy(device):
            tasks = [text(device, searcher, "x" * i) for i in range(1, 6)]
            await arrived(device, 5)
        return [vector.tolist() for vector in await asyncio.gather(*tasks)]

    assert asyncio.run(main()) == [[1.0], [2.0], [3.0], [4.0], [5.0]]
    assert [len(batch) for batch in searcher.batches] == [5]


def test_a_batch_has_a_largest_size(device: EncoderWorkers, searcher: Any) -> None:
    count = 2 * MAX_TEXT_BATCH_SIZE + 3

    async def main() -> None:
        async with busy(device):
            tasks = [text(device, searcher, "x") for _ in range(count)]
            await arrived(device, count)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert [len(batch) for batch in searcher.batches] == [MAX_TEXT_BATCH_SIZE, MAX_TEXT_BATCH_SIZE, 3]


@pytest.mark.parametrize(("largest", "sizes"), [(4, [4, 4, 1]), (8, [8, 1])])
def test_images_leave_in_batches_of_what_their_encoder_likes(
    device: EncoderWorkers, searcher: Any, largest: int, sizes: list[int]
) -> None:
    searcher.encoder.image_batch = largest

    async def main() -> None:
        async with busy(device):
            tasks = [
                asyncio.create_task(
                    run_pipeline([device.image_step(searcher)], np.zeros((3, 2, 2), np.uint8), Stopwatch())
                )
                for _ in range(9)
            ]
            await arrived(device, 9)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert [shape[0] for shape in searcher.batches] == sizes


def test_images_and_texts_stand_in_lanes_of_their_own(device: EncoderWorkers, searcher: Any) -> None:
    async def main() -> list[Any]:
        async with busy(device):
            tasks: list[asyncio.Task[Float32]] = [text(device, searcher, "one")]
            await arrived(device, 1)
            for value in (3, 5):
                pixels = np.full((3, 4, 4), value, np.uint8)
                tasks.append(asyncio.create_task(run_pipeline([device.image_step(searcher)], pixels, Stopwatch())))
            await arrived(device, 3)
            tasks.append(text(device, searcher, "seven"))
            await arrived(device, 4)
        return [float(vector[0]) for vector in await asyncio.gather(*tasks)]

    assert asyncio.run(main()) == [3.0, 3.0, 5.0, 5.0]
    assert searcher.batches == [["one", "seven"], (2, 3, 4, 4)]  # the lane whose first query waited longest goes first


def test_encoders_do_not_share_a_batch(device: EncoderWorkers) -> None:
    one, other = FakeSearcher(), FakeSearcher()

    async def main() -> None:
        async with busy(device):
            tasks = [text(device, each, "x") for each in (one, other, one)]
            await arrived(device, 3)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert (one.batches, other.batches) == ([["x", "x"]], [["x"]])


def test_a_bad_query_fails_alone(device: EncoderWorkers, searcher: Any) -> None:
    async def main() -> list[Any]:
        async with busy(device):
            tasks = [text(device, searcher, words) for words in ("a", BAD, "ccc")]
            await arrived(device, 3)
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, bad, last = asyncio.run(main())
    assert (first.tolist(), last.tolist()) == ([1.0], [3.0])
    assert isinstance(bad, EncoderError)
    assert searcher.batches == [["a", BAD, "ccc"], ["a"], [BAD], ["ccc"]]


def test_who_left_is_not_tried_again(device: EncoderWorkers) -> None:
    failing, left = threading.Event(), threading.Event()

    class Slow(FakeSearcher):
        def encode_texts(self, texts: Sequence[str], watch: Stopwatch) -> Float32:
            if len(texts) > 1:
                failing.set()
                left.wait(10)
            return super().encode_texts([BAD] if len(texts) > 1 else texts, watch)

    searcher: Any = Slow()

    async def main() -> None:
        async with busy(device):
            stays, gone = text(device, searcher, "stays"), text(device, searcher, "gone")
            await arrived(device, 2)
        await asyncio.to_thread(failing.wait, 10)
        gone.cancel()
        await asyncio.sleep(0.01)
        left.set()
        assert (await stays).tolist() == [5.0]

    asyncio.run(main())
    assert searcher.batches == [[BAD], ["stays"]]


class Held(FakeSearcher):
    """Encodes two batches at once, each of them only when told; `sizes` says what is under way or was."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SimpleNamespace(image_batch=4, max_concurrent_batches=2)
        self.sizes: list[int] = []
        self.go = threading.Semaphore(0)

    def encode_texts(self, texts: Sequence[str], watch: Stopwatch) -> Float32:
        self.sizes.append(len(texts))
        self.go.acquire(timeout=10)
        return super().encode_texts(texts, watch)


def test_a_second_batch_leaves_beside_the_first_when_it_is_a_quarter_full() -> None:
    device, searcher, quarter = EncoderWorkers(threads=2), Held(), MAX_TEXT_BATCH_SIZE // 4

    async def main() -> None:
        tasks = [text(device, searcher, "first")]
        while not searcher.sizes:
            await asyncio.sleep(0.001)
        tasks += [text(device, searcher, "x") for _ in range(quarter - 1)]
        await arrived(device, quarter - 1)
        await asyncio.sleep(0.02)
        assert searcher.sizes == [1]  # a core for a few would cost more than their waiting does
        tasks.append(text(device, searcher, "last"))
        while len(searcher.sizes) < 2:
            await asyncio.sleep(0.001)
        assert searcher.sizes == [1, quarter]
        assert device.busy_seconds() > 0.0
        searcher.go.release(2)
        await asyncio.wait_for(asyncio.gather(*tasks), 10)

    try:
        asyncio.run(main())
    finally:
        device.close()
    assert device.busy_seconds() == 0.0


def test_who_goes_while_a_thread_hangs_leaves_the_queue() -> None:
    device, searcher = EncoderWorkers(threads=1), Held()

    async def main() -> None:
        first = text(device, searcher, "first")
        while not searcher.sizes:
            await asyncio.sleep(0.001)
        waiting = [text(device, searcher, "x") for _ in range(5)]
        await arrived(device, 5)
        for task in waiting[:4]:
            task.cancel()
        await asyncio.gather(*waiting[:4], return_exceptions=True)
        assert device.queue_size() == 1  # though no thread has looked at any of them
        searcher.go.release(2)
        await asyncio.wait_for(asyncio.gather(first, waiting[4]), 10)
        assert searcher.sizes == [1, 1]

    try:
        asyncio.run(main())
    finally:
        device.close()


def test_an_encoder_of_one_stream_has_one_batch_under_way() -> None:
    device, searcher = EncoderWorkers(threads=2), Held()
    searcher.encoder.max_concurrent_batches = 1

    async def main() -> None:
        tasks = [text(device, searcher, "first")]
        while not searcher.sizes:
            await asyncio.sleep(0.001)
        tasks += [text(device, searcher, "x") for _ in range(MAX_TEXT_BATCH_SIZE)]
        await arrived(device, MAX_TEXT_BATCH_SIZE)
        await asyncio.sleep(0.02)
        assert searcher.sizes == [1]
        searcher.go.release(2)
        await asyncio.wait_for(asyncio.gather(*tasks), 10)

    try:
        asyncio.run(main())
    finally:
        device.close()


class FakeCollection:
    """Searching finds the vector's own number as often as was asked; every call is noted."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def search_vectors(self, queries: Float32, options: SearchOptions, watch: Stopwatch) -> list[list[float]]:
        self.calls.append((len(queries), options.limit))
        return [[float(query[0])] * options.limit for query in queries]


def test_searches_that_ask_for_the_same_share_a_batch() -> None:
    searches, collection = SearchWorkers(1), FakeCollection()
    asked: Any = collection
    like = Filter.model_validate({"must": [{"field": "year", "equals": 2024}]})
    options = [SearchOptions(1), SearchOptions(2), SearchOptions(1), SearchOptions(1, like), SearchOptions(1, like)]

    async def main() -> list[Any]:
        gate, begun = threading.Event(), threading.Event()

        def work(payloads: Sequence[Any], watch: Stopwatch) -> Sequence[Any]:
            begun.set()
            gate.wait(10)
            return payloads

        first = asyncio.create_task(searches.submit(BatchKey("held", "held", work), None, Stopwatch()))
        await asyncio.to_thread(begun.wait, 10)
        tasks = [
            asyncio.create_task(
                run_pipeline([searches.search_step(asked, each)], np.array([number], np.float32), Stopwatch())
            )
            for number, each in enumerate(options)
        ]
        while searches.queue_size() < len(options):
            await asyncio.sleep(0.001)
        gate.set()
        await first
        return await asyncio.gather(*tasks)

    try:
        found = asyncio.run(main())
    finally:
        searches.close()
    assert found == [[0.0], [1.0, 1.0], [2.0], [3.0], [4.0]]
    assert collection.calls == [(2, 1), (1, 2), (2, 1)]


class Panic(BaseException):
    """What an extension module may raise: no `Exception`."""


@pytest.mark.parametrize("error", [Panic("rust"), StopIteration("no more"), MemoryError()])
def test_nothing_that_is_raised_ends_the_thread(device: EncoderWorkers, searcher: Any, error: BaseException) -> None:
    def fail() -> None:
        raise error

    async def main() -> Float32:
        with pytest.raises((RuntimeError, MemoryError)):
            await asyncio.wait_for(device.run(fail), 10)
        return await asyncio.wait_for(run_pipeline([device.text_step(searcher)], "four", Stopwatch()), 10)

    assert asyncio.run(main()).tolist() == [4.0]


def test_too_few_results_are_an_error_and_not_a_mix_up(device: EncoderWorkers) -> None:
    class Forgetful(FakeSearcher):
        def encode_texts(self, texts: Sequence[str], watch: Stopwatch) -> Float32:
            return super().encode_texts(texts, watch)[1:]

    async def main() -> list[Any]:
        async with busy(device):
            tasks = [text(device, Forgetful(), words) for words in ("a", "bb")]
            await arrived(device, 2)
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

    assert all("0 results for 1 queries" in str(error) for error in asyncio.run(main()))


def test_a_query_whose_caller_has_gone_is_dropped(device: EncoderWorkers, searcher: Any) -> None:
    async def main() -> None:
        async with busy(device):
            gone, stays = text(device, searcher, "gone"), text(device, searcher, "stays")
            await arrived(device, 2)
            gone.cancel()
            await asyncio.sleep(0.01)
        assert (await stays).tolist() == [5.0]
        assert gone.cancelled()

    asyncio.run(main())
    assert searcher.batches == [["stays"]]


def test_calls_give_back_what_they_give_or_raise(device: EncoderWorkers) -> None:
    async def main() -> None:
        assert await device.run(lambda: None) is None
        assert await device.run(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await device.run(lambda: 1 // 0)
        assert await device.run(lambda: threading.current_thread().name) == "device"

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has a priority for each thread")
def test_threads_that_compute_give_way_to_the_loop(device: EncoderWorkers) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    here = niceness()
    assert asyncio.run(device.run(niceness)) == min(19, here + 15)
    assert niceness() == here


def test_closing_drops_what_waits(device: EncoderWorkers, searcher: Any) -> None:
    async def main() -> None:
        async with busy(device) as running:
            waiting = text(device, searcher, "x")
            await arrived(device, 1)
            device.close()
        await running
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(asyncio.CancelledError):
            await run_pipeline([device.text_step(searcher)], "late", Stopwatch())

    asyncio.run(main())
    assert searcher.batches == []
    device.join(10)
    assert not any(thread.is_alive() for thread in device.threads)

"""The bounded prefetch thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from indexing.ingest.prefetch import prefetch


def test_prefetch_keeps_order() -> None:
    assert list(prefetch(range(1000), 3)) == list(range(1000))


def test_prefetch_is_bounded() -> None:
    started: list[int] = []
    blocked = threading.Event()

    def numbers() -> Iterator[int]:
        for i in range(100):
            started.append(i)
            if i == 5:
                blocked.set()
            yield i

    with closing(prefetch(numbers(), 4)) as ahead:
        assert next(ahead) == 0
        assert blocked.wait(10)  # 4 in the queue, one in the hand
        assert max(started) <= 6


def test_exception_reaches_consumer_in_order() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    ahead = prefetch(failing(), 2)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_closing_stops_thread_and_source() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    with closing(prefetch(endless(), 2)) as ahead:
        next(ahead)
    assert closed.is_set()
    assert threading.active_count() == before

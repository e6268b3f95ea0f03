"""Stage timings of one request: the names that telemetry, logs, benchmarks and answers share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("decode", "preprocess", "wait", "encode", "filter", "search", "rerank", "metadata")


class Stopwatch:
    """Adds up milliseconds by stage; a stage entered twice is summed. One per request, not shared between threads."""

    def __init__(self) -> None:
        self.took_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block under `name`, one of `STAGES`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Seconds that were measured elsewhere: by a batch for all that were in it."""
        self.took_ms[name] = self.took_ms.get(name, 0.0) + seconds * 1000.0

"""Timing of a request's stages, with the stage names that telemetry, logs, benchmarks and responses share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("decode", "preprocess", "wait", "encode", "filter", "search", "rerank", "metadata")


class Stopwatch:
    """Milliseconds by stage, summed if a stage is entered twice. One for each request; not thread-safe.

    Attributes:
        took_ms: stage -> milliseconds.
    """

    def __init__(self) -> None:
        self.took_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as the stage `name`, one of `STAGES`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add a duration that was measured elsewhere, for example by a batch for each of its requests."""
        self.took_ms[name] = self.took_ms.get(name, 0.0) + seconds * 1000.0

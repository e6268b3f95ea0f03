"""Health probes: one query of each kind passes every stage, and the stage that failed is named.

An image of one pixel is decoded, preprocessed, encoded and searched for; so is a text if the encoder takes one. Probes
share threads and batches with other queries. They skip admission, so a service that is full is not reported broken.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.execution.pipeline import QueryPipeline, TextQuery
from lookalike.errors import LookalikeError
from lookalike.row_search import SearchOptions
from lookalike.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

T = TypeVar("T")

_STAGES = 4
"""Stages of a probe; each has the whole timeout."""

# One grey pixel as a PNG.
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNoAAAAggCB2kUIOwAAAABJRU5ErkJggg=="
)


class Probe:
    """The last probe of a collection.

    Attributes:
        failure: the stage at which the last probe failed, and why; empty if it passed.
    """

    def __init__(self, timeout: float, interval: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a probe.

        Args:
            timeout: seconds that a stage may take.
            interval: seconds between two probes.
            clock: returns monotonic seconds.
        """
        self.failure = ""
        self._timeout = timeout
        self._max_age = interval + _STAGES * timeout
        self._clock = clock
        self._passed_at = math.inf  # before the first one, no probe is overdue
        self._stage = ""
        self._stage_began = 0.0

    def problem(self) -> str:
        """Return what is wrong now, also while a probe is stuck; empty if nothing is."""
        if self._stage and (seconds := self._clock() - self._stage_began) > self._timeout:
            return f"{self._stage} has not answered for {seconds:.0f} s"
        if not self.failure and (age := self._clock() - self._passed_at) > self._max_age:
            return f"none has been sent for {age:.0f} s"
        return self.failure

    async def run(self, pipeline: QueryPipeline) -> None:
        """Send a probe; a failure is kept, not raised."""
        try:
            await self.check(pipeline)
        except Exception as error:  # any failure makes the collection unhealthy
            if not self.failure:
                logger.error("probe_failed stage=%s: %s: %s", self._stage, type(error).__name__, error)
            self.failure = f"{self._stage or 'probe'} failed: {type(error).__name__}: {error}"
        else:
            if self.failure:
                logger.warning("probe_passed again")
            self.record_success()
        finally:
            self._stage = ""

    def record_success(self) -> None:
        """Record that a probe has just passed."""
        self.failure = ""
        self._passed_at = self._clock()

    async def check(self, pipeline: QueryPipeline) -> None:
        """Send one query of each kind through every stage.

        Raises:
            LookalikeError: a stage failed, or took longer than the timeout.
        """
        pixels = await self._with_timeout("decode", pipeline.decode(_PIXEL))
        vector = await self._with_timeout("encode (image)", pipeline.encode_image(pixels))
        if pipeline.searcher.encoder.spec.text:
            await self._with_timeout("encode (text)", pipeline.embed(TextQuery("a photograph"), Stopwatch()))
        await self._with_timeout("search", pipeline.search_vector(vector, SearchOptions(limit=1)))

    async def _with_timeout(self, stage: str, work: Awaitable[T]) -> T:
        self._stage, self._stage_began = stage, self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                return await work
        except TimeoutError as error:
            raise LookalikeError(f"no answer within {self._timeout:g} s") from error

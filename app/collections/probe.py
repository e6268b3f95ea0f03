"""Whether queries pass: one of each kind walks every stage, and what it could not pass is named.

An image of one pixel is decoded, preprocessed, encoded and searched for, and a text where the encoder takes one, on
the same threads and through the same lanes as everybody's queries; only the gate is not asked, so that a service that
is full does not look broken. It knows nothing of routes.
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
"""Those below; a probe may take as many times what one of them may."""

# One grey pixel as a PNG: enough to walk every stage once.
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNoAAAAggCB2kUIOwAAAABJRU5ErkJggg=="
)


class Probe:
    """The last probe of a collection.

    Attributes:
        failure: the stage that the last probe failed at and why; empty while all is well.
    """

    def __init__(self, timeout: float, every: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        """From the seconds that a stage may take, and those between two probes."""
        self.failure = ""
        self._timeout = timeout
        self._oldest = every + _STAGES * timeout
        self._clock = clock
        self._passed = math.inf  # when one last did; none is missed before the first has been sent
        self._stage = ""
        self._entered = 0.0

    def problem(self) -> str:
        """What is wrong now, also while a probe is stuck; empty where nothing is."""
        if self._stage and (stuck := self._clock() - self._entered) > self._timeout:
            return f"{self._stage} has not answered for {stuck:.0f} s"
        if not self.failure and (age := self._clock() - self._passed) > self._oldest:
            return f"none has been sent for {age:.0f} s"
        return self.failure

    async def run(self, pipeline: QueryPipeline) -> None:
        """Probes; a failure is kept, not raised."""
        try:
            await self.check(pipeline)
        except Exception as error:  # whatever it is: the probe is there to tell it
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
        """All was well just now."""
        self.failure = ""
        self._passed = self._clock()

    async def check(self, pipeline: QueryPipeline) -> None:
        """Probes.

        Raises:
            LookalikeError: a stage failed, or took longer than it may.
        """
        searcher = pipeline.searcher
        pixels = await self._within("decode", pipeline.decode(_PIXEL))
        vector = await self._within("encode (image)", pipeline.encode_image(pixels))
        if searcher.encoder.spec.text:
            await self._within("encode (text)", pipeline.embed(TextQuery("a photograph"), Stopwatch()))
        await self._within("search", pipeline.search_vector(vector, SearchOptions(limit=1)))

    async def _within(self, stage: str, work: Awaitable[T]) -> T:
        self._stage, self._entered = stage, self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                return await work
        except TimeoutError as error:
            raise LookalikeError(f"no answer within {self._timeout:g} s") from error

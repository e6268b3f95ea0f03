"""The steps that queries pass on threads: an image's decoding, the encoder where the device is owned, the search.

Images and texts of each encoder stand in lanes of their own, as do searches of each collection that ask for the same.
An encoder says how many batches it has under way at once: one where all cores or a GPU work on it, two on a CPU where
each has half the cores, since two cores that divide one batch wait for each other at every layer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from app.execution.batcher import Batcher, BatchKey, PipelineStep
from lookalike.row_search import SearchOptions
from lookalike.search import Searcher
from lookalike.stopwatch import Stopwatch
from lookalike.types import Float32, Hit, UInt8

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_TEXT_BATCH_SIZE = 32
"""Texts in a batch at most, as `Encoder.image_batch` bounds images: beyond these a CPU encodes hardly more a second
(benchmarks/RESULTS.md), and the first one would wait for the last. What a GPU wants has not been measured."""
_LARGEST_SEARCH = 16
_MOST_AT_ONCE = 2


class DecodeWorkers(Batcher):
    """Decodes and preprocesses images, each by itself."""

    def __init__(self, threads: int) -> None:
        """As `Lanes` has it."""
        super().__init__("decode", threads)

    def decode_step(self, searcher: Searcher) -> PipelineStep:
        """An image file's bytes -> (3, S, S), preprocessed; raises ImageError."""

        def work(batch: Sequence[Any], watch: Stopwatch) -> list[UInt8]:
            return [searcher.prepare_image(data, watch) for data in batch]

        return self, BatchKey((id(searcher), "decode"), "decode", work)


class EncoderWorkers(Batcher):
    """Encodes; its threads alone run models."""

    def __init__(
        self, observe: Callable[[str, int], None] = lambda kind, size: None, threads: int = _MOST_AT_ONCE
    ) -> None:
        """As `Lanes` has it."""
        super().__init__("device", threads, observe)

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call()` on one of the threads; a call whose caller is gone by then is dropped."""
        result: T = await self.submit(
            BatchKey("call", "call", lambda calls, _: [each() for each in calls]), call, Stopwatch()
        )
        return result

    async def warm(self, searcher: Searcher) -> None:
        """Has batches of the largest size encoded once, beside what else comes; a failure is logged."""
        encoder = searcher.encoder
        lane = BatchKey(
            (id(encoder), "warm"), "call", _warm, 1, id(encoder), encoder.max_concurrent_batches
        )  # a batch as any other
        try:
            await self.submit(lane, searcher, Stopwatch())
        except Exception:  # queries that come one by one may pass all the same, and the probe tells where they don't
            logger.exception("a first batch could not be encoded")

    def image_step(self, searcher: Searcher) -> PipelineStep:
        """A preprocessed image (3, S, S) -> (d,) of unit norm; the watch gets wait and encode."""
        encoder = searcher.encoder
        work = partial(_encode_images, searcher)
        return self, BatchKey(
            (id(encoder), "image"), "image", work, encoder.image_batch, id(encoder), encoder.max_concurrent_batches
        )

    def text_step(self, searcher: Searcher) -> PipelineStep:
        """A prepared text -> (d,) of unit norm; the watch gets wait and encode."""
        encoder = searcher.encoder
        work = searcher.encode_texts
        return self, BatchKey(
            (id(encoder), "text"), "text", work, MAX_TEXT_BATCH_SIZE, id(encoder), encoder.max_concurrent_batches
        )


class SearchWorkers(Batcher):
    """Searches, queries of a collection that ask for the same in one go.

    Attributes:
        libraries: those whose threads share a batch. None until they are loaded.
    """

    libraries: ThreadpoolController | None = None

    def __init__(self, threads: int, observe: Callable[[str, int], None] = lambda kind, size: None) -> None:
        """As `Lanes` has it."""
        super().__init__("search", threads, observe)

    def search_step(self, searcher: Searcher, options: SearchOptions) -> PipelineStep:
        """A unit vector (d,) -> the items nearest to it; the watch gets wait, filter, search, rerank and metadata."""
        asked = options.filter.model_dump_json(by_alias=True, exclude_unset=True) if options.filter else ""
        params = tuple(sorted((options.params or {}).items()))
        key = (id(searcher), options.limit, options.exact, params, asked)
        return self, BatchKey(key, "search", partial(self._nearest, searcher, options), _LARGEST_SEARCH)

    def _nearest(
        self, searcher: Searcher, options: SearchOptions, batch: Sequence[Any], watch: Stopwatch
    ) -> list[list[Hit]]:
        """Where queries come together, others are being encoded or searched for, and more threads would fight."""
        lone = nullcontext()
        with lone if self.libraries is None or len(batch) == 1 else self.libraries.limit(limits=1):
            return searcher.search_vectors(np.stack(batch), options, watch)


def _warm(searchers: Sequence[Any], watch: Stopwatch) -> list[None]:
    return [searcher.warm(MAX_TEXT_BATCH_SIZE) for searcher in searchers]


def _encode_images(searcher: Searcher, batch: Sequence[Any], watch: Stopwatch) -> Float32:
    return searcher.encode_images(np.stack(batch), watch)

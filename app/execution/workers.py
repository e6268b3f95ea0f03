"""Worker threads for the steps of a query: decode an image, encode an image or a text, search.

Each encoder has one queue for images and one for texts. Searches of a collection with equal options share a queue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from app.execution.batcher import Batcher, BatchFunction, BatchKey, PipelineStep
from lookalike.prepared_image import PreparedImage, prepare
from lookalike.row_search import SearchOptions
from lookalike.search import Modality, RankedHits, Searcher
from lookalike.stopwatch import Stopwatch
from lookalike.types import Float32, UInt8
from lookalike.writes.operations import Operation, Outcome

if TYPE_CHECKING:
    from lookalike.writes.writer import Writer

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_TEXT_BATCH_SIZE = 32
"""Texts in a batch; `Encoder.image_batch_size` is the limit for images. A larger batch hardly raises a CPU's throughput
(benchmarks/history/encoders.md), and its first text would wait for its last. Not measured on a GPU."""
_MAX_SEARCH_BATCH_SIZE = 16
_ENCODER_THREADS = 2
_MAX_WRITE_BATCH_SIZE = 64


class DecodeWorkers(Batcher):
    """Threads that decode and preprocess images, one image at a time."""

    def __init__(self, threads: int) -> None:
        super().__init__("decode", threads)

    def decode_step(self, searcher: Searcher) -> PipelineStep:
        """Return the step from an image file's bytes to preprocessed pixels (3, S, S); it raises ImageError."""

        def decode(batch: Sequence[Any], stopwatch: Stopwatch) -> list[UInt8]:
            return [searcher.prepare_image(data, stopwatch) for data in batch]

        return self, BatchKey((id(searcher), "decode"), "decode", decode)

    def prepare_step(self, searcher: Searcher) -> PipelineStep:
        """Return the step from an image file's bytes to what a written item needs; it raises ImageError."""

        def prepare_all(batch: Sequence[Any], stopwatch: Stopwatch) -> list[PreparedImage]:
            with stopwatch.stage("decode"):
                return [prepare(data, searcher.encoder, searcher.limits.pixels) for data in batch]

        return self, BatchKey((id(searcher.encoder), "prepare"), "decode", prepare_all)


class EncoderWorkers(Batcher):
    """The only threads that run models.

    An encoder limits its concurrent batches: to one where a batch uses all cores or a GPU, to two on a CPU where each
    batch uses half of the cores. (Cores that share one batch wait for each other at every layer.)
    """

    def __init__(
        self, observe: Callable[[str, int], None] = lambda kind, size: None, threads: int = _ENCODER_THREADS
    ) -> None:
        super().__init__("device", threads, observe)

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of `call()` on one of the threads; a call is dropped if its caller is cancelled first."""
        key = BatchKey("call", "call", lambda calls, _: [each() for each in calls])
        result: T = await self.submit(key, call, Stopwatch())
        return result

    async def warm(self, searcher: Searcher) -> None:
        """Encode batches of the maximum size once, as a batch like any other; log a failure."""
        encoder = searcher.encoder
        key = BatchKey((id(encoder), "warm"), "call", _warm, 1, id(encoder), encoder.max_concurrent_batches)
        try:
            await self.submit(key, searcher, Stopwatch())
        except Exception:  # smaller batches may still succeed; where they don't, the probe reports it
            logger.exception("a first batch could not be encoded")

    def image_step(self, searcher: Searcher) -> PipelineStep:
        """Return the step from preprocessed pixels (3, S, S) to a unit vector (d,)."""
        return self._step(searcher, "image", partial(_encode_images, searcher), searcher.encoder.image_batch_size)

    def text_step(self, searcher: Searcher) -> PipelineStep:
        """Return the step from a prepared text to a unit vector (d,)."""
        return self._step(searcher, "text", searcher.encode_texts, MAX_TEXT_BATCH_SIZE)

    def _step(self, searcher: Searcher, kind: str, function: BatchFunction, max_size: int) -> PipelineStep:
        encoder = searcher.encoder
        key = BatchKey((id(encoder), kind), kind, function, max_size, id(encoder), encoder.max_concurrent_batches)
        return self, key


class SearchWorkers(Batcher):
    """Threads that search; queries of a collection with equal options are searched together.

    Attributes:
        libraries: the libraries whose threads are limited while a batch is searched; None until they are loaded.
    """

    libraries: ThreadpoolController | None = None

    def __init__(self, threads: int, observe: Callable[[str, int], None] = lambda kind, size: None) -> None:
        super().__init__("search", threads, observe)

    def search_step(self, searcher: Searcher, options: SearchOptions, modality: Modality | None) -> PipelineStep:
        """Return the step from a unit vector (d,) to its `RankedHits`; `modality` is as in `search_vectors`."""
        conditions = options.filter.model_dump_json(by_alias=True, exclude_unset=True) if options.filter else ""
        params = tuple(sorted((options.params or {}).items()))
        hashable = replace(options, filter=None, params=None)
        key = (id(searcher), modality, hashable, params, conditions)
        search = partial(self._search, searcher, options, modality)
        return self, BatchKey(key, "search", search, _MAX_SEARCH_BATCH_SIZE)

    def _search(
        self,
        searcher: Searcher,
        options: SearchOptions,
        modality: Modality | None,
        batch: Sequence[Any],
        stopwatch: Stopwatch,
    ) -> list[RankedHits]:
        """Search a batch; with several queries in it, on one thread, because the other cores are busy under load."""
        with self.libraries.limit(limits=1) if self.libraries is not None and len(batch) > 1 else nullcontext():
            return searcher.search_vectors(np.stack(batch), options, stopwatch, modality)


class WriteWorkers(Batcher):
    """The thread that writes to collections: writes that wait for it are the next group, which shares a transaction."""

    def __init__(self, observe: Callable[[str, int], None] = lambda kind, size: None) -> None:
        super().__init__("write", 1, observe)

    async def apply(self, writer: Writer, operations: Sequence[Operation]) -> list[Outcome]:
        """Return the outcomes of operations, which are durable then. Raises as `Writer.apply` does."""
        key = BatchKey((id(writer), "write"), "write", partial(_apply, writer), _MAX_WRITE_BATCH_SIZE)
        outcomes: list[Outcome] = await self.submit(key, operations, Stopwatch())
        return outcomes

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of `call()` on the thread, between two groups."""
        key = BatchKey("call", "call", lambda calls, _: [each() for each in calls])
        result: T = await self.submit(key, call, Stopwatch())
        return result


def _apply(writer: Writer, requests: Sequence[Any], stopwatch: Stopwatch) -> list[list[Outcome]]:
    """Apply the operations of several requests as one group."""
    with stopwatch.stage("write"):
        outcomes = iter(writer.apply([operation for operations in requests for operation in operations]))
    return [list(islice(outcomes, len(operations))) for operations in requests]


def _warm(searchers: Sequence[Any], stopwatch: Stopwatch) -> list[None]:
    return [searcher.warm_up(MAX_TEXT_BATCH_SIZE) for searcher in searchers]


def _encode_images(searcher: Searcher, batch: Sequence[Any], stopwatch: Stopwatch) -> Float32:
    return searcher.encode_images(np.stack(batch), stopwatch)

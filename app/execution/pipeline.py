"""One query's way over the threads: an image is decoded, it or a text encoded on the device, the nearest searched for.

It knows the order of the steps and where each runs; what a step does stands in `lookalike.search`, and what HTTP makes
of the answer in `routes/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from app.execution.batcher import PipelineStep, run_pipeline
from app.execution.workers import DecodeWorkers, EncoderWorkers, SearchWorkers
from app.telemetry import Telemetry
from lookalike.row_search import SearchOptions
from lookalike.search import Embedding, Searcher, Similarity, compare
from lookalike.stopwatch import Stopwatch
from lookalike.types import Float32, Hit, SearchResult, UInt8

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageQuery:
    """An image file's bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A text."""

    text: str


@dataclass(frozen=True, slots=True)
class ItemQuery:
    """An item of the collection."""

    id: str


Query = ImageQuery | TextQuery | ItemQuery
"""What a search starts from, and what a comparison has two of."""


class QueryPipeline:
    """Answers queries against one opened collection."""

    def __init__(
        self,
        name: str,
        searcher: Searcher,
        decode_workers: DecodeWorkers,
        encoder_workers: EncoderWorkers,
        search_workers: SearchWorkers,
        pool: ThreadPoolExecutor,
        telemetry: Telemetry,
    ) -> None:
        """`name` is what the collection is called in paths and answers."""
        self.name = name
        self.searcher = searcher
        self._decode_workers = decode_workers
        self._encoder_workers = encoder_workers
        self._search_workers = search_workers
        self._pool = pool
        self._telemetry = telemetry

    async def search(self, query: Query, options: SearchOptions) -> SearchResult:
        """The items nearest to an image, a text or an item (which then finds itself first).

        Raises:
            ImageError, QueryError: as `Searcher` says; the options are checked before any work is done.
        """
        self.searcher.check(options)
        watch = Stopwatch()
        steps, payload = ([], await self._item_vector(query)) if isinstance(query, ItemQuery) else self._encoding(query)
        hits = await run_pipeline([*steps, self._search_workers.search_step(self.searcher, options)], payload, watch)
        self._telemetry.observe_query(watch.took_ms)
        return SearchResult(hits, watch.took_ms)

    async def compare(self, a: Query, b: Query, threshold: float | None) -> tuple[Similarity, dict[str, float]]:
        """Two sides compared, and of each stage the slower side's milliseconds, as both go at once.

        Raises as `search` does.
        """
        watches = Stopwatch(), Stopwatch()
        first, second = await asyncio.gather(self.embed(a, watches[0]), self.embed(b, watches[1]))
        for watch in watches:
            self._telemetry.observe_query(watch.took_ms)
        similarity = compare(first, second, self.searcher.encoder.spec, threshold)
        stages = {stage for watch in watches for stage in watch.took_ms}
        return similarity, {stage: max(watch.took_ms.get(stage, 0.0) for watch in watches) for stage in stages}

    async def embed(self, query: Query, watch: Stopwatch) -> Embedding:
        """The unit vector of an image, a text or an item."""
        if isinstance(query, ItemQuery):
            return Embedding(await self._item_vector(query), "image")
        steps, payload = self._encoding(query)
        return Embedding(await run_pipeline(steps, payload, watch), "text" if isinstance(query, TextQuery) else "image")

    def _encoding(self, query: ImageQuery | TextQuery) -> tuple[list[PipelineStep], bytes | str]:
        """The steps to its vector, and what the first one is given."""
        searcher = self.searcher
        if isinstance(query, TextQuery):
            return [self._encoder_workers.text_step(searcher)], searcher.prepare_text(query.text)
        return [self._decode_workers.decode_step(searcher), self._encoder_workers.image_step(searcher)], query.data

    async def _item_vector(self, query: ItemQuery) -> Float32:
        return await self.run_in_pool(lambda: self.searcher.item_vector(query.id))

    async def decode(self, data: bytes) -> UInt8:
        """An image file's bytes -> (3, S, S), preprocessed. Raises ImageError."""
        pixels: UInt8 = await run_pipeline([self._decode_workers.decode_step(self.searcher)], data, Stopwatch())
        return pixels

    async def encode_image(self, pixels: UInt8) -> Float32:
        """A preprocessed image -> its unit vector (d,)."""
        vector: Float32 = await run_pipeline([self._encoder_workers.image_step(self.searcher)], pixels, Stopwatch())
        return vector

    async def search_vector(self, vector: Float32, options: SearchOptions) -> list[Hit]:
        """The items nearest to a unit vector (d,)."""
        hits: list[Hit] = await run_pipeline(
            [self._search_workers.search_step(self.searcher, options)], vector, Stopwatch()
        )
        return hits

    async def item(self, item_id: str) -> tuple[int, dict[str, Any]]:
        """An item's row and record. Raises UnknownItem."""
        metadata = self.searcher.collection.metadata

        def find() -> tuple[int, dict[str, Any]]:
            row = metadata.row_of(item_id)
            return row, metadata.records([row])[0]

        return await self.run_in_pool(find)

    async def items(self, offset: int, limit: int) -> list[tuple[int, dict[str, Any]]]:
        """A range of rows with their records; what lies beyond the last row is left out."""
        metadata = self.searcher.collection.metadata
        rows = range(min(offset, len(metadata)), min(offset + limit, len(metadata)))
        return list(zip(rows, await self.run_in_pool(lambda: metadata.records(rows)), strict=True))

    async def thumbnail(self, item_id: str) -> bytes | None:
        """An item's thumbnail, None where it has none. Raises UnknownItem."""
        collection = self.searcher.collection
        return await self.run_in_pool(lambda: collection.thumbnails.get(collection.metadata.row_of(item_id)))

    async def run_in_pool(self, call: Callable[[], T]) -> T:
        """The result of `call()` on one of the pool's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def has_thumbnail(self, row: int) -> bool:
        """Whether a row of the collection has a thumbnail; microseconds."""
        return self.searcher.collection.thumbnails.has(row)

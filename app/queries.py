"""One query's way over the threads: decode and preprocess in the pool, encode on the device, search in the pool.

It knows the order of the steps and where each runs; what a step does stands in `retrieval.search`, and what HTTP makes
of the answer in `routes/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from app.batching import Device
from app.telemetry import Telemetry
from retrieval.nearest import SearchOptions
from retrieval.search import Embedded, Searcher, Similarity, compare
from retrieval.stopwatch import Stopwatch
from retrieval.types import Float32, Hit, SearchResult

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageSide:
    """A picture file's bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class TextSide:
    """A text."""

    text: str


@dataclass(frozen=True, slots=True)
class ItemSide:
    """An item of the collection."""

    id: str


Side = ImageSide | TextSide | ItemSide
"""What a search starts from, and what a comparison has two of."""


class Queries:
    """Answers queries against one opened collection."""

    def __init__(
        self, name: str, searcher: Searcher, device: Device, pool: ThreadPoolExecutor, telemetry: Telemetry
    ) -> None:
        """`name` is what the collection is called in paths and answers."""
        self.name = name
        self.searcher = searcher
        self._device = device
        self._pool = pool
        self._telemetry = telemetry

    async def search(self, query: Side, options: SearchOptions) -> SearchResult:
        """The items nearest to a picture, a text or an item (which then finds itself first).

        Raises:
            ImageError, QueryError: as `Searcher` says; the options are checked before any work is done.
        """
        self.searcher.check(options)
        watch = Stopwatch()
        vector = (await self.embed(query, watch)).vector
        hits = await self.nearest(vector, options, watch)
        self._telemetry.query(watch.took_ms)
        return SearchResult(hits, watch.took_ms)

    async def compare(self, a: Side, b: Side, threshold: float | None) -> tuple[Similarity, dict[str, float]]:
        """Two sides compared, and of each stage the slower side's milliseconds, as both go at once.

        Raises as `search` does.
        """
        watches = Stopwatch(), Stopwatch()
        first, second = await asyncio.gather(self.embed(a, watches[0]), self.embed(b, watches[1]))
        for watch in watches:
            self._telemetry.query(watch.took_ms)
        similarity = compare(first, second, self.searcher.encoder.spec, threshold)
        stages = {stage for watch in watches for stage in watch.took_ms}
        return similarity, {stage: max(watch.took_ms.get(stage, 0.0) for watch in watches) for stage in stages}

    async def embed(self, query: Side, watch: Stopwatch) -> Embedded:
        """The unit vector of a picture, a text or an item."""
        searcher = self.searcher
        if isinstance(query, ImageSide):
            pixels = await self.in_pool(lambda: searcher.prepare_image(query.data, watch))
            return Embedded(await self._device.encode_image(searcher, pixels, watch), "image")
        if isinstance(query, TextSide):
            text = searcher.prepare_text(query.text)
            return Embedded(await self._device.encode_text(searcher, text, watch), "text")
        return Embedded(await self.in_pool(lambda: searcher.item_vector(query.id)), "image")

    async def nearest(self, vector: Float32, options: SearchOptions, watch: Stopwatch) -> list[Hit]:
        """The items nearest to a unit vector (d,)."""
        return await self.in_pool(lambda: self.searcher.nearest(vector[None], options, watch)[0])

    async def item(self, item_id: str) -> dict[str, Any]:
        """An item's record. Raises UnknownItem."""
        metadata = self.searcher.collection.metadata
        return (await self.in_pool(lambda: metadata.records([metadata.row_of(item_id)])))[0]

    async def items(self, offset: int, limit: int) -> list[dict[str, Any]]:
        """The records of a range of rows; what lies beyond the last row is left out."""
        metadata = self.searcher.collection.metadata
        rows = range(min(offset, len(metadata)), min(offset + limit, len(metadata)))
        return await self.in_pool(lambda: metadata.records(rows))

    async def thumbnail(self, item_id: str) -> bytes | None:
        """An item's thumbnail, None where it has none. Raises UnknownItem."""
        collection = self.searcher.collection
        return await self.in_pool(lambda: collection.thumbnails.get(collection.metadata.row_of(item_id)))

    async def in_pool(self, call: Callable[[], T]) -> T:
        """The result of `call()` on one of the pool's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def has_thumbnail(self, item_id: str) -> bool:
        """Whether an item of the collection has a thumbnail; microseconds, and nothing at all where every item has."""
        collection = self.searcher.collection
        return collection.thumbnails.complete or collection.thumbnails.has(collection.metadata.row_of(item_id))

"""The steps of a query and their order: decode an image, encode it or a text, search.

`app.execution.workers` has the threads that execute the steps, `lookalike.search` has what each step does.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from app.errors import OriginalsDisabled
from app.execution.batcher import PipelineStep, run_pipeline
from app.execution.originals import COLUMNS, Original, Originals
from app.execution.workers import DecodeWorkers, EncoderWorkers, SearchWorkers
from app.telemetry import Telemetry
from lookalike.prepared_image import PreparedImage
from lookalike.query import combine
from lookalike.row_search import SearchOptions
from lookalike.search import Embedding, Modality, RankedHits, Searcher, Similarity, compare
from lookalike.stopwatch import Stopwatch
from lookalike.types import Float32, Hit, SearchResult, UInt8
from lookalike.writes.etag import etag
from lookalike.writes.live_collection import LiveCollection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageQuery:
    """An image, as the bytes of a file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A text."""

    text: str


@dataclass(frozen=True, slots=True)
class ItemQuery:
    """An item of the collection."""

    id: str


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """An embedding, as the client sent it: (d,) float32 of unit norm; `warning` says how it was changed."""

    vector: Float32
    warning: str | None = None


Query = ImageQuery | TextQuery | ItemQuery
"""The input of a search; a comparison has two of them."""


@dataclass(frozen=True, slots=True)
class CombinedQuery:
    """Several inputs with their weights, or one with another weight than 1."""

    parts: Sequence[tuple[Query | VectorQuery, float]]


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Some of the items, in the order of their rows or of a column.

    Attributes:
        items: row and record of each.
        total: number of items on all pages.
    """

    items: list[tuple[int, dict[str, Any]]]
    total: int


class QueryPipeline:
    """Executes queries on one version of a collection.

    Attributes:
        name: the collection's name in paths and responses.
        searcher: of the version.
        originals: its image files; None where the service does not serve them.
    """

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
        """`name` is the collection's name in paths and responses."""
        self.name = name
        self.searcher = searcher
        self.originals: Originals | None = None
        self._decode_workers = decode_workers
        self._encoder_workers = encoder_workers
        self._search_workers = search_workers
        self._pool = pool
        self._telemetry = telemetry

    def over(self, written: LiveCollection) -> QueryPipeline:
        """Return a pipeline like this one over its version and what was written since."""
        pipeline = copy.copy(self)
        pipeline.searcher = self.searcher.over(written)
        return pipeline

    async def search(self, query: Query | CombinedQuery, options: SearchOptions) -> SearchResult:
        """Return the items nearest to an image, a text or an item (which is its own nearest item), or to a combination.

        Raises:
            QueryError: the options are out of range (checked first), a text is invalid or an item is unknown.
            ImageError: an image can't be decoded.
            TextUnsupported: the encoder has no text tower.
        """
        modality = _modality(query)
        self.searcher.check_options(options, modality)
        stopwatch = Stopwatch()
        steps: list[PipelineStep] = []
        payload: Any
        truncated_tokens, warnings = 0, list[str]()
        if isinstance(query, CombinedQuery):
            payload, truncated_tokens, warnings = await self._combined_vector(query, stopwatch)
        elif isinstance(query, ItemQuery):
            payload = await self._item_vector(query)
        else:
            steps, payload = self._encode_steps(query)
        steps.append(self._search_workers.search_step(self.searcher, options, modality))
        ranked: RankedHits = await run_pipeline(steps, payload, stopwatch)
        self._telemetry.observe_query(stopwatch.took_ms)
        truncated_tokens += await self._truncated_tokens(payload)
        return SearchResult(ranked.hits, stopwatch.took_ms, truncated_tokens, ranked.no_match, warnings)

    async def _combined_vector(self, query: CombinedQuery, stopwatch: Stopwatch) -> tuple[Float32, int, list[str]]:
        """Return the unit vector of weighted parts, how many tokens were truncated, and warnings.

        The parts are embedded concurrently; a stage's time is that of the slowest.
        """
        stopwatches = [Stopwatch() for _ in query.parts]
        embeddings = await asyncio.gather(
            *(self.embed(part, each) for (part, _), each in zip(query.parts, stopwatches, strict=True))
        )
        for stage, milliseconds in slowest(stopwatches).items():
            stopwatch.add(stage, milliseconds / 1000.0)
        vectors = np.stack([embedding.vector for embedding in embeddings])
        warnings = [part.warning for part, _ in query.parts if isinstance(part, VectorQuery) and part.warning]
        truncated_tokens = sum(embedding.truncated_tokens for embedding in embeddings)
        return combine(vectors, [weight for _, weight in query.parts]), truncated_tokens, warnings

    async def compare(self, a: Query, b: Query, threshold: float | None) -> tuple[Similarity, dict[str, float]]:
        """Return the similarity of two inputs, and the milliseconds of each stage.

        The inputs are embedded concurrently; a stage's time is that of the slower one. Raises as `search` does.
        """
        stopwatches = Stopwatch(), Stopwatch()
        first, second = await asyncio.gather(self.embed(a, stopwatches[0]), self.embed(b, stopwatches[1]))
        for stopwatch in stopwatches:
            self._telemetry.observe_query(stopwatch.took_ms)
        similarity = compare(first, second, self.searcher.encoder.spec, threshold)
        return similarity, slowest(stopwatches)

    def count(self, stopwatch: Stopwatch) -> None:
        """Count a query that was embedded by itself, with the time of its stages."""
        self._telemetry.observe_query(stopwatch.took_ms)

    async def embed(self, query: Query | VectorQuery, stopwatch: Stopwatch) -> Embedding:
        """Return the unit vector of an image, a text, an item or an embedding, which counts as an image."""
        if isinstance(query, VectorQuery):
            return Embedding(query.vector, "image")
        if isinstance(query, ItemQuery):
            return Embedding(await self._item_vector(query), "image")
        steps, payload = self._encode_steps(query)
        vector = await run_pipeline(steps, payload, stopwatch)
        if isinstance(query, ImageQuery):
            return Embedding(vector, "image")
        return Embedding(vector, "text", await self._truncated_tokens(payload))

    async def _truncated_tokens(self, payload: object) -> int:
        """Return how many tokens of a prepared text the encoder did not read; 0 for anything else."""
        if not isinstance(payload, str) or self.searcher.reads_whole(payload):
            return 0
        return await self.run_in_pool(lambda: self.searcher.truncated_tokens(payload))

    def _encode_steps(self, query: ImageQuery | TextQuery) -> tuple[list[PipelineStep], bytes | str]:
        """Return the steps from a query to its vector, and the payload of the first step."""
        searcher = self.searcher
        if isinstance(query, TextQuery):
            return [self._encoder_workers.text_step(searcher)], searcher.prepare_text(query.text)
        return [self._decode_workers.decode_step(searcher), self._encoder_workers.image_step(searcher)], query.data

    async def _item_vector(self, query: ItemQuery) -> Float32:
        return await self.run_in_pool(lambda: self.searcher.item_vector(query.id))

    async def decode(self, data: bytes) -> UInt8:
        """Return the preprocessed pixels (3, S, S) of an image file. Raises ImageError."""
        pixels: UInt8 = await run_pipeline([self._decode_workers.decode_step(self.searcher)], data, Stopwatch())
        return pixels

    async def encode_image(self, pixels: UInt8) -> Float32:
        """Return the unit vector (d,) of a preprocessed image."""
        vector: Float32 = await run_pipeline([self._encoder_workers.image_step(self.searcher)], pixels, Stopwatch())
        return vector

    async def prepare_item(self, data: bytes) -> tuple[PreparedImage, Float32]:
        """Return what a written item needs of an image file, and its unit vector (d,). Raises ImageError."""
        step = self._decode_workers.prepare_step(self.searcher)
        prepared: PreparedImage = await run_pipeline([step], data, Stopwatch())
        return prepared, await self.encode_image(prepared.pixels)

    async def search_vector(self, vector: Float32, options: SearchOptions) -> list[Hit]:
        """Return the items nearest to a unit vector (d,)."""
        step = self._search_workers.search_step(self.searcher, options, None)
        ranked: RankedHits = await run_pipeline([step], vector, Stopwatch())
        return ranked.hits

    async def item(self, item_id: str, fields: Sequence[str] | None = None) -> tuple[int, dict[str, Any], str]:
        """Return an item's row, record and ETag; `fields` are the columns of the record beside `id`, None for all.

        Raises:
            UnknownItem: no item has the id.
            QueryError: a field is unknown.
        """
        collection = self.searcher.collection
        columns = self.searcher.columns(fields)

        def find() -> tuple[int, dict[str, Any], str]:
            row = collection.metadata.row_of(item_id)
            record = collection.metadata.records([row])[0]
            tag = etag(record, collection.stored_vectors[[row]][0])
            shown = record if columns is None else {name: record[name] for name in columns if name in record}
            return row, shown, tag

        return await self.run_in_pool(find)

    async def items(self, options: SearchOptions, offset: int, sort: str | None = None) -> ItemPage:
        """Return a page of the items that pass the options' filter, in the order of their rows or of a column.

        Raises:
            QueryError: the options are out of range, the filter does not fit the metadata, or `sort` names no column
                that has an order.
        """
        self.searcher.check_options(options)
        return await self.run_in_pool(lambda: self._items(options, offset, sort))

    def _items(self, options: SearchOptions, offset: int, sort: str | None) -> ItemPage:
        found = self.searcher.table.rows(options.filter, sort)
        rows = [int(row) for row in found[offset : offset + options.limit]]
        records = self.searcher.collection.metadata.records(rows, self.searcher.columns(options.fields))
        return ItemPage(list(zip(rows, records, strict=True)), len(found))

    async def thumbnail(self, item_id: str) -> tuple[bytes | None, str]:
        """Return an item's thumbnail, None if it has none, and the version in its URL. Raises UnknownItem."""
        collection = self.searcher.collection

        def find() -> tuple[bytes | None, str]:
            row = collection.metadata.row_of(item_id)
            return collection.thumbnails.get(row), collection.thumbnail_version(row)

        return await self.run_in_pool(find)

    async def original(self, item_id: str) -> Original:
        """Open the image file that an item was indexed from; the caller closes it.

        Raises:
            OriginalsDisabled: the service does not serve them.
            UnknownItem: no item has the id.
            NoOriginal: the item has none, or it may not be read.
        """
        if self.originals is None:
            raise OriginalsDisabled(
                "this service does not serve originals; start it with --originals (LOOKALIKE_ORIGINALS=true)"
            )
        metadata = self.searcher.collection.metadata
        columns = [name for name in COLUMNS if name in metadata.columns]
        record = await self.run_in_pool(lambda: metadata.records([metadata.row_of(item_id)], columns)[0])
        return await self.originals.open(item_id, record)

    def has_original(self, row: int) -> bool:
        """Return whether a row of the collection may have an original; takes microseconds."""
        return self.originals is not None and self.originals.may_exist(self.searcher.collection, row)

    async def run_in_pool(self, call: Callable[[], T]) -> T:
        """Return the result of `call()` on a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def has_thumbnail(self, row: int) -> bool:
        """Return whether a row of the collection has a thumbnail; takes microseconds."""
        return self.searcher.collection.thumbnails.has(row)


def _modality(query: Query | CombinedQuery) -> Modality | None:
    """Return what a query is; None for a combination, which has no probabilities."""
    if isinstance(query, CombinedQuery):
        return None
    return "text" if isinstance(query, TextQuery) else "image"


def slowest(stopwatches: Sequence[Stopwatch]) -> dict[str, float]:
    """Return the milliseconds of each stage on the stopwatch that has most."""
    stages = {stage for stopwatch in stopwatches for stage in stopwatch.took_ms}
    return {stage: max(stopwatch.took_ms.get(stage, 0.0) for stopwatch in stopwatches) for stage in stages}

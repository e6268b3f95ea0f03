"""The asynchronous client."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from lookalike_client import calls, encoder_calls, write_calls
from lookalike_client.call import Call
from lookalike_client.errors import ApiError, LookalikeError
from lookalike_client.images import ImageInput
from lookalike_client.inputs import Input, Part, Query, ResultOptions, SearchOptions, SearchRequest, single_part
from lookalike_client.operations import Delete, Operation, Patch, Put
from lookalike_client.paging import Entry, Page, Pages, item_pages, next_call, search_pages
from lookalike_client.results import (
    Classification,
    CollectionInfo,
    Comparison,
    Count,
    DeletedItems,
    Embeddings,
    Facets,
    Hit,
    Item,
    ItemDetails,
    ItemMap,
    Items,
    Model,
    Ready,
    SearchResults,
    SimilarityMatrix,
    StageStats,
    Thumbnail,
    WrittenItem,
)
from lookalike_client.retries import Retries
from lookalike_client.session import Session, client_options, finish, request_options

T = TypeVar("T")


class AsyncClient(Session):
    """A client of a Lookalike service for asyncio, with the methods, arguments and errors of `Client`.

    Example:
        async with AsyncClient("http://127.0.0.1:8000") as client:
            async for hit in client.iter_search("a cat", total=3):
                print(hit.id, hit.score)
    """

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        collection: str | None = None,
        *,
        timeout: float | httpx.Timeout = 30.0,
        retries: Retries | int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(collection, retries)
        self._http = httpx.AsyncClient(**client_options(base_url, key, timeout), transport=transport)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def search(
        self,
        text: str | None = None,
        *,
        image: ImageInput | None = None,
        image_url: str | None = None,
        id: str | None = None,
        query: Query | None = None,
        **options: Unpack[SearchOptions],
    ) -> SearchResults:
        """Find the images that match a query best. Give exactly one query."""
        parts = single_part(text, image, image_url, id, query)
        return await self._send_built(lambda: calls.search(self._base, parts, options))

    def iter_search(
        self,
        text: str | None = None,
        *,
        image: ImageInput | None = None,
        image_url: str | None = None,
        id: str | None = None,
        query: Query | None = None,
        total: int | None = None,
        offset: int = 0,
        page_size: int = 100,
        **options: Unpack[ResultOptions],
    ) -> AsyncIterator[Hit]:
        """Yield the hits of a search, page by page, until there are no more."""
        return self._iterate(
            search_pages(self._base, single_part(text, image, image_url, id, query), options, total, offset, page_size)
        )

    async def search_batch(self, queries: Sequence[Query | SearchRequest]) -> list[SearchResults | ApiError]:
        """Run up to 100 searches in one request."""
        return await self._send_built(lambda: calls.search_batch(self._base, queries))

    async def compare(self, a: Input, b: Input, *, threshold: float | None = None) -> Comparison:
        """Compare two sides. A `str` is a text; an image is a `Path`, bytes, an open file or a Pillow image."""
        return await self._send_built(lambda: calls.compare(self._base, a, b, threshold))

    async def similarity_matrix(self, a: Sequence[Input], b: Sequence[Input] | None = None) -> SimilarityMatrix:
        """Compare each of several inputs with each of others, at most 10,000 pairs of 256 inputs."""
        return await self._send_built(lambda: encoder_calls.similarity_matrix(self._base, a, b))

    async def classify(
        self,
        images: ImageInput | Part | Sequence[ImageInput | Part],
        labels: Sequence[str],
        *,
        template: str | Sequence[str] | None = None,
    ) -> list[Classification]:
        """Sort labels by how well each describes an image."""
        return await self._send_built(lambda: encoder_calls.classify(self._base, images, labels, template))

    async def embed(self, inputs: Input | Sequence[Input], *, model: str | None = None) -> Embeddings:
        """Embed up to 2,048 texts and images; a `str` is a text."""
        return await self._send_built(lambda: encoder_calls.embed(inputs, model or self.collection))

    async def models(self) -> list[Model]:
        """List the models that `embed` takes: encoders, and collections, which stand for theirs."""
        return await self._send(encoder_calls.models())

    async def model(self, name: str) -> Model:
        """Get a model's encoder, dimensions and modalities."""
        return await self._send(encoder_calls.model(name))

    async def items(
        self,
        *,
        limit: int | None = None,
        offset: int | None = None,
        filter: Mapping[str, Any] | None = None,
        sort: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> Items:
        """List a page of items, in the order of their rows or of the column `sort` (`-width` descends)."""
        options = {"limit": limit, "offset": offset, "filter": filter, "sort": sort, "fields": fields}
        return await self._send(calls.items(self._base, options))

    def iter_items(
        self,
        *,
        total: int | None = None,
        offset: int = 0,
        page_size: int = 100,
        filter: Mapping[str, Any] | None = None,
        sort: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> AsyncIterator[Item]:
        """Yield items, page by page: all that pass the filter, or `total`."""
        options = {"filter": filter, "sort": sort, "fields": fields}
        return self._iterate(item_pages(self._base, options, total, offset, page_size))

    async def item(self, id: str, *, fields: Sequence[str] | None = None) -> ItemDetails:
        """Get an item's metadata and the path of its thumbnail."""
        return await self._send(calls.item(self._base, id, fields))

    async def thumbnail(self, id: str) -> Thumbnail:
        """Get an item's thumbnail, at most 256 pixels a side."""
        return await self._send(calls.thumbnail(self._base, id))

    async def original(self, id: str) -> bytes:
        """Get the image file that an item was indexed from, if the service serves originals."""
        return await self._send(calls.original(self._base, id))

    async def put_item(
        self,
        id: str,
        image: ImageInput | None = None,
        *,
        image_url: str | None = None,
        embedding: Sequence[float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> WrittenItem:
        """Add an item, or replace it. Give exactly one of `image`, `image_url` and `embedding`."""
        operation = Put(
            id=id,
            image=image,
            image_url=image_url,
            embedding=embedding,
            metadata=metadata,
            if_match=if_match,
            if_none_match=if_none_match,
        )
        return await self._send_built(lambda: write_calls.write_item(self._base, operation))

    async def patch_item(self, id: str, metadata: Mapping[str, Any], *, if_match: str | None = None) -> WrittenItem:
        """Change some of an item's metadata: values by column, None to remove one (JSON Merge Patch, RFC 7396)."""
        return await self._send(write_calls.write_item(self._base, Patch(id=id, metadata=metadata, if_match=if_match)))

    async def delete_item(self, id: str, *, if_match: str | None = None) -> WrittenItem:
        """Remove an item."""
        return await self._send(write_calls.write_item(self._base, Delete(id=id, if_match=if_match)))

    async def write_items(self, operations: Iterable[Operation]) -> list[WrittenItem | ApiError]:
        """Write many items, in order, in as few requests as possible."""
        results: list[WrittenItem | ApiError] = []
        requests = write_calls.requests(self._base, operations)
        while (request := await asyncio.to_thread(next, requests, None)) is not None:
            try:
                results += await self._send(request.call)
            except LookalikeError as error:
                results += write_calls.results_of_failure(error, request, results)
        return results

    async def delete_items(self, filter: Mapping[str, Any], dry_run: bool = False) -> DeletedItems:
        """Delete the items that pass a filter."""
        return await self._send(write_calls.delete_items(self._base, filter, dry_run))

    async def fields(self) -> Facets:
        """List the columns that items can be filtered by, with their types and values."""
        return await self._send(calls.fields(self._base))

    async def facets(
        self,
        *,
        filter: Mapping[str, Any] | None = None,
        fields: Sequence[str] | None = None,
        limit: int | None = None,
        bins: int | None = None,
    ) -> Facets:
        """Describe columns over the items that pass a filter."""
        options = {"filter": filter, "fields": fields, "limit": limit, "bins": bins}
        return await self._send(calls.facets(self._base, options))

    async def count(self, filter: Mapping[str, Any] | None = None) -> Count:
        """Count the items that pass a filter."""
        return await self._send(calls.count(self._base, filter))

    async def map(self, field: str | None = None) -> ItemMap:
        """Get the map; as `Client.map`."""
        return await self._send(calls.item_map(self._base, field))

    async def collections(self) -> list[CollectionInfo]:
        """List the collections of the service; the default one is first."""
        return await self._send(calls.collections())

    async def collection_info(self, name: str | None = None) -> CollectionInfo:
        """Get a collection's version, size and encoder; by default of this client's collection."""
        return await self._send(calls.collection_info(self._named(name)))

    async def reload(self, name: str | None = None) -> CollectionInfo:
        """Open the newest version of a collection and serve it. Needs a key of the role `admin`; is not retried."""
        return await self._send(calls.reload(self._named(name)))

    async def stats(self) -> dict[str, StageStats]:
        """Get how long each stage of the last queries took."""
        return await self._send(calls.stats())

    async def live(self) -> None:
        """Check that the process responds; raises `ConnectionFailed` if not. Is not retried."""
        await self._send(calls.live())

    async def ready(self) -> Ready:
        """Check that queries succeed; raises `ApiError` with status 503 if not. Is not retried."""
        return await self._send(calls.ready())

    async def metrics(self) -> str:
        """Get the metrics in Prometheus' text format."""
        return await self._send(calls.metrics())

    async def _send_built(self, build: Callable[[], Call[T]]) -> T:
        """Send a call that may read files."""
        return await self._send(await asyncio.to_thread(build))

    async def _send(self, call: Call[T]) -> T:
        for attempt in itertools.count():
            outcome = await self._attempt(call)
            delay = self._delay(call, attempt, outcome)
            if delay is None:
                break
            await asyncio.sleep(delay)
        return finish(call, outcome)

    async def _attempt(self, call: Call[Any]) -> httpx.Response | httpx.RequestError:
        try:
            return await self._http.request(**request_options(call))
        except httpx.RequestError as error:
            return error

    async def _iterate(self, pages: Pages[Entry]) -> AsyncIterator[Entry]:
        page: Page[Entry] | None = None
        while (call := await asyncio.to_thread(next_call, pages, page)) is not None:
            page = await self._send(call)
            for entry in page:
                yield entry

"""The client."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


class Client(Session):
    """A client of a Lookalike service. Threads may share one.

    Example:
        with Client("http://127.0.0.1:8000") as client:
            for hit in client.search("a cat", limit=3):
                print(hit.id, hit.score)

    Args:
        base_url: address of the service, with its root path if it has one.
        key: API key, for a service that needs one.
        collection: name of the collection; by default the service's first.
        timeout: seconds to wait for each read or write, or httpx's own object.
        retries: how often to retry a call that changes nothing, or a `Retries`.
        transport: httpx's transport, for proxies of one's own and for tests.

    Every method raises:
        ApiError: the service responded with an error.
        ConnectionFailed: no response came.
        ResponseInvalid: the response is not what the service sends.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        collection: str | None = None,
        *,
        timeout: float | httpx.Timeout = 30.0,
        retries: Retries | int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(collection, retries)
        self._http = httpx.Client(**client_options(base_url, key, timeout), transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def search(
        self,
        text: str | None = None,
        *,
        image: ImageInput | None = None,
        image_url: str | None = None,
        id: str | None = None,
        query: Query | None = None,
        **options: Unpack[SearchOptions],
    ) -> SearchResults:
        """Find the images that match a query best. Give exactly one query.

        Args:
            text: a text.
            image: a path, the bytes of an image file, an open file or a Pillow image.
            image_url: URL of an image that the service fetches, if it is configured so.
            id: an item of the collection.
            query: a part, or a list of parts that are added by their weights. A `str` is a text.
            **options: `limit`, `offset`, `filter` and the others of `SearchOptions`.
        """
        parts = single_part(text, image, image_url, id, query)
        return self._send(calls.search(self._base, parts, options))

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
    ) -> Iterator[Hit]:
        """Yield the hits of a search, page by page, until there are no more.

        The service's `LOOKALIKE_MAX_CANDIDATES` (10,000) bounds how far that goes; beyond it, `ApiError` is raised.

        Args:
            text: a text.
            image: an image, as in `search`.
            image_url: URL of an image.
            id: an item of the collection.
            query: a part, or a list of parts.
            total: number of hits; all by default.
            offset: number of hits to skip.
            page_size: hits of a request.
            **options: `filter` and the others of `ResultOptions`.
        """
        return self._iterate(
            search_pages(self._base, single_part(text, image, image_url, id, query), options, total, offset, page_size)
        )

    def search_batch(self, queries: Sequence[Query | SearchRequest]) -> list[SearchResults | ApiError]:
        """Run up to 100 searches in one request.

        Args:
            queries: each a query as in `search`, or a dict of a `query` and its options.

        Returns:
            For each query its results, or its error: one that fails costs no other.
        """
        return self._send(calls.search_batch(self._base, queries))

    def compare(self, a: Input, b: Input, *, threshold: float | None = None) -> Comparison:
        """Compare two sides. A `str` is a text; an image is a `Path`, bytes, an open file or a Pillow image.

        Args:
            a: the one side.
            b: the other side.
            threshold: cosine distance up to which they are similar; the encoder's own by default.
        """
        return self._send(calls.compare(self._base, a, b, threshold))

    def similarity_matrix(self, a: Sequence[Input], b: Sequence[Input] | None = None) -> SimilarityMatrix:
        """Compare each of several inputs with each of others, at most 10,000 pairs of 256 inputs.

        Args:
            a: the inputs of the rows; a `str` is a text.
            b: the inputs of the columns; those of the rows by default.
        """
        return self._send(encoder_calls.similarity_matrix(self._base, a, b))

    def classify(
        self,
        images: ImageInput | Part | Sequence[ImageInput | Part],
        labels: Sequence[str],
        *,
        template: str | Sequence[str] | None = None,
    ) -> list[Classification]:
        """Sort labels by how well each describes an image.

        Args:
            images: one or several images; a `str` is the path of a file, and `Part(id=...)` an item.
            labels: the labels.
            template: text around a label, such as `a photo of a {}.`, or several.

        Returns:
            For each image its predictions, the best one first.
        """
        return self._send(encoder_calls.classify(self._base, images, labels, template))

    def embed(self, inputs: Input | Sequence[Input], *, model: str | None = None) -> Embeddings:
        """Embed up to 2,048 texts and images; a `str` is a text.

        Args:
            inputs: one or several.
            model: name of a collection or of its encoder; this client's collection by default.
        """
        return self._send(encoder_calls.embed(inputs, model or self.collection))

    def models(self) -> list[Model]:
        """List the models that `embed` takes: encoders, and collections, which stand for theirs."""
        return self._send(encoder_calls.models())

    def model(self, name: str) -> Model:
        """Get a model's encoder, dimensions and modalities."""
        return self._send(encoder_calls.model(name))

    def items(
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
        return self._send(calls.items(self._base, options))

    def iter_items(
        self,
        *,
        total: int | None = None,
        offset: int = 0,
        page_size: int = 100,
        filter: Mapping[str, Any] | None = None,
        sort: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> Iterator[Item]:
        """Yield items, page by page: all that pass the filter, or `total`."""
        options = {"filter": filter, "sort": sort, "fields": fields}
        return self._iterate(item_pages(self._base, options, total, offset, page_size))

    def item(self, id: str, *, fields: Sequence[str] | None = None) -> ItemDetails:
        """Get an item's metadata and the path of its thumbnail."""
        return self._send(calls.item(self._base, id, fields))

    def thumbnail(self, id: str) -> Thumbnail:
        """Get an item's thumbnail, at most 256 pixels a side."""
        return self._send(calls.thumbnail(self._base, id))

    def original(self, id: str) -> bytes:
        """Get the image file that an item was indexed from, if the service serves originals."""
        return self._send(calls.original(self._base, id))

    def put_item(
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
        """Add an item, or replace it. Give exactly one of `image`, `image_url` and `embedding`.

        The next search finds it. Writes need a writable service and a key of the role `write`.

        Args:
            id: the item's id.
            image: a path, the bytes of an image file, an open file or a Pillow image.
            image_url: URL of an image that the service fetches, if it is configured so.
            embedding: an embedding of the collection's encoder, for an item without an image.
            metadata: values by column.
            if_match: replace the item only if it has this `etag`; `*` for any item that exists.
            if_none_match: `*` to write only if there is no such item.
        """
        operation = Put(
            id=id,
            image=image,
            image_url=image_url,
            embedding=embedding,
            metadata=metadata,
            if_match=if_match,
            if_none_match=if_none_match,
        )
        return self._send(write_calls.write_item(self._base, operation))

    def patch_item(self, id: str, metadata: Mapping[str, Any], *, if_match: str | None = None) -> WrittenItem:
        """Change some of an item's metadata: values by column, None to remove one (JSON Merge Patch, RFC 7396).

        Args:
            id: the item's id.
            metadata: the changes.
            if_match: change the item only if it has this `etag`.
        """
        return self._send(write_calls.write_item(self._base, Patch(id=id, metadata=metadata, if_match=if_match)))

    def delete_item(self, id: str, *, if_match: str | None = None) -> WrittenItem:
        """Remove an item.

        Args:
            id: the item's id.
            if_match: remove the item only if it has this `etag`.
        """
        return self._send(write_calls.write_item(self._base, Delete(id=id, if_match=if_match)))

    def write_items(self, operations: Iterable[Operation]) -> list[WrittenItem | ApiError]:
        """Write many items, in order, in as few requests as possible.

        Args:
            operations: each a `Put`, `Patch` or `Delete`, or a dict such as `{"op": "delete", "id": "cat.jpg"}`.

        Returns:
            For each operation its result, or its error: one that fails changes nothing and stops nothing.

        Raises:
            LookalikeError: a whole request failed. `results` are those of the operations in the requests before.
        """
        results: list[WrittenItem | ApiError] = []
        for request in write_calls.requests(self._base, operations):
            try:
                results += self._send(request.call)
            except LookalikeError as error:
                results += write_calls.results_of_failure(error, request, results)
        return results

    def delete_items(self, filter: Mapping[str, Any], dry_run: bool = False) -> DeletedItems:
        """Delete the items that pass a filter.

        Args:
            filter: which items.
            dry_run: whether only to count them.
        """
        return self._send(write_calls.delete_items(self._base, filter, dry_run))

    def fields(self) -> Facets:
        """List the columns that items can be filtered by, with their types and values."""
        return self._send(calls.fields(self._base))

    def facets(
        self,
        *,
        filter: Mapping[str, Any] | None = None,
        fields: Sequence[str] | None = None,
        limit: int | None = None,
        bins: int | None = None,
    ) -> Facets:
        """Describe columns over the items that pass a filter.

        Args:
            filter: only items that pass count.
            fields: columns to describe; all by default.
            limit: number of values of a column.
            bins: number of bins of a histogram.
        """
        options = {"filter": filter, "fields": fields, "limit": limit, "bins": bins}
        return self._send(calls.facets(self._base, options))

    def count(self, filter: Mapping[str, Any] | None = None) -> Count:
        """Count the items that pass a filter."""
        return self._send(calls.count(self._base, filter))

    def map(self, field: str | None = None) -> ItemMap:
        """Get the places of all items on the collection's map, which `lookalike map` makes.

        Args:
            field: column whose values the result has, too.
        """
        return self._send(calls.item_map(self._base, field))

    def collections(self) -> list[CollectionInfo]:
        """List the collections of the service; the default one is first."""
        return self._send(calls.collections())

    def collection_info(self, name: str | None = None) -> CollectionInfo:
        """Get a collection's version, size and encoder; by default of this client's collection."""
        return self._send(calls.collection_info(self._named(name)))

    def reload(self, name: str | None = None) -> CollectionInfo:
        """Open the newest version of a collection and serve it. Needs a key of the role `admin`; is not retried."""
        return self._send(calls.reload(self._named(name)))

    def stats(self) -> dict[str, StageStats]:
        """Get how long each stage of the last queries took."""
        return self._send(calls.stats())

    def live(self) -> None:
        """Check that the process responds; raises `ConnectionFailed` if not. Is not retried."""
        self._send(calls.live())

    def ready(self) -> Ready:
        """Check that queries succeed; raises `ApiError` with status 503 if not. Is not retried."""
        return self._send(calls.ready())

    def metrics(self) -> str:
        """Get the metrics in Prometheus' text format."""
        return self._send(calls.metrics())

    def _send(self, call: Call[T]) -> T:
        for attempt in itertools.count():
            outcome = self._attempt(call)
            delay = self._delay(call, attempt, outcome)
            if delay is None:
                break
            time.sleep(delay)
        return finish(call, outcome)

    def _attempt(self, call: Call[Any]) -> httpx.Response | httpx.RequestError:
        try:
            return self._http.request(**request_options(call))
        except httpx.RequestError as error:
            return error

    def _iterate(self, pages: Pages[Entry]) -> Iterator[Entry]:
        page: Page[Entry] | None = None
        while (call := next_call(pages, page)) is not None:
            page = self._send(call)
            yield from page

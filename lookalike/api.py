"""The public Python API: search a collection in this process, and encode images and texts.

`import lookalike` has these names; this module and its libraries are imported when one of them is first used.

Dimension letters: n images or texts, d embedding width.
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict, Unpack, cast

import numpy as np
from pydantic import ValidationError

from lookalike import collection as collections
from lookalike.bootstrap import open_collection_store, require_current_edition
from lookalike.collapse import NEAR_IDENTICAL
from lookalike.cores import available_cores
from lookalike.encoders import registry
from lookalike.encoders.engines.options import EngineOptions
from lookalike.encoders.engines.selection import require_options
from lookalike.encoders.protocol import Encoder, TextEncoder
from lookalike.errors import ImageError, QueryError, SourceError, TextUnsupported
from lookalike.facets import DEFAULT_BINS, DEFAULT_VALUES, Facet, Histogram, ValueCount
from lookalike.filters import Filter, filter_error
from lookalike.image_inputs import ImageInput, preprocess
from lookalike.images import DEFAULT_MAX_PIXELS, PillowImage
from lookalike.local_search import LocalSearcher, QueryFailure
from lookalike.local_search import string as _string
from lookalike.query_parts import PartKind, Query, QueryPart, WeightedInput, read_query
from lookalike.row_search import SearchOptions
from lookalike.search import Embedding, Limits, Searcher, Similarity, VectorSearcher, compare, require_unicode
from lookalike.stopwatch import Stopwatch
from lookalike.text import normalize_text
from lookalike.types import Float32, Hit, Int64, SearchResult, UInt8

__all__ = [
    "CollectionItem",
    "Facet",
    "Histogram",
    "Hit",
    "ImageInput",
    "ImageSide",
    "ItemSide",
    "Limits",
    "LoadedEncoder",
    "Query",
    "QueryPart",
    "SearchResults",
    "SearchableCollection",
    "Side",
    "Similarity",
    "TextSide",
    "ValueCount",
    "load_encoder",
    "open_collection",
]

_ITEMS_PER_READ = 1_000
_MIN_IMAGES_PER_BATCH = 64


class TextSide(TypedDict):
    """A text to compare."""

    text: str


class ImageSide(TypedDict):
    """An image to compare."""

    image: ImageInput


class ItemSide(TypedDict):
    """An item of the collection to compare."""

    id: str


Side = TextSide | ImageSide | ItemSide
"""One side of a comparison: a dictionary with exactly one of the keys `text`, `image` and `id`."""


class SearchResults(list[Hit]):
    """The results of a search, best first.

    Attributes:
        no_match: whether even the best item has a probability below 0.5, or there is none; None where there are no
            probabilities.
        warnings: what was changed in the query, one sentence each.
        truncated_tokens: tokens at the end of the query's texts that the encoder did not read.
    """

    def __init__(self, result: SearchResult) -> None:
        super().__init__(result.hits)
        self.no_match = result.no_match
        self.warnings = result.warnings
        self.truncated_tokens = result.truncated_tokens


class SearchKeywords(TypedDict, total=False):
    """The options of a search; see `SearchableCollection.search`."""

    limit: int
    offset: int
    min_score: float | None
    min_probability: float | None
    filter: Mapping[str, Any] | None
    params: Mapping[str, int] | None
    exact: bool
    fields: Iterable[str] | None
    group_by: str | None
    group_size: int
    deduplicate: bool | float
    embeddings: bool


@dataclass(frozen=True, slots=True)
class CollectionItem:
    """One item of a collection.

    Attributes:
        id: unique in the collection.
        metadata: its record, JSON-ready values only; columns without a value are left out.
    """

    id: str
    metadata: Mapping[str, Any]


def open_collection(
    path: str | os.PathLike[str],
    *,
    encoder: str | None = None,
    device: str = "auto",
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    verify: bool = True,
    limits: Limits | None = None,
) -> SearchableCollection:
    """Open the current version of a collection.

    The encoder is loaded by the first query that needs it: one by text or image, or a comparison.

    Args:
        path: the collection's folder, as `lookalike index` wrote it.
        encoder: name of the encoder instead of the collection's own, for weights that moved.
        device: `auto`, `cpu` or `cuda`, for the encoder and for exact search.
        engine: `auto`, `torch` or `openvino`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        threads: CPU threads of the encoder; None for all cores.
        verify: whether to verify the files' checksums (about a second for each gigabyte).
        limits: bounds on queries; the defaults are 1,000 results and 1,000 characters.

    Raises:
        CollectionError: the folder holds no valid collection, or one of an earlier edition of `lite` (EncoderMismatch).
        StoreError: the vector store can't be opened.
        EncoderError: an option has an unknown value, or `device` is `cuda` and there is none.
    """
    options = EngineOptions(device, engine, precision, threads)
    require_options(options)
    if not isinstance(limits, Limits | None):
        raise TypeError(f"limits must be a lookalike.Limits, not {type(limits).__name__}")
    opened = collections.open_collection(Path(path).expanduser(), verify=verify)
    require_current_edition(opened)
    store = open_collection_store(opened, "cpu" if device == "cpu" else "auto")
    calibration = registry.calibration_of(encoder or opened.manifest.encoder.name)
    return SearchableCollection(VectorSearcher(opened, store, limits, calibration), encoder, options)


def load_encoder(
    name: str, *, device: str = "auto", engine: str = "auto", precision: str = "auto", threads: int | None = None
) -> LoadedEncoder:
    """Load an encoder by its name; `lookalike encoders` lists them.

    Args:
        name: `lite`, `open_clip:<model>/<pretrained>[@<precision>]` or `folder:<path>`.
        device: `auto`, `cpu` or `cuda`.
        engine: `auto`, `torch` or `openvino`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        threads: CPU threads; None for all cores.

    Raises:
        UnknownEncoder: no encoder has that name; the message suggests similar ones.
        EncoderError: weights are missing or invalid, or an option can't be met on this machine.
    """
    return LoadedEncoder(
        registry.load_encoder(_string("name", name), EngineOptions(device, engine, precision, threads))
    )


class SearchableCollection:
    """A collection opened for search, as `open_collection` returns it. A context manager; safe to use from threads.

    It stays on the version that was current when it was opened. Using it after `close` raises ValueError.
    """

    def __init__(self, searcher: VectorSearcher, encoder: str | None, options: EngineOptions) -> None:
        self._searcher: VectorSearcher | None = searcher
        self._collection_path = searcher.collection.root
        self._manifest = searcher.collection.manifest
        self._load_encoder = partial(registry.load_encoder, encoder or self._manifest.encoder.name, options)
        self._open_lock, self._encode_lock = threading.Lock(), threading.Lock()

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._manifest.name

    @property
    def version(self) -> str:
        """The version's name, such as `20260101T120000Z-1a2b3c`."""
        return self._manifest.version

    @property
    def encoder_name(self) -> str:
        """Name of the encoder that made the collection."""
        return self._manifest.encoder.name

    @property
    def path(self) -> Path:
        """The collection's folder."""
        return self._collection_path

    @property
    def closed(self) -> bool:
        """Whether the collection is closed."""
        return self._searcher is None

    def search(
        self,
        query: Query | None = None,
        *,
        text: str | None = None,
        image: ImageInput | None = None,
        id: str | None = None,
        limit: int = 10,
        offset: int = 0,
        min_score: float | None = None,
        min_probability: float | None = None,
        filter: Mapping[str, Any] | None = None,
        params: Mapping[str, int] | None = None,
        exact: bool = False,
        fields: Iterable[str] | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        deduplicate: bool | float = False,
        embeddings: bool = False,
    ) -> SearchResults:
        """Return the items nearest to a text, an image, an item or a combination, best first.

        Args:
            query: a text; a part `{"text" | "image" | "id" | "embedding": ..., "weight": 1.0}`; or a list of parts,
                which are added as unit vectors by their weights. A negative weight moves away from its part.
                Exactly one of `query`, `text`, `image` and `id` is required.
            text: what to look for, in words.
            image: a path, a file's bytes, a Pillow image, or RGB pixels (height, width, 3) uint8.
            id: an item of the collection; it is its own nearest item.
            limit: maximum number of items, 1 to 1,000.
            offset: number of items to skip; at most 10,000 together with the limit.
            min_score: lowest cosine of a result, in [-1, 1].
            min_probability: lowest probability of a result, in [0, 1].
            filter: which items may be returned: `must`, `should` and `must_not`, as in the HTTP API.
            params: search parameters of the vector store, such as `{"nprobe": 64}`; those of the collection if None.
            exact: whether to compare with every vector instead of using the index.
            fields: names of the metadata columns that the results have; all if None.
            group_by: column of which each value has at most `group_size` results.
            group_size: maximum number of results of a group.
            deduplicate: whether near-identical items are left out after the best of them; a number is the cosine
                from which they count as such.
            embeddings: whether the results have their unit vectors.

        Raises:
            QueryError: UnknownItem, InvalidLimit, TextEmpty, TextTooLong, FilterInvalid, a wrong part or option, all
                weights are zero, the parts cancel each other out, or `min_probability` without probabilities.
            ImageError: the image can't be decoded.
            SourceError: the image's file can't be read.
            TextUnsupported: the encoder has no text tower here.
            EncoderError: the encoder can't be loaded.
            EncoderMismatch: the encoder is not the one that made the collection.
            TypeError: not exactly one query, or a value of another type.
            ValueError: the collection is closed.
        """
        parts = _only_query(query, {"text": text, "image": image, "id": id})
        options = _options(
            limit=limit,
            offset=offset,
            min_score=min_score,
            min_probability=min_probability,
            filter=filter,
            params=params,
            exact=exact,
            fields=fields,
            group_by=group_by,
            group_size=group_size,
            deduplicate=deduplicate,
            embeddings=embeddings,
        )
        return SearchResults(self._local_searcher().search(parts, options))

    def search_batch(
        self, queries: Iterable[Query], **options: Unpack[SearchKeywords]
    ) -> list[SearchResults | QueryFailure]:
        """Search by several queries, whose texts and images are encoded in batches.

        Args:
            queries: any number of them, each as `search` takes it.
            options: of `search`, from `limit` to `embeddings`; they apply to each query.

        Returns:
            For each query its results, or the exception that `search` raises for it.

        Raises:
            QueryError: FilterInvalid, or a search parameter that the index lacks.
            TypeError: `queries` is a single text, or an option is unknown or has another type.
            ValueError: the collection is closed.
        """
        _require_several("queries", queries)
        searcher, converted = self._local_searcher(), _options(**options)
        read = [_read_or_error(query) for query in queries]
        found = iter(searcher.search_batch([parts for parts in read if isinstance(parts, list)], converted))
        outcomes = [next(found) if isinstance(parts, list) else parts for parts in read]
        return [SearchResults(each) if isinstance(each, SearchResult) else each for each in outcomes]

    def similarity(self, a: Side, b: Side, *, threshold: float | None = None) -> Similarity:
        """Compare two sides, each a text, an image or an item of the collection.

        Args:
            a: a dictionary with one key: `{"text": "a cat"}`, `{"image": "cat.jpg"}` or `{"id": "cat.png"}`.
            b: the same.
            threshold: the distance in [0, 2] up to which the two count as similar; the encoder's own if None.

        Raises:
            QueryError: UnknownItem, TextEmpty, TextTooLong, or a threshold out of range.
            ImageError, SourceError, EncoderError, EncoderMismatch, TypeError, ValueError: as in `search`.
        """
        if threshold is not None and not 0 <= threshold <= 2:
            raise QueryError(f"threshold is {threshold}; it must be between 0 and 2")
        first, second = _side("a", a), _side("b", b)
        spec = self._with_encoder().encoder.spec
        return compare(self._embed(*first), self._embed(*second), spec, threshold)

    def item(self, id: str) -> CollectionItem:
        """Return an item by its id.

        Raises:
            UnknownItem: no item has that id.
        """
        metadata = self._opened().collection.metadata
        return _collection_item(metadata.records([metadata.row_of(_string("id", id))])[0])

    def items(self, filter: Mapping[str, Any] | None = None, sort: str | None = None) -> Iterator[CollectionItem]:
        """Iterate over items; they are read from disk on the way.

        Args:
            filter: which items; all if None.
            sort: the column to sort by, such as `width`, or `-width` for descending; row order if None. Items of equal
                values keep the order of their rows, and those without a value are last.

        Raises:
            QueryError: FilterInvalid, or there is no such column, or its values have no order.
        """
        return self._items(self._opened().table.rows(_filter(filter), _sort(sort)))

    def count(self, filter: Mapping[str, Any] | None = None) -> int:
        """Return the number of items that pass a filter; of all if None. Raises FilterInvalid."""
        return self._opened().table.count(_filter(filter))

    def fields(self) -> list[Facet]:
        """Return what items can be filtered by: each column, its type and its values."""
        return list(self._opened().table.fields)

    def facets(
        self,
        filter: Mapping[str, Any] | None = None,
        fields: Iterable[str] | None = None,
        *,
        limit: int = DEFAULT_VALUES,
        bins: int = DEFAULT_BINS,
    ) -> list[Facet]:
        """Return what `fields` returns, over the items that pass a filter.

        Args:
            filter: which items; all if None.
            fields: names of columns, or of fields of columns of records such as `exif.iso`; all if None.
            limit: maximum number of values of a column, 1 to 1,000.
            bins: maximum number of bins of a histogram, 2 to 100.

        Raises:
            QueryError: FilterInvalid, InvalidLimit, `bins` out of range, or an unknown column in `fields`.
        """
        condition, names = _filter(filter), _fields(fields)
        return self._opened().table.facets(condition, names, operator.index(limit), operator.index(bins))

    def thumbnail(self, id: str) -> bytes | None:
        """Return an item's thumbnail, a JPEG of at most 256 pixels a side; None if it has none.

        Raises:
            UnknownItem: no item has that id.
        """
        opened = self._opened().collection
        return opened.thumbnails.get(opened.metadata.row_of(_string("id", id)))

    def close(self) -> None:
        """Release the index, the encoder and the mapped files; queries in flight end first. May be called again."""
        with self._open_lock:
            self._searcher = None

    def __len__(self) -> int:
        return len(self._opened().collection)

    def __enter__(self) -> SearchableCollection:
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        count = self._manifest.counts.indexed
        return f"<SearchableCollection {self.name!r}: {count:,} items, encoder {self.encoder_name!r}{state}>"

    def _opened(self) -> VectorSearcher:
        searcher = self._searcher
        if searcher is None:
            raise ValueError(f"the collection {self.name!r} is closed")
        return searcher

    def _local_searcher(self) -> LocalSearcher:
        return LocalSearcher(self._opened(), self._with_encoder, self._encode_lock)

    def _with_encoder(self) -> Searcher:
        """Return the searcher with its encoder; the first call loads it."""
        with self._open_lock:
            searcher = self._opened()
            if not isinstance(searcher, Searcher):
                searcher = Searcher(searcher.collection, searcher.store, self._load_encoder(), searcher.limits)
                self._searcher = searcher
            return searcher

    def _embed(self, kind: str, value: Any) -> Embedding:
        """Return the embedding of a query or side; `kind` is `text`, `image` or `id`."""
        if kind == "id":
            return Embedding(self._opened().item_vector(_string("id", value)), "image")
        searcher = self._with_encoder()
        if kind == "text":
            text = searcher.prepare_text(_string("text", value))
            with self._encode_lock:
                vector = searcher.encode_texts([text], Stopwatch())[0]
            return Embedding(vector, "text", searcher.truncated_tokens(text))
        pixels = preprocess(value, searcher.encoder, searcher.limits.pixels)
        with self._encode_lock:
            return Embedding(searcher.encode_images(pixels[None], Stopwatch())[0], "image")

    def _items(self, rows: Sequence[int] | Int64) -> Iterator[CollectionItem]:
        for start in range(0, len(rows), _ITEMS_PER_READ):
            part = [int(row) for row in rows[start : start + _ITEMS_PER_READ]]
            yield from map(_collection_item, self._opened().collection.metadata.records(part))


class LoadedEncoder:
    """An encoder for images and texts in many forms, as `load_encoder` returns it. Safe to use from threads."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self._encoder.spec.name

    @property
    def dim(self) -> int:
        """d, the width of its vectors."""
        return self._encoder.spec.dim

    @property
    def supports_text(self) -> bool:
        """Whether `encode_texts` works: the encoder has a text tower, and it is installed."""
        return self._encoder.spec.text

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the languages of texts; empty where they are not known."""
        return self._encoder.spec.languages

    @property
    def limits(self) -> str:
        """What the encoder finds well and what not, in one sentence; empty where it is not known."""
        return self._encoder.spec.limits

    def encode_images(self, images: Iterable[ImageInput], *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Float32:
        """Encode images in batches; they are decoded in threads.

        Args:
            images: any number of paths, files' bytes, Pillow images, or RGB pixels (height, width, 3) uint8.
            max_pixels: width x height above which an image is rejected.

        Returns:
            (n, d) float32 of unit norm; row i belongs to image i. Its product with another row is their cosine.

        Raises:
            ImageError: an image can't be decoded; the message has its position, from 0, and its path.
            SourceError: an image's file can't be read; likewise.
            TypeError: `images` is a single path or image, or holds something else.
        """
        _require_several("images", images)
        size = max(_MIN_IMAGES_PER_BATCH, self._encoder.image_batch_size)
        rows, numbered = [np.empty((0, self.dim), np.float32)], enumerate(images)
        with ThreadPoolExecutor(available_cores(), "decode") as pool:
            while batch := list(islice(numbered, size)):
                pixels = list(pool.map(partial(self._preprocess, max_pixels), batch))
                with self._lock:
                    rows.append(self._encoder.encode_images(np.stack(pixels)))
        return np.concatenate(rows)

    def encode_texts(self, texts: Iterable[str]) -> Float32:
        """Encode texts.

        Args:
            texts: any number of them; each is normalized as queries are. The end of a very long one is ignored.

        Returns:
            (n, d) float32 of unit norm, in the same space as the images; row i belongs to text i.

        Raises:
            TextUnsupported: the encoder has no text tower, or it is not installed.
            QueryError: a text is not valid Unicode.
            TypeError: `texts` is a single text, or holds something else.
        """
        _require_several("texts", texts)
        strings = [_string(f"texts[{i}]", text) for i, text in enumerate(texts)]
        for text in strings:
            require_unicode(text)
        encoder = self._encoder
        if not (isinstance(encoder, TextEncoder) and encoder.spec.text):
            raise TextUnsupported(f"encoder {self.name!r} has no text tower here: {encoder.spec.text_hint}")
        with self._lock:
            return encoder.encode_texts([normalize_text(text) for text in strings])

    def __repr__(self) -> str:
        return f"<LoadedEncoder {self.name!r}: dim {self.dim}>"

    def _preprocess(self, max_pixels: int, numbered: tuple[int, ImageInput]) -> UInt8:
        position, image = numbered
        try:
            return preprocess(image, self._encoder, max_pixels)
        except (ImageError, SourceError, TypeError) as error:
            raise type(error)(f"image {position}: {error}") from error


def _only_query(query: Query | None, short_forms: Mapping[str, object]) -> list[WeightedInput]:
    """Return the parts of the one query that is not None."""
    found = [WeightedInput(cast(PartKind, kind), value) for kind, value in short_forms.items() if value is not None]
    count = len(found) + (query is not None)
    if count != 1:
        raise TypeError(f"search takes exactly one of query, text, image and id; it was called with {count}")
    return found or read_query(query)


def _read_or_error(query: Query) -> list[WeightedInput] | QueryFailure:
    try:
        return read_query(query)
    except (QueryError, TypeError) as error:
        return error


def _side(name: str, side: Side) -> tuple[str, object]:
    """Return the key and the value of one side of a comparison."""
    if not isinstance(side, Mapping) or len(side) != 1 or not side.keys() <= {"text", "image", "id"}:
        raise TypeError(
            f"side {name} must be a dictionary with one of the keys text, image and id, "
            f'such as {{"text": "a cat"}} or {{"image": "cat.jpg"}}, not {_short(side)}'
        )
    return next(iter(side.items()))


def _options(**given: Unpack[SearchKeywords]) -> SearchOptions:
    """Return the options of the library."""
    values: dict[str, Any] = dict(given)
    return SearchOptions(**{name: _CONVERSIONS.get(name, _unchanged)(value) for name, value in values.items()})


def _filter(filter: Mapping[str, Any] | None) -> Filter | None:
    if filter is None:
        return None
    try:
        return Filter.model_validate(filter)
    except ValidationError as error:
        raise filter_error(error) from error


def _fields(fields: Iterable[str] | None) -> tuple[str, ...] | None:
    if fields is None:
        return None
    _require_several("fields", fields)
    return tuple(_string("fields", name) for name in fields)


def _deduplicate(value: bool | float) -> float | None:
    return NEAR_IDENTICAL if value is True else None if value is False else value


def _unchanged(value: Any) -> Any:
    return value


_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "limit": operator.index,
    "offset": operator.index,
    "group_size": operator.index,
    "filter": _filter,
    "fields": _fields,
    "deduplicate": _deduplicate,
}


def _sort(sort: str | None) -> str | None:
    return None if sort is None else _string("sort", sort)


def _collection_item(record: dict[str, Any]) -> CollectionItem:
    return CollectionItem(str(record.pop("id")), record)


def _require_several(name: str, values: object) -> None:
    """Reject one text, image or query in place of several: a string, for example, would be taken letter by letter."""
    if isinstance(values, str | bytes | os.PathLike | PillowImage | Mapping) or getattr(values, "ndim", 4) == 3:
        raise TypeError(f"{name} must be a list or another iterable; put the one into a list: [{_short(values)}]")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Results of calls: frozen records of what the service responds, and the function that reads them from JSON.

A field that a newer service adds is ignored.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from lookalike_client.errors import ResponseInvalid

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a response comes from."""

    collection: str
    version: str
    encoder: str


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One search result.

    Attributes:
        id: the item's id.
        score: exact cosine similarity, -1 to 1.
        probability: that the item truly matches, 0 to 1; None where the encoder is not calibrated for the query.
        metadata: the item's columns.
        thumbnail_url: path of the thumbnail at the service, None if there is none; `Client.thumbnail` reads it.
        original_url: path of the original at the service, None where it serves none; `Client.original` reads it.
        group: the item's value of the column `group_by`.
        duplicates: number of near-identical items that it stands for, None without `deduplicate`.
        embedding: the item's unit vector, None without `include`.
    """

    id: str
    score: float
    probability: float | None
    metadata: dict[str, Any]
    thumbnail_url: str | None
    original_url: str | None = None
    group: Any = None
    duplicates: int | None = None
    embedding: list[float] | None = None


@dataclass(frozen=True, kw_only=True)
class SearchResults(Source):
    """The results of a search, best first; iterating yields its hits.

    Attributes:
        results: at most `limit` hits.
        no_match: whether even the best item hardly matches; None where there are no probabilities.
        truncated_tokens: number of tokens of the texts that the encoder did not read.
        took_ms: milliseconds by stage.
        warnings: what was changed in the query.
    """

    results: list[Hit]
    no_match: bool | None
    truncated_tokens: int
    took_ms: dict[str, float]
    warnings: list[str] | None = None

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


@dataclass(frozen=True, kw_only=True)
class Comparison(Source):
    """How similar two sides are.

    Attributes:
        cosine: cosine similarity.
        distance: 1 - cosine.
        threshold: distance up to which the sides are similar.
        similar: whether they are.
        probability: calibrated probability that they belong together, or None.
        kinds: `image` or `text`, of each side.
        truncated_tokens: number of tokens that the encoder did not read, of each side.
        took_ms: milliseconds by stage.
    """

    cosine: float
    distance: float
    threshold: float
    similar: bool
    probability: float | None
    kinds: list[str]
    truncated_tokens: list[int]
    took_ms: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class SimilarityMatrix(Source):
    """How similar each input of a is to each of b: row i, column j.

    Attributes:
        cosine: cosine similarities.
        probability: calibrated probabilities that the two belong together, or None.
        kinds: of the inputs of a and of b, each `image` or `text`.
        truncated_tokens: of the texts of a and of b, not read by the encoder.
        took_ms: milliseconds by stage.
    """

    cosine: list[list[float]]
    probability: list[list[float | None]]
    kinds: list[list[str]]
    truncated_tokens: list[list[int]]
    took_ms: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How well a label describes an image.

    Attributes:
        label: the label.
        cosine: cosine similarity of label and image.
        softmax: share of the label among all labels; the shares add to 1.
        probability: calibrated probability that the label is right, whatever the others; or None.
    """

    label: str
    cosine: float
    softmax: float
    probability: float | None


@dataclass(frozen=True, kw_only=True)
class Classification:
    """The predictions for one image, the best one first; iterating yields them."""

    predictions: list[Prediction]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.predictions)

    def __len__(self) -> int:
        return len(self.predictions)


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Embeddings of unit norm, in the order of the inputs; iterating yields them.

    Attributes:
        model: the model as the request named it.
        embeddings: float32 values, of d numbers each.
        prompt_tokens: number of tokens of the texts.
    """

    model: str
    embeddings: list[list[float]]
    prompt_tokens: int

    def __iter__(self) -> Iterator[list[float]]:
        return iter(self.embeddings)

    def __len__(self) -> int:
        return len(self.embeddings)


@dataclass(frozen=True, kw_only=True)
class Model:
    """An encoder, or a collection, which stands for its encoder. What is not known before it is opened is None."""

    id: str
    created: int
    encoder: str | None
    dimensions: int | None
    modalities: list[str]


@dataclass(frozen=True, kw_only=True)
class Item:
    """An item of the collection: its id, its columns, and the paths of its thumbnail and of its original."""

    id: str
    metadata: dict[str, Any]
    thumbnail_url: str | None
    original_url: str | None = None


@dataclass(frozen=True, kw_only=True)
class ItemDetails(Item, Source):
    """An item, and what the response comes from.

    Attributes:
        etag: changes with the item's metadata and its vector; writes take it as `if_match`.
    """

    etag: str | None = None


@dataclass(frozen=True, kw_only=True)
class WrittenItem(Source):
    """What became of an item that was written.

    Attributes:
        id: the item's id.
        result: `created`, `replaced`, `patched` or `deleted`.
        etag: of the item as it is now, None if it was deleted.
        metadata: the item's columns, None if it was deleted or written together with others.
        thumbnail_url: as in `Item`, None in the same cases.
    """

    id: str
    result: str
    etag: str | None
    metadata: dict[str, Any] | None = None
    thumbnail_url: str | None = None


@dataclass(frozen=True, kw_only=True)
class DeletedItems(Source):
    """How many items were deleted; with `dry_run`, would be."""

    count: int
    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class Items(Source):
    """A page of items; iterating yields them. `total` is the number of all that pass the filter."""

    items: list[Item]
    offset: int
    total: int

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A thumbnail: the bytes of its file, and their media type, such as `image/webp`."""

    data: bytes
    media_type: str


@dataclass(frozen=True, kw_only=True)
class FieldValue:
    """A value of a column, and the number of items that have it."""

    value: Any
    count: int


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Numbers of items by ranges: `counts[i]` from `edges[i]`, included, to `edges[i + 1]`, excluded."""

    edges: list[Any]
    counts: list[int]


@dataclass(frozen=True, kw_only=True)
class FieldFacet:
    """A column: its name, its type, and the values that items have. What its type does not have is None."""

    name: str
    type: str
    count: int
    distinct: int | None
    values: list[FieldValue] | None
    minimum: Any
    maximum: Any
    histogram: Histogram | None


@dataclass(frozen=True, kw_only=True)
class Facets(Source):
    """Columns of a collection: `count` items pass the filter, of `total`."""

    fields: list[FieldFacet]
    count: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Count(Source):
    """How many items pass a filter, of `total`."""

    count: int
    total: int


@dataclass(frozen=True, kw_only=True)
class MapField:
    """A column of the items on a map: its name, its type, and the value of each item, None without one."""

    name: str
    type: str
    values: list[Any]


@dataclass(frozen=True, kw_only=True)
class ItemMap(Source):
    """The places of a collection's items on its map; lists have one entry for each item, in the same order.

    Attributes:
        items: number of items on the map.
        unmapped: number of items that were added later.
        method: `umap`, `tsne` or `pca`.
        created: when the map was made, in ISO 8601.
        ids: of the items.
        x: from 0 to 1, of the same scale as y.
        y: from 0 to 1.
        field: the column that the call names, or None.
    """

    items: int
    unmapped: int
    method: str
    created: str
    ids: list[str]
    x: list[float]
    y: list[float]
    field: MapField | None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a version is not served."""

    code: str
    detail: str
    version: str | None


@dataclass(frozen=True, kw_only=True)
class CollectionInfo:
    """A collection. What is not known before it is opened is None."""

    name: str
    version: str | None
    items: int | None
    encoder: str | None
    text: bool | None
    languages: list[str] | None
    limits: str | None
    created: str | None
    swaps: int
    failure: Failure | None
    writable: bool = False
    pending_writes: int | None = None


@dataclass(frozen=True, kw_only=True)
class StageStats:
    """Milliseconds of a stage, of the last `count` queries that needed it."""

    count: int
    p50: float
    p90: float
    p99: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Ready(Source):
    """Queries succeed: the number of items of the default collection, and whether it is searched by text."""

    status: str
    items: int
    text: bool


def parse(kind: type[T], value: Any) -> T:
    """Return JSON as a record, or as another annotated type.

    Raises:
        ResponseInvalid: a field is missing, or the JSON has another structure.
    """
    try:
        result: T = _parse(kind, value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ResponseInvalid(f"the response is no {getattr(kind, '__name__', kind)}: {error!r}") from error
    return result


def _parse(kind: Any, value: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else _parse(next(each for each in arguments if each is not types.NoneType), value)
    if kind == list[float]:  # embeddings are long
        return [*map(float, _checked(value, list))]
    if origin is list:
        return [_parse(arguments[0], each) for each in _checked(value, list)]
    if origin is dict:
        return {name: _parse(arguments[1], each) for name, each in value.items()}
    if is_dataclass(kind):
        return _record(kind, _checked(value, dict))
    return value if kind is Any else _scalar(kind, value)


def _record(kind: Any, value: dict[str, Any]) -> Any:
    required, hints = _fields(kind)
    if missing := required - value.keys():
        raise KeyError(*sorted(missing))
    return kind(**{name: _parse(hint, value[name]) for name, hint in hints.items() if name in value})


@cache
def _fields(kind: Any) -> tuple[set[str], dict[str, Any]]:
    """Return the names of a record's fields that have no default, and the types of all."""
    required = {each.name for each in fields(kind) if each.default is MISSING}
    return required, get_type_hints(kind)


def _scalar(kind: Any, value: Any) -> Any:
    return float(value) if kind is float and isinstance(value, int) else _checked(value, kind)


def _checked(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value

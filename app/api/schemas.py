"""Models of requests and responses, with examples for /docs.

Requests are validated by these models. Responses are written straight from the library's records; a test validates
them against these models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from app.api.request_bodies import Base64Image, ImageUrl
from lookalike.collapse import NEAR_IDENTICAL
from lookalike.encoders.lite.abilities import LANGUAGES, LIMITS
from lookalike.facets import DEFAULT_BINS, DEFAULT_VALUES, MAX_BINS, MAX_VALUES
from lookalike.filters import Filter
from lookalike.query import MAX_PARTS
from lookalike.row_search import SearchOptions
from lookalike.stopwatch import STAGES

DEFAULT_LIMIT = 10
MAX_FIELDS = 10_000
MAX_BATCH = 100
INCLUDABLE = ("embedding",)
OFFSET = "Number of results to skip; at most `LOOKALIKE_MAX_CANDIDATES` together with `limit`."
MIN_SCORE = "Lowest score of a result, -1 to 1."
MIN_PROBABILITY = "Lowest probability of a result, 0 to 1; only for queries that have probabilities."
GROUP_BY = (
    "Metadata column of which each value has at most `group_size` results. Items without a value are not grouped."
)
GROUP_SIZE = "Maximum number of results of a group."
DEDUPLICATE = (
    "True, or a cosine above 0 and at most 1. An item that is so similar to a better result is left out, and counted "
    f"in its `duplicates`. True stands for {NEAR_IDENTICAL}."
)

Limit = Annotated[
    int,
    Field(
        strict=True,
        description="Number of items to return, at most `LOOKALIKE_MAX_RESULTS`.",
        json_schema_extra={"minimum": 1},
    ),
]

Fields = Annotated[list[str], Field(max_length=MAX_FIELDS, fail_fast=True)]
_VERSION = "20260101T120000Z-1a2b3c"
_RESULT: dict[str, Any] = {
    "id": "chelsea.png",
    "score": 0.347149,
    "probability": 0.8312,
    "metadata": {"path": "chelsea.png", "caption": "chelsea", "width": 451, "height": 300, "format": "PNG"},
    "thumbnail_url": f"/v1/items/chelsea.png/thumbnail?v={_VERSION}",
}
EXAMPLE_SOURCE: dict[str, Any] = {"collection": "my-collection", "version": _VERSION, "encoder": "lite"}
EXAMPLE_TOOK_MS: dict[str, Any] = {
    "decode": 1.9,
    "preprocess": 0.4,
    "wait": 0.1,
    "encode": 3.6,
    "filter": 0.0,
    "search": 0.2,
    "rerank": 0.0,
    "metadata": 0.1,
    "total": 6.6,
}


DATA_URI = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQMAAAD+wSzIAAAAA1BMVEXIUCi3yA+MAAAAC0lEQVR42mNgQAUAABAAAaoZ+IIAAAAASUVORK5CYII="
)
IMAGE_URL = "An http or https URL of the image, if the service fetches images (`LOOKALIKE_URLS`)."
_METADATA = "The item's columns as they were indexed, without those that have no value."
_ORIGINAL = (
    "URL of the image file that the item was indexed from, relative to the service. Absent where the service does not "
    "serve originals, or can't read the item's source."
)
_THUMBNAIL = "URL of the thumbnail, relative to the service; null if the item has none."


class RequestModel(BaseModel):
    """A body or a part of one; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


Positive = Annotated[int, Field(strict=True, ge=1)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Params(RequestModel):
    """How thoroughly to search. Absent values are those that were tuned when the collection was built.

    An approximate index rejects a parameter that it does not have. An exact store ignores all parameters.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"nprobe": 64, "candidates": 400}]})

    nprobe: Positive | None = Field(default=None, description="Number of lists to search, for an IVF index.")
    ef_search: Positive | None = Field(
        default=None,
        alias="efSearch",
        description="Length of the candidate list, for an HNSW index; at most `LOOKALIKE_MAX_CANDIDATES`.",
    )
    candidates: Positive | None = Field(
        default=None, description="Number of rows to re-rank exactly; at most `LOOKALIKE_MAX_CANDIDATES`."
    )
    exact: StrictBool = Field(
        default=False, description="Whether to compare with every vector instead of using the index."
    )


class Search(RequestModel):
    """The options of every search."""

    limit: Limit = DEFAULT_LIMIT
    offset: Annotated[int, Field(strict=True, description=OFFSET, json_schema_extra={"minimum": 0})] = 0
    min_score: Finite | None = Field(default=None, description=MIN_SCORE)
    min_probability: Finite | None = Field(default=None, description=MIN_PROBABILITY)
    filter: Filter | None = Field(default=None, description="Only items whose metadata passes are found.")
    params: Params | None = Field(default=None, description="How thoroughly to search.")
    fields: Fields | None = Field(default=None, description="Metadata columns of the results; all by default.")
    include: list[Literal["embedding"]] = Field(
        default=[], max_length=8, description="What else the results have: `embedding`, their unit vector."
    )
    group_by: str | None = Field(default=None, description=GROUP_BY)
    group_size: Annotated[int, Field(strict=True, description=GROUP_SIZE, json_schema_extra={"minimum": 1})] = 1
    deduplicate: StrictBool | Finite = Field(default=False, description=DEDUPLICATE)

    @property
    def options(self) -> SearchOptions:
        """The options of the library."""
        params = self.params or Params()
        index_params = params.model_dump(exclude={"exact"}, exclude_none=True, by_alias=True)
        fields = None if self.fields is None else tuple(dict.fromkeys(self.fields))
        near_identical = NEAR_IDENTICAL if self.deduplicate is True else self.deduplicate
        return SearchOptions(
            limit=self.limit,
            filter=self.filter,
            params=index_params or None,
            exact=params.exact,
            fields=fields,
            offset=self.offset,
            min_score=self.min_score,
            min_probability=self.min_probability,
            group_by=self.group_by,
            group_size=self.group_size,
            deduplicate=None if near_identical is False else near_identical,
            embeddings="embedding" in self.include,
        )


class _Input(RequestModel):
    """A text, an image or an item."""

    text: str | None = Field(default=None, description="A text, at most `LOOKALIKE_MAX_TEXT` characters.")
    image: str | None = Field(default=None, description="An image file as base64 or as a base64 data URI.")
    id: str | None = Field(default=None, description="Id of an item of the collection.")
    url: str | None = Field(default=None, description=IMAGE_URL)

    @property
    def image_source(self) -> Base64Image | ImageUrl | None:
        """The image, None for a text, an item or an embedding."""
        if self.url is not None:
            return ImageUrl(self.url)
        return None if self.image is None else Base64Image(self.image)


class Part(_Input):
    """One part of a query, with exactly one of `text`, `image`, `id`, `url` and `embedding`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "striped", "weight": -0.5}]})

    embedding: Annotated[list[Finite], Field(max_length=65_536, fail_fast=True)] | None = Field(
        default=None,
        description="An embedding of the collection's encoder. It is scaled to unit norm; `warnings` says so.",
    )
    weight: Finite = Field(
        default=1.0, description="Weight of the part in the sum of the parts. A negative one moves away from it."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Part:
        given = [name for name in PART_KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(PART_KINDS)}; it has {' and '.join(given) or 'none'}")
        return self


PART_KINDS = ("text", "image", "id", "url", "embedding")


def _as_parts(query: object) -> object:
    """Return the parts of a query that is a text, a part, or a list of parts."""
    if isinstance(query, str):
        return [{"text": query}]
    if isinstance(query, dict | Part):
        return [query]
    if not isinstance(query, list):
        raise ValueError("a query is a text, a part, or a list of parts")
    if not 1 <= len(query) <= MAX_PARTS:
        raise ValueError(f"a list of {len(query):,} parts; a query has 1 to {MAX_PARTS} parts")
    return query


def _describe_query(schema: dict[str, Any]) -> None:
    """Write the forms of a query into its schema."""
    query = schema["properties"]["query"]
    part = query.pop("items")
    parts = {"type": "array", "items": part, "minItems": 1, "maxItems": MAX_PARTS}
    del query["type"]
    query["anyOf"] = [{"type": "string"}, part, parts]
    schema["examples"] = [
        {"query": [{"id": "chelsea.png"}, {"text": "on grass"}, {"text": "striped", "weight": -0.5}], "limit": 2},
        {"query": "a cat", "min_probability": 0.5},
    ]


class QuerySearch(Search):
    """A search by a query of one or several parts."""

    model_config = ConfigDict(json_schema_extra=_describe_query)

    query: Annotated[list[Part], BeforeValidator(_as_parts)] = Field(
        description="A text, a part, or a list of parts, which are added by their weights."
    )


class BatchSearch(RequestModel):
    """Several searches."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queries": [{"query": "a cat", "limit": 2}, {"query": {"id": "coffee.png"}}]}]}
    )

    queries: list[Any] = Field(
        description=f"At most {MAX_BATCH} searches, each as `POST /v1/search` takes it.",
        json_schema_extra={"items": {"$ref": "#/components/schemas/QuerySearch"}},
    )

    @model_validator(mode="after")
    def _bounded(self) -> BatchSearch:
        if not 1 <= len(self.queries) <= MAX_BATCH:
            raise ValueError(f"queries: {len(self.queries):,} queries; a batch has 1 to {MAX_BATCH}")
        return self


class TextSearch(Search):
    """A search by text."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text": "a cat", "limit": 2},
                {"text": "a red shoe", "filter": {"must": [{"field": "price", "range": {"lt": 50}}]}},
            ]
        }
    )

    text: str = Field(description="Text query, at most `LOOKALIKE_MAX_TEXT` characters.")


class ImageSearch(Search):
    """A search by image, with exactly one of `image` and `url`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "image": DATA_URI,
                    "limit": 2,
                },
                {"url": "https://example.com/cat.jpg", "limit": 2},
            ]
        }
    )

    image: str | None = Field(default=None, description="The image file as base64 or as a base64 data URI.")
    url: str | None = Field(default=None, description=IMAGE_URL)

    @model_validator(mode="after")
    def _exactly_one(self) -> ImageSearch:
        if (self.image is None) == (self.url is None):
            raise ValueError("give exactly one of image and url")
        return self

    @property
    def image_source(self) -> Base64Image | ImageUrl:
        """The image to search by."""
        return ImageUrl(self.url) if self.url is not None else Base64Image(self.image or "")


class ItemSearch(Search):
    """A search by an item of the collection."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "chelsea.png", "limit": 2}]})

    id: str = Field(description="Id of the item.")


class Side(_Input):
    """One side of a pair, with exactly one of these fields."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Side:
        if sum(value is not None for value in (self.image, self.text, self.id, self.url)) != 1:
            raise ValueError("give exactly one of image, text, id and url")
        return self


class SimilarityRequest(RequestModel):
    """A pair to compare."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"a": {"id": "chelsea.png"}, "b": {"text": "a cat"}}]})

    a: Side = Field(description="The one side.")
    b: Side = Field(description="The other side.")
    threshold: float | None = Field(
        default=None,
        strict=True,
        ge=0,
        le=2,
        description="Cosine distance up to which the sides are similar; by default the encoder's own.",
    )


class TookMs(BaseModel):
    """Milliseconds by stage; 0 for a stage that the query did not need.

    The two sides of a pair pass the stages at the same time: each value is that of the slower side.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_TOOK_MS]})

    decode: float = Field(description="Decoding the image file.")
    preprocess: float = Field(description="Resizing and cropping the image for the encoder.")
    wait: float = Field(description="Waiting for the encoder, while it processed other queries.")
    encode: float = Field(description="Encoding the batch that the query was in.")
    filter: float = Field(description="Evaluating the filter.")
    search: float = Field(description="Searching the index.")
    rerank: float = Field(description="Comparing the candidates exactly.")
    metadata: float = Field(description="Reading the metadata of the results.")
    total: float = Field(description="From the end of the request's body to the response.")


class SourceModel(BaseModel):
    """What a response comes from: a collection, its version and its encoder."""

    collection: str = Field(description="Name of the collection.")
    version: str = Field(description="Version of the collection that this response is from.")
    encoder: str = Field(description="Name of the encoder.")


class Result(BaseModel):
    """One search result."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RESULT]})

    id: str = Field(description="Id of the item.")
    score: float = Field(
        description="Exact cosine similarity. The same image scores 1.0, within 0.0001 if the encoder runs in bf16.",
        ge=-1,
        le=1,
    )
    probability: float | None = Field(
        ge=0,
        le=1,
        description="Probability that the item truly matches the query. Null for a combined or negative query and for "
        "an embedding, and if the encoder is not calibrated for such queries.",
    )
    metadata: dict[str, Any] = Field(description=_METADATA)
    thumbnail_url: str | None = Field(description=_THUMBNAIL)
    original_url: str | None = Field(default=None, description=_ORIGINAL)
    group: Any = Field(
        default=None, description="The item's value of the column in `group_by`; absent without `group_by`."
    )
    duplicates: int | None = Field(
        default=None,
        ge=0,
        description="Number of near-identical items that the result stands for, among those that were compared; "
        "absent without `deduplicate`.",
    )
    embedding: list[float] | None = Field(
        default=None, description="The item's unit vector; absent if `include` does not name it."
    )


class SearchResponse(SourceModel):
    """The results of a search."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "results": [_RESULT],
                    "no_match": False,
                    "truncated_tokens": 0,
                    "took_ms": EXAMPLE_TOOK_MS,
                    **EXAMPLE_SOURCE,
                }
            ]
        }
    )

    results: list[Result] = Field(description="At most `limit` items, best first.")
    no_match: bool | None = Field(
        description="Whether even the best item has a probability below 0.5, or there is none. It concerns the whole "
        "query, whatever `offset` and `min_score`. Null where there are no probabilities."
    )
    warnings: list[str] | None = Field(
        default=None, description="What was changed in the query, one sentence each; absent if nothing was."
    )
    truncated_tokens: int = Field(
        ge=0, description="Number of tokens at the end of the texts that the encoder did not read; 0 for images."
    )
    took_ms: TookMs = Field(description="Milliseconds by stage.")


class SimilarityResponse(SourceModel):
    """How similar the two sides of a pair are."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "cosine": 0.347149,
                    "distance": 0.652851,
                    "threshold": 0.780364,
                    "similar": True,
                    "probability": 0.8728,
                    "kinds": ["image", "text"],
                    "truncated_tokens": [0, 0],
                    "took_ms": EXAMPLE_TOOK_MS,
                    **EXAMPLE_SOURCE,
                }
            ]
        }
    )

    cosine: float = Field(ge=-1, le=1, description="Cosine similarity of the sides.")
    distance: float = Field(ge=0, le=2, description="Cosine distance: 1 - cosine.")
    threshold: float = Field(description="Distance up to which the sides are similar.")
    similar: bool = Field(description="Whether the distance is at most the threshold.")
    probability: float | None = Field(
        ge=0,
        le=1,
        description="Calibrated probability that the sides belong together, if half of all pairs do. Null if the "
        "encoder is not calibrated for this kind of pair.",
    )
    kinds: tuple[Literal["image", "text"], Literal["image", "text"]] = Field(
        description="Kinds of a and b. An item of the collection is an image."
    )
    truncated_tokens: tuple[int, int] = Field(
        description="Number of tokens at the end of the texts a and b that the encoder did not read; 0 for images."
    )
    took_ms: TookMs = Field(description="Milliseconds by stage.")


_ITEM: dict[str, Any] = {name: _RESULT[name] for name in ("id", "metadata", "thumbnail_url")}


class Item(BaseModel):
    """One item of the collection."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ITEM]})

    id: str = Field(description="Id of the item.")
    metadata: dict[str, Any] = Field(description=_METADATA)
    thumbnail_url: str | None = Field(description=_THUMBNAIL)
    original_url: str | None = Field(default=None, description=_ORIGINAL)


class ItemResponse(Item, SourceModel):
    """One item of the collection."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_ITEM, **EXAMPLE_SOURCE}]})


class ItemsResponse(SourceModel):
    """A page of the collection's items, in the order of their rows or of a column."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [_ITEM], "offset": 0, "total": 24, **EXAMPLE_SOURCE}]}
    )

    items: list[Item] = Field(description="At most `limit` items.")
    offset: int = Field(description="Number of items that were skipped.")
    total: int = Field(description="Number of items of the collection, or of those that pass the filter.")


def _wider_than(width: int) -> dict[str, Any]:
    return {"must": [{"field": "width", "range": {"gte": width}}]}


_FACETS: list[Any] = [
    {
        "name": "format",
        "type": "text",
        "count": 24,
        "distinct": 2,
        "values": [{"value": "PNG", "count": 19}, {"value": "JPEG", "count": 5}],
        "minimum": None,
        "maximum": None,
        "histogram": None,
    },
    {
        "name": "width",
        "type": "integer",
        "count": 24,
        "distinct": None,
        "values": None,
        "minimum": 102,
        "maximum": 1411,
        "histogram": {"edges": [0, 500, 1000, 1500], "counts": [7, 15, 2]},
    },
]


class FacetsRequest(RequestModel):
    """Which columns to describe, and over which items."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"filter": _wider_than(100), "fields": ["format", "width"], "bins": 5}]}
    )

    filter: Filter | None = Field(default=None, description="Only items whose metadata passes count.")
    fields: Fields | None = Field(
        default=None, description="Columns, or fields of columns of records such as `exif.iso`; all by default."
    )
    limit: Annotated[int, Field(strict=True, json_schema_extra={"minimum": 1, "maximum": MAX_VALUES})] = Field(
        default=DEFAULT_VALUES, description="Maximum number of values of a column."
    )
    bins: Annotated[int, Field(strict=True, json_schema_extra={"minimum": 2, "maximum": MAX_BINS})] = Field(
        default=DEFAULT_BINS, description="Maximum number of bins of a histogram."
    )


class FieldValue(BaseModel):
    """A value of a column."""

    value: Any = Field(description="The value, as in `metadata`.")
    count: int = Field(description="Number of items that have it, in a list or alone.")


class FieldHistogram(BaseModel):
    """Numbers of items by ranges of their values."""

    edges: list[Any] = Field(
        description="Ascending; a bin is from its edge, included, to the next one, excluded. A filter takes them as "
        "`gte` and `lt`."
    )
    counts: list[int] = Field(description="Number of items in each bin; one less than the edges.")


class FieldFacet(BaseModel):
    """The values of one column. A part that its type does not have is null."""

    model_config = ConfigDict(json_schema_extra={"examples": _FACETS})

    name: str = Field(description="Name of the column, as filters take it: `exif.iso` is a field of a record.")
    type: str = Field(
        description="`text`, `integer`, `number`, `boolean`, `date`, `datetime`, `time`, `duration`, `uuid`, `binary`, "
        "`record`, `map`, `null`, or a list such as `list of text`."
    )
    count: int = Field(description="Number of items that have a value.")
    distinct: int | None = Field(description="Number of distinct values, of texts, booleans, UUIDs and lists.")
    values: list[FieldValue] | None = Field(description="The most frequent of these, at most `limit`.")
    minimum: Any = Field(description="Smallest value, of numbers, dates, times and durations. NaN does not count.")
    maximum: Any = Field(description="Largest value.")
    histogram: FieldHistogram | None = Field(description="Of numbers, dates and durations.")


class FacetsResponse(SourceModel):
    """The columns of a collection, and the values that items have in them."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"fields": _FACETS, "count": 24, "total": 24, **EXAMPLE_SOURCE}]}
    )

    fields: list[FieldFacet] = Field(description="The columns, in their order or that of the request.")
    count: int = Field(description="Number of items that pass the filter.")
    total: int = Field(description="Number of items of the collection.")


class CountRequest(RequestModel):
    """Which items to count."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"filter": _wider_than(500)}]})

    filter: Filter | None = Field(default=None, description="Only items whose metadata passes count.")


class CountResponse(SourceModel):
    """How many items pass a filter."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"count": 17, "total": 24, **EXAMPLE_SOURCE}]})

    count: int = Field(description="Number of items that pass the filter.")
    total: int = Field(description="Number of items of the collection.")


class MapField(BaseModel):
    """A column of the items on a map."""

    name: str = Field(description="Name of the column; `a.b` is a field of a column of records.")
    type: str = Field(description="Type of the column, as in `/v1/fields`.")
    values: list[Any] = Field(description="Value of each item; null without one.")


class MapResponse(SourceModel):
    """The places of a collection's items on its map; lists have one entry for each item, in the same order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": 2,
                    "unmapped": 0,
                    "method": "umap",
                    "created": "2026-01-01T12:30:00Z",
                    "ids": ["chelsea.png", "coffee.png"],
                    "x": [0.21738, 0.84502],
                    "y": [0.5, 0.31447],
                    "field": {"name": "width", "type": "integer", "values": [451, 600]},
                    **EXAMPLE_SOURCE,
                }
            ]
        }
    )

    items: int = Field(description="Number of items on the map.")
    unmapped: int = Field(description="Number of items that are not on the map: added after the version was built.")
    method: str = Field(description="`umap`, `tsne`, or `pca` for fewer than 8 items.")
    created: str = Field(description="When the map was made, in ISO 8601.")
    ids: list[str] = Field(description="Ids of the items, in the order of their rows.")
    x: list[float] = Field(description="From 0 to 1. Both axes have the same scale.")
    y: list[float] = Field(description="From 0 to 1.")
    field: MapField | None = Field(description="The column that the request names; null without one.")


class Failure(BaseModel):
    """Why a version is not served."""

    code: str = Field(description="Stable code of the error; `docs/reference/errors.md` lists them.")
    detail: str = Field(description="What is wrong, with the offending value, and the fix.")
    version: str | None = Field(description="Version that was refused; null if it is not known.")


_COLLECTION: dict[str, Any] = {
    "name": "my-collection",
    "version": "20260101T000000Z-a1b2c3",
    "items": 24,
    "encoder": "lite",
    "text": True,
    "languages": list(LANGUAGES),
    "limits": LIMITS,
    "created": "2026-01-01T00:00:00Z",
    "writable": False,
    "pending_writes": None,
    "swaps": 0,
    "failure": None,
}


class CollectionResponse(BaseModel):
    """A collection of the service.

    A collection that is closed opens on its first use. Until then `items`, `encoder`, `text`, `languages`, `limits` and
    `created` are null.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_COLLECTION]})

    name: str = Field(description="Name of the collection: that of its folder.")
    version: str | None = Field(description="Version that is served.")
    items: int | None = Field(description="Number of items.")
    encoder: str | None = Field(description="Name of the encoder.")
    text: bool | None = Field(description="Whether the encoder supports text queries.")
    languages: list[str] | None = Field(
        description="Languages of text queries, ISO 639-1 codes; empty if they are not known."
    )
    limits: str | None = Field(
        description="What the encoder finds well and what not, in one sentence; empty if it is not known."
    )
    created: str | None = Field(description="When the version was built, ISO 8601 in UTC.")
    writable: bool = Field(description="Whether the service accepts writes to the collection now.")
    pending_writes: int | None = Field(
        description="Number of items that were written since the version was built; null if it is not writable."
    )
    swaps: int = Field(description="How often a new version has replaced an old one since the service started.")
    failure: Failure | None = Field(description="Why the newest version is not served; null if it is.")


class CollectionsResponse(BaseModel):
    """All collections of the service."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"collections": [_COLLECTION]}]})

    collections: list[CollectionResponse] = Field(description="The collections; the default one is first.")


class StageStats(BaseModel):
    """Milliseconds of a stage, of the last 1,000 queries that needed it."""

    count: int = Field(description="Number of queries, at most 1,000.")
    p50: float = Field(description="Median.")
    p90: float = Field(description="90th percentile.")
    p99: float = Field(description="99th percentile.")
    mean: float = Field(description="Mean.")


class StatsResponse(BaseModel):
    """Times by stage. A stage that no query has needed is left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"stages": {"encode": {"count": 1000, "p50": 3.6, "p90": 4.4, "p99": 7.1, "mean": 3.8}}}]
        }
    )

    stages: dict[str, StageStats] = Field(description="The times of each stage, by its name.")


class Alive(BaseModel):
    """The process responds."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = Field(default="ok", description="Always `ok`.")


class Ready(SourceModel):
    """Queries succeed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ready", "items": 24, "text": True, **EXAMPLE_SOURCE}]}
    )

    status: Literal["ready"] = Field(default="ready", description="Always `ready`.")
    items: int = Field(description="Number of items of the default collection.")
    text: bool = Field(description="Whether the encoder supports text queries.")


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    field: str = Field(description="The field, with dots between levels: `params.nprobe`.")
    message: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """An error: a problem document (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:lookalike:error:unknown_item",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "no item has the id 'dog.jpg' in this collection",
                    "instance": "/v1/items/dog.jpg",
                    "code": "unknown_item",
                }
            ]
        }
    )

    type: str = Field(description="`urn:lookalike:error:` and the code.")
    title: str = Field(description="The phrase of the HTTP status.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, with the offending value, and the fix.")
    instance: str = Field(description="The path of the request.")
    code: str = Field(description="Stable code of the error; `docs/reference/errors.md` lists them.")
    errors: list[FieldError] | None = Field(default=None, description="The invalid fields; absent if there are none.")


class BatchResponse(BaseModel):
    """The responses to several searches."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "responses": [
                        {
                            "results": [_RESULT],
                            "no_match": False,
                            "truncated_tokens": 0,
                            "took_ms": EXAMPLE_TOOK_MS,
                            **EXAMPLE_SOURCE,
                        }
                    ]
                }
            ]
        }
    )

    responses: list[SearchResponse | Problem] = Field(
        description="For each query its response, or the problem document that it would get alone; in their order."
    )


assert tuple(TookMs.model_fields) == (*STAGES, "total")

"""Models of requests and responses, with examples for /docs.

Requests are validated by these models. Responses are written straight from the library's records; a test validates
them against these models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from app.api.request_bodies import Base64Image, ImageUrl, parse_whole
from app.errors import RequestError
from app.validation import validation_error
from lookalike.filters import Filter, parse_filter
from lookalike.row_search import SearchOptions
from lookalike.stopwatch import STAGES

DEFAULT_LIMIT = 10

Limit = Annotated[
    int,
    Field(
        strict=True,
        description="How many items to return: 1 to the service's largest (`LOOKALIKE_MAX_RESULTS`).",
        json_schema_extra={"minimum": 1},
    ),
]

_RESULT: dict[str, Any] = {
    "id": "animals/cat.jpg",
    "score": 0.312407,
    "metadata": {"path": "animals/cat.jpg", "caption": "a cat on a sofa", "width": 640, "height": 480},
    "thumbnail_url": "/v1/items/animals%2Fcat.jpg/thumbnail",
}
_SOURCE: dict[str, Any] = {"collection": "images", "version": "20260101T120000Z-1a2b3c", "encoder": "lite"}
_TOOK_MS: dict[str, Any] = {
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


_URL = "The image's URL, http or https, where the service fetches images (`LOOKALIKE_URLS`)."


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


Positive = Annotated[int, Field(strict=True, ge=1)]


class Params(_Request):
    """How thoroughly to search. Absent values stay as they were tuned when the collection was built."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"nprobe": 64, "candidates": 400}]})

    nprobe: Positive | None = Field(default=None, description="Lists to search, for an IVF index.")
    ef_search: Positive | None = Field(
        default=None,
        alias="efSearch",
        description="Rows to keep as candidates, for an HNSW index; at most `LOOKALIKE_MAX_CANDIDATES`.",
    )
    candidates: Positive | None = Field(
        default=None, description="Rows to re-rank exactly; at most `LOOKALIKE_MAX_CANDIDATES`."
    )
    exact: StrictBool = Field(default=False, description="Compare with every vector instead of using the index.")


class _Search(_Request):
    limit: Limit = DEFAULT_LIMIT
    filter: Filter | None = Field(default=None, description="Which items may be found, by their metadata.")
    params: Params | None = None

    @property
    def options(self) -> SearchOptions:
        """The options of the library."""
        return options_of(self.limit, self.filter, self.params)


class TextSearch(_Search):
    """Search by text."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text": "a cat on a sofa", "limit": 10},
                {"text": "a red shoe", "filter": {"must": [{"field": "price", "range": {"lt": 50}}]}},
            ]
        }
    )

    text: str = Field(description="What to look for, in words.")


class ImageSearch(_Search):
    """Search by image, as JSON."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"image": "data:image/png;base64,iVBORw0", "limit": 10},
                {"url": "https://example.com/cat.jpg", "limit": 10},
            ]
        }
    )

    image: str | None = Field(default=None, description="The image file, base64 or a base64 data URI.")
    url: str | None = Field(default=None, description=_URL)

    @model_validator(mode="after")
    def _exactly_one(self) -> ImageSearch:
        if (self.image is None) == (self.url is None):
            raise ValueError("give exactly one of image and url")
        return self

    @property
    def image_source(self) -> Base64Image | ImageUrl:
        """The image to search by."""
        return ImageUrl(self.url) if self.url is not None else Base64Image(self.image or "")


class ItemSearch(_Search):
    """More like an item of the collection."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "animals/cat.jpg", "limit": 10}]})

    id: str = Field(description="The item's id.")


OPTIONS = ("limit", "filter", "params")


def parse_options(fields: Mapping[str, str | None]) -> SearchOptions:
    """Parse options from the text fields of a form or a query string; filter and params are JSON.

    Raises:
        InvalidLimit, FilterInvalid, RequestError: a field is invalid.
    """
    limit = parse_whole("limit", fields["limit"], DEFAULT_LIMIT)
    filter_json, params_json = fields["filter"], fields["params"]
    try:
        params = Params.model_validate_json(params_json) if params_json else None
    except ValidationError as error:
        raise RequestError(f"params: {validation_error(error)}") from error
    return options_of(limit, parse_filter(filter_json) if filter_json else None, params)


def options_of(limit: int, condition: Filter | None, params: Params | None) -> SearchOptions:
    """Return a request's options as those of the library."""
    index_params = {} if params is None else params.model_dump(exclude={"exact"}, exclude_none=True, by_alias=True)
    return SearchOptions(limit, condition, index_params or None, params is not None and params.exact)


class Side(_Request):
    """One side of a comparison: exactly one of the four."""

    image: str | None = Field(default=None, description="An image file, base64 or a base64 data URI.")
    text: str | None = Field(default=None, description="A text.")
    id: str | None = Field(default=None, description="An item of the collection.")
    url: str | None = Field(default=None, description=_URL)

    @model_validator(mode="after")
    def _exactly_one(self) -> Side:
        if sum(value is not None for value in (self.image, self.text, self.id, self.url)) != 1:
            raise ValueError("give exactly one of image, text, id and url")
        return self

    @property
    def image_source(self) -> Base64Image | ImageUrl | None:
        """The image, None for a text or an item."""
        if self.url is not None:
            return ImageUrl(self.url)
        return None if self.image is None else Base64Image(self.image)


class SimilarityRequest(_Request):
    """Two sides to compare."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"a": {"id": "animals/cat.jpg"}, "b": {"text": "a cat"}, "threshold": 0.75}]}
    )

    a: Side
    b: Side
    threshold: float | None = Field(
        default=None,
        strict=True,
        ge=0,
        le=2,
        description="Cosine distance up to which the two are similar; the encoder's own if absent.",
    )


class TookMs(BaseModel):
    """Milliseconds by stage; 0 for a stage that the query did not need. `total` starts when the body has arrived.

    Two inputs pass the stages at the same time: each stage is that of the slower one.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_TOOK_MS]})

    decode: float
    preprocess: float
    wait: float = Field(description="For the encoder, while it processed other queries.")
    encode: float = Field(description="Of the batch that the query was in.")
    filter: float
    search: float
    rerank: float
    metadata: float
    total: float


class _Source(BaseModel):
    collection: str = Field(description="The collection's name.")
    version: str = Field(description="The version of the collection that was searched.")
    encoder: str = Field(description="The encoder's name.")


class Result(BaseModel):
    """One search result."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RESULT]})

    id: str
    score: float = Field(
        description="Exact cosine similarity in [-1, 1]; the same image scores 1.0, less what bf16 rounds (1e-4).",
        ge=-1,
        le=1,
    )
    metadata: dict[str, Any] = Field(description="The item's metadata; absent values are left out.")
    thumbnail_url: str | None = Field(description="The URL of its thumbnail; null where it has none.")


class SearchResponse(_Source):
    """Search results, best first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"results": [_RESULT], "took_ms": _TOOK_MS, **_SOURCE}]})

    results: list[Result]
    took_ms: TookMs


class SimilarityResponse(_Source):
    """Two sides compared."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "cosine": 0.9017,
                    "distance": 0.0983,
                    "threshold": 0.3,
                    "similar": True,
                    "probability": 0.96,
                    "kinds": ["image", "image"],
                    "took_ms": _TOOK_MS,
                    **_SOURCE,
                }
            ]
        }
    )

    cosine: float = Field(ge=-1, le=1)
    distance: float = Field(ge=0, le=2, description="1 - cosine.")
    threshold: float = Field(description="The distance up to which they are similar.")
    similar: bool = Field(description="Whether distance <= threshold.")
    probability: float | None = Field(
        ge=0,
        le=1,
        description="Probability that a and b belong together, if half of all pairs do; null where the encoder was not "
        "calibrated for such a pair.",
    )
    kinds: tuple[Literal["image", "text"], Literal["image", "text"]] = Field(
        description="What a and b were; an item of the collection counts as an image."
    )
    took_ms: TookMs


class Item(BaseModel):
    """One item of the collection."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{name: _RESULT[name] for name in ("id", "metadata", "thumbnail_url")}]}
    )

    id: str
    metadata: dict[str, Any]
    thumbnail_url: str | None


class ItemResponse(Item, _Source):
    """One item, with its collection."""


class ItemsResponse(_Source):
    """A range of the collection's items, in row order."""

    items: list[Item]
    offset: int
    total: int = Field(description="How many items the collection holds.")


class Failure(BaseModel):
    """Why a version was refused."""

    code: str = Field(description="As in a problem document.")
    detail: str
    version: str | None = Field(description="The version that was refused, if it is known.")


_COLLECTION: dict[str, Any] = {
    "name": "gallery",
    "version": "20260101T000000Z-a1b2c3",
    "items": 24,
    "encoder": "lite",
    "text": True,
    "created": "2026-01-01T00:00:00Z",
    "swaps": 0,
    "failure": None,
}


class CollectionResponse(BaseModel):
    """A collection of the service. While it is closed, what needs an open version is null; it opens on first use."""

    model_config = ConfigDict(json_schema_extra={"examples": [_COLLECTION]})

    name: str = Field(description="Its folder's name.")
    version: str | None = Field(description="The version that is served.")
    items: int | None = Field(description="How many items it holds.")
    encoder: str | None
    text: bool | None = Field(description="Whether the encoder supports text queries.")
    created: str | None = Field(description="When the version was built.")
    swaps: int = Field(description="How often a version has been replaced since the service started.")
    failure: Failure | None = Field(description="Why the newest version is not served; null if it is.")


class CollectionsResponse(BaseModel):
    """All collections of the service."""

    collections: list[CollectionResponse]


class StageStats(BaseModel):
    """Times of a stage, ms, of the last 1,000 queries that needed it."""

    count: int
    p50: float
    p90: float
    p99: float
    mean: float


class StatsResponse(BaseModel):
    """Times by stage; a stage that no query has needed is left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"stages": {"encode": {"count": 1000, "p50": 3.6, "p90": 4.4, "p99": 7.1, "mean": 3.8}}}]
        }
    )

    stages: dict[str, StageStats]


class Alive(BaseModel):
    """The process responds."""

    status: Literal["ok"] = "ok"


class Ready(_Source):
    """The service answers queries."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ready", "items": 24, "text": True, **_SOURCE}]}
    )

    status: Literal["ready"] = "ready"
    items: int = Field(description="How many items the collection holds.")
    text: bool = Field(description="Whether the encoder supports text queries.")


class FieldError(BaseModel):
    """An error of one field."""

    field: str
    message: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:lookalike:error:unknown_item",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "no item has the id 'animals/dog.jpg' in this collection",
                    "instance": "/v1/items/animals/dog.jpg",
                    "code": "unknown_item",
                }
            ]
        }
    )

    type: str = Field(description="`urn:lookalike:error:` and the code.")
    title: str
    status: int
    detail: str = Field(description="What is wrong, with the offending value, and the fix.")
    instance: str = Field(description="The path of the request.")
    code: str = Field(description="Stable; docs/guides/search-from-code.md lists them.")
    errors: list[FieldError] | None = None


assert tuple(TookMs.model_fields) == (*STAGES, "total")

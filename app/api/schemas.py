"""The wire: what requests and answers look like, each with an example for /docs.

Requests are validated by these models. Answers are written straight from the library's records, which these models
describe; a test validates real answers against them.
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
_TOOK: dict[str, Any] = {
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
    """How thoroughly to search; what is absent stays as it was tuned when the collection was built."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"nprobe": 64, "candidates": 400}]})

    nprobe: Positive | None = Field(default=None, description="Lists to visit, where the index is made of lists.")
    ef_search: Positive | None = Field(
        default=None,
        alias="efSearch",
        description="Rows to keep in sight, where the index is a graph; at most `LOOKALIKE_MAX_CANDIDATES`.",
    )
    candidates: Positive | None = Field(
        default=None, description="Rows to re-rank exactly; at most `LOOKALIKE_MAX_CANDIDATES`."
    )
    exact: StrictBool = Field(default=False, description="Compare with every vector instead of asking the index.")


class _Search(_Request):
    limit: Limit = DEFAULT_LIMIT
    filter: Filter | None = Field(default=None, description="Which items may be found, by their metadata.")
    params: Params | None = None

    @property
    def options(self) -> SearchOptions:
        """As the library takes them."""
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
        """What to search by."""
        return ImageUrl(self.url) if self.url is not None else Base64Image(self.image or "")


class ItemSearch(_Search):
    """More like an item of the collection."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "animals/cat.jpg", "limit": 10}]})

    id: str = Field(description="The item's id.")


OPTIONS = ("limit", "filter", "params")


def parse_options(fields: Mapping[str, str | None]) -> SearchOptions:
    """Options from the text fields of a form or a query string; filter and params are JSON.

    Raises:
        InvalidLimit, FilterInvalid, RequestError: as their names say.
    """
    limit = parse_whole("limit", fields["limit"], DEFAULT_LIMIT)
    wanted, params = fields["filter"], fields["params"]
    try:
        asked = Params.model_validate_json(params) if params else None
    except ValidationError as error:
        raise RequestError(f"params: {validation_error(error)}") from error
    return options_of(limit, parse_filter(wanted) if wanted else None, asked)


def options_of(limit: int, wanted: Filter | None, params: Params | None) -> SearchOptions:
    """A request's options as the library takes them."""
    given = {} if params is None else params.model_dump(exclude={"exact"}, exclude_none=True, by_alias=True)
    return SearchOptions(limit, wanted, given or None, params is not None and params.exact)


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
        """The image that it is, None for a text or an item."""
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
    """Milliseconds by stage; one that this query did not need is 0. `total` starts when the body has arrived.

    Of two inputs, which go through the stages at once, each stage is the slower one's.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_TOOK]})

    decode: float
    preprocess: float
    wait: float = Field(description="For the encoder, while it worked for others.")
    encode: float = Field(description="Of the batch that the query was in.")
    filter: float
    search: float
    rerank: float
    metadata: float
    total: float


class _Source(BaseModel):
    collection: str = Field(description="The collection's name.")
    version: str = Field(description="The version of the collection that answered.")
    encoder: str = Field(description="The encoder's name.")


class Result(BaseModel):
    """One item found."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RESULT]})

    id: str
    score: float = Field(
        description="Exact cosine similarity in [-1, 1]; the same image scores 1.0, less what bf16 rounds (1e-4).",
        ge=-1,
        le=1,
    )
    metadata: dict[str, Any] = Field(description="What the collection knows of the item; absent values are left out.")
    thumbnail_url: str | None = Field(description="Where its thumbnail is; null where it has none.")


class SearchResponse(_Source):
    """Items found, best first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"results": [_RESULT], "took_ms": _TOOK, **_SOURCE}]})

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
                    "took_ms": _TOOK,
                    **_SOURCE,
                }
            ]
        }
    )

    cosine: float = Field(ge=-1, le=1)
    distance: float = Field(ge=0, le=2, description="1 - cosine.")
    threshold: float = Field(description="The distance that decided.")
    similar: bool = Field(description="Whether distance <= threshold.")
    probability: float | None = Field(
        ge=0,
        le=1,
        description="That a and b belong together, were half of all pairs to; null where the encoder was not "
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
    """One item, and where it was found."""


class ItemsResponse(_Source):
    """A range of the collection's items, in row order."""

    items: list[Item]
    offset: int
    total: int = Field(description="How many items the collection holds.")


class Failure(BaseModel):
    """Why a version was refused."""

    code: str = Field(description="As in a problem document.")
    detail: str
    version: str | None = Field(description="The version that was refused, where it is known.")


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
    """A collection of the service; what needs an open version is null while it is closed: it opens on first use."""

    model_config = ConfigDict(json_schema_extra={"examples": [_COLLECTION]})

    name: str = Field(description="Its folder's name.")
    version: str | None = Field(description="The version that answers.")
    items: int | None = Field(description="How many items it holds.")
    encoder: str | None
    text: bool | None = Field(description="Whether the encoder takes text queries.")
    created: str | None = Field(description="When the version was made.")
    swaps: int = Field(description="How often a version has been replaced since the service started.")
    failure: Failure | None = Field(description="Why the newest version is not served; null while all is well.")


class CollectionsResponse(BaseModel):
    """All collections of the service."""

    collections: list[CollectionResponse]


class StageStats(BaseModel):
    """Of the last 1,000 queries that needed a stage: how many, and what it took, ms."""

    count: int
    p50: float
    p90: float
    p99: float
    mean: float


class StatsResponse(BaseModel):
    """What each stage takes; one that no query needed yet is left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"stages": {"encode": {"count": 1000, "p50": 3.6, "p90": 4.4, "p99": 7.1, "mean": 3.8}}}]
        }
    )

    stages: dict[str, StageStats]


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(_Source):
    """The service answers queries."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ready", "items": 24, "text": True, **_SOURCE}]}
    )

    status: Literal["ready"] = "ready"
    items: int = Field(description="How many items the collection holds.")
    text: bool = Field(description="Whether the encoder takes text queries.")


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(BaseModel):
    """Every error, as RFC 9457 has it."""

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
    detail: str = Field(description="What is wrong, with the offending value, and the mend.")
    instance: str = Field(description="The path that was asked for.")
    code: str = Field(description="Stable; docs/api.md lists them.")
    errors: list[FieldError] | None = None


assert tuple(TookMs.model_fields) == (*STAGES, "total")

"""Models of requests and responses, with examples for /docs.

Requests are validated by these models. Responses are written straight from the library's records; a test validates
them against these models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from app.api.request_bodies import Base64Image, ImageUrl
from lookalike.encoders.lite.abilities import LANGUAGES, LIMITS
from lookalike.filters import Filter
from lookalike.row_search import SearchOptions
from lookalike.stopwatch import STAGES

DEFAULT_LIMIT = 10
MAX_FIELDS = 10_000

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
    "metadata": {"path": "chelsea.png", "caption": "chelsea", "width": 451, "height": 300, "format": "PNG"},
    "thumbnail_url": f"/v1/items/chelsea.png/thumbnail?v={_VERSION}",
}
_SOURCE: dict[str, Any] = {"collection": "my-collection", "version": _VERSION, "encoder": "lite"}
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


_DATA_URI = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQMAAAD+wSzIAAAAA1BMVEXIUCi3yA+MAAAAC0lEQVR42mNgQAUAABAAAaoZ+IIAAAAASUVORK5CYII="
)
_URL = "An http or https URL of the image, if the service fetches images (`LOOKALIKE_URLS`)."
_METADATA = "The item's columns as they were indexed, without those that have no value."
_THUMBNAIL = "URL of the thumbnail, relative to the service; null if the item has none."


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


Positive = Annotated[int, Field(strict=True, ge=1)]


class Params(_Request):
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


class Search(_Request):
    """The options of every search."""

    limit: Limit = DEFAULT_LIMIT
    filter: Filter | None = Field(default=None, description="Only items whose metadata passes are found.")
    params: Params | None = Field(default=None, description="How thoroughly to search.")
    fields: Fields | None = Field(default=None, description="Metadata columns of the results; all by default.")

    @property
    def options(self) -> SearchOptions:
        """The options of the library."""
        params = self.params or Params()
        index_params = params.model_dump(exclude={"exact"}, exclude_none=True, by_alias=True)
        fields = None if self.fields is None else tuple(dict.fromkeys(self.fields))
        return SearchOptions(self.limit, self.filter, index_params or None, params.exact, fields)


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
                    "image": _DATA_URI,
                    "limit": 2,
                },
                {"url": "https://example.com/cat.jpg", "limit": 2},
            ]
        }
    )

    image: str | None = Field(default=None, description="The image file as base64 or as a base64 data URI.")
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


class ItemSearch(Search):
    """A search by an item of the collection."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "chelsea.png", "limit": 2}]})

    id: str = Field(description="Id of the item.")


class Side(_Request):
    """One side of a pair, with exactly one of these fields."""

    image: str | None = Field(default=None, description="An image file as base64 or as a base64 data URI.")
    text: str | None = Field(default=None, description="A text, at most `LOOKALIKE_MAX_TEXT` characters.")
    id: str | None = Field(default=None, description="Id of an item of the collection.")
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

    model_config = ConfigDict(json_schema_extra={"examples": [_TOOK_MS]})

    decode: float = Field(description="Decoding the image file.")
    preprocess: float = Field(description="Resizing and cropping the image for the encoder.")
    wait: float = Field(description="Waiting for the encoder, while it processed other queries.")
    encode: float = Field(description="Encoding the batch that the query was in.")
    filter: float = Field(description="Evaluating the filter.")
    search: float = Field(description="Searching the index.")
    rerank: float = Field(description="Comparing the candidates exactly.")
    metadata: float = Field(description="Reading the metadata of the results.")
    total: float = Field(description="From the end of the request's body to the response.")


class _Source(BaseModel):
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
    metadata: dict[str, Any] = Field(description=_METADATA)
    thumbnail_url: str | None = Field(description=_THUMBNAIL)


class SearchResponse(_Source):
    """The results of a search."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"results": [_RESULT], "truncated_tokens": 0, "took_ms": _TOOK_MS, **_SOURCE}]}
    )

    results: list[Result] = Field(description="At most `limit` items, best first.")
    truncated_tokens: int = Field(
        ge=0, description="Number of tokens at the end of the text that the encoder did not read; 0 for images."
    )
    took_ms: TookMs = Field(description="Milliseconds by stage.")


class SimilarityResponse(_Source):
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
                    "took_ms": _TOOK_MS,
                    **_SOURCE,
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


class ItemResponse(Item, _Source):
    """One item of the collection."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_ITEM, **_SOURCE}]})


class ItemsResponse(_Source):
    """A page of the collection's items, in the order of their rows."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_ITEM], "offset": 0, "total": 24, **_SOURCE}]})

    items: list[Item] = Field(description="At most `limit` items.")
    offset: int = Field(description="Number of items that were skipped.")
    total: int = Field(description="Number of items of the collection.")


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


class Ready(_Source):
    """Queries succeed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ready", "items": 24, "text": True, **_SOURCE}]}
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


assert tuple(TookMs.model_fields) == (*STAGES, "total")

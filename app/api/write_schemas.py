"""Schemas of writes: bodies are validated with them, responses are described by them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.request_bodies import Base64Image, ImageUrl
from app.api.schemas import DATA_URI, EXAMPLE_SOURCE, IMAGE_URL, Finite, RequestModel, SourceModel
from lookalike.filters import Filter

MAX_OPERATIONS = 1_000
_EXAMPLE_METADATA: dict[str, Any] = {"brand": "acme", "price": 49.9}
_TAG = '"d41d8cd98f00b204e9800998"'

Metadata = Annotated[
    dict[str, Any],
    Field(
        description="Values by column: texts, numbers, booleans, lists and objects. A value must fit its column's "
        "type; an unknown name becomes a new column."
    ),
]


class _WrittenItem(RequestModel):
    """What an item is made of: exactly one of `image`, `url` and `embedding`."""

    image: str | None = Field(default=None, description="An image file as base64 or as a base64 data URI.")
    url: str | None = Field(default=None, description=IMAGE_URL)
    embedding: Annotated[list[Finite], Field(max_length=65_536, fail_fast=True)] | None = Field(
        default=None,
        description="An embedding of the collection's encoder, instead of an image. It is scaled to unit norm.",
    )

    @property
    def image_source(self) -> Base64Image | ImageUrl | None:
        """The image, None for an embedding."""
        if self.url is not None:
            return ImageUrl(self.url)
        return None if self.image is None else Base64Image(self.image)

    def require_one(self) -> None:
        """Check that exactly one is given. Raises ValueError."""
        names = ("image", "url", "embedding")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(names)}; it has {' and '.join(given) or 'none'}")


class PutItem(_WrittenItem):
    """An item to add, or to put in place of the one with its id."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"image": DATA_URI, "metadata": _EXAMPLE_METADATA}]})

    metadata: Metadata = Field(default={})

    @model_validator(mode="after")
    def _exactly_one(self) -> PutItem:
        self.require_one()
        return self


class PatchItem(RequestModel):
    """Metadata to merge into an item's."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"metadata": {"price": 39.9, "brand": None}}]})

    metadata: Metadata


class WriteOperation(_WrittenItem):
    """One operation of a batch. A put has exactly one of `image`, `url` and `embedding`; a patch has `metadata`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"op": "patch", "id": "chelsea.png", "metadata": {"price": 39.9}}]}
    )

    op: Literal["put", "patch", "delete"] = Field(description="What to do with the item.")
    id: str = Field(description="Id of the item.")
    metadata: Metadata | None = Field(default=None)
    if_match: str | None = Field(default=None, description="Like the header `If-Match`.")
    if_none_match: str | None = Field(default=None, description="Like the header `If-None-Match`.")

    @model_validator(mode="after")
    def _complete(self) -> WriteOperation:
        if self.op == "put":
            self.require_one()
        elif self.image is not None or self.url is not None or self.embedding is not None:
            raise ValueError(f"a {self.op} has no image, url or embedding")
        if self.op == "patch" and self.metadata is None:
            raise ValueError("a patch needs metadata")
        if self.op == "delete" and self.metadata is not None:
            raise ValueError("a delete has no metadata")
        return self


class WriteBatch(RequestModel):
    """Several operations."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "operations": [
                        {"op": "put", "id": "shoes/red.jpg", "image": DATA_URI, "metadata": _EXAMPLE_METADATA},
                        {"op": "patch", "id": "chelsea.png", "metadata": {"price": 39.9}},
                    ]
                }
            ]
        }
    )

    operations: list[Any] = Field(
        description=f"At most {MAX_OPERATIONS:,} operations, applied in order.",
        json_schema_extra={"items": {"$ref": "#/components/schemas/WriteOperation"}},
    )

    @model_validator(mode="after")
    def _bounded(self) -> WriteBatch:
        if not 1 <= len(self.operations) <= MAX_OPERATIONS:
            raise ValueError(f"operations: {len(self.operations):,} operations; a batch has 1 to {MAX_OPERATIONS:,}")
        return self


class DeleteItems(RequestModel):
    """Which items to delete."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"filter": {"must": [{"field": "brand", "equals": "acme"}]}, "dry_run": True}]}
    )

    filter: Filter = Field(description="The items that pass it are deleted. It has at least one condition.")
    dry_run: bool = Field(default=False, description="Whether to count the items only.")


def _written(result: str) -> dict[str, Any]:
    """Return the example of an item after it was written."""
    item = {
        "id": "shoes/red.jpg",
        "result": result,
        "etag": _TAG,
        "metadata": {"width": 640, "height": 480, "format": "JPEG", **_EXAMPLE_METADATA},
        "thumbnail_url": "/v1/items/shoes/red.jpg/thumbnail?v=20260101T120000Z-1a2b3c.1",
    }
    return {"examples": [{**item, **EXAMPLE_SOURCE}]}


class _WrittenItemResponse(SourceModel):
    """An item after it was written."""

    id: str = Field(description="Id of the item.")
    etag: str = Field(description="The item's `ETag`.")
    metadata: dict[str, Any] = Field(description="The item's metadata.")
    thumbnail_url: str | None = Field(description="URL of the thumbnail; null if there is none.")


class CreatedResponse(_WrittenItemResponse):
    """An item after it was added."""

    model_config = ConfigDict(json_schema_extra=_written("created"))

    result: Literal["created"] = Field(description="What became of the item.")


class ReplacedResponse(_WrittenItemResponse):
    """An item after it was replaced."""

    model_config = ConfigDict(json_schema_extra=_written("replaced"))

    result: Literal["replaced"] = Field(description="What became of the item.")


class PatchedResponse(_WrittenItemResponse):
    """An item after its metadata was changed."""

    model_config = ConfigDict(json_schema_extra=_written("patched"))

    result: Literal["patched"] = Field(description="What became of the item.")


class DeletedResponse(SourceModel):
    """An item after it was deleted."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "chelsea.png", "result": "deleted", "etag": None, **EXAMPLE_SOURCE}]}
    )

    id: str = Field(description="Id of the item.")
    result: Literal["deleted"] = Field(description="What became of the item.")
    etag: None = Field(description="Null.")


class WriteResult(BaseModel):
    """What became of one operation."""

    id: str = Field(description="Id of the item.")
    result: Literal["created", "replaced", "patched", "deleted"] = Field(description="What became of the item.")
    etag: str | None = Field(description="The item's `ETag`; null of a deleted one.")


class WriteCounts(BaseModel):
    """Numbers of operations by what became of them."""

    created: int = Field(description="Items that were added.")
    replaced: int = Field(description="Items that were replaced.")
    patched: int = Field(description="Items whose metadata was changed.")
    deleted: int = Field(description="Items that were deleted.")
    failed: int = Field(description="Operations that changed nothing.")


class WriteBatchResponse(SourceModel):
    """What became of the operations of a batch."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "results": [{"id": "shoes/red.jpg", "result": "created", "etag": _TAG}],
                    "counts": {"created": 1, "replaced": 0, "patched": 0, "deleted": 0, "failed": 0},
                    **EXAMPLE_SOURCE,
                }
            ]
        }
    )

    results: list[WriteResult | dict[str, Any]] = Field(
        description="For each operation, in order, its result, or the id and the problem document of its error.",
        json_schema_extra={
            "items": {"anyOf": [{"$ref": "#/components/schemas/WriteResult"}, {"$ref": "#/components/schemas/Problem"}]}
        },
    )
    counts: WriteCounts = Field(description="How many operations had which result.")


class DeleteItemsResponse(SourceModel):
    """How many items a filter has deleted."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"count": 3, "dry_run": True, **EXAMPLE_SOURCE}]})

    count: int = Field(description="Number of items that passed the filter.")
    dry_run: bool = Field(description="Whether they were only counted.")

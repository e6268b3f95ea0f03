"""Writes that callers give: what `write_items` takes, as the service takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lookalike_client.images import ImageInput, as_base64, image_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Add an item, or replace it. Give exactly one of `image`, `image_url` and `embedding`.

    Attributes:
        id: id of the item.
        image: an image; a `str` is the path of its file.
        image_url: URL of an image that the service fetches, if it is configured so.
        embedding: an embedding of the collection's encoder, for an item without an image.
        metadata: values by column.
        if_match: replace the item only if it has this `etag`; `*` for any item that exists.
        if_none_match: `*` to write only if there is no such item.
    """

    id: str
    image: ImageInput | None = None
    image_url: str | None = None
    embedding: Sequence[float] | None = None
    metadata: Mapping[str, Any] | None = None
    if_match: str | None = None
    if_none_match: str | None = None

    def __post_init__(self) -> None:
        names = ("image", "image_url", "embedding")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(names)}, not {' and '.join(given) or 'none'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Change some of an item's metadata: values by column, None to remove one (JSON Merge Patch, RFC 7396).

    Attributes:
        id: id of the item.
        metadata: the changes.
        if_match: change the item only if it has this `etag`.
    """

    id: str
    metadata: Mapping[str, Any]
    if_match: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Remove an item.

    Attributes:
        id: id of the item.
        if_match: remove the item only if it has this `etag`.
    """

    id: str
    if_match: str | None = None


Operation = Put | Patch | Delete | Mapping[str, Any]
"""A write, or a dict of its arguments with the name of its kind, such as `{"op": "delete", "id": "cat.jpg"}`."""

_KINDS: Mapping[str, type[Put] | type[Patch] | type[Delete]] = {"put": Put, "patch": Patch, "delete": Delete}


def as_operation(given: Operation) -> Put | Patch | Delete:
    """Return an operation. Raises ValueError and TypeError for a dict that is none."""
    if not isinstance(given, Mapping):
        return given
    arguments = dict(given)
    name = arguments.pop("op", None)
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"op is {name!r}; it must be one of {', '.join(_KINDS)}")
    return kind(**arguments)


def loaded(given: Operation) -> Put | Patch | Delete:
    """Return an operation with the bytes of its image; raises as `as_operation` and `image_bytes` do."""
    operation = as_operation(given)
    if isinstance(operation, Put) and operation.image is not None:
        return replace(operation, image=image_bytes(operation.image))
    return operation


def operation_body(operation: Put | Patch | Delete) -> dict[str, Any]:
    """Return an operation in JSON; raises as `image_bytes` does."""
    name = type(operation).__name__.lower()
    return {"op": name, "id": operation.id, **content(operation), **conditions(operation)}


def content(operation: Put | Patch | Delete) -> dict[str, Any]:
    """Return what an operation writes, in JSON."""
    if isinstance(operation, Delete):
        return {}
    if isinstance(operation, Patch):
        return {"metadata": dict(operation.metadata)}
    body: dict[str, Any] = {} if operation.metadata is None else {"metadata": dict(operation.metadata)}
    if operation.image is not None:
        body["image"] = as_base64(operation.image)
    elif operation.image_url is not None:
        body["url"] = operation.image_url
    elif operation.embedding is not None:
        body["embedding"] = [float(value) for value in operation.embedding]
    return body


def conditions(operation: Put | Patch | Delete) -> dict[str, str]:
    """Return the conditions of an operation, by their names in JSON."""
    given = {"if_match": operation.if_match, "if_none_match": getattr(operation, "if_none_match", None)}
    return {name: value for name, value in given.items() if value is not None}


def is_repeatable(operation: Put | Patch | Delete) -> bool:
    """Return whether an operation that may have taken effect can be sent again with the same outcome.

    Puts and merge patches leave the same item however often they are sent. A deletion would then report that there is
    no such item, although it removed it. A condition on the item before fails on the item after: after a lost
    connection, only the caller can find out whether the item is the one that was sent.
    """
    return not isinstance(operation, Delete) and not conditions(operation)

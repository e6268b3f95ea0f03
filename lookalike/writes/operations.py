"""What a client asks a writer for, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lookalike.errors import LookalikeError, PreconditionFailed
from lookalike.types import Float32


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must hold of an item before it is written (RFC 9110, section 13.1).

    Attributes:
        if_match: tags of which the item must have one; `*` for any item; None for no condition.
        if_none_match: tags of which the item must have none; `*` if there must be no item; None for no condition.
    """

    if_match: frozenset[str] | None = None
    if_none_match: frozenset[str] | None = None

    def check(self, item_id: str, tag: str | None) -> None:
        """Check the conditions on an item with this tag, None where there is no item. Raises PreconditionFailed."""
        if self.if_match is not None and (tag is None or not self.if_match & {tag, "*"}):
            now = f"its ETag is {tag} now; get it again" if tag else "it does not exist"
            raise PreconditionFailed(f"If-Match does not hold for item {item_id!r}: {now}")
        if self.if_none_match is not None and tag is not None and self.if_none_match & {tag, "*"}:
            raise PreconditionFailed(f"If-None-Match does not hold: item {item_id!r} exists; its ETag is {tag}")


@dataclass(frozen=True, slots=True)
class Put:
    """Add an item, or replace it.

    Attributes:
        id: any text; a new item's must be valid.
        vector: (d,) float32 of unit norm.
        metadata: JSON values by column.
        measured: columns that were measured on the image.
        thumbnail: image bytes; None without one.
        content_hash: of the image file, 16 bytes; None where it is unknown.
        precondition: of the write.
    """

    id: str
    vector: Float32
    metadata: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    thumbnail: bytes | None = None
    content_hash: bytes | None = None
    precondition: Precondition = Precondition()


@dataclass(frozen=True, slots=True)
class Patch:
    """Merge metadata into an item's (RFC 7396): None removes a value."""

    id: str
    metadata: Mapping[str, Any]
    precondition: Precondition = Precondition()


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an item."""

    id: str
    precondition: Precondition = Precondition()


Operation = Put | Patch | Delete
Result = Literal["created", "replaced", "patched", "deleted"]


@dataclass(frozen=True, slots=True)
class Written:
    """A write that is on the disk.

    Attributes:
        id: of the item.
        result: what became of the item.
        tag: the item's ETag; None of a deleted one.
        record: the item's JSON-ready metadata with its id; None of a deleted one.
    """

    id: str
    result: Result
    tag: str | None
    record: Mapping[str, Any] | None = field(default=None, repr=False)


Outcome = Written | LookalikeError

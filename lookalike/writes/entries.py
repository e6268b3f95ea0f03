"""The last write of an item, as the log keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

EntryKind = Literal["put", "patch", "delete"]


@dataclass(frozen=True, slots=True)
class Entry:
    """The last write of an item.

    Attributes:
        id: of the item.
        number: of the write; ascending, at least 1.
        kind: what the write leaves: the whole item, other metadata of an item that a version holds, or no item.
        is_own: whether a write made the item, so that no source holds it.
        metadata: of a put, the whole record without the id; of a patch, the columns that writes changed, with their
            new values, None for no value. JSON values.
        vector: of a put, d float16 as bytes; None once a version holds the item, like the next two.
        thumbnail: image bytes; None without one.
        content_hash: of the image file, 16 bytes; None where it is unknown.
    """

    id: str
    number: int
    kind: EntryKind
    is_own: bool
    metadata: Mapping[str, Any]
    vector: bytes | None = None
    thumbnail: bytes | None = None
    content_hash: bytes | None = None


def merged(value: Any, patch: Any) -> Any:
    """Return a JSON value with a merge patch applied (RFC 7396, section 2): null removes a member.

    >>> merged({"brand": "acme", "size": {"w": 2, "h": 3}}, {"brand": None, "size": {"w": 4}, "new": True})
    {'size': {'w': 4, 'h': 3}, 'new': True}
    """
    if not isinstance(patch, Mapping):
        return patch
    result = dict(value) if isinstance(value, Mapping) else {}
    for name, change in patch.items():
        if change is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), change)
    return result

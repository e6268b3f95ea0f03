"""Items that were written since the version was built, in memory: appended to slots, which never change.

A later write of an item takes another slot. So what a query has seen stays as it is, and a view of the delta is the
number of slots and which of them are alive.

Dimension letters: m slots, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.types import Float16

_MIN_CAPACITY = 64
_SLOTS_PER_CHUNK = 1_024


@dataclass(frozen=True, slots=True)
class Slot:
    """An item as it was written.

    Attributes:
        id: of the item.
        number: of its last write.
        record: JSON-ready metadata with the id, as in responses.
        values: the same by column, typed for Arrow.
        thumbnail: image bytes; None without one.
        version_row: of an item of the version whose metadata alone was changed: it keeps its place; None for others.
        previous: the slot of the item's write before; None if there is none.
    """

    id: str
    number: int
    record: Mapping[str, Any]
    values: Mapping[str, Any]
    thumbnail: bytes | None
    version_row: int | None
    previous: int | None


@dataclass(slots=True)
class Delta:
    """The slots. One thread appends; others read up to a length that they have been given.

    Attributes:
        dim: d.
        slots: of the items.
        latest: id -> its last slot, dead or alive.
    """

    dim: int
    slots: list[Slot] = field(default_factory=list)
    latest: dict[str, int] = field(default_factory=dict)
    _vectors: Float16 = field(init=False)
    _chunks: dict[tuple[str, int, pa.DataType], pa.Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._vectors = np.empty((_MIN_CAPACITY, self.dim), np.float16)

    def __len__(self) -> int:
        return len(self.slots)

    def append(
        self,
        item_id: str,
        number: int,
        record: Mapping[str, Any],
        values: Mapping[str, Any],
        vector: Float16,
        thumbnail: bytes | None,
        version_row: int | None = None,
    ) -> int:
        """Append an item with its (d,) vector, and return its slot."""
        slot = len(self.slots)
        if slot == len(self._vectors):
            self._grow()
        self._vectors[slot] = vector
        self.slots.append(Slot(item_id, number, record, values, thumbnail, version_row, self.latest.get(item_id)))
        self.latest[item_id] = slot
        return slot

    def _grow(self) -> None:
        """Double the capacity; views keep the array that they have."""
        before = self._vectors
        self._vectors = np.empty((2 * len(before), self.dim), np.float16)
        self._vectors[: len(before)] = before

    def vectors(self, count: int) -> Float16:
        """Return the (count, d) vectors of the first slots."""
        return self._vectors[:count]

    def find(self, item_id: str, count: int) -> int | None:
        """Return the last slot of an item among the first `count`; None if none of them is the item's."""
        slot = self.latest.get(item_id)
        while slot is not None and slot >= count:
            slot = self.slots[slot].previous
        return slot

    def column(self, name: str, kind: pa.DataType, count: int) -> list[pa.Array]:
        """Return the values of a column in the first `count` slots; full chunks are kept for the next call."""
        full = count // _SLOTS_PER_CHUNK
        chunks = [self._full_chunk(name, kind, number) for number in range(full)]
        rest = self.slots[full * _SLOTS_PER_CHUNK : count]
        return [*chunks, _array(name, kind, rest)] if rest else chunks

    def _full_chunk(self, name: str, kind: pa.DataType, number: int) -> pa.Array:
        key = (name, number, kind)
        if key not in self._chunks:
            start = number * _SLOTS_PER_CHUNK
            self._chunks[key] = _array(name, kind, self.slots[start : start + _SLOTS_PER_CHUNK])
        return self._chunks[key]


def _array(name: str, kind: pa.DataType, slots: Sequence[Slot]) -> pa.Array:
    return pa.array([slot.values.get(name) for slot in slots], kind)

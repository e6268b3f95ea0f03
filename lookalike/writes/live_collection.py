"""A version of a collection and what was written since, as one collection at one moment.

Rows of the version come first, then the slots of the delta. Rows of deleted and replaced items stay, dead: `live` says
which rows are items.

Dimension letters: n rows of the version, m slots of the delta, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from typing_extensions import override

from lookalike.collection import Collection
from lookalike.metadata import ItemRecords
from lookalike.rerank import normalized_rows
from lookalike.row_sample import SAMPLE_ROWS
from lookalike.thumbnails import ThumbnailSource
from lookalike.types import Bool, Float16, Int64
from lookalike.writes.delta import Delta


@dataclass(frozen=True)
class LiveCollection(Collection):
    """A version and its delta at one moment; every method of a collection works on both.

    Attributes:
        version: the version alone.
        delta: the slots, of which the first m belong to this moment.
        version_live: (n,) bool: the rows of the version that are items, read-only; None if all of them are. It is the
            same object until a row dies, so that stores can cache their own form of it.
        slots_live: (m,) bool: the slots that are items.
        count: number of items.
        pending: number of items that were written, changed or deleted since the version was built.
        types: of all columns; the mapping may grow.
    """

    version: Collection = field(kw_only=True)
    delta: Delta = field(kw_only=True)
    version_live: Bool | None = field(kw_only=True)
    slots_live: Bool = field(kw_only=True)
    count: int = field(kw_only=True)
    pending: int = field(kw_only=True)
    types: Mapping[str, pa.DataType] = field(kw_only=True)

    @override
    def __len__(self) -> int:
        return self.count

    @property
    def slots(self) -> int:
        """M."""
        return len(self.slots_live)

    @cached_property
    def live(self) -> Bool:
        """(n + m,) bool: the rows that are items."""
        first = np.ones(len(self.version), np.bool_) if self.version_live is None else self.version_live
        return np.concatenate([first, self.slots_live])

    @cached_property
    def positions(self) -> Int64 | None:
        """(n + m,) where each row stands among the items, as after a compaction; None if in the order of rows."""
        places = [slot.version_row for slot in self.delta.slots[: self.slots]]
        if all(place is None for place in places):
            return None
        positions = np.arange(len(self.version) + self.slots)
        for slot, place in enumerate(places):
            if place is not None:
                positions[len(self.version) + slot] = place
        return positions

    @property
    @override
    def stored_vectors(self) -> StackedVectors:
        return StackedVectors(self.version.vectors, self.delta.vectors(self.slots))

    @override
    def thumbnail_version(self, row: int) -> str:
        written = row - len(self.version)
        return self.manifest.version if written < 0 else f"{self.manifest.version}.{self.delta.slots[written].number}"


def live_collection(
    version: Collection,
    version_live: Bool | None,
    delta: Delta,
    slots_live: Bool,
    types: Mapping[str, pa.DataType],
    pending: int,
) -> LiveCollection:
    """Return the collection at this moment.

    Args:
        version: the opened version.
        version_live: as the attribute.
        delta: may grow afterwards.
        slots_live: as the attribute.
        types: of all columns; the mapping may grow afterwards.
        pending: as the attribute.
    """
    slots = len(slots_live)
    stacked = StackedMetadata(version.metadata, version_live, delta, slots_live, dict(types))
    count = len(version) if version_live is None else int(np.count_nonzero(version_live))
    own = {each.name: getattr(version, each.name) for each in fields(Collection)}
    sample = version.sample
    if len(version) < SAMPLE_ROWS and slots:
        sample = np.concatenate([sample, normalized_rows(delta.vectors(min(slots, SAMPLE_ROWS - len(sample))))])
    return LiveCollection(
        **own
        | {
            "metadata": stacked,
            "thumbnails": StackedThumbnails(version.thumbnails, delta, len(version)),
            "sample": sample,
        },
        version=version,
        delta=delta,
        version_live=version_live,
        slots_live=slots_live,
        count=count + int(np.count_nonzero(slots_live)),
        pending=pending,
        types=types,
    )


class StackedVectors:
    """The (n, d) vectors of a version and the (m, d) of its delta, by row."""

    def __init__(self, version: Float16, delta: Float16) -> None:
        self._version, self._delta = version, delta
        self.shape = (len(version) + len(delta), version.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Int64 | Sequence[int]) -> Float16:
        """Return the (r, d) vectors of rows."""
        chosen = np.asarray(rows, np.int64)
        split = len(self._version)
        written = chosen >= split
        if not written.any():
            return np.asarray(self._version[chosen])
        found = np.empty((len(chosen), self.shape[1]), np.float16)
        found[~written] = self._version[chosen[~written]]
        found[written] = self._delta[chosen[written] - split]
        return found


class ExtendedColumns:
    """The (n,) columns of a version, and those that only written items have, which hold nothing here."""

    def __init__(self, metadata: ItemRecords, types: Mapping[str, pa.DataType]) -> None:
        """`types` are those of all columns; the mapping may grow."""
        self._metadata, self._types = metadata, types

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._types)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return the (n,) values of a column."""
        if name in self._metadata.columns:
            found, kind = self._metadata.column(name), self._types[name]
            return found if found.type == kind else found.cast(kind)
        return pa.chunked_array([pa.nulls(len(self._metadata), self._types[name])])

    def __len__(self) -> int:
        return len(self._metadata)


class DeltaColumns:
    """The (m,) columns of a delta."""

    def __init__(self, delta: Delta, count: int, types: Mapping[str, pa.DataType]) -> None:
        self._delta, self._count, self._types = delta, count, types

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._types)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return the (m,) values of a column."""
        return pa.chunked_array(self._delta.column(name, self._types[name], self._count), self._types[name])

    def __len__(self) -> int:
        return self._count


class StackedMetadata(ItemRecords):
    """The metadata of a version and its delta, by row. Dead rows are found by their row, and not by their id."""

    def __init__(
        self,
        version: ItemRecords,
        version_live: Bool | None,
        delta: Delta,
        slots_live: Bool,
        types: dict[str, pa.DataType],
    ) -> None:
        self._version, self._version_live = version, version_live
        self._stored, self._written = ExtendedColumns(version, types), DeltaColumns(delta, len(slots_live), types)
        self._delta, self._slots, self._slots_live = delta, len(slots_live), slots_live
        self._types = types
        self._version_columns = frozenset(version.columns)

    @override
    def __len__(self) -> int:
        return len(self._version) + self._slots

    @property
    @override
    def columns(self) -> list[str]:
        return list(self._types)

    @override
    def column(self, name: str) -> pa.ChunkedArray:
        chunks = [*self._stored.column(name).chunks, *self._written.column(name).chunks]
        return pa.chunked_array(chunks, self._types[name])

    @override
    def column_type(self, name: str) -> pa.DataType:
        return self._types[name]

    @override
    def records(self, rows: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        split = len(self._version)
        stored = None if columns is None else [name for name in columns if name in self._version_columns]
        found = iter(self._version.records([row for row in rows if row < split], stored))
        return [next(found) if row < split else self._written_record(row - split, columns) for row in rows]

    @override
    def typed_records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        split = len(self._version)
        found = iter(self._version.typed_records([row for row in rows if row < split]))
        return [next(found) if row < split else dict(self._delta.slots[row - split].values) for row in rows]

    def _written_record(self, slot: int, columns: Sequence[str] | None) -> dict[str, Any]:
        record = self._delta.slots[slot].record
        return dict(record) if columns is None else {name: record[name] for name in columns if name in record}

    @override
    def find(self, item_id: str) -> int | None:
        slot = self._delta.find(item_id, self._slots)
        if slot is not None:
            return len(self._version) + slot if self._slots_live[slot] else None
        row = self._version.find(item_id)
        return row if row is not None and (self._version_live is None or self._version_live[row]) else None


class StackedThumbnails(ThumbnailSource):
    """The thumbnails of a version and its delta, by row."""

    def __init__(self, version: ThumbnailSource, delta: Delta, split: int) -> None:
        self._version, self._delta, self._split = version, delta, split

    @override
    def __len__(self) -> int:
        return self._split + len(self._delta)

    @override
    def get(self, row: int) -> bytes | None:
        return self._version.get(row) if row < self._split else self._delta.slots[row - self._split].thumbnail

    @override
    def has(self, row: int) -> bool:
        return (
            self._version.has(row) if row < self._split else self._delta.slots[row - self._split].thumbnail is not None
        )

"""The items of a collection in memory as writes leave them: those of the version, and the delta.

Dimension letters: n rows of the version, m slots of the delta, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.collection import Collection
from lookalike.json_values import MAX_EXACT_INTEGER
from lookalike.metadata import id_forms
from lookalike.types import Bool, Float16
from lookalike.writes.columns import WritableColumns
from lookalike.writes.delta import Delta
from lookalike.writes.entries import Entry
from lookalike.writes.live_collection import LiveCollection, live_collection

_MIN_REBUILT_SLOTS = 1_024


def _has_large(version: Collection, name: str) -> bool:
    """Return whether a column of a version has a whole number of which a float loses digits."""
    if name not in version.metadata.columns or not pa.types.is_integer(version.metadata.column_type(name)):
        return False
    bounds = pc.min_max(version.metadata.column(name))
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    return low is not None and bool(low < -MAX_EXACT_INTEGER or high > MAX_EXACT_INTEGER)


@dataclass(frozen=True, slots=True)
class LiveItem:
    """An item.

    Attributes:
        id: of the item.
        record: JSON-ready metadata with the id.
        values: the same by column, typed for Arrow.
        vector: (d,) as stored.
        thumbnail: image bytes; None without one.
    """

    id: str
    record: Mapping[str, Any]
    values: Mapping[str, Any]
    vector: Float16
    thumbnail: bytes | None


class LiveItems:
    """The items of a collection. One thread at a time may use it; the views that it returns may be shared.

    Attributes:
        version: the opened version.
        columns: of the items; grows.
        delta: the written items; grows.
        pending: ids of the items that were written since the version was built.
        written: number of living items in the delta.
    """

    def __init__(self, version: Collection, new_columns: Mapping[str, pa.DataType]) -> None:
        """Hold the items of a version. `new_columns` are those that writes have created."""
        self.version = version
        types = {name: version.metadata.column_type(name) for name in version.metadata.columns}
        self.columns = WritableColumns(types, new_columns, partial(_has_large, version))
        self.delta = Delta(version.manifest.encoder.dim)
        self.pending: set[str] = set()
        self._version_live = np.ones(len(version), np.bool_)
        self._shared_live: Bool | None = None  # a copy for views; None if no row has died
        self._has_died = False  # since that copy
        self._delta_live = np.zeros(_MIN_REBUILT_SLOTS, np.bool_)
        self.written = 0

    def find(self, item_id: str) -> LiveItem | None:
        """Return an item by its id, of which another Unicode form may be given; None if there is none."""
        for form in id_forms(item_id):
            slot = self.delta.latest.get(form)
            if slot is not None and self._delta_live[slot]:
                return self._written_item(slot)
            row = self._version_row(form)
            if row is not None and self._version_live[row]:
                return self._stored_item(row)
        return None

    def _written_item(self, slot: int) -> LiveItem:
        written, vector = self.delta.slots[slot], self.delta.vectors(slot + 1)[slot]
        return LiveItem(written.id, written.record, written.values, vector, written.thumbnail)

    def _stored_item(self, row: int) -> LiveItem:
        metadata, vector = self.version.metadata, np.array(self.version.vectors[row])
        record, values = metadata.records([row])[0], metadata.typed_records([row])[0]
        return LiveItem(str(record["id"]), record, values, vector, self.version.thumbnails.get(row))

    def _version_row(self, item_id: str) -> int | None:
        return self.version.metadata.find(item_id)

    def is_written(self, item_id: str) -> bool:
        """Return whether the delta holds an item, by exactly this id."""
        slot = self.delta.latest.get(item_id)
        return slot is not None and bool(self._delta_live[slot])

    def item_of(self, entry: Entry) -> LiveItem | None:
        """Return the item that an entry of the log leaves; None if it leaves none.

        Raises:
            MetadataInvalid: the entry does not fit the columns.
        """
        if entry.kind == "delete":
            return None
        if entry.kind == "put":
            assert entry.vector is not None
            vector = np.frombuffer(entry.vector, np.float16)
            return self.new_item(entry.id, entry.metadata, vector, entry.thumbnail, as_text=True)
        row = self._version_row(entry.id)
        if row is None:  # the sources no longer hold the item
            return None
        return self.with_metadata(self._stored_item(row), entry.metadata, as_text=True)

    def new_item(
        self,
        item_id: str,
        metadata: Mapping[str, Any],
        vector: Float16,
        thumbnail: bytes | None,
        *,
        as_text: bool = False,
    ) -> LiveItem:
        """Return an item with a (d,) vector, and add the columns that its metadata needs.

        Raises:
            MetadataInvalid: a value does not fit its column.
        """
        item = LiveItem(item_id, {"id": item_id}, {"id": item_id}, vector, thumbnail)
        return self.with_metadata(item, metadata, as_text=as_text)

    def with_metadata(self, item: LiveItem, changes: Mapping[str, Any], *, as_text: bool = False) -> LiveItem:
        """Return an item with other values in some columns, and add the columns that these need.

        Args:
            item: any item.
            changes: JSON values by column, None for no value.
            as_text: as in `WritableColumns.typed`.

        Raises:
            MetadataInvalid: a value does not fit its column.
        """
        typed = self.columns.typed(changes, as_text=as_text)
        self.columns.add(typed)
        kept = {name: value for name, value in item.values.items() if name not in changes}
        shown = {name: value for name, value in item.record.items() if name not in changes}
        shown |= self.columns.json_ready(typed.values)
        record = {name: shown[name] for name in self.columns.types if name in shown}
        return LiveItem(item.id, record, kept | typed.values, item.vector, item.thumbnail)

    def apply(self, entry: Entry, item: LiveItem | None) -> None:
        """Let an entry take effect; `item` is what `item_of` returns for it."""
        row = self._version_row(entry.id)
        if row is not None and self._version_live[row]:
            self._version_live[row] = False
            self._has_died = True
        if self.is_written(entry.id):
            self._delta_live[self.delta.latest[entry.id]] = False
            self.written -= 1
        if item is not None:
            place = row if entry.kind == "patch" else None
            self._append(item.id, entry.number, item.record, item.values, item.vector, item.thumbnail, place)
        self.pending.add(entry.id)
        if len(self.delta) > max(_MIN_REBUILT_SLOTS, 2 * self.written):
            self._rebuild()

    def _append(self, *item: Any) -> None:
        slot = self.delta.append(*item)
        if slot == len(self._delta_live):
            self._delta_live = np.concatenate([self._delta_live, np.zeros_like(self._delta_live)])
        self._delta_live[slot] = True
        self.written += 1

    def _rebuild(self) -> None:
        """Leave the dead slots behind; views keep the delta that they have."""
        before, self.delta = self.delta, Delta(self.delta.dim)
        live, self._delta_live, self.written = self._delta_live, np.zeros_like(self._delta_live), 0
        vectors = before.vectors(len(before))
        for number, slot in enumerate(before.slots):
            if live[number]:
                kept = slot.record, slot.values, vectors[number], slot.thumbnail, slot.version_row
                self._append(slot.id, slot.number, *kept)

    def view(self) -> LiveCollection:
        """Return the collection at this moment."""
        if self._has_died:
            self._shared_live, self._has_died = self._version_live.copy(), False
            self._shared_live.flags.writeable = False
        slots_live = self._delta_live[: len(self.delta)].copy()
        return live_collection(
            self.version, self._shared_live, self.delta, slots_live, self.columns.types, len(self.pending)
        )

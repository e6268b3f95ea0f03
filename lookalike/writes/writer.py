"""The one writer of a collection: checks operations, makes them durable, and shows them to the next search.

Operations that arrive together are one transaction of the log. They are checked in order, each against the outcome of
those before it. Only once they are on the disk are they applied in memory and acknowledged.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np

from lookalike.collection import Collection
from lookalike.disk_errors import DISK_FULL_ERRNOS
from lookalike.errors import (
    CollectionBusy,
    CollectionUnwritable,
    DiskFull,
    EncoderMismatch,
    LookalikeError,
    MetadataInvalid,
    PendingFull,
    QueryError,
    UnknownItem,
    WritesDamaged,
)
from lookalike.file_lock import acquire_lock
from lookalike.filters import Filter, filter_mask
from lookalike.metadata import id_forms
from lookalike.stores.registry import MILVUS
from lookalike.writes.columns import require_metadata, require_size
from lookalike.writes.entries import Entry, merged
from lookalike.writes.etag import etag
from lookalike.writes.item_ids import valid_id
from lookalike.writes.live_collection import LiveCollection
from lookalike.writes.live_items import LiveItem, LiveItems
from lookalike.writes.log import WriteLog
from lookalike.writes.operations import Delete, Operation, Outcome, Patch, Put, Result, Written

LOCK_FILE = "writes.lock"
DEFAULT_MAX_PENDING = 50_000


class Writer:
    """Writes to one collection, whose lock it holds until it is closed. Threads may share it."""

    def __init__(self, collection: Collection, *, max_pending: int = DEFAULT_MAX_PENDING) -> None:
        """Lock the collection and read its pending writes.

        Args:
            collection: the opened current version.
            max_pending: number of written items in memory from which on only deletions are accepted.

        Raises:
            CollectionBusy: another process writes to the collection.
            CollectionUnwritable: it is on Milvus, or its folder can't be written to.
            WritesDamaged: the log is damaged, or has writes that the version lacks.
            EncoderMismatch: another encoder made the vectors of pending writes.
        """
        if collection.manifest.store.kind == MILVUS:
            raise CollectionUnwritable(
                f"{collection.root} is on Milvus, which takes no writes this way; index it again"
            )
        self._lock = threading.RLock()
        self._max_pending = max_pending
        self._stream = lock_writes(collection.root)
        try:
            self._log = WriteLog(collection.root, create=True)
            try:
                self._items = _loaded(collection, self._log)
            except BaseException:
                self._log.close()
                raise
        except BaseException:
            self._stream.close()
            raise
        self._view = self._items.view()
        self._closed = False

    def close(self) -> None:
        """Close the log and release the lock; views stay valid."""
        with self._lock:
            self._closed = True
            self._log.close()
            self._stream.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def view(self) -> LiveCollection:
        """The collection with all acknowledged writes; the same object until the next write."""
        return self._view

    @property
    def pending(self) -> int:
        """Number of items that were written, changed or deleted since the version was built."""
        return len(self._items.pending)

    @property
    def last(self) -> int:
        """Number of the last write."""
        return self._log.last

    def apply(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Apply operations in order, durably.

        Returns:
            For each operation what became of it, or the error for which it was refused; it changed nothing then.

        Raises:
            DiskFull, CollectionUnwritable, WritesDamaged: none was applied.
        """
        with self._lock:
            self._require_open()
            group = _Group(self._items, self._log, self._max_pending)
            outcomes = [group.outcome(operation) for operation in operations]
            self._commit(group)
            return outcomes

    def delete_matching(self, condition: Filter) -> int:
        """Delete the items that pass a filter, durably, and return their number.

        Raises:
            FilterInvalid: the filter does not fit the metadata.
            DiskFull, CollectionUnwritable, WritesDamaged: none was deleted.
        """
        with self._lock:
            self._require_open()
            view = self.view
            rows = np.flatnonzero(filter_mask(condition, view.metadata) & view.live)
            group = _Group(self._items, self._log, self._max_pending)
            for record in view.metadata.records(rows.tolist(), ["id"]):
                group.outcome(Delete(str(record["id"])))
            self._commit(group)
            return len(rows)

    def _require_open(self) -> None:
        if self._closed:
            root = self._items.version.root
            raise CollectionUnwritable(f"{root} has been closed, and is not open for writing now; try again")

    def _commit(self, group: _Group) -> None:
        changes = group.changes
        if not changes:
            return
        self._log.commit(
            [change.entry for change in changes], self._items.columns.new, self._items.version.manifest.encoder.identity
        )
        for change in changes:
            self._items.apply(change.entry, change.item)
        self._view = self._items.view()

    def rebase(self, collection: Collection) -> None:
        """Continue over another version of the collection, which holds some of the writes.

        Raises:
            WritesDamaged, EncoderMismatch: as when a writer is made; it goes on over the version before.
        """
        with self._lock:
            self._require_open()
            self._items = _loaded(collection, self._log)
            self._view = self._items.view()

    def release(self) -> None:
        """Free what the log keeps of writes that the version holds."""
        with self._lock:
            self._require_open()
            held = self._items.version.manifest.writes
            if self._log.released() < held:
                self._log.release(held)


@dataclass(frozen=True, slots=True)
class _Change:
    """What an operation does: the entry of the log, and the item that it leaves, None if it leaves none."""

    entry: Entry
    item: LiveItem | None


class _Group:
    """Operations that are checked one after the other, and committed together."""

    def __init__(self, items: LiveItems, log: WriteLog, max_pending: int) -> None:
        self._items, self._log = items, log
        self._max_pending = max_pending
        self._number, self._held = log.last, items.version.manifest.writes
        self._changes: dict[str, _Change] = {}

    @property
    def changes(self) -> list[_Change]:
        """The last change of each item, in order of their numbers."""
        return sorted(self._changes.values(), key=lambda change: change.entry.number)

    def outcome(self, operation: Operation) -> Outcome:
        """Check an operation and prepare its change; return the error for which it is refused."""
        try:
            if isinstance(operation, Put):
                return self._put(operation)
            return self._patch(operation) if isinstance(operation, Patch) else self._delete(operation)
        except LookalikeError as error:
            return error

    def _put(self, operation: Put) -> Written:
        before = self._find(operation.id)
        item_id = valid_id(operation.id) if before is None else before.id
        operation.precondition.check(item_id, _tag(before))
        require_metadata(operation.metadata)
        if len(operation.vector) != self._items.delta.dim:
            raise QueryError(
                f"the embedding has {len(operation.vector)} numbers; the encoder's have {self._items.delta.dim}"
            )
        self._require_space(item_id)
        vector = operation.vector.astype(np.float16)
        item = self._items.new_item(item_id, {**operation.measured, **operation.metadata}, vector, operation.thumbnail)
        return self._change(
            self._whole(item, operation.content_hash), item, "created" if before is None else "replaced"
        )

    def _patch(self, operation: Patch) -> Written:
        before = self._require(operation.id)
        operation.precondition.check(before.id, _tag(before))
        changes = {
            name: merged(before.record.get(name), value)
            for name, value in operation.metadata.items()
            if not _is_same(value, before.record.get(name))
        }
        require_metadata(changes)
        self._require_space(before.id)
        item = self._items.with_metadata(before, changes)
        require_size(item.record, before.record)
        previous = self._entry(before.id)
        if previous is not None and previous.kind == "put" and previous.number > self._held:
            return self._change(self._whole(item, previous.content_hash), item, "patched")
        earlier = previous.metadata if previous is not None and previous.kind == "patch" else {}
        changed = {**earlier, **{name: item.record.get(name) for name in changes}}
        is_own = previous is not None and previous.is_own
        return self._change(Entry(before.id, self._next(), "patch", is_own, changed), item, "patched")

    def _delete(self, operation: Delete) -> Written:
        before = self._require(operation.id)
        operation.precondition.check(before.id, _tag(before))
        return self._change(Entry(before.id, self._next(), "delete", False, {}), None, "deleted")

    def _whole(self, item: LiveItem, content_hash: bytes | None) -> Entry:
        """Return the entry that holds all of an item."""
        record = {name: value for name, value in item.record.items() if name != "id"}
        return Entry(item.id, self._next(), "put", True, record, item.vector.tobytes(), item.thumbnail, content_hash)

    def _change(self, entry: Entry, item: LiveItem | None, result: Result) -> Written:
        self._number = entry.number
        self._changes[entry.id] = _Change(entry, item)
        return Written(entry.id, result, _tag(item), None if item is None else item.record)

    def _next(self) -> int:
        return self._number + 1

    def _find(self, item_id: str) -> LiveItem | None:
        """Return an item as the operations before leave it."""
        changed = next((self._changes[form] for form in id_forms(item_id) if form in self._changes), None)
        return self._items.find(item_id) if changed is None else changed.item

    def _require(self, item_id: str) -> LiveItem:
        item = self._find(item_id)
        if item is None:
            raise UnknownItem(f"no item has the id {item_id!r} in this collection")
        return item

    def _entry(self, item_id: str) -> Entry | None:
        """Return the last write of an item, that of an operation before included."""
        change = self._changes.get(item_id)
        return self._log.find(item_id) if change is None else change.entry

    def _require_space(self, item_id: str) -> None:
        """Check that the item may take a place in memory, which one that has been written has already."""
        if self._items.is_written(item_id) or item_id in self._changes:
            return
        changes = self._changes.items()
        held = self._items.written + sum((each.item is not None) - self._items.is_written(i) for i, each in changes)
        if held >= self._max_pending:
            raise PendingFull(
                f"{held:,} written items are in memory, the most that this service holds (LOOKALIKE_MAX_PENDING); "
                "retry after the next compaction"
            )


def _is_same(a: Any, b: Any) -> bool:
    """Return whether two JSON values are the same; True, 1 and 1.0 are three values."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def _tag(item: LiveItem | None) -> str | None:
    return None if item is None else etag(item.record, item.vector)


def _loaded(version: Collection, log: WriteLog) -> LiveItems:
    """Return the items of a version with the writes that it lacks."""
    held = version.manifest.writes
    log.require_fits(held, version.manifest.version)
    require_encoder(version, log)
    items = LiveItems(version, log.new_columns())
    for entry in log.pending(held):
        try:
            item = items.item_of(entry)
        except MetadataInvalid as error:  # the sources have given a column another type since
            raise WritesDamaged(f"the write of item {entry.id!r} no longer fits: {error}") from error
        items.apply(entry, item)
    return items


def require_encoder(version: Collection, log: WriteLog) -> None:
    """Check that the pending vectors of a log can be compared with a version's. Raises EncoderMismatch."""
    encoder = log.encoder()
    if encoder is None or encoder == version.manifest.encoder.identity or not log.count_puts(version.manifest.writes):
        return
    raise EncoderMismatch(
        f"{version.root} has pending writes by another encoder than that of its version, "
        f"{version.manifest.encoder.name!r}: restore the collection from a snapshot"
    )


def lock_writes(root: Path) -> TextIO:
    """Return the open file whose lock makes this process the collection's writer, until it is closed.

    Raises:
        CollectionBusy: another process writes to the collection.
        CollectionUnwritable: its folder can't be written to.
        DiskFull: there is no space for the file.
    """
    try:
        stream = (root / LOCK_FILE).open("a+")
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFull(f"the disk of {root} is full; free some space") from error
        raise CollectionUnwritable(f"{root} can't be written to: {error.strerror}") from error
    if owner := acquire_lock(stream):
        stream.close()
        raise CollectionBusy(f"process {owner} writes to {root}; a collection has one writer at a time: stop the other")
    return stream

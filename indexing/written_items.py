"""The items that writes made, changed and deleted, in a version that is built from sources: the write wins.

An item that was put stays as it was put, whatever the sources hold under its id, and a deleted one stays deleted. Of a
patched item, the patched columns stay, and the others come from its source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from indexing.ingest.left_out import LeftOutItems
from indexing.ingest.previous_version import PreviousVersion
from indexing.metadata_tables import common_schema
from indexing.row_stream import REJECTED_SCHEMA, RowChunk, RowStream
from indexing.written_rows import ROWS_AT_ONCE, columns_of, patched, put_chunks, with_id_hashes
from lookalike.collection import Collection
from lookalike.errors import EncoderMismatch, WritesDamaged
from lookalike.messages import number_of
from lookalike.metadata import IDS_FILE, id_forms, id_hash
from lookalike.sources.item import composed
from lookalike.types import EncoderSpec, Int64
from lookalike.writes.columns import MEASURED_COLUMNS
from lookalike.writes.entries import Entry
from lookalike.writes.log import WriteLog
from lookalike.writes.writer import lock_writes


def left_out_items(log: WriteLog | None) -> LeftOutItems:
    """Return the ids that sources no longer provide, since a write put or deleted them."""
    entries = log.all_entries() if log is not None else ()
    hidden = (entry.id for entry in entries if entry.kind != "patch" or entry.is_own)
    return LeftOutItems([hash_ for item_id in hidden for hash_ in _hashes(item_id)])


@contextmanager
def exclusive_writes(
    root: Path, previous: Collection | None, log: WriteLog | None, encoder: EncoderSpec
) -> Iterator[None]:
    """Check that the items that writes made can be in a version of an encoder; let no process write if it is a new one.

    Args:
        root: the collection's folder.
        previous: the current version; None if there is none, or it is damaged.
        log: of the writes; None if there were none.
        encoder: of the version.

    Raises:
        EncoderMismatch: another encoder made their vectors.
        CollectionBusy: the encoder is another one, and a process writes to the collection.
        WritesDamaged: the version that held them can't be opened.
    """
    if log is None:
        yield
        return
    _require_own_items(root, previous, log, encoder)
    if previous is None or previous.manifest.encoder.identity == encoder.identity:
        yield
        return
    with lock_writes(root):
        yield


def _require_own_items(root: Path, previous: Collection | None, log: WriteLog, encoder: EncoderSpec) -> None:
    count = sum(entry.is_own for entry in log.all_entries())
    if not count:
        return
    items = number_of(count, "item")
    own = previous.manifest.encoder.identity if previous is not None else log.encoder()
    if own != encoder.identity:
        raise EncoderMismatch(
            f"{items} of {root} were made by writes, and only their thumbnails are kept, so that "
            f"{encoder.name!r} can't encode them again: delete them, or name another --out and put them there"
        )
    if previous is None and any(entry.is_own and _is_held(entry, log) for entry in log.all_entries()):
        raise WritesDamaged(
            f"{items} of {root} were made by writes, and the version that held them can't be opened: restore the "
            "collection from a snapshot"
        )


def _is_held(entry: Entry, log: WriteLog) -> bool:
    """Return whether only a version holds the item of an entry."""
    return entry.kind == "patch" or entry.number <= log.released()


def source_items(previous: Collection, left_out: LeftOutItems) -> int:
    """Return the number of a version's items that its sources provided, and that no write has put or deleted since."""
    hashes, _ = np.load(previous.folder / IDS_FILE, mmap_mode="r")
    return int(np.count_nonzero(~np.isin(hashes, left_out.hashes)))


class WrittenItems:
    """What the writes do to the rows of the sources, as of one moment of the log.

    Args:
        log: within its `snapshot`.
        previous: the current version, which holds the items that writes made before; None if there is none.

    Attributes:
        number: of the last write.
        count: number of the items that writes made.
        left_out: number of the sources' items that were left out so far.
    """

    def __init__(self, log: WriteLog, previous: Collection | None) -> None:
        self._log, self._previous = log, previous
        self._held = previous.manifest.writes if previous is not None else log.released()
        self._columns = columns_of(previous, log)
        self.number, self.left_out = log.last, 0
        hidden: list[int] = []
        changed: list[int] = []
        rows: list[int] = []
        touched: set[str] = set()
        puts = 0
        for entry in log.all_entries():
            is_source = entry.kind == "patch" and not entry.is_own
            (changed if is_source else hidden).extend(_hashes(entry.id))
            touched |= {name for name, value in entry.metadata.items() if value is not None}
            if entry.kind == "put" and entry.number > self._held:
                puts += 1
            elif entry.is_own:
                rows.append(self._row(entry))
        self._hidden, self._changed = (np.unique(np.array(hashes, np.uint64)) for hashes in (hidden, changed))
        self._rows = np.array(rows, np.int64)
        self._touched = touched
        self.count = puts + len(rows)

    def _row(self, entry: Entry) -> int:
        row = self._previous.metadata.find(entry.id) if self._previous is not None else None
        if row is None:
            raise WritesDamaged(
                f"item {entry.id!r} was made by a write that the current version holds, but it is not there: restore "
                "the collection from a snapshot"
            )
        return row

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of which writes have values, without those that are measured on images."""
        names = self._touched | {name for name in self._previous_columns if self._has_values(name)}
        kinds = self._columns.types.items()
        own = {name: kind for name, kind in kinds if name in names and name not in MEASURED_COLUMNS}
        return pa.schema(list(({"id": pa.string()} | own).items()))

    @property
    def _previous_columns(self) -> list[str]:
        return self._previous.metadata.columns if self._previous is not None else []

    def _has_values(self, name: str) -> bool:
        assert self._previous is not None
        column = self._previous.metadata.column(name)
        starts = range(0, len(self._rows), ROWS_AT_ONCE)
        taken = (column.take(pa.array(self._rows[start : start + ROWS_AT_ONCE])) for start in starts)
        return any(part.null_count < len(part) for part in taken)

    def over(self, chunks: Iterable[RowChunk], schema: pa.Schema) -> Iterator[RowChunk]:
        """Yield the sources' chunks as writes leave them, then the items that writes made.

        Args:
            chunks: of the sources.
            schema: of all metadata, this one's included.
        """
        for chunk in chunks:
            yield self._as_written(chunk, schema)
        yield from self._held_chunks(schema)
        puts = (entry for entry in self._log.pending(self._held) if entry.kind == "put")
        yield from put_chunks(puts, self._columns, is_complete=False)

    def _as_written(self, chunk: RowChunk, schema: pa.Schema) -> RowChunk:
        hashes = chunk.encoded.column("id_hash").to_numpy()
        kept = pa.array(~np.isin(hashes, self._hidden))
        rejected_ids = [item_id or "" for item_id in chunk.rejected.column("id").to_pylist()]
        reported = pa.array(~np.isin(np.array(list(map(id_hash, rejected_ids)), np.uint64), self._hidden))
        encoded, metadata = chunk.encoded.filter(kept), chunk.metadata.filter(kept)
        rejected = chunk.rejected.filter(reported)
        left_out = len(chunk.encoded) + len(chunk.rejected) - len(encoded) - len(rejected)
        self.left_out += left_out
        positions = np.flatnonzero(np.isin(encoded.column("id_hash").to_numpy(), self._changed))
        if len(positions):
            metadata = patched(metadata, self._patches(metadata, positions), schema, self._columns)
        return replace(chunk, encoded=encoded, metadata=metadata, rejected=rejected, left_out=left_out)

    def _patches(self, metadata: pa.Table, positions: Int64) -> dict[int, Entry]:
        ids = metadata.column("id")
        found = {int(i): self._find(ids[int(i)].as_py()) for i in positions}
        return {position: entry for position, entry in found.items() if entry is not None and entry.kind == "patch"}

    def _find(self, item_id: str) -> Entry | None:
        return next((entry for form in id_forms(item_id) if (entry := self._log.find(form)) is not None), None)

    def _held_chunks(self, schema: pa.Schema) -> Iterator[RowChunk]:
        """Yield the items that writes made and the previous version holds."""
        if self._previous is None:
            return
        stored, own = PreviousVersion(self._previous), self._previous.metadata
        for start in range(0, len(self._rows), ROWS_AT_ONCE):
            rows = self._rows[start : start + ROWS_AT_ONCE]
            names = [name for name in own.columns if name in schema.names]
            metadata = pa.table({name: own.column(name).take(pa.array(rows)) for name in names})
            patches = self._patches(metadata, np.arange(len(rows)))
            encoded = with_id_hashes(stored.take(rows), metadata)
            changed = patched(metadata, patches, schema, self._columns)
            yield RowChunk(encoded, changed, REJECTED_SCHEMA.empty_table())


def with_written_items(
    rows: RowStream, log: WriteLog, previous: Collection | None, moment: ExitStack
) -> tuple[RowStream, WrittenItems]:
    """Return the rows of sources as writes leave them with the items that writes made, and these writes.

    Args:
        rows: of the sources.
        log: of the writes.
        previous: the current version; None if there is none.
        moment: the moment of the log; closed after the last read, so that the log need not keep it for longer.
    """
    moment.enter_context(log.snapshot())
    written = WrittenItems(log, previous)
    schema = common_schema([rows.schema, written.schema])

    def chunks() -> Iterator[RowChunk]:
        yield from written.over(rows.chunks, schema)
        moment.close()

    return replace(rows, chunks=chunks(), schema=schema, seen=rows.seen + written.count), written


def _hashes(item_id: str) -> set[int]:
    """Return the hashes of an item's id, and of the id that a source gives the item, which is composed."""
    return {id_hash(item_id), id_hash(composed(item_id))}

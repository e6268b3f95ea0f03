"""Rows of written items on their way to the builder, read from the log of writes, and patched rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from indexing.metadata_tables import conform
from indexing.row_stream import ENCODED_SCHEMA, REJECTED_SCHEMA, RowChunk
from lookalike.collection import Collection
from lookalike.errors import CollectionBusy, MetadataInvalid, WritesDamaged
from lookalike.manifest import Manifest
from lookalike.metadata import id_hash
from lookalike.writes.columns import MEASURED_COLUMNS, TypedRecord, WritableColumns
from lookalike.writes.entries import Entry
from lookalike.writes.log import LOG_FILE, WriteLog, has_log
from lookalike.writes.writer import lock_writes

ROWS_AT_ONCE = 1_024


@contextmanager
def opened_log(root: Path, manifest: Manifest | None) -> Iterator[WriteLog | None]:
    """Open the log of a collection within the block; None if it was never written to.

    Args:
        root: the collection's folder.
        manifest: of the current version; None if there is none.

    Raises:
        WritesDamaged: the log is damaged or missing, or does not have the writes that the version lacks.
    """
    if not has_log(root):
        if manifest is not None and manifest.writes:
            raise WritesDamaged(
                f"version {manifest.version} of {root} holds the writes up to {manifest.writes}, but {root / LOG_FILE} "
                "is missing: restore the collection from a snapshot"
            )
        yield None
        return
    with WriteLog(root) as log:
        if manifest is not None:
            log.require_fits(manifest.writes, manifest.version)
        yield log


def release_held(root: Path, log: WriteLog, number: int) -> None:
    """Free what the log keeps of writes up to a number, which a version holds, unless another process writes.

    That process frees it itself, once it serves the version.
    """
    if log.released() >= number:
        return
    try:
        lock = lock_writes(root)
    except CollectionBusy:
        return
    with lock:
        log.release(number)


def columns_of(version: Collection | None, log: WriteLog) -> WritableColumns:
    """Return the columns of a version and of its pending writes."""
    names = [] if version is None else version.metadata.columns
    types = {name: version.metadata.column_type(name) for name in names} if version is not None else {}
    return WritableColumns(types, log.new_columns())


def typed(entry: Entry, columns: WritableColumns) -> TypedRecord:
    """Return the metadata of an entry as values of the columns' types.

    Raises:
        WritesDamaged: a value does not fit its column.
    """
    try:
        record = columns.typed(entry.metadata, as_text=True)
    except MetadataInvalid as error:
        raise WritesDamaged(f"the write of item {entry.id!r} no longer fits: {error}") from error
    columns.add(record)
    return record


def put_chunks(entries: Iterable[Entry], columns: WritableColumns, *, is_complete: bool) -> Iterator[RowChunk]:
    """Yield the items of entries that hold whole items.

    Args:
        entries: of the kind `put`.
        columns: of the items.
        is_complete: whether the metadata includes the measured columns.

    Raises:
        WritesDamaged: an entry has no vector, or a value does not fit its column.
    """
    batch: list[Entry] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) == ROWS_AT_ONCE:
            yield _put_chunk(batch, columns, is_complete=is_complete)
            batch = []
    if batch:
        yield _put_chunk(batch, columns, is_complete=is_complete)


def _put_chunk(entries: Sequence[Entry], columns: WritableColumns, *, is_complete: bool) -> RowChunk:
    records = [{"id": entry.id, **typed(entry, columns).values} for entry in entries]
    metadata = pa.table(
        {
            name: pa.array([r.get(name) for r in records], kind)
            for name, kind in ({"id": pa.string()} | columns.types).items()
        }
    )
    measured = metadata.select([name for name in metadata.column_names if name in MEASURED_COLUMNS])
    if any(entry.vector is None for entry in entries):
        lost = next(entry.id for entry in entries if entry.vector is None)
        raise WritesDamaged(f"the vector of item {lost!r} is gone: restore the collection from a snapshot")
    stored = pa.table(
        {
            "id_hash": pa.array([id_hash(entry.id) for entry in entries], pa.uint64()),
            "fingerprint": pa.array(np.zeros(len(entries), np.uint64)),
            "vector": pa.array([entry.vector for entry in entries], pa.binary()),
            "thumbnail": pa.array([entry.thumbnail for entry in entries], pa.binary()),
            "content_hash": pa.array([e.content_hash for e in entries], ENCODED_SCHEMA.field("content_hash").type),
            **dict(zip(measured.column_names, measured.columns, strict=True)),
        }
    )
    kept = metadata if is_complete else metadata.drop_columns(measured.column_names)
    return RowChunk(conform(stored, ENCODED_SCHEMA), kept, REJECTED_SCHEMA.empty_table())


def stored_metadata(version: Collection, start: int, count: int) -> pa.Table:
    """Return the metadata of consecutive rows of a version, with its own columns and types."""
    metadata = version.metadata
    return pa.table({name: metadata.column(name).slice(start, count) for name in metadata.columns})


def with_id_hashes(encoded: pa.Table, metadata: pa.Table) -> pa.Table:
    """Return encoded rows with the hashes of their ids, which those of a version lack."""
    hashes = pa.array([id_hash(item_id) for item_id in metadata.column("id").to_pylist()], pa.uint64())
    return encoded.set_column(0, ENCODED_SCHEMA.field(0), hashes)


def patched(table: pa.Table, changes: Mapping[int, Entry], schema: pa.Schema, columns: WritableColumns) -> pa.Table:
    """Return a table with other values in some rows.

    Args:
        table: of metadata.
        changes: position of a row -> the entry that patches it.
        schema: of the result; values are cast to it, those of other columns are left out.
        columns: of which the entries have values.
    """
    result = conform(table, schema)
    by_column: dict[str, dict[int, Any]] = {}
    for position, entry in changes.items():
        values = typed(entry, columns).values
        for name in entry.metadata:
            by_column.setdefault(name, {})[position] = values.get(name)
    for name, cells in by_column.items():
        place = schema.get_field_index(name)
        if place >= 0:
            field = schema.field(place)
            written = pa.table({name: pa.array(list(cells.values()), columns.types.get(name, field.type))})
            result = result.set_column(place, field, _replaced(result.column(name), list(cells), written, field))
    return result


def _replaced(column: pa.ChunkedArray, positions: list[int], written: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """Return a column with the values of a table of one column at some positions."""
    values = conform(written, pa.schema([field])).column(0)
    rows = np.arange(len(column))
    rows[positions] = len(column) + np.arange(len(positions))
    return pa.chunked_array([*column.chunks, *values.chunks], field.type).take(pa.array(rows))

"""The plan of a run: each item's identity and metadata, in the order of the sources, on disk.

The plan decides the order of the collection's rows. Embeddings (`indexing.ingest.shards`) are looked up by identity, so
their order does not matter. Two runs whose plans have the same digest have seen the same items.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from indexing.arrow_files import read_table, write_table
from indexing.metadata_tables import common_schema, table_from_records

MAX_CHUNK_ROWS = 2_048
CONTROL = pa.schema(
    [("_id_hash", pa.uint64()), ("_fingerprint", pa.uint64()), ("_code", pa.string()), ("_message", pa.string())]
)
"""Columns before the metadata; `_code` is set where the item was rejected before it was decoded."""


class PlanWriter:
    """Writes items in order; memory holds one chunk.

    Args:
        folder: emptied first; a plan is not kept after its run.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._records: list[dict[str, Any]] = []
        self._control: list[tuple[int, int, str | None, str | None]] = []
        self._types: Mapping[str, pa.DataType] = {}
        self._chunks = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self.count = 0

    def add(
        self,
        id_hash: int,
        fingerprint: int,
        record: Mapping[str, Any],
        error: tuple[str, str] | None = None,
        types: Mapping[str, pa.DataType] | None = None,
    ) -> None:
        """Add an item: its identity, its metadata, an error (code, message) if it is rejected, its columns' types."""
        self.leave_out(id_hash, fingerprint, record, types)
        self._records.append(dict(record))
        self._control.append((id_hash, fingerprint, *(error or (None, None))))
        self.count += 1
        if len(self._records) == MAX_CHUNK_ROWS:
            self._flush()

    def leave_out(
        self, id_hash: int, fingerprint: int, record: Mapping[str, Any], types: Mapping[str, pa.DataType] | None = None
    ) -> None:
        """Let an item count in the digest alone, since a write put or deleted it; the arguments are those of `add`."""
        types = types or {}
        if types is not self._types and types != self._types:
            self._flush()
            self._types = types
            self._digest.update(repr(list(self._types.items())).encode())
        self._digest.update(struct.pack("<QQ", id_hash, fingerprint))
        self._digest.update(repr(sorted(record.items())).encode("utf-8", "surrogatepass"))  # a caption may change alone

    def close(self) -> Plan:
        """Return the finished plan."""
        self._flush()
        return Plan(self._folder, self._digest.hexdigest(), self.count)

    def _flush(self) -> None:
        if not self._records:
            return
        metadata = table_from_records(self._records, self._types)
        columns = zip(*self._control, strict=True)
        control = [pa.array(column, field.type) for column, field in zip(columns, CONTROL, strict=True)]
        table = pa.table([*control, *metadata.columns], names=[*CONTROL.names, *metadata.column_names])
        write_table(self._folder / f"plan-{self._chunks:08d}.arrow", table)
        self._chunks += 1
        self._records, self._control = [], []


class Plan:
    """A finished plan.

    Attributes:
        digest: over the identities of all items, in order; hex.
        count: items seen, rejected ones included.
    """

    def __init__(self, folder: Path, digest: str, count: int) -> None:
        self._files = sorted(folder.glob("plan-*.arrow"))
        self.digest = digest
        self.count = count

    def chunks(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Yield (control, metadata) tables of up to MAX_CHUNK_ROWS items, in order."""
        for path in self._files:
            table = read_table(path)
            yield table.select(CONTROL.names), table.drop_columns(CONTROL.names)

    @cached_property
    def schema(self) -> pa.Schema:
        """Common schema of all metadata."""
        return common_schema(metadata.schema for _, metadata in self.chunks())

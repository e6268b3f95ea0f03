"""What a run has seen, in the order of the sources: each item's identity and metadata, on disk, without its pixels.

The plan decides the order of the collection's rows. The pixels' part (`indexing.ingest.shards`) is looked up by
identity, so its order never matters. The digest of a plan tells whether a later run saw anything else.
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

from indexing.build.tables import table_of, unified
from indexing.durable_files import read_table, write_table

CHUNK_ROWS = 2_048
CONTROL = pa.schema(
    [("_id_hash", pa.uint64()), ("_fingerprint", pa.uint64()), ("_code", pa.string()), ("_message", pa.string())]
)
"""Columns that stand before the metadata; `_code` is set where the item was refused before it was decoded."""


class PlanWriter:
    """Takes items in order; memory holds one chunk.

    Args:
        folder: emptied first; a plan never outlives its run.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._records: list[dict[str, Any]] = []
        self._control: list[tuple[int, int, str | None, str | None]] = []
        self._chunks = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self.count = 0

    def add(
        self, id_hash: int, fingerprint: int, record: Mapping[str, Any], refused: tuple[str, str] | None = None
    ) -> None:
        """One item: its identity, its metadata, and (code, message) where it is refused."""
        self._digest.update(struct.pack("<QQ", id_hash, fingerprint))
        self._digest.update(repr(sorted(record.items())).encode("utf-8", "surrogatepass"))  # a caption may change alone
        self._records.append(dict(record))
        self._control.append((id_hash, fingerprint, *(refused or (None, None))))
        self.count += 1
        if len(self._records) == CHUNK_ROWS:
            self._flush()

    def close(self) -> Plan:
        """The finished plan."""
        self._flush()
        return Plan(self._folder, self._digest.hexdigest(), self.count)

    def _flush(self) -> None:
        if not self._records:
            return
        metadata = table_of(self._records)
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
        count: items seen, those refused included.
    """

    def __init__(self, folder: Path, digest: str, count: int) -> None:
        self._files = sorted(folder.glob("plan-*.arrow"))
        self.digest = digest
        self.count = count

    def chunks(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """(control, metadata) tables of up to CHUNK_ROWS items, in order."""
        for path in self._files:
            table = read_table(path)
            yield table.select(CONTROL.names), table.drop_columns(CONTROL.names)

    @cached_property
    def schema(self) -> pa.Schema:
        """The metadata's unified schema."""
        return unified(metadata.schema for _, metadata in self.chunks())

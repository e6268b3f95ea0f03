"""A collection's metadata: row -> record and id -> row, memory-mapped.

`metadata.parquet` is a copy for other tools, such as pandas, DuckDB or Spark. `metadata.arrow` holds the same rows for
the service, which fetches single rows without decoding a column. `ids.npy`, (2, n) uint64, finds a row by id: the
ids' hashes in ascending order, and the row of each.
"""

from __future__ import annotations

import hashlib
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from lookalike.errors import DuplicateId, ManifestInvalid, QueryError, UnknownItem
from lookalike.json_values import Converter, converter
from lookalike.messages import quoted, unknown_name
from lookalike.row_file import RowFile, RowFileWriter
from lookalike.types import UInt64

PARQUET_FILE, ROWS_FILE, IDS_FILE = "metadata.parquet", "metadata.arrow", "ids.npy"
METADATA_FILES = (PARQUET_FILE, ROWS_FILE, IDS_FILE)
_ROWS_PER_BATCH = 65_536


def write_metadata(folder: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write tables to the three files as a stream; memory holds one table and 16 bytes a row.

    Args:
        folder: the version folder being built.
        schema: must hold a string column `id`.
        tables: row order is vector order.

    Returns:
        n, the number of rows.

    Raises:
        DuplicateId: an id occurs twice.
    """
    hashes: list[UInt64] = []
    with (
        pq.ParquetWriter(folder / PARQUET_FILE, schema, compression="zstd") as parquet,
        RowFileWriter(folder / ROWS_FILE, schema, _ROWS_PER_BATCH) as rows,
    ):
        for table in tables:
            aligned = table.select(schema.names).cast(schema)
            parquet.write_table(aligned)
            rows.add(aligned)
            hashes.append(np.fromiter(map(id_hash, table.column("id").to_pylist()), np.uint64, len(table)))
    entries = _sorted_entries(hashes)
    _check_unique(entries, folder / ROWS_FILE)
    np.save(folder / IDS_FILE, entries)
    return len(entries[0])


def id_hash(item_id: str) -> int:
    """Return 64 bits of BLAKE2b over the UTF-8 id."""
    return int.from_bytes(hashlib.blake2b(item_id.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def id_forms(item_id: str) -> tuple[str, ...]:
    """Return the forms of an id to look up: itself, then composed, and decomposed as in older collections."""
    if item_id.isascii():
        return (item_id,)
    return (item_id, unicodedata.normalize("NFC", item_id), unicodedata.normalize("NFD", item_id))


def _sorted_entries(hashes: list[UInt64]) -> UInt64:
    flat = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
    order = np.argsort(flat, kind="stable")
    return np.stack([flat[order], order.astype(np.uint64)])


def _check_unique(entries: UInt64, path: Path) -> None:
    """Raise DuplicateId if an id occurs twice; ids with equal hashes are compared."""
    collisions = np.flatnonzero(entries[0, 1:] == entries[0, :-1])
    if not len(collisions):
        return
    rows = RowFile(path)
    for i in collisions:
        first, second = (rows.value("id", int(entries[1, j])) for j in (i, i + 1))
        if first == second:
            raise DuplicateId(f"id {first!r} occurs twice")


class ItemRecords(ABC):
    """Metadata of items by row and by id; safe to call from several threads."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Column names, `id` among them."""

    @abstractmethod
    def column(self, name: str) -> pa.ChunkedArray:
        """Return the (n,) values of a column."""

    @abstractmethod
    def column_type(self, name: str) -> pa.DataType:
        """Return the type of a column."""

    @abstractmethod
    def records(self, rows: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return JSON-ready records of the rows, without columns that have no value.

        Args:
            rows: row numbers; the records are in their order.
            columns: the columns to read, which must exist; None for all.
        """

    @abstractmethod
    def typed_records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return the rows' values as Arrow gives them, without columns that have no value."""

    @abstractmethod
    def find(self, item_id: str) -> int | None:
        """Return the row of an id, in exactly this form; None if no item has it."""

    def row_of(self, item_id: str) -> int:
        """Return the row of an id, in microseconds; of its composed or decomposed form if none has it as it is.

        Raises:
            UnknownItem: no item has that id.
        """
        row = next((row for form in id_forms(item_id) if (row := self.find(form)) is not None), None)
        if row is None:
            raise UnknownItem(f"no item has the id {item_id!r} in this collection")
        return row

    def values(self, name: str, rows: Sequence[int]) -> list[Any]:
        """Return a column's JSON-ready values in the rows, None where there is none; `a.b` is a field of a record.

        The column must be one that `check_single_valued` accepts.
        """
        column, *path = [name] if name in self.columns else name.split(".")
        values = [record.get(column) for record in self.records(rows, [column])]
        for step in path:
            values = [None if value is None else value.get(step) for value in values]
        return values

    def check_single_valued(self, name: str) -> None:
        """Check that a column, or a field `a.b` of a record, has one number, text, date or truth value for each item.

        Raises:
            QueryError: there is no such column, or it holds lists or records.
        """
        column, *path = [name] if name in self.columns else name.split(".")
        if column not in self.columns:
            raise QueryError(unknown_name("metadata column", name, self.columns))
        kind = self.column_type(column)
        for step in path:
            if not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
                raise QueryError(f"{quoted(name)}: {column} has no field {quoted(step)}; it is {quoted(str(kind))}")
            kind = kind.field(step).type
        if pa.types.is_nested(kind):
            raise QueryError(f"column {quoted(name)} holds {quoted(str(kind))}, not one value for each item")


class Metadata(ItemRecords):
    """Metadata of an opened version, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        self._rows = RowFile(folder / ROWS_FILE)
        self._converters: dict[str, Converter] = {}
        try:
            ids = np.load(folder / IDS_FILE, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ManifestInvalid(f"{folder / IDS_FILE} can't be read: {error}") from error
        if ids.dtype != np.uint64 or ids.shape != (2, len(self._rows)) or "id" not in self.columns:
            raise ManifestInvalid(f"{IDS_FILE} in {folder} does not describe {ROWS_FILE}")
        self._hashes, self._hash_rows = np.asarray(ids)  # still mapped; indexing a `memmap` object is slower

    @override
    def __len__(self) -> int:
        return len(self._rows)

    @property
    @override
    def columns(self) -> list[str]:
        return list(self._rows.schema.names)

    @override
    def column(self, name: str) -> pa.ChunkedArray:
        return self._rows.column(name)

    @override
    def column_type(self, name: str) -> pa.DataType:
        return self._rows.schema.field(name).type

    @override
    def records(self, rows: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        records = self._rows.rows(rows, columns)
        convert = {name: self._converter(name) for name in (records[0] if records else ())}
        return [{k: convert[k](v) for k, v in record.items() if v is not None} for record in records]

    @override
    def typed_records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        return [{k: v for k, v in record.items() if v is not None} for record in self._rows.rows(rows)]

    def _converter(self, name: str) -> Converter:
        """Return the conversion of a column's values for JSON; the first call looks at all of them."""
        if name not in self._converters:
            self._converters[name] = converter(self.column(name))
        return self._converters[name]

    @override
    def find(self, item_id: str) -> int | None:
        hashes, rows = self._hashes, self._hash_rows
        target = np.uint64(id_hash(item_id))
        i = int(np.searchsorted(hashes, target))
        while i < len(hashes) and hashes[i] == target:
            row = int(rows[i])
            if self._rows.value("id", row) == item_id:
                return row
            i += 1
        return None

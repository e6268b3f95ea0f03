"""Arrow IPC files for fast access to single rows, memory-mapped.

All record batches hold the same number of rows, so row r is in batch r // size. Opening reads only the footer, a row
is fetched in microseconds, and resident memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.errors import ManifestInvalid
from lookalike.types import Int64

_SIZE_KEY = b"rows_per_batch"
_MAX_SLICED_ROWS = 7  # slicing up to this many rows of a batch is faster than `take`, which has a fixed cost


class RowFileWriter:
    """Writer of batches of `rows_per_batch` rows from tables of any length; the last batch may be shorter."""

    def __init__(self, path: Path, schema: pa.Schema, rows_per_batch: int) -> None:
        self._size = rows_per_batch
        self._schema = schema.with_metadata({_SIZE_KEY: str(rows_per_batch).encode()})
        self._writer = pa.ipc.new_file(str(path), self._schema)
        self._pending: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Append rows; columns are matched by name and cast to the file's types."""
        self._pending.append(table.select(self._schema.names).cast(self._schema))
        self._rows += len(table)
        if self._rows >= self._size:
            self._flush(self._rows - self._rows % self._size)

    def close(self) -> None:
        """Write the remaining rows and the footer."""
        self._flush(self._rows)
        self._writer.close()

    def __enter__(self) -> RowFileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _flush(self, count: int) -> None:
        if not count:
            return
        table = pa.concat_tables(self._pending)
        for batch in table.slice(0, count).combine_chunks().to_batches(max_chunksize=self._size):
            self._writer.write_batch(batch)
        self._pending = [table.slice(count)]
        self._rows -= count


class RowFile:
    """Reader of a row file, memory-mapped; safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
            self._size = int((self._reader.schema.metadata or {})[_SIZE_KEY])
            self._batches = [self._reader.get_batch(i) for i in range(self._reader.num_record_batches)]
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise ManifestInvalid(f"{path} is not a readable row file: {error}") from error
        self._count = sum(len(batch) for batch in self._batches)

    def __len__(self) -> int:
        return self._count

    @property
    def schema(self) -> pa.Schema:
        """Column names and types."""
        return self._reader.schema

    def rows(self, rows: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return the records of the rows, in the given order; rows of the same batch are fetched together.

        Args:
            rows: row numbers.
            columns: the columns to read, in this order; None for all.

        Raises:
            IndexError: there is no such row.
            KeyError: there is no such column.
        """
        names = self.schema.names if columns is None else list(columns)
        if len(rows) <= _MAX_SLICED_ROWS * len(self._batches):
            return self._sliced(rows, names)
        requested = np.asarray(rows, dtype=np.int64)
        order = np.argsort(requested, kind="stable")
        ends = np.flatnonzero(np.diff(requested[order] // self._size)) + 1
        records = [record for part in np.split(requested[order], ends) for record in self._from_batch(part, names)]
        return [records[position] for position in np.argsort(order).tolist()]

    def value(self, column: str, row: int) -> Any:
        """Return one cell as a Python object."""
        return self._slice(row).column(column)[0].as_py()

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a whole column; its buffers are mapped pages of the file, read on first access."""
        return pa.chunked_array([batch.column(name) for batch in self._batches], self.schema.field(name).type)

    def null_count(self, column: str) -> int:
        """Return the number of null cells in a column, from the validity bitmaps only."""
        return sum(batch.column(column).null_count for batch in self._batches)

    def is_null(self, column: str, row: int) -> bool:
        """Return whether a cell is null, without reading its value."""
        return bool(self._slice(row).column(column).null_count)

    def _from_batch(self, rows: Int64, columns: list[str]) -> list[dict[str, Any]]:
        """Return the records of (r,) ascending rows of the same batch."""
        first, last = int(rows[0]), int(rows[-1])
        if len(rows) > _MAX_SLICED_ROWS and first >= 0 and last < self._count:
            with suppress(pa.ArrowNotImplementedError):  # `take` does not support string views, for example
                batch = self._batches[first // self._size].select(columns)
                return list(batch.take(_indices(rows % self._size)).to_pylist())
        return self._sliced(rows.tolist(), columns)

    def _sliced(self, rows: Sequence[int], columns: list[str]) -> list[dict[str, Any]]:
        """Return the records of any rows; slices are concatenated first, since converting a batch has a fixed cost."""
        slices = [self._slice(row).select(columns) for row in rows]
        if len(slices) > 1:
            slices = [pa.concat_batches(slices)]
        return [record for batch in slices for record in batch.to_pylist()]

    def _slice(self, row: int) -> pa.RecordBatch:
        if not 0 <= row < self._count:
            raise IndexError(f"row {row} of {self._count}")
        return self._batches[row // self._size].slice(row % self._size, 1)


def _indices(rows: Int64) -> pa.Array:
    """Return (r,) positions as an Arrow array; `pa.array` would import pandas, some 25 MB more in memory."""
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows)])

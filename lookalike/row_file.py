"""Arrow IPC files whose record batches all hold the same number of rows: row r lies in batch r // size, memory-mapped.

Opening reads the footer alone, a row is fetched in microseconds and resident memory does not grow with the file.
It knows nothing of what the columns mean.
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
_FEW = 7  # up to so many rows of a batch are faster sliced one by one: taking has its price, however few it takes


class RowFileWriter:
    """Takes tables of any length and writes batches of `rows_per_batch` rows; the last one may be shorter."""

    def __init__(self, path: Path, schema: pa.Schema, rows_per_batch: int) -> None:
        self._size = rows_per_batch
        self._schema = schema.with_metadata({_SIZE_KEY: str(rows_per_batch).encode()})
        self._writer = pa.ipc.new_file(str(path), self._schema)
        self._pending: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Appends rows; columns are matched by name and cast to the file's types."""
        self._pending.append(table.select(self._schema.names).cast(self._schema))
        self._rows += len(table)
        if self._rows >= self._size:
            self._flush(self._rows - self._rows % self._size)

    def close(self) -> None:
        """Writes what is pending and the footer."""
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
    """The reading side, memory-mapped; safe to call from several threads."""

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

    def rows(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The records of the given rows, in the order given; what lies in one batch is fetched together."""
        if len(rows) <= _FEW * len(self._batches):
            return self._each(rows)
        asked = np.asarray(rows, dtype=np.int64)
        order = np.argsort(asked, kind="stable")
        ends = np.flatnonzero(np.diff(asked[order] // self._size)) + 1
        found = [record for part in np.split(asked[order], ends) for record in self._of_one_batch(part)]
        return [found[place] for place in np.argsort(order).tolist()]

    def value(self, column: str, row: int) -> Any:
        """One cell as a Python object."""
        return self._slice(row).column(column)[0].as_py()

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column; its buffers are the file's own pages, read as they are touched."""
        return pa.chunked_array([batch.column(name) for batch in self._batches], self.schema.field(name).type)

    def null_count(self, column: str) -> int:
        """How many cells of a column are null, from the validity bitmaps alone."""
        return sum(batch.column(column).null_count for batch in self._batches)

    def is_null(self, column: str, row: int) -> bool:
        """Whether one cell is null; its value is not read."""
        return bool(self._slice(row).column(column).null_count)

    def _of_one_batch(self, rows: Int64) -> list[dict[str, Any]]:
        """Records of (r,) ascending rows that lie in the same batch."""
        first, last = int(rows[0]), int(rows[-1])
        if len(rows) > _FEW and first >= 0 and last < self._count:
            with suppress(pa.ArrowNotImplementedError):  # string views, for one, can't be taken
                return list(self._batches[first // self._size].take(_indices(rows % self._size)).to_pylist())
        return self._each(rows.tolist())

    def _each(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Records of rows wherever they lie, put together first: converting a batch has its price."""
        if len(rows) < 2:
            return [self._slice(row).to_pylist()[0] for row in rows]
        return list(pa.concat_batches([self._slice(row) for row in rows]).to_pylist())

    def _slice(self, row: int) -> pa.RecordBatch:
        if not 0 <= row < self._count:
            raise IndexError(f"row {row} of {self._count}")
        return self._batches[row // self._size].slice(row % self._size, 1)


def _indices(rows: Int64) -> pa.Array:
    """(r,) places as Arrow wants them; `pa.array` would import pandas, some 25 MB more in memory."""
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows)])

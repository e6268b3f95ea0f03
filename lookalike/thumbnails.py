"""Row -> thumbnail bytes (JPEG, at most 256 pixels a side), memory-mapped, so that the page needs no originals."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from lookalike.row_file import RowFile, RowFileWriter

THUMBNAILS_FILE = "thumbnails.arrow"
_SCHEMA = pa.schema([pa.field("thumbnail", pa.binary())])
_ROWS_PER_BATCH = 1_024


def thumbnail_writer(folder: Path) -> RowFileWriter:
    """Takes tables with the binary column `thumbnail` (null where a row has none) in row order; close it."""
    return RowFileWriter(folder / THUMBNAILS_FILE, _SCHEMA, _ROWS_PER_BATCH)


def write_thumbnails(folder: Path, chunks: Iterable[pa.Array]) -> None:
    """Streams binary arrays (null where a row has no thumbnail) in row order."""
    with thumbnail_writer(folder) as writer:
        for chunk in chunks:
            writer.add(pa.Table.from_arrays([chunk.cast(pa.binary())], schema=_SCHEMA))


class Thumbnails:
    """The reading side; safe to call from several threads."""

    def __init__(self, folder: Path) -> None:
        self._rows = RowFile(folder / THUMBNAILS_FILE)
        missing = self._rows.null_count("thumbnail")
        self._complete, self._empty = missing == 0, missing == len(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, row: int) -> bytes | None:
        """The JPEG bytes of a row, None where it has none."""
        value: bytes | None = self._rows.value("thumbnail", row)
        return value

    def has(self, row: int) -> bool:
        """Whether a row has a thumbnail; its bytes are not read."""
        return self._complete or not (self._empty or self._rows.is_null("thumbnail", row))

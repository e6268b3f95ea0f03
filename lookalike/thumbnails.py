"""Thumbnails of a collection: row -> JPEG bytes of at most 256 x 256 pixels, memory-mapped.

The search page shows them, so that it does not need the original images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from typing_extensions import override

from lookalike.row_file import RowFile, RowFileWriter

THUMBNAILS_FILE = "thumbnails.arrow"
_SCHEMA = pa.schema([pa.field("thumbnail", pa.binary())])
_ROWS_PER_BATCH = 1_024


def thumbnail_writer(folder: Path) -> RowFileWriter:
    """Return a writer of tables in row order with a binary column `thumbnail`, null for none; the caller closes it."""
    return RowFileWriter(folder / THUMBNAILS_FILE, _SCHEMA, _ROWS_PER_BATCH)


def write_thumbnails(folder: Path, chunks: Iterable[pa.Array]) -> None:
    """Write binary arrays in row order, null for a row without a thumbnail."""
    with thumbnail_writer(folder) as writer:
        for chunk in chunks:
            writer.add(pa.Table.from_arrays([chunk.cast(pa.binary())], schema=_SCHEMA))


class ThumbnailSource(ABC):
    """Thumbnails by row; safe to call from several threads."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def get(self, row: int) -> bytes | None:
        """Return the JPEG bytes of a row, None if it has no thumbnail."""

    @abstractmethod
    def has(self, row: int) -> bool:
        """Return whether a row has a thumbnail, without reading it."""


class Thumbnails(ThumbnailSource):
    """Thumbnails of an opened version, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        self._rows = RowFile(folder / THUMBNAILS_FILE)
        missing = self._rows.null_count("thumbnail")
        self._complete, self._empty = missing == 0, missing == len(self._rows)

    @override
    def __len__(self) -> int:
        return len(self._rows)

    @override
    def get(self, row: int) -> bytes | None:
        value: bytes | None = self._rows.value("thumbnail", row)
        return value

    @override
    def has(self, row: int) -> bool:
        return self._complete or not (self._empty or self._rows.is_null("thumbnail", row))

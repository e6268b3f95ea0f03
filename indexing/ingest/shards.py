"""Shards of encoded images in the work folder: small files that survive the job's end.

A row is one encoded (or rejected) image. It is looked up by its id's hash and its fingerprint, so a job that was killed
resumes whatever the order of the images. A shard is written whole every few seconds: a kill loses no more than that.

Dimension letters: d embedding width, m rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from typing_extensions import override

from indexing.arrow_files import read_table, write_table
from indexing.ingest.reusable_embeddings import ReusableEmbeddings
from indexing.metadata_tables import conform
from indexing.row_stream import CONTENT_HASH_BYTES, ENCODED_SCHEMA, content_hashes_of
from lookalike.types import Int64, UInt8, UInt64

MAX_SHARD_ROWS = 2_048
MAX_SHARD_SECONDS = 5.0
_MAX_OPEN_SHARDS = 16


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One image's embedding and thumbnail, or an error code and message; the columns of `ENCODED_SCHEMA`.

    Attributes:
        id_hash: `lookalike.metadata.id_hash` of its id.
        fingerprint: of the image and the options that decide how it is decoded.
        vector: d float16 as bytes; None where it was rejected, like the next four.
        thumbnail: image bytes.
        width: of the original, pixels.
        height: of the original, pixels.
        format: `JPEG`, ...
        code: of the error; None where it was encoded.
        message: of the error.
        content_hash: `indexing.ingest.decoding.content_hash` of the file; None where it was rejected.
        truncated: True where the end of the file is missing, and it was read as far as it goes; None otherwise.
    """

    id_hash: int
    fingerprint: int
    vector: bytes | None = None
    thumbnail: bytes | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    code: str | None = None
    message: str | None = None
    content_hash: bytes | None = None
    truncated: bool | None = None


_KEYS = pa.schema([("id_hash", pa.uint64()), ("fingerprint", pa.uint64()), ("rejected", pa.bool_())])


class ShardWriter:
    """Collects rows and writes them as shards; leaving the context writes the remaining rows, errors or not.

    Args:
        folder: the work folder; shards of an earlier run stay.
        seconds: maximum age of the oldest unwritten row.

    Attributes:
        first: the number of the first shard that it writes.
    """

    def __init__(self, folder: Path, seconds: float = MAX_SHARD_SECONDS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._seconds = seconds
        self.first = self._next = 1 + max(map(_number, shard_files(folder)), default=-1)
        self._rows: list[EncodedRow] = []
        self._oldest_at = 0.0

    def add(self, rows: Sequence[EncodedRow]) -> None:
        """Add rows; write a shard when it is full or old enough."""
        if not self._rows:
            self._oldest_at = time.monotonic()
        self._rows += rows
        if len(self._rows) >= MAX_SHARD_ROWS or time.monotonic() - self._oldest_at >= self._seconds:
            self.flush()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def flush(self) -> None:
        """Write the collected rows as a shard."""
        if self._rows:
            table = pa.Table.from_pylist([asdict(row) for row in self._rows], schema=ENCODED_SCHEMA)
            write_table(self._folder / f"encoded-{self._next:08d}.arrow", table)
            self._next += 1
            self._rows = []


class ShardPool(ReusableEmbeddings):
    """The shards of a work folder, searchable: 24 bytes of memory a row.

    Args:
        folder: the work folder.
        rejected: whether to find rejected images too; if not, a later run tries them again.
        first: the number of the first shard to read.
    """

    def __init__(self, folder: Path, *, rejected: bool = True, first: int = 0) -> None:
        self._files = [path for path in shard_files(folder) if _number(path) >= first]
        keys = [_keys(path) for path in self._files]
        self._starts = np.cumsum([0, *map(len, keys)])
        table = pa.concat_tables([_KEYS.empty_table(), *keys])
        id_hashes, fingerprints, bad = (table.column(name).to_numpy() for name in _KEYS.names)
        mixed = id_hashes ^ fingerprints  # both are uniform, so is this; id_hash decides again below
        # Of two rows for one image, one that was encoded comes first, and of these the newest.
        order = np.lexsort((-np.arange(len(mixed)), bad, mixed))
        self._order = order if rejected else order[~bad[order]]
        self._mixed, self._id_hashes = mixed[self._order], id_hashes[self._order]
        self._open = lru_cache(maxsize=_MAX_OPEN_SHARDS)(_read_shard)

    def __len__(self) -> int:
        return len(self._order)

    @override
    def find(self, id_hashes: UInt64, fingerprints: UInt64) -> Int64:
        if not len(self):
            return np.full(len(id_hashes), -1, np.int64)
        mixed = id_hashes ^ fingerprints
        place = np.minimum(np.searchsorted(self._mixed, mixed), len(self) - 1)
        hit = (self._mixed[place] == mixed) & (self._id_hashes[place] == id_hashes)
        return np.where(hit, self._order[place], -1)

    @override
    def content_hashes(self) -> UInt8:
        hashes = [content_hashes_of(_read_shard(path)) for path in self._files]
        return np.concatenate([np.empty((0, CONTENT_HASH_BYTES), np.uint8), *hashes])

    @override
    def take(self, rows: Int64) -> pa.Table:
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        pieces, places = [ENCODED_SCHEMA.empty_table()], [np.empty(0, np.int64)]
        for shard in np.unique(shards):
            place = np.flatnonzero(shards == shard)
            pieces.append(self._open(self._files[shard]).take(rows[place] - self._starts[shard]))
            places.append(place)
        return pa.concat_tables(pieces).take(np.argsort(np.concatenate(places)))


def _read_shard(path: Path) -> pa.Table:
    """Return a shard; columns that it lacks, since an earlier release wrote it, are null."""
    return conform(read_table(path), ENCODED_SCHEMA)


def _keys(path: Path) -> pa.Table:
    shard = _read_shard(path)
    columns = [shard.column("id_hash"), shard.column("fingerprint"), shard.column("code").is_valid()]
    return pa.table(columns, schema=_KEYS)


def shard_files(folder: Path) -> list[Path]:
    """Return the finished shards, oldest first."""
    return sorted(folder.glob("encoded-*.arrow"))


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])

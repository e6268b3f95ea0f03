"""Shards of encoded images in the work folder or in a bucket: small files that survive the job's end.

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

from indexing.ingest.reusable_embeddings import ReusableEmbeddings
from indexing.ingest.shard_storage import KEYS, FolderShards, ShardStorage, number_of_shard, shard_name
from indexing.row_stream import ENCODED_SCHEMA, content_hashes_of
from lookalike.prepared_image import CONTENT_HASH_BYTES
from lookalike.types import Int64, UInt8, UInt64

MAX_SHARD_ROWS = 2_048
_MAX_OPEN_SHARDS = 16
_IDENTITY = ["id_hash", "fingerprint", "rejected"]


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
        content_hash: `lookalike.prepared_image.content_hash` of the file; None where it was rejected.
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


class ShardWriter:
    """Collects rows and writes them as shards; leaving the context writes the remaining rows, errors or not.

    Args:
        place: the work folder or another storage; shards of an earlier run stay.
        seconds: maximum age of the oldest unwritten row; with 0, each call of `add` writes a shard.

    Attributes:
        first: the number of the first shard that it writes.
    """

    def __init__(self, place: Path | ShardStorage, seconds: float) -> None:
        self._storage = _storage(place)
        self._seconds = seconds
        self.first = self._next = 1 + max(map(number_of_shard, self._storage.names()), default=-1)
        self._rows: list[EncodedRow] = []
        self._oldest_at = 0.0

    def add(self, rows: Sequence[EncodedRow]) -> None:
        """Add rows; write a shard when it is full or old enough."""
        if not rows:
            return
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
            self._storage.write(shard_name(self._next), table)
            self._next += 1
            self._rows = []


class ShardPool(ReusableEmbeddings):
    """The shards of a work folder or another storage, searchable: 24 bytes of memory a row.

    Args:
        place: the work folder or the storage.
        rejected: whether to find rejected images too; if not, a later run tries them again.
        first: the number of the first shard to read.
    """

    def __init__(self, place: Path | ShardStorage, *, rejected: bool = True, first: int = 0) -> None:
        self._storage = _storage(place)
        self._names = [name for name in self._storage.names() if number_of_shard(name) >= first]
        keys = [self._storage.keys(name).select(_IDENTITY) for name in self._names]
        self._starts = np.cumsum([0, *map(len, keys)])
        table = pa.concat_tables([KEYS.empty_table().select(_IDENTITY), *keys])
        id_hashes, fingerprints, bad = (table.column(name).to_numpy() for name in _IDENTITY)
        mixed = id_hashes ^ fingerprints  # both are uniform, so is this; id_hash decides again below
        # Of two rows for one image, one that was encoded comes first, and of these the newest.
        order = np.lexsort((-np.arange(len(mixed)), bad, mixed))
        self._order = order if rejected else order[~bad[order]]
        self._mixed, self._id_hashes = mixed[self._order], id_hashes[self._order]
        self._open = lru_cache(maxsize=_MAX_OPEN_SHARDS)(self._storage.read)

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
        hashes = [content_hashes_of(self._storage.keys(name)) for name in self._names]
        return np.concatenate([np.empty((0, CONTENT_HASH_BYTES), np.uint8), *hashes])

    @override
    def take(self, rows: Int64) -> pa.Table:
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        pieces, places = [ENCODED_SCHEMA.empty_table()], [np.empty(0, np.int64)]
        for shard in np.unique(shards):
            place = np.flatnonzero(shards == shard)
            pieces.append(self._open(self._names[shard]).take(rows[place] - self._starts[shard]))
            places.append(place)
        return pa.concat_tables(pieces).take(np.argsort(np.concatenate(places)))


def _storage(place: Path | ShardStorage) -> ShardStorage:
    return FolderShards(place) if isinstance(place, Path) else place

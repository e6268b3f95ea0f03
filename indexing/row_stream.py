"""The rows of a version on their way to the builder: the job and the import produce them, `indexing.build` writes them.

Dimension letters: m rows of a chunk, d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lookalike.prepared_image import CONTENT_HASH_BYTES
from lookalike.types import Float16, UInt8

FINGERPRINTS = "fingerprints.npy"
"""File of (n,) uint64 next to `vectors.npy`: the fingerprint of each row's image."""

CONTENT_HASHES = "content_hashes.npy"
"""File of (n, 16) uint8 next to `vectors.npy`: the content hash of each row's image, zeros where it is unknown."""

ENCODED_SCHEMA = pa.schema(
    [
        ("id_hash", pa.uint64()),
        ("fingerprint", pa.uint64()),
        ("vector", pa.binary()),
        ("thumbnail", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("code", pa.string()),
        ("message", pa.string()),
        ("content_hash", pa.binary(CONTENT_HASH_BYTES)),
        ("truncated", pa.bool_()),
    ]
)
"""Columns of an encoded or rejected image, see `indexing.ingest.shards.EncodedRow`."""

REJECTED_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "source", "path", "code", "message")])
"""Columns of `rejected.parquet`."""


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Consecutive items.

    Attributes:
        encoded: (m, columns of ENCODED_SCHEMA) of the items that have a vector, in row order.
        metadata: their metadata, as the sources gave it.
        rejected: columns of REJECTED_SCHEMA of the items that have none.
        left_out: number of items that are in neither, since a write put or deleted them.
    """

    encoded: pa.Table
    metadata: pa.Table
    rejected: pa.Table
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class RowStream:
    """All rows of a version.

    Attributes:
        chunks: in row order.
        schema: of the metadata, without the columns that are measured on images.
        seen: number of items, rejected ones and those that are left out included.
        kept: what is kept where the disk is full, for the error message.
        skipped: number of files that the sources skipped.
        is_complete: whether `schema` and the metadata have all columns of the version, the measured ones included.
    """

    chunks: Iterable[RowChunk]
    schema: pa.Schema
    seen: int
    kept: str = "what was encoded is kept"
    skipped: int = 0
    is_complete: bool = False


def vectors_of(table: pa.Table, dim: int) -> Float16:
    """Return the column `vector` of rows that all have one, (m, d) float16."""
    return np.frombuffer(b"".join(table.column("vector").to_pylist()), np.float16).reshape(len(table), dim)


def content_hashes_of(table: pa.Table) -> UInt8:
    """Return the column `content_hash`, (m, 16) uint8; zeros where it is null."""
    unknown = bytes(CONTENT_HASH_BYTES)
    hashes = (value or unknown for value in table.column("content_hash").to_pylist())
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(len(table), CONTENT_HASH_BYTES)

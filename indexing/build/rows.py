"""Writer of a version's row files: vectors, identities, metadata, thumbnails and rejects, in one streaming pass.

Dimension letters: n rows of the version, d embedding width.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexing.build.npy_writer import NpyWriter
from indexing.metadata_tables import conform
from indexing.row_stream import (
    CONTENT_HASHES,
    FINGERPRINTS,
    REJECTED_SCHEMA,
    RowChunk,
    content_hashes_of,
    vectors_of,
)
from lookalike.collection import REJECTED, VECTORS
from lookalike.metadata import write_metadata
from lookalike.prepared_image import CONTENT_HASH_BYTES
from lookalike.sources.columns import RESERVED_COLUMNS
from lookalike.thumbnails import thumbnail_writer

MAX_SAMPLED_CAPTIONS = 1_000
_IMAGE_SCHEMA = pa.schema(
    [("width", pa.int32()), ("height", pa.int32()), ("format", pa.string()), ("truncated", pa.bool_())]
)


@dataclass(slots=True)
class RowCounts:
    """Counts of the written rows.

    Attributes:
        indexed: n.
        rejected: error code -> number of items.
        captions: a fixed sample of at most MAX_SAMPLED_CAPTIONS captions.
        first_error: the first rejected item's message; None if none was rejected.
        left_out: items that a write put or deleted.
    """

    indexed: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    captions: list[str] = field(default_factory=list)
    first_error: str | None = None
    left_out: int = 0


def write_rows(
    folder: Path, chunks: Iterable[RowChunk], planned: pa.Schema, dim: int, *, is_complete: bool = False
) -> RowCounts:
    """Write the files of a version, except for its store and manifest.

    Args:
        folder: the staging folder.
        chunks: in row order.
        planned: the plan's metadata schema.
        dim: d.
        is_complete: whether `planned` and the metadata have all columns of the version.
    """
    counts, sample = RowCounts(), _CaptionSample()
    with ExitStack() as stack:
        vectors = stack.enter_context(NpyWriter(folder / VECTORS, np.dtype(np.float16), (dim,)))
        fingerprints = stack.enter_context(NpyWriter(folder / FINGERPRINTS, np.dtype(np.uint64), ()))
        hashes = stack.enter_context(NpyWriter(folder / CONTENT_HASHES, np.dtype(np.uint8), (CONTENT_HASH_BYTES,)))
        thumbnails = stack.enter_context(thumbnail_writer(folder))
        rejected = stack.enter_context(pq.ParquetWriter(folder / REJECTED, REJECTED_SCHEMA, compression="zstd"))

        def metadata() -> Iterator[pa.Table]:
            for chunk in chunks:
                vectors.append(vectors_of(chunk.encoded, dim))
                fingerprints.append(chunk.encoded.column("fingerprint").to_numpy())
                hashes.append(content_hashes_of(chunk.encoded))
                thumbnails.add(chunk.encoded.select(["thumbnail"]))
                if len(chunk.rejected):
                    rejected.write_table(chunk.rejected)
                    counts.rejected.update(chunk.rejected.column("code").to_pylist())
                    counts.first_error = counts.first_error or chunk.rejected.column("message")[0].as_py()
                counts.left_out += chunk.left_out
                sample.add(chunk)
                yield conform(chunk.metadata, schema) if is_complete else _metadata(chunk, schema)

        schema = planned if is_complete else _schema(planned)
        counts.indexed = write_metadata(folder, schema, metadata())
    counts.captions = sample.captions()
    return counts


def _schema(planned: pa.Schema) -> pa.Schema:
    """Return the job's own columns first, then the sources' in order of appearance."""
    own = [name for name in RESERVED_COLUMNS if name in planned.names or name in _IMAGE_SCHEMA.names]
    fields = [_IMAGE_SCHEMA.field(name) if name in _IMAGE_SCHEMA.names else planned.field(name) for name in own]
    return pa.schema([*fields, *(field for field in planned if field.name not in own)])


def _metadata(chunk: RowChunk, schema: pa.Schema) -> pa.Table:
    table = chunk.metadata
    for name in _IMAGE_SCHEMA.names:
        table = table.append_column(name, chunk.encoded.column(name))
    return conform(table, schema)


class _CaptionSample:
    """A sample of captions that is the same in every run: those of the items with the smallest id hashes."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []

    def add(self, chunk: RowChunk) -> None:
        if "caption" not in chunk.metadata.column_names:
            return
        hashes = chunk.encoded.column("id_hash").to_pylist()
        for hash_, caption in zip(hashes, chunk.metadata.column("caption").to_pylist(), strict=True):
            if not isinstance(caption, str):
                continue
            entry = (-hash_, caption)
            if len(self._heap) < MAX_SAMPLED_CAPTIONS:
                heapq.heappush(self._heap, entry)
            elif entry > self._heap[0]:
                heapq.heapreplace(self._heap, entry)

    def captions(self) -> list[str]:
        return [caption for _, caption in sorted(self._heap, reverse=True)]

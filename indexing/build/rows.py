"""The row files of a version: vectors, fingerprints, metadata, thumbnails and rejects, in one streaming pass.

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

from indexing.build.npyfile import NpyWriter
from indexing.build.tables import conformed
from indexing.ingest.join import REJECTED_SCHEMA, Joined
from indexing.ingest.previous_version import FINGERPRINTS
from indexing.ingest.shards import vectors_of
from lookalike.collection import REJECTED, VECTORS
from lookalike.metadata import write_metadata
from lookalike.sources.columns import RESERVED_COLUMNS
from lookalike.thumbnails import thumbnail_writer

SAMPLED_CAPTIONS = 1_000
_MEASURED = pa.schema([("width", pa.int32()), ("height", pa.int32()), ("format", pa.string())])


@dataclass(slots=True)
class Rows:
    """What was written.

    Attributes:
        indexed: n.
        rejected: error code -> how many items.
        captions: a fixed sample of at most SAMPLED_CAPTIONS captions.
        example: the first rejected item's message, None where there is none.
    """

    indexed: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    captions: list[str] = field(default_factory=list)
    example: str | None = None


def write_rows(folder: Path, chunks: Iterable[Joined], planned: pa.Schema, dim: int) -> Rows:
    """Writes the files of a version, but for its store and manifest.

    Args:
        folder: the staging folder.
        chunks: in row order.
        planned: the plan's metadata schema.
        dim: d.
    """
    rows, sample = Rows(), _CaptionSample()
    with ExitStack() as stack:
        vectors = stack.enter_context(NpyWriter(folder / VECTORS, np.dtype(np.float16), (dim,)))
        fingerprints = stack.enter_context(NpyWriter(folder / FINGERPRINTS, np.dtype(np.uint64), ()))
        thumbnails = stack.enter_context(thumbnail_writer(folder))
        rejected = stack.enter_context(pq.ParquetWriter(folder / REJECTED, REJECTED_SCHEMA, compression="zstd"))

        def metadata() -> Iterator[pa.Table]:
            for chunk in chunks:
                vectors.append(vectors_of(chunk.kept, dim))
                fingerprints.append(chunk.kept.column("fingerprint").to_numpy())
                thumbnails.add(chunk.kept.select(["thumbnail"]))
                if len(chunk.rejected):
                    rejected.write_table(chunk.rejected)
                    rows.rejected.update(chunk.rejected.column("code").to_pylist())
                    rows.example = rows.example or chunk.rejected.column("message")[0].as_py()
                sample.add(chunk)
                yield _metadata(chunk, schema)

        schema = _schema(planned)
        rows.indexed = write_metadata(folder, schema, metadata())
    rows.captions = sample.captions()
    return rows


def _schema(planned: pa.Schema) -> pa.Schema:
    """The job's own columns first, then the sources' in order of appearance."""
    own = [name for name in RESERVED_COLUMNS if name in planned.names or name in _MEASURED.names]
    fields = [_MEASURED.field(name) if name in _MEASURED.names else planned.field(name) for name in own]
    return pa.schema([*fields, *(field for field in planned if field.name not in own)])


def _metadata(chunk: Joined, schema: pa.Schema) -> pa.Table:
    table = chunk.metadata
    for name in _MEASURED.names:
        table = table.append_column(name, chunk.kept.column(name))
    return conformed(table, schema)


class _CaptionSample:
    """The captions of the items with the smallest id hashes: a sample that is the same in every run."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []

    def add(self, chunk: Joined) -> None:
        if "caption" not in chunk.metadata.column_names:
            return
        hashes = chunk.kept.column("id_hash").to_pylist()
        for identity, caption in zip(hashes, chunk.metadata.column("caption").to_pylist(), strict=True):
            if not isinstance(caption, str):
                continue
            entry = (-identity, caption)
            if len(self._heap) < SAMPLED_CAPTIONS:
                heapq.heappush(self._heap, entry)
            elif entry > self._heap[0]:
                heapq.heapreplace(self._heap, entry)

    def captions(self) -> list[str]:
        return [caption for _, caption in sorted(self._heap, reverse=True)]

"""The rows of an import: normalised vectors, checked ids, and what their local images give.

Dimension letters: m rows of a batch, d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexing.importing.columns import ColumnMapping
from indexing.importing.embeddings import EmbeddingBatch, Embeddings
from indexing.importing.local_images import LocalImages
from indexing.importing.unique_ids import UniqueIds
from indexing.metadata_tables import common_schema
from indexing.progress import Progress
from indexing.row_stream import ENCODED_SCHEMA, REJECTED_SCHEMA, RowChunk
from lookalike.errors import EncoderMismatch, LookalikeError, SourceError, VectorInvalid
from lookalike.metadata import id_hash
from lookalike.sources.item import ColumnNames
from lookalike.types import Float32

_MIN_AGREEMENT = 0.9
"""Median cosine of stored vectors and images encoded again; engines and decoders differ by far less."""


class ImportedRows:
    """The embeddings' batches as the builder takes them.

    Args:
        embeddings: the source.
        columns: the columns that the user named.
        images: the rows' local images.
        progress: counts the rows.
        encoder: the encoder's name, for messages.
        unchecked: accept vectors that another encoder seems to have made.
        number_rows: make the ids from the rows' numbers.

    Attributes:
        schema: of the metadata.
        image_count: rows with a thumbnail so far.
        ids: makes the rows' ids unique.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        columns: ColumnNames,
        images: LocalImages,
        progress: Progress,
        *,
        encoder: str,
        unchecked: bool,
        number_rows: bool = False,
    ) -> None:
        self._embeddings, self._images, self._progress = embeddings, images, progress
        self._encoder, self._unchecked = encoder, unchecked
        self._columns = ColumnMapping(
            embeddings.schema, columns, embeddings.source, embeddings.has_metadata, number_rows
        )
        self.ids = UniqueIds()
        self.schema = common_schema([self._columns.schema])
        self.image_count = 0

    def __iter__(self) -> Iterator[RowChunk]:
        for batch in self._embeddings:
            yield self._chunk(batch)

    def _chunk(self, batch: EmbeddingBatch) -> RowChunk:
        norms = np.sqrt(np.vecdot(batch.vectors, batch.vectors, dtype=np.float64))
        metadata = self._columns.apply(batch)
        ids = metadata.column("id").to_pylist()
        errors = [_error(item_id, norm) for item_id, norm in zip(ids, norms, strict=True)]
        unique = [item_id if error else self.ids.add(item_id) for item_id, error in zip(ids, errors, strict=True)]
        metadata = metadata.set_column(0, "id", pa.array(unique, pa.string()))
        good = np.array([error is None for error in errors])
        unit = (batch.vectors[good] / norms[good, None]).astype(np.float32)
        accepted = metadata.filter(pa.array(good))
        paths = _values(accepted, "path")
        images = self._images.read(paths)
        self.image_count += len(images) - images.column("thumbnail").null_count
        if self._images.compare(paths, images, unit):
            self._require_agreement()
        self._progress.add(reused=int(good.sum()), rejected=int((~good).sum()))
        return RowChunk(_encoded(accepted, unit, images), accepted, _rejected(metadata, errors))

    def _require_agreement(self) -> None:
        agreement = self._images.agreement
        if agreement is not None and agreement < _MIN_AGREEMENT and not self._unchecked:
            raise EncoderMismatch(
                f"{len(self._images.cosines)} images encoded with {self._encoder!r} have a median cosine of "
                f"{agreement:.2f} with their vectors in {self._embeddings.source}: another encoder made those. Name "
                "it, or import them without this check by --unchecked"
            )


def _error(item_id: str | None, norm: float) -> LookalikeError | None:
    """Return why a row is rejected; None for accepted ones."""
    if not item_id:
        return SourceError("the row has no id; --number-rows makes ids from row numbers")
    if not (np.isfinite(norm) and norm > 0):
        return VectorInvalid(f"the vector has norm {norm}; nothing can be compared with it")
    return None


def _encoded(metadata: pa.Table, unit: Float32, images: pa.Table) -> pa.Table:
    """Return the columns of ENCODED_SCHEMA; a size that no image gives is the metadata's."""
    count = len(metadata)
    columns = {
        "id_hash": pa.array([id_hash(item_id) for item_id in metadata.column("id").to_pylist()], pa.uint64()),
        "fingerprint": pa.array(np.zeros(count, np.uint64)),
        "vector": pa.array([row.tobytes() for row in unit.astype(np.float16)], pa.binary()),
        "thumbnail": images.column("thumbnail"),
        **{name: pc.coalesce(images.column(name), _declared_size(name, metadata)) for name in ("width", "height")},
        "format": images.column("format"),
        "truncated": images.column("truncated"),
        "code": pa.nulls(count, pa.string()),
        "message": pa.nulls(count, pa.string()),
        "content_hash": pa.nulls(count, ENCODED_SCHEMA.field("content_hash").type),  # another tool made the vectors
    }
    return pa.table(columns, schema=ENCODED_SCHEMA)


def _declared_size(name: str, metadata: pa.Table) -> pa.Array:
    """Return the source's own width or height, null where it is no positive number."""
    declared = _values(metadata, f"_{name}")
    whole = [int(value) if isinstance(value, int | float) and 0 < value < 2**31 else None for value in declared]
    return pa.array(whole, pa.int32())


def _rejected(metadata: pa.Table, errors: Sequence[LookalikeError | None]) -> pa.Table:
    rows = [
        {"id": item_id, "source": None, "path": path, "code": error.code, "message": str(error)}
        for item_id, path, error in zip(
            metadata.column("id").to_pylist(), _values(metadata, "path"), errors, strict=True
        )
        if error is not None
    ]
    return pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA)


def _values(table: pa.Table, name: str) -> list[Any]:
    """Return a column's values, None for each row if there is no such column."""
    values: list[Any] = table.column(name).to_pylist() if name in table.column_names else [None] * len(table)
    return values

"""Reader of other tools' embeddings: batches of vectors with their metadata rows, in the files' order.

    clip-retrieval, LAION     img_emb/img_emb_0.npy, ... with metadata/metadata_0.parquet, ...; or both in one folder
    any folder                *.npy with *.parquet, in the order of the numbers in their names
    one file                  vectors.npy, or a FAISS index, with --metadata

No file is loaded as a whole.

Dimension letters: m rows of a batch, d embedding width.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from indexing.metadata_tables import common_schema, conform
from lookalike.errors import SourceError, SourceNotFound
from lookalike.paths import exists, names_in
from lookalike.sources.columns import unique_names, valid_text_columns
from lookalike.sources.item import read_error
from lookalike.stores.faiss.stored_vectors import open_vectors
from lookalike.types import Float32, Int64

MAX_BATCH_ROWS = 2_048
_INDEX_ENDINGS = (".index", ".faiss")
_ROW = "row"
_ROW_NUMBERS = pa.schema([pa.field(_ROW, pa.int64())])
_TABLE_ENDINGS = (".parquet", ".pq")
_READ_ERRORS = (OSError, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """Consecutive rows.

    Attributes:
        vectors: (m, d) float32 as stored, not normalised.
        metadata: m rows; without metadata a column `row` with their numbers.
        numbers: (m,) positions in the source from 0, or, without metadata, the ids of a FAISS index.
    """

    vectors: Float32
    metadata: pa.Table
    numbers: Int64


@dataclass(frozen=True, slots=True)
class _VectorFile:
    """A file of vectors that are read a range at a time; `ids` are those of a FAISS index."""

    name: str
    count: int
    dim: int
    read: Callable[[int, int], Float32]
    ids: Int64 | None = None


class Embeddings:
    """Vectors and metadata that another tool wrote.

    Args:
        source: a folder, a `.npy` file or a FAISS index.
        metadata: Parquet file or folder of them; None for those beside the vectors.

    Raises:
        SourceNotFound: a path does not exist.
        SourceError: there are no vectors, a file can't be read, or widths or counts differ.
    """

    def __init__(self, source: Path, metadata: Path | None = None) -> None:
        if not _exists(source):
            raise SourceNotFound(f"{source} does not exist; name a folder of embeddings, a .npy file or a FAISS index")
        self.source = source
        self._vectors = _find_vectors(source)
        self._tables = _find_tables(source, metadata)
        self.has_metadata = bool(self._tables)
        self.approximate = any(vectors.name.endswith("(approximate)") for vectors in self._vectors)
        self.count = sum(vectors.count for vectors in self._vectors)
        self.dim = self._vectors[0].dim
        for vectors in self._vectors:
            if vectors.dim != self.dim:
                raise SourceError(f"{vectors.name} has width {vectors.dim}, {self._vectors[0].name} {self.dim}")
        self.schema = self._check_tables()

    def __iter__(self) -> Iterator[EmbeddingBatch]:
        position = 0
        for table in self._metadata():
            stop = position + len(table)
            yield EmbeddingBatch(self._rows(position, stop), table, self._row_numbers(position, stop))
            position = stop

    def _metadata(self) -> Iterator[pa.Table]:
        if not self._tables:
            for start in range(0, self.count, MAX_BATCH_ROWS):
                rows = min(MAX_BATCH_ROWS, self.count - start)
                yield pa.table({_ROW: self._row_numbers(start, start + rows)})
            return
        for path in self._tables:
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=MAX_BATCH_ROWS):
                        named = batch.rename_columns(unique_names(batch.schema.names))
                        yield conform(valid_text_columns(pa.table(named)), self.schema)
            except _READ_ERRORS as error:
                raise SourceError(f"{path} can't be read: {_reason(error)}") from error

    def _rows(self, start: int, stop: int) -> Float32:
        """Return (stop - start, d) vectors across the files' boundaries."""
        parts, first = [], 0
        for vectors in self._vectors:
            low, high = max(start - first, 0), min(stop - first, vectors.count)
            if low < high:
                parts.append(vectors.read(low, high))
            first += vectors.count
        return np.concatenate(parts)

    def _row_numbers(self, start: int, stop: int) -> Int64:
        ids = None if self.has_metadata else self._vectors[0].ids
        return np.arange(start, stop) if ids is None else ids[start:stop]

    def _check_tables(self) -> pa.Schema:
        """Pair the files if there are as many of each; else only the total counts must agree."""
        counts = []
        schemas = []
        for path in self._tables:
            try:
                counts.append(int(pq.read_metadata(path).num_rows))
                schema = pq.read_schema(path)
                schemas.append(pa.schema(zip(unique_names(schema.names), schema.types, strict=True)))
            except _READ_ERRORS as error:
                raise SourceError(f"{path} can't be read: {_reason(error)}") from error
        if len(self._tables) == len(self._vectors):
            _require_pairs([vectors.name for vectors in self._vectors], [path.name for path in self._tables])
            for vectors, path, rows in zip(self._vectors, self._tables, counts, strict=True):
                if vectors.count != rows:
                    raise SourceError(f"{vectors.name} holds {vectors.count:,} vectors, {path.name} {rows:,} rows")
        elif self._tables and sum(counts) != self.count:
            raise SourceError(f"{self.source} holds {self.count:,} vectors, its metadata {sum(counts):,} rows")
        return common_schema(schemas) if schemas else _ROW_NUMBERS


def _find_vectors(source: Path) -> list[_VectorFile]:
    if source.is_file():
        return [_open_index(source) if source.suffix in _INDEX_ENDINGS else _open_npy(source)]
    for folder, pattern in ((source / "img_emb", "*.npy"), (source, "img_emb_*.npy"), (source, "*.npy")):
        if found := sorted(_matches(folder, pattern), key=_numbers):
            return [_open_npy(path) for path in found]
    indexes = [path for ending in _INDEX_ENDINGS for path in _matches(source, f"*{ending}")]
    images = [path for path in indexes if path.stem == "image"] or indexes
    if len(images) == 1:
        return [_open_index(images[0])]
    if images:
        raise SourceError(f"{source} holds several indexes ({', '.join(p.name for p in images)}); name one of them")
    raise SourceError(f"{source} holds no .npy file (nor in img_emb/) and no FAISS index (.index, .faiss)")


def _find_tables(source: Path, named: Path | None) -> list[Path]:
    if named is not None:
        if not _exists(named):
            raise SourceNotFound(f"{named} does not exist; --metadata takes a Parquet file or a folder of them")
        return _tables_in(named, "*") if named.is_dir() else [named]
    if source.is_file():
        siblings = [source.with_suffix(ending) for ending in _TABLE_ENDINGS]
        return [path for path in siblings if _exists(path)] or _tables_in(source.parent / "metadata", "*")
    for folder, pattern in ((source / "metadata", "*"), (source, "metadata_*"), (source, "*")):
        if found := _tables_in(folder, pattern):
            return found
    return []


def _tables_in(folder: Path, pattern: str) -> list[Path]:
    return sorted((path for ending in _TABLE_ENDINGS for path in _matches(folder, pattern + ending)), key=_numbers)


def _exists(path: Path) -> bool:
    try:
        return exists(path)
    except OSError as error:
        raise read_error(path, error) from error


def _matches(folder: Path, pattern: str) -> list[Path]:
    """Return the files in a folder whose names match; a folder that can't be listed is an error, unlike in a glob."""
    try:
        return [folder / name for name in names_in(folder) if fnmatchcase(name, pattern)]
    except OSError as error:
        raise read_error(folder, error) from error


def _numbers(path: Path) -> tuple[Sequence[int], str]:
    """Sort key: the numbers in a file's name, so that 2 is before 10."""
    return [int(number) for number in re.findall(r"\d+", path.name)], path.name


def _require_pairs(vectors: Sequence[str], tables: Sequence[str]) -> None:
    """Check that paired shards have the same numbers, where their names have any."""
    numbers, others = _shard_numbers(vectors), _shard_numbers(tables)
    for name, table, number, other in zip(vectors, tables, numbers, others, strict=False):
        if len(number) == len(other) and number != other:
            raise SourceError(
                f"{name} would go with {table}: a file of one or of the other is missing, or they are numbered "
                "differently; every shard of vectors needs its shard of metadata"
            )


def _shard_numbers(names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the numbers in which the names differ, for each name; empty if their forms differ.

    >>> _shard_numbers(["b32_0_of_2.npy", "b32_1_of_2.npy"])
    [(0,), (1,)]
    """
    numbers = [_numbers(Path(name))[0] for name in names]
    if len({len(each) for each in numbers}) != 1:
        return []
    differing = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    return list(zip(*differing, strict=True))


def _reason(error: Exception) -> str:
    """Return what is wrong with a file, on one line."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # Arrow's own texts are longer
    return " ".join(str(error).split())


def _open_npy(path: Path) -> _VectorFile:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise SourceError(f"{path} can't be read: {_reason(error)}") from error
        raise SourceError(f"{path} is not a readable .npy file: {error}") from error
    if array.ndim != 2 or array.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
        raise SourceError(f"{path} holds {array.dtype} {array.shape}; embeddings are (n, d) floats")
    return _VectorFile(path.name, len(array), array.shape[1], lambda a, b: _single(array[a:b]))


def _single(rows: NDArray[Any]) -> Float32:
    """Return (m, d) float32; float64 rows out of its range are scaled first, since only their direction counts."""
    if rows.dtype.itemsize == 8:
        peaks = np.abs(rows).max(axis=1, keepdims=True)
        far = np.isfinite(peaks) & (peaks > 0) & ((peaks > 1e30) | (peaks < 1e-30))
        rows = rows / np.where(far, peaks, 1.0)
    return np.asarray(rows, np.float32)


def _open_index(path: Path) -> _VectorFile:
    opened = open_vectors(path)
    name = path.name + ("" if opened.exact else " (approximate)")
    return _VectorFile(name, opened.count, opened.dim, opened.read, opened.ids)

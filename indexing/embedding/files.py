"""Files of embeddings: `.npy`, Parquet or JSON lines, one row for each input, written whole or not at all.

Dimension letters: n inputs, d embedding width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from indexing.build.npy_writer import NpyWriter
from indexing.embedding.embed import Embedded
from lookalike.errors import ConfigInvalid
from lookalike.messages import quoted

Kind = Literal["image", "text"]

SUFFIXES = (".npy", ".parquet", ".jsonl")

_ROWS_PER_GROUP = 4_096


class EmbeddingWriter(Protocol):
    """Takes outcomes in the order of the inputs."""

    def add(self, embedded: Embedded) -> None:
        """Write the row of an input."""
        ...

    def close(self) -> None:
        """Write what is still held back."""
        ...


class JsonLinesWriter(EmbeddingWriter):
    """Writes a line of JSON for each input: `image` or `text`, then `embedding`, or `code` and `detail` of its error.

    Args:
        stream: to write to; it is left open.
        kind: what the inputs are.
    """

    def __init__(self, stream: TextIO, kind: Kind) -> None:
        self._stream = stream
        self._kind = kind

    @override
    def add(self, embedded: Embedded) -> None:
        body: dict[str, Any] = {self._kind: embedded.name}
        if embedded.error is not None:
            body |= {"code": embedded.error.code, "detail": str(embedded.error)}
        elif embedded.vector is not None:
            body["embedding"] = [float(str(value)) for value in embedded.vector]  # the fewest digits that tell float32
            if self._kind == "text":
                body["truncated_tokens"] = embedded.truncated_tokens
        self._stream.write(json.dumps(body) + "\n")

    @override
    def close(self) -> None:
        self._stream.flush()


class NpyEmbeddingWriter(EmbeddingWriter):
    """Writes an array (n, d) float32, whose row i belongs to input i: NaN where that failed."""

    def __init__(self, path: Path, dim: int) -> None:
        self._failed = np.full(dim, np.nan, np.float32)
        self._writer = NpyWriter(path, np.dtype(np.float32), (dim,))

    @override
    def add(self, embedded: Embedded) -> None:
        vector = self._failed if embedded.vector is None else embedded.vector
        self._writer.append(np.asarray(vector, np.float32)[None])

    @override
    def close(self) -> None:
        self._writer.close()


class ParquetWriter(EmbeddingWriter):
    """Writes a table with `path` or `text`, `embedding` (null where the input failed), `code` and `detail`."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self._name = "path" if kind == "image" else "text"
        self._rows: list[dict[str, Any]] = []
        fields = [(self._name, pa.string()), ("embedding", pa.list_(pa.float32())), ("code", pa.string())]
        self._schema = pa.schema([*fields, ("detail", pa.string())])
        self._writer = pq.ParquetWriter(path, self._schema)

    @override
    def add(self, embedded: Embedded) -> None:
        error = embedded.error
        self._rows.append(
            {
                self._name: embedded.name,
                "embedding": embedded.vector,
                "code": None if error is None else error.code,
                "detail": None if error is None else str(error),
            }
        )
        if len(self._rows) >= _ROWS_PER_GROUP:
            self._flush()

    @override
    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._rows = []


def require_known_suffix(path: Path) -> None:
    """Raise ConfigInvalid for a file name whose extension names no format."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigInvalid(f"--out is {quoted(str(path))}; its name must end in .npy, .parquet or .jsonl")


@contextmanager
def embedding_file(path: Path, dim: int, kind: Kind) -> Iterator[EmbeddingWriter]:
    """Yield a writer; the file replaces an existing one when the block ends, and is discarded if it fails.

    Args:
        path: of the file; its extension names the format.
        dim: d.
        kind: what the inputs are.

    Raises:
        ConfigInvalid: the extension names no format.
        OSError: the file can't be written.
    """
    require_known_suffix(path)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with _writer(unfinished, path.suffix.lower(), dim, kind) as writer:
            yield writer
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _writer(path: Path, suffix: str, dim: int, kind: Kind) -> Iterator[EmbeddingWriter]:
    if suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as stream:
            yield JsonLinesWriter(stream, kind)
        return
    writer: EmbeddingWriter = NpyEmbeddingWriter(path, dim) if suffix == ".npy" else ParquetWriter(path, kind)
    try:
        yield writer
    finally:
        writer.close()

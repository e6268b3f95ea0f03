"""The table of a folder's images, as Hugging Face's ImageFolder has it: `metadata.csv`, `.jsonl` or `.parquet`.

The column `file_name` holds the path of an image relative to the table. The other columns are metadata.
"""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from lookalike.errors import SourceError
from lookalike.sources.columns import decode_text, unique_names, valid_text_columns
from lookalike.sources.item import composed
from lookalike.sources.regular_file import read_regular_file
from lookalike.sources.table_columns import holds_bytes

FILE_NAME = "file_name"
MAX_TABLE_BYTES = 1 << 29
_DELIMITERS = ",;\t"

Row = Callable[[], Mapping[str, Any]]
_Table = tuple[dict[str, Row], dict[str, pa.DataType]]
"""Path -> row, and the types of the columns."""


class MetadataFile:
    """The rows of one table by the images' paths.

    Args:
        path: the file; its extension says how it is read.

    Attributes:
        types: of the columns of a Parquet file; those of other files are inferred from the values.

    Raises:
        SourceError: the file can't be read, is too large, or has no column `file_name`.
    """

    def __init__(self, path: Path) -> None:
        data = read_regular_file(path, MAX_TABLE_BYTES)
        try:
            rows, self.types = _READERS[path.suffix](data)
        except (ValueError, RecursionError, pa.ArrowException) as error:
            raise SourceError(f"{path} can't be read as a table of images: {' '.join(str(error).split())}") from error
        self._rows = {_key(name): row for name, row in rows.items() if name}

    def columns(self, image: str) -> dict[str, Any]:
        """Return the metadata of an image, whose path is relative to the table; empty if there is no row."""
        row = self._rows.get(_key(image))
        values = row() if row else {}
        return {name: value for name, value in values.items() if name != FILE_NAME and value not in (None, "")}


def _key(path: str) -> str:
    return composed(posixpath.normpath(path.replace("\\", "/")))


def _read_csv(data: bytes) -> _Table:
    text = decode_text(data)
    header = text.lstrip().partition("\n")[0]
    content = text.encode("utf-8", "replace")
    table = pa_csv.read_csv(
        io.BytesIO(content),
        pa_csv.ReadOptions(block_size=len(content) + 1),  # types are inferred from the first block
        pa_csv.ParseOptions(delimiter=max(_DELIMITERS, key=header.count), newlines_in_values=True),
        pa_csv.ConvertOptions(column_types={FILE_NAME: pa.string()}),
    )
    return _table_rows(table.rename_columns(unique_names(table.column_names))), {}


def _read_parquet(data: bytes) -> _Table:
    table = valid_text_columns(pq.read_table(io.BytesIO(data)))
    table = table.rename_columns(unique_names(table.column_names))
    table = table.drop_columns([field.name for field in table.schema if holds_bytes(field.type)])  # images
    return _table_rows(table), {field.name: field.type for field in table.schema if field.name != FILE_NAME}


def _table_rows(table: pa.Table) -> dict[str, Row]:
    table = table.combine_chunks()
    _require_file_name(table.column_names)
    return {str(name): partial(_table_row, table, i) for i, name in enumerate(table.column(FILE_NAME).to_pylist())}


def _table_row(table: pa.Table, row: int) -> dict[str, Any]:
    return {name: column[row].as_py() for name, column in zip(table.column_names, table.columns, strict=True)}


def _read_json_lines(data: bytes) -> _Table:
    rows: dict[str, Row] = {}
    for number, line in enumerate(decode_text(data).split("\n"), 1):
        if line.strip():
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError(f"line {number} is not an object")
            _require_file_name(record)
            rows[str(record[FILE_NAME])] = partial(json.loads, line)
    return rows, {}


def _require_file_name(names: Collection[str]) -> None:
    if FILE_NAME not in names:
        raise ValueError(f"there is no column {FILE_NAME!r}; the columns are {', '.join(names)[:200]}")


_READERS: dict[str, Callable[[bytes], _Table]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".csv": _read_csv,
}
METADATA_FILES = tuple(f"metadata{ending}" for ending in _READERS)
"""File names; where a folder has several of these files, an earlier one has precedence for each column."""

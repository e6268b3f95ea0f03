"""Source of the rows of a Parquet file: a row is an image, its other columns are metadata.

The image is a binary column, a struct of `bytes` and `path` as Hugging Face datasets write it, or a column of paths
relative to the Parquet file. The id is a column's value or a hash of the image's bytes, never a row number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from lookalike.errors import ImageUndecodable, SourceError
from lookalike.sources.columns import captions_from_cell, merged_columns, valid_text_columns
from lookalike.sources.item import (
    ColumnNames,
    Item,
    Source,
    composed,
    display_name,
    find_path,
    fingerprint,
    read_error,
    read_range,
    size_and_mtime,
    unreadable_item,
)

SUFFIXES = (".parquet", ".pq")
"""File name suffixes of Parquet files."""

IMAGE_COLUMNS = ("image", "image_bytes", "bytes", "img", "picture", "jpg", "jpeg", "png", "content", "data")
PATH_COLUMNS = ("image_path", "path", "file", "file_name", "filename", "filepath", "image", "img_path")
ID_COLUMNS = ("id", "key", "path", "url")
CAPTION_COLUMNS = ("caption", "captions", "text", "TEXT")
"""Names to look for, in this order, if the user names no column."""

_ROWS_PER_BATCH = 64
_READ_ERRORS = (OSError, pa.ArrowException)


class ParquetSource(Source):
    """The rows of one Parquet file.

    Args:
        path: the file.
        label: value of the column `source`.
        prefix: start of every id, `""` or `NAME/`.
        columns: column names from the user.

    Raises:
        SourceError: a named column is missing, or none holds images. A damaged file is reported when it is read.
    """

    def __init__(self, path: Path, label: str, prefix: str = "", columns: ColumnNames | None = None) -> None:
        self.label = label
        self._path = path
        self._prefix = prefix
        self._schema = _read_schema(path)
        self._columns = _choose_columns(self._schema, columns or ColumnNames(), path) if self._schema else ColumnNames()

    @override
    def estimated_count(self) -> int | None:
        try:
            return int(pq.read_metadata(self._path).num_rows)
        except _READ_ERRORS:
            return 1

    def __iter__(self) -> Iterator[Item]:
        row = 0
        try:
            stat = size_and_mtime(self._path.stat())
            with pq.ParquetFile(self._path, buffer_size=1 << 20) as file:
                for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH):
                    for record in valid_text_columns(batch).to_pylist():
                        yield self._item(record, stat, row)
                        row += 1
        except _READ_ERRORS as error:
            what = f"{display_name(self._path.name)} is truncated or corrupt after {row:,} rows"
            yield unreadable_item(
                self._prefix + display_name(self._path.stem), self.label, SourceError(f"{what}: {error}")
            )

    def _item(self, record: dict[str, Any], stat: tuple[int, int], row: int) -> Item:
        data, path = _unpack(record[self._columns.image or ""])
        columns = self._metadata(record, path)
        id_column = self._columns.id
        value = record[id_column] if id_column is not None else _content_id(data) or path
        if value is None or value == "":
            name = display_name(self._path.name)
            missing = "no image" if id_column is None else f"no id in column {id_column!r}"
            error = SourceError(f"row {row} of {name} has {missing}")
            return unreadable_item(f"{self._prefix}{name}#row-{row}", self.label, error, columns)
        text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
        item_id = self._prefix + composed(text)
        if data is not None:
            return Item(item_id, self.label, fingerprint(*stat, row), lambda: data, columns)
        if not path:
            empty = ImageUndecodable(f"row {row} of {display_name(self._path.name)} holds no image")
            return unreadable_item(item_id, self.label, empty, columns)
        return self._item_at(find_path(self._path.parent / path), item_id, columns, (*stat, row))

    def _item_at(self, path: Path, item_id: str, columns: dict[str, Any], parts: tuple[int, ...]) -> Item:
        try:
            status = path.stat()
            if not path.is_file():
                raise SourceError(f"{display_name(str(path))} is not a regular file")
        except OSError as error:
            return unreadable_item(item_id, self.label, read_error(path, error), columns)
        except ValueError as error:  # a NUL character in the path
            return unreadable_item(item_id, self.label, SourceError(f"{str(path)!r} is not a path: {error}"), columns)
        except SourceError as error:
            return unreadable_item(item_id, self.label, error, columns)
        return Item(
            item_id, self.label, fingerprint(*parts, *size_and_mtime(status)), partial(read_range, path), columns
        )

    def _metadata(self, record: dict[str, Any], path: str | None) -> dict[str, Any]:
        """Return every column but the image; `id` only if it is not the item's id, and the caption as `caption`."""
        extra = dict(record)
        del extra[self._columns.image or ""]
        own: dict[str, Any] = {}
        path_value = extra.pop("path", None)
        if isinstance(path_value, str) or path:
            own["path"] = path_value if isinstance(path_value, str) else path
        elif path_value is not None:
            extra["path"] = path_value
        if self._columns.caption is not None:
            own |= captions_from_cell(extra.pop(self._columns.caption, None))
        if self._columns.id == "id":
            extra.pop("id", None)
        return merged_columns(own, extra)


def _read_schema(path: Path) -> pa.Schema | None:
    try:
        return pq.read_schema(path)
    except _READ_ERRORS:
        return None


def _choose_columns(schema: pa.Schema, named: ColumnNames, path: Path) -> ColumnNames:
    for option, name in (("id", named.id), ("image", named.image), ("caption", named.caption)):
        if name is not None and name not in schema.names:
            raise SourceError(f"{path} has no column {name!r} (--{option}-column); it has: {', '.join(schema.names)}")
    image = named.image or _image_column(schema, path)
    others = [name for name in schema.names if name != image]
    path_mode = not _holds_bytes(schema.field(image).type)
    found_id = next((name for name in ID_COLUMNS if name in others), image if path_mode else None)
    caption = named.caption or next((name for name in CAPTION_COLUMNS if name in others), None)
    return ColumnNames(id=named.id or found_id, image=image, caption=caption)


def _image_column(schema: pa.Schema, path: Path) -> str:
    binary = [field.name for field in schema if _holds_bytes(field.type)]
    named = [name for name in IMAGE_COLUMNS if name in binary]
    paths = [name for name in PATH_COLUMNS if name in schema.names and _is_text(schema.field(name).type)]
    if named or len(binary) == 1 or paths:
        return (named or binary[:1] or paths)[0]
    raise SourceError(
        f"{path}: no column of image bytes or paths; name it with --image-column. "
        f"The columns are: {', '.join(schema.names)}"
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _unpack(image: Any) -> tuple[bytes | None, str | None]:
    """Return (bytes, path) of a cell, which is either, or a struct of both."""
    if isinstance(image, dict):
        return image.get("bytes"), image.get("path")
    if isinstance(image, bytes):
        return image, None
    return None, image if image is None else str(image)


def _content_id(data: bytes | None) -> str | None:
    return None if data is None else hashlib.blake2b(data, digest_size=16).hexdigest()

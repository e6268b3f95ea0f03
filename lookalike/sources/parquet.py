"""Source of the rows of a Parquet file: a row is an image, its other columns are metadata.

The image is a binary column, a struct of `bytes` and `path` as Hugging Face datasets write it, or a column of paths
relative to the Parquet file. The id is a column's value or a hash of the image's bytes, never a row number.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from lookalike.errors import ImageUndecodable, SourceError
from lookalike.messages import cut, quoted
from lookalike.paths import is_unavailable
from lookalike.sources.class_labels import named_classes
from lookalike.sources.columns import (
    captions_from_cell,
    metadata_names,
    unique_names,
    valid_text_columns,
)
from lookalike.sources.item import (
    ColumnNames,
    HeldBytes,
    Item,
    Source,
    composed,
    display_name,
    find_path,
    fingerprint,
    read_error,
    read_range,
    size_and_mtime,
    unreadable_file,
    unreadable_item,
)
from lookalike.sources.place import SourcePlace
from lookalike.sources.scan_report import ScanReport
from lookalike.sources.source_file import SourceFile
from lookalike.sources.table_columns import choose_columns, holds_binary, is_text, left_out_columns

SUFFIXES = (".parquet", ".pq")
"""File name suffixes of Parquet files."""

_ROWS_PER_BATCH = 64
_ROWS_PER_SAMPLE = 8
_BUFFER_BYTES = 1 << 20
_MAX_SAMPLED_ROWS = 4_096
"""Rows from the start of a table in which a column's first values are looked for."""

_READ_ERRORS = (OSError, pa.ArrowException)


class ParquetSource(Source):
    """The rows of one Parquet file.

    Args:
        file: the file.
        label: value of the column `source`.
        prefix: start of every id, `""` or `NAME/`.
        columns: column names from the user.

    Raises:
        SourceError: a named column is missing, or none can be read as images. A damaged file is reported when it is
            read.
    """

    def __init__(self, file: SourceFile, label: str, prefix: str = "", columns: ColumnNames | None = None) -> None:
        self.label = label
        self._file = file
        self._prefix = prefix
        self._report = ScanReport()
        schema, self._failure = _read_schema(file)
        self._unlisted: set[str] = set()
        if is_unavailable(self._failure):  # before it is counted
            self._report.unread.append(str(file))
        self._columns = ColumnNames()
        self._left_out: dict[str, str] = {}
        if schema.names:
            samples = _first_values(file, schema)
            self._columns = choose_columns(schema, columns or ColumnNames(), samples, file)
            self._left_out = left_out_columns(schema, self._columns, samples)
        self._read = [name for name in schema.names if name not in self._left_out]
        self._classes = {name: classes for name, classes in named_classes(schema).items() if name in self._read}
        self._names = metadata_names([name for name in self._read if not self._is_own(name, schema)])
        self._names_files = self._has_paths_of_images(schema)
        self._types = {
            mapped: self._classes[name].type if name in self._classes else schema.field(name).type
            for name, mapped in self._names.items()
        }

    @property
    @override
    def place(self) -> SourcePlace:
        return SourcePlace("table", self._file.folder if self._names_files else None)

    def _has_paths_of_images(self, schema: pa.Schema) -> bool:
        """Return whether the items' `path` is that of the image: it may come from another column."""
        image = self._columns.image
        if image is None or not is_text(schema.field(image).type):
            return False
        return image == "path" or "path" not in self._read or "path" in self._names

    @override
    @property
    def report(self) -> ScanReport:
        return replace(self._report, left_out=dict(self._left_out))

    @override
    def estimated_count(self) -> int | None:
        try:
            with self._file.open() as stream:
                return int(pq.read_metadata(stream).num_rows)
        except _READ_ERRORS:
            return 1

    @property
    @override
    def count_is_maximum(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Item]:
        row = 0
        self._report, self._unlisted = ScanReport(), set()
        try:
            if self._failure is not None:
                raise self._failure
            stamp = self._file.stamp()
            with self._file.open() as stream, pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES) as file:
                for batch in _batches(file, self._read, _ROWS_PER_BATCH):
                    for record in valid_text_columns(batch).to_pylist():
                        yield replace(self._item(record, stamp, row), types=self._types)
                        row += 1
        except _READ_ERRORS as error:
            yield self._unread(error, row)

    def _unread(self, error: Exception, row: int) -> Item:
        item_id = self._prefix + display_name(PurePath(self._file.name).stem)
        if item := unreadable_file(item_id, self.label, str(self._file), error, self._prefix):
            self._report.unread.append(str(self._file))
            return item
        what = f"{display_name(self._file.name)} is truncated or corrupt after {row:,} rows"
        return unreadable_item(item_id, self.label, SourceError(f"{what}: {' '.join(str(error).split())}"))

    def _is_own(self, name: str, schema: pa.Schema) -> bool:
        """Return whether a column becomes the image, the item's id, `path` or the captions."""
        if name in (self._columns.image, self._columns.caption):
            return True
        return (name == "path" and is_text(schema.field(name).type)) or name == "id" == self._columns.id

    def _item(self, record: dict[str, Any], stamp: tuple[int | str, ...], row: int) -> Item:
        data, path = _unpack(record[self._columns.image or ""])
        columns = self._metadata(record, path)
        id_column = self._columns.id
        value = record[id_column] if id_column is not None else _content_id(data) or path
        if value is None or value == "":
            name = display_name(self._file.name)
            missing = "no image" if id_column is None else f"no id in column {quoted(id_column)}"
            error = SourceError(f"row {row} of {name} has {missing}")
            return unreadable_item(f"{self._prefix}{name}#row-{row}", self.label, error, columns)
        text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
        item_id = self._prefix + composed(text)
        if data is not None:
            return Item(item_id, self.label, fingerprint(*stamp, row), HeldBytes(data), columns)
        if not path:
            empty = ImageUndecodable(f"row {row} of {display_name(self._file.name)} holds no image")
            return unreadable_item(item_id, self.label, empty, columns)
        if self._file.folder is None:
            error = SourceError(
                f"{cut(str(self._file))} names images by their paths; in a bucket it must hold their bytes"
            )
            return unreadable_item(item_id, self.label, error, columns)
        return self._item_at(find_path(self._file.folder / path), item_id, columns, (*stamp, row))

    def _item_at(self, path: Path, item_id: str, columns: dict[str, Any], parts: tuple[int | str, ...]) -> Item:
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a named pipe would block
                raise SourceError(f"{cut(display_name(str(path)))} is not a regular file")
        except OSError as error:
            item = unreadable_item(item_id, self.label, read_error(path, error), columns)
            if not is_unavailable(error):
                return item
            self._report_unlisted(path.parent)
            return replace(item, unavailable=True)
        except ValueError as error:  # a NUL character in the path
            return unreadable_item(
                item_id, self.label, SourceError(f"{quoted(str(path))} is not a path: {error}"), columns
            )
        except SourceError as error:
            return unreadable_item(item_id, self.label, error, columns)
        return Item(
            item_id, self.label, fingerprint(*parts, *size_and_mtime(status)), partial(read_range, path), columns
        )

    def _report_unlisted(self, folder: Path) -> None:
        name = f"{display_name(str(folder))}/"
        if name not in self._unlisted:
            self._unlisted.add(name)
            self._report.unlisted.append(name)

    def _metadata(self, record: dict[str, Any], path: str | None) -> dict[str, Any]:
        """Return `path`, the captions and every other column that has a value, under the collection's names."""
        own_path = record.get("path") if self._names.get("path") is None else None
        path = own_path if own_path is not None and self._columns.image != "path" else path
        own: dict[str, Any] = {"path": path} if path else {}
        if self._columns.caption is not None:
            own |= captions_from_cell(record[self._columns.caption])
        for name, mapped in self._names.items():
            value = record[name]
            if name in self._classes:
                value = self._classes[name].convert(value)
            if value is not None and own.get(name) != value:
                own[mapped] = value
        return own


def _read_schema(file: SourceFile) -> tuple[pa.Schema, Exception | None]:
    """Return the schema with unique names; an empty one and the error if the file can't be read."""
    try:
        with file.open() as stream:
            schema = pq.read_schema(stream)
    except _READ_ERRORS as error:
        return pa.schema([]), error
    fields = [field.with_name(name) for field, name in zip(schema, unique_names(schema.names), strict=True)]
    return pa.schema(fields, schema.metadata), None


def _batches(file: pq.ParquetFile, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the columns, whose names are unique."""
    own_names = file.schema_arrow.names
    unique = unique_names(own_names)
    chosen = None if unique != own_names else list(names)  # Parquet can't tell columns of one name apart
    for batch in file.iter_batches(batch_size=rows, columns=chosen):
        yield (batch if chosen is not None else batch.rename_columns(unique)).select(list(names))


def _first_values(source: SourceFile, schema: pa.Schema) -> dict[str, list[Any]]:
    """Return a few first values of each column that may hold images or paths; none if the table's start has none."""
    found: dict[str, list[Any]] = {name: [] for name in schema.names}
    with suppress(*_READ_ERRORS), source.open() as stream, pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES) as file:
        for field in schema:
            if is_text(field.type) or holds_binary(field.type):
                found[field.name] = _first_of(file, field.name)
    return found


def _first_of(file: pq.ParquetFile, name: str) -> list[Any]:
    read = 0
    for batch in _batches(file, [name], _ROWS_PER_SAMPLE):
        values = [value for value in valid_text_columns(batch).column(0).to_pylist() if not _is_empty(value)]
        read += len(batch)
        if values or read >= _MAX_SAMPLED_ROWS:
            return values
    return []


def _is_empty(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_empty, value.values()))
    return value is None or (isinstance(value, str | bytes | list) and not value)


def _unpack(image: Any) -> tuple[bytes | None, str | None]:
    """Return (bytes, path) of a cell, which is either, or a struct of both."""
    if isinstance(image, dict):
        return image.get("bytes"), image.get("path")
    if isinstance(image, bytes):
        return image, None
    return None, image if image is None else str(image)


def _content_id(data: bytes | None) -> str | None:
    return None if data is None else hashlib.blake2b(data, digest_size=16).hexdigest()

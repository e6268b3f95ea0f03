"""The columns of a table of images: which one holds the images, and which ones are left out of the metadata.

Names are looked for first; the first values of a column then say whether it holds images, paths, or what can't be read.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lookalike.errors import SourceError
from lookalike.images import is_image_start
from lookalike.messages import cut, listed, quoted
from lookalike.paths import is_unavailable
from lookalike.sources.item import ColumnNames, find_path
from lookalike.sources.source_file import SourceFile

IMAGE_COLUMNS = ("image", "image_bytes", "bytes", "img", "picture", "jpg", "jpeg", "png", "content", "data")
PATH_COLUMNS = ("image_path", "path", "file", "file_name", "filename", "filepath", "image", "img_path")
ID_COLUMNS = ("id", "key", "path", "url")
CAPTION_COLUMNS = ("caption", "captions", "text", "TEXT")
"""Names to look for, in this order, if the user names no column."""

MAX_METADATA_BYTES = 1_024
"""Length of binary values that are kept as metadata; a column of longer ones is left out."""

_MAX_OPTIONS = 3
_HEAD_BYTES = 64
_MIN_BASE64_CHARACTERS = 100
_START_CHARACTERS = 256
_STANDARD_ALPHABET = str.maketrans("-_", "+/")
_BASE64 = "images as base64 text: write a table with the decoded bytes"
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_DATA_URI = re.compile(r"data:image/[^,]{0,100};base64,", re.IGNORECASE)

Samples = Mapping[str, Sequence[Any]]
"""Column -> its first values that are not empty; none if the table has no such value near its start."""


def holds_bytes(kind: pa.DataType) -> bool:
    """Return whether a column's cells are files: bytes, or a record of `bytes` and `path`."""
    if pa.types.is_struct(kind):
        inner = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else None
        return inner is not None and (holds_bytes(inner) or pa.types.is_null(inner))
    if pa.types.is_dictionary(kind):
        return holds_bytes(kind.value_type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def choose_columns(schema: pa.Schema, named: ColumnNames, samples: Samples, file: SourceFile) -> ColumnNames:
    """Return the columns of ids, images and captions: those that the user named, else those found.

    Args:
        schema: of the table, with unique names.
        named: the user's.
        samples: the columns' first values.
        file: the table; the paths in it are relative to its folder.

    Raises:
        SourceError: a named column is missing, or none can be read as images.
    """
    table = cut(str(file))
    for option, name in (("id", named.id), ("image", named.image), ("caption", named.caption)):
        if name is not None and name not in schema.names:
            known = listed(schema.names)
            raise SourceError(f"{table} has no column {quoted(name)} (--{option}-column); it has: {known}")
    image = named.image or _image_column(schema, samples, file.folder, table)
    _check_image_column(image, schema.field(image).type, samples, table)
    others = [name for name in schema.names if name != image]
    path_mode = not holds_bytes(schema.field(image).type)
    found_id = next((name for name in ID_COLUMNS if name in others), image if path_mode else None)
    caption = named.caption or next((name for name in CAPTION_COLUMNS if name in others), None)
    return ColumnNames(id=named.id or found_id, image=image, caption=caption)


def left_out_columns(schema: pa.Schema, chosen: ColumnNames, samples: Samples) -> dict[str, str]:
    """Return the columns that are no metadata -> what they hold: images, and long binary values."""
    kept = (chosen.id, chosen.image, chosen.caption)
    found = {field.name: _no_metadata(field.type, samples[field.name]) for field in schema if field.name not in kept}
    return {name: what for name, what in found.items() if what}


def _image_column(schema: pa.Schema, samples: Samples, folder: Path | None, table: str) -> str:
    binary = [field.name for field in schema if holds_bytes(field.type)]
    images = [name for name in binary if _has_image(samples[name]) or _has_path(samples[name])]
    if len(images) > 1 and not set(images).intersection(IMAGE_COLUMNS):
        options = " or ".join(f"--image-column {name}" for name in images[:_MAX_OPTIONS])
        raise SourceError(f"{table}: {len(images)} columns hold images; name one of them: {options}")
    texts = [name for name in PATH_COLUMNS if name in schema.names and is_text(schema.field(name).type)]
    paths = [name for name in texts if not _problem(samples[name])]
    choices: list[str] = [
        *[name for name in IMAGE_COLUMNS if name in images],
        *images,
        *[name for name in IMAGE_COLUMNS if name in binary],
        *[name for name in paths if _some_exist(folder, samples[name])],
        *[name for name in schema.names if _has_image(samples[name]) or _problem(samples[name]) == _BASE64],
        *paths,
        *(binary if len(binary) == 1 else ()),
        *texts,
        *[field.name for field in schema if is_text(field.type) and _problem(samples[field.name])],
    ]
    if choices:
        return choices[0]
    raise SourceError(
        f"{table}: no column of image bytes or paths; name it with --image-column. "
        f"The columns are: {listed(schema.names)}"
    )


def _some_exist(folder: Path | None, paths: Sequence[Any]) -> bool:
    if folder is None:
        return False
    try:
        return any(find_path(folder / path).is_file() for path in paths)
    except (OSError, ValueError) as error:  # no permission to look; a NUL character in a path
        return is_unavailable(error)


def _check_image_column(name: str, kind: pa.DataType, samples: Samples, table: str) -> None:
    """Raise SourceError if the first values show that no row of the column can be read."""
    if holds_bytes(kind) or is_text(kind):
        problem = _problem(samples[name])
    elif pa.types.is_nested(kind) and not pa.types.is_struct(kind):
        content = "lists of images" if _has_image(samples[name]) else "lists"
        problem = f"{content}: write a table with one image a row, for example with pandas' explode"
    else:
        problem = f"{kind}, which is neither bytes nor paths of images"
    if problem:
        raise SourceError(f"{table}: column {quoted(name)} holds {problem}; or name another column with --image-column")


def _problem(cells: Sequence[Any]) -> str:
    """Return what cells hold, and what to do, if none of them is a path or an image."""
    texts = [text for cell in cells if (text := _start(cell))]
    if texts and all(map(_is_base64_image, texts)):
        return _BASE64
    if texts and all(map(_URL.match, texts)):
        return "URLs: download the images first, for example with img2dataset"
    return ""


def _start(cell: Any) -> str:
    """Return the start of a cell that is text, or bytes that may be text; of a record, its bytes or its path."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    start = cell[:_START_CHARACTERS] if isinstance(cell, str | bytes) else ""
    return start.decode("ascii", "replace") if isinstance(start, bytes) else start


def _no_metadata(kind: pa.DataType, values: Sequence[Any]) -> str:
    if _has_image(values):
        return "images"
    if _problem(values) == _BASE64:
        return "images as base64 text"
    if pa.types.is_struct(kind) and holds_bytes(kind) and kind.get_field_index("path") >= 0:
        return "files"
    longest = max(map(len, _files(values)), default=0)
    return f"binary values of up to {longest:,} bytes" if longest > MAX_METADATA_BYTES else ""


def _has_image(values: Sequence[Any]) -> bool:
    # Hashes are shorter, and may begin like an image by chance.
    return any(len(data) > _HEAD_BYTES and is_image_start(data[:_HEAD_BYTES]) for data in _files(values))


def _has_path(values: Sequence[Any]) -> bool:
    return any(isinstance(value, dict) and not value.get("bytes") and value.get("path") for value in values)


def _files(value: Any) -> Iterator[bytes]:
    """Yield the binary values within cells, lists and records."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        yield from _files(list(value.values()))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _files(inner)


def _is_base64_image(text: str) -> bool:
    if _DATA_URI.match(text):
        return True
    head = "".join(text[: 2 * _HEAD_BYTES].split()).translate(_STANDARD_ALPHABET)
    try:
        return len(text) >= _MIN_BASE64_CHARACTERS and is_image_start(base64.b64decode(head[: len(head) // 4 * 4]))
    except ValueError:
        return False


def holds_binary(kind: pa.DataType) -> bool:
    """Return whether a column's values are binary, or hold binary values at any depth."""
    if pa.types.is_dictionary(kind):
        return holds_binary(kind.value_type)
    inner = (kind.field(i).type for i in range(kind.num_fields))
    return holds_bytes(kind) or pa.types.is_fixed_size_binary(kind) or any(map(holds_binary, inner))


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column's values are texts, in any encoding."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))

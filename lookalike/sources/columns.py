"""Conversion of a source's captions and columns to an item's metadata.

The names of the job's own columns (`id`, `source`, `path`, `caption`, `captions`, `width`, `height`, `format`,
`truncated`) and all names that begin with an underscore are reserved. A source's column with such a name becomes
`source_<name>`.
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

RESERVED_COLUMNS = ("id", "source", "path", "caption", "captions", "width", "height", "format", "truncated")
MAX_CAPTION_BYTES = 1 << 16
"""Bytes of a caption file that are read: 64 KiB."""
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with UTF-16's mark
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def valid_text(text: str) -> str:
    """Return the text with lone surrogates, which UTF-8 can't encode, replaced."""
    return text.encode("utf-8", "replace").decode()


def valid_text_columns(rows: Any) -> Any:
    """Return a record batch or table with invalid UTF-8 in its text columns replaced by U+FFFD.

    Raises:
        pyarrow.ArrowInvalid: values within lists or records are invalid.
    """
    try:
        rows.validate(full=True)
    except pa.ArrowInvalid:
        for position, column in enumerate(rows.schema):
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
                binary = pa.binary_view() if pa.types.is_string_view(kind) else pa.large_binary()
                texts = rows.column(position).cast(kind).cast(binary).to_pylist()
                repaired = pa.array([None if text is None else text.decode("utf-8", "replace") for text in texts], kind)
                rows = rows.set_column(position, column.with_type(kind), repaired)
        rows.validate(full=True)
    return rows


def caption_columns(texts: Iterable[str]) -> dict[str, Any]:
    """Return `caption`, the first text that is not blank, and `captions`, all of them if there are several.

    >>> caption_columns(["a cat", "", "a cat on a mat "])
    {'caption': 'a cat', 'captions': ['a cat', 'a cat on a mat']}
    """
    kept = [cleaned for text in texts if (cleaned := " ".join(valid_text(text).split()))]
    if not kept:
        return {}
    return {"caption": kept[0], "captions": kept} if len(kept) > 1 else {"caption": kept[0]}


def captions_from_file(data: bytes) -> dict[str, Any]:
    """Return the caption columns of a text file with one caption a line, of which `MAX_CAPTION_BYTES` are used."""
    return caption_columns(decode_text(data[:MAX_CAPTION_BYTES], cut=len(data) >= MAX_CAPTION_BYTES).splitlines())


def decode_text(data: bytes, *, cut: bool = False) -> str:
    """Return the text of a file: UTF-8, UTF-16 or UTF-32 by its byte order mark, else UTF-8, else Windows-1252.

    Args:
        data: the content.
        cut: whether the data may end within a character, which is then left out.

    >>> decode_text("Müller".encode("utf-16")), decode_text("Müller".encode("latin-1"))
    ('Müller', 'Müller')
    """
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    try:
        return codecs.getincrementaldecoder(encoding or "utf-8")().decode(data, final=not cut)
    except UnicodeDecodeError:
        return data.decode(encoding or "cp1252", "replace")


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names with a number after those that occurred before.

    >>> unique_names(["x", "y", "x", "x_2", "x"])
    ['x', 'y', 'x_3', 'x_2', 'x_4']
    """
    unique: list[str] = []
    taken = set(names)
    for position, name in enumerate(names):
        if name in names[:position]:
            name = next(f"{name}_{n}" for n in itertools.count(2) if f"{name}_{n}" not in taken)
            taken.add(name)
        unique.append(name)
    return unique


def captions_from_cell(value: Any) -> dict[str, Any]:
    """Return the caption columns of a table's cell: a text, or a list of texts."""
    if isinstance(value, str):
        return caption_columns(value.splitlines())
    if isinstance(value, list | tuple):
        return caption_columns(str(text) for text in value if text is not None)
    return {}


def merged_columns(own: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return `own` and the source's columns, renamed if the name is reserved or taken; equal values are left out.

    >>> merged_columns({"caption": "a cat"}, {"caption": "tabby", "width": 640, "label": 3})
    {'caption': 'a cat', 'source_caption': 'tabby', 'source_width': 640, 'label': 3}
    """
    names = metadata_names(list(extra))
    return dict(own) | {names[name]: value for name, value in extra.items() if own.get(name) != value}


def metadata_names(names: Sequence[str]) -> dict[str, str]:
    """Return each of a source's column names -> its unique name in the collection.

    >>> metadata_names(["caption", "source_caption", "_score", "label"])
    {'caption': 'source_caption_', 'source_caption': 'source_caption', '_score': 'source_score', 'label': 'label'}
    """
    unique: dict[str, str] = {}
    for name in names:
        reserved = name in RESERVED_COLUMNS or name.startswith("_") or not name
        mapped = f"source_{name.lstrip('_')}" if reserved else name
        while mapped in unique.values() or (mapped != name and mapped in names):
            mapped += "_"
        unique[name] = mapped
    return unique

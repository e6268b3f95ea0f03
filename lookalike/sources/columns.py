"""Captions and column names: the rules by which what a source knows becomes an item's metadata.

The job's own columns (`id`, `source`, `path`, `caption`, `captions`, `width`, `height`, `format`) win; a column of the
source with such a name is kept under `source_<name>`. Names that begin with an underscore are the job's as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

RESERVED_COLUMNS = ("id", "source", "path", "caption", "captions", "width", "height", "format")
MAX_CAPTION_BYTES = 1 << 16
"""No more of a caption file is read: 64 KiB."""


def valid_text(text: str) -> str:
    """The text with what UTF-8 can't carry (lone surrogates) replaced."""
    return text.encode("utf-8", "replace").decode()


def valid_text_columns(rows: Any) -> Any:
    """A record batch or table whose texts are all UTF-8: what is not is replaced, by U+FFFD.

    Raises:
        pyarrow.ArrowInvalid: values within lists or records are broken.
    """
    try:
        rows.validate(full=True)
    except pa.ArrowInvalid:
        for place, column in enumerate(rows.schema):
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                texts = rows.column(place).cast(pa.large_binary()).to_pylist()
                mended = pa.array(
                    [None if text is None else text.decode("utf-8", "replace") for text in texts], column.type
                )
                rows = rows.set_column(place, column, mended)
        rows.validate(full=True)
    return rows


def caption_columns(texts: Iterable[str]) -> dict[str, Any]:
    """`caption` is the first text that is not blank; `captions` holds all of them where there are several.

    >>> caption_columns(["a cat", "", "a cat on a mat "])
    {'caption': 'a cat', 'captions': ['a cat', 'a cat on a mat']}
    """
    kept = [cleaned for text in texts if (cleaned := " ".join(valid_text(text).split()))]
    if not kept:
        return {}
    return {"caption": kept[0], "captions": kept} if len(kept) > 1 else {"caption": kept[0]}


def captions_from_file(data: bytes) -> dict[str, Any]:
    """The caption columns of a text file that holds one caption a line; what is not UTF-8 is replaced."""
    return caption_columns(data[:MAX_CAPTION_BYTES].decode("utf-8-sig", "replace").splitlines())


def captions_from_cell(value: Any) -> dict[str, Any]:
    """The caption columns of a table's cell: a text, or a list of texts."""
    if isinstance(value, str):
        return caption_columns(value.splitlines())
    if isinstance(value, list | tuple):
        return caption_columns(str(text) for text in value if text is not None)
    return {}


def merged_columns(own: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`own` plus the source's columns, renamed where a name is taken; values that say the same twice are left out.

    >>> merged_columns({"caption": "a cat"}, {"caption": "tabby", "width": 640, "label": 3})
    {'caption': 'a cat', 'source_caption': 'tabby', 'source_width': 640, 'label': 3}
    """
    columns = dict(own)
    for name, value in extra.items():
        if own.get(name) == value:
            continue
        fresh = f"source_{name.lstrip('_')}" if name in RESERVED_COLUMNS or name.startswith("_") or not name else name
        while fresh in columns or (fresh != name and fresh in extra):
            fresh += "_"
        columns[fresh] = value
    return columns

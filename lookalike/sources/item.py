"""Protocol of a source and its items: images with an id, a fingerprint and metadata columns.

`Item.load` reads the bytes of the image file. An item that was indexed before is recognised by its fingerprint, usually
of size and modification time, without reading the file.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pyarrow as pa

from lookalike.errors import ImageTooLarge, LookalikeError, SourceError, SourceNotFound
from lookalike.messages import cut
from lookalike.paths import is_unavailable
from lookalike.sources.place import SourcePlace
from lookalike.sources.scan_report import ScanReport

MAX_FILE_BYTES = 1 << 29
"""Larger image files are rejected unread, so that memory stays bounded: half a gigabyte."""


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Names of a table's columns; None for a column that the source finds itself."""

    id: str | None = None
    image: str | None = None
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source.

    Attributes:
        id: unique in the collection, from the path, key or id column; the same in every run; in Unicode's composed
            form (NFC).
        source: the label of the source.
        fingerprint: 64 bits that change when the image or its caption may have changed.
        load: returns the image file's bytes; raises LookalikeError. Safe to call from any thread, and can be pickled.
        columns: the item's metadata.
        fallback_id: the id to use if an earlier source has an item with the same id; None to reject it.
        unavailable: whether its file or folder can't be reached now, which does not mean that it was removed; a
            folder's `path` ends in a slash and stands for everything below it.
        stands_for: of an unavailable tar or table, with which the ids of all its items begin; else None.
        types: Arrow types of a table's columns, with or without a value here; other types are inferred from values.
    """

    id: str
    source: str
    fingerprint: int
    load: Callable[[], bytes]
    columns: Mapping[str, Any] = field(default_factory=dict)
    fallback_id: str | None = None
    unavailable: bool = False
    stands_for: str | None = None
    types: Mapping[str, pa.DataType] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeldBytes:
    """The `load` of an item whose image file was read with the item."""

    data: bytes

    def __call__(self) -> bytes:
        """Return the file's bytes."""
        return self.data


class Source(Protocol):
    """A re-iterable stream of items in the same order in every run."""

    label: str

    def __iter__(self) -> Iterator[Item]:
        """Yield the items; the `load` of an unreadable one raises, so that it is counted and reported."""
        ...

    def estimated_count(self) -> int | None:
        """Return the approximate number of items, None if only reading all of them would tell."""
        ...

    @property
    def count_is_maximum(self) -> bool:
        """Whether the source has no more items than `estimated_count`."""
        return False

    @property
    def place(self) -> SourcePlace:
        """Where the image files lie."""
        return SourcePlace("other")

    @property
    def report(self) -> ScanReport:
        """What the last iteration found besides items."""
        return ScanReport()


def unreadable_item(
    item_id: str,
    source: str,
    error: LookalikeError,
    columns: Mapping[str, Any] | None = None,
    fallback_id: str | None = None,
) -> Item:
    """Return an item whose `load` raises `error`."""
    return Item(item_id, source, 0, partial(_fail, error), columns or {}, fallback_id)


def _fail(error: LookalikeError) -> NoReturn:
    raise error


def unreadable_file(item_id: str, source: str, path: Path | str, error: BaseException, stands_for: str) -> Item | None:
    """Return the item of a tar or table that can't be reached now; None if the error means that it is damaged.

    Args:
        item_id: the item's id.
        source: the label of the source.
        path: the file.
        error: of reading it.
        stands_for: with which the ids of all its items begin.
    """
    if not isinstance(error, OSError) or not is_unavailable(error):
        return None
    reason = OSError(error.errno, os.strerror(error.errno or 0))  # libraries write longer texts
    item = unreadable_item(item_id, source, read_error(path, reason))
    return replace(item, unavailable=True, stands_for=stands_for)


def fingerprint(*parts: object) -> int:
    """Return 64 bits of BLAKE2b over the parts' text."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def size_and_mtime(stat: os.stat_result) -> tuple[int, int]:
    """Return size in bytes and modification time in nanoseconds, which change with the file."""
    return stat.st_size, stat.st_mtime_ns


def display_name(name: str) -> str:
    """Return a file name as valid UTF-8 in NFC: other bytes become backslash escapes."""
    return composed(os.fsencode(name).decode("utf-8", "backslashreplace"))


def composed(text: str) -> str:
    """Return the text in Unicode's composed form, NFC, so that equal names are equal strings."""
    return unicodedata.normalize("NFC", text)


def find_path(path: Path) -> Path:
    """Return the existing path whose name is canonically equivalent to this one; `path` itself if there is none.

    Names in tables are mostly composed (NFC), those that macOS wrote may be decomposed (NFD), and most file systems
    take them for two names.
    """
    if str(path).isascii() or os.path.exists(path):  # unlike Path.exists, False where a folder can't be searched
        return path
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        forms = (part, composed(part), unicodedata.normalize("NFD", part))
        found /= next((form for form in forms if os.path.exists(found / form)), part)
    return found


def read_range(path: Path, offset: int = 0, size: int | None = None) -> bytes:
    """Read bytes of a file.

    Args:
        path: the file.
        offset: first byte.
        size: number of bytes, None for the rest; fewer are returned if the file ends earlier.

    Raises:
        ImageTooLarge: more than MAX_FILE_BYTES.
        SourceNotFound: there is no such file.
        SourceError: the file can't be read.
    """
    try:
        with path.open("rb") as stream:
            length = os.fstat(stream.fileno()).st_size - offset if size is None else size
            check_size(length)
            stream.seek(offset)
            return stream.read(length)
    except OSError as error:
        raise read_error(path, error) from error


def check_size(length: int) -> None:
    """Raise ImageTooLarge if an image file exceeds MAX_FILE_BYTES."""
    if length > MAX_FILE_BYTES:
        raise ImageTooLarge(f"image file of {length:,} bytes is over the limit of {MAX_FILE_BYTES:,} bytes")


def read_error(path: Path | str, error: OSError) -> SourceError:
    """Return the SourceError for an OSError."""
    kind = SourceNotFound if isinstance(error, FileNotFoundError | NotADirectoryError) else SourceError
    return kind(f"{cut(display_name(str(path)))} can't be read: {error.strerror or error}")

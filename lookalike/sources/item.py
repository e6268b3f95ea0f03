"""What a source yields: an item is an image that can be read later, with an id, a fingerprint and its columns.

Reading is put off until `load` is called, so that an item that was indexed before costs no more than a look at its
size and time stamp. It knows nothing of pixels: `load` gives the bytes of an image file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

from lookalike.errors import ImageTooLarge, LookalikeError, SourceError, SourceNotFound

MAX_FILE_BYTES = 1 << 29
"""Larger image files are refused unread: half a gigabyte, so that memory stays bounded."""


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Which columns of a table play a part; None where the source finds them itself."""

    id: str | None = None
    image: str | None = None
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source.

    Attributes:
        id: unique in the collection, derived from path, key or id column; stable from run to run.
        source: the label of the source, for people.
        fingerprint: 64 bits that change when the image or its caption may have changed.
        load: gives the image file's bytes; raises LookalikeError. Safe to call from any thread.
        columns: the item's metadata.
        fallback_id: what it is called where an earlier source holds an item of the same id already; None to refuse it.
    """

    id: str
    source: str
    fingerprint: int
    load: Callable[[], bytes]
    columns: Mapping[str, Any] = field(default_factory=dict)
    fallback_id: str | None = None


class Source(Protocol):
    """A re-iterable stream of items in an order that does not change from run to run."""

    label: str

    def __iter__(self) -> Iterator[Item]:
        """The items; what can't be read is an item whose `load` raises, so that it is counted and reported."""
        ...

    def estimated_count(self) -> int | None:
        """About how many items there are, None where only reading everything would tell."""
        ...


def unreadable_item(
    item_id: str,
    source: str,
    error: LookalikeError,
    columns: Mapping[str, Any] | None = None,
    fallback_id: str | None = None,
) -> Item:
    """An item that is known to be unreadable before it is loaded."""

    def fail() -> NoReturn:
        raise error

    return Item(item_id, source, 0, fail, columns or {}, fallback_id)


def fingerprint(*parts: object) -> int:
    """64 bits of BLAKE2b over the parts' text."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def size_and_mtime(stat: os.stat_result) -> tuple[int, int]:
    """What tells cheaply that a file was changed: size in bytes and modification time in nanoseconds."""
    return stat.st_size, stat.st_mtime_ns


def display_name(name: str) -> str:
    """A file name as text that every format can carry: bytes that are not UTF-8 become backslash escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_range(path: Path, offset: int = 0, size: int | None = None) -> bytes:
    """Bytes of a file, translated errors.

    Args:
        path: the file.
        offset: where to begin, bytes.
        size: how many bytes, None for the rest; fewer come back where the file ends before.

    Raises:
        ImageTooLarge: more than MAX_FILE_BYTES.
        SourceNotFound: no such file.
        SourceError: it can't be read.
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
    """Raises ImageTooLarge for an image file of more bytes than MAX_FILE_BYTES."""
    if length > MAX_FILE_BYTES:
        raise ImageTooLarge(f"image file of {length:,} bytes is over the limit of {MAX_FILE_BYTES:,} bytes")


def read_error(path: Path, error: OSError) -> SourceError:
    """The error of the tree that says why a file can't be read."""
    kind = SourceNotFound if isinstance(error, FileNotFoundError | NotADirectoryError) else SourceError
    return kind(f"{display_name(str(path))} can't be read: {error.strerror or error}")

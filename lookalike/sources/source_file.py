"""The file of a source that holds many images, a tar or a table: on a local disk or in a bucket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from typing_extensions import override

from lookalike.object_storage import StoredObject, open_object, read_object
from lookalike.sources.item import check_size, display_name, read_range, size_and_mtime


class SourceFile(Protocol):
    """A file that can be read in parts, from any thread and any process."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        ...

    @property
    def folder(self) -> Path | None:
        """The local folder that holds it, to which paths in a table are relative; None in a bucket."""
        ...

    def open(self) -> BinaryIO:
        """Return its content as a seekable stream, an `io.BufferedReader`."""
        ...

    def stamp(self) -> tuple[int | str, ...]:
        """Return what changes with its content: its size, and a time stamp or a tag."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of it, fewer if it ends earlier; raises as `read_range`."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFile(SourceFile):
    """A file on a local disk."""

    path: Path

    @property
    @override
    def name(self) -> str:
        return self.path.name

    @property
    @override
    def folder(self) -> Path:
        return self.path.parent

    @override
    def open(self) -> BinaryIO:
        return self.path.open("rb")

    @override
    def stamp(self) -> tuple[int | str, ...]:
        return size_and_mtime(self.path.stat())

    @override
    def read(self, offset: int, size: int) -> bytes:
        return read_range(self.path, offset, size)

    def __str__(self) -> str:
        return display_name(str(self.path))


@dataclass(frozen=True, slots=True)
class BucketFile(SourceFile):
    """An object in a bucket."""

    stored: StoredObject

    @property
    @override
    def name(self) -> str:
        return self.stored.location.name

    @property
    @override
    def folder(self) -> None:
        return None

    @override
    def open(self) -> BinaryIO:
        return open_object(self.stored)

    @override
    def stamp(self) -> tuple[int | str, ...]:
        return self.stored.size, self.stored.etag

    @override
    def read(self, offset: int, size: int) -> bytes:
        check_size(size)
        return read_object(self.stored.location, offset, min(size, self.stored.size - offset))

    def __str__(self) -> str:
        return display_name(str(self.stored.location))

"""The image files that items were indexed from, opened for reading: only below the folders of the sources.

`Originals` belongs to one version of a collection. Which items may have an original is decided by their source, once a
version; whether the file is there is seen when it is opened.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.errors import NoOriginal
from lookalike.collection import Collection
from lookalike.images import media_type
from lookalike.messages import quoted
from lookalike.source_places import read_source_places
from lookalike.sources.item import find_path
from lookalike.sources.place import SourcePlace
from lookalike.types import Bool
from lookalike.writes.live_collection import LiveCollection

logger = logging.getLogger(__name__)

COLUMNS = ("source", "path")
"""The columns of an item's record that `Originals.open` needs."""

_HEAD_BYTES = 64
_ENTER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # opening a named pipe must not block
_HELD_IN = {
    "tar": "a tar",
    "table": "a table, as bytes or by paths that the metadata does not have",
    "bucket": "a bucket",
}


@dataclass(frozen=True, slots=True)
class Original:
    """An opened image file; its owner closes `file`."""

    file: io.FileIO
    status: os.stat_result
    media_type: str
    name: str


class _Unfit(Exception):
    """A file that is not served; the text completes "FILE is ..."."""


class Originals:
    """The originals of a version."""

    def __init__(self, collection: Collection, pool: Executor) -> None:
        """Look up where the sources lie, and log which of their folders can't be read; files are opened in `pool`."""
        self._pool = pool
        self._places = read_source_places(collection.root)
        self._roots = {
            label: os.path.realpath(places[0].folder)
            for label, places in self._places.items()
            if len(places) == 1 and places[0].folder is not None
        }
        unreadable = {root for root in set(self._roots.values()) if not _is_readable(root)}
        for root in sorted(unreadable):
            logger.warning(
                "originals_unreadable collection=%s folder=%s: it is no folder that the service may read; mount it "
                "there, then start again",
                collection.root.name,
                root,
            )
        self._available = {label for label, root in self._roots.items() if root not in unreadable}
        self._rows = _rows_of(collection, self._available)

    def may_exist(self, collection: Collection, row: int) -> bool:
        """Return whether the source of a row can be read, without looking at the file; takes microseconds.

        Args:
            collection: the version, perhaps with what was written to it since.
            row: of it.
        """
        if row < len(self._rows):
            return bool(self._rows[row])
        return _written_record(collection, row).get("source") in self._available

    async def open(self, item_id: str, record: Mapping[str, Any]) -> Original:
        """Open the file of an item.

        Args:
            item_id: for messages.
            record: the item's metadata, of which `COLUMNS` are needed.

        Raises:
            NoOriginal: there is none, or it may not be read.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._open, item_id, record)

    def _open(self, item_id: str, record: Mapping[str, Any]) -> Original:
        label, path = record.get("source"), record.get("path")
        if not isinstance(label, str):
            raise NoOriginal(
                f"the item {quoted(item_id)} has no source: it was written over HTTP or imported as an embedding, of "
                "which no file is kept"
            )
        root = self._root(label)
        if not isinstance(path, str) or not path:
            raise NoOriginal(f"the item {quoted(item_id)} has no path below its source {quoted(label)}")
        with _explained(path, label):
            file = _open_below(root, path)
            try:
                return _checked(file, path)
            except BaseException:
                file.close()
                raise

    def _root(self, label: str) -> str:
        places = self._places.get(label)
        if places is None:
            raise NoOriginal(
                f"it is not recorded where the source {quoted(label)} lies; run `lookalike index` again on this "
                "machine, then restart the service"
            )
        root = self._roots.get(label)
        if root is None:
            raise NoOriginal(_why_none(label, places))
        return root


def _is_readable(folder: str) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)


def _why_none(label: str, places: list[SourcePlace]) -> str:
    if len(places) > 1:
        return f"several sources are named {quoted(label)}; index each with a name of its own, as NAME=PATH"
    held = _HELD_IN.get(places[0].kind, "no file of its own")
    return f"the images of the source {quoted(label)} are in {held}; index a folder of image files to have originals"


def _rows_of(collection: Collection, labels: set[str]) -> Bool:
    """Return (n,) whether the source of each row is one of the labels."""
    if "source" not in collection.metadata.columns:
        return np.zeros(len(collection), np.bool_)
    column = collection.metadata.column("source").cast(pa.string())
    found: Bool = pc.is_in(column, value_set=pa.array(sorted(labels), pa.string())).to_numpy()
    return found


def _written_record(collection: Collection, row: int) -> Mapping[str, Any]:
    assert isinstance(collection, LiveCollection)
    return collection.delta.slots[row - len(collection.version)].record


@contextmanager
def _explained(path: str, label: str) -> Iterator[None]:
    """Raise what goes wrong with a file as NoOriginal."""
    where = f"{quoted(path)} of the source {quoted(label)}"
    try:
        yield
    except _Unfit as error:
        raise NoOriginal(f"{where} is {error}; put the image back, or index again") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoOriginal(f"{where} is no longer there; put the image back, or index again") from error
    except PermissionError as error:
        raise NoOriginal(f"{where} can't be read; let the user who runs the service read it") from error
    except OSError as error:
        raise NoOriginal(f"{where} can't be read: {error.strerror}") from error
    except ValueError as error:  # it is not below the folder
        raise NoOriginal(
            f"{where} leads outside the folder of its source, by a link or by its path; index the folder that holds "
            "the file itself"
        ) from error


def _open_below(root: str, path: str) -> io.FileIO:
    """Open the regular file at a path below a folder, whose own path has no link.

    Raises:
        OSError: it can't be opened.
        ValueError: it is not below the folder.
        _Unfit: it is not a regular file.
    """
    real = os.path.realpath(find_path(Path(root) / path), strict=True)
    *above, name = Path(real).relative_to(root).parts or (".",)
    # Folder by folder, following no link: one that was put there since the path was resolved fails.
    folder = os.open(root, _ENTER)
    try:
        for part in above:
            inner = os.open(part, _ENTER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        _require_regular(os.stat(name, dir_fd=folder, follow_symlinks=False))  # opening a device may have effects
        return io.FileIO(_opened_regular(name, folder), "rb")
    finally:
        os.close(folder)


def _opened_regular(name: str, folder: int) -> int:
    descriptor = os.open(name, _READ | os.O_NOFOLLOW, dir_fd=folder)
    try:
        _require_regular(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _Unfit("a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")


def _checked(file: io.FileIO, path: str) -> Original:
    """Return the opened file if it is an image by its content, whatever its name says."""
    kind = media_type(file.read(_HEAD_BYTES))
    file.seek(0)
    if kind is None:
        raise _Unfit("no longer an image by its content")
    return Original(file, os.fstat(file.fileno()), kind, path.rpartition("/")[2])

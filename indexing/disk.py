"""Writing that survives a kill: whole files or none, one job for a collection, a full disk told apart from a bug."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from retrieval.collection import CURRENT, VERSIONS
from retrieval.errors import CollectionBusy, CollectionUnwritable, DiskFull, StoreUnavailable

LOCK, WORK = ".lock", ".work"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_OURS = {LOCK, WORK, CURRENT, VERSIONS}


def write_table(path: Path, table: pa.Table) -> None:
    """Writes an Arrow IPC file so that a reader finds it whole or not at all, power cuts included."""
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("wb") as stream:
            with pa.ipc.new_file(stream, table.schema) as writer:
                writer.write_table(table)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)  # half a file on a full disk is in the way
    sync_folder(path.parent)


def read_table(path: Path) -> pa.Table:
    """The table of an Arrow IPC file, memory-mapped."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Makes the collection's folder if need be and holds it alone; the kernel lets go when the process dies.

    Raises:
        CollectionBusy: another job holds it; names its process.
        CollectionUnwritable: the folder holds other things than a collection, or can't be written to.
    """
    _require_collection_or_empty(root)
    with _opened_lock(root) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            owner = stream.read().strip() or "unknown"
            raise CollectionBusy(f"process {owner} is writing to {root} just now; wait for it, or stop it") from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def _opened_lock(root: Path) -> TextIO:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return (root / LOCK).open("a+")
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise CollectionUnwritable(f"{root} can't be written to: {error.strerror}") from error


def _require_collection_or_empty(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise CollectionUnwritable(f"{root} is a file; a collection is a folder")
    if root.is_dir() and not (root / CURRENT).exists() and (strange := {path.name for path in root.iterdir()} - _OURS):
        raise CollectionUnwritable(
            f"{root} holds other files ({min(strange)!r}, ...); name a new or empty folder with --out"
        )


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turns "no space left" into DiskFull, however the library at work words it.

    Raises:
        DiskFull: names the folder and the mend.
    """
    try:
        yield
    except (OSError, StoreUnavailable) as error:
        # numpy reports a short write without an errno, and FAISS in words.
        number = getattr(error, "errno", None)
        if number not in _FULL and not (number is None and shutil.disk_usage(root).free < 1 << 20):
            raise
        raise DiskFull(
            f"the disk of {root} is full; what was encoded is kept: make room and run the same command again"
        ) from error

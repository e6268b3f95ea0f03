"""Writing that survives a kill: whole files or none, one job for a collection."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from lookalike.collection import CURRENT, UNFINISHED_CURRENT, VERSIONS
from lookalike.disk_errors import DISK_FULL_ERRNOS
from lookalike.errors import CollectionBusy, CollectionUnwritable
from lookalike.file_lock import acquire_lock

LOCK, WORK = ".lock", ".work"
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


def clean_up(work: Path) -> None:
    """Removes what a published version has made superfluous; other unfinished work of the collection stays."""
    shutil.rmtree(work, ignore_errors=True)
    if work.parent.is_dir() and not any(work.parent.iterdir()):
        work.parent.rmdir()


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Makes the collection's folder if need be and holds it alone; the kernel lets go when the process dies.

    Raises:
        CollectionBusy: another job holds it; names its process.
        CollectionUnwritable: the folder holds other things than a collection, or can't be written to.
    """
    _require_collection_or_empty(root)
    with _opened_lock(root) as stream:
        if owner := acquire_lock(stream):
            raise CollectionBusy(f"process {owner} is writing to {root} just now; wait for it, or stop it")
        yield


def _opened_lock(root: Path) -> TextIO:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return (root / LOCK).open("a+")
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise
        raise CollectionUnwritable(f"{root} can't be written to: {error.strerror}") from error


def _require_collection_or_empty(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise CollectionUnwritable(f"{root} is a file; a collection is a folder")
    if not root.is_dir() or (root / CURRENT).exists():
        return
    names = {path.name for path in root.iterdir()} - _OURS
    if strange := {name for name in names if not fnmatch(name, UNFINISHED_CURRENT)}:
        raise CollectionUnwritable(
            f"{root} holds other files ({min(strange)!r}, ...); name a new or empty folder with --out"
        )

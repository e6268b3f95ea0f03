"""The lock on a collection's folder while a job writes to it, and the work folder that a stopped job resumes from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TextIO

from lookalike.collection import CURRENT, UNFINISHED_CURRENT, VERSIONS
from lookalike.collection_calibration import CALIBRATION_FILE
from lookalike.disk_errors import DISK_FULL_ERRNOS
from lookalike.errors import CollectionBusy, CollectionUnwritable
from lookalike.file_lock import acquire_lock
from lookalike.paths import exists
from lookalike.source_places import SOURCES_FILE
from lookalike.writes.log import HEAD_FILE, LOG_FILES
from lookalike.writes.writer import LOCK_FILE

LOCK, WORK = ".lock", ".work"
_COLLECTION_NAMES = {LOCK, WORK, CURRENT, VERSIONS, CALIBRATION_FILE, SOURCES_FILE, HEAD_FILE, LOCK_FILE, *LOG_FILES}
UNFINISHED_SOURCES = f".{SOURCES_FILE}.*"
"""Pattern of temporary files that remain if a job is killed while it writes `sources.json`."""


def remove_work(work: Path) -> None:
    """Remove the work of a version that was published; other unfinished work of the collection stays."""
    shutil.rmtree(work, ignore_errors=True)
    if work.parent.is_dir() and not any(work.parent.iterdir()):
        work.parent.rmdir()


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Create the collection's folder if needed and lock it; the kernel releases the lock when the process dies.

    Raises:
        CollectionBusy: another job holds the lock; the message names its process.
        CollectionUnwritable: the folder holds other files than a collection's, or can't be written to.
    """
    try:
        _require_collection_or_empty(root)
    except OSError as error:
        raise _unwritable(root, error) from error
    with _open_lock(root) as stream:
        if owner := acquire_lock(stream):
            raise CollectionBusy(f"process {owner} is writing to {root} just now; wait for it, or stop it")
        yield


def _open_lock(root: Path) -> TextIO:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return (root / LOCK).open("a+")
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise
        raise _unwritable(root, error) from error


def _unwritable(root: Path, error: OSError) -> CollectionUnwritable:
    return CollectionUnwritable(f"{root} can't be written to: {error.strerror}")


def _require_collection_or_empty(root: Path) -> None:
    if exists(root) and not root.is_dir():
        raise CollectionUnwritable(f"{root} is a file; a collection is a folder")
    if not root.is_dir() or exists(root / CURRENT):
        return
    names = {path.name for path in root.iterdir()} - _COLLECTION_NAMES
    unfinished = (UNFINISHED_CURRENT, UNFINISHED_SOURCES)
    if unexpected := {name for name in names if not any(fnmatch(name, pattern) for pattern in unfinished)}:
        raise CollectionUnwritable(f"{root} holds other files ({min(unexpected)!r}, ...); name a new or empty folder")

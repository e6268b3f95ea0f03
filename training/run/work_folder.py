"""The work folder of a run, `OUT.work` beside the encoder that it writes, and its lock against a second run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.errors import SourceError
from lookalike.file_lock import acquire_lock
from training.distributed import Process

_LOCK_FILE = ".lock"


def work_folder(out: Path) -> Path:
    """Return the work folder of the encoder `out`."""
    return out.with_name(f"{out.name}.work")


@contextmanager
def locked_work_folder(folder: Path, process: Process) -> Iterator[None]:
    """Make and lock the work folder; remove it at the end if it is empty.

    Raises:
        SourceError: the folder can't be made, or another run uses it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(f"{folder} can't be made: {error.strerror}; name another --out") from error
    with (folder / _LOCK_FILE).open("a+") as lock:
        if process.first and (owner := acquire_lock(lock)):
            raise SourceError(
                f"process {owner} is training in {folder} just now; wait for it, stop it, or use another --out"
            )
        try:
            yield
        finally:
            if process.first and os.listdir(folder) == [_LOCK_FILE]:
                (folder / _LOCK_FILE).unlink()
                folder.rmdir()

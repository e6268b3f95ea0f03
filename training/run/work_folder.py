"""The work folder of a run, `OUT.work` beside the encoder that it will become, and who may be at work in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.errors import SourceError
from lookalike.file_lock import acquire_lock
from training.distributed import Process

_LOCK = ".lock"


def work_folder(out: Path) -> Path:
    """Where the work on `out` is kept."""
    return out.with_name(f"{out.name}.work")


@contextmanager
def alone(work: Path, process: Process) -> Iterator[None]:
    """Makes the work folder, and refuses a second run in it; one in which nothing came to be goes again."""
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(f"{work} can't be made: {error.strerror}; name another --out") from error
    with (work / _LOCK).open("a+") as lock:
        if process.first and (owner := acquire_lock(lock)):
            raise SourceError(
                f"process {owner} is training in {work} just now; wait for it, stop it, or use another --out"
            )
        try:
            yield
        finally:
            if process.first and os.listdir(work) == [_LOCK]:
                (work / _LOCK).unlink()
                work.rmdir()

"""What can go wrong with a folder that long work writes to: it fills up, or two processes write to it at once."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lookalike.errors import DiskFull, StoreUnavailable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How the system says that there is no room left: on the disk, in a quota, or for a file of that size."""


@contextmanager
def disk_errors(root: Path, kept: str = "what was done is kept") -> Iterator[None]:
    """Turns "no space left" into DiskFull, however the library at work words it.

    Args:
        root: the folder that is written to.
        kept: what becomes of the work, for the message.

    Raises:
        DiskFull: names the folder and the mend.
    """
    try:
        yield
    except (OSError, RuntimeError, StoreUnavailable) as error:
        # numpy reports a short write without an errno, torch and FAISS in words.
        number = getattr(error, "errno", None)
        if number not in FULL and not (number is None and shutil.disk_usage(root).free < 1 << 20):
            raise
        full = (
            "files may not grow that large (ulimit -f, or the file system)"
            if number == errno.EFBIG
            else f"the disk of {root} is full"
        )
        raise DiskFull(f"{full}; make room and run the same command again: {kept}") from error


def take_lock(stream: TextIO) -> str | None:
    """Holds a lock file until it is closed or the process dies, which is when the kernel lets go.

    Args:
        stream: the file, opened with `a+`; our process id is written into it.

    Returns:
        None where the lock is ours now, else the id of the process that holds it.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        return stream.read().strip() or "unknown"
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    return None

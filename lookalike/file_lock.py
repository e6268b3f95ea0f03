"""An exclusive lock on a file, held by one process at a time."""

from __future__ import annotations

import fcntl
import os
from typing import TextIO


def acquire_lock(stream: TextIO) -> str | None:
    """Lock a file without waiting; the kernel releases it when the stream is closed or the process ends.

    Args:
        stream: the file, opened with `a+`; this process's id is written into it.

    Returns:
        None if this process holds the lock now, else the id of the process that does.
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

"""Reading of small files beside images."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lookalike.errors import SourceError
from lookalike.sources.item import display_name, read_error


def read_regular_file(path: Path, limit: int, *, cut: bool = False) -> bytes:
    """Return the content of a file; its size is known from the opened file, without another look at the path.

    Args:
        path: the file.
        limit: the most bytes that are read.
        cut: return the first `limit` bytes of a larger file.

    Raises:
        SourceError: it can't be read, is no regular file, or is larger than the limit.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would block.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SourceError(f"{display_name(str(path))} is not a regular file")
            if status.st_size > limit and not cut:
                raise SourceError(
                    f"{display_name(str(path))} has {status.st_size:,} bytes; the limit for such a file is {limit:,}"
                )
            return stream.read(limit)
    except OSError as error:
        raise read_error(path, error) from error

"""Translation of the operating system's errors about files: a full disk, missing permission, a drive that fails."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.errors import DiskFull, SourceError, StoreUnavailable

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""`errno` values for a full disk, an exhausted quota and a file that may not grow."""


@contextmanager
def translated_disk_errors(root: Path, kept: str = "what was done is kept") -> Iterator[None]:
    """Raise this project's errors for those of the operating system within the block.

    Args:
        root: the folder that the block writes to.
        kept: what remains of the work done so far, for the message.

    Raises:
        DiskFull: the disk or a quota is full, or a file may not grow; says how to continue.
        SourceError: a file or folder can't be read or written; names it.
    """
    try:
        yield
    except (OSError, RuntimeError, StoreUnavailable) as error:
        # NumPy reports a short write without an errno; torch and FAISS raise RuntimeError with a text.
        number = getattr(error, "errno", None)
        if number not in DISK_FULL_ERRNOS and not (number is None and is_disk_full(root)):
            if isinstance(error, OSError) and number is not None:
                raise file_error(error) from error
            raise
        full = (
            "files may not grow that large (ulimit -f, or the file system)"
            if number == errno.EFBIG
            else f"the disk of {root} is full"
        )
        raise DiskFull(f"{full}; free some space and run the same command again: {kept}") from error


def is_disk_full(root: Path) -> bool:
    """Return whether hardly any space is left where a folder is."""
    try:
        return shutil.disk_usage(root).free < 1 << 20
    except OSError:
        return False


def file_error(error: OSError) -> SourceError:
    """Return the error about the file or folder that the operating system refused, on one line."""
    if error.filename is None:
        return SourceError(" ".join(str(error).split()))
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else "an open file"
    return SourceError(f"{name} can't be read or written: {error.strerror or error}")

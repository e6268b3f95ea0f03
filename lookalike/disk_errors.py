"""Translation of "no space left on device", as the standard library, NumPy, torch and FAISS report it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.errors import DiskFull, StoreUnavailable

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""`errno` values for a full disk, an exhausted quota and a file that may not grow."""


@contextmanager
def translated_disk_errors(root: Path, kept: str = "what was done is kept") -> Iterator[None]:
    """Raise DiskFull for any error within the block that is due to a full disk.

    Args:
        root: the folder that the block writes to.
        kept: what remains of the work done so far, for the message.

    Raises:
        DiskFull: the disk or a quota is full, or a file may not grow; says how to continue.
    """
    try:
        yield
    except (OSError, RuntimeError, StoreUnavailable) as error:
        # NumPy reports a short write without an errno; torch and FAISS raise RuntimeError with a text.
        number = getattr(error, "errno", None)
        if number not in DISK_FULL_ERRNOS and not (number is None and shutil.disk_usage(root).free < 1 << 20):
            raise
        full = (
            "files may not grow that large (ulimit -f, or the file system)"
            if number == errno.EFBIG
            else f"the disk of {root} is full"
        )
        raise DiskFull(f"{full}; free some space and run the same command again: {kept}") from error

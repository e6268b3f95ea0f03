"""Questions about paths that tell "there is none" from "it can't be told": `Path.exists` and `Path.glob` may not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_MISSING_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_OTHER_CAUSES = _MISSING_ERRNOS | {errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR}


def exists(path: Path) -> bool:
    """Return whether there is something at a path.

    Raises:
        OSError: it can't be told, as in a folder that may not be entered.
    """
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in _MISSING_ERRNOS:
            return False
        raise
    return True


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; none if there is no folder.

    Raises:
        OSError: it can't be listed.
    """
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        if error.errno in _MISSING_ERRNOS:
            return []
        raise


def is_unavailable(error: BaseException | None) -> bool:
    """Return whether an error says that a file can't be reached now: no permission, or a drive that fails.

    A missing file and damaged content are no such errors. Libraries report the latter as OSError without a number.

    >>> is_unavailable(PermissionError(errno.EACCES, "Permission denied")), is_unavailable(OSError("bad block"))
    (True, False)
    """
    return isinstance(error, OSError) and error.errno is not None and error.errno not in _OTHER_CAUSES

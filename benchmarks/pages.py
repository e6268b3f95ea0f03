"""The kernel's page cache by file: the share of a file's pages in memory, and dropping them (Linux).

`drop` removes them from this machine's memory; a disk or a host may still hold a copy.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_POPULATE_READ = 22  # MADV_POPULATE_READ, missing in Python's mmap
_MAX_REMAINING_SHARE = 0.01


def cached_share(path: Path) -> float:
    """Return the share of a file's pages that are in memory, in [0, 1], by mincore(2)."""
    content = np.memmap(path, np.uint8, "r")
    pages = np.empty(-(-len(content) // mmap.PAGESIZE), np.uint8)
    _check(_LIBC.mincore(content.ctypes.data, len(content), pages.ctypes.data))
    return float((pages & 1).mean())


def drop(path: Path) -> None:
    """Drop a file's pages from memory; only this process may have it mapped.

    posix_fadvise(POSIX_FADV_DONTNEED) keeps dirty and mapped pages. So dirty pages are written first, and this
    process's mappings release their pages (madvise(MADV_DONTNEED)). The mappings stay valid, and the next access reads
    from disk, as in a service whose files were evicted from memory.

    Raises:
        OSError: pages remain, since the file is in memory (tmpfs) or mapped by another process.
    """
    advise(path, mmap.MADV_DONTNEED)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    if (share := cached_share(path)) > _MAX_REMAINING_SHARE:
        raise OSError(f"{share:.0%} of {path} stay in memory: is it on a tmpfs, or mapped by another process?")


def advise(path: Path, advice: int) -> None:
    """Call madvise(2) on this process's mappings of a file; `mmap.MADV_RANDOM` disables reading ahead."""
    for mapping in _mappings(path):
        if _LIBC.madvise(*mapping, advice):
            error = ctypes.get_errno()
            if mapping in _mappings(path):  # else it was unmapped meanwhile
                raise OSError(error, os.strerror(error))


def fetch(path: Path) -> None:
    """Load all pages of a mapped file into memory and into this process's mappings (Linux 5.14 or later)."""
    advise(path, mmap.MADV_NORMAL)  # enables reading ahead
    advise(path, _POPULATE_READ)


def _mappings(path: Path) -> list[tuple[int, int]]:
    """Return (address, length) of this process's mappings of a file that can drop pages without losing changes."""
    mappings = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = line.split(maxsplit=5)
        if len(words) == 6 and words[5] == str(path.resolve()) and (words[1].endswith("s") or "w" not in words[1]):
            start, end = (int(address, 16) for address in words[0].split("-"))
            mappings.append((start, end - start))
    return mappings


def _check(status: int) -> None:
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

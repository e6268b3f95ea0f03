"""The kernel's page cache, by file: whether a file's pages are in memory, and dropping them (Linux).

`drop` takes them from this machine's memory; a disk or a host below it may still hold a copy of its own.
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
_POPULATE_READ = 22  # MADV_POPULATE_READ, which Python's mmap does not name yet
_STAY = 0.01  # a share that may stay without being called a failure


def cached_share(path: Path) -> float:
    """Share of a file's pages that are in memory, in [0, 1], by mincore(2)."""
    content = np.memmap(path, np.uint8, "r")
    pages = np.empty(-(-len(content) // mmap.PAGESIZE), np.uint8)
    _check(_LIBC.mincore(content.ctypes.data, len(content), pages.ctypes.data))
    return float((pages & 1).mean())


def drop(path: Path) -> None:
    """Drops a file's pages from memory; this process may have it mapped, no other may.

    posix_fadvise(POSIX_FADV_DONTNEED) leaves alone what is dirty or mapped. So what is dirty is written first, and
    this process's mappings let go of their pages (madvise(MADV_DONTNEED)); they stay valid, and the next access reads
    from disk. This is what a service meets whose files other work has pushed out of memory.

    Raises:
        OSError: pages stayed, since the file lies in memory (tmpfs) or another process has it mapped.
    """
    advise(path, mmap.MADV_DONTNEED)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    if (share := cached_share(path)) > _STAY:
        raise OSError(f"{share:.0%} of {path} stay in memory: is it on a tmpfs, or mapped by another process?")


def advise(path: Path, advice: int) -> None:
    """madvise(2) on this process's mappings of a file: `mmap.MADV_RANDOM` reads a page at a time, not far ahead."""
    for mapping in _mappings(path):
        if _LIBC.madvise(*mapping, advice):
            error = ctypes.get_errno()
            if mapping in _mappings(path):  # else it was let go of meanwhile, and wants no advice
                raise OSError(error, os.strerror(error))


def fetch(path: Path) -> None:
    """Brings all pages of a mapped file into memory and into this process's mappings of it (Linux 5.14 or later)."""
    advise(path, mmap.MADV_NORMAL)  # reading ahead, or this would go page by page
    advise(path, _POPULATE_READ)


def _mappings(path: Path) -> list[tuple[int, int]]:
    """(address, length) of this process's mappings of a file that can let go of their pages without losing changes."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = line.split(maxsplit=5)
        if len(words) == 6 and words[5] == str(path.resolve()) and (words[1].endswith("s") or "w" not in words[1]):
            start, end = (int(address, 16) for address in words[0].split("-"))
            found.append((start, end - start))
    return found


def _check(status: int) -> None:
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

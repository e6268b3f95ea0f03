"""The C heap, told to keep the memory that a training step frees: the next step asks for the same again.

glibc hands large blocks back to the kernel at once and takes zeroed pages anew; on a CPU that is a third of a step of
a convolutional network (benchmarks/RESULTS.md).
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""`mallopt`'s names for its parameters, from glibc's malloc.h."""
_KEPT = 1 << 30


def keep_freed_memory() -> bool:
    """Keeps up to 1 GB of freed memory in this process, for all of its life; returns whether the C library can."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _KEPT) and mallopt(_TRIM_THRESHOLD, _KEPT))

"""A setting of the C allocator for training: keep the memory that a step frees, since the next step needs it again.

glibc returns large blocks to the kernel immediately and gets zeroed pages again. On a CPU that takes a third of a step
of a convolutional network (benchmarks/history/training.md).
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""`mallopt`'s numbers of its parameters, from glibc's malloc.h."""
_MAX_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Keep up to 1 GB of freed memory in this process from now on; return whether the C library supports it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MAX_KEPT_BYTES) and mallopt(_TRIM_THRESHOLD, _MAX_KEPT_BYTES))

"""Settings of the process: open files, the allocator, the garbage collector, and its end."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import resource
from contextlib import suppress

logger = logging.getLogger(__name__)

MAX_OPEN_FILES = 65_536
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 1024 * 1024
"""mallopt(3): allocations from this size on are mapped, and unmapped when they are freed."""
_GC_THRESHOLD = 50_000
"""New objects after which Python's garbage collector runs; Python's default is 700."""


def raise_open_file_limit() -> None:
    """Raise the soft limit of open files to the hard one: each connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, MAX_OPEN_FILES)), hard))


def return_freed_memory() -> None:
    """Have glibc return large buffers to the system as soon as they are freed.

    By default it raises its threshold with each large buffer that is freed, up to 32 MB, and keeps those below it.
    """
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def tune_garbage_collector() -> None:
    """Exempt all present objects from garbage collection, and collect rarely from now on.

    Libraries create half a million objects; a pass over them stops all queries for a quarter of a second. A request
    leaves no cycles (tests/api/test_garbage.py), and hundreds in flight are many objects
    (benchmarks/history/overload.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


def end_process() -> None:
    """End the process without its threads: one that computes can't be stopped, and Python would wait for it."""
    logger.warning("a thread is still running; the process ends without it")
    os._exit(0)

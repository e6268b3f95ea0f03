"""The number of CPU cores."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):  # Linux: containers and `taskset` allow fewer cores than there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

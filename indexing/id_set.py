"""A set of 64-bit hashes in sorted runs: 8 bytes an element, where a Python set takes about 90.

Two ids share a hash with probability n**2 / 2**65: three in a million among ten million images.
"""

from __future__ import annotations

import numpy as np

from lookalike.types import UInt64

_MAX_RECENT = 1 << 16  # hashes kept in a Python set before they become a run


class IdSet:
    """A growing set of 64-bit integers; membership costs a binary search in each of at most log2(n / 65536) runs."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._runs: list[UInt64] = []

    def __contains__(self, value: int) -> bool:
        """Return whether a value was added."""
        return value in self._recent or any(_contains(run, value) for run in self._runs)

    def add(self, value: int) -> bool:
        """Add a value; return False if it was in the set already."""
        if value in self:
            return False
        self._recent.add(value)
        if len(self._recent) == _MAX_RECENT:
            self._merge_recent()
        return True

    def _merge_recent(self) -> None:
        run = np.sort(np.fromiter(self._recent, np.uint64, len(self._recent)))
        self._recent.clear()
        while self._runs and len(self._runs[-1]) <= len(run):  # as in a binary counter: sizes stay powers of two
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        self._runs.append(run)


def _contains(run: UInt64, value: int) -> bool:
    i = int(np.searchsorted(run, np.uint64(value)))
    return i < len(run) and int(run[i]) == value

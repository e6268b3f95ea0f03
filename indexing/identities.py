"""Ids: which were seen, and those of vectors that came without any.

Seen ones are 64-bit hashes in sorted runs, 8 bytes an id, where a Python set would take about 90. Two ids share a hash
with probability n**2 / 2**65: three in a million among ten million images.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np

from lookalike.types import Float32, UInt64

_RECENT = 1 << 16  # hashes kept in a Python set before they become a run


class IdSet:
    """A growing set of 64-bit integers; membership costs a binary search in each of at most log2(n / 65536) runs."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._runs: list[UInt64] = []

    def add(self, value: int) -> bool:
        """Adds a value; False where it was there already."""
        if value in self._recent or any(_contains(run, value) for run in self._runs):
            return False
        self._recent.add(value)
        if len(self._recent) == _RECENT:
            self._settle()
        return True

    def _settle(self) -> None:
        run = np.sort(np.fromiter(self._recent, np.uint64, len(self._recent)))
        self._recent.clear()
        while self._runs and len(self._runs[-1]) <= len(run):  # as in a binary counter: sizes stay powers of two
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        self._runs.append(run)


class ContentIds:
    """Ids of vectors by what they are: a hash, and for equal ones, from the second on, their number.

    >>> ContentIds().of(np.float32([[1, 0], [0, 1], [1, 0]]))[::2]
    ['4956e1b39c16f6622034652d41aa34df', '4956e1b39c16f6622034652d41aa34df-2']
    """

    def __init__(self) -> None:
        self._seen = IdSet()
        self._more: Counter[bytes] = Counter()

    def of(self, vectors: Float32) -> list[str]:
        """The ids of the next (m, d) vectors."""
        return [self._one(hashlib.blake2b(row.tobytes(), digest_size=16).digest()) for row in vectors]

    def _one(self, digest: bytes) -> str:
        if self._seen.add(int.from_bytes(digest[:8])):
            return digest.hex()
        self._more[digest] += 1
        return f"{digest.hex()}-{self._more[digest] + 1}"


def _contains(run: UInt64, value: int) -> bool:
    i = int(np.searchsorted(run, np.uint64(value)))
    return i < len(run) and int(run[i]) == value

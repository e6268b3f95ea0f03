"""Ids for vectors that have none."""

from __future__ import annotations

import hashlib
from collections import Counter

from indexing.id_set import IdSet
from lookalike.types import Float32


class ContentIds:
    """Ids by content: a hash of the vector, and for equal vectors, from the second on, a number after it.

    >>> import numpy as np
    >>> ContentIds().next_ids(np.float32([[1, 0], [0, 1], [1, 0]]))[::2]
    ['4956e1b39c16f6622034652d41aa34df', '4956e1b39c16f6622034652d41aa34df-2']
    """

    def __init__(self) -> None:
        self._seen = IdSet()
        self._repeats: Counter[bytes] = Counter()

    def next_ids(self, vectors: Float32) -> list[str]:
        """Return the ids of the next (m, d) vectors."""
        return [self._id(hashlib.blake2b(row.tobytes(), digest_size=16).digest()) for row in vectors]

    def _id(self, digest: bytes) -> str:
        if self._seen.add(int.from_bytes(digest[:8])):
            return digest.hex()
        self._repeats[digest] += 1
        return f"{digest.hex()}-{self._repeats[digest] + 1}"

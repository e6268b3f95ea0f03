"""Items of the sources that are left out before they are encoded, since a write put or deleted them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lookalike.types import UInt64


class LeftOutItems:
    """Ids by their hashes.

    Args:
        hashes: `lookalike.metadata.id_hash` of the ids.

    Attributes:
        hashes: the same, (m,) uint64 in ascending order.
        count: items that were left out so far.
    """

    def __init__(self, hashes: Sequence[int] = ()) -> None:
        self.hashes: UInt64 = np.unique(np.array(hashes, np.uint64))
        self.count = 0

    def takes(self, id_hash: int) -> bool:
        """Return whether an item is to be left out, and count it if so."""
        place = int(np.searchsorted(self.hashes, np.uint64(id_hash)))
        taken = place < len(self.hashes) and int(self.hashes[place]) == id_hash
        self.count += taken
        return taken

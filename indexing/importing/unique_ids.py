"""Unique ids for rows whose ids repeat, as keys and URLs do across the shards of large datasets."""

from __future__ import annotations

from indexing.id_set import IdSet
from lookalike.metadata import id_hash


class UniqueIds:
    """Adds `#2`, `#3` and so on to ids that occurred before; memory holds 8 bytes an id.

    Attributes:
        repeated: ids so far that had occurred before.

    >>> ids = UniqueIds()
    >>> [ids.add(name) for name in ("a", "b", "a", "a#2", "a")]
    ['a', 'b', 'a#2', 'a#2#2', 'a#3']
    """

    def __init__(self) -> None:
        self._seen = IdSet()
        self.repeated = 0

    def add(self, item_id: str) -> str:
        """Return the id, with a number after it if it occurred before."""
        if self._seen.add(id_hash(item_id)):
            return item_id
        self.repeated += 1
        unique = f"{item_id}#{self._free_number(item_id)}"
        self._seen.add(id_hash(unique))
        return unique

    def _free_number(self, item_id: str) -> int:
        """Return a number that the id does not have yet, by doubling and bisection: counters would need memory."""
        taken, free = 1, 2
        while id_hash(f"{item_id}#{free}") in self._seen:
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            if id_hash(f"{item_id}#{middle}") in self._seen:
                taken = middle
            else:
                free = middle
        return free

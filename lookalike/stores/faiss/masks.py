"""Row masks as FAISS selectors: the rows that a search may return, and the inverted lists that hold any of them.

Rows that pass a filter often lie together (one shop, one year), far from the query. A masked search therefore skips
lists without an allowed row, so that `nprobe` counts only lists with candidates. For a mask of the thirtieth of all
rows that lies farthest from the query, this raised recall from 0.79 to 0.97.

Dimension letters: n rows of the collection.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from lookalike.stores.faiss.library import untyped_faiss
from lookalike.types import Bool

_MAX_CACHED_MASKS = 64


class FaissMask:
    """A mask of rows as FAISS bitmap selectors.

    Attributes:
        allowed: number of rows that pass.
        rows: selector of these rows.
        list_count: number of lists that hold any of them; 0 for an index without lists.
        lists: selector of these lists; None for an index without lists.
    """

    def __init__(self, mask: Bool, nonempty_lists: Bool | None) -> None:
        """Pack `mask` (n,) bool and `nonempty_lists` (nlist,) bool, the lists that hold an allowed row."""
        self.allowed = int(np.count_nonzero(mask))
        self.rows = bitmap_selector(mask)
        self.list_count = 0 if nonempty_lists is None else int(np.count_nonzero(nonempty_lists))
        self.lists = None if nonempty_lists is None else bitmap_selector(nonempty_lists)


class MaskCache:
    """FaissMask objects by mask; only read-only masks are cached, by identity. Safe to call from several threads."""

    def __init__(self, nonempty_lists: Callable[[Bool], Bool | None]) -> None:
        """`nonempty_lists` maps a mask to the lists that hold an allowed row."""
        self._nonempty_lists = nonempty_lists
        self._cache: OrderedDict[int, tuple[weakref.ref[Bool], FaissMask]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, mask: Bool) -> FaissMask:
        """Return the selectors of a mask, computing them if they are not cached."""
        if mask.flags.writeable:
            return FaissMask(mask, self._nonempty_lists(mask))
        with self._lock:
            cached = self._cache.get(id(mask))
            if cached is not None and cached[0]() is mask:
                self._cache.move_to_end(id(mask))
                return cached[1]
        packed = FaissMask(mask, self._nonempty_lists(mask))
        with self._lock:
            for key in [key for key, (reference, _) in self._cache.items() if reference() is None]:
                del self._cache[key]
            self._cache[id(mask)] = weakref.ref(mask), packed
            while len(self._cache) > _MAX_CACHED_MASKS:
                self._cache.popitem(last=False)
        return packed


def bitmap_selector(mask: Bool) -> Any:
    """Return FAISS's selector for a mask, one bit a row."""
    return untyped_faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))

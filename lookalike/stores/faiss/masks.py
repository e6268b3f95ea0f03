"""Masks as FAISS takes them: bits of the rows that may be found, and of the lists that hold any.

Rows that pass a filter often lie together (one shop, one year, one kind of thing), far from what is asked for. Lists
without any of them are passed over, so that those which are visited are the nearest ones that have something to give:
of the thirtieth that lies farthest from a query, 0.97 of the nearest are found where it was 0.79.

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

_KEPT = 64


class FaissMask:
    """A mask of rows, packed.

    Attributes:
        allowed: how many rows pass.
        rows: FAISS's selector of them.
        lists: how many lists hold any; 0 where there are no lists.
        touched: FAISS's selector of those lists; None where there are none.
    """

    def __init__(self, mask: Bool, nonempty_lists: Bool | None) -> None:
        """`mask` (n,) bool; `touched` (nlist,) bool, the lists that hold one of its rows, None without lists."""
        self.allowed = int(np.count_nonzero(mask))
        self.rows = _selector(mask)
        self.lists = 0 if nonempty_lists is None else int(np.count_nonzero(nonempty_lists))
        self.nonempty_lists = None if nonempty_lists is None else _selector(nonempty_lists)


class MaskCache:
    """Makes selections, and remembers those of masks that nobody can change, by the mask itself."""

    def __init__(self, nonempty_lists: Callable[[Bool], Bool | None]) -> None:
        """`touched` tells the lists that hold rows of a mask."""
        self._touched = nonempty_lists
        self._kept: OrderedDict[int, tuple[weakref.ref[Bool], FaissMask]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, mask: Bool) -> FaissMask:
        """The selection of a mask."""
        if mask.flags.writeable:
            return FaissMask(mask, self._touched(mask))
        with self._lock:
            known = self._kept.get(id(mask))
            if known is not None and known[0]() is mask:
                self._kept.move_to_end(id(mask))
                return known[1]
        made = FaissMask(mask, self._touched(mask))
        with self._lock:
            for key in [key for key, (reference, _) in self._kept.items() if reference() is None]:
                del self._kept[key]
            self._kept[id(mask)] = weakref.ref(mask), made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made


def _selector(mask: Bool) -> Any:
    return untyped_faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))  # eight to a byte

"""Search by content: images that were encoded before under another name, time or source."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from indexing.ingest.reusable_embeddings import KnownContent, KnownRow, content_keys
from lookalike.errors import CollectionError
from lookalike.types import Int64, UInt64


class ContentIndex:
    """The rows of several places by content hash; safe to call from several threads.

    It is built at the first search, since many runs need none. It then holds 16 bytes for each different image: half
    of its hash, and its row. The row that is found has the other half.

    Args:
        places: of two rows with the same content, that of the earlier place is found.
    """

    def __init__(self, places: Sequence[KnownContent]) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._built: tuple[UInt64, Int64, Int64] | None = None

    def find(self, content_hash: bytes) -> dict[str, Any] | None:
        """Return the columns of `ENCODED_SCHEMA` of an image with this content, None if there is none."""
        halves, rows, starts = self._index()
        half = content_key(content_hash)
        i = int(np.searchsorted(halves, half))
        if i == len(halves) or halves[i] != half:
            return None
        place = int(np.searchsorted(starts, rows[i], side="right")) - 1
        try:
            record = KnownRow(self._places[place], int(rows[i] - starts[place])).read()
        except CollectionError:
            return None
        return record if record["content_hash"] == content_hash else None

    def keys(self) -> UInt64:
        """Return the first half of each hash, ascending."""
        return self._index()[0]

    def _index(self) -> tuple[UInt64, Int64, Int64]:
        with self._lock:
            self._built = self._built or self._build()
            return self._built

    def _build(self) -> tuple[UInt64, Int64, Int64]:
        """Return the halves in ascending order, the row of each, counted over all places, and each place's first."""
        parts = [content_keys(place.content_hashes()) for place in self._places]
        starts = np.cumsum([0, *map(len, parts)])
        halves = np.concatenate([np.empty(0, np.uint64), *parts])
        rows = np.argsort(halves)
        halves = halves[rows]
        first = np.flatnonzero(
            np.diff(halves, prepend=np.uint64(0))
        )  # of equal ones; zero, which is unknown, is none of them
        rows = np.minimum.reduceat(rows, first) if len(first) else rows[:0]
        return halves[first], rows, starts


def content_key(content_hash: bytes) -> np.uint64:
    """Return the half of a hash by which it is looked up."""
    return np.uint64(int.from_bytes(content_hash[:8], sys.byteorder))

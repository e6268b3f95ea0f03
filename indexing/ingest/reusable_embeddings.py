"""The protocols of places that hold embeddings from before: the work folder, and versions of the collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from lookalike.types import Int64, UInt8, UInt64


class KnownContent(Protocol):
    """Encoded images that are found by their content. Dimension letters: n images, m of them."""

    def content_hashes(self) -> UInt8:
        """Return (n, 16) uint8, the hash of each row's file, zeros where it is unknown; no row if all are."""
        ...

    def take(self, rows: Int64) -> pa.Table:
        """Return these rows, in this order, with the columns of `ENCODED_SCHEMA`.

        Raises:
            CollectionError: the rows are damaged.
        """
        ...


class ReusableEmbeddings(KnownContent, Protocol):
    """Encoded images that are found without reading their files, too."""

    def find(self, id_hashes: UInt64, fingerprints: UInt64) -> Int64:
        """Return the (m,) rows of the images that are here unchanged, -1 for the others."""
        ...


@dataclass(frozen=True, slots=True)
class KnownRow:
    """An encoded image: a row of one of the places."""

    place: KnownContent
    row: int

    def read(self) -> dict[str, Any]:
        """Return the columns of `ENCODED_SCHEMA`."""
        record: dict[str, Any] = self.place.take(np.array([self.row])).to_pylist()[0]
        return record


def content_keys(hashes: UInt8) -> UInt64:
    """Return the first eight of each hash's sixteen bytes, (n,) uint64; zero where the hash is unknown."""
    return np.ascontiguousarray(hashes).view(np.uint64)[:, 0]


def find_row(places: Sequence[ReusableEmbeddings], id_hash: int, fingerprint: int) -> KnownRow | None:
    """Return the first place's row of an unchanged image, None if no place has it."""
    hashes, fingerprints = np.array([id_hash], np.uint64), np.array([fingerprint], np.uint64)
    for place in places:
        if (row := int(place.find(hashes, fingerprints)[0])) >= 0:
            return KnownRow(place, row)
    return None

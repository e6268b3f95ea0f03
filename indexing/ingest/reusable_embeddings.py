"""The protocol of places that hold embeddings from before: the work folder, and the collection's current version."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from lookalike.types import Int64, UInt64


class ReusableEmbeddings(Protocol):
    """Encoded images that need not be encoded again. Dimension letter: m images."""

    def find(self, id_hashes: UInt64, fingerprints: UInt64) -> Int64:
        """Return the (m,) rows of the images that are here unchanged, -1 for the others."""
        ...

    def take(self, rows: Int64) -> pa.Table:
        """Return these rows, in this order, with the columns of `ENCODED_SCHEMA`."""
        ...

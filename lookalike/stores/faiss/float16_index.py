"""A collection's float16 vectors as FAISS compares them: a view of `vectors.npy`, of which nothing is copied.

FAISS widens each vector in registers while it multiplies, so that a query reads two bytes a dimension once: 500,000
vectors of 512 dimensions in 24 ms of a core, where widening them a block at a time takes 240 (benchmarks/RESULTS.md).

Dimension letters: n rows of the collection, d embedding width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lookalike.stores.faiss.library import translated_errors, unpatched_search, untyped_faiss
from lookalike.types import Bool, Float16, Float32, Neighbors

_MORE = 256
# A stored vector's norm differs from 1 by what rounding to float16 leaves, 2**-11 at worst, and its product with a
# query from the cosine by as much; two of them are compared.
_SLACK = np.float32(1.25e-3)


def float16_index(vectors: Float16) -> Any:
    """An index of products with (n, d) `vectors`, which the caller keeps alive."""
    rows, width = vectors.shape
    index = untyped_faiss.IndexScalarQuantizer(
        width, untyped_faiss.ScalarQuantizer.QT_fp16, untyped_faiss.METRIC_INNER_PRODUCT
    )
    octets = np.asarray(vectors).view(np.uint8).reshape(-1)
    view = untyped_faiss.MaybeOwnedVectorUInt8
    index.codes = view.create_view(untyped_faiss.swig_ptr(octets), rows * 2 * width, view().owner)
    index.ntotal = rows
    return index


def can_view(vectors: Float16) -> bool:
    """Whether FAISS can read the vectors where they are."""
    return bool(len(vectors) and vectors.dtype == np.float16 and vectors.flags.c_contiguous)


class Float16Index:
    """Finds what may belong to the nearest of few queries among many vectors."""

    def __init__(self, vectors: Float16) -> None:
        """`vectors` (n, d), viewable, of about unit norm."""
        self._held = vectors  # FAISS only points to them
        self._index = float16_index(vectors)
        self._search = unpatched_search(self._index)

    def candidates(self, unit: Float32, k: int, mask: Bool | None) -> list[Neighbors | None]:
        """For each unit query (q, d) every allowed row that may belong to its k best, in no order.

        None where too many are too close to the k-th to say.
        """
        allowed = len(self._held) if mask is None else int(np.count_nonzero(mask))
        wanted = min(allowed, 2 * k + _MORE)
        if not wanted:
            return [Neighbors(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in unit]
        bits = None if mask is None else untyped_faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        with translated_errors("comparing vectors"):
            scores, rows = self._search(unit, wanted, params=untyped_faiss.SearchParameters(sel=bits))
        floors = scores[:, min(k, wanted) - 1] - _SLACK
        settled = (scores[:, -1] < floors) | (wanted == allowed)
        return [
            Neighbors(rows[i, near := scores[i] >= floors[i]], scores[i, near]) if settled[i] else None
            for i in range(len(unit))
        ]

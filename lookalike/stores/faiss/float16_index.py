"""Flat FAISS search over a collection's float16 vectors, reading `vectors.npy` in place.

FAISS upcasts each vector in registers while it multiplies, so a query reads two bytes a dimension once. With 500,000
vectors of 512 dimensions that takes 24 ms on a core; upcasting them a block at a time takes 240
(benchmarks/history/service.md).

Dimension letters: n rows of the collection, q queries, d embedding width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lookalike.stores.faiss.library import translated_errors, unpatched_search, untyped_faiss
from lookalike.stores.faiss.masks import bitmap_selector
from lookalike.types import Bool, Float16, Float32, Neighbors

_SPARE_CANDIDATES = 256
# Rounding to float16 changes a stored vector's norm by 2**-11 at most, and its product with a query by as much.
# Two products are compared.
_TOLERANCE = np.float32(1.25e-3)


def float16_view(vectors: Float16) -> Any:
    """Return a FAISS index of inner products with (n, d) `vectors`; the caller keeps the array alive."""
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
    """Return whether FAISS can read the vectors in place."""
    return bool(len(vectors) and vectors.dtype == np.float16 and vectors.flags.c_contiguous)


class Float16Index:
    """Candidates for the nearest neighbours of a few queries among many vectors."""

    def __init__(self, vectors: Float16) -> None:
        """`vectors` (n, d), of about unit norm; `can_view` must hold."""
        self._vectors = vectors  # FAISS holds only a pointer
        self._index = float16_view(vectors)
        self._search = unpatched_search(self._index)

    def candidates(self, unit: Float32, k: int, mask: Bool | None) -> list[Neighbors | None]:
        """Return for each unit query (q, d) every allowed row that may belong to its k nearest, unordered.

        None for a query with too many rows within rounding of its k-th score.
        """
        allowed = len(self._vectors) if mask is None else int(np.count_nonzero(mask))
        count = min(allowed, 2 * k + _SPARE_CANDIDATES)
        if not count:
            return [Neighbors(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in unit]
        selector = None if mask is None else bitmap_selector(mask)
        with translated_errors("comparing vectors failed"):
            scores, rows = self._search(unit, count, params=untyped_faiss.SearchParameters(sel=selector))
        thresholds = scores[:, min(k, count) - 1] - _TOLERANCE
        complete = (scores[:, -1] < thresholds) | (count == allowed)
        return [
            Neighbors(rows[i, near := scores[i] >= thresholds[i]], scores[i, near]) if complete[i] else None
            for i in range(len(unit))
        ]

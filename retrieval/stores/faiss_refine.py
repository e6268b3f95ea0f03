"""Candidates of a FAISS index, narrowed down inside FAISS by the collection's own float16 vectors.

An index orders its candidates by codes that are too coarse to keep the ten best of a hundred and fifty, and exact
cosines for all of those cost a third of a search. FAISS's own scoring of float16 vectors takes a fifth of that, without
copying them: its index is a view of the memory-mapped `vectors.npy`. What is left gets exact cosines in
`retrieval.rerank`.

Dimension letters: n rows of the collection, q queries, d embedding width, k neighbours, c candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval.mapping import scattered
from retrieval.stores.faiss_common import unpatched, wrapped
from retrieval.stores.faiss_ways import Found
from retrieval.types import Float16, Float32


class Narrowed:
    """An index whose c candidates become the k with the largest products with float16 vectors."""

    def __init__(self, index: Any, vectors: Float16) -> None:
        """Puts (n, d) C-contiguous `vectors` beside an index over the same rows; neither is copied."""
        self._held = scattered(vectors), index  # FAISS only points to them
        rows, width = vectors.shape
        self._halves = wrapped.IndexScalarQuantizer(
            width, wrapped.ScalarQuantizer.QT_fp16, wrapped.METRIC_INNER_PRODUCT
        )
        octets = np.asarray(self._held[0]).view(np.uint8).reshape(-1)
        view = wrapped.MaybeOwnedVectorUInt8
        self._halves.codes = view.create_view(wrapped.swig_ptr(octets), rows * 2 * width, view().owner)
        self._halves.ntotal = index.ntotal
        self._both = wrapped.IndexRefine(index, self._halves)
        # Of a graph some rows may be held out, and then the last ones lie beyond its count.
        self._both.ntotal = self._halves.ntotal = rows
        self._search = unpatched(self._both)

    def search(self, queries: Float32, k: int, candidates: int, base: Any) -> Found:
        """(q, k) products and rows, -1 where there were too few; `base` are the index's own search parameters."""
        found: Found = self._search(
            queries,
            k,
            params=wrapped.IndexRefineSearchParameters(
                k_factor=(candidates + 0.5) / k,  # FAISS rounds down what it makes of this
                base_index_params=base,
            ),
        )
        return found


def viewable(vectors: Float16, dim: int) -> bool:
    """Whether FAISS can read the vectors where they are."""
    return bool(vectors.shape[1] == dim and len(vectors) and vectors.dtype == np.float16 and vectors.flags.c_contiguous)

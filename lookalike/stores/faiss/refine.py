"""Candidates of a FAISS index, narrowed down inside FAISS by the collection's own float16 vectors.

An index orders its candidates by codes that are too coarse to keep the ten best of a hundred and fifty, and exact
cosines for all of those cost a third of a search. FAISS's own scoring of float16 vectors takes a fifth of that, without
copying them: its index is a view of the memory-mapped `vectors.npy`. What is left gets exact cosines in
`lookalike.rerank`.

Dimension letters: n rows of the collection, q queries, d embedding width, k neighbours, c candidates.
"""

from __future__ import annotations

from typing import Any

from lookalike.stores.faiss.float16_index import can_view, float16_index
from lookalike.stores.faiss.library import unpatched_search, untyped_faiss
from lookalike.stores.faiss.masks import FaissMask
from lookalike.stores.faiss.strategies import Found, HnswStrategy, IvfStrategy
from lookalike.stores.protocol import SearchParameters
from lookalike.types import Float16, Float32


class RefinedIndex:
    """An index whose c candidates become the k with the largest products with float16 vectors."""

    def __init__(self, index: Any, vectors: Float16) -> None:
        """Puts (n, d) C-contiguous `vectors` beside an index over the same rows; neither is copied."""
        self._held = vectors, index  # FAISS only points to them
        self._halves = float16_index(vectors)
        self._halves.ntotal = index.ntotal
        self._both = untyped_faiss.IndexRefine(index, self._halves)
        # Of a graph some rows may be held out, and then the last ones lie beyond its count.
        self._both.ntotal = self._halves.ntotal = len(vectors)
        self._search = unpatched_search(self._both)

    def search(self, queries: Float32, k: int, candidates: int, base: Any) -> Found:
        """(q, k) products and rows, -1 where there were too few; `base` are the index's own search parameters."""
        found: Found = self._search(
            queries,
            k,
            params=untyped_faiss.IndexRefineSearchParameters(
                k_factor=(candidates + 0.5) / k,  # FAISS rounds down what it makes of this
                base_index_params=base,
            ),
        )
        return found


class CandidateSearch:
    """Where an index's candidates come from: the index, how it is searched, and the vectors that narrow them down.

    Attributes:
        way: how it is searched.
        narrows: whether it has those vectors.
    """

    def __init__(self, index: Any, way: IvfStrategy | HnswStrategy, vectors: Float16 | None) -> None:
        """`vectors` (n, d) float16 of the same rows as the index."""
        self.way = way
        self._index = index  # kept alive
        self._search = unpatched_search(index)
        fit = vectors is not None and vectors.shape[1] == index.d and can_view(vectors)
        self._narrowed = RefinedIndex(index, vectors) if vectors is not None and fit else None
        self.refines = self._narrowed is not None

    def of(
        self, queries: Float32, k: int, gathered: int, params: SearchParameters, selection: FaissMask | None
    ) -> Found:
        """(q, k) products and rows, of `gathered` candidates where they can be narrowed down."""
        if self._narrowed is None or gathered == k:
            found: Found = self._search(queries, k, params=self.way.faiss_params(params, k, selection))
            return found
        return self._narrowed.search(queries, k, gathered, self.way.faiss_params(params, gathered, selection))

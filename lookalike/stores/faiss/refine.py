"""Refinement of a FAISS index's candidates by the collection's float16 vectors, within FAISS.

An index orders its candidates by coarse codes, which don't keep the ten best of 150. Exact cosines for all candidates
cost a third of a search; FAISS's own float16 products cost a fifth of that and need no copy of the vectors. The k best
then get exact cosines in `lookalike.rerank`.

Dimension letters: n rows of the collection, q queries, d embedding width, k neighbours, c candidates.
"""

from __future__ import annotations

from typing import Any

from lookalike.stores.faiss.float16_index import can_view, float16_view
from lookalike.stores.faiss.library import unpatched_search, untyped_faiss
from lookalike.stores.faiss.masks import FaissMask
from lookalike.stores.faiss.strategies import FaissResult, HnswStrategy, IvfStrategy
from lookalike.stores.protocol import SearchParameters
from lookalike.types import Float16, Float32


class RefinedIndex:
    """An index that returns the k of its c candidates with the largest products with the float16 vectors."""

    def __init__(self, index: Any, vectors: Float16) -> None:
        """Combine an index with (n, d) C-contiguous `vectors` of the same rows; neither is copied."""
        self._owners = vectors, index  # FAISS holds only pointers
        self._float16 = float16_view(vectors)
        self._float16.ntotal = index.ntotal
        self._refine = untyped_faiss.IndexRefine(index, self._float16)
        # If rows are held out of a graph, row numbers exceed its own count.
        self._refine.ntotal = self._float16.ntotal = len(vectors)
        self._search = unpatched_search(self._refine)

    def search(self, queries: Float32, k: int, candidates: int, base_params: Any) -> FaissResult:
        """Return (q, k) products and rows, -1 for missing ones; `base_params` are FAISS's parameters of the index."""
        result: FaissResult = self._search(
            queries,
            k,
            params=untyped_faiss.IndexRefineSearchParameters(
                k_factor=(candidates + 0.5) / k,  # FAISS multiplies by k and rounds down
                base_index_params=base_params,
            ),
        )
        return result


class CandidateSearch:
    """The search of an index for candidates, refined if the float16 vectors can be read in place.

    Attributes:
        strategy: how the index is searched.
        refines: whether candidates are refined.
    """

    def __init__(self, index: Any, strategy: IvfStrategy | HnswStrategy, vectors: Float16 | None) -> None:
        """`vectors` (n, d) float16 of the same rows as the index."""
        self.strategy = strategy
        self._index = index  # kept alive
        self._search = unpatched_search(index)
        usable = vectors is not None and vectors.shape[1] == index.d and can_view(vectors)
        self._refined = RefinedIndex(index, vectors) if vectors is not None and usable else None
        self.refines = self._refined is not None

    def search(
        self, queries: Float32, k: int, candidates: int, params: SearchParameters, mask: FaissMask | None
    ) -> FaissResult:
        """Return (q, k) products and rows, the best of `candidates` rows if they can be refined."""
        if self._refined is None or candidates == k:
            result: FaissResult = self._search(queries, k, params=self.strategy.faiss_params(params, k, mask))
            return result
        base_params = self.strategy.faiss_params(params, candidates, mask)
        return self._refined.search(queries, k, candidates, base_params)

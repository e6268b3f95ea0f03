"""Read side of the FAISS store: opens an index of any preset and searches it.

The index file is memory-mapped where FAISS can do that. Scores are FAISS's inner products; exact cosines are computed
afterwards by `lookalike.rerank`.

Dimension letters: n rows of the collection, q queries, d embedding width, k neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from lookalike.errors import DimensionMismatch, QueryError, StoreUnavailable
from lookalike.memmap import random_access_mmap
from lookalike.stores.faiss.library import INDEX_FILE, faiss, translated_errors
from lookalike.stores.faiss.masks import FaissMask, MaskCache
from lookalike.stores.faiss.refine import CandidateSearch
from lookalike.stores.faiss.single_query import SingleQueryIndex
from lookalike.stores.faiss.strategies import CANDIDATES, HnswStrategy, IvfStrategy, strategy_for
from lookalike.stores.protocol import SearchParameters, VectorStore, check_mask
from lookalike.types import Bool, Float16, Float32, Int64, Neighbors


class FaissStore(VectorStore):
    """A finished FAISS index. Calls from several threads are safe: parameters travel with the call.

    Attributes:
        kind: `faiss`.
        dim: d.
        count: n.
        exact: False; scores are inner products, with codes or, if it refines, with the float16 vectors.
        refines: whether candidates are refined by the float16 vectors.
        defaults: `candidates` (rows to gather for re-ranking), and `nprobe` (lists to visit, 1 to nlist) for an
            inverted file or `efSearch` (size of the candidate queue) for a graph.
    """

    kind = "faiss"
    exact = False

    def __init__(
        self,
        index: Any,
        strategy: IvfStrategy | HnswStrategy,
        defaults: SearchParameters,
        vectors: Float16 | None = None,
        single_query: SingleQueryIndex | None = None,
    ) -> None:
        """Wrap a trained index over inner products; use `open` to read one from disk."""
        vectors = None if vectors is None else random_access_mmap(vectors)
        self._batch_search = CandidateSearch(index, strategy, vectors)
        self._single_query = single_query  # kept alive
        self._single_search = (
            self._batch_search
            if single_query is None
            else CandidateSearch(single_query.index, IvfStrategy(single_query.index), vectors)
        )
        self.refines = self._batch_search.refines
        self._masks = MaskCache(strategy.nonempty_lists)
        self._strategy = strategy
        self.dim = int(index.d)
        self.count = int(index.ntotal)
        self.defaults: SearchParameters = self._validated({**strategy.initial_params(), **defaults})

    @classmethod
    def open(
        cls, folder: Path, params: Mapping[str, object] | None = None, vectors: Float16 | None = None
    ) -> FaissStore:
        """Open `folder/index.faiss`; pages of a mapped file are read as searches touch them.

        Args:
            folder: a builder's output folder.
            params: the manifest's parameters of this store; its search parameters become the defaults.
            vectors: (n, d) float16 of the same rows, to refine candidates with.

        Raises:
            StoreUnavailable: the file is missing, corrupt, or neither an inverted file nor a graph over inner products.
        """
        path = folder / INDEX_FILE
        if not path.is_file():
            raise StoreUnavailable(f"{path} is missing; index again or restore the folder from a copy")
        with translated_errors(f"{path} can't be read; index again or restore the folder from a copy"):
            index = faiss.read_index(str(path), 0 if _is_fast_scan(params or {}) else faiss.IO_FLAG_MMAP_IFC)
            strategy = strategy_for(index)
            single_query = SingleQueryIndex(index) if isinstance(strategy, IvfStrategy) else None
        if strategy is None or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise StoreUnavailable(f"{path} holds neither lists nor a graph over inner products; index again")
        search_params = {name: value for name, value in (params or {}).items() if name in strategy.param_names}
        if not all(isinstance(value, int) and value >= 1 for value in search_params.values()):
            raise StoreUnavailable(f"{path} has search parameters {search_params} in its manifest; index again")
        defaults = {name: int(str(value)) for name, value in search_params.items()}
        return cls(index, strategy, defaults, vectors, single_query)

    @override
    def search(
        self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
    ) -> list[Neighbors]:
        """Return at most k candidates of each query.

        A query gets fewer than k if the visited part of the index holds fewer rows. With a mask, more of the index is
        visited and lists without an allowed row are skipped; if that yields fewer than k allowed rows, all of the
        index is searched. FAISS's form of a read-only mask is cached.

        Raises:
            DimensionMismatch: queries or mask of another size than the store's.
            QueryError: a parameter is unknown to this store, or below 1.
            StoreUnavailable: FAISS raised an error.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise DimensionMismatch(f"queries of shape {queries.shape} for a store of width {self.dim}")
        check_mask(mask, self.count)
        merged = self._validated({**self.defaults, **(params or {})})
        if len(queries) == 0:
            return []
        queries, k = np.ascontiguousarray(queries, dtype=np.float32), min(k, self.count)
        with translated_errors("the search failed"):
            if mask is None:
                return self._search(queries, k, merged, None)
            return self._search_masked(queries, k, merged, mask)

    def param_grid(self) -> Sequence[SearchParameters]:
        """Return the search parameters to try, in ascending order of the bytes that a query reads."""
        return self._strategy.param_grid()

    def _search_masked(self, queries: Float32, k: int, params: SearchParameters, mask: Bool) -> list[Neighbors]:
        packed = self._masks.get(mask)
        if not packed.allowed:
            return [Neighbors(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        scaled = self._strategy.scaled_for_filter(params, self.count / packed.allowed)
        results = self._search(queries, k, scaled, packed)
        short = [i for i, neighbors in enumerate(results) if len(neighbors.rows) < min(k, packed.allowed)]
        if short:
            for i, neighbors in zip(short, self._search_all(queries[short], k, params, packed), strict=True):
                results[i] = neighbors
        return results

    def _search_all(self, queries: Float32, k: int, params: SearchParameters, mask: FaissMask) -> list[Neighbors]:
        """Search every list, or every code of a graph."""
        if isinstance(self._strategy, HnswStrategy):
            return _neighbors(*self._strategy.scan(queries, k, mask))
        return self._search(queries, k, {**params, **self._strategy.exhaustive_params()}, mask)

    def _search(self, queries: Float32, k: int, params: SearchParameters, mask: FaissMask | None) -> list[Neighbors]:
        """Search with the given parameters; candidates are refined to k if possible."""
        single = len(queries) < max(2, faiss.omp_get_max_threads())
        candidates = min(self.count, max(k, params[CANDIDATES]))
        search = self._single_search if single else self._batch_search
        return _neighbors(*search.search(queries, k, candidates, params, mask))

    def _validated(self, params: Mapping[str, int]) -> dict[str, int]:
        for name, value in params.items():
            if name not in self._strategy.param_names:
                names = ", ".join(self._strategy.param_names)
                raise QueryError(f"this collection's index has no search parameter {name!r}; it has {names}")
            if value < 1:
                raise QueryError(f"search parameter {name} = {value}; it must be at least 1")
        return dict(params)


def _is_fast_scan(params: Mapping[str, object]) -> bool:
    """Return whether codes are packed for fast-scan: FAISS copies these out of a mapped file, and holds them twice."""
    return "fs" in str(params.get("factory", ""))


def _neighbors(scores: Float32, rows: Int64) -> list[Neighbors]:
    """Drop FAISS's filler rows (-1) and order ties by ascending row, which FAISS does not promise."""
    if (scores[:, 1:] == scores[:, :-1]).any():
        present = rows >= 0
        order = np.lexsort((rows, np.where(present, -scores, np.inf)), axis=-1)
        lines = np.arange(len(rows))[:, None]
        rows, scores = rows[lines, order], scores[lines, order]
    if rows.size and rows.min() >= 0:
        return list(map(Neighbors, rows, scores))
    counts = np.count_nonzero(rows >= 0, axis=1).tolist()
    return [Neighbors(r[:m], s[:m]) for r, s, m in zip(rows, scores, counts, strict=True)]

"""FAISS behind the store protocol, the reading side.

Opens an index of any preset, memory-mapped. It returns candidates with FAISS's own inner products; exact cosines are
made afterwards by `lookalike.rerank`. It knows nothing of metadata, of collections or of how its parameters
are tuned.

Dimension letters: n rows of the collection, q queries, d embedding width, k neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.errors import DimensionMismatch, QueryError, StoreUnavailable
from lookalike.memmap import scattered
from lookalike.stores.faiss.library import INDEX_FILE, faiss, translated_errors
from lookalike.stores.faiss.masks import FaissMask, MaskCache
from lookalike.stores.faiss.refine import CandidateSearch
from lookalike.stores.faiss.single_query import SingleQueryIndex
from lookalike.stores.faiss.strategies import CANDIDATES, HnswStrategy, IvfStrategy, strategy_for
from lookalike.stores.protocol import SearchParameters, check_mask
from lookalike.types import Bool, Float16, Float32, Int64, Neighbors


class FaissStore:
    """Reads a finished index. Calls from several threads are safe: every parameter travels with its call.

    Attributes:
        kind: `faiss`.
        dim: d.
        count: n.
        exact: False; scores are inner products, by codes or, where it narrows, with the float16 vectors.
        narrows: whether it has those vectors.
        defaults: `candidates` (rows to gather for re-ranking) and, of lists, `nprobe` (lists visited, 1 to nlist), of
            a graph `efSearch` (rows kept in sight).
    """

    kind = "faiss"
    exact = False

    def __init__(
        self,
        index: Any,
        way: IvfStrategy | HnswStrategy,
        defaults: SearchParameters,
        vectors: Float16 | None = None,
        lone: SingleQueryIndex | None = None,
    ) -> None:
        """Wraps a trained index over inner products; use `open` to read one from disk."""
        vectors = None if vectors is None else scattered(vectors)
        self._many = CandidateSearch(index, way, vectors)
        self._view = lone  # kept alive
        self._few = self._many if lone is None else CandidateSearch(lone.index, IvfStrategy(lone.index), vectors)
        self.refines = self._many.refines
        self._selections = MaskCache(way.nonempty_lists)
        self._way = way
        self.dim = int(index.d)
        self.count = int(index.ntotal)
        self.defaults: SearchParameters = self._checked({**way.initial_params(), **defaults})

    @classmethod
    def open(
        cls, folder: Path, params: Mapping[str, object] | None = None, vectors: Float16 | None = None
    ) -> FaissStore:
        """Maps `folder/index.faiss` into memory; pages are read as searches touch them.

        Args:
            folder: where a builder finished.
            params: the manifest's parameters of this store; its search parameters become the defaults.
            vectors: (n, d) float16 of the same rows, to narrow candidates down by.

        Raises:
            StoreUnavailable: the file is missing, corrupt, or neither lists nor a graph over inner products.
        """
        path = folder / INDEX_FILE
        if not path.is_file():
            raise StoreUnavailable(f"{path} is missing; index again or restore the folder from a copy")
        with translated_errors(f"{path} can't be read; index again or restore the folder from a copy"):
            index = faiss.read_index(str(path), 0 if _packed(params or {}) else faiss.IO_FLAG_MMAP_IFC)
            way = strategy_for(index)
            lone = SingleQueryIndex(index) if isinstance(way, IvfStrategy) else None
        if way is None or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise StoreUnavailable(f"{path} holds neither lists nor a graph over inner products; index again")
        search_params = {name: value for name, value in (params or {}).items() if name in way.names}
        if not all(isinstance(value, int) and value >= 1 for value in search_params.values()):
            raise StoreUnavailable(f"{path} has search parameters {search_params} in its manifest; index again")
        return cls(index, way, {name: int(str(value)) for name, value in search_params.items()}, vectors, lone)

    def search(
        self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
    ) -> list[Neighbors]:
        """At most k candidates of each query; see `VectorStore.search`.

        A query gets fewer than k where what is visited holds fewer rows. Under a mask more is visited, since the
        nearest allowed rows lie farther away, and no list without any; where that holds fewer than k allowed rows,
        everything is. What FAISS needs of a mask is remembered where it is read-only.

        Raises:
            DimensionMismatch: queries or mask of another size than the store's.
            QueryError: a parameter that this store does not have, or below 1.
            StoreUnavailable: FAISS refused.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise DimensionMismatch(f"queries of shape {queries.shape} for a store of width {self.dim}")
        check_mask(mask, self.count)
        wanted = self._checked({**self.defaults, **(params or {})})
        if len(queries) == 0:
            return []
        asked, most = np.ascontiguousarray(queries, dtype=np.float32), min(k, self.count)
        with translated_errors("the search failed"):
            if mask is None:
                return self._found(asked, most, wanted, None)
            return self._masked(asked, most, wanted, mask)

    def param_grid(self) -> Sequence[SearchParameters]:
        """Search parameters worth trying, the cheapest first by the bytes they make a query read."""
        return self._way.param_grid()

    def _masked(self, asked: Float32, k: int, wanted: SearchParameters, mask: Bool) -> list[Neighbors]:
        selection = self._selections.of(mask)
        if not selection.allowed:
            return [Neighbors(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in asked]
        found = self._found(asked, k, self._way.scaled_for_filter(wanted, self.count / selection.allowed), selection)
        short = [i for i, neighbors in enumerate(found) if len(neighbors.rows) < min(k, selection.allowed)]
        if short:
            if isinstance(self._way, HnswStrategy):
                whole = _neighbors(*self._way.scan(asked[short], k, selection))
            else:
                whole = self._found(asked[short], k, {**wanted, **self._way.exhaustive_params()}, selection)
            for i, neighbors in zip(short, whole, strict=True):
                found[i] = neighbors
        return found

    def _found(self, asked: Float32, k: int, wanted: SearchParameters, selection: FaissMask | None) -> list[Neighbors]:
        """The index's own search, narrowed down to k where it can be."""
        few = len(asked) < max(2, faiss.omp_get_max_threads())
        gathered = min(self.count, max(k, wanted[CANDIDATES]))
        return _neighbors(*(self._few if few else self._many).of(asked, k, gathered, wanted, selection))

    def _checked(self, params: Mapping[str, int]) -> dict[str, int]:
        for name, value in params.items():
            if name not in self._way.names:
                names = ", ".join(self._way.names)
                raise QueryError(f"this collection's index has no search parameter {name!r}; it has {names}")
            if value < 1:
                raise QueryError(f"search parameter {name} = {value}; it must be at least 1")
        return dict(params)


def _packed(params: Mapping[str, object]) -> bool:
    """Whether codes are packed for fast-scan, which FAISS copies out of a mapped file and so holds twice."""
    return "fs" in str(params.get("factory", ""))


def _neighbors(scores: Float32, rows: Int64) -> list[Neighbors]:
    """Drops FAISS's filler rows (-1) and breaks ties by ascending row, which FAISS does not promise."""
    if (scores[:, 1:] == scores[:, :-1]).any():
        there = rows >= 0
        order = np.lexsort((rows, np.where(there, -scores, np.inf)), axis=-1)
        lines = np.arange(len(rows))[:, None]
        rows, scores = rows[lines, order], scores[lines, order]
    if rows.size and rows.min() >= 0:
        return list(map(Neighbors, rows, scores))
    counts = np.count_nonzero(rows >= 0, axis=1).tolist()
    return [Neighbors(r[:m], s[:m]) for r, s, m in zip(rows, scores, counts, strict=True)]

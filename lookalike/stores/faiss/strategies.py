"""Search strategies for the two kinds of FAISS index: an inverted file (IVF) and a graph (HNSW).

A strategy defines the index's search parameters, initial values for them, the grid that tuning tries, and how to
search more of the index when a filter leaves few rows.

Dimension letters: n rows, q queries, d embedding width, k neighbours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
from typing_extensions import override

from lookalike.stores.faiss.library import extract_ivf, faiss, unpatched_search, untyped_faiss
from lookalike.stores.faiss.masks import FaissMask
from lookalike.stores.faiss.single_query import coded_quantizer_params, has_coded_quantizer
from lookalike.stores.protocol import SearchParameters
from lookalike.types import Bool, Float32, Int64

CANDIDATES = "candidates"
_DEFAULT_CANDIDATES, _DEFAULT_CANDIDATES_ONE_BIT = 100, 400
_COARSE_CODE_CANDIDATES, _FINE_CODE_CANDIDATES = (50, 100, 150, 200, 300, 400, 800), (20, 50, 100)
_MIN_FINE_BITS = 8
"""From this many bits a dimension on, codes order candidates almost as the vectors do."""
# Re-ranking gathers single rows from a memory map and converts them; scanning streams packed codes. Measured on two
# AVX-512 cores, a byte of a candidate costs about five scanned ones. Only the order of the grid depends on this.
_CANDIDATE_BYTE_COST = 5
# With f allowed rows of n, nprobe grows by (n / f) ** this: keeps the tuned recall under a filter.
_NPROBE_GROWTH = 0.25
# With f allowed rows of n, efSearch grows by this times n / f - 1: 1.9 times as much if a tenth of the rows pass.
_EF_SEARCH_GROWTH = 0.1
_MAX_EF_SEARCH = 10_000
_EF_SEARCH_GRID = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_DISTANCES_PER_EF_SEARCH = 20  # distances that a graph search computes for each unit of efSearch, about

_MAX_CACHED_PARAMS = 64

FaissResult = tuple[Any, Any]
"""(q, k) scores and rows; rows are -1 if there were too few."""


class SearchStrategy(Protocol):
    """Search parameters of one kind of index."""

    param_names: tuple[str, ...]
    """Names of the search parameters."""

    def initial_params(self) -> dict[str, int]:
        """Return the search parameters to use until tuning has measured better ones."""
        ...

    def param_grid(self) -> Sequence[SearchParameters]:
        """Return the search parameters to try, in ascending order of the bytes that a query reads."""
        ...

    def scaled_for_filter(self, params: SearchParameters, factor: float) -> SearchParameters:
        """Return parameters that search more of the index, for a mask that allows one row in `factor`."""
        ...

    def faiss_params(self, params: SearchParameters, k: int, mask: FaissMask | None) -> Any:
        """Return FAISS's parameter object for k neighbours."""
        ...

    def nonempty_lists(self, mask: Bool) -> Bool | None:
        """Return (nlist,) bool, the lists that hold a row of an (n,) mask; None if the index has no lists."""
        ...


def strategy_for(index: Any) -> IvfStrategy | HnswStrategy | None:
    """Return the strategy for an index; None for an index of another kind."""
    if faiss.try_extract_index_ivf(index) is not None:
        return IvfStrategy(index)
    return HnswStrategy(index) if isinstance(_without_id_map(index), faiss.IndexHNSW) else None


def _without_id_map(index: Any) -> Any:
    """Return the index inside an IndexIDMap, or the index itself."""
    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap) else index


class IvfStrategy(SearchStrategy):
    """Search of an inverted file: `nprobe` lists are visited."""

    param_names = ("nprobe", CANDIDATES)

    def __init__(self, index: Any) -> None:
        self._has_transform = isinstance(index, faiss.IndexPreTransform)
        self._count, self._dim = int(index.ntotal), int(index.d)
        self._ivf = extract_ivf(index)
        self._nlist, self._code_size = int(self._ivf.nlist), int(self._ivf.code_size)
        self._unmasked_params = lru_cache(_MAX_CACHED_PARAMS)(
            partial(_unmasked_params, has_transform=self._has_transform)
        )
        self._quantizer_params = coded_quantizer_params if has_coded_quantizer(self._ivf) else _quantizer_params

    @override
    def initial_params(self) -> dict[str, int]:
        # About every twentieth list. Codes of one bit a dimension need more candidates.
        candidates = _DEFAULT_CANDIDATES if self._code_size >= self._dim / 5 else _DEFAULT_CANDIDATES_ONE_BIT
        return {"nprobe": min(self._nlist, max(16, self._nlist // 20)), CANDIDATES: candidates}

    @override
    def param_grid(self) -> Sequence[SearchParameters]:
        # From a 64th of the lists (fewer save next to nothing) to all of them, by cube roots of two.
        nprobes = sorted({max(1, round(self._nlist * 2 ** (-step / 3))) for step in range(3 * 6 + 1)})
        counts = _candidate_grid(self._count, 8 * self._code_size / self._dim)
        grid = [{"nprobe": nprobe, CANDIDATES: count} for nprobe, count in itertools.product(nprobes, counts)]
        return sorted(grid, key=self._bytes_read)

    @override
    def scaled_for_filter(self, params: SearchParameters, factor: float) -> SearchParameters:
        return {**params, "nprobe": min(self._nlist, math.ceil(params["nprobe"] * factor**_NPROBE_GROWTH))}

    @override
    def faiss_params(self, params: SearchParameters, k: int, mask: FaissMask | None) -> Any:
        if mask is None:
            return self._unmasked_params(min(params["nprobe"], self._nlist))
        nprobe = min(params["nprobe"], mask.list_count)  # FAISS finds nothing if nprobe exceeds the allowed lists
        ivf_params = untyped_faiss.SearchParametersIVF(
            nprobe=nprobe, sel=mask.rows, quantizer_params=self._quantizer_params(mask.lists)
        )
        return _behind_transform(ivf_params) if self._has_transform else ivf_params

    @override
    def nonempty_lists(self, mask: Bool) -> Bool:
        lists = self._ivf.invlists
        sizes = [lists.list_size(i) for i in range(self._nlist)]
        nonempty = (
            bool(n) and mask[untyped_faiss.rev_swig_ptr(lists.get_ids(i), n)].any() for i, n in enumerate(sizes)
        )
        return np.fromiter(nonempty, np.bool_, self._nlist)

    def exhaustive_params(self) -> SearchParameters:
        """Return parameters that visit all lists."""
        return {"nprobe": self._nlist}

    def _bytes_read(self, params: SearchParameters) -> float:
        """Return the cost of a query: codes of the visited lists, and the rows of its candidates."""
        scanned = params["nprobe"] * self._count / self._nlist * self._code_size
        return scanned + _CANDIDATE_BYTE_COST * params[CANDIDATES] * 2 * self._dim


class HnswStrategy(SearchStrategy):
    """Search of a graph (HNSW) with a candidate queue of `efSearch` nodes.

    If nodes were not added in row order, an IndexIDMap around the graph maps them to rows.
    """

    param_names = ("efSearch", CANDIDATES)

    def __init__(self, index: Any) -> None:
        self._codes = faiss.downcast_index(_without_id_map(index).storage)
        self._id_map = index.id_map if isinstance(index, faiss.IndexIDMap) else None
        self._count, self._dim = int(index.ntotal), int(index.d)

    @override
    def initial_params(self) -> dict[str, int]:
        return {"efSearch": 64, CANDIDATES: _DEFAULT_CANDIDATES}

    @override
    def param_grid(self) -> Sequence[SearchParameters]:
        grid = itertools.product(_EF_SEARCH_GRID, _candidate_grid(self._count, _MIN_FINE_BITS))
        useful = [{"efSearch": ef, CANDIDATES: count} for ef, count in grid if count <= ef or count == 20]
        return sorted(useful, key=self._bytes_read)

    @override
    def scaled_for_filter(self, params: SearchParameters, factor: float) -> SearchParameters:
        # The search passes through rows that the mask hides, too.
        ef_search = params["efSearch"]
        scaled = min(self._count, _MAX_EF_SEARCH, math.ceil(ef_search * (1 + _EF_SEARCH_GROWTH * (factor - 1))))
        return {**params, "efSearch": max(ef_search, scaled)}

    @override
    def faiss_params(self, params: SearchParameters, k: int, mask: FaissMask | None) -> Any:
        selector = {} if mask is None else {"sel": mask.rows}
        return untyped_faiss.SearchParametersHNSW(efSearch=max(k, params["efSearch"]), **selector)

    @override
    def nonempty_lists(self, mask: Bool) -> None:
        return None

    def scan(self, queries: Float32, k: int, mask: FaissMask) -> FaissResult:
        """Compare queries with every allowed code: a mask can cut a graph into unconnected parts."""
        search = unpatched_search(self._codes)
        if self._id_map is None:
            result: FaissResult = search(queries, k, params=untyped_faiss.SearchParameters(sel=mask.rows))
            return result
        by_node = untyped_faiss.IDSelectorTranslated(self._id_map, mask.rows)
        scores, nodes = search(queries, k, params=untyped_faiss.SearchParameters(sel=by_node))
        rows: Int64 = untyped_faiss.rev_swig_ptr(self._id_map.data(), self._count)  # a view
        return scores, np.where(nodes < 0, nodes, rows[nodes])

    def _bytes_read(self, params: SearchParameters) -> float:
        scanned = params["efSearch"] * _DISTANCES_PER_EF_SEARCH * self._dim
        return scanned + _CANDIDATE_BYTE_COST * params[CANDIDATES] * 2 * self._dim


def _unmasked_params(nprobe: int, has_transform: bool) -> Any:
    ivf_params = untyped_faiss.SearchParametersIVF(nprobe=nprobe)
    return _behind_transform(ivf_params) if has_transform else ivf_params


def _quantizer_params(lists: Any) -> Any:
    """Return the coarse quantizer's parameters for choosing among the lists of a selector."""
    return untyped_faiss.SearchParameters(sel=lists)


def _behind_transform(index_params: Any) -> Any:
    """Return the parameters of an index behind a rotation or padding."""
    return untyped_faiss.SearchParametersPreTransform(index_params=index_params)


def _candidate_grid(count: int, bits_per_dim: float) -> list[int]:
    """Return the numbers of candidates to try."""
    grid = _FINE_CODE_CANDIDATES if bits_per_dim >= _MIN_FINE_BITS else _COARSE_CODE_CANDIDATES
    return [candidates for candidates in grid if candidates <= count] or [count]

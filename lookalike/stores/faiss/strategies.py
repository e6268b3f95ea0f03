"""How the two shapes of a FAISS index are searched: lists around centroids, and a graph.

Each knows the names of its search parameters, a first guess, a ladder to tune on, and how to search more widely where
a mask leaves few rows.

Dimension letters: n rows, q queries, d embedding width, k neighbours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np

from lookalike.stores.faiss.library import extract_ivf, faiss, unpatched_search, untyped_faiss
from lookalike.stores.faiss.masks import FaissMask
from lookalike.stores.faiss.single_query import has_coded_quantizer, quantizer_params
from lookalike.stores.protocol import SearchParameters
from lookalike.types import Bool, Float32, Int64

CANDIDATES = "candidates"
_DEFAULT_CANDIDATES, _COARSEST_CANDIDATES = 100, 400
_COARSE, _FINE = (50, 100, 150, 200, 300, 400, 800), (20, 50, 100)
_FINE_BITS = 8
"""Bits of a code for each dimension, from which on the order of candidates is nearly the true one."""
# Narrowing gathers single rows from a memory map and converts them; scanning streams packed codes. Measured on two
# AVX-512 cores, a byte of a candidate costs about five scanned ones. Only the order of trials depends on this.
_CANDIDATES_BYTE = 5
# Of f allowed rows in n, (n / f) ** _WIDENING times as many lists are visited: keeps the tuned recall under a mask.
_WIDENING = 0.25
# Of a graph, what it keeps in sight grows by this share of n / f - 1: 1.9 times as much where a tenth of the rows pass.
_GRAPH_WIDENING = 0.1
_MOST_IN_SIGHT = 10_000
_BREADTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_LINKS_FOLLOWED = 20  # distances that a graph computes for each row that it keeps in sight, about

_PARAMETERS_KEPT = 64

Found = tuple[Any, Any]
"""(q, k) scores and rows; rows are -1 where there were too few."""


class SearchStrategy(Protocol):
    """One shape of index."""

    names: tuple[str, ...]
    """Its search parameters."""

    def initial_params(self) -> dict[str, int]:
        """Search parameters until tuning has measured better ones."""
        ...

    def param_grid(self) -> Sequence[SearchParameters]:
        """Search parameters worth trying, the cheapest first by the bytes they make a query read."""
        ...

    def scaled_for_filter(self, params: SearchParameters, factor: float) -> SearchParameters:
        """Parameters for a mask that allows one row in `factor`."""
        ...

    def faiss_params(self, params: SearchParameters, k: int, selection: FaissMask | None) -> Any:
        """FAISS's object of search parameters, for k neighbours."""
        ...

    def nonempty_lists(self, mask: Bool) -> Bool | None:
        """(nlist,) the lists that hold a row of an (n,) mask; None where there are no lists."""
        ...


def strategy_for(index: Any) -> IvfStrategy | HnswStrategy | None:
    """The shape of an index; None for one that is neither."""
    if faiss.try_extract_index_ivf(index) is not None:
        return IvfStrategy(index)
    return HnswStrategy(index) if isinstance(_graph_of(index), faiss.IndexHNSW) else None


def _graph_of(index: Any) -> Any:
    """What a map from nodes to rows stands around, or the index itself."""
    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap) else index


class IvfStrategy:
    """An inverted file: `nprobe` lists are visited."""

    names: tuple[str, ...] = ("nprobe", CANDIDATES)

    def __init__(self, index: Any) -> None:
        self._chained = isinstance(index, faiss.IndexPreTransform)
        self._count, self._dim = int(index.ntotal), int(index.d)
        self._ivf = extract_ivf(index)
        self._nlist, self._code_size = int(self._ivf.nlist), int(self._ivf.code_size)
        self._plain = lru_cache(_PARAMETERS_KEPT)(partial(_unmasked, chained=self._chained))
        self._among = quantizer_params if has_coded_quantizer(self._ivf) else _among

    def initial_params(self) -> dict[str, int]:
        """About every twentieth list; of codes of a bit a dimension more is re-ranked."""
        most = _DEFAULT_CANDIDATES if self._code_size >= self._dim / 5 else _COARSEST_CANDIDATES
        return {"nprobe": min(self._nlist, max(16, self._nlist // 20)), CANDIDATES: most}

    def param_grid(self) -> Sequence[SearchParameters]:
        """From a 64th of the lists (fewer save nothing worth having) to all of them, by cube roots of two."""
        ladder = sorted({max(1, round(self._nlist * 2 ** (-step / 3))) for step in range(3 * 6 + 1)})
        gathered = _gathered(self._count, 8 * self._code_size / self._dim)
        grid = [{"nprobe": nprobe, CANDIDATES: most} for nprobe, most in itertools.product(ladder, gathered)]
        return sorted(grid, key=self._bytes_read)

    def scaled_for_filter(self, params: SearchParameters, factor: float) -> SearchParameters:
        """More lists."""
        return {**params, "nprobe": min(self._nlist, math.ceil(params["nprobe"] * factor**_WIDENING))}

    def faiss_params(self, params: SearchParameters, k: int, selection: FaissMask | None) -> Any:
        """See `Way`."""
        if selection is None:
            return self._plain(min(params["nprobe"], self._nlist))
        nprobe = min(params["nprobe"], selection.lists)  # FAISS finds nothing where it is to visit more
        chosen = self._among(selection.nonempty_lists)
        inner = untyped_faiss.SearchParametersIVF(nprobe=nprobe, sel=selection.rows, quantizer_params=chosen)
        return _chained(inner) if self._chained else inner

    def nonempty_lists(self, mask: Bool) -> Bool:
        """See `Way`."""
        lists = self._ivf.invlists
        held = [lists.list_size(i) for i in range(self._nlist)]
        some = (bool(n) and mask[untyped_faiss.rev_swig_ptr(lists.get_ids(i), n)].any() for i, n in enumerate(held))
        return np.fromiter(some, np.bool_, self._nlist)

    def exhaustive_params(self) -> SearchParameters:
        """All lists."""
        return {"nprobe": self._nlist}

    def _bytes_read(self, params: SearchParameters) -> float:
        """What a query has to read: codes of the visited lists, and the rows of its candidates."""
        scanned = params["nprobe"] * self._count / self._nlist * self._code_size
        return scanned + _CANDIDATES_BYTE * params[CANDIDATES] * 2 * self._dim


class HnswStrategy:
    """A navigable graph (HNSW): `efSearch` rows are kept in sight while it is walked.

    Nodes may have been added in another order than that of the rows: then a map of their rows stands around the graph.
    """

    names: tuple[str, ...] = ("efSearch", CANDIDATES)

    def __init__(self, index: Any) -> None:
        self._codes = faiss.downcast_index(_graph_of(index).storage)
        self._rows = index.id_map if isinstance(index, faiss.IndexIDMap) else None
        self._count, self._dim = int(index.ntotal), int(index.d)

    def initial_params(self) -> dict[str, int]:
        """See `Way`."""
        return {"efSearch": 64, CANDIDATES: _DEFAULT_CANDIDATES}

    def param_grid(self) -> Sequence[SearchParameters]:
        """See `Way`."""
        grid = itertools.product(_BREADTHS, _gathered(self._count, _FINE_BITS))
        useful = [{"efSearch": breadth, CANDIDATES: most} for breadth, most in grid if most <= breadth or most == 20]
        return sorted(useful, key=self._bytes_read)

    def scaled_for_filter(self, params: SearchParameters, factor: float) -> SearchParameters:
        """More in sight, for the walk passes hidden rows, too."""
        asked = params["efSearch"]
        scaled_for_filter = min(self._count, _MOST_IN_SIGHT, math.ceil(asked * (1 + _GRAPH_WIDENING * (factor - 1))))
        return {**params, "efSearch": max(asked, scaled_for_filter)}

    def faiss_params(self, params: SearchParameters, k: int, selection: FaissMask | None) -> Any:
        """See `Way`."""
        named = {"efSearch": max(k, params["efSearch"])} | ({} if selection is None else {"sel": selection.rows})
        return untyped_faiss.SearchParametersHNSW(**named)

    def nonempty_lists(self, mask: Bool) -> None:
        """There are no lists."""

    def scan(self, queries: Float32, k: int, selection: FaissMask) -> Found:
        """Every code: a mask can cut a graph into pieces that no walk joins."""
        if self._rows is None:
            found: Found = unpatched_search(self._codes)(
                queries, k, params=untyped_faiss.SearchParameters(sel=selection.rows)
            )
            return found
        translated_errors = untyped_faiss.IDSelectorTranslated(self._rows, selection.rows)
        scores, nodes = unpatched_search(self._codes)(
            queries, k, params=untyped_faiss.SearchParameters(sel=translated_errors)
        )
        rows: Int64 = untyped_faiss.rev_swig_ptr(self._rows.data(), self._count)  # a view
        return scores, np.where(nodes < 0, nodes, rows[nodes])

    def _bytes_read(self, params: SearchParameters) -> float:
        read = params["efSearch"] * _LINKS_FOLLOWED * self._dim
        return read + _CANDIDATES_BYTE * params[CANDIDATES] * 2 * self._dim


def _unmasked(nprobe: int, chained: bool) -> Any:
    inner = untyped_faiss.SearchParametersIVF(nprobe=nprobe)
    return _chained(inner) if chained else inner


def _among(lists: Any) -> Any:
    """Parameters of the choice among the lists that a selector lets through."""
    return untyped_faiss.SearchParameters(sel=lists)


def _chained(inner: Any) -> Any:
    """Parameters of an index behind a rotation or padding."""
    return untyped_faiss.SearchParametersPreTransform(index_params=inner)


def _gathered(count: int, bits: float) -> list[int]:
    """Numbers of candidates to try."""
    return [most for most in (_FINE if bits >= _FINE_BITS else _COARSE) if most <= count] or [count]

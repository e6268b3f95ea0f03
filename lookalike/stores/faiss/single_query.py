"""A second view of an index of lists, made for queries that come one by one.

FAISS gives each thread queries of its own and multiplies a batch with all centroids in one go. A lone query gets
neither: one thread reads every centroid, then every list. In this view threads share the lists, and centroids are
compared by 4-bit codes first, the best of them by their numbers after that. Measured with 500,000 vectors and two
threads: 0.06 instead of 0.21 ms for the choice of lists, which is the same but for one list in a thousand, and the
lists in little more than half of the time. Batches would be slower.

Lists are shared with the index. The view adds a quarter of a byte for each of a centroid's dimensions; below 1,024
lists it chooses as the index does, by a copy of the centroids.

Dimension letters: d embedding width, nlist lists.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lookalike.stores.faiss.library import extract_ivf, faiss, untyped_faiss
from lookalike.stores.presets import MIN_CODED_LISTS

_ROUNDS = 2  # of k-means for those codes: 0.1 s at every opening. Twenty-five choose hardly better, and take a second
_KEPT = 2.0  # of k lists that are wanted, so many times k are compared by their numbers
_BY_LISTS = 15
"""FAISS's number for the fast-scan implementation whose threads share the lists."""


class SingleQueryIndex:
    """The view, and what it points to.

    Attributes:
        index: searched like the index itself, as long as the view is alive.
    """

    def __init__(self, index: Any) -> None:
        """Of an index of lists that nobody searches yet."""
        self.index = _clone_without_lists(index)
        shared, lists = extract_ivf(index), extract_ivf(self.index)
        lists.replace_invlists(shared.invlists, False)
        if hasattr(lists, "implem"):
            lists.implem = _BY_LISTS
        else:
            lists.parallel_mode = 1
        self._held: tuple[Any, ...] = (index,)
        if lists.nlist >= MIN_CODED_LISTS and lists.d % 2 == 0:
            own = lists.quantizer
            own.this.own(lists.own_fields)  # goes with this name, since the lists let go of it
            lists.own_fields = False
            lists.quantizer = self._codes_before(shared.quantizer)

    def _codes_before(self, centroids: Any) -> Any:
        lists, width = centroids.ntotal, centroids.d
        single = untyped_faiss.IndexFlatIP(width)
        single.add(np.zeros((1, width), np.float32))
        codes = untyped_faiss.IndexIVFPQFastScan(single, width, 1, width // 2, 4, faiss.METRIC_INNER_PRODUCT)
        codes.by_residual = False
        codes.pq.cp.niter = _ROUNDS
        numbers = centroids.reconstruct_n(0, lists)
        codes.train(numbers)
        codes.add(numbers)
        both = untyped_faiss.IndexRefine(codes, centroids)
        both.k_factor = _KEPT
        self._held += (single, codes, both)
        return both


def _clone_without_lists(index: Any) -> Any:
    lists = extract_ivf(index)
    held, owned = lists.invlists, lists.own_invlists
    empty = untyped_faiss.ArrayInvertedLists(lists.nlist, lists.code_size)
    lists.own_invlists, lists.invlists = False, empty
    try:
        return faiss.clone_index(index)
    finally:
        lists.own_invlists, lists.invlists = owned, held
        empty.this.own(True)  # which the assignment took away


def has_coded_quantizer(lists: Any) -> bool:
    """Whether an inverted file finds its lists in the way of this view."""
    return isinstance(faiss.downcast_index(lists.quantizer), faiss.IndexRefine)


def quantizer_params(lists: Any) -> Any:
    """FAISS's parameters for the choice of lists by codes among those that a selector lets through."""
    return untyped_faiss.IndexRefineSearchParameters(
        k_factor=_KEPT, base_index_params=untyped_faiss.SearchParametersIVF(nprobe=1, sel=lists)
    )

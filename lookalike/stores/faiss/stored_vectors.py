"""Extraction of the vectors from a FAISS index that another tool wrote.

Dimension letters: n rows, d embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.errors import StoreUnavailable
from lookalike.stores.faiss.library import extract_ivf, faiss, translated_errors, untyped_faiss
from lookalike.types import Float32, Int64

_FLAT_INDEXES = (faiss.IndexFlat, faiss.IndexIVFFlat, faiss.IndexHNSWFlat)
"""Classes of indexes that hold the vectors themselves."""


@dataclass(frozen=True, slots=True)
class IndexVectors:
    """The vectors in an index.

    Attributes:
        count: n.
        dim: d.
        exact: False if the index holds codes coarser than float16, so that vectors are approximations.
        read: (start, stop) -> (stop - start, d) vectors.
        ids: (n,) ascending, if the ids are not the row numbers.
    """

    count: int
    dim: int
    exact: bool
    read: Callable[[int, int], Float32]
    ids: Int64 | None = None


def open_vectors(path: Path) -> IndexVectors:
    """Open an index to read its vectors in the order of their ids.

    Raises:
        StoreUnavailable: the index can't be read, or can't reconstruct its vectors.
    """
    with translated_errors(f"{path} can't be read as a FAISS index"):
        opened: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        mapped = isinstance(opened, faiss.IndexIDMap)
        ids: Int64 | None = faiss.vector_to_array(opened.id_map) if mapped else None
        order: Int64 | None = None if ids is None else np.argsort(ids, kind="stable")
        index = faiss.downcast_index(opened.index) if mapped else opened
        if isinstance(index, faiss.IndexRefine):  # the refining index is closer to the vectors
            index = faiss.downcast_index(index.refine_index)
        if faiss.try_extract_index_ivf(index) is not None:
            ivf = extract_ivf(index)
            fast_scan = isinstance(ivf, faiss.IndexIVFFastScan) and not isinstance(ivf, faiss.IndexIVFRaBitQFastScan)
            if fast_scan:  # reconstructing a vector would end the process
                raise StoreUnavailable(
                    f"{path} holds fast-scan codes, from which FAISS can't reconstruct vectors; import the .npy files"
                )
            listed = _listed_ids(ivf)
            if np.array_equal(listed, np.arange(len(listed))):
                ivf.make_direct_map()
            else:
                ivf.set_direct_map_type(untyped_faiss.DirectMap.Hashtable)
                ids, order = (listed, listed) if ids is None else (ids, order)
    count, dim = int(index.ntotal) if order is None else len(order), int(index.d)

    def read(start: int, stop: int, owner: Any = opened) -> Float32:
        """Return vectors; `owner` keeps the index alive."""
        with translated_errors(f"the vectors in {path} can't be reconstructed"):
            if order is not None:
                return np.stack([index.reconstruct(row) for row in order[start:stop].tolist()])
            vectors: Float32 = index.reconstruct_n(start, stop - start)
            return vectors

    if count:
        first = 0 if order is None else int(order[0])
        with translated_errors(f"the vectors in {path} can't be reconstructed"):
            index.reconstruct(first)  # an error of `reconstruct_n` is raised in FAISS's threads and ends the process
    return IndexVectors(count, dim, _exact(index), read, None if ids is None else np.sort(ids))


def _listed_ids(ivf: Any) -> Int64:
    """Return the (n,) ids of an inverted file's rows, ascending."""
    lists = ivf.invlists
    sizes = [lists.list_size(i) for i in range(ivf.nlist)]
    ids = [faiss.rev_swig_ptr(lists.get_ids(i), n).copy() for i, n in enumerate(sizes) if n]
    return np.sort(np.concatenate(ids)) if ids else np.empty(0, np.int64)


def _exact(index: Any) -> bool:
    """Return whether the index holds its vectors at float16 precision or better."""
    if isinstance(index, faiss.IndexPreTransform):  # vectors scaled to unit norm keep their direction
        chain: Any = index.chain
        steps = [faiss.downcast_VectorTransform(chain.at(i)) for i in range(chain.size())]
        scaled = all(isinstance(step, faiss.NormalizationTransform) for step in steps)
        return scaled and _exact(faiss.downcast_index(index.index))
    if isinstance(index, faiss.IndexHNSWSQ):
        index = faiss.downcast_index(index.storage)
    if isinstance(index, faiss.IndexScalarQuantizer | faiss.IndexIVFScalarQuantizer):
        return bool(index.sq.qtype == faiss.ScalarQuantizer.QT_fp16)
    return isinstance(index, _FLAT_INDEXES)

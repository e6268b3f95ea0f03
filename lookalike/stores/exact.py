"""Exact store: compares a query with every vector. It serves small collections and measures the recall of indexes.

It has no files of its own. It reads the collection's `vectors.npy` and scores with `lookalike.rerank`, so its scores
equal those of any other store after re-ranking, to the bit.

Dimension letters: n rows of the collection, q queries, d embedding width, b rows of a block, k neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from lookalike.errors import DimensionMismatch
from lookalike.rerank import normalized_queries, normalized_rows, rerank
from lookalike.stores.presets import MAX_EXACT_FLOAT32_BYTES
from lookalike.stores.protocol import SearchParameters, VectorStore, VectorStoreBuilder, check_mask
from lookalike.types import Bool, Float16, Float32, Int64, Neighbors

if TYPE_CHECKING:
    from lookalike.stores.faiss.float16_index import Float16Index

_BLOCK_ROWS = 8192
_QUERY_BLOCK = 256
_UPCAST_COST = 20
"""Upcasting a vector takes as long as FAISS takes to compare it with, or to skip it for, this many queries."""
_MAX_SMALL_PRODUCT_QUERIES, _MAX_SMALL_PRODUCT = 16, 1 << 19
"""Up to this many queries, limit the multiplications of one BLAS call: OpenBLAS copies the vectors for a larger
product, which costs more than the product itself if queries are few."""
_FIRST_ROWS = 1024
"""The k-th best score among this many rows is the first threshold: few of the other rows reach it."""
# A blocked float32 product and a single dot product differ by rounding: by d * 2**-24 at worst, and far less in
# practice. Rows this close to the k-th best are scored again, so that ties and order are those of the final scores.
_TOLERANCE = np.float32(1e-5)
_BELOW_ALL = np.float32(-2)
"""A threshold below every cosine, and above the score of rows that are not allowed."""
_DENSE_SHARE = 0.2


class ExactStore(VectorStore):
    """Brute force over the memory-mapped float16 vectors; O(q n d), with memory for one block.

    A small collection's vectors are kept in float32, too: upcasting takes ten times as long as comparing. For few
    queries among many vectors, FAISS upcasts in registers (`faiss/float16_index.py`).

    Attributes:
        kind: `exact`.
        dim: d.
        count: n.
        exact: True; scores are the exact cosines.
        defaults: empty; there are no search parameters.
    """

    kind = "exact"
    exact = True
    refines = False

    def __init__(self, vectors: Float16, *, copies: bool = True) -> None:
        """Wrap vectors.

        Args:
            vectors: (n, d) float16 of about unit norm.
            copies: whether a small collection's are copied to float32 on first use.
        """
        self._vectors = vectors
        self._copies = copies
        self.count, self.dim = (int(size) for size in vectors.shape)
        self.defaults: SearchParameters = {}

    @override
    def search(
        self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
    ) -> list[Neighbors]:
        """Return the k nearest by exact cosine. `params` have no effect.

        Raises:
            DimensionMismatch: queries or mask of another size than the store's.
            QueryError: a query is zero or not finite.
        """
        check_mask(mask, self.count)
        unit = normalized_queries(queries, self.dim)
        results: list[Neighbors] = []
        for top in range(0, len(unit), _QUERY_BLOCK):
            block = slice(top, top + _QUERY_BLOCK)
            # The original queries: normalising twice would change the last bit.
            results += rerank(queries[block], self._candidates(unit[block], k, mask), self._vectors, k)
        return results

    def _candidates(self, unit: Float32, k: int, mask: Bool | None) -> list[Neighbors]:
        """Return for each query every row that may belong to its k best, unordered."""
        allowed = self.count if mask is None else int(np.count_nonzero(mask))
        if self._float16_index is None or len(unit) * self.count > _UPCAST_COST * allowed:
            return self._candidates_by_blocks(unit, k, mask)
        candidates = self._float16_index.candidates(unit, k, mask)
        missing = [i for i, each in enumerate(candidates) if each is None]
        remaining = iter(self._candidates_by_blocks(unit[missing], k, mask) if missing else ())
        return [next(remaining) if each is None else each for each in candidates]

    def _candidates_by_blocks(self, unit: Float32, k: int, mask: Bool | None) -> list[Neighbors]:
        """Return the same as `_candidates`, from products with float32 vectors of unit norm."""
        pools = [_CandidatePool(k) for _ in range(len(unit))]
        thresholds = np.full(len(unit), _BELOW_ALL, dtype=np.float32)
        for rows, block, refused in self._blocks(mask):
            scores = _products(unit, block)
            if refused is not None:
                scores[:, refused] = -np.inf
            if thresholds[0] == _BELOW_ALL:
                thresholds = _initial_thresholds(scores[:, : max(_FIRST_ROWS, k)], k)
            query, column = np.nonzero(scores >= thresholds[:, None])
            bounds = np.searchsorted(query, np.arange(len(unit) + 1)).tolist()
            for i, pool in enumerate(pools):
                columns = column[bounds[i] : bounds[i + 1]]
                if columns.size:
                    thresholds[i] = pool.add(rows[columns], scores[i, columns])
        return [Neighbors(pool.rows, pool.scores) for pool in pools]

    def _blocks(self, mask: Bool | None) -> Iterator[tuple[Int64, Float32, Int64 | None]]:
        """Yield rows in ascending order with their vectors, a block at a time, and which of them are not allowed.

        Of a block with few allowed rows, only these are read; copying more takes longer than comparing the others.
        """
        for start in range(0, self.count, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, self.count)
            allowed = stop - start if mask is None else int(np.count_nonzero(mask[start:stop]))
            if mask is None or allowed > _DENSE_SHARE * (stop - start):
                refused = None if mask is None else np.flatnonzero(~mask[start:stop])
                yield np.arange(start, stop), self._unit_vectors(slice(start, stop)), refused
            elif allowed:
                rows = start + np.flatnonzero(mask[start:stop])
                yield rows, self._unit_vectors(rows), None

    def _unit_vectors(self, rows: slice | Int64) -> Float32:
        if not self._is_small:
            return normalized_rows(self._vectors[rows])
        vectors: Float32 = self._float32_vectors[rows]
        return vectors

    @property
    def _is_small(self) -> bool:
        """Whether the vectors are kept in float32."""
        return self._copies and self.count * self.dim * 4 <= MAX_EXACT_FLOAT32_BYTES

    @cached_property
    def _float32_vectors(self) -> Float32:
        return normalized_rows(self._vectors[:])

    @cached_property
    def _float16_index(self) -> Float16Index | None:
        """The index that compares vectors as they are stored; None for a small collection."""
        if self._is_small:
            return None
        from lookalike.stores.faiss.float16_index import Float16Index, can_view  # small collections need no FAISS

        return Float16Index(self._vectors) if can_view(self._vectors) else None


def _products(unit: Float32, block: Float32) -> Float32:
    """(q, d) and (b, d) -> (q, b) dot products."""
    if not 0 < len(unit) <= _MAX_SMALL_PRODUCT_QUERIES:
        return unit @ block.T
    out = np.empty((len(block), len(unit)), np.float32)
    step = max(1, _MAX_SMALL_PRODUCT // unit.size)
    whole = len(block) // step * step
    # Pieces of one shape are a single NumPy call, which releases the interpreter lock once.
    pieces = block[:whole].reshape(-1, step, block.shape[1])
    np.matmul(pieces, unit.T, out=out[:whole].reshape(-1, step, len(unit)))
    np.matmul(block[whole:], unit.T, out=out[whole:])
    return np.ascontiguousarray(out.T)


def _initial_thresholds(scores: Float32, k: int) -> Float32:
    """(q, b) scores of some rows -> (q,) scores below which no row of the collection belongs to the k best."""
    if scores.shape[1] < k:
        return np.full(len(scores), _BELOW_ALL, np.float32)
    thresholds: Float32 = np.partition(scores, -k, axis=1)[:, -k] - _TOLERANCE
    return np.maximum(thresholds, _BELOW_ALL)


class _CandidatePool:
    """One query's k best rows so far, and all rows within rounding of the k-th."""

    def __init__(self, k: int) -> None:
        self._k = k
        self.rows: Int64 = np.empty(0, dtype=np.int64)
        self.scores: Float32 = np.empty(0, dtype=np.float32)

    def add(self, rows: Int64, scores: Float32) -> np.float32:
        """Add rows with their approximate scores; return the score below which further rows can't matter."""
        rows, scores = np.concatenate([self.rows, rows]), np.concatenate([self.scores, scores])
        threshold = _BELOW_ALL
        if len(scores) > self._k:
            threshold = np.partition(scores, -self._k)[-self._k] - _TOLERANCE
            keep = scores >= threshold
            rows, scores = rows[keep], scores[keep]
        self.rows, self.scores = rows, scores
        return threshold


class ExactBuilder(VectorStoreBuilder):
    """Builder of a store without files; it only checks and counts vectors."""

    sample_size = 0

    def __init__(self, dim: int) -> None:
        """`dim` is d."""
        self._dim = dim
        self._count = 0

    @override
    def train(self, sample: Float32) -> None:
        """Check the shape of the (m, d) sample; there is nothing to learn."""
        self._check(sample)

    @override
    def add(self, vectors: Float32) -> None:
        """Count (b, d) vectors; the store reads them from `vectors.npy`."""
        self._check(vectors)
        self._count += len(vectors)

    @override
    def finish(self, folder: Path) -> Mapping[str, object]:
        """Return the count and the bytes per vector (float16); write nothing."""
        return {"count": self._count, "bytes_per_vector": 2.0 * self._dim}

    def _check(self, vectors: Float32) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self._dim:
            raise DimensionMismatch(f"vectors of shape {vectors.shape} for a store of width {self._dim}")

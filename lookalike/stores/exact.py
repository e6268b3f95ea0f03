"""The exact store: every vector is compared. The reader of small collections, and the truth that indexes are judged by.

It has no files of its own: it reads the collection's `vectors.npy` and scores through `lookalike.rerank`, so its
scores equal those of any other store after re-ranking, to the bit.

Dimension letters: n rows of the collection, q queries, d embedding width, b rows of a block, k neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lookalike.errors import DimensionMismatch
from lookalike.rerank import normalized_queries, normalized_rows, rerank
from lookalike.stores.presets import MAX_EXACT_FLOAT32_BYTES
from lookalike.stores.protocol import SearchParameters, check_mask
from lookalike.types import Bool, Float16, Float32, Int64, Neighbors

if TYPE_CHECKING:
    from lookalike.stores.faiss.float16_index import Float16Index

_BLOCK_ROWS = 8192
_QUERY_BLOCK = 256
_WIDENING = 20
"""Widening a vector takes as long as FAISS takes to compare it, or to pass it over, for so many queries."""
_FEWER, _PRODUCT = 16, 1 << 19
"""For up to so many queries, multiplications in one call of BLAS: so small a product OpenBLAS takes as it lies, for a
larger one it first copies the vectors, which costs more than the product itself where queries are few."""
_GLANCE = 1024
"""The k-th best of so many rows first: few of the others reach it, so that few have to be sorted."""
# A blocked float32 product and one dot product differ by rounding, about d * 2**-24 at worst and far less in practice:
# whatever comes this close to the k-th best is scored again, so that ties and the order are those of the final scores.
_SLACK = np.float32(1e-5)


class ExactStore:
    """Brute force over the memory-mapped float16 vectors; O(q n d), memory bounded by a block.

    Of a small collection the vectors are kept in float32, too: widening them costs ten times what comparing does. Few
    queries among many vectors leave the widening to FAISS (`faiss_halves.py`).

    Attributes:
        kind: `exact`.
        dim: d.
        count: n.
        exact: True; scores are the exact cosines.
        defaults: empty; there is nothing to tune.
    """

    kind = "exact"
    exact = True
    refines = False

    def __init__(self, vectors: Float16) -> None:
        """Wraps (n, d) float16 vectors of about unit norm; copied only on first use, where they are few."""
        self._vectors = vectors
        self.count, self.dim = (int(size) for size in vectors.shape)
        self.defaults: SearchParameters = {}

    def search(
        self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
    ) -> list[Neighbors]:
        """The k nearest by exact cosine; see `VectorStore.search`. `params` are accepted and have no effect.

        Raises:
            DimensionMismatch: queries or mask of another size than the store's.
            QueryError: a query is zero or not finite.
        """
        check_mask(mask, self.count)
        unit = normalized_queries(queries, self.dim)
        answers: list[Neighbors] = []
        for top in range(0, len(unit), _QUERY_BLOCK):
            block = slice(top, top + _QUERY_BLOCK)
            # The caller's queries, not the unit ones: normalising twice would cost the last bit.
            answers += rerank(queries[block], self._candidates(unit[block], k, mask), self._vectors, k)
        return answers

    def _candidates(self, unit: Float32, k: int, mask: Bool | None) -> list[Neighbors]:
        """For each query every row that may belong to its k best, in no order."""
        allowed = self.count if mask is None else int(np.count_nonzero(mask))
        if self._halves is None or len(unit) * self.count > _WIDENING * allowed:
            return self._compared(unit, k, mask)
        found = self._halves.candidates(unit, k, mask)
        left = [i for i, each in enumerate(found) if each is None]
        compared = iter(self._compared(unit[left], k, mask) if left else ())
        return [next(compared) if each is None else each for each in found]

    def _compared(self, unit: Float32, k: int, mask: Bool | None) -> list[Neighbors]:
        """As `_candidates`, by products with vectors of unit norm in float32."""
        pools = [_Pool(k) for _ in range(len(unit))]
        floors = np.full(len(unit), -np.inf, dtype=np.float32)
        for rows, block in self._blocks(mask):
            scores = _products(unit, block)
            if floors[0] == -np.inf:
                floors = _floors(scores[:, : max(_GLANCE, k)], k)
            hit, column = np.nonzero(scores >= floors[:, None])
            bounds = np.searchsorted(hit, np.arange(len(unit) + 1)).tolist()
            for i, pool in enumerate(pools):
                mine = column[bounds[i] : bounds[i + 1]]
                if mine.size:
                    floors[i] = pool.offer(rows[mine], scores[i, mine])
        return [Neighbors(pool.rows, pool.scores) for pool in pools]

    def _blocks(self, mask: Bool | None) -> Iterator[tuple[Int64, Float32]]:
        """Allowed rows in ascending order with their vectors, a block at a time."""
        for start in range(0, self.count, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, self.count)
            if mask is None:
                yield np.arange(start, stop), self._unit(slice(start, stop))
                continue
            rows = start + np.flatnonzero(mask[start:stop])
            if rows.size:
                yield rows, self._unit(rows)

    def _unit(self, rows: slice | Int64) -> Float32:
        """The unit vectors of some rows, in float32."""
        if not self._is_small:
            return normalized_rows(self._vectors[rows])
        kept: Float32 = self._kept[rows]
        return kept

    @property
    def _is_small(self) -> bool:
        return self.count * self.dim * 4 <= MAX_EXACT_FLOAT32_BYTES

    @cached_property
    def _kept(self) -> Float32:
        return normalized_rows(self._vectors[:])

    @cached_property
    def _halves(self) -> Float16Index | None:
        """What compares them as they are stored, where they are many."""
        if self._is_small:
            return None
        from lookalike.stores.faiss.float16_index import Float16Index, can_view  # few vectors need no FAISS

        return Float16Index(self._vectors) if can_view(self._vectors) else None


def _products(unit: Float32, block: Float32) -> Float32:
    """(q, d) and (b, d) -> (q, b) dot products."""
    if not 0 < len(unit) <= _FEWER:
        return unit @ block.T
    out = np.empty((len(block), len(unit)), np.float32)
    step = max(1, _PRODUCT // unit.size)
    whole = len(block) // step * step
    # Pieces of one shape are one call of NumPy, which lets go of the interpreter lock once and not for each.
    pieces = block[:whole].reshape(-1, step, block.shape[1])
    np.matmul(pieces, unit.T, out=out[:whole].reshape(-1, step, len(unit)))
    np.matmul(block[whole:], unit.T, out=out[whole:])
    return np.ascontiguousarray(out.T)


def _floors(scores: Float32, k: int) -> Float32:
    """(q, b) scores of some rows -> (q,), below which no row of the whole belongs to the k best."""
    if scores.shape[1] < k:
        return np.full(len(scores), -np.inf, np.float32)
    floors: Float32 = np.partition(scores, -k, axis=1)[:, -k] - _SLACK
    return floors


class _Pool:
    """One query's best rows so far, and everything that is too close to the k-th to call."""

    def __init__(self, k: int) -> None:
        self._k = k
        self.rows: Int64 = np.empty(0, dtype=np.int64)
        self.scores: Float32 = np.empty(0, dtype=np.float32)

    def offer(self, rows: Int64, scores: Float32) -> np.float32:
        """Takes rows with their approximate scores; returns the score below which no row can matter any more."""
        rows, scores = np.concatenate([self.rows, rows]), np.concatenate([self.scores, scores])
        floor = np.float32(-np.inf)
        if len(scores) > self._k:
            floor = np.partition(scores, -self._k)[-self._k] - _SLACK
            keep = scores >= floor
            rows, scores = rows[keep], scores[keep]
        self.rows, self.scores = rows, scores
        return floor


class ExactBuilder:
    """The writing side of a store that needs no files: it only counts, so that the job treats all stores alike."""

    sample_size = 0

    def __init__(self, dim: int) -> None:
        """`dim` is d."""
        self._dim = dim
        self._count = 0

    def train(self, sample: Float32) -> None:
        """Nothing to learn; (m, d) is checked."""
        self._check(sample)

    def add(self, vectors: Float32) -> None:
        """Counts (b, d) vectors; they are read from `vectors.npy` later."""
        self._check(vectors)
        self._count += len(vectors)

    def finish(self, folder: Path) -> Mapping[str, object]:
        """Writes nothing into `folder`; returns bytes per vector (float16) and the count."""
        return {"count": self._count, "bytes_per_vector": 2.0 * self._dim}

    def _check(self, vectors: Float32) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self._dim:
            raise DimensionMismatch(f"vectors of shape {vectors.shape} for a store of width {self._dim}")

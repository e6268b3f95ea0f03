"""Groups of near-identical images in a collection.

Equal vectors are joined first. Up to 200,000 distinct vectors are all compared with each other, in blocks; above that,
the index proposes the nearest of each. Two images are in one group if a chain of pairs above the threshold joins them.

Dimension letters: n rows of the collection, d embedding width, b rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from lookalike.rerank import normalized_rows, rerank
from lookalike.stores.protocol import VectorStore
from lookalike.types import Float16, Float32, Int64

MAX_EXACT_ROWS = 200_000
"""Comparing all pairs of this many vectors of 512 dimensions takes about two minutes on two cores, quadratic in n."""

_BLOCK_ROWS = 4_096
_QUERIES_PER_SEARCH = 1_024
_NEIGHBORS_PER_QUERY = 32
_PAIRS_PER_JOIN = 65_536  # pairs that an earlier batch has joined already are skipped cheaply
_TOLERANCE = 1e-5  # float32 cosines err by less; pairs closer to the threshold are compared in float64
_FLOAT64_TOLERANCE = 1e-12

Pairs = tuple[Int64, Int64, Float32]
"""(rows, other rows, cosines) of pairs above the threshold."""


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Near-identical images.

    Attributes:
        rows: ascending.
        cosine: the lowest of the pairs that join them.
    """

    rows: tuple[int, ...]
    cosine: float


def duplicate_groups(
    vectors: Float16, threshold: float, store: VectorStore, progress: Callable[[int], object] | None = None
) -> list[DuplicateGroup]:
    """Return the groups, the largest first, then by their first row.

    Args:
        vectors: (n, d) float16 of about unit norm.
        threshold: cosine in (-1, 1]; two images are near-identical from this value on.
        store: opened over the vectors; used if more than `MAX_EXACT_ROWS` of them are distinct.
        progress: called with the number of rows compared since the last call.
    """
    report = progress or (lambda rows: None)
    first = _first_equal(vectors)
    copies = np.flatnonzero(first != np.arange(len(first)))
    report(len(copies))
    groups = _DisjointSets(len(vectors))
    groups.join_all(first[copies], copies, np.ones(len(copies), np.float32))
    distinct = np.flatnonzero(first == np.arange(len(first)))
    if len(distinct) <= MAX_EXACT_ROWS:
        pairs = _all_pairs(vectors, distinct, threshold, report)
    else:
        pairs = _nearest_pairs(vectors, distinct, threshold, store, report)
    for rows, others, cosines in pairs:
        for start in range(0, len(rows), _PAIRS_PER_JOIN):
            part = slice(start, start + _PAIRS_PER_JOIN)
            groups.join_all(rows[part], others[part], cosines[part])
    return groups.groups()


def _first_equal(vectors: Float16) -> Int64:
    """Return (n,) the first row with exactly the same vector: copies of a file may number in the thousands."""
    seen: dict[bytes, int] = {}
    first = np.empty(len(vectors), np.int64)
    for top in range(0, len(vectors), _BLOCK_ROWS):
        for row, vector in enumerate(np.ascontiguousarray(vectors[top : top + _BLOCK_ROWS]), top):
            first[row] = seen.setdefault(blake2b(vector, digest_size=16).digest(), row)
    return first


def _all_pairs(vectors: Float16, rows: Int64, threshold: float, report: Callable[[int], object]) -> Iterator[Pairs]:
    """Yield every similar pair of the rows once, comparing each block with itself and the later ones."""
    for top in range(0, len(rows), _BLOCK_ROWS):
        block_rows = rows[top : top + _BLOCK_ROWS]
        block = normalized_rows(vectors[block_rows])  # (b, d)
        for left in range(top, len(rows), _BLOCK_ROWS):
            others = rows[left : left + _BLOCK_ROWS]
            cosines = block @ (block if left == top else normalized_rows(vectors[others])).T
            i, j = np.nonzero(cosines >= threshold - _TOLERANCE)
            once = left + j > top + i
            i, j = i[once], j[once]
            yield from _above_threshold(vectors, block_rows[i], others[j], cosines[i, j], threshold)
        report(len(block))


def _nearest_pairs(
    vectors: Float16, rows: Int64, threshold: float, store: VectorStore, report: Callable[[int], object]
) -> Iterator[Pairs]:
    """Yield the similar pairs among each row and its nearest of the given rows."""
    mask = None
    if len(rows) < len(vectors):  # otherwise copies would be the only near rows
        mask = np.zeros(len(vectors), np.bool_)
        mask[rows] = True
        mask.setflags(write=False)
    for top in range(0, len(rows), _QUERIES_PER_SEARCH):
        query_rows = rows[top : top + _QUERIES_PER_SEARCH]
        queries = normalized_rows(vectors[query_rows])
        results = rerank(queries, store.search(queries, _NEIGHBORS_PER_QUERY, mask=mask), vectors, _NEIGHBORS_PER_QUERY)
        for row, neighbors in zip(query_rows.tolist(), results, strict=True):
            near = (neighbors.scores >= threshold - _TOLERANCE) & (neighbors.rows != row)
            others = neighbors.rows[near]
            yield from _above_threshold(vectors, np.full(len(others), row), others, neighbors.scores[near], threshold)
        report(len(queries))


def _above_threshold(
    vectors: Float16, rows: Int64, others: Int64, cosines: Float32, threshold: float
) -> Iterator[Pairs]:
    """Leave out pairs that reach the threshold only by rounding."""
    keep = cosines >= threshold + _TOLERANCE
    yield rows[keep], others[keep], cosines[keep]
    close = np.flatnonzero(~keep)
    for start in range(0, len(close), _BLOCK_ROWS):
        part = close[start : start + _BLOCK_ROWS]
        a, b = vectors[rows[part]].astype(np.float64), vectors[others[part]].astype(np.float64)
        norms = np.sqrt(np.vecdot(a, a) * np.vecdot(b, b))
        sure = part[np.vecdot(a, b) >= (threshold - _FLOAT64_TOLERANCE) * norms]
        yield rows[sure], others[sure], cosines[sure]


class _DisjointSets:
    """Disjoint sets (Tarjan 1975) with the lowest cosine of the pairs that joined each."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count)
        self._weakest: dict[int, float] = {}

    def join_all(self, rows: Int64, others: Int64, cosines: Float32) -> None:
        """Join the pairs in their order; those that are joined already are skipped cheaply."""
        apart = self._roots(rows) != self._roots(others)
        for row, other, cosine in zip(
            rows[apart].tolist(), others[apart].tolist(), cosines[apart].tolist(), strict=True
        ):
            self.join(row, other, cosine)

    def join(self, row: int, other: int, cosine: float) -> None:
        a, b = self._root(row), self._root(other)
        weakest = min(cosine, self._weakest.get(a, 1.0), self._weakest.get(b, 1.0)) if a != b else None
        if weakest is not None:
            self._parent[max(a, b)] = min(a, b)
            self._weakest[min(a, b)] = weakest

    def groups(self) -> list[DuplicateGroup]:
        members: dict[int, list[int]] = {}
        for row in np.flatnonzero(self._parent != np.arange(len(self._parent))).tolist():
            root = self._root(row)
            members.setdefault(root, [root]).append(row)
        groups = [DuplicateGroup(tuple(rows), min(1.0, self._weakest[root])) for root, rows in members.items()]
        return sorted(groups, key=lambda group: (-len(group.rows), group.rows))

    def _roots(self, rows: Int64) -> Int64:
        found: Int64 = self._parent[rows]
        while not np.array_equal(above := self._parent[found], found):
            found = above
        return found

    def _root(self, row: int) -> int:
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

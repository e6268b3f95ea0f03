"""Groups of near-identical pictures in a collection.

Up to 200,000 vectors are all compared with each other, in blocks; above, the index proposes each one's nearest. Two
pictures belong to a group where a chain of pairs above the threshold joins them. It knows nothing of files.

Dimension letters: n rows of the collection, d embedding width, b rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from retrieval.rerank import rerank, unit_block
from retrieval.stores.protocol import VectorStore
from retrieval.types import Float16, Float32, Int64

EXACT_UP_TO = 200_000
"""All pairs of so many vectors of 512 dimensions take about two minutes on two cores; it grows with the square."""

_BLOCK = 4_096
_QUERIES = 1_024
_NEIGHBOURS = 32
_JOINED = 65_536  # of a thousand copies nearly all pairs are joined already by the time they come
_SLACK = 1e-5  # float32 cosines err by less; what is nearer to the threshold is decided in float64
_EXACT_SLACK = 1e-12

Pairs = tuple[Int64, Int64, Float32]
"""(rows, other rows, cosines) of pairs above the threshold."""


@dataclass(frozen=True, slots=True)
class Group:
    """Near-identical pictures.

    Attributes:
        rows: ascending; the first to be indexed comes first.
        cosine: of the least alike pair that joins them.
    """

    rows: tuple[int, ...]
    cosine: float


def duplicate_groups(
    vectors: Float16, threshold: float, store: VectorStore, progress: Callable[[int], object] | None = None
) -> list[Group]:
    """The groups, the largest first, then by their first row.

    Args:
        vectors: (n, d) float16 of about unit norm.
        threshold: cosine in (-1, 1] from which on two pictures are near-identical.
        store: opened over the vectors; asked where n is above `EXACT_UP_TO`.
        progress: called with the number of rows compared since the last call.
    """
    told = progress or (lambda rows: None)
    few = len(vectors) <= EXACT_UP_TO
    pairs = _all_pairs(vectors, threshold, told) if few else _nearest_pairs(vectors, threshold, store, told)
    forest = _Forest(len(vectors))
    for rows, others, cosines in pairs:
        for start in range(0, len(rows), _JOINED):
            part = slice(start, start + _JOINED)
            forest.join_all(rows[part], others[part], cosines[part])
    return forest.groups()


def _all_pairs(vectors: Float16, threshold: float, told: Callable[[int], object]) -> Iterator[Pairs]:
    """Every pair once: each block with itself and those after it."""
    for top in range(0, len(vectors), _BLOCK):
        block = unit_block(vectors[top : top + _BLOCK])  # (b, d)
        for left in range(top, len(vectors), _BLOCK):
            others = block if left == top else unit_block(vectors[left : left + _BLOCK])
            cosines = block @ others.T
            rows, columns = np.nonzero(cosines >= threshold - _SLACK)
            once = left + columns > top + rows
            rows, columns = rows[once], columns[once]
            yield _decided(vectors, top + rows, left + columns, cosines[rows, columns], threshold)
        told(len(block))


def _nearest_pairs(
    vectors: Float16, threshold: float, store: VectorStore, told: Callable[[int], object]
) -> Iterator[Pairs]:
    for top in range(0, len(vectors), _QUERIES):
        queries = unit_block(vectors[top : top + _QUERIES])
        found = rerank(queries, store.search(queries, _NEIGHBOURS), vectors, _NEIGHBOURS)
        for row, neighbours in enumerate(found, top):
            near = (neighbours.scores >= threshold - _SLACK) & (neighbours.rows != row)
            others = neighbours.rows[near]
            yield _decided(vectors, np.full(len(others), row), others, neighbours.scores[near], threshold)
        told(len(queries))


def _decided(vectors: Float16, rows: Int64, others: Int64, cosines: Float32, threshold: float) -> Pairs:
    """Without those pairs whose cosine only rounding lifts to the threshold."""
    keep = cosines >= threshold + _SLACK
    close = np.flatnonzero(~keep)
    a, b = vectors[rows[close]].astype(np.float64), vectors[others[close]].astype(np.float64)
    norms = np.sqrt(np.vecdot(a, a) * np.vecdot(b, b))
    keep[close] = np.vecdot(a, b) >= (threshold - _EXACT_SLACK) * norms
    return rows[keep], others[keep], cosines[keep]


class _Forest:
    """Disjoint sets (Tarjan 1975) that remember the weakest pair they were joined by."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count)
        self._weakest: dict[int, float] = {}

    def join_all(self, rows: Int64, others: Int64, cosines: Float32) -> None:
        """Joins pair after pair; those that are joined already cost next to nothing."""
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

    def groups(self) -> list[Group]:
        members: dict[int, list[int]] = {}
        for row in np.flatnonzero(self._parent != np.arange(len(self._parent))).tolist():
            root = self._root(row)
            members.setdefault(root, [root]).append(row)
        groups = [Group(tuple(rows), min(1.0, self._weakest[root])) for root, rows in members.items()]
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

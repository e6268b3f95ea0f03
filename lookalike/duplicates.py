"""Groups of near-identical images in a collection.

Equal vectors are joined first. Up to 200,000 differing ones are all compared with each other, in blocks; above, the
index proposes each one's nearest. Two images belong to a group where a chain of pairs above the threshold joins
them. It knows nothing of files.

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
class DuplicateGroup:
    """Near-identical images.

    Attributes:
        rows: ascending; the first to be indexed comes first.
        cosine: of the least alike pair that joins them.
    """

    rows: tuple[int, ...]
    cosine: float


def duplicate_groups(
    vectors: Float16, threshold: float, store: VectorStore, progress: Callable[[int], object] | None = None
) -> list[DuplicateGroup]:
    """The groups, the largest first, then by their first row.

    Args:
        vectors: (n, d) float16 of about unit norm.
        threshold: cosine in (-1, 1] from which on two images are near-identical.
        store: opened over the vectors; asked where n is above `MAX_EXACT_ROWS`.
        progress: called with the number of rows compared since the last call.
    """
    told = progress or (lambda rows: None)
    first = _first_equal(vectors)
    copies = np.flatnonzero(first != np.arange(len(first)))
    told(len(copies))
    forest = _Forest(len(vectors))
    forest.join_all(first[copies], copies, np.ones(len(copies), np.float32))
    differing = np.flatnonzero(first == np.arange(len(first)))
    if len(differing) <= MAX_EXACT_ROWS:
        pairs = _all_pairs(vectors, differing, threshold, told)
    else:
        pairs = _nearest_pairs(vectors, differing, threshold, store, told)
    for rows, others, cosines in pairs:
        for start in range(0, len(rows), _JOINED):
            part = slice(start, start + _JOINED)
            forest.join_all(rows[part], others[part], cosines[part])
    return forest.groups()


def _first_equal(vectors: Float16) -> Int64:
    """(n,) the first row that holds the very same vector: copies of a file, by the thousand at times."""
    seen: dict[bytes, int] = {}
    first = np.empty(len(vectors), np.int64)
    for top in range(0, len(vectors), _BLOCK):
        for row, vector in enumerate(np.ascontiguousarray(vectors[top : top + _BLOCK]), top):
            first[row] = seen.setdefault(blake2b(vector, digest_size=16).digest(), row)
    return first


def _all_pairs(vectors: Float16, rows: Int64, threshold: float, told: Callable[[int], object]) -> Iterator[Pairs]:
    """Every pair of the rows once: each block with itself and those after it."""
    for top in range(0, len(rows), _BLOCK):
        mine = rows[top : top + _BLOCK]
        block = normalized_rows(vectors[mine])  # (b, d)
        for left in range(top, len(rows), _BLOCK):
            theirs = rows[left : left + _BLOCK]
            cosines = block @ (block if left == top else normalized_rows(vectors[theirs])).T
            i, j = np.nonzero(cosines >= threshold - _SLACK)
            once = left + j > top + i
            i, j = i[once], j[once]
            yield from _decided(vectors, mine[i], theirs[j], cosines[i, j], threshold)
        told(len(block))


def _nearest_pairs(
    vectors: Float16, rows: Int64, threshold: float, store: VectorStore, told: Callable[[int], object]
) -> Iterator[Pairs]:
    """Each of the rows with its nearest among them."""
    mask = None
    if len(rows) < len(vectors):  # else copies would be all that is near
        mask = np.zeros(len(vectors), np.bool_)
        mask[rows] = True
        mask.setflags(write=False)
    for top in range(0, len(rows), _QUERIES):
        mine = rows[top : top + _QUERIES]
        queries = normalized_rows(vectors[mine])
        found = rerank(queries, store.search(queries, _NEIGHBOURS, mask=mask), vectors, _NEIGHBOURS)
        for row, neighbours in zip(mine.tolist(), found, strict=True):
            near = (neighbours.scores >= threshold - _SLACK) & (neighbours.rows != row)
            others = neighbours.rows[near]
            yield from _decided(vectors, np.full(len(others), row), others, neighbours.scores[near], threshold)
        told(len(queries))


def _decided(vectors: Float16, rows: Int64, others: Int64, cosines: Float32, threshold: float) -> Iterator[Pairs]:
    """Without those pairs whose cosine only rounding lifts to the threshold."""
    keep = cosines >= threshold + _SLACK
    yield rows[keep], others[keep], cosines[keep]
    close = np.flatnonzero(~keep)
    for start in range(0, len(close), _BLOCK):
        part = close[start : start + _BLOCK]
        a, b = vectors[rows[part]].astype(np.float64), vectors[others[part]].astype(np.float64)
        norms = np.sqrt(np.vecdot(a, a) * np.vecdot(b, b))
        sure = part[np.vecdot(a, b) >= (threshold - _EXACT_SLACK) * norms]
        yield rows[sure], others[sure], cosines[sure]


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

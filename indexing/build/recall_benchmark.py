"""Recall of a store over one set of queries, searched and re-ranked as the service does it.

Dimension letters: n rows of the collection, q queries, d embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indexing.build.query_sets import QuerySet
from lookalike.approximate_search import approximate_search
from lookalike.stores.exact import ExactStore
from lookalike.stores.protocol import SearchParameters, VectorStore
from lookalike.types import Float16, Float32, Int64, Neighbors

K = 10


@dataclass(frozen=True, slots=True)
class RecallBenchmark:
    """A set of queries with their true neighbours.

    Attributes:
        queries: q of them.
        vectors: (n, d) of the collection.
        min_scores: (q,) cosine of each query's tenth true neighbour, of the last one if there are fewer.
        relevant: (q,) number of true neighbours, at most ten.
    """

    queries: QuerySet
    vectors: Float16
    min_scores: Float32
    relevant: Int64

    @classmethod
    def prepare(cls, vectors: Float16, queries: QuerySet, held_out: Int64 | None) -> RecallBenchmark:
        """Find the true neighbours by exact search among the rows that are not held out."""
        mask = None if held_out is None else ~np.isin(np.arange(len(vectors)), held_out)
        truth = _without_own(ExactStore(vectors).search(queries.vectors, K + 1, mask=mask), queries.own)
        relevant = np.array([len(true.rows) for true in truth], dtype=np.int64)
        min_scores = np.array([true.scores[-1] if len(true.scores) else 0 for true in truth], dtype=np.float32)
        return cls(queries, vectors, min_scores, relevant)

    @property
    def size(self) -> int:
        """Number of queries."""
        return len(self.relevant)

    @property
    def answerable(self) -> bool:
        """Whether any query has a neighbour at all."""
        return bool(self.relevant.any())

    def recall(self, store: VectorStore, params: SearchParameters) -> float:
        """Measure ann_recall_at_10 under these parameters, less its standard error; see `MeasuredRecall`."""
        results = _without_own(search(store, self.vectors, self.queries.vectors, params), self.queries.own)
        # The exact store and re-ranking score a row alike to the bit, so ">=" needs no tolerance.
        hits = [int((result.scores >= score).sum()) for result, score in zip(results, self.min_scores, strict=True)]
        answerable = self.relevant > 0
        shares = (np.minimum(hits, self.relevant) / np.maximum(self.relevant, 1))[answerable]
        return max(0.0, float(shares.mean() - shares.std() / math.sqrt(len(shares))))


def search(store: VectorStore, vectors: Float16, queries: Float32, params: SearchParameters) -> list[Neighbors]:
    """Return each query's eleven nearest rows as the service finds them."""
    if store.exact:
        return store.search(queries, K + 1, params)
    return approximate_search(store, vectors, queries, K + 1, params)


def _without_own(neighbors: Sequence[Neighbors], own: Int64 | None) -> list[Neighbors]:
    """Return the first ten of each, without the query's own row."""
    if own is None:
        return [Neighbors(each.rows[:K], each.scores[:K]) for each in neighbors]
    masked = [(each, each.rows != row) for each, row in zip(neighbors, own, strict=True)]
    return [Neighbors(each.rows[mask][:K], each.scores[mask][:K]) for each, mask in masked]

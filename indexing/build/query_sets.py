"""Sets of queries that recall is measured with: gallery vectors without themselves, or rows held out of the index.

Dimension letters: n rows of the collection, q queries, d embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lookalike.rerank import normalized_rows
from lookalike.types import Float16, Float32, Int64

MIN_QUERIES = 100
MAX_QUERIES = 1000
_MAX_MULTIPLICATIONS = 6e11  # of the exact search for the true neighbours: about ten seconds on two cores
_SEED = 0


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Queries to measure recall with.

    Attributes:
        vectors: (q, d) float32 unit vectors.
        own: (q,) int64, the row that each query was taken from and must not find; None for held-out queries.
    """

    vectors: Float32
    own: Int64 | None = None


def query_budget(count: int, dim: int, *, exact: bool = False) -> int:
    """Return how many queries to measure with: 100 to 1,000, fewer the larger n * d is, 100 for an exact store."""
    if exact:
        return MIN_QUERIES
    affordable = int(_MAX_MULTIPLICATIONS / max(1, count * dim))
    return min(MAX_QUERIES, max(MIN_QUERIES, affordable))


def leave_one_out(vectors: Float16, limit: int | None = None) -> QuerySet:
    """Draw gallery vectors as queries, each searched without itself: at most `limit`, always the same ones."""
    count, dim = vectors.shape
    size = min(count, query_budget(count, dim) if limit is None else limit)
    rows = np.sort(np.random.default_rng(_SEED).choice(count, size, replace=False)).astype(np.int64)
    return QuerySet(normalized_rows(vectors[rows]), rows)


def hold_out(vectors: Float16) -> Int64 | None:
    """Draw rows that are queries while the others are searched: `query_budget` rows, at most a tenth of all.

    None where there are fewer than ten rows.
    """
    count, dim = vectors.shape
    size = min(count // 10, query_budget(count, dim))
    return np.sort(np.random.default_rng(_SEED).choice(count, size, replace=False)).astype(np.int64) if size else None

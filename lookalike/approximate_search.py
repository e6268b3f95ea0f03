"""The two steps of a search that no store answers exactly: candidates from the store, then exact cosines.

It knows nothing of filters, indexes and metadata. q queries, n rows of the collection, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lookalike.rerank import rerank
from lookalike.stopwatch import Stopwatch
from lookalike.stores.protocol import SearchParameters, VectorStore
from lookalike.types import Bool, Float16, Float32, Neighbors

_SPARE = 8
# A stored vector's norm is within this of one: float16 rounds each number by 2 ** -11 of itself at most.
_NORM_ERROR = 5e-4
_ROUNDING = 1e-5


def approximate_search(
    store: VectorStore,
    vectors: Float16,
    queries: Float32,
    limit: int,
    params: SearchParameters,
    mask: Bool | None = None,
    watch: Stopwatch | None = None,
    threads: int | None = None,
) -> list[Neighbors]:
    """The `limit` nearest rows among the candidates of each query.

    A store that narrows its candidates down by itself is asked for somewhat more than `limit`. Its products are not
    quite cosines; where one that it left out could belong to the nearest, it is asked for all candidates after all.

    Args:
        store: one that is not exact, over `vectors`.
        vectors: (n, d) float16 of about unit norm.
        queries: (q, d) float32 of unit norm.
        limit: how many.
        params: all of the store's search parameters.
        mask: (n,) bool, the rows that may be found.
        watch: gets the stages search and rerank.
        threads: of re-ranking, see `rerank`.

    Returns:
        q records of at most `limit`, scores = cosine, best first, ties by ascending row.
    """
    clock = watch or Stopwatch()
    every = max(limit, params.get("candidates", 0))
    few = min(every, 2 * limit + _SPARE) if store.refines else every
    with clock.stage("search"):
        found = store.search(queries, few, params, mask)
    with clock.stage("rerank"):
        best = rerank(queries, found, vectors, limit, threads)
    doubtful = _doubtful(found, best, few, limit) if few < every else []
    if doubtful:
        with clock.stage("search"):
            found = store.search(queries[doubtful], every, params, mask)
        with clock.stage("rerank"):
            for i, neighbors in zip(doubtful, rerank(queries[doubtful], found, vectors, limit, threads), strict=True):
                best[i] = neighbors
    return best


def _doubtful(found: Sequence[Neighbors], best: Sequence[Neighbors], few: int, limit: int) -> list[int]:
    """Queries of which something that was left out could be nearer than the last of the best."""
    full = [i for i, neighbors in enumerate(found) if len(neighbors.rows) == few and len(best[i].rows) == limit]
    last = np.array([found[i].scores[-1] for i in full], dtype=np.float32)
    floor = np.array([best[i].scores[-1] for i in full], dtype=np.float32)
    could = last + _NORM_ERROR * np.abs(last) + _ROUNDING >= floor
    return [i for i, doubt in zip(full, could.tolist(), strict=True) if doubt]

"""Two-stage search with an approximate store: its candidates, then exact cosines for them.

Dimension letters: q queries, n rows of the collection, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lookalike.rerank import rerank
from lookalike.stopwatch import Stopwatch
from lookalike.stores.protocol import SearchParameters, VectorStore
from lookalike.types import Bool, Float16, Float32, Neighbors

_SPARE_RESULTS = 8
# Rounding to float16 changes each number by 2 ** -11 of itself at most, and a stored vector's norm by this.
_MAX_NORM_ERROR = 5e-4
_MAX_ROUNDING_ERROR = 1e-5


def approximate_search(
    store: VectorStore,
    vectors: Float16,
    queries: Float32,
    limit: int,
    params: SearchParameters,
    mask: Bool | None = None,
    stopwatch: Stopwatch | None = None,
    threads: int | None = None,
) -> list[Neighbors]:
    """Return the `limit` nearest rows among the store's candidates for each query.

    A store that refines its candidates returns only a few more than `limit`. Its products differ slightly from
    cosines: if a row that it left out could belong to the nearest, the query is repeated with all candidates.

    Args:
        store: a store that is not exact, over `vectors`.
        vectors: (n, d) float16 of about unit norm.
        queries: (q, d) float32 of unit norm.
        limit: neighbours for each query.
        params: all of the store's search parameters.
        mask: (n,) bool, the rows that may be returned.
        stopwatch: times the stages search and rerank.
        threads: for re-ranking, see `rerank`.

    Returns:
        q records of at most `limit`, scores = cosine, best first, ties by ascending row.
    """
    clock = stopwatch or Stopwatch()
    candidates = max(limit, params.get("candidates", 0))
    refined = min(candidates, 2 * limit + _SPARE_RESULTS) if store.refines else candidates
    with clock.stage("search"):
        proposed = store.search(queries, refined, params, mask)
    with clock.stage("rerank"):
        results = rerank(queries, proposed, vectors, limit, threads)
    uncertain = _uncertain(proposed, results, refined, limit) if refined < candidates else []
    if uncertain:
        with clock.stage("search"):
            proposed = store.search(queries[uncertain], candidates, params, mask)
        with clock.stage("rerank"):
            reranked = rerank(queries[uncertain], proposed, vectors, limit, threads)
            for i, neighbors in zip(uncertain, reranked, strict=True):
                results[i] = neighbors
    return results


def _uncertain(proposed: Sequence[Neighbors], results: Sequence[Neighbors], refined: int, limit: int) -> list[int]:
    """Return the queries for which a row beyond the proposed ones could be nearer than the last result."""
    full = [i for i, each in enumerate(proposed) if len(each.rows) == refined and len(results[i].rows) == limit]
    last_proposed = np.array([proposed[i].scores[-1] for i in full], dtype=np.float32)
    last_result = np.array([results[i].scores[-1] for i in full], dtype=np.float32)
    highest_cosine = last_proposed + _MAX_NORM_ERROR * np.abs(last_proposed) + _MAX_ROUNDING_ERROR
    return [i for i, uncertain in zip(full, (highest_cosine >= last_result).tolist(), strict=True) if uncertain]

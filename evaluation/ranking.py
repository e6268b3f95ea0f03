"""Retrieval metrics of a score matrix.

Dimension letters: q queries, n gallery items, k depth. *Score*: higher is better. Ties count against the query, so
that an encoder which gives every image the same vector finds nothing.
"""

from __future__ import annotations

import numpy as np

from lookalike.types import Bool, Float32, Float64, Int64

Scores = Float32 | Float64


def best_ranks(scores: Scores, relevant: Bool) -> Int64:
    """Return the rank, from 1, of each query's best relevant item.

    rank(q) = 1 + #{irrelevant j : s(q, j) >= max over relevant i of s(q, i)}

    Args:
        scores: (q, n), any real type.
        relevant: (q, n), which items are relevant to which query; at least one in each row.

    Returns:
        (q,) int64 in [1, n].

    Raises:
        ValueError: the shapes differ, or a query has no relevant item.

    >>> scores = np.array([[0.9, 0.5, 0.7], [0.2, 0.2, 0.1]])
    >>> relevant = np.array([[False, False, True], [True, False, False]])
    >>> best_ranks(scores, relevant).tolist()  # 0.9 beats 0.7; in the second row a tie counts against
    [2, 2]
    """
    if scores.shape != relevant.shape:
        raise ValueError(f"scores {scores.shape} and relevance {relevant.shape} differ in shape")
    if not relevant.any(axis=1).all():
        raise ValueError("a query has no relevant item")
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    ranks: Int64 = 1 + ((scores >= best) & ~relevant).sum(axis=1, dtype=np.int64)
    return ranks


def hit_rate_at_k(ranks: Int64, k: int) -> float:
    """Return the share of queries whose best relevant item is among the first k: mean of [rank <= k].

    The literature on captions calls it R@k (each caption has one photograph).

    >>> hit_rate_at_k(np.array([1, 3, 11]), k=10)
    0.6666666666666666
    """
    if k < 1 or len(ranks) == 0:
        raise ValueError(f"hit rate needs k >= 1 and a query; got k={k}, {len(ranks)} queries")
    return float((ranks <= k).mean())


def precision_at_k(scores: Scores, relevant: Bool, k: int) -> Float64:
    """Return P@k of each query: relevant items among its k best, divided by min(k, number of relevant items).

    The divisor makes 1.0 reachable for a class with fewer than k images. Of equal scores irrelevant items rank first.

    Args:
        scores: (q, n).
        relevant: (q, n), at least one in each row.
        k: depth, at least 1.

    Returns:
        (q,) float64 in [0, 1].

    >>> scores = np.array([[0.9, 0.8, 0.7, 0.1]])
    >>> relevant = np.array([[True, False, True, True]])
    >>> precision_at_k(scores, relevant, k=2).tolist()
    [0.5]
    """
    if scores.shape != relevant.shape:
        raise ValueError(f"scores {scores.shape} and relevance {relevant.shape} differ in shape")
    if k < 1 or not relevant.any(axis=1).all():
        raise ValueError(f"precision needs k >= 1 and a relevant item for each query; k={k}")
    order = np.lexsort((relevant, -scores), axis=1)[:, :k]  # last key first: score falling, irrelevant before relevant
    hits = np.take_along_axis(relevant, order, axis=1).sum(axis=1)
    precision: Float64 = hits / np.minimum(k, relevant.sum(axis=1))
    return precision


def accuracy(scores: Scores, labels: Int64) -> float:
    """Return the share of rows whose best column is their label; a tie with another column is an error.

    >>> accuracy(np.array([[0.9, 0.1], [0.3, 0.6], [0.5, 0.5]]), np.array([0, 0, 0]))
    0.3333333333333333
    """
    own = np.zeros(scores.shape, bool)
    own[np.arange(len(labels)), labels] = True
    return hit_rate_at_k(best_ranks(scores, own), 1)

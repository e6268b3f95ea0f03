"""Retrieval judged by labels: per-query measures of a query set against a gallery, or of a set against itself.

Similarities are computed a block of queries at a time, so 10,000 queries against 50,000 items fit into 400 MB. Knows
vectors and integer labels, nothing of images.

Dimension letters: q queries, n gallery items, d embedding width, b queries of a block, R items of the query's class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lookalike.types import Bool, Float32, Int64

Float64 = NDArray[np.float64]
DEPTHS = (1, 5, 10)
BLOCK = 256
_LAST = np.iinfo(np.int64).max  # odd, so it reads as irrelevant


def label_scores(
    queries: Float32,
    labels: Int64,
    gallery: Float32 | None = None,
    gallery_labels: Int64 | None = None,
    *,
    depths: Sequence[int] = DEPTHS,
) -> tuple[dict[str, Float64], Int64]:
    """How well each query finds the items of its class, by cosine.

    With r(i) = 1 where the i-th nearest item is of the query's class, else 0, R the number of such items, and
    P(i) = (r(1) + ... + r(i)) / i:

        precision_at_1  r(1)
        r_precision     P(R)
        map_at_r        1/R sum over i = 1..R of P(i) r(i)     (Musgrave, Belongie and Lim 2020)
        hit_rate_at_k   1 if any of r(1..k) is 1, else 0
        recall_at_k     (r(1) + ... + r(k)) / R

    Items as near as each other are taken in the order that is worst for the query, so that an encoder which gives
    every image the same vector finds nothing.

    Args:
        queries: (q, d) float32 of unit norm.
        labels: (q,) int64.
        gallery: (n, d) of unit norm; None to search among the queries themselves, each without itself.
        gallery_labels: (n,) int64; with `gallery`.
        depths: the k of hit rate and recall.

    Returns:
        Measure -> (a,) values in [0, 1], and the (a,) positions of the queries they belong to, ascending: queries
        whose class has no other item are left out.

    Raises:
        ValueError: shapes that don't fit, or a depth below 1.

    >>> vectors = np.float32([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]])
    >>> scores, asked = label_scores(vectors, np.array([0, 1, 0, 2]), depths=(2,))
    >>> asked.tolist(), scores["precision_at_1"].tolist(), scores["hit_rate_at_2"].tolist()
    ([0, 2], [0.0, 0.0], [1.0, 0.0])
    """
    items, item_labels = (queries, labels) if gallery is None or gallery_labels is None else (gallery, gallery_labels)
    if len(queries) != len(labels) or len(items) != len(item_labels) or min(depths) < 1:
        raise ValueError(f"{len(queries)} queries, {len(labels)} labels, {len(items)} items, depths {tuple(depths)}")
    relevant = class_sizes(labels, item_labels) - (gallery is None)
    asked = np.flatnonzero(relevant > 0)
    parts: list[Mapping[str, Float64]] = [_measures(np.zeros((0, max(depths)), bool), relevant[:0], depths)]
    for start in range(0, len(asked), BLOCK):
        rows = asked[start : start + BLOCK]
        keys = _keys(queries[rows] @ items.T, labels[rows, None] == item_labels)
        if gallery is None:
            keys[np.arange(len(rows)), rows] = _LAST
        depth = max(int(relevant[rows].max()), *depths)
        parts.append(_measures(_ranking(keys, depth), relevant[rows], depths))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, asked


def class_sizes(labels: Int64, among: Int64) -> Int64:
    """How often each of `labels` (q,) occurs in `among` (n,).

    >>> class_sizes(np.array([3, 1]), np.array([1, 1, 2])).tolist()
    [0, 2]
    """
    ordered = np.sort(among)
    sizes: Int64 = np.searchsorted(ordered, labels, "right") - np.searchsorted(ordered, labels, "left")
    return sizes


def _keys(scores: Float32, relevant: Bool) -> Int64:
    """Integers that ascend where scores descend, the irrelevant first among equals; odd where irrelevant.

    A float32's bits order like the number itself once negative ones are mirrored; the last bit is free in 64.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # + 0: no negative zero
    ordered = np.where(bits >= 0, bits, bits ^ np.int32(0x7FFFFFFF)).astype(np.int64)
    keys: Int64 = -(2 * ordered + ~relevant)
    return keys


def _ranking(keys: Int64, depth: int) -> Bool:
    """(b, n) keys -> (b, m) whether each of the m = min(depth, n) first is relevant."""
    if depth < keys.shape[1]:
        keys = np.partition(keys, depth - 1, axis=1)[:, :depth]
    found: Bool = np.sort(keys, axis=1) % 2 == 0
    return found


def _measures(found: Bool, relevant: Int64, depths: Sequence[int]) -> dict[str, Float64]:
    """Whether the first m are relevant (b, m), and the number of all relevant (b,) -> (b,) of each measure."""
    reached = found.cumsum(axis=1)
    place = np.arange(1, found.shape[1] + 1)
    inside = place <= relevant[:, None]
    rows, divisor = np.arange(len(found)), np.maximum(relevant, 1)
    within = {k: reached[:, min(k, found.shape[1]) - 1] for k in depths}
    return {
        "precision_at_1": found[:, 0].astype(np.float64),
        "r_precision": reached[rows, np.minimum(relevant, found.shape[1]) - 1] / divisor,
        "map_at_r": (reached / place * (found & inside)).sum(axis=1) / divisor,
        **{f"hit_rate_at_{k}": (within[k] > 0).astype(np.float64) for k in depths},
        **{f"recall_at_{k}": within[k] / divisor for k in depths},
    }

"""Retrieval metrics by labels: of each query against a gallery, or of a set against itself.

Similarities are computed a block of queries at a time, so 10,000 queries against 50,000 items fit into 400 MB.

Dimension letters: q queries, n gallery items, d embedding width, b queries of a block, R items of the query's class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lookalike.types import Bool, Float32, Float64, Int64

DEPTHS = (1, 5, 10)
BLOCK_QUERIES = 256
_OWN_ITEM_KEY = np.iinfo(np.int64).max  # odd, so it reads as irrelevant


def label_scores(
    queries: Float32,
    labels: Int64,
    gallery: Float32 | None = None,
    gallery_labels: Int64 | None = None,
    *,
    depths: Sequence[int] = DEPTHS,
) -> tuple[dict[str, Float64], Int64]:
    """Measure how well each query finds the items of its class, by cosine.

    With r(i) = 1 where the i-th nearest item is of the query's class, else 0, R the number of such items, and
    P(i) = (r(1) + ... + r(i)) / i:

        precision_at_1  r(1)
        r_precision     P(R)
        map_at_r        1/R sum over i = 1..R of P(i) r(i)     (Musgrave, Belongie and Lim 2020)
        hit_rate_at_k   1 if any of r(1..k) is 1, else 0
        recall_at_k     (r(1) + ... + r(k)) / R

    Items of equal cosine are ranked in the worst order for the query, so that an encoder which gives every image the
    same vector finds nothing.

    Args:
        queries: (q, d) float32 of unit norm.
        labels: (q,) int64.
        gallery: (n, d) of unit norm; None to search among the queries themselves, each without itself.
        gallery_labels: (n,) int64; with `gallery`.
        depths: the k of hit rate and recall.

    Returns:
        Metric -> (a,) values in [0, 1], and the (a,) positions of their queries, ascending. Queries whose class has no
        other item are left out.

    Raises:
        ValueError: the shapes don't fit, or a depth is below 1.

    >>> vectors = np.float32([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]])
    >>> scores, queries = label_scores(vectors, np.array([0, 1, 0, 2]), depths=(2,))
    >>> queries.tolist(), scores["precision_at_1"].tolist(), scores["hit_rate_at_2"].tolist()
    ([0, 2], [0.0, 0.0], [1.0, 0.0])
    """
    items, item_labels = (queries, labels) if gallery is None or gallery_labels is None else (gallery, gallery_labels)
    if len(queries) != len(labels) or len(items) != len(item_labels) or min(depths) < 1:
        raise ValueError(f"{len(queries)} queries, {len(labels)} labels, {len(items)} items, depths {tuple(depths)}")
    relevant = class_sizes(labels, item_labels) - (gallery is None)
    answerable = np.flatnonzero(relevant > 0)
    parts: list[Mapping[str, Float64]] = [_metrics(np.zeros((0, max(depths)), bool), relevant[:0], depths)]
    for start in range(0, len(answerable), BLOCK_QUERIES):
        rows = answerable[start : start + BLOCK_QUERIES]
        keys = _keys(queries[rows] @ items.T, labels[rows, None] == item_labels)
        if gallery is None:
            keys[np.arange(len(rows)), rows] = _OWN_ITEM_KEY
        depth = max(int(relevant[rows].max()), *depths)
        parts.append(_metrics(_ranking(keys, depth), relevant[rows], depths))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, answerable


def class_sizes(labels: Int64, among: Int64) -> Int64:
    """Count how often each of `labels` (q,) occurs in `among` (n,).

    >>> class_sizes(np.array([3, 1]), np.array([1, 1, 2])).tolist()
    [0, 2]
    """
    ordered = np.sort(among)
    sizes: Int64 = np.searchsorted(ordered, labels, "right") - np.searchsorted(ordered, labels, "left")
    return sizes


def _keys(scores: Float32, relevant: Bool) -> Int64:
    """Return integers that ascend where scores descend, irrelevant items first among equals; odd where irrelevant.

    A float32's bits order like the number itself once negative ones are mirrored; the last bit is free in 64.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # + 0: no negative zero
    ordered = np.where(bits >= 0, bits, bits ^ np.int32(0x7FFFFFFF)).astype(np.int64)
    keys: Int64 = -(2 * ordered + ~relevant)
    return keys


def _ranking(keys: Int64, depth: int) -> Bool:
    """Return for (b, n) keys whether each of the first m = min(depth, n) items is relevant, (b, m)."""
    if depth < keys.shape[1]:
        keys = np.partition(keys, depth - 1, axis=1)[:, :depth]
    relevant: Bool = np.sort(keys, axis=1) % 2 == 0
    return relevant


def _metrics(hits: Bool, relevant: Int64, depths: Sequence[int]) -> dict[str, Float64]:
    """Compute (b,) of each metric, from whether the first m items are relevant (b, m) and the relevant items (b,)."""
    cumulated = hits.cumsum(axis=1)
    rank = np.arange(1, hits.shape[1] + 1)
    within_r = rank <= relevant[:, None]
    rows, divisor = np.arange(len(hits)), np.maximum(relevant, 1)
    hits_at = {k: cumulated[:, min(k, hits.shape[1]) - 1] for k in depths}
    return {
        "precision_at_1": hits[:, 0].astype(np.float64),
        "r_precision": cumulated[rows, np.minimum(relevant, hits.shape[1]) - 1] / divisor,
        "map_at_r": (cumulated / rank * (hits & within_r)).sum(axis=1) / divisor,
        **{f"hit_rate_at_{k}": (hits_at[k] > 0).astype(np.float64) for k in depths},
        **{f"recall_at_{k}": hits_at[k] / divisor for k in depths},
    }

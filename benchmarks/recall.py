"""ann_recall_at_10, computed from the original float32 vectors, for indexes of any library.

Dimension letters: n vectors, q queries, d width, k neighbors.
"""

from __future__ import annotations

import numpy as np

from lookalike.types import Float32, Int64

K = 10
COSINE_TOLERANCE = 1e-6
"""A row whose cosine is this close to the tenth's counts as a hit, so that duplicates are no misses."""


def cosines(vectors: Float32, queries: Float32, rows: Int64) -> Float32:
    """Return (q, k) cosines of found rows; -1 for rows that are missing (-1) or repeated."""
    scores: Float32 = np.stack([vectors[r] @ q for q, r in zip(queries, np.maximum(rows, 0), strict=True)])
    scores[(rows < 0) | _repeated(rows)] = -1.0
    return scores


def tenth_cosines(vectors: Float32, queries: Float32, true_rows: Int64) -> Float32:
    """Return (q,) the tenth best cosine of each query, from the (q, K) rows of exact search."""
    tenth: Float32 = cosines(vectors, queries, true_rows).min(axis=1)
    return tenth


def ann_recall(vectors: Float32, queries: Float32, rows: Int64, tenth: Float32) -> float:
    """Return the share of the ten true nearest rows that was found, in [0, 1], over all queries.

    recall = |{(i, j): cos(q_i, x_{rows_ij}) >= tenth_i - COSINE_TOLERANCE}| / (q k)

    >>> vectors = np.eye(4, dtype=np.float32)[:, :2]
    >>> ann_recall(vectors, vectors[:1], np.array([[0, 2]]), np.array([0.0], dtype=np.float32))
    1.0
    """
    found = cosines(vectors, queries, rows) >= tenth[:, None] - COSINE_TOLERANCE
    return float(found.mean())


def _repeated(rows: Int64) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return (q, k): whether the same row occurs further left; ten times the best row is not ten neighbors."""
    order = np.argsort(rows, axis=1, kind="stable")
    ascending = np.take_along_axis(rows, order, axis=1)
    repeated = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], ascending[:, 1:] == ascending[:, :-1], axis=1)
    return repeated

"""Queries of several parts: weighted sums of embeddings, and embeddings that callers send.

Dimension letters: p parts, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lookalike.errors import QueryError
from lookalike.types import Float32

MAX_PARTS = 32
_MIN_NORM = 1e-4
"""Shortest sum that still has a direction: below, rounding of the parts decides it."""
_UNIT_TOLERANCE = 1e-3
"""Rounding a unit vector to float16 changes its norm by less than this."""


def combine(vectors: Float32, weights: Sequence[float]) -> Float32:
    """Return the unit vector of a query's weighted parts, (d,) float32.

    A single part of positive weight is returned unchanged.

    Args:
        vectors: (p, d) float32 of unit norm, p >= 1.
        weights: p finite numbers; a negative one moves the query away from its part.

    Raises:
        QueryError: all weights are zero, or the parts cancel each other out.
    """
    if len(vectors) == 1 and weights[0] > 0:
        only: Float32 = vectors[0]
        return only
    scale = max(map(abs, weights))
    if not scale:
        raise QueryError("all weights of the query are 0; give at least one part another weight")
    total = (np.asarray(weights, np.float64) / scale) @ vectors.astype(np.float64)
    norm = float(np.linalg.norm(total))
    if norm < _MIN_NORM:
        raise QueryError("the parts of the query cancel each other out; change a weight or leave a part out")
    return np.asarray(total / norm, np.float32)


def unit_embedding(values: Sequence[float] | Float32, dim: int, name: str) -> tuple[Float32, str | None]:
    """Return an embedding scaled to unit norm, and a warning if it had another norm.

    Args:
        values: the embedding.
        dim: d, the encoder's width.
        name: of the embedding, for messages.

    Returns:
        (d,) float32, and one sentence or None.

    Raises:
        QueryError: it has another width, a value that is not a finite number, or norm zero.
    """
    try:
        vector = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise QueryError(f"{name} is no list of numbers: {error}") from error
    if vector.shape != (dim,):
        shape = f"{len(vector):,} numbers" if vector.ndim == 1 else f"the shape {vector.shape}"
        raise QueryError(f"{name} has {shape}; the encoder's embeddings have {dim}")
    if not np.isfinite(vector).all():
        position = int(np.argmin(np.isfinite(vector)))
        raise QueryError(f"{name}[{position}] is {vector[position]}; an embedding holds finite numbers")
    norm = float(np.linalg.norm(vector))
    if not norm or not np.isfinite(norm):
        raise QueryError(f"{name} has norm {norm:g}; it has no direction to search in")
    warning = f"{name} has norm {norm:.4g}; it was scaled to 1" if abs(norm - 1.0) > _UNIT_TOLERANCE else None
    return np.asarray(vector / norm, np.float32), warning

"""Rows scaled to unit norm, as encoders give them."""

from __future__ import annotations

import numpy as np

from lookalike.types import Float32


def unit(x: np.ndarray) -> Float32:
    """(n, d) of any norm but zero -> (n, d) float32 of norm one."""
    lengths: Float32 = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / lengths).astype(np.float32)

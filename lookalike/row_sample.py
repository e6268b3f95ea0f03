"""A sample of a collection's rows, against which a query's scores show how far a result stands out.

Dimension letters: n rows of the collection, m rows of the sample, d embedding width.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lookalike.errors import ManifestInvalid
from lookalike.types import Float16, Float32

SAMPLE_FILE = "sample.npy"
SAMPLE_ROWS = 512
"""Maximum rows: with 768 dimensions, their scores take a query a tenth of a millisecond."""
_SEED = 0


def draw_sample(vectors: Float16) -> Float16:
    """Draw at most SAMPLE_ROWS different rows of (n, d) at random, (m, d) in their order; the same ones each time."""
    if len(vectors) <= SAMPLE_ROWS:
        return np.array(vectors)
    rows = np.random.default_rng(_SEED).choice(len(vectors), SAMPLE_ROWS, replace=False)
    return np.array(vectors[np.sort(rows)])


def write_sample(folder: Path, vectors: Float16) -> None:
    """Write the sample of a version's (n, d) vectors to its folder."""
    np.save(folder / SAMPLE_FILE, draw_sample(vectors))


def read_sample(folder: Path, vectors: Float16) -> Float32:
    """Return a version's sample, (m, d) float32 of unit norm, read-only; drawn if an earlier release wrote the version.

    Raises:
        ManifestInvalid: the file is no sample of (n, d) vectors.
    """
    path = folder / SAMPLE_FILE
    sample = _load(path, vectors.shape[1]) if path.exists() else draw_sample(vectors)
    rows = sample.astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    rows.flags.writeable = False
    return rows


def _load(path: Path, dim: int) -> Float16:
    try:
        sample: Float16 = np.load(path)
    except (OSError, ValueError) as error:
        raise ManifestInvalid(f"{path} can't be read: {error}") from error
    if sample.dtype != np.float16 or sample.ndim != 2 or sample.shape[1] != dim:
        raise ManifestInvalid(f"{path} holds {sample.dtype} {sample.shape}, not (m, {dim}) float16")
    return sample

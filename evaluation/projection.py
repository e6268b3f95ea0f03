"""Projections of embeddings to the plane, by t-SNE (van der Maaten and Hinton 2008) and UMAP (McInnes et al. 2018)."""

from __future__ import annotations

import warnings

import numpy as np

from evaluation.extras import import_extra
from lookalike.types import Float32, Float64

MIN_PROJECTED = 8
"""Minimum number of embeddings for a projection."""


def t_sne(vectors: Float32, seed: int) -> Float64:
    """Project unit vectors (n, d) to (n, 2) by scikit-learn's t-SNE; neighbours by cosine.

    Raises:
        ExtraMissing: scikit-learn is not installed.
    """
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    model = import_extra("sklearn.manifold").TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=seed)
    return np.asarray(model.fit_transform(vectors), np.float64)


def umap(vectors: Float32, seed: int) -> Float64:
    """Project unit vectors (n, d) to (n, 2) by umap-learn; neighbours by cosine.

    Raises:
        ExtraMissing: umap-learn is not installed.
    """
    # One thread: only then the library gives the same points for the same seed. Small sets start from random points,
    # since the spectral start has too few eigenvectors.
    neighbours, start = min(15, len(vectors) - 1), "spectral" if len(vectors) > 50 else "random"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # about Tensorflow, for a model that is not used here
        library = import_extra("umap")
    model = library.UMAP(n_neighbors=neighbours, metric="cosine", init=start, random_state=seed, n_jobs=1)
    return np.asarray(model.fit_transform(vectors), np.float64)

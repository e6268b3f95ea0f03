"""Embeddings -> points in the plane, by t-SNE (van der Maaten and Hinton 2008) and UMAP (McInnes et al. 2018)."""

from __future__ import annotations

import warnings

import numpy as np

from evaluation.extras import need
from evaluation.labels import Float64
from lookalike.types import Float32

FEWEST = 8
"""Fewer embeddings than this are not projected."""


def t_sne(vectors: Float32, seed: int) -> Float64:
    """Unit vectors (n, d) -> (n, 2), by scikit-learn; neighbours by cosine.

    Raises:
        ExtraMissing: scikit-learn is not installed.
    """
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    model = need("sklearn.manifold").TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=seed)
    return np.asarray(model.fit_transform(vectors), np.float64)


def umap(vectors: Float32, seed: int) -> Float64:
    """Unit vectors (n, d) -> (n, 2), by umap-learn; neighbours by cosine.

    Raises:
        ExtraMissing: umap-learn is not installed.
    """
    # One thread: the library promises the same image for the same seed only then. From random points for small sets,
    # where the spectral start has not enough eigenvectors.
    neighbours, start = min(15, len(vectors) - 1), "spectral" if len(vectors) > 50 else "random"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # it would like Tensorflow for a model that is not used here
        library = need("umap")
    model = library.UMAP(n_neighbors=neighbours, metric="cosine", init=start, random_state=seed, n_jobs=1)
    return np.asarray(model.fit_transform(vectors), np.float64)

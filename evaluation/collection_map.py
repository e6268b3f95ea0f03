"""The map of a collection: its embeddings projected to the plane, from the neighbours that its own index finds.

Neither UMAP nor t-SNE sees the embeddings: they get the nearest neighbours of each item, and start from the two
principal components. So memory does not grow with the width of the embeddings, and the search for neighbours, the
longest step otherwise, is the one that the collection was indexed for.

Dimension letters: n items, d embedding width, k neighbours, b rows of a block.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from evaluation.extras import import_extra, require_packages
from lookalike.approximate_search import approximate_search
from lookalike.collection import Collection
from lookalike.collection_map import CollectionMap
from lookalike.rerank import normalized_rows
from lookalike.stores.exact import ExactStore
from lookalike.stores.protocol import VectorStore
from lookalike.stores.registry import open_store
from lookalike.types import Float16, Float32, Float64, Int64, Neighbors

MIN_ITEMS = 8
"""Fewer items are placed by their principal components: UMAP and t-SNE need neighbours to choose from."""
PACKAGES = ("sklearn", "umap")

_MAX_EXACT_ROWS = 20_000
"""Up to this many vectors, comparing all of them takes a few seconds."""
_QUERIES_PER_SEARCH = 1_024
_BLOCK_ROWS = 8_192
_JITTER = 1e-4
"""Noise of the start, in shares of its extent: equal embeddings start at different points."""
_TSNE_START = 1e-4
"""Standard deviation of the start of t-SNE, as in scikit-learn."""

Method = Literal["umap", "tsne"]


@dataclass(frozen=True, slots=True)
class MapSettings:
    """How a map is made.

    Attributes:
        method: of the projection.
        neighbors: of UMAP; at least 2. Few show small groups, many show the large shape.
        min_dist: of UMAP, in [0, 1): how close together points may lie.
        perplexity: of t-SNE, above 1: about how many neighbours count.
        seed: of the random numbers; the same seed gives the same map.
    """

    method: Method = "umap"
    neighbors: int = 15
    min_dist: float = 0.1
    perplexity: float = 30.0
    seed: int = 0


def make_map(
    collection: Collection, settings: MapSettings, progress: Callable[[int], object] = lambda rows: None
) -> CollectionMap:
    """Place the items of a version in the plane.

    Args:
        collection: the opened version.
        settings: how.
        progress: called with the number of items whose neighbours were found since the last call.

    Raises:
        ExtraMissing: a package of the extra `train` is not installed.
    """
    count = len(collection.vectors)
    start = _principal_components(collection.vectors)
    method, params, points = "pca", dict[str, Any](), start
    if count >= MIN_ITEMS:
        require_packages(PACKAGES, "a map")
        project = _umap if settings.method == "umap" else _tsne
        store = _neighbor_store(collection)
        width, params = _width_and_params(settings, count)
        neighbors = _nearest(collection.vectors, store, width, progress)
        points = project(neighbors, _with_jitter(start, settings.seed), params)
        method = settings.method
    version = collection.manifest.version
    return CollectionMap(version, _scaled(points), method, params, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")


def _width_and_params(settings: MapSettings, count: int) -> tuple[int, dict[str, Any]]:
    """Return the number of neighbours besides the item itself, and the parameters, as far as the items allow."""
    if settings.method == "umap":
        neighbors = min(settings.neighbors, count - 1)
        # umap-learn counts the item itself as one of its neighbours.
        return neighbors - 1, {"neighbors": neighbors, "min_dist": settings.min_dist, "seed": settings.seed}
    perplexity = min(settings.perplexity, (count - 1) / 3)
    return min(count - 1, int(3 * perplexity + 1)), {"perplexity": round(perplexity, 3), "seed": settings.seed}


def _neighbor_store(collection: Collection) -> VectorStore:
    if len(collection.vectors) <= _MAX_EXACT_ROWS:
        return ExactStore(collection.vectors)
    entry = collection.manifest.store
    return open_store(entry.kind, collection.folder, collection.vectors, entry.params)


def _nearest(
    vectors: Float16, store: VectorStore, width: int, progress: Callable[[int], object]
) -> tuple[Int64, Float32]:
    """Return (n, k) rows of the nearest other items, and their cosine distances, ascending."""
    count = len(vectors)
    rows, distances = np.empty((count, width), np.int64), np.empty((count, width), np.float32)
    for top in range(0, count, _QUERIES_PER_SEARCH):
        queries = _unit_rows(vectors[top : top + _QUERIES_PER_SEARCH])
        found = _without_selves(_search(store, vectors, queries, width + 1), top, width)
        short = [i for i, each in enumerate(found) if len(each.rows) < width]
        if short:  # an index may find too few
            exact = ExactStore(vectors, copies=False).search(queries[short], width + 1)
            for i, each in zip(short, exact, strict=True):
                found[i] = _without_selves([each], top + i, width)[0]
        stop = top + len(queries)
        rows[top:stop] = [each.rows for each in found]
        distances[top:stop] = 1 - np.stack([each.scores for each in found])
        progress(len(queries))
    return rows, np.maximum(distances, 0)


def _search(store: VectorStore, vectors: Float16, queries: Float32, limit: int) -> list[Neighbors]:
    if store.exact:
        return store.search(queries, limit)
    return approximate_search(store, vectors, queries, limit, store.defaults)


def _without_selves(found: list[Neighbors], first: int, width: int) -> list[Neighbors]:
    """Leave out of each result the row that it is of; of more copies than neighbours, it may not be there."""
    others = [each.rows != row for row, each in enumerate(found, first)]
    return [
        Neighbors(each.rows[kept][:width], each.scores[kept][:width]) for each, kept in zip(found, others, strict=True)
    ]


def _unit_rows(block: Float16) -> Float32:
    """Return (b, d) finite vectors of unit norm, whatever the collection holds."""
    unit = np.nan_to_num(normalized_rows(block), nan=0.0, posinf=0.0, neginf=0.0)
    unit[~unit.any(axis=1), 0] = 1.0
    return unit


def _principal_components(vectors: Float16) -> Float64:
    """Return the (n, 2) coordinates along the two principal components, in memory for one block and (d, d)."""
    count, dim = vectors.shape
    blocks = [slice(top, top + _BLOCK_ROWS) for top in range(0, count, _BLOCK_ROWS)]
    total, products = np.zeros(dim), np.zeros((dim, dim))
    for block in blocks:
        unit = _unit_rows(vectors[block])
        total += unit.sum(axis=0, dtype=np.float64)
        products += unit.T @ unit
    mean = total / max(1, count)
    _, axes = np.linalg.eigh(products / max(1, count) - np.outer(mean, mean))
    axes = axes[:, -2:][:, ::-1]
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])] < 0, -1, 1)  # libraries choose signs
    coordinates = np.zeros((count, 2))
    for block in blocks:
        coordinates[block, : axes.shape[1]] = (_unit_rows(vectors[block]) - mean) @ axes
    return coordinates


def _with_jitter(start: Float64, seed: int) -> Float64:
    extent = max(float(np.ptp(start)), _JITTER)
    return start + np.random.default_rng(seed).normal(scale=_JITTER * extent, size=start.shape)


def _umap(neighbors: tuple[Int64, Float32], start: Float64, params: dict[str, Any]) -> Float64:
    """Project by umap-learn (McInnes et al. 2018). One thread: only then equal seeds give equal maps."""
    rows, distances = neighbors
    selves = np.arange(len(rows))[:, None]
    rows = np.concatenate([selves, rows], axis=1)
    distances = np.concatenate([np.zeros_like(distances[:, :1]), distances], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # about Tensorflow, for a model that is not used here
        library = import_extra("umap")
        warnings.simplefilter("ignore", UserWarning)  # new items can't be placed: they needn't be
        model = library.UMAP(
            n_neighbors=params["neighbors"],
            min_dist=params["min_dist"],
            random_state=params["seed"],
            n_jobs=1,
            init=start.astype(np.float32),
            precomputed_knn=(rows, distances),
        )
        return np.asarray(model.fit_transform(start), np.float64)  # of the data, it needs the length alone


def _tsne(neighbors: tuple[Int64, Float32], start: Float64, params: dict[str, Any]) -> Float64:
    """Project by scikit-learn's t-SNE (van der Maaten and Hinton 2008), Barnes-Hut."""
    rows, distances = neighbors
    count, width = rows.shape
    selves = np.arange(count)[:, None]
    # Euclidean distances, which the library squares, in its own form: (n, n) sparse, each item its own first neighbour.
    lengths = np.concatenate([np.zeros((count, 1)), np.sqrt(2 * distances.astype(np.float64))], axis=1)
    columns = np.concatenate([selves, rows], axis=1)
    bounds = np.arange(0, count * (width + 1) + 1, width + 1)
    graph = import_extra("scipy.sparse").csr_matrix((lengths.ravel(), columns.ravel(), bounds), (count, count))
    model = import_extra("sklearn.manifold").TSNE(
        perplexity=params["perplexity"],
        metric="precomputed",
        init=(start / max(float(start[:, 0].std()), 1e-12) * _TSNE_START).astype(np.float32),
        random_state=params["seed"],
        n_jobs=-1,
    )
    return np.asarray(model.fit_transform(graph), np.float64)


def _scaled(points: Float64) -> Float32:
    """Return the points in the middle of the unit square, its longer side filled; (0.5, 0.5) if all are equal."""
    known = points[np.isfinite(points).all(axis=1)]
    if not len(known):
        return np.full(points.shape, 0.5, np.float32)
    low, high = known.min(axis=0), known.max(axis=0)
    middle, side = (low + high) / 2, float((high - low).max())
    placed = np.where(np.isfinite(points), points, middle)
    scaled: Float32 = np.clip((placed - middle) / (side or 1.0) + 0.5, 0, 1).astype(np.float32)
    return scaled

"""Write side of the FAISS store: trains, fills and writes an index of one preset.

Dimension letters: n rows of the collection, d embedding width, m rows of the training sample, b rows of a batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from lookalike.errors import DimensionMismatch, StoreUnavailable
from lookalike.stores.faiss.library import INDEX_FILE, faiss, translated_errors
from lookalike.stores.faiss.strategies import strategy_for
from lookalike.stores.presets import MIN_ROWS_PER_CENTROID, Preset, choose_nlist, default_preset
from lookalike.stores.protocol import VectorStoreBuilder
from lookalike.types import Float32, Int64

_SEED = 1234
_KMEANS_ITERATIONS = 10
_MIN_SAMPLE_ROWS, _MAX_SAMPLE_ROWS = 1_024, 131_072
_GRAPH_SAMPLE_ROWS = 32_768  # to learn the ranges of 8-bit numbers
_EF_CONSTRUCTION = 80
_OPQ_ITERATIONS, _OPQ_SAMPLE_ROWS = 8, 16_384


class FaissBuilder(VectorStoreBuilder):
    """Builder of an index with a known number of rows.

    The same input gives the same file, except for graphs: their links depend on the order in which threads finish.
    Memory: the training sample, one batch of `add`, and the index (`Preset.memory_bytes`).

    Attributes:
        sample_size: number of rows that `train` expects.
    """

    def __init__(self, count: int, dim: int, preset: Preset | None = None, held_out: Int64 | None = None) -> None:
        """Create the empty index for `count` rows of width `dim`, by default of the preset for that many rows.

        `add` skips rows that are held out of a graph; `add_held_out` adds them later.

        Raises:
            StoreUnavailable: count is zero or too low for the preset, or the preset can't hold rows out.
        """
        if count < 1:
            raise StoreUnavailable("an index needs at least one vector; use the exact store for an empty one")
        self.preset = preset or default_preset(count)
        if count < self.preset.min_rows:
            raise StoreUnavailable(
                f"{self.preset.name} needs {self.preset.min_rows:,} vectors to learn its codes from; there are "
                f"{count:,}: use exact or ivf-flat"
            )
        self.factory = self.preset.factory_string(count, dim)
        self.nlist = choose_nlist(count) if self.preset.is_ivf else 0
        self.sample_size = min(count, self._sample_size())
        self._count = count
        self._held_out = np.empty(0, np.int64) if held_out is None else held_out
        if len(self._held_out) and not self.preset.is_graph:
            raise StoreUnavailable(f"{self.preset.name} can't hold rows out: its rows are numbered as they are added")
        with translated_errors(f"{self.preset.name} can't be made for vectors of width {dim}"):
            self._index: Any = faiss.index_factory(dim, self.factory, faiss.METRIC_INNER_PRODUCT)
        self._configure()
        self._added = 0
        self._train_seconds = 0.0
        self._add_seconds = 0.0

    @override
    def train(self, sample: Float32) -> None:
        """Learn centroids and codebooks from (m, d) float32 unit vectors.

        Raises:
            DimensionMismatch: another width than the builder's.
            StoreUnavailable: FAISS raised an error, for example because m < nlist.
        """
        self._check(sample)
        started = time.perf_counter()
        with translated_errors("training the index failed"):
            self._index.train(np.ascontiguousarray(sample, dtype=np.float32))
        self._train_seconds += time.perf_counter() - started

    @override
    def add(self, vectors: Float32) -> None:
        """Add (b, d) float32 unit vectors in row order, starting with row 0.

        Raises:
            DimensionMismatch: another width than the builder's.
            StoreUnavailable: FAISS raised an error, for example because the index is not trained.
        """
        self._check(vectors)
        started = time.perf_counter()
        values = np.ascontiguousarray(vectors, dtype=np.float32)
        with translated_errors("adding to the index failed"):
            if self.preset.is_graph:
                rows = np.arange(self._added, self._added + len(values))
                kept = ~np.isin(rows, self._held_out)
                self._index.add_with_ids(values[kept], rows[kept])
            else:
                self._index.add(values)
        self._added += len(values)
        self._add_seconds += time.perf_counter() - started

    @override
    def finish(self, folder: Path) -> Mapping[str, object]:
        """Write `folder/index.faiss`.

        Returns:
            preset, factory, nlist, the search parameters, count, bytes_per_vector (of the file), train_seconds and
            add_seconds.

        Raises:
            StoreUnavailable: fewer or more rows were added than announced, or FAISS could not write.
        """
        if self._added != self._count:
            raise StoreUnavailable(f"{self._added} vectors were added where {self._count} were announced")
        path = folder / INDEX_FILE
        with translated_errors(f"{path} can't be written"):
            faiss.write_index(self._index, str(path))
        strategy = strategy_for(self._index)
        assert strategy is not None
        return {
            "preset": self.preset.name,
            "factory": self.factory,
            **({"nlist": self.nlist} if self.nlist else {}),
            **strategy.initial_params(),
            "count": self._count,
            "bytes_per_vector": round(path.stat().st_size / self._index.ntotal, 1),
            "train_seconds": round(self._train_seconds, 2),
            "add_seconds": round(self._add_seconds, 2),
        }

    def _sample_size(self) -> int:
        if self.preset.is_graph:
            return _GRAPH_SAMPLE_ROWS
        return max(40 * self.nlist, min(64 * self.nlist, _MAX_SAMPLE_ROWS), _MIN_SAMPLE_ROWS)

    def _configure(self) -> None:
        if self.preset.is_graph:
            _set_ef_construction(self._index)
            return
        ivf = faiss.extract_index_ivf(self._index)
        ivf.cp.seed = _SEED
        ivf.cp.niter = _KMEANS_ITERATIONS
        ivf.cp.max_points_per_centroid = max(64, math.ceil(self.sample_size / self.nlist))
        if self._count < MIN_ROWS_PER_CENTROID:
            ivf.cp.min_points_per_centroid = 1  # a single list: FAISS need not warn
        if isinstance(self._index, faiss.IndexPreTransform):
            chain: Any = self._index.chain
            for position in range(chain.size()):
                self._configure_transform(faiss.downcast_VectorTransform(chain.at(position)))

    def _configure_transform(self, transform: Any) -> None:
        """Learn a rotation from a sample, for the 4-bit codes that follow it; FAISS's default is 8 bits."""
        if isinstance(transform, faiss.OPQMatrix):
            transform.niter, transform.max_train_points = _OPQ_ITERATIONS, _OPQ_SAMPLE_ROWS
            self._quantizer = faiss.ProductQuantizer(transform.d_out, transform.M, 4)  # FAISS holds only a pointer
            transform.pq = self._quantizer

    def _check(self, vectors: Float32) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self._index.d:
            raise DimensionMismatch(f"vectors of shape {vectors.shape} for an index of width {self._index.d}")


def add_held_out(folder: Path, rows: Int64, vectors: Float32) -> None:
    """Add the held-out rows to the graph in `folder/index.faiss` and replace the file.

    Args:
        folder: a builder's output folder.
        rows: (h,) the rows that the builder held out.
        vectors: (h, d) float32 unit vectors of these rows.

    Raises:
        StoreUnavailable: FAISS could not read, add or write.
    """
    path = folder / INDEX_FILE
    partial = path.with_suffix(".partial")
    with translated_errors(f"{path} can't be completed"):
        index: Any = faiss.read_index(str(path))
        _set_ef_construction(index)
        index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), rows)
        try:
            faiss.write_index(index, str(partial))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _set_ef_construction(index: Any) -> None:
    graph: Any = faiss.downcast_index(index.index)
    graph.hnsw.efConstruction = _EF_CONSTRUCTION

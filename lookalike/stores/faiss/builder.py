"""The writing side of the FAISS store: an index of one preset, trained, filled and written.

Dimension letters: n rows of the collection, d embedding width, m a training sample, b rows of a piece.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.errors import DimensionMismatch, StoreUnavailable
from lookalike.stores.faiss.library import INDEX_FILE, faiss, translated_errors
from lookalike.stores.faiss.strategies import strategy_for
from lookalike.stores.presets import MIN_ROWS_PER_CENTROID, Preset, choose_nlist, default_preset
from lookalike.types import Float32, Int64

_SEED = 1234
_KMEANS_ITERATIONS = 10
_SMALLEST_SAMPLE, _LARGEST_SAMPLE = 1_024, 131_072
_GRAPH_SAMPLE = 32_768  # ranges of 8-bit numbers are learned from these
_LINK_BREADTH = 80  # efConstruction: rows in sight while a row's links are chosen
_ROTATION_ROUNDS, _ROTATION_SAMPLE = 8, 16_384


class FaissBuilder:
    """Trains and fills an index for a known number of rows.

    The same input gives the same file, graphs excepted, whose links depend on which thread was first.
    Memory: the training sample, one piece of `add`, and the index (`Preset.memory`).

    Attributes:
        sample_size: how many rows `train` wants.
    """

    def __init__(self, count: int, dim: int, preset: Preset | None = None, held_out: Int64 | None = None) -> None:
        """Makes the empty index for `count` rows of width `dim`; None is the default preset for so many.

        Rows that are held out of a graph are passed over when they are added; `add_held_out` puts them in later.

        Raises:
            StoreUnavailable: count is zero.
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
        self._seen = 0
        self._train_seconds = 0.0
        self._add_seconds = 0.0

    def train(self, sample: Float32) -> None:
        """Learns cells and codebooks from (m, d) float32 unit vectors.

        Raises:
            DimensionMismatch: another width than the builder's.
            StoreUnavailable: FAISS refused, for one because m < nlist.
        """
        self._check(sample)
        started = time.perf_counter()
        with translated_errors("training the index failed"):
            self._index.train(np.ascontiguousarray(sample, dtype=np.float32))
        self._train_seconds += time.perf_counter() - started

    def add(self, vectors: Float32) -> None:
        """Codes (b, d) float32 unit vectors; the first one ever added is row 0.

        Raises:
            DimensionMismatch: another width than the builder's.
            StoreUnavailable: FAISS refused, for one because nothing was trained yet.
        """
        self._check(vectors)
        started = time.perf_counter()
        values = np.ascontiguousarray(vectors, dtype=np.float32)
        with translated_errors("adding to the index failed"):
            if self.preset.is_graph:
                rows = np.arange(self._seen, self._seen + len(values))
                kept = ~np.isin(rows, self._held_out)
                self._index.add_with_ids(values[kept], rows[kept])
            else:
                self._index.add(values)
        self._seen += len(values)
        self._add_seconds += time.perf_counter() - started

    def finish(self, folder: Path) -> Mapping[str, object]:
        """Writes `folder/index.faiss`.

        Returns:
            factory, nlist, nprobe, candidates, count, bytes_per_vector (of the file), train_seconds, add_seconds.

        Raises:
            StoreUnavailable: the rows added are not as many as announced, or FAISS could not write.
        """
        if self._seen != self._count:
            raise StoreUnavailable(f"{self._seen} vectors were added where {self._count} were announced")
        path = folder / INDEX_FILE
        with translated_errors(f"{path} can't be written"):
            faiss.write_index(self._index, str(path))
        way = strategy_for(self._index)
        assert way is not None
        return {
            "preset": self.preset.name,
            "factory": self.factory,
            **({"nlist": self.nlist} if self.nlist else {}),
            **way.initial_params(),
            "count": self._count,
            "bytes_per_vector": round(path.stat().st_size / self._index.ntotal, 1),
            "train_seconds": round(self._train_seconds, 2),
            "add_seconds": round(self._add_seconds, 2),
        }

    def _sample_size(self) -> int:
        if self.preset.is_graph:
            return _GRAPH_SAMPLE
        return max(40 * self.nlist, min(64 * self.nlist, _LARGEST_SAMPLE), _SMALLEST_SAMPLE)

    def _configure(self) -> None:
        if self.preset.is_graph:
            _widen_links(self._index)
            return
        ivf = faiss.extract_index_ivf(self._index)
        ivf.cp.seed = _SEED
        ivf.cp.niter = _KMEANS_ITERATIONS
        ivf.cp.max_points_per_centroid = max(64, math.ceil(self.sample_size / self.nlist))
        if self._count < MIN_ROWS_PER_CENTROID:
            ivf.cp.min_points_per_centroid = 1  # a single cell: nothing to starve
        if isinstance(self._index, faiss.IndexPreTransform):
            chain: Any = self._index.chain
            for place in range(chain.size()):
                self._quicken(faiss.downcast_VectorTransform(chain.at(place)))

    def _quicken(self, step: Any) -> None:
        """A rotation is learned from a sample, for the 4-bit codes that follow it; FAISS would take 8-bit ones."""
        if isinstance(step, faiss.OPQMatrix):
            step.niter, step.max_train_points = _ROTATION_ROUNDS, _ROTATION_SAMPLE
            self._codes = faiss.ProductQuantizer(step.d_out, step.M, 4)  # kept: the rotation only points to it
            step.pq = self._codes

    def _check(self, vectors: Float32) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self._index.d:
            raise DimensionMismatch(f"vectors of shape {vectors.shape} for an index of width {self._index.d}")


def add_held_out(folder: Path, rows: Int64, vectors: Float32) -> None:
    """Adds rows that were held out to the graph in `folder/index.faiss`, which is replaced.

    Args:
        folder: where a builder finished.
        rows: (h,) the rows that it was told to hold out.
        vectors: (h, d) float32, theirs, of unit norm.

    Raises:
        StoreUnavailable: FAISS could not read, add or write.
    """
    path = folder / INDEX_FILE
    partial = path.with_suffix(".partial")
    with translated_errors(f"{path} can't be completed"):
        index: Any = faiss.read_index(str(path))
        _widen_links(index)
        index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), rows)
        try:
            faiss.write_index(index, str(partial))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _widen_links(index: Any) -> None:
    graph: Any = faiss.downcast_index(index.index)
    graph.hnsw.efConstruction = _LINK_BREADTH

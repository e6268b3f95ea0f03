"""FAISS behind the store protocol: the one module that imports it.

Writes and reads an inverted file of 4-bit product codes (fast-scan), memory-mapped when read. It returns candidates
with FAISS's own approximate inner products; exact cosines are made afterwards by `retrieval.rerank`. It knows nothing
of metadata, of collections or of how its parameters are tuned.

Dimension letters: n rows of the collection, q queries, d embedding width, k neighbours, m a training sample.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from retrieval.errors import DimensionMismatch, QueryError, StoreUnavailable
from retrieval.stores.protocol import SearchParameters, check_mask
from retrieval.types import Bool, Float32, Int64, Neighbors, UInt8

INDEX_FILE = "index.faiss"

_wrapped: Any = faiss  # where FAISS's own stubs describe the C++ constructor instead of its Python wrapper

_PLAIN = (faiss.IndexFlat, faiss.IndexIVFFlat, faiss.IndexHNSWFlat)
"""Indexes that hold the vectors themselves."""
_PARAMETERS = ("nprobe", "candidates")
_CANDIDATES = (50, 100, 150, 200, 400)
_DEFAULT_CANDIDATES = 100
_SEED = 1234
_KMEANS_ITERATIONS = 10
_POINTS_PER_CENTROID = 39  # fewer, and FAISS warns that the clustering is starved
_SMALLEST_CODED = 1024  # below it 16-centroid codebooks would starve too, and plain vectors are small anyway
_LARGEST_NLIST = 16_384
# Re-ranking gathers single rows from a memory map and converts them; scanning streams packed codes. Measured on two
# AVX-512 cores, a re-ranked byte costs about eight scanned ones. Only the order of trials depends on this.
_RERANKED_BYTE = 8
# Of f allowed rows in n, (n / f) ** _WIDENING times as many lists are visited: keeps the tuned recall under a mask.
_WIDENING = 0.25


class FaissStore:
    """Reads a finished index. Calls from several threads are safe: every parameter travels with its call.

    Attributes:
        kind: `faiss`.
        dim: d.
        count: n.
        exact: False; scores are approximate inner products.
        defaults: `nprobe` (lists visited, 1 to nlist) and `candidates` (rows to gather for re-ranking).
    """

    kind = "faiss"
    exact = False

    def __init__(self, index: Any, defaults: SearchParameters) -> None:
        """Wraps a trained IVF index over inner products; use `open` to read one from disk."""
        self._index = index
        # `faiss.contrib.torch_utils`, which other libraries import, puts a `search` without parameters in its place.
        self._search = getattr(index, "search_numpy", index.search)
        self._ivf = faiss.extract_index_ivf(index)
        self._chained = isinstance(index, faiss.IndexPreTransform)
        self.dim = int(index.d)
        self.count = int(index.ntotal)
        self.defaults: SearchParameters = _checked(dict(defaults) or _first_guess(int(self._ivf.nlist)))

    @classmethod
    def open(cls, folder: Path, params: Mapping[str, object] | None = None) -> FaissStore:
        """Maps `folder/index.faiss` into memory; pages are read as searches touch them.

        Args:
            folder: where a builder finished.
            params: the manifest's parameters of this store; `nprobe` and `candidates` become the defaults.

        Raises:
            StoreUnavailable: the file is missing, corrupt or no inverted file over inner products.
        """
        path = folder / INDEX_FILE
        if not path.is_file():
            raise StoreUnavailable(f"{path} is missing; index again or restore the folder from a copy")
        with _translated(f"{path} can't be read; index again or restore the folder from a copy"):
            # The mapping that fast-scan codes can live in; IO_FLAG_MMAP silently copies them into memory.
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
            ivf = faiss.try_extract_index_ivf(index)
        if ivf is None or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise StoreUnavailable(f"{path} is no inverted file over inner products; index again")
        given = {name: int(str(value)) for name, value in (params or {}).items() if name in _PARAMETERS}
        return cls(index, given and {**_first_guess(int(ivf.nlist)), **given})

    def search(
        self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
    ) -> list[Neighbors]:
        """At most k candidates of each query; see `VectorStore.search`.

        A query gets fewer than k where the visited lists hold fewer rows. Under a mask more lists are visited, since
        the nearest allowed rows lie farther away; where those hold fewer than k allowed rows, all lists are.

        Raises:
            DimensionMismatch: queries or mask of another size than the store's.
            QueryError: a parameter that this store does not have, or below 1.
            StoreUnavailable: FAISS refused.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise DimensionMismatch(f"queries of shape {queries.shape} for a store of width {self.dim}")
        check_mask(mask, self.count)
        wanted = _checked({**self.defaults, **(params or {})})
        if len(queries) == 0:
            return []
        nlist = int(self._ivf.nlist)
        nprobe, most = min(wanted["nprobe"], nlist), min(k, self.count)
        if mask is None:
            return self._found(queries, most, nprobe, None)
        bits = np.packbits(mask, bitorder="little")
        allowed = int(np.count_nonzero(mask))
        if not allowed:
            return [Neighbors(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        nprobe = min(nlist, math.ceil(nprobe * (self.count / allowed) ** _WIDENING))
        found = self._found(queries, most, nprobe, bits)
        short = [i for i, neighbors in enumerate(found) if len(neighbors.rows) < min(k, allowed)]
        if short and nprobe < nlist:
            for i, neighbors in zip(short, self._found(queries[short], most, nlist, bits), strict=True):
                found[i] = neighbors
        return found

    def _found(self, queries: Float32, k: int, nprobe: int, bits: UInt8 | None) -> list[Neighbors]:
        """One call of FAISS; `bits` is the mask, eight rows to a byte."""
        selector = None if bits is None else _wrapped.IDSelectorBitmap(bits)
        asked = np.ascontiguousarray(queries, dtype=np.float32)
        with _translated("the search failed"):
            scores, rows = self._search(asked, k, params=self._parameters(nprobe, selector))
        return _neighbors(rows, scores)

    def trials(self) -> Sequence[SearchParameters]:
        """Search parameters worth trying, the cheapest first by the bytes they make a query read."""
        nlist = int(self._ivf.nlist)
        # From a 64th of the lists (fewer save nothing worth having) to all of them, by cube roots of two.
        ladder = sorted({max(1, round(nlist * 2 ** (-step / 3))) for step in range(3 * 6 + 1)})
        gathered = [c for c in _CANDIDATES if c <= self.count] or [self.count]
        grid = [{"nprobe": nprobe, "candidates": c} for nprobe, c in itertools.product(ladder, gathered)]
        return sorted(grid, key=self._bytes_read)

    def _bytes_read(self, params: SearchParameters) -> float:
        """What a query has to read: codes of the visited lists, and the rows of its candidates."""
        scanned = params["nprobe"] * self.count / int(self._ivf.nlist) * int(self._ivf.code_size)
        return scanned + _RERANKED_BYTE * params["candidates"] * 2 * self.dim

    def _parameters(self, nprobe: int, selector: Any) -> Any:
        given = {"nprobe": nprobe} | ({} if selector is None else {"sel": selector})
        inner = faiss.SearchParametersIVF(**given)
        return _wrapped.SearchParametersPreTransform(index_params=inner) if self._chained else inner


class FaissBuilder:
    """Trains and fills an index for a known number of rows; the same input gives the same file.

    Memory: the training sample, one piece of `add`, and the codes (d / 4 + 8 bytes a row).

    Attributes:
        sample_size: how many rows `train` wants.
    """

    def __init__(self, count: int, dim: int) -> None:
        """Chooses the index for `count` rows of width `dim`.

        Raises:
            StoreUnavailable: count is zero.
        """
        if count < 1:
            raise StoreUnavailable("an inverted file needs at least one vector; use the exact store for an empty one")
        self.nlist = choose_nlist(count)
        self.factory = choose_factory(count, dim)
        self.sample_size = min(count, max(40 * self.nlist, min(64 * self.nlist, 131_072), _SMALLEST_CODED))
        self._count = count
        self._index = faiss.index_factory(dim, self.factory, faiss.METRIC_INNER_PRODUCT)
        self._configure()
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
        with _translated("training the index failed"):
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
        with _translated("adding to the index failed"):
            self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        self._add_seconds += time.perf_counter() - started

    def finish(self, folder: Path) -> Mapping[str, object]:
        """Writes `folder/index.faiss`.

        Returns:
            factory, nlist, nprobe, candidates, count, bytes_per_vector (of the file), train_seconds, add_seconds.

        Raises:
            StoreUnavailable: the rows added are not as many as announced, or FAISS could not write.
        """
        if self._index.ntotal != self._count:
            raise StoreUnavailable(f"{self._index.ntotal} vectors were added where {self._count} were announced")
        path = folder / INDEX_FILE
        with _translated(f"{path} can't be written"):
            faiss.write_index(self._index, str(path))
        return {
            "factory": self.factory,
            "nlist": self.nlist,
            **_first_guess(self.nlist),
            "count": self._count,
            "bytes_per_vector": round(path.stat().st_size / self._count, 1),
            "train_seconds": round(self._train_seconds, 2),
            "add_seconds": round(self._add_seconds, 2),
        }

    def _configure(self) -> None:
        ivf = faiss.extract_index_ivf(self._index)
        ivf.cp.seed = _SEED
        ivf.cp.niter = _KMEANS_ITERATIONS
        ivf.cp.max_points_per_centroid = max(64, math.ceil(self.sample_size / self.nlist))
        if self._count < _POINTS_PER_CENTROID:
            ivf.cp.min_points_per_centroid = 1  # a single cell: nothing to starve

    def _check(self, vectors: Float32) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self._index.d:
            raise DimensionMismatch(f"vectors of shape {vectors.shape} for an index of width {self._index.d}")


@dataclass(frozen=True, slots=True)
class IndexVectors:
    """The vectors that a foreign index holds; `exact` is False where it stores codes and gives back guesses."""

    count: int
    dim: int
    exact: bool
    read: Callable[[int, int], Float32]


def open_vectors(path: Path) -> IndexVectors:
    """Vectors of an index that another tool wrote, in the order of its ids.

    Raises:
        StoreUnavailable: it can't be read, or can't give its vectors back.
    """
    with _translated(f"{path} can't be read as a FAISS index"):
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        ivf = faiss.try_extract_index_ivf(index)
        if ivf is not None:
            ivf.make_direct_map()
    count, dim = int(index.ntotal), int(index.d)

    def read(start: int, stop: int) -> Float32:
        with _translated(f"{path} does not give its vectors back"):
            vectors: Float32 = index.reconstruct_n(start, stop - start)
            return vectors

    if count:
        read(0, 1)
    return IndexVectors(count, dim, isinstance(index, _PLAIN), read)


def choose_nlist(count: int) -> int:
    """Cells for `count` rows: the power of two nearest to 3 sqrt(n), with at least 39 rows each to train from."""
    wished = int(2 ** round(math.log2(3 * math.sqrt(count))))
    return max(1, min(wished, count // _POINTS_PER_CENTROID, _LARGEST_NLIST))


def choose_factory(count: int, dim: int) -> str:
    """FAISS's factory string for `count` rows of width `dim`.

    Residual 4-bit fast-scan codes (André et al., 2015) of two dimensions each: d / 4 bytes a row. An odd width is
    padded with a zero.
    """
    if count < _SMALLEST_CODED:
        return f"IVF{choose_nlist(count)},Flat"
    even = dim + dim % 2
    padding = f"Pad{even}," if even != dim else ""
    return f"{padding}IVF{choose_nlist(count)},PQ{even // 2}x4fsr"


def _first_guess(nlist: int) -> dict[str, int]:
    """Search parameters until tuning has measured better ones: about every twentieth list."""
    return {"nprobe": min(nlist, max(16, nlist // 20)), "candidates": _DEFAULT_CANDIDATES}


def _checked(params: Mapping[str, int]) -> dict[str, int]:
    for name, value in params.items():
        if name not in _PARAMETERS:
            raise QueryError(f"the faiss store has no search parameter {name!r}; it has {', '.join(_PARAMETERS)}")
        if value < 1:
            raise QueryError(f"search parameter {name} = {value}; it must be at least 1")
    return dict(params)


def _neighbors(rows: Int64, scores: Float32) -> list[Neighbors]:
    """Drops FAISS's filler rows (-1) and breaks ties by ascending row, which FAISS does not promise."""
    order = np.lexsort((rows, np.where(rows < 0, np.inf, -scores)), axis=-1)
    rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
    counts = (rows >= 0).sum(axis=1).tolist()
    return [Neighbors(r[:m], s[:m]) for r, s, m in zip(rows, scores, counts, strict=True)]


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """FAISS's exceptions (C++ ones arrive as RuntimeError or MemoryError, its wrappers assert) as our own."""
    try:
        yield
    except (RuntimeError, MemoryError, AssertionError) as error:
        raise StoreUnavailable(f"{what}: {_last_line(error)}") from error


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("Error: ")[2][:200] or type(error).__name__

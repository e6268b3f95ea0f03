"""The systems of the frontier: building, opening, searching, and the search parameters to try.

Each system runs in a process of its own (`benchmarks.frontier.worker`), in the system's environment if it has one, so
this module imports only numpy until a system is created. All search the same float32 unit vectors (`X.npy`; Lookalike
their float16 copy, as in a collection) by inner product, and keep their indexes in their own folders. Recall and time
are measured elsewhere.

Dimension letters: n vectors, q queries, d width, K neighbors.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.recall import K
from benchmarks.vectors import CHUNK_ROWS, FLOAT16_FILE, VECTORS_FILE
from lookalike.stores.presets import DEFAULT_PRESET, PRESETS
from lookalike.types import Float32, Int64

Params = dict[str, int]
_EF_SEARCH_GRID = (
    10,
    16,
    24,
    32,
    48,
    64,
    96,
    128,
    192,
    256,
    384,
    512,
    768,
    1024,
)  # candidates while a graph is searched
_SMALL_NPROBES = (4, 8, 16, 32)
_CONNECTIVITY, _EF_CONSTRUCTION = 16, 200  # M and efConstruction of hnswlib's own examples
_AUTOFAISS_MEMORY = "16GB"
_AUTOFAISS_HINT = (
    "create an environment and pass its Python as --autofaiss-python: "
    "pip install autofaiss==2.18.0 faiss-cpu==1.9.0.post1 'numpy<2' 'pyarrow<20'"
)


class LibraryMissing(Exception):
    """A library is not installed; the message has the command that installs it."""


@dataclass(frozen=True)
class Settings:
    """Settings of all systems.

    Attributes:
        threads: CPU threads, for building and for searching.
        target: ann_recall_at_10 for systems that tune themselves for recall.
        budget: index bytes a vector for systems that take a memory budget.
    """

    threads: int = 2
    target: float = 0.95
    budget: int = 160


class System(Protocol):
    """A library that builds and searches an index."""

    library: str
    """Name and version."""

    def build(self, vectors: Path, folder: Path) -> str:
        """Build an index of the vectors' folder in the system's folder; return the name of the index."""
        ...

    def tune(self, vectors: Path, folder: Path) -> Params | None:
        """Return the search parameters that the system chooses itself, None if it does not."""
        ...

    def open(self, vectors: Path, folder: Path) -> None:
        """Load the index."""
        ...

    def param_grid(self) -> Sequence[Params]:
        """Return search parameters to try, the cheapest first."""
        ...

    def search(self, queries: Float32, params: Params) -> Int64:
        """(q, d) -> (q, K) rows, -1 where there are too few."""
        ...

    def reclaimable(self, vectors: Path) -> Sequence[Path]:
        """Return files that are mapped only for re-ranking, whose pages the kernel may reclaim."""
        ...


class _Competitor:
    """Base of the other libraries.

    Raises:
        Missing: its library is not installed.
    """

    def __init__(self, package: str, module: str, settings: Settings, hint: str | None = None) -> None:
        try:
            self.module: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise LibraryMissing(f"{error.name} is not installed: {hint or f'pip install {package}'}") from error
        self.settings = settings
        self.library = f"{package} {metadata.version(package)}"
        self.index: Any = None

    def tune(self, vectors: Path, folder: Path) -> Params | None:
        return None

    def reclaimable(self, vectors: Path) -> Sequence[Path]:
        return ()


class Flat(_Competitor):
    """FAISS's exhaustive search over float32 vectors in memory, the baseline."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("faiss-cpu", "faiss", settings)
        self.module.omp_set_num_threads(settings.threads)

    def build(self, vectors: Path, folder: Path) -> str:
        """Write `flat.faiss`."""
        rows = _mapped(vectors)
        index = self.module.IndexFlatIP(rows.shape[1])
        for _, chunk in _chunks(rows):
            index.add(chunk)
        self.module.write_index(index, str(folder / "flat.faiss"))
        return "Flat"

    def open(self, vectors: Path, folder: Path) -> None:
        """Read `flat.faiss`."""
        self.index = self.module.read_index(str(folder / "flat.faiss"))

    def param_grid(self) -> Sequence[Params]:
        """Return one set without parameters."""
        return ({},)

    def search(self, queries: Float32, params: Params) -> Int64:
        """Search all vectors."""
        rows: Int64 = self.index.search(queries, K)[1]
        return rows


class Lookalike:
    """Lookalike, by the product's functions: build_store, tune, open_store, store.search, rerank."""

    def __init__(self, settings: Settings, preset: str = "faiss") -> None:
        from benchmarks import lookalike_store
        from lookalike.stores.faiss.library import faiss

        faiss.omp_set_num_threads(settings.threads)
        self._store_module, self._settings, self._preset = lookalike_store, settings, preset
        self.library = f"lookalike, faiss-cpu {metadata.version('faiss-cpu')}"

    def build(self, vectors: Path, folder: Path) -> str:
        """Build the store with a preset."""
        return str(
            self._store_module.build_once(folder, _mapped(vectors, FLOAT16_FILE), self._preset)["value"]["factory"]
        )

    def tune(self, vectors: Path, folder: Path) -> Params | None:
        """Return the parameters that tuning chooses for the target."""
        report = self._store_module.tune_once(
            folder, _mapped(vectors, FLOAT16_FILE), self._settings.target, self._preset
        )
        chosen: Params = report["value"]["params"]
        return chosen

    def open(self, vectors: Path, folder: Path) -> None:
        """Open the tuned store over memory-mapped vectors."""
        self._vectors = _mapped(vectors, FLOAT16_FILE)
        self._store = self._store_module.open_tuned(folder, self._vectors, self._settings.target, self._preset)

    def param_grid(self) -> Sequence[Params]:
        """Return tuning's parameters, preceded by cheaper ones to compare with systems of low recall."""
        from indexing.build.tuning import Tunable

        grid = [dict(params) for params in self._store.param_grid()] if isinstance(self._store, Tunable) else [{}]
        least = min(params.get("nprobe", 0) for params in grid)
        return [{"nprobe": nprobe, "candidates": 50} for nprobe in _SMALL_NPROBES if nprobe < least] + grid

    def search(self, queries: Float32, params: Params) -> Int64:
        """Search the store, and re-rank its candidates."""
        return self._store_module.search(self._store, self._vectors, queries, params, self._settings.threads)

    def reclaimable(self, vectors: Path) -> Sequence[Path]:
        """Return the float16 vectors."""
        return (vectors / FLOAT16_FILE,)


class Hnswlib(_Competitor):
    """hnswlib: a navigable graph over float32 vectors in memory (Malkov and Yashunin 2018), by its authors."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("hnswlib", "hnswlib", settings)

    def build(self, vectors: Path, folder: Path) -> str:
        """Write `hnswlib.bin`."""
        rows = _mapped(vectors)
        index = self.module.Index(space="ip", dim=rows.shape[1])
        index.init_index(len(rows), M=_CONNECTIVITY, ef_construction=_EF_CONSTRUCTION)
        for start, chunk in _chunks(rows):
            index.add_items(chunk, np.arange(start, start + len(chunk)), num_threads=self.settings.threads)
        index.save_index(str(folder / "hnswlib.bin"))
        return f"M {_CONNECTIVITY}, ef_construction {_EF_CONSTRUCTION}"

    def open(self, vectors: Path, folder: Path) -> None:
        """Read `hnswlib.bin`."""
        self.index = self.module.Index(space="ip", dim=_mapped(vectors).shape[1])
        self.index.load_index(str(folder / "hnswlib.bin"))
        self.index.set_num_threads(self.settings.threads)

    def param_grid(self) -> Sequence[Params]:
        """Return values of `ef`."""
        return [{"ef": ef_search} for ef_search in _EF_SEARCH_GRID]

    def search(self, queries: Float32, params: Params) -> Int64:
        """Search with `ef`."""
        self.index.set_ef(params["ef"])
        return np.asarray(self.index.knn_query(queries, k=K)[0], dtype=np.int64)


class Usearch(_Competitor):
    """USearch's graph with its defaults, in the number type that it chooses for the processor or in another."""

    def __init__(self, settings: Settings, dtype: str | None = None) -> None:
        super().__init__("usearch", "usearch.index", settings)
        self._dtype = dtype

    def build(self, vectors: Path, folder: Path) -> str:
        """Write `index.usearch`."""
        rows = _mapped(vectors)
        index = self.module.Index(ndim=rows.shape[1], metric="ip", dtype=self._dtype)
        for start, chunk in _chunks(rows):
            index.add(np.arange(start, start + len(chunk)), chunk, threads=self.settings.threads)
        index.save(str(folder / "index.usearch"))
        return f"{index.dtype.name.lower()}, connectivity {index.connectivity}, expansion_add {index.expansion_add}"

    def open(self, vectors: Path, folder: Path) -> None:
        """Read `index.usearch`."""
        self.index = self.module.Index.restore(str(folder / "index.usearch"))

    def param_grid(self) -> Sequence[Params]:
        """Return values of `expansion_search`."""
        return [{"expansion_search": ef_search} for ef_search in _EF_SEARCH_GRID]

    def search(self, queries: Float32, params: Params) -> Int64:
        """Search with `expansion_search`."""
        self.index.expansion_search = params["expansion_search"]
        found = self.index.search(queries, K, threads=self.settings.threads)
        keys = np.full((len(queries), K), -1, dtype=np.int64)
        keys[:, : found.keys.shape[-1]] = found.keys
        counts = np.atleast_1d(len(found) if len(queries) == 1 else found.counts)
        return np.where(np.arange(K) < counts[:, None], keys, -1)


class Autofaiss(_Competitor):
    """An index that autofaiss builds for a memory budget, searched around the nprobe that it chose."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("autofaiss", "autofaiss", settings, _AUTOFAISS_HINT)
        self._faiss = importlib.import_module("faiss")
        self._faiss.omp_set_num_threads(settings.threads)
        self.library += f", faiss-cpu {metadata.version('faiss-cpu')}"

    def build(self, vectors: Path, folder: Path) -> str:
        """Write `knn.index` within the memory budget."""
        count = len(_mapped(vectors))
        with tempfile.TemporaryDirectory() as temporary:  # it reads all files of a folder
            Path(temporary, VECTORS_FILE).symlink_to(vectors / VECTORS_FILE)
            index, _ = self.module.build_index(
                temporary,
                index_path=str(folder / "knn.index"),
                index_infos_path=str(folder / "index_infos.json"),
                max_index_memory_usage=f"{count * self.settings.budget // 1024}KB",
                current_memory_available=_AUTOFAISS_MEMORY,
                metric_type="ip",
                nb_cores=self.settings.threads,
            )
        if index is None:
            raise RuntimeError(f"autofaiss found no index of {self.settings.budget} bytes a vector for {count} vectors")
        infos = self._infos(folder)
        return f"{infos['index_key']}, {infos['index_param']}"

    def tune(self, vectors: Path, folder: Path) -> Params | None:
        """Return the `nprobe` that autofaiss chose."""
        chosen = dict(part.split("=") for part in self._infos(folder)["index_param"].split(","))
        return {"nprobe": int(chosen["nprobe"])} if "nprobe" in chosen else None

    def open(self, vectors: Path, folder: Path) -> None:
        """Read `knn.index` with its parameters."""
        self.index = self._faiss.read_index(str(folder / "knn.index"))
        self._faiss.ParameterSpace().set_index_parameters(self.index, self._infos(folder)["index_param"])
        self._chosen = self.tune(vectors, folder) or {}
        self._ivf = self._faiss.try_extract_index_ivf(self.index)

    def param_grid(self) -> Sequence[Params]:
        """Return powers of two for `nprobe`, and the chosen one."""
        if self._ivf is None:
            return ({},)
        powers = (2**power for power in range(int(self._ivf.nlist).bit_length()))
        return [{"nprobe": nprobe} for nprobe in sorted({*powers, *self._chosen.values()})]

    def search(self, queries: Float32, params: Params) -> Int64:
        """Search with `nprobe`."""
        if "nprobe" in params:
            self._ivf.nprobe = params["nprobe"]
        rows: Int64 = self.index.search(queries, K)[1]
        return rows

    def _infos(self, folder: Path) -> dict[str, Any]:
        infos: dict[str, Any] = json.loads((folder / "index_infos.json").read_text())
        return infos


SYSTEMS: Mapping[str, Callable[[Settings], System]] = {
    "flat": Flat,
    "lookalike": Lookalike,
    **{
        f"lookalike-{name}": partial(Lookalike, preset=name)
        for name, preset in PRESETS.items()
        if preset.has_index and name != DEFAULT_PRESET
    },
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "usearch-i8": lambda settings: Usearch(settings, "i8"),
    "autofaiss": Autofaiss,
}


def _mapped(vectors: Path, name: str = VECTORS_FILE) -> Any:
    return np.load(vectors / name, mmap_mode="r")


def _chunks(vectors: Float32) -> Any:
    """Yield (first row, (b, d) float32) in row order."""
    for start in range(0, len(vectors), CHUNK_ROWS):
        yield start, np.ascontiguousarray(vectors[start : start + CHUNK_ROWS])

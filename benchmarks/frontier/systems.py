"""The systems of the frontier: how each one builds, opens and searches, and which search parameters it is asked for.

A system is imported and used in a process of its own (`benchmarks.frontier.worker`), in the peer's own environment
where it has one, so nothing but numpy is imported here until a system is asked for. All compare the same float32 unit
vectors (`X.npy`; ours their float16 copy, as in a collection) by inner product, and keep what they build in a folder of
their own. They know nothing of recall and of clocks.

Dimension letters: n vectors, q queries, d width, K neighbours.
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
from benchmarks.vectors import CHUNK, HALVES, VECTORS
from lookalike.stores.presets import DEFAULT_PRESET, PRESETS
from lookalike.types import Float32, Int64

Params = dict[str, int]
_BREADTHS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)  # rows in sight while a graph is walked
_FEW_LISTS = (4, 8, 16, 32)
_CONNECTIVITY, _BREADTH_ADDING = 16, 200  # M and efConstruction of hnswlib's own examples
_AUTOFAISS_MEMORY = "16GB"
_AUTOFAISS_REMEDY = (
    "make it an environment, whose Python --autofaiss-python names: "
    "pip install autofaiss==2.18.0 faiss-cpu==1.9.0.post1 'numpy<2' 'pyarrow<20'"
)


class Missing(Exception):
    """A library is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Settings:
    """What all systems are built with.

    Attributes:
        threads: CPU threads, for building and for searching.
        target: ann_recall_at_10 that a system which tunes itself for recall is to reach.
        budget: index bytes a vector that a system which asks for its budget of memory gets.
    """

    threads: int = 2
    target: float = 0.95
    budget: int = 160


class System(Protocol):
    """One way to search."""

    library: str
    """Name and version."""

    def build(self, vectors: Path, folder: Path) -> str:
        """Builds from the vectors' folder and writes into its own; the name of what was built."""
        ...

    def tune(self, vectors: Path, folder: Path) -> Params | None:
        """The search parameters that it chooses for itself, if it does."""
        ...

    def open(self, vectors: Path, folder: Path) -> None:
        """Gets ready to search what was built."""
        ...

    def trials(self) -> Sequence[Params]:
        """Search parameters to try, the cheapest first."""
        ...

    def search(self, queries: Float32, params: Params) -> Int64:
        """(q, d) -> (q, K) rows, -1 where there were too few."""
        ...

    def reclaimable(self, vectors: Path) -> Sequence[Path]:
        """Files that are mapped for re-ranking alone, whose pages the kernel may take back."""
        ...


class _Peer:
    """What most systems have in common.

    Raises:
        Missing: its library is.
    """

    def __init__(self, package: str, module: str, settings: Settings, remedy: str | None = None) -> None:
        try:
            self.module: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise Missing(f"{error.name} is not installed: {remedy or f'pip install {package}'}") from error
        self.settings = settings
        self.library = f"{package} {metadata.version(package)}"
        self.index: Any = None

    def tune(self, vectors: Path, folder: Path) -> Params | None:
        return None

    def reclaimable(self, vectors: Path) -> Sequence[Path]:
        return ()


class Flat(_Peer):
    """FAISS's exhaustive search over float32 vectors in memory: the measure of all others."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("faiss-cpu", "faiss", settings)
        self.module.omp_set_num_threads(settings.threads)

    def build(self, vectors: Path, folder: Path) -> str:
        """See `System`."""
        given = _mapped(vectors)
        index = self.module.IndexFlatIP(given.shape[1])
        for _, piece in _pieces(given):
            index.add(piece)
        self.module.write_index(index, str(folder / "flat.faiss"))
        return "Flat"

    def open(self, vectors: Path, folder: Path) -> None:
        """See `System`."""
        self.index = self.module.read_index(str(folder / "flat.faiss"))

    def trials(self) -> Sequence[Params]:
        """See `System`."""
        return ({},)

    def search(self, queries: Float32, params: Params) -> Int64:
        """See `System`."""
        rows: Int64 = self.index.search(queries, K)[1]
        return rows


class Lookalike:
    """Ours, by the product's own path: build_store, tune, open_store, store.search, rerank; the default or a preset."""

    def __init__(self, settings: Settings, preset: str = "faiss") -> None:
        from benchmarks import ours
        from lookalike.stores.faiss.library import faiss

        faiss.omp_set_num_threads(settings.threads)
        self._ours, self._settings, self._preset = ours, settings, preset
        self.library = f"lookalike, faiss-cpu {metadata.version('faiss-cpu')}"

    def build(self, vectors: Path, folder: Path) -> str:
        """See `System`."""
        return str(self._ours.built(folder, _mapped(vectors, HALVES), self._preset)["value"]["factory"])

    def tune(self, vectors: Path, folder: Path) -> Params | None:
        """See `System`."""
        report = self._ours.tuned(folder, _mapped(vectors, HALVES), self._settings.target, self._preset)
        chosen: Params = report["value"]["params"]
        return chosen

    def open(self, vectors: Path, folder: Path) -> None:
        """See `System`."""
        self._halves = _mapped(vectors, HALVES)
        self._store = self._ours.open_tuned(folder, self._halves, self._settings.target, self._preset)

    def trials(self) -> Sequence[Params]:
        """Those of tuning, and before them cheaper ones, for peers that find less than anybody would tune for."""
        from indexing.build.tuning import Tunable

        tuned = [dict(params) for params in self._store.param_grid()] if isinstance(self._store, Tunable) else [{}]
        least = min(params.get("nprobe", 0) for params in tuned)
        return [{"nprobe": few, "candidates": 50} for few in _FEW_LISTS if few < least] + tuned

    def search(self, queries: Float32, params: Params) -> Int64:
        """See `System`."""
        return self._ours.answer(self._store, self._halves, queries, params, self._settings.threads)

    def reclaimable(self, vectors: Path) -> Sequence[Path]:
        """See `System`."""
        return (vectors / HALVES,)


class Hnswlib(_Peer):
    """A navigable graph over float32 vectors in memory (Malkov and Yashunin, 2018), by its authors."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("hnswlib", "hnswlib", settings)

    def build(self, vectors: Path, folder: Path) -> str:
        """See `System`."""
        given = _mapped(vectors)
        index = self.module.Index(space="ip", dim=given.shape[1])
        index.init_index(len(given), M=_CONNECTIVITY, ef_construction=_BREADTH_ADDING)
        for start, piece in _pieces(given):
            index.add_items(piece, np.arange(start, start + len(piece)), num_threads=self.settings.threads)
        index.save_index(str(folder / "hnswlib.bin"))
        return f"M {_CONNECTIVITY}, ef_construction {_BREADTH_ADDING}"

    def open(self, vectors: Path, folder: Path) -> None:
        """See `System`."""
        self.index = self.module.Index(space="ip", dim=_mapped(vectors).shape[1])
        self.index.load_index(str(folder / "hnswlib.bin"))
        self.index.set_num_threads(self.settings.threads)

    def trials(self) -> Sequence[Params]:
        """See `System`."""
        return [{"ef": breadth} for breadth in _BREADTHS]

    def search(self, queries: Float32, params: Params) -> Int64:
        """See `System`."""
        self.index.set_ef(params["ef"])
        return np.asarray(self.index.knn_query(queries, k=K)[0], dtype=np.int64)


class Usearch(_Peer):
    """USearch's graph, in the number type that it chooses for the processor or in another, at its other defaults."""

    def __init__(self, settings: Settings, dtype: str | None = None) -> None:
        super().__init__("usearch", "usearch.index", settings)
        self._dtype = dtype

    def build(self, vectors: Path, folder: Path) -> str:
        """See `System`."""
        given = _mapped(vectors)
        index = self.module.Index(ndim=given.shape[1], metric="ip", dtype=self._dtype)
        for start, piece in _pieces(given):
            index.add(np.arange(start, start + len(piece)), piece, threads=self.settings.threads)
        index.save(str(folder / "index.usearch"))
        return f"{index.dtype.name.lower()}, connectivity {index.connectivity}, expansion_add {index.expansion_add}"

    def open(self, vectors: Path, folder: Path) -> None:
        """See `System`."""
        self.index = self.module.Index.restore(str(folder / "index.usearch"))

    def trials(self) -> Sequence[Params]:
        """See `System`."""
        return [{"expansion_search": breadth} for breadth in _BREADTHS]

    def search(self, queries: Float32, params: Params) -> Int64:
        """See `System`."""
        self.index.expansion_search = params["expansion_search"]
        found = self.index.search(queries, K, threads=self.settings.threads)
        keys = np.full((len(queries), K), -1, dtype=np.int64)
        keys[:, : found.keys.shape[-1]] = found.keys
        counts = np.atleast_1d(len(found) if len(queries) == 1 else found.counts)
        return np.where(np.arange(K) < counts[:, None], keys, -1)


class Autofaiss(_Peer):
    """What autofaiss builds for a budget of memory, around the number of lists that it chose to visit."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("autofaiss", "autofaiss", settings, _AUTOFAISS_REMEDY)
        self._faiss = importlib.import_module("faiss")
        self._faiss.omp_set_num_threads(settings.threads)
        self.library += f", faiss-cpu {metadata.version('faiss-cpu')}"

    def build(self, vectors: Path, folder: Path) -> str:
        """See `System`."""
        count = len(_mapped(vectors))
        with tempfile.TemporaryDirectory() as alone:  # it reads all files of a folder
            Path(alone, VECTORS).symlink_to(vectors / VECTORS)
            index, _ = self.module.build_index(
                alone,
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
        """See `System`."""
        chosen = dict(part.split("=") for part in self._infos(folder)["index_param"].split(","))
        return {"nprobe": int(chosen["nprobe"])} if "nprobe" in chosen else None

    def open(self, vectors: Path, folder: Path) -> None:
        """See `System`."""
        self.index = self._faiss.read_index(str(folder / "knn.index"))
        self._faiss.ParameterSpace().set_index_parameters(self.index, self._infos(folder)["index_param"])
        self._chosen = self.tune(vectors, folder) or {}
        self._ivf = self._faiss.try_extract_index_ivf(self.index)

    def trials(self) -> Sequence[Params]:
        """See `System`."""
        if self._ivf is None:
            return ({},)
        powers = (2**power for power in range(int(self._ivf.nlist).bit_length()))
        return [{"nprobe": nprobe} for nprobe in sorted({*powers, *self._chosen.values()})]

    def search(self, queries: Float32, params: Params) -> Int64:
        """See `System`."""
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


def _mapped(vectors: Path, name: str = VECTORS) -> Any:
    return np.load(vectors / name, mmap_mode="r")


def _pieces(vectors: Float32) -> Any:
    """(first row, (b, d) float32) in row order."""
    for start in range(0, len(vectors), CHUNK):
        yield start, np.ascontiguousarray(vectors[start : start + CHUNK])

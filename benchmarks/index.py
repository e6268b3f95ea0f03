"""`python -m benchmarks.index`: recall and speed of the vector store, flat search and plain product codes.

All systems process the same queries in the same run, in turn, in several rounds; medians are reported. Recall is
computed here from the float32 vectors. Lookalike runs through the code that serves queries (`store.search`, then
`rerank`), with tuned parameters. Vectors come from `cliplike.py` of the shared data folder (LOOKALIKE_TEST_DATA), or
from `--vectors` and `--queries`; vectors and indexes are kept in `--folder`.

Dimension letters: n vectors, q queries, d width.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lookalike_store import build_once, cached_work, open_tuned, search, tune_once
from benchmarks.recall import K, ann_recall, tenth_cosines
from benchmarks.vectors import CHUNK_ROWS, FOLDER, float16_copy, generate, load
from lookalike.stores.faiss.library import faiss
from lookalike.stores.presets import choose_nlist
from lookalike.types import Float16, Float32, Int64

_PLAIN_NPROBE = 96
_SINGLE_QUERIES = 100
_RECALL_QUERIES = 1000
_FLAT_BATCH_SIZE = 500  # flat search is slow: fewer queries suffice

Search = Callable[[Float32], Int64]
"""(q, d) -> (q, K) rows, -1 where there are too few."""


@dataclass
class System:
    """A way to search, with its measured times."""

    name: str
    search: Search
    build_seconds: float
    bytes_per_vector: float
    batch: int | None = None
    rates: list[float] = field(default_factory=list)
    singles: list[float] = field(default_factory=list)

    def measure(self, queries: Float32) -> None:
        """Run one round: a batch, then single queries."""
        batch = queries[: self.batch]
        started = time.perf_counter()
        self.search(batch)
        self.rates.append(len(batch) / (time.perf_counter() - started))
        for i in range(_SINGLE_QUERIES):
            started = time.perf_counter()
            self.search(queries[i : i + 1])
            self.singles.append(1000 * (time.perf_counter() - started))


@dataclass(frozen=True)
class Line:
    """The figures of a system: queries/s in batches, median milliseconds of single queries."""

    name: str
    ann_recall_at_10: float
    queries_per_second: float
    times_flat: float
    single_ms: float
    build_seconds: float
    bytes_per_vector: float


def main() -> None:
    """Parse the arguments, measure, print."""
    args = _arguments()
    faiss.omp_set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    vectors, queries = _data(args)
    flat = _flat(vectors)
    tenth = tenth_cosines(vectors, queries[:_RECALL_QUERIES], flat.search(queries[:_RECALL_QUERIES]))
    lookalike, facts = _lookalike(args.folder, float16_copy(args.folder, vectors), args.target, args.threads)
    systems = [flat, _plain(args.folder, vectors), lookalike]
    for system in systems:
        system.search(queries[:64])  # warm
    for _ in range(args.rounds):
        for system in systems:
            system.measure(queries)
    base = statistics.median(flat.rates)
    lines = [_line(system, vectors, queries[:_RECALL_QUERIES], tenth, base) for system in systems]
    _print(lines, {**_machine(args.threads), "n": len(vectors), "d": vectors.shape[1], **facts}, args.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=500_000, help="vectors to generate")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="kept between runs")
    parser.add_argument("--vectors", type=Path, help="a .npy of (n, d) float32 unit vectors instead of generated ones")
    parser.add_argument("--queries", type=Path, help="a .npy of (q, d) float32 unit vectors, with --vectors")
    parser.add_argument("--target", type=float, default=0.95, help="ann_recall_at_10 to tune for")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; medians are reported")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    return parser.parse_args()


def _data(args: argparse.Namespace) -> tuple[Float32, Float32]:
    if args.vectors:
        return np.load(args.vectors, mmap_mode="r"), np.load(args.queries)
    args.folder = args.folder / str(args.n)
    generate(args.folder, args.n)
    return load(args.folder)


def _flat(vectors: Float32) -> System:
    started = time.perf_counter()
    index = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, len(vectors), CHUNK_ROWS):
        index.add(np.ascontiguousarray(vectors[start : start + CHUNK_ROWS]))
    seconds = time.perf_counter() - started
    return System("flat", lambda q: index.search(q, K)[1], seconds, 4.0 * vectors.shape[1], _FLAT_BATCH_SIZE)


def _plain(folder: Path, vectors: Float32) -> System:
    """Return inverted lists of 64-byte product codes, searched without re-ranking."""
    path, nlist = folder / "plain.faiss", choose_nlist(len(vectors))
    record = cached_work(folder / "plain.json", lambda: _build_plain(path, nlist, vectors))
    index = faiss.read_index(str(path))
    wrapped: Any = faiss  # its stubs describe the C++ constructor, not the Python wrapper
    params = wrapped.SearchParametersIVF(nprobe=min(_PLAIN_NPROBE, nlist))
    size = path.stat().st_size / len(vectors)
    return System(f"IVF{nlist},PQ64", lambda q: index.search(q, K, params=params)[1], record["seconds"], size)


def _build_plain(path: Path, nlist: int, vectors: Float32) -> dict[str, Any]:
    index: Any = faiss.index_factory(vectors.shape[1], f"IVF{nlist},PQ64", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = index.pq.cp.niter = 10  # as Lookalike's store is trained
    rows = np.random.default_rng(0).choice(len(vectors), min(len(vectors), 64 * nlist), replace=False)
    index.train(vectors[np.sort(rows)])
    for start in range(0, len(vectors), CHUNK_ROWS):
        index.add(np.ascontiguousarray(vectors[start : start + CHUNK_ROWS]))
    faiss.write_index(index, str(path))
    return {}


def _lookalike(folder: Path, vectors: Float16, target: float, threads: int) -> tuple[System, dict[str, Any]]:
    """Return Lookalike's store, built and tuned once, and facts about it."""
    build, tuning = build_once(folder, vectors), tune_once(folder, vectors, target)
    info, params = build["value"], tuning["value"]["params"]
    store = open_tuned(folder, vectors, target)
    facts = {
        "factory": info["factory"],
        **params,
        "tuned_on": tuning["value"]["image"],
        "tune_seconds": round(tuning["seconds"], 1),
    }
    name = f"{info['factory']} nprobe {params['nprobe']} re-ranked {params['candidates']}"
    return System(
        name, lambda q: search(store, vectors, q, params, threads), build["seconds"], info["bytes_per_vector"]
    ), facts


def _line(c: System, vectors: Float32, queries: Float32, tenth: Float32, base: float) -> Line:
    rate = statistics.median(c.rates)
    return Line(
        name=c.name,
        ann_recall_at_10=round(ann_recall(vectors, queries, c.search(queries), tenth), 4),
        queries_per_second=round(rate, 1),
        times_flat=round(rate / base, 2),
        single_ms=round(statistics.median(c.singles), 2),
        build_seconds=round(c.build_seconds, 1),
        bytes_per_vector=round(c.bytes_per_vector, 1),
    )


def _machine(threads: int) -> dict[str, Any]:
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {"machine": platform.machine(), "threads": threads, "commit": git.stdout.strip(), "faiss": faiss.__version__}


def _print(lines: list[Line], facts: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        for line in lines:
            print(json.dumps({**facts, **asdict(line)}))
        return
    print(", ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n")
    print("| system | ann_recall_at_10 | queries/s | x flat | one query, ms | build, s | index bytes/vector |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for line in lines:
        print("| " + " | ".join(str(value) for value in asdict(line).values()) + " |")


if __name__ == "__main__":
    main()

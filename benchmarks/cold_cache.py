"""`python -m benchmarks.cold_cache`: what a single query takes when its pages are not in memory.

One process serves, as the product does: index and vectors memory-mapped, candidates from the store, exact re-ranking.
Before every cold query the pages of `vectors.npy` alone, or of `index.faiss` too, are dropped from this machine's
memory (see `benchmarks.pages.drop`) and mincore(2) must say that they are gone; the mappings stay open, so what is
measured is a query after other work took the memory, not the opening of a collection. The file system's own tables
stay warm, and a disk or host below may hold copies: "cold" is cold for this machine. *Read by page* gives both mappings
MADV_RANDOM, as the product does for the vectors; otherwise a fault makes the kernel read ahead (its
`/sys/block/*/queue/read_ahead_kb`, printed). All ways take turns, several rounds over.
"""

from __future__ import annotations

import argparse
import json
import mmap
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.encoders import machine
from benchmarks.ours import answer, built, open_tuned
from benchmarks.pages import advise, cached_share, drop, fetch
from benchmarks.vectors import FOLDER, HALVES, generate, halves, load
from lookalike.stores.faiss.library import INDEX_FILE
from lookalike.types import Float32, Int64

MEGABYTE = 1e6
_WARMING = 50  # queries asked untimed before a way's turn


@dataclass(frozen=True)
class Way:
    """What is done before each query: files whose pages are dropped, and files that are read page by page."""

    name: str
    dropped: tuple[str, ...]
    by_page: tuple[str, ...] = ()


WAYS = (
    Way("warm", ()),
    Way("vectors dropped", (HALVES,)),
    Way("both dropped", (HALVES, INDEX_FILE)),
    Way("vectors dropped, read by page", (HALVES,), (HALVES,)),
    Way("both dropped, vectors read by page", (HALVES, INDEX_FILE), (HALVES,)),
    Way("both dropped, both read by page", (HALVES, INDEX_FILE), (HALVES, INDEX_FILE)),
)


@dataclass
class Times:
    """What single queries took under one way, faults and bytes read, and shares of the files in memory before."""

    milliseconds: list[float] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    vectors: list[float] = field(default_factory=list)
    index: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """Medians over all queries of a way but for p99.

    Attributes:
        way: its name.
        queries: how many were timed.
        p50_ms: median.
        p99_ms: 99th percentile.
        major_faults: pages that a query had to wait for.
        read_mb: millions of bytes that a query made the kernel read from disk, those read ahead included.
        vectors_in_memory: the largest share of `vectors.npy` that was in memory before a query.
        index_in_memory: the same of `index.faiss`.
    """

    way: str
    queries: int
    p50_ms: float
    p99_ms: float
    major_faults: float
    read_mb: float
    vectors_in_memory: float
    index_in_memory: float


def measure(
    folder: Path, search: Callable[[Float32], Int64], queries: Float32, ways: Sequence[Way], rounds: int, singles: int
) -> list[Row]:
    """Every way in turn, several rounds over.

    Args:
        folder: holds `vectors.npy` and `index.faiss`, both mapped by this process and no other.
        search: (1, d) -> (1, K) rows.
        queries: (q, d) float32; each query is another one than the query before.
        ways: what to do before a query.
        rounds: turns of each way.
        singles: queries of a turn.
    """
    times = {way.name: Times() for way in ways}
    for turn in range(rounds):
        for way in ways:
            _prepare(folder, way, search, queries)
            for i in range(singles):
                query = queries[(turn * singles + i) % len(queries)]
                _time(folder, way, partial(search, query[None]), times[way.name])
    return [row(name, taken) for name, taken in times.items()]


def row(name: str, times: Times) -> Row:
    """Summary of a way: times in ms, rounded for reading."""
    return Row(
        way=name,
        queries=len(times.milliseconds),
        p50_ms=round(float(np.percentile(times.milliseconds, 50)), 3),
        p99_ms=round(float(np.percentile(times.milliseconds, 99)), 3),
        major_faults=float(np.median(times.faults)),
        read_mb=round(float(np.median(times.read)) / MEGABYTE, 2),
        vectors_in_memory=round(max(times.vectors), 3),
        index_in_memory=round(max(times.index), 3),
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| pages | p50, ms | p99, ms | major faults | read from disk, MB | in memory before: vectors | index |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r.way} | {r.p50_ms:.2f} | {r.p99_ms:.2f} | {r.major_faults:.0f} | {r.read_mb:.1f} "
        f"| {r.vectors_in_memory:.0%} | {r.index_in_memory:.0%} |"
        for r in rows
    ]
    return "\n".join(lines)


def _prepare(folder: Path, way: Way, search: Callable[[Float32], Int64], queries: Float32) -> None:
    for name in (HALVES, INDEX_FILE):
        fetch(folder / name)
        if name in way.by_page:
            advise(folder / name, mmap.MADV_RANDOM)
    for query in queries[-_WARMING:]:
        search(query[None])


def _time(folder: Path, way: Way, search: Callable[[], object], times: Times) -> None:
    for name in way.dropped:
        drop(folder / name)
    times.vectors.append(cached_share(folder / HALVES))
    times.index.append(cached_share(folder / INDEX_FILE))
    faults, read = _major_faults(), _bytes_read()
    started = time.perf_counter()
    search()
    times.milliseconds.append(1000 * (time.perf_counter() - started))
    times.faults.append(_major_faults() - faults)
    times.read.append(_bytes_read() - read)


def _major_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def _bytes_read() -> int:
    """From disk, for this process, reading ahead included."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _read_ahead() -> str:
    """KB of each disk."""
    disks = sorted(Path("/sys/block").glob("[!lr]*/queue/read_ahead_kb"))  # no loop devices, no RAM disks
    return ", ".join(f"{path.parts[3]} {path.read_text().strip()}" for path in disks)


def main() -> None:
    """Parses the arguments, builds the store unless it is there, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500_000, help="vectors to generate")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="kept between runs, on a real disk")
    parser.add_argument("--target", type=float, default=0.95, help="ann_recall_at_10 to tune for")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--singles", type=int, default=40, help="queries of a turn")
    parser.add_argument("--threads", type=int, default=2, help="threads that re-rank; FAISS's are OMP_NUM_THREADS")
    parser.add_argument("--json", action="store_true", help="one JSON object a way instead of a table")
    options = parser.parse_args()
    facts, rows = run(options)
    if options.json:
        for line in rows:
            print(json.dumps({**facts, **asdict(line)}))
        return
    print(", ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n")
    print(table(rows))


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    """What was measured on, and the figures."""
    folder = options.folder / str(options.n)
    generate(folder, options.n)
    vectors, queries = load(folder)
    mapped = halves(folder, vectors)
    store = open_tuned(folder, mapped, options.target)

    def search(query: Float32) -> Int64:
        return answer(store, mapped, query, {}, options.threads)

    facts = {
        "machine": machine(),
        "n": options.n,
        "factory": built(folder, mapped)["value"]["factory"],
        **store.defaults,
        **{f"{name}_mb": round((folder / name).stat().st_size / MEGABYTE) for name in (HALVES, INDEX_FILE)},
        "read_ahead_kb": _read_ahead(),
    }
    return facts, measure(folder, search, queries, WAYS, options.rounds, options.singles)


if __name__ == "__main__":
    main()

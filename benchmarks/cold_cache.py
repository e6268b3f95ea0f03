"""`python -m benchmarks.cold_cache`: the time of a single query whose pages are not in memory.

One process searches as the product does: index and vectors memory-mapped, candidates from the store, exact re-ranking.
Before every cold query the pages of `vectors.npy`, and in some cases of `index.faiss`, are dropped from this machine's
memory (see `benchmarks.pages.drop`), which is checked by mincore(2). The mappings stay open: measured is a query after
other work took the memory, not the opening of a collection. The file system's tables stay warm, and a disk or a host
may hold copies: "cold" is cold for this machine. *Read by page* gives both mappings MADV_RANDOM, as the product does
for the vectors; otherwise a fault makes the kernel read ahead (`/sys/block/*/queue/read_ahead_kb`, printed). All cases
take turns, in several rounds.
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
from benchmarks.lookalike_store import build_once, open_tuned, search
from benchmarks.pages import advise, cached_share, drop, fetch
from benchmarks.vectors import FLOAT16_FILE, FOLDER, float16_copy, generate, load
from lookalike.stores.faiss.library import INDEX_FILE
from lookalike.types import Float32, Int64

MEGABYTE = 1e6
_WARM_UP_QUERIES = 50  # before a case's turn, untimed


@dataclass(frozen=True)
class Case:
    """A state of the page cache.

    Attributes:
        name: in the table.
        dropped: files whose pages are dropped before each query.
        by_page: files that are read page by page.
    """

    name: str
    dropped: tuple[str, ...]
    by_page: tuple[str, ...] = ()


CASES = (
    Case("warm", ()),
    Case("vectors dropped", (FLOAT16_FILE,)),
    Case("both dropped", (FLOAT16_FILE, INDEX_FILE)),
    Case("vectors dropped, read by page", (FLOAT16_FILE,), (FLOAT16_FILE,)),
    Case("both dropped, vectors read by page", (FLOAT16_FILE, INDEX_FILE), (FLOAT16_FILE,)),
    Case("both dropped, both read by page", (FLOAT16_FILE, INDEX_FILE), (FLOAT16_FILE, INDEX_FILE)),
)


@dataclass
class Times:
    """Times of single queries in one case, with faults, bytes read, and shares of the files in memory before."""

    milliseconds: list[float] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    vectors: list[float] = field(default_factory=list)
    index: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """Figures of a case over all its queries.

    Attributes:
        case: its name.
        queries: number of timed queries.
        p50_ms: median time.
        p99_ms: 99th percentile.
        major_faults: median number of pages that a query waited for.
        read_mb: median of the MB that the kernel read from disk for a query, with reading ahead.
        vectors_in_memory: the largest share of `vectors.npy` in memory before a query.
        index_in_memory: the same of `index.faiss`.
    """

    case: str
    queries: int
    p50_ms: float
    p99_ms: float
    major_faults: float
    read_mb: float
    vectors_in_memory: float
    index_in_memory: float


def measure(
    folder: Path, search: Callable[[Float32], Int64], queries: Float32, cases: Sequence[Case], rounds: int, singles: int
) -> list[Row]:
    """Measure every case in turn, in several rounds.

    Args:
        folder: holds `vectors.npy` and `index.faiss`, both mapped by this process and no other.
        search: (1, d) -> (1, K) rows.
        queries: (q, d) float32, used in turn.
        cases: states of the page cache.
        rounds: turns of each case.
        singles: queries of a turn.
    """
    times = {case.name: Times() for case in cases}
    for turn in range(rounds):
        for case in cases:
            _prepare(folder, case, search, queries)
            for i in range(singles):
                query = queries[(turn * singles + i) % len(queries)]
                _time(folder, case, partial(search, query[None]), times[case.name])
    return [row(name, taken) for name, taken in times.items()]


def row(name: str, times: Times) -> Row:
    """Return the figures of a case, rounded."""
    return Row(
        case=name,
        queries=len(times.milliseconds),
        p50_ms=round(float(np.percentile(times.milliseconds, 50)), 3),
        p99_ms=round(float(np.percentile(times.milliseconds, 99)), 3),
        major_faults=float(np.median(times.faults)),
        read_mb=round(float(np.median(times.read)) / MEGABYTE, 2),
        vectors_in_memory=round(max(times.vectors), 3),
        index_in_memory=round(max(times.index), 3),
    )


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table."""
    lines = [
        "| pages | p50, ms | p99, ms | major faults | read from disk, MB | in memory before: vectors | index |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r.case} | {r.p50_ms:.2f} | {r.p99_ms:.2f} | {r.major_faults:.0f} | {r.read_mb:.1f} "
        f"| {r.vectors_in_memory:.0%} | {r.index_in_memory:.0%} |"
        for r in rows
    ]
    return "\n".join(lines)


def _prepare(folder: Path, case: Case, search: Callable[[Float32], Int64], queries: Float32) -> None:
    for name in (FLOAT16_FILE, INDEX_FILE):
        fetch(folder / name)
        if name in case.by_page:
            advise(folder / name, mmap.MADV_RANDOM)
    for query in queries[-_WARM_UP_QUERIES:]:
        search(query[None])


def _time(folder: Path, case: Case, search: Callable[[], object], times: Times) -> None:
    for name in case.dropped:
        drop(folder / name)
    times.vectors.append(cached_share(folder / FLOAT16_FILE))
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
    """Return the bytes read from disk for this process, with reading ahead."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _read_ahead() -> str:
    """Return the read-ahead of each disk, KB."""
    disks = sorted(Path("/sys/block").glob("[!lr]*/queue/read_ahead_kb"))  # no loop devices, no RAM disks
    return ", ".join(f"{path.parts[3]} {path.read_text().strip()}" for path in disks)


def main() -> None:
    """Parse the arguments, build the store unless it exists, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500_000, help="vectors to generate")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="kept between runs, on a real disk")
    parser.add_argument("--target", type=float, default=0.95, help="ann_recall_at_10 to tune for")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each case")
    parser.add_argument("--singles", type=int, default=40, help="queries of a turn")
    parser.add_argument("--threads", type=int, default=2, help="threads that re-rank; FAISS's are OMP_NUM_THREADS")
    parser.add_argument("--json", action="store_true", help="one JSON object a case instead of a table")
    options = parser.parse_args()
    facts, rows = run(options)
    if options.json:
        for line in rows:
            print(json.dumps({**facts, **asdict(line)}))
        return
    print(", ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n")
    print(table(rows))


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    """Prepare the store, measure; return facts about the setup, and the figures."""
    folder = options.folder / str(options.n)
    generate(folder, options.n)
    vectors, queries = load(folder)
    mapped = float16_copy(folder, vectors)
    store = open_tuned(folder, mapped, options.target)

    def search_one(query: Float32) -> Int64:
        return search(store, mapped, query, {}, options.threads)

    facts = {
        "machine": machine(),
        "n": options.n,
        "factory": build_once(folder, mapped)["value"]["factory"],
        **store.defaults,
        **{f"{name}_mb": round((folder / name).stat().st_size / MEGABYTE) for name in (FLOAT16_FILE, INDEX_FILE)},
        "read_ahead_kb": _read_ahead(),
    }
    return facts, measure(folder, search_one, queries, CASES, options.rounds, options.singles)


if __name__ == "__main__":
    main()

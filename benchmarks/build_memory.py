"""`python -m benchmarks.build_memory`: the memory of building a store, by size, with an estimate for ten million.

Each size is built by `indexing.build.stores.build_store` in a separate process from the first n of the same
memory-mapped float16 vectors. Two figures are measured: the process's anonymous memory (sampled every 10 ms from
outside, separately for training and adding), and its peak with all mapped pages of the vectors (the kernel's VmHWM).
Mapped pages are clean, and the kernel reclaims them under memory pressure, so that only the anonymous part must fit.
"idle" is a process that has loaded everything and builds nothing.

The estimate: training holds a sample, whose rows the builder knows for any n, so the memory of training above idle is
scaled by the sample. Adding holds the index, so its slope between the smallest and the largest size is extrapolated.
The lists of an index grow by doubling, so the slope lies between one and two times the file's bytes a vector; the
estimate takes the larger of the slope and twice the file. Below 200,000 vectors buffers hide the slope, and there is no
estimate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.encoders import machine
from benchmarks.frontier.process import threads_environment
from benchmarks.lookalike_store import KIND
from benchmarks.resident import MEGABYTE, AnonymousPeak, peak_resident
from benchmarks.vectors import FLOAT16_FILE, FOLDER, float16_copy, generate, load
from indexing.build.stores import build_store
from lookalike.stores.registry import create_builder

ESTIMATED_VECTORS = 10_000_000
_MIN_ESTIMATE_VECTORS = 200_000


@dataclass(frozen=True)
class Figures:
    """Memory and time of one process; MB of 2**20 bytes.

    Attributes:
        n: vectors; 0 for the idle process.
        train_mb: peak of anonymous memory until training ended.
        add_mb: peak of anonymous memory from then on, also while writing the file.
        peak_mb: peak resident memory, with mapped vectors.
        index_mb: size of `index.faiss`.
        sample: rows that training used.
        seconds: of the build.
    """

    n: int
    train_mb: float
    add_mb: float
    peak_mb: float
    index_mb: float
    sample: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """Estimated anonymous memory at a size that was not built, MB."""

    n: int
    train_mb: float
    add_mb: float
    index_mb: float

    @property
    def peak_mb(self) -> float:
        """Return the larger of training and adding."""
        return max(self.train_mb, self.add_mb)


def build(vectors: Path, count: int) -> None:
    """Build in this process; report the end of training, and the result, as JSON lines on stdout."""
    mapped = np.load(vectors, mmap_mode="r")[:count]

    def report(stage: str, done: int, total: int) -> None:
        if stage == "train":
            _print_event("train", {})

    started = time.perf_counter()
    facts = {"index_mb": 0.0, "sample": 0}
    if count:
        with tempfile.TemporaryDirectory(dir=vectors.parent) as folder:
            build_store(mapped, Path(folder), KIND, report)
            facts["index_mb"] = sum(file.stat().st_size for file in Path(folder).iterdir()) / MEGABYTE
        facts["sample"] = create_builder(KIND, count, mapped.shape[1]).sample_size
    _print_event("done", {**facts, "seconds": time.perf_counter() - started, "peak_mb": peak_resident() / MEGABYTE})


def _print_event(stage: str, facts: dict[str, float]) -> None:
    print(json.dumps({"stage": stage, **facts}), flush=True)


def build_in_process(vectors: Path, count: int, threads: int) -> Figures:
    """Build `count` vectors in a separate process, and measure its memory."""
    command = [sys.executable, "-m", "benchmarks.build_memory", "--build", str(vectors), str(count)]
    peaks = {"train": 0, "done": 0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=threads_environment(threads)) as process:
        assert process.stdout is not None
        with AnonymousPeak(process.pid) as peak:
            for line in process.stdout:
                event = json.loads(line)
                peaks[event.pop("stage")] = peak.take()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Figures(n=count, train_mb=peaks["train"] / MEGABYTE, add_mb=peaks["done"] / MEGABYTE, **event)


def estimate_memory(
    idle: Figures, built: Sequence[Figures], dim: int, count: int = ESTIMATED_VECTORS
) -> Estimate | None:
    """Estimate the memory of building `count` vectors of width `dim`; None where the built sizes are too small."""
    small, large = min(built, key=lambda f: f.n), max(built, key=lambda f: f.n)
    if small.n < _MIN_ESTIMATE_VECTORS:
        return None
    sample = create_builder(KIND, count, dim).sample_size
    file = large.index_mb / large.n
    slope = (large.add_mb - small.add_mb) / max(1, large.n - small.n)
    return Estimate(
        n=count,
        train_mb=idle.add_mb + (large.train_mb - idle.add_mb) * sample / large.sample,
        add_mb=large.add_mb + max(slope, 2 * file) * (count - large.n),
        index_mb=file * count,
    )


def table(idle: Figures, built: Sequence[Figures], estimate: Estimate | None) -> str:
    """Return a Markdown table, in MB."""
    lines = [
        "| vectors | own MB, training | own MB, adding | MB with mapped pages | index file, MB | sample, rows | s |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| idle | | {idle.add_mb:,.0f} | {idle.peak_mb:,.0f} | | | |",
    ]
    lines += [
        f"| {f.n:,} | {f.train_mb:,.0f} | {f.add_mb:,.0f} | {f.peak_mb:,.0f} | {f.index_mb:,.0f} | {f.sample:,} "
        f"| {f.seconds:.0f} |"
        for f in built
    ]
    if (e := estimate) is not None:
        lines.append(f"| {e.n:,}, estimated | {e.train_mb:,.0f} | {e.add_mb:,.0f} | | {e.index_mb:,.0f} | | |")
    return "\n".join(lines)


def main() -> None:
    """Parse the arguments, generates, builds, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[1_000_000, 2_000_000], help="vectors to build from")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="kept between runs")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--json", action="store_true", help="one JSON object a size instead of a table")
    parser.add_argument("--build", nargs=2, metavar=("VECTORS", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(Path(options.build[0]), int(options.build[1]))
        return
    vectors, dim = _prepare_vectors(options.folder / str(max(options.n)), max(options.n))
    idle, *built = (build_in_process(vectors, count, options.threads) for count in [0, *sorted(options.n)])
    estimate = estimate_memory(idle, built, dim)
    if options.json:
        lines = [{"measured": True, **asdict(figures)} for figures in (idle, *built)]
        lines += [{"measured": False, **asdict(estimate)}] if estimate else []
        print("\n".join(json.dumps({"machine": machine(), **line}) for line in lines))
        return
    print(f"{machine()}, {options.threads} threads, {dim} dimensions\n\n{table(idle, built, estimate)}")
    if estimate:
        gigabytes = estimate.peak_mb / 1024
        print(f"\nEstimate: {estimate.n:,} vectors take {gigabytes:.1f} GB, without reclaimable pages.")


def _prepare_vectors(folder: Path, count: int) -> tuple[Path, int]:
    """Return the path of the float16 vectors, and their width; generate them unless they exist."""
    if not (folder / FLOAT16_FILE).is_file():
        generate(folder, count)
        float16_copy(folder, load(folder)[0])
    return folder / FLOAT16_FILE, np.load(folder / FLOAT16_FILE, mmap_mode="r").shape[1]


if __name__ == "__main__":
    main()

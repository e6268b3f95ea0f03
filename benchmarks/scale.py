"""`python -m benchmarks.scale`: what a gallery of any size needs, computed from what was measured.

    python -m benchmarks.scale                     the tables of docs/guides/scale.md
    python -m benchmarks.scale --items 250000000   one more size
    python -m benchmarks.scale --measure           measure the builds again, and write benchmarks/scale.json

Measured are builds of 0.5, 1 and 2 million vectors (time, own memory, size of the index, time of one query), the rates
of encoders, and the time of a request. The formulas below take their constants from the two smaller builds. The largest
build is the check: `tests/unit/test_benchmarks.py` compares it with the computation.

n items, d width, m rows of the training sample, k lists of the index.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
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
from benchmarks.lookalike_store import open_tuned, search
from benchmarks.resident import AnonymousPeak
from benchmarks.vectors import FLOAT16_FILE, FOLDER, float16_copy, generate, load
from indexing.build.stores import build_store
from lookalike.stores.presets import PRESETS, choose_nlist
from lookalike.stores.registry import create_builder

FILE = Path(__file__).with_suffix(".json")
PRESET = PRESETS["ivf-pq4"]
SIZES = (500_000, 1_000_000, 2_000_000)
PLANNED = (100_000, 10_000_000, 1_000_000_000)
MACHINE_CORES, MACHINE_GB = 16, 64
"""The machine that plans count in."""
USABLE_SHARE = 0.6
"""Share of a machine's memory that the index may take."""
CORE_HOUR_PRICE = 0.04
"""Price of an hour of one core with 4 GB of memory: an assumption."""
ENCODE_CORE_MS = {"lite": 2_000 / 281, "ViT-B/32": 2_000 / 110}
"""Core milliseconds of an image, from RESULTS.md, "Indexing"."""
REQUEST_CORE_MS = {"lite": 2_000 / 478, "ViT-B/32": 2_000 / 337}
"""Core milliseconds of a text query with few vectors or 0.5 million, from RESULTS.md, "Service under load"."""
THUMBNAIL_BYTES, METADATA_BYTES = 12_300, 640
"""Bytes of an item on disk, measured on 6,079 photographs of Flickr8k with five captions each."""
_QUERIES = 300
_GB = 1e9


@dataclass(frozen=True)
class Build:
    """A measured build, on `threads` threads.

    Attributes:
        n: vectors.
        d: their width.
        train_seconds: of learning the centroids and the codebooks.
        add_seconds: of adding the vectors, and of writing the file.
        memory_bytes: peak of the process's own memory while building.
        index_bytes: size of the index.
        query_ms: median time of one query at a recall of 0.95.
    """

    n: int
    d: int
    train_seconds: float
    add_seconds: float
    memory_bytes: float
    index_bytes: float
    query_ms: float


@dataclass(frozen=True)
class Model:
    """The constants of the formulas.

    Attributes:
        train: core seconds for each m k d.
        assign: core seconds for each n k d: each vector is compared with the centroids.
        encode: core seconds for each n d: each vector is coded.
        idle: bytes of a process that builds nothing.
        sample: bytes for each of m d numbers of the training sample.
        add: bytes for each byte of the index while vectors are added.
        query: core milliseconds of a query for each square root of n.
    """

    train: float
    assign: float
    encode: float
    idle: float
    sample: float
    add: float
    query: float

    def train_seconds(self, n: int, d: int) -> float:
        """Return the core seconds of training."""
        return self.train * sample_size(n, d) * choose_nlist(n) * d

    def add_seconds(self, n: int, d: int) -> float:
        """Return the core seconds of adding all vectors."""
        return n * d * (self.assign * choose_nlist(n) + self.encode)

    def memory_bytes(self, n: int, d: int) -> float:
        """Return the own memory of building."""
        return self.idle + max(self.sample * sample_size(n, d) * d, self.add * PRESET.memory_bytes(n, d))

    def query_ms(self, n: int) -> float:
        """Return the core milliseconds of one query.

        With k about 3 sqrt(n) lists, a query compares about sqrt(n) centroids and codes. The number of lists ends at
        16,384: from then on the lists grow, and time grows with n.
        """
        balanced = (16_384 / 3) ** 2
        return self.query * math.sqrt(min(n, balanced)) * max(1.0, n / balanced)


def sample_size(n: int, d: int) -> int:
    """Return m, the rows of the training sample."""
    return create_builder(PRESET.name, n, d).sample_size


def fit(builds: Sequence[Build], threads: int) -> Model:
    """Return the constants from two builds, the smaller one first."""
    small, large = builds
    per_row = [threads * build.add_seconds / (build.n * build.d) for build in builds]
    lists = [choose_nlist(build.n) for build in builds]
    assign = (per_row[1] - per_row[0]) / (lists[1] - lists[0])
    slope = (large.memory_bytes - small.memory_bytes) / (large.index_bytes - small.index_bytes)
    sampled = sample_size(large.n, large.d) * large.d
    return Model(
        train=threads * large.train_seconds / (sampled * choose_nlist(large.n)),
        assign=assign,
        encode=per_row[0] - assign * lists[0],
        idle=30e6,
        sample=(large.memory_bytes - 30e6) / sampled,
        add=max(2.0, slope),
        query=statistics.mean(build.query_ms / math.sqrt(build.n) for build in builds),
    )


def measured() -> tuple[str, int, list[Build]]:
    """Return the machine, the threads and the builds of the last measurement."""
    record = json.loads(FILE.read_text())
    return record["machine"], record["threads"], [Build(**build) for build in record["builds"]]


def check_table(model: Model, threads: int, builds: Sequence[Build]) -> str:
    """Return the builds beside what is computed for their sizes."""
    lines = [
        "| vectors | index, MB | own memory of building, MB | training, s | adding, s | one query, ms |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for build in builds:
        n, d = build.n, build.d
        pairs = [
            (build.index_bytes / 1e6, PRESET.memory_bytes(n, d) / 1e6),
            (build.memory_bytes / 1e6, model.memory_bytes(n, d) / 1e6),
            (build.train_seconds, model.train_seconds(n, d) / threads),
            (build.add_seconds, model.add_seconds(n, d) / threads),
        ]
        cells = [f"{found:,.0f}; {computed:,.0f}" for found, computed in pairs]
        lines.append(f"| {n:,} | {' | '.join(cells)} | {build.query_ms:.2f}; {model.query_ms(n):.2f} |")
    return "\n".join(lines)


def plan_table(model: Model, sizes: Sequence[int], d: int = 512) -> str:
    """Return what galleries of these sizes need, computed."""
    columns = [_plan(model, n, d) for n in sizes]
    header = ["", *(f"{n:,} images" for n in sizes)]
    lines = [f"| {' | '.join(header)} |", "| --- |" + " ---: |" * len(sizes)]
    lines += [f"| {name} | {' | '.join(column[name] for column in columns)} |" for name in columns[0]]
    return "\n".join(lines)


def _plan(model: Model, n: int, d: int) -> dict[str, str]:
    index = PRESET.memory_bytes(n, d)
    machines = max(1, math.ceil(2 * index / (USABLE_SHARE * MACHINE_GB * _GB)))
    build = (model.train_seconds(n, d) + model.add_seconds(n, d)) / 3_600
    query = model.query_ms(n)
    base = model.query_ms(500_000)
    requests = {
        "lite": REQUEST_CORE_MS["lite"] + query,
        "ViT-B/32": REQUEST_CORE_MS["ViT-B/32"] - base + query,
    }
    costs = [1e6 * ms / 3.6e6 * CORE_HOUR_PRICE for ms in requests.values()]
    images = [n * ms / 3.6e6 / MACHINE_CORES for ms in ENCODE_CORE_MS.values()]
    return {
        "index in memory, GB": _number(index / _GB),
        f"machines with {MACHINE_GB} GB that hold two versions of it": f"{machines:,}",
        "Milvus: two versions in memory, files mapped; not mapped, GB": "; ".join(
            map(_number, (2 * index / _GB, 2 * (index + 4 * d * n) / _GB))
        ),
        "vectors on disk, GB": _number(2 * d * n / _GB),
        "thumbnails and metadata on disk, GB": _number((THUMBNAIL_BYTES + METADATA_BYTES) * n / _GB),
        f"encoding with `lite`; ViT-B/32, hours of {MACHINE_CORES} cores": "; ".join(map(_hours, images)),
        f"building the index, hours of {MACHINE_CORES} cores": _hours(build / MACHINE_CORES),
        "own memory of building, GB": _number(model.memory_bytes(n, d) / _GB),
        "search of one query, core ms": _number(query),
        f"queries/s of {MACHINE_CORES} cores, `lite`; ViT-B/32": "; ".join(
            f"{MACHINE_CORES * 1_000 / ms:,.0f}" for ms in requests.values()
        ),
        "cost of a million queries, `lite`; ViT-B/32": f"{costs[0]:.2f}; {costs[1]:.2f}",
    }


def _hours(value: float) -> str:
    return "under 0.1" if value < 0.1 else _number(value)


def _number(value: float) -> str:
    """Format a number with two significant digits.

    >>> _number(0.0234), _number(1.26), _number(1234.5)
    ('0.023', '1.3', '1,200')
    """
    if not value:
        return "0"
    digits = 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(0, digits)}f}"


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not above 0")
    return number


def measure(threads: int, sizes: Sequence[int]) -> None:
    """Build and search each size in a process of its own, and write the figures to FILE."""
    folder = FOLDER.parent / f"scale-{max(sizes)}"
    generate(folder, max(sizes))
    float16_copy(folder, load(folder)[0])
    builds = []
    for n in sizes:
        command = [sys.executable, "-m", "benchmarks.scale", "--build", str(folder), str(n)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=threads_environment(threads)) as child:
            assert child.stdout is not None
            with AnonymousPeak(child.pid) as peak:
                line = child.stdout.readline()
                memory = peak.take()
            facts = json.loads(line) | json.loads(child.stdout.readline())
        builds.append(Build(n=n, memory_bytes=memory, **facts))
        print(builds[-1], flush=True)
    record = {"machine": machine(), "threads": threads, "builds": [asdict(build) for build in builds]}
    FILE.write_text(json.dumps(record, indent=2) + "\n")


def build_and_search(folder: Path, n: int) -> None:
    """Build the first n vectors in this process, then search; print the figures as two lines of JSON."""
    mapped = np.load(folder / FLOAT16_FILE, mmap_mode="r")[:n]
    queries = load(folder)[1][:_QUERIES]
    begun = trained = time.perf_counter()

    def report(stage: str, done: int, total: int) -> None:
        nonlocal trained
        if stage == "train":
            trained = time.perf_counter()

    with tempfile.TemporaryDirectory(dir=folder) as out:
        _, params = build_store(mapped, Path(out), PRESET.name, report)
        ended = time.perf_counter()
        (Path(out) / "build.json").write_text(json.dumps({"seconds": ended - begun, "value": dict(params)}))
        size = sum(file.stat().st_size for file in Path(out).glob("*.faiss"))
        seconds = {"train_seconds": trained - begun, "add_seconds": ended - trained}
        print(json.dumps({"d": mapped.shape[1], "index_bytes": size, **seconds}), flush=True)
        store = open_tuned(Path(out), mapped, 0.95, PRESET.name)
        times = []
        for query in queries:
            started = time.perf_counter()
            search(store, mapped, query[None], {}, threads=1)
            times.append(time.perf_counter() - started)
    print(json.dumps({"query_ms": 1_000 * statistics.median(times)}), flush=True)


def main() -> None:
    """Print the tables, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=_positive, nargs="+", default=[], help="more sizes to compute")
    parser.add_argument("--measure", action="store_true", help="measure the builds again (20 minutes)")
    parser.add_argument("--threads", type=int, default=2, help="threads of a build (default: 2)")
    parser.add_argument("--build", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        build_and_search(Path(arguments.build[0]), int(arguments.build[1]))
        return
    if arguments.measure:
        measure(arguments.threads, SIZES)
    where, threads, builds = measured()
    model = fit(builds[:2], threads)
    print(f"{where}, {threads} threads: measured; computed\n\n{check_table(model, threads, builds)}\n")
    print(f"Computed\n\n{plan_table(model, sorted({*PLANNED, *arguments.items}))}")


if __name__ == "__main__":
    main()

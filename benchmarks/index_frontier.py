"""`python -m benchmarks.index_frontier`: recall, speed, memory and build times of the store and others, in one run.

Systems: flat (FAISS's exhaustive search), lookalike (the product's functions: build_store, tune, open_store,
store.search, rerank), hnswlib, usearch (`usearch-i8` uses 8-bit integers), autofaiss. Each system builds in one process
and answers in another, so that memory is its own and libraries do not patch each other. All search the same vectors
with the same queries, which are not among the vectors, on the same number of threads. A system that is not installed is
left out, with a line on how to install it.

- *Recall* is ann_recall_at_10 of 1,000 queries, by the original float32 vectors (`benchmarks.recall`).
- *Queries/s* are of batches of 200 to 2,000 queries, as many as the system processes in about two seconds. *One query*
  is a single query. Systems take turns in several rounds; medians are reported.
- *Resident bytes a vector* are the growth of a process that has loaded libraries and queries, from opening the index
  to the end of all sweeps and rounds, in anonymous memory and mapped files (the kernel's RssAnon, RssShmem and
  RssFile), over n. The pages of `vectors.npy` that Lookalike maps for re-ranking are listed separately: they are clean,
  and the kernel reclaims them under memory pressure (`benchmarks.cold_cache` measures queries then). Buffers are
  included, so the figure is too high for n below about 200,000.
- *Building* is timed once, from the vectors on disk to the index on disk, as is the CPU time of all cores, which other
  work on the machine hardly changes. Its memory is the peak of anonymous memory, sampled every 10 ms from outside, and
  the kernel's VmHWM, which also counts the pages of the mapped vectors.

Each system tries its search parameters from the cheapest on, until recall passes `--most`; those that raise recall are
timed. Indexes of other systems are kept in `--folder` and reused; Lookalike's is always rebuilt.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.encoders import machine
from benchmarks.frontier.process import Assignment, Process, Unavailable
from benchmarks.frontier.report import OURS, Point, Row, parse_systems, plot, staircase, summary, table
from benchmarks.frontier.systems import SYSTEMS, Settings
from benchmarks.recall import K, ann_recall, tenth_cosines
from benchmarks.resident import MEGABYTE, AnonymousPeak
from benchmarks.vectors import FOLDER, float16_copy, generate, load
from lookalike.stores.faiss.library import faiss
from lookalike.types import Float32

_DEFAULT_SYSTEMS = "flat,lookalike,hnswlib,usearch,autofaiss"
_RECALL_QUERIES = 1000
_BATCH_SECONDS = 2.0  # about
_MIN_BATCH_SIZE, _MAX_BATCH_SIZE = 200, 2000


@dataclass(frozen=True)
class GroundTruth:
    """Vectors (n, d), queries (q, d) and the tenth best cosine of each query (q,)."""

    vectors: Float32
    queries: Float32
    tenth: Float32

    @classmethod
    def compute(cls, vectors: Float32, queries: Float32) -> GroundTruth:
        """Compare every query with every vector."""
        wrapped: Any = faiss  # its stubs describe C++
        truth = wrapped.knn(queries, vectors, K, metric=faiss.METRIC_INNER_PRODUCT)[1]
        return cls(vectors, queries, tenth_cosines(vectors, queries, truth))

    def recall(self, rows_file: Path) -> float:
        """Return the recall of the rows in a file."""
        return ann_recall(self.vectors, self.queries, np.load(rows_file), self.tenth)


@dataclass
class Competitor:
    """A running system, the points that are timed, and their times."""

    assignment: Assignment
    process: Process
    built: dict[str, Any]
    points: list[Point] = field(default_factory=list)
    rates: dict[int, list[float]] = field(default_factory=dict)
    singles: dict[int, list[float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the system's name."""
        return self.assignment.system

    def sweep(self, truth: GroundTruth, most: float) -> None:
        """Try the system's parameters until recall passes `most`, and select the points to time."""
        points: list[Point] = []
        rows_file = self.assignment.folder.with_suffix(".rows.npy")
        chosen = self.built["chosen"]
        for params in self.process.call("open")["param_grid"]:
            qps = self.process.call("search", params=params, count=len(truth.queries), out=str(rows_file))["qps"]
            points.append(Point(params, truth.recall(rows_file), qps, params == chosen))
            _log(f"{self.name} {params}: recall {points[-1].recall:.4f}, {qps:,.0f} queries/s")
            if points[-1].recall >= most and (chosen is None or any(point.chosen for point in points)):
                break
        self.points = staircase(points, self.assignment.settings.target)

    def time_points(self, singles: int, number: int) -> None:
        """Time every point once more."""
        for i, point in enumerate(self.points):
            rate = max([point.qps, *self.rates.get(i, [])])  # the first answers also loaded the index into memory
            count = min(_MAX_BATCH_SIZE, max(_MIN_BATCH_SIZE, round(_BATCH_SECONDS * rate)))
            times = self.process.call("time", params=point.params, count=count, singles=singles, first=number * singles)
            self.rates.setdefault(i, []).append(times["qps"])
            self.singles.setdefault(i, []).extend(times["singles"])

    def rows(self, count: int) -> list[Row]:
        """Return a row for each point; `count` vectors."""
        memory, built = self.process.call("memory"), self.built
        return [
            Row(
                system=self.name,
                params=point.params,
                recall=round(point.recall, 4),
                qps=round(statistics.median(self.rates[i]), 1),
                single_ms=round(statistics.median(self.singles[i]), 3),
                build_s=round(built["build_s"], 1),
                build_cpu_s=round(built["build_cpu_s"], 1),
                bytes_per_vector=round(memory["resident"] / count, 1),
                reclaimable_bytes_per_vector=round(memory["reclaimable"] / count, 1),
                index_bytes_per_vector=round(built["index_bytes"] / count, 1),
                chosen=point.chosen,
                tune_s=round(built["tune_s"], 1),
                build_own_mb=round(built["peak_anonymous"] / MEGABYTE),
                build_peak_mb=round(built["peak_resident"] / MEGABYTE),
                index=built["index"],
                library=built["library"],
                n=count,
            )
            for i, point in enumerate(self.points)
        ]


def build(assignment: Assignment, rebuild: bool, minutes: float) -> dict[str, Any]:
    """Build in a separate process, or return what an earlier build with the same settings returned.

    Raises:
        Unavailable: the system can't run.
    """
    record = assignment.folder.with_suffix(".json")
    if record.is_file() and not rebuild:
        earlier: dict[str, Any] = json.loads(record.read_text())
        if earlier["settings"] == asdict(assignment.settings):
            return earlier
    record.unlink(missing_ok=True)
    shutil.rmtree(assignment.folder, ignore_errors=True)
    assignment.folder.mkdir(parents=True)
    with Process(assignment) as process, AnonymousPeak(process.pid) as peak:
        built = process.call("build", minutes)
        built |= {"peak_anonymous": peak.take(), "settings": asdict(assignment.settings)}
    record.write_text(json.dumps(built))
    return built


def measure(
    assignments: list[Assignment],
    truth: GroundTruth,
    most: float,
    rounds: int,
    singles: int,
    minutes: float,
    rebuild: bool,
) -> list[Row]:
    """Build one after another, then sweep and time in turn."""
    built = {}
    for assignment in assignments:
        with _skip_unavailable(assignment):
            built[assignment] = build(assignment, rebuild or assignment.system == OURS, minutes)
            _log(f"{assignment.system}: {built[assignment]['index']}, built in {built[assignment]['build_s']:.1f} s")
    with ExitStack() as stack:
        competitors = []
        for assignment, facts in built.items():
            with _skip_unavailable(assignment):
                competitor = Competitor(assignment, stack.enter_context(Process(assignment)), facts)
                competitor.sweep(truth, most)
                competitors.append(competitor)
        for number in range(rounds):
            competitors = [competitor for competitor in competitors if _time_once(competitor, singles, number)]
            _log(f"round {number + 1} of {rounds} done")
        return [row for competitor in competitors for row in competitor.rows(len(truth.vectors))]


def _time_once(competitor: Competitor, singles: int, number: int) -> bool:
    """Time a competitor once more; return False where it failed."""
    try:
        competitor.time_points(singles, number)
    except Unavailable as error:
        _log(f"{competitor.name} is left out: {error}")
        return False
    return True


@contextmanager
def _skip_unavailable(assignment: Assignment) -> Iterator[None]:
    """Skip a system that can't run, and log the reason."""
    try:
        yield
    except Unavailable as error:
        _log(f"{assignment.system} is left out: {error}")


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Parse the arguments, measures, prints."""
    options = _arguments()
    faiss.omp_set_num_threads(options.threads)
    folder = options.folder / str(options.n)
    generate(folder, options.n)
    vectors, queries = load(folder)
    float16_copy(folder, vectors)
    truth = GroundTruth.compute(vectors, queries[:_RECALL_QUERIES])
    settings = Settings(options.threads, options.target, options.budget)
    assignments = [
        Assignment(name, settings, folder, folder / "frontier" / name, _python(name, options))
        for name in options.systems
    ]
    rows = measure(
        assignments, truth, options.most, options.rounds, options.singles, options.build_minutes, options.rebuild
    )
    if not rows:
        return 1
    _print(rows, options)
    if options.plot:
        plot(rows, options.plot)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000, help="vectors to generate")
    parser.add_argument(
        "--systems", default=_DEFAULT_SYSTEMS, help=f"of {', '.join(SYSTEMS)}; default {_DEFAULT_SYSTEMS}"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each system")
    parser.add_argument("--target", type=float, default=0.95, help="ann_recall_at_10 that systems are compared at")
    parser.add_argument("--most", type=float, default=0.99, help="recall at which a sweep ends")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each system")
    parser.add_argument("--singles", type=int, default=50, help="single queries of each point and turn")
    parser.add_argument("--budget", type=int, default=160, help="index bytes a vector that autofaiss gets")
    parser.add_argument("--autofaiss-python", help="Python of an environment with autofaiss and faiss-cpu 1.9")
    parser.add_argument("--build-minutes", type=float, default=360, help="a system that takes longer is left out")
    parser.add_argument("--rebuild", action="store_true", help="rebuild the indexes of other systems as well")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="kept between runs")
    parser.add_argument("--plot", type=Path, help="a PNG of recall against queries/s")
    parser.add_argument("--json", action="store_true", help="one JSON object a row instead of tables")
    options = parser.parse_args()
    try:
        options.systems = parse_systems(options.systems, SYSTEMS)
    except ValueError as error:
        parser.error(f"--systems: {error}")
    return options


def _python(system: str, options: argparse.Namespace) -> str | None:
    return str(options.autofaiss_python) if system == "autofaiss" and options.autofaiss_python else None


def _print(rows: list[Row], options: argparse.Namespace) -> None:
    facts = {"machine": machine(), "threads": options.threads}
    if options.json:
        for row in rows:
            print(json.dumps({**asdict(row), **facts}))
        return
    print(f"{options.n:,} vectors, {options.threads} threads, {options.rounds} rounds: {facts['machine']}\n")
    print(f"{summary(rows, options.target)}\n\n{table(rows)}")


if __name__ == "__main__":
    sys.exit(main())

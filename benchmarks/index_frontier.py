"""`python -m benchmarks.index_frontier`: recall, speed, memory and building of the store beside its peers, in one run.

Systems: flat (FAISS's exhaustive search), lookalike (the product's own path: build_store, tune, open_store,
store.search, rerank), hnswlib, usearch (`usearch-i8` is the same in 8-bit integers), autofaiss. Each builds in a
process of its own and answers in another, so that memory is its own and libraries do not patch each other; all search
the same vectors with the same queries, which are not among them, on the same number of threads. A peer that is not
installed is left out with a line that says how to install it.

- *Recall* is ann_recall_at_10 of 1,000 queries, judged by the original float32 vectors (`benchmarks.recall`).
- *Queries/s* are of batches, as many queries (200 to 2,000) as the system answers in about two seconds; *one query* is
  asked alone. Systems take turns over several rounds; medians are reported.
- *Resident bytes a vector*: what a process that has loaded libraries and queries grows by from opening the index until
  all sweeps and rounds are over, anonymous memory and mapped files (the kernel's RssAnon, RssShmem and RssFile), over
  n. Apart are the pages of `vectors.npy` that ours maps to re-rank from: they are clean, and the kernel takes them back
  when memory is short (`benchmarks.cold_cache` says what a query then costs). Buffers are counted with the rest, so
  the figure is too high for n below some 200,000.
- *Building* is timed once, from the vectors on disk to the index on disk, and so is what all cores computed in that
  time, which other work on the machine hardly changes; its memory is the peak of anonymous memory,
  sampled every 10 ms from outside, and the kernel's VmHWM, which counts the pages of the mapped vectors too.

Each system tries its search parameters from the cheapest on, until recall passes `--most`; those that raise recall are
timed. What a peer built is kept in `--folder` and used again; ours is always built anew.
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
from benchmarks.recall import K, ann_recall, floors
from benchmarks.resident import MEGABYTE, AnonymousPeak
from benchmarks.vectors import FOLDER, generate, halves, load
from lookalike.stores.faiss.library import faiss
from lookalike.types import Float32

_DEFAULT = "flat,lookalike,hnswlib,usearch,autofaiss"
_JUDGED = 1000  # queries that recall is computed on
_SECONDS = 2.0  # about as long is a batch
_FEWEST, _MOST = 200, 2000  # queries in a batch


@dataclass(frozen=True)
class Judge:
    """Knows the truth: vectors (n, d), queries (q, d) and the tenth best cosine of each."""

    vectors: Float32
    queries: Float32
    tenth: Float32

    @classmethod
    def over(cls, vectors: Float32, queries: Float32) -> Judge:
        """Compares every query with every vector."""
        wrapped: Any = faiss  # its stubs describe C++
        truth = wrapped.knn(queries, vectors, K, metric=faiss.METRIC_INNER_PRODUCT)[1]
        return cls(vectors, queries, floors(vectors, queries, truth))

    def recall(self, answers: Path) -> float:
        """Of the rows in a file."""
        return ann_recall(self.vectors, self.queries, np.load(answers), self.tenth)


@dataclass
class Contender:
    """A system that answers, the points it is timed at, and its times."""

    assignment: Assignment
    process: Process
    built: dict[str, Any]
    points: list[Point] = field(default_factory=list)
    rates: dict[int, list[float]] = field(default_factory=dict)
    singles: dict[int, list[float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The system's."""
        return self.assignment.system

    def sweep(self, judge: Judge, most: float) -> None:
        """Tries the system's parameters until recall passes `most`, and chooses the points to be timed."""
        tried: list[Point] = []
        answers = self.assignment.folder.with_suffix(".rows.npy")
        chosen = self.built["chosen"]
        for params in self.process.ask("open")["trials"]:
            qps = self.process.ask("answer", params=params, count=len(judge.queries), out=str(answers))["qps"]
            tried.append(Point(params, judge.recall(answers), qps, params == chosen))
            _say(f"{self.name} {params}: recall {tried[-1].recall:.4f}, {qps:,.0f} queries/s")
            if tried[-1].recall >= most and (chosen is None or any(point.chosen for point in tried)):
                break
        self.points = staircase(tried, self.assignment.settings.target)

    def turn(self, singles: int, number: int) -> None:
        """Times every point once."""
        for i, point in enumerate(self.points):
            rate = max([point.qps, *self.rates.get(i, [])])  # the first answers also brought the index into memory
            count = min(_MOST, max(_FEWEST, round(_SECONDS * rate)))
            took = self.process.ask("clock", params=point.params, count=count, singles=singles, first=number * singles)
            self.rates.setdefault(i, []).append(took["qps"])
            self.singles.setdefault(i, []).extend(took["singles"])

    def rows(self, count: int) -> list[Row]:
        """One for each point, `count` vectors."""
        memory, built = self.process.ask("memory"), self.built
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


def build(assignment: Assignment, again: bool, minutes: float) -> dict[str, Any]:
    """What building gave; a peer's is remembered until its settings change.

    Raises:
        Unavailable: the system can't take part.
    """
    note = assignment.folder.with_suffix(".json")
    if note.is_file() and not again:
        remembered: dict[str, Any] = json.loads(note.read_text())
        if remembered["settings"] == asdict(assignment.settings):
            return remembered
    note.unlink(missing_ok=True)
    shutil.rmtree(assignment.folder, ignore_errors=True)
    assignment.folder.mkdir(parents=True)
    with Process(assignment) as process, AnonymousPeak(process.pid) as peak:
        built = process.ask("build", minutes)
        built |= {"peak_anonymous": peak.take(), "settings": asdict(assignment.settings)}
    note.write_text(json.dumps(built))
    return built


def measure(
    assignments: list[Assignment], judge: Judge, most: float, rounds: int, singles: int, minutes: float, again: bool
) -> list[Row]:
    """Builds one after another, then sweeps and times in turn."""
    built = {}
    for assignment in assignments:
        with _forgiven(assignment):
            built[assignment] = build(assignment, again or assignment.system == OURS, minutes)
            _say(f"{assignment.system}: {built[assignment]['index']}, built in {built[assignment]['build_s']:.1f} s")
    with ExitStack() as stack:
        contenders = []
        for assignment, facts in built.items():
            with _forgiven(assignment):
                contender = Contender(assignment, stack.enter_context(Process(assignment)), facts)
                contender.sweep(judge, most)
                contenders.append(contender)
        for number in range(rounds):
            contenders = [contender for contender in contenders if _survives(contender, singles, number)]
            _say(f"round {number + 1} of {rounds} is over")
        return [row for contender in contenders for row in contender.rows(len(judge.vectors))]


def _survives(contender: Contender, singles: int, number: int) -> bool:
    """Whether it could be timed once more."""
    try:
        contender.turn(singles, number)
    except Unavailable as error:
        _say(f"{contender.name} is left out: {error}")
        return False
    return True


@contextmanager
def _forgiven(assignment: Assignment) -> Iterator[None]:
    """A system that can't take part is left out, and a line says why."""
    try:
        yield
    except Unavailable as error:
        _say(f"{assignment.system} is left out: {error}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Parses the arguments, measures, prints."""
    options = _arguments()
    faiss.omp_set_num_threads(options.threads)
    folder = options.folder / str(options.n)
    generate(folder, options.n)
    vectors, queries = load(folder)
    halves(folder, vectors)
    judge = Judge.over(vectors, queries[:_JUDGED])
    settings = Settings(options.threads, options.target, options.budget)
    assignments = [
        Assignment(name, settings, folder, folder / "frontier" / name, _python(name, options))
        for name in options.systems
    ]
    rows = measure(
        assignments, judge, options.most, options.rounds, options.singles, options.build_minutes, options.rebuild
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
    parser.add_argument("--systems", default=_DEFAULT, help=f"of {', '.join(SYSTEMS)}; default {_DEFAULT}")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each system")
    parser.add_argument("--target", type=float, default=0.95, help="ann_recall_at_10 that systems are compared at")
    parser.add_argument("--most", type=float, default=0.99, help="recall at which a sweep ends")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each system")
    parser.add_argument("--singles", type=int, default=50, help="single queries of each point and turn")
    parser.add_argument("--budget", type=int, default=160, help="index bytes a vector that autofaiss gets")
    parser.add_argument("--autofaiss-python", help="Python of an environment with autofaiss and faiss-cpu 1.9")
    parser.add_argument("--build-minutes", type=float, default=360, help="a system that builds for longer is left out")
    parser.add_argument("--rebuild", action="store_true", help="build the peers again, too")
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

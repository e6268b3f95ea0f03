"""Tuning of a store's default search parameters: the fastest that reach a recall, by measurement.

The true neighbours come from exact search over the same vectors, the store's from the two steps that serve a query
(store, then exact re-ranking). Recall of image and text queries is reported separately: captions lie elsewhere in the
joint space than images, so an index that serves the one can fail the other.

Dimension letters: n rows of the collection, q queries, d embedding width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from indexing.build.query_sets import QuerySet, leave_one_out, query_budget
from indexing.build.recall_benchmark import RecallBenchmark, search
from lookalike.rerank import normalized_rows
from lookalike.stores.protocol import SearchParameters, VectorStore
from lookalike.types import Float16, Float32, Int64

_TIMED_QUERIES, _TIMED_ROUNDS = 30, 3  # single queries
_TIMED_BATCH_QUERIES, _TIMED_BATCH_ROUNDS = 500, 5
_MAX_EXTRA_TRIALS = 3
"""Trials after the first sufficient one that may turn out to be faster: the order of trials is an estimate."""
_COARSE_STEP = 3  # values of a parameter
_MAX_TIME_RATIO = 0.95  # a faster trial's time over the first one's; more is within chance


@runtime_checkable
class Tunable(Protocol):
    """A store with search parameters to choose."""

    def param_grid(self) -> Sequence[SearchParameters]:
        """Return search parameters to try, the cheapest first."""
        ...


@dataclass(frozen=True, slots=True)
class MeasuredRecall:
    """Recall over one set of queries.

    Attributes:
        queries: number of queries.
        ann_recall_at_10: mean share of the true ten nearest that was found, less the standard error of that mean, in
            [0, 1]: the parameters are chosen by the same queries, and other ones must not get less than was promised. A
            row whose cosine equals the tenth's counts as true, so that duplicates do not count as misses.
    """

    queries: int
    ann_recall_at_10: float


@dataclass(frozen=True, slots=True)
class TuningReport:
    """The chosen parameters and what they were chosen by.

    Attributes:
        target: the required ann_recall_at_10 of every set of queries.
        met: whether the chosen parameters reach it; if not, they are the best that were tried.
        params: the chosen search parameters, the store's new defaults.
        image: recall of image queries; None where n is too small to leave one out.
        text: recall of text queries; None where there were none.
        query_ms: median milliseconds of a single query, search and re-ranking, on this machine with warm pages; None
            without queries.
        sweep: the trials, in order: parameters, the recall of either set, and milliseconds a query in a batch.
    """

    target: float
    met: bool
    params: dict[str, int]
    image: MeasuredRecall | None
    text: MeasuredRecall | None
    query_ms: float | None = None
    sweep: list[dict[str, Any]] = field(default_factory=list)

    @property
    def recalls(self) -> dict[str, float]:
        """ann_recall_at_10 by kind of query."""
        kinds = {"image": self.image, "text": self.text}
        return {kind: measured.ann_recall_at_10 for kind, measured in kinds.items() if measured is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return the report JSON-ready, for the manifest."""
        return {
            "target": self.target,
            "met": self.met,
            "params": self.params,
            "image": _recall_dict(self.image),
            "text": _recall_dict(self.text),
            "query_ms": self.query_ms,
            "sweep": self.sweep,
        }


def tune(
    store: VectorStore,
    vectors: Float16,
    image: QuerySet | None = None,
    text: Float32 | None = None,
    target: float = 0.95,
    on_trial: Callable[[Mapping[str, Any]], None] | None = None,
    held_out: Int64 | None = None,
) -> TuningReport:
    """Try a store's parameters from the cheapest on, until every set of queries reaches the target, and some more.

    Of those that reach it the fastest in batches wins.

    Args:
        store: freshly opened over `vectors` without the held-out rows.
        vectors: (n, d) float16 of the collection.
        image: image queries; None for the held-out rows, or for gallery vectors, each searched without itself.
        text: (m, d) float32 unit vectors of captions; the first `query_budget` are used.
        target: ann_recall_at_10 to reach.
        on_trial: called with each line of the sweep.
        held_out: rows that the store does not hold; they are no true neighbours.

    Returns:
        The report; `params` are the new defaults, empty for a store without parameters to choose.
    """
    benchmarks = _benchmarks(vectors, image, text, held_out, query_budget(*vectors.shape, exact=store.exact))
    trials = list(store.param_grid()) if isinstance(store, Tunable) else [{}]
    sweep = _Sweep(store, benchmarks, target, on_trial)
    sufficient = _sufficient_lines(sweep, trials) if benchmarks else [sweep.line(trials[0])]
    return _report(store, sweep, sufficient)


def _benchmarks(
    vectors: Float16, image: QuerySet | None, text: Float32 | None, held_out: Int64 | None, limit: int
) -> dict[str, RecallBenchmark]:
    """Return the benchmarks of image and text queries, those without any true neighbour left out."""
    if image is None:
        image = leave_one_out(vectors, limit) if held_out is None else QuerySet(normalized_rows(vectors[held_out]))
    benchmarks = {"image": RecallBenchmark.prepare(vectors, image, held_out)}
    if text is not None and len(text):
        benchmarks["text"] = RecallBenchmark.prepare(vectors, QuerySet(text[:limit]), held_out)
    return {kind: benchmark for kind, benchmark in benchmarks.items() if benchmark.answerable}


class _Sweep:
    """The trials so far, each measured once."""

    def __init__(
        self,
        store: VectorStore,
        benchmarks: Mapping[str, RecallBenchmark],
        target: float,
        on_trial: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        self._store, self._on_trial = store, on_trial
        self.benchmarks, self.target = benchmarks, target
        self.lines: list[dict[str, Any]] = []

    def line(self, params: SearchParameters) -> dict[str, Any]:
        """Return the parameters' line of the sweep; measure it if it is not there yet."""
        if known := next((line for line in self.lines if line["params"] == params), None):
            return known
        begun = time.perf_counter()
        # Rounded down, so that what is printed never claims a target that was missed.
        recalls = {
            kind: math.floor(benchmark.recall(self._store, params) * 1e4) / 1e4
            for kind, benchmark in self.benchmarks.items()
        }
        seconds = (time.perf_counter() - begun) / max(1, sum(each.size for each in self.benchmarks.values()))
        self.lines.append({"params": dict(params), **recalls, "batch_ms": round(1e3 * seconds, 4)})
        if self._on_trial:
            self._on_trial(self.lines[-1])
        return self.lines[-1]

    def lowest_recall(self, line: Mapping[str, Any]) -> float:
        """Return the lower recall of the two kinds of query."""
        return min((float(line[kind]) for kind in self.benchmarks), default=1.0)

    def suffices(self, params: SearchParameters) -> bool:
        """Return whether every kind of query reaches the target."""
        return self.lowest_recall(self.line(params)) >= self.target


def _sufficient_lines(sweep: _Sweep, trials: Sequence[SearchParameters]) -> list[dict[str, Any]]:
    """Return the lines that reach the target: the first one and those of a few more trials."""
    sufficient: list[dict[str, Any]] = []
    tried_since, best_recall = 0, dict[tuple[int, ...], float]()
    for params in _promising(trials, sweep.suffices):
        others = tuple(params.values())[1:]
        if best_recall.get(others) == math.inf:
            continue
        line = sweep.line(params)
        if sweep.suffices(params):
            sufficient.append(line)
        else:  # where more of the first parameter does not help, the others limit the recall
            recall = sweep.lowest_recall(line)
            best_recall[others] = recall if recall > best_recall.get(others, -1.0) else math.inf
        tried_since += bool(sufficient)
        if tried_since > _MAX_EXTRA_TRIALS:
            break
    return sufficient


def _promising(
    trials: Sequence[SearchParameters], suffices: Callable[[SearchParameters], bool]
) -> Sequence[SearchParameters]:
    """Return the trials that may suffice: those that do with the largest values of their other parameters.

    Recall grows with each parameter. The smallest sufficient value of the first one (lists visited, breadth of a walk)
    is searched in steps of three values, about a doubling, then one by one.
    """
    widest = {next(iter(params.values()), 0): params for params in trials}  # trials are sorted: the dearest of each
    values = sorted(widest)
    steps = sorted({*range(0, len(values), _COARSE_STEP), len(values) - 1})
    reached = next((i for i, step in enumerate(steps) if suffices(widest[values[step]])), None)
    if reached is None:
        return []
    between = range(steps[reached - 1] + 1 if reached else 0, steps[reached])
    smallest = next((i for i in between if suffices(widest[values[i]])), steps[reached])
    return [params for params in trials if next(iter(params.values()), 0) >= values[smallest]]


def _report(store: VectorStore, sweep: _Sweep, sufficient: list[dict[str, Any]]) -> TuningReport:
    """Report the fastest sufficient line, else the one with the best lower recall (the cheapest among equals)."""
    best = _fastest(store, sweep.benchmarks, sufficient) if sufficient else max(sweep.lines, key=sweep.lowest_recall)
    measured = {kind: MeasuredRecall(each.size, best[kind]) for kind, each in sweep.benchmarks.items()}
    query_ms = None
    if sweep.benchmarks:
        vectors = next(iter(sweep.benchmarks.values())).vectors
        queries = np.concatenate([each.queries.vectors[:_TIMED_QUERIES] for each in sweep.benchmarks.values()])
        query_ms = _query_ms(store, vectors, queries, best["params"])
    return TuningReport(
        target=sweep.target,
        met=bool(sufficient),
        params=dict(best["params"]),
        image=measured.get("image"),
        text=measured.get("text"),
        query_ms=query_ms,
        sweep=sweep.lines,
    )


def _fastest(
    store: VectorStore, benchmarks: Mapping[str, RecallBenchmark], sufficient: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the first line, or the fastest of those that search a batch faster than it in every round."""
    if len(sufficient) == 1 or not benchmarks:
        return sufficient[0]
    queries = np.concatenate([each.queries.vectors[:_TIMED_BATCH_QUERIES] for each in benchmarks.values()])
    vectors = next(iter(benchmarks.values())).vectors
    times = np.full((_TIMED_BATCH_ROUNDS, len(sufficient)), np.inf)
    for seconds in times:
        for i, line in enumerate(sufficient):
            begun = time.perf_counter()
            search(store, vectors, queries, line["params"])
            seconds[i] = time.perf_counter() - begun
    faster = (times < _MAX_TIME_RATIO * times[:, :1]).all(axis=0)
    return sufficient[int(np.argmin(np.where(faster, times.min(axis=0), np.inf)))] if faster.any() else sufficient[0]


def _query_ms(store: VectorStore, vectors: Float16, queries: Float32, params: SearchParameters) -> float:
    """Return the median milliseconds of a single query; the fastest of three rounds, for other work may interfere."""

    def once(query: Float32) -> float:
        begun = time.perf_counter()
        search(store, vectors, query, params)
        return time.perf_counter() - begun

    rounds = [np.median([once(queries[i : i + 1]) for i in range(len(queries))]) for _ in range(_TIMED_ROUNDS)]
    return round(1e3 * float(min(rounds)), 4)


def _recall_dict(measured: MeasuredRecall | None) -> dict[str, Any] | None:
    return None if measured is None else {"queries": measured.queries, "ann_recall_at_10": measured.ann_recall_at_10}

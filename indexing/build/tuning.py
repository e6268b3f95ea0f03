"""Picks a store's default search parameters by measurement: the fastest that find enough of the true neighbours.

Truth comes from the exact store over the same vectors, answers from the same two steps that serve a query (store,
then exact re-ranking). Image and text queries are reported apart, because captions live elsewhere in the joint space
than images and an index that serves the one can fail the other. It knows nothing of images or manifests.

Dimension letters: n rows of the collection, q queries, d embedding width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lookalike.approximate_search import approximate_search
from lookalike.rerank import normalized_rows
from lookalike.stores.exact import ExactStore
from lookalike.stores.protocol import SearchParameters, VectorStore
from lookalike.types import Float16, Float32, Int64, Neighbors

K = 10
_MOST_QUERIES = 1000
FEWEST_QUERIES = 100
_TRUTH_MULTIPLICATIONS = 6e11  # about ten seconds on two cores; decides how many queries a large collection gets
_TIMED_QUERIES, _TIMED_ROUNDS = 30, 3
_RIVALS = 3
"""Trials after the first sufficient one that may turn out to be faster: the order of trials is a guess."""
_STEP = 3  # values of a parameter
_TURNS, _TIMED_BATCH = 5, 500  # queries
_FASTER = 0.95  # of the time so far; less is within chance
_SEED = 0


@runtime_checkable
class Tunable(Protocol):
    """A store that has something to choose."""

    def param_grid(self) -> Sequence[SearchParameters]:
        """Search parameters worth trying, the cheapest first."""
        ...


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Queries to measure with.

    Attributes:
        vectors: (q, d) float32 unit vectors.
        own: (q,) int64, the row that each query was taken from and must not find; None for real held-out queries.
    """

    vectors: Float32
    own: Int64 | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """Recall over one set of queries.

    Attributes:
        queries: how many were asked.
        ann_recall_at_10: mean share of the true ten nearest that was found, less the standard error of that mean, in
            [0, 1]: the parameters are chosen by the same queries, and other ones must not get less than was promised. A
            row whose cosine equals the tenth's counts as true, so that duplicates do not count as misses.
    """

    queries: int
    ann_recall_at_10: float


@dataclass(frozen=True, slots=True)
class TuningReport:
    """What was chosen and why.

    Attributes:
        target: the ann_recall_at_10 asked for, of every set of queries.
        met: whether the chosen parameters reach it; if not, they are the best that were tried.
        params: the chosen search parameters, the store's defaults from now on.
        image: recall of image queries; None where n is too small to leave one out.
        text: recall of text queries; None where there were none.
        query_ms: median milliseconds of one query alone, search and re-ranking, on this machine with warm pages; None
            where there was nothing to ask.
        sweep: what was tried, in order: parameters, the recall of either set, and milliseconds a query in a batch.
    """

    target: float
    met: bool
    params: dict[str, int]
    image: Measured | None
    text: Measured | None
    query_ms: float | None = None
    sweep: list[dict[str, Any]] = field(default_factory=list)

    @property
    def recalls(self) -> dict[str, float]:
        """ann_recall_at_10 by kind of query."""
        measured = {"image": self.image, "text": self.text}
        return {kind: found.ann_recall_at_10 for kind, found in measured.items() if found is not None}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for the manifest."""
        return {
            "target": self.target,
            "met": self.met,
            "params": self.params,
            "image": _measured_dict(self.image),
            "text": _measured_dict(self.text),
            "query_ms": self.query_ms,
            "sweep": self.sweep,
        }


def query_budget(count: int, dim: int, *, exact: bool = False) -> int:
    """How many queries the truth is worth computing for: 100 to 1,000, fewer the larger n * d is, 100 if `exact`."""
    if exact:
        return FEWEST_QUERIES
    affordable = int(_TRUTH_MULTIPLICATIONS / max(1, count * dim))
    return min(_MOST_QUERIES, max(FEWEST_QUERIES, affordable))


def leave_one_out(vectors: Float16, most: int | None = None) -> QuerySet:
    """Gallery vectors as queries, each to be asked without itself: at most `most`, always the same ones."""
    count, dim = vectors.shape
    size = min(count, query_budget(count, dim) if most is None else most)
    rows = np.sort(np.random.default_rng(_SEED).choice(count, size, replace=False)).astype(np.int64)
    return QuerySet(normalized_rows(vectors[rows]), rows)


def hold_out(vectors: Float16) -> Int64 | None:
    """Rows to be queries while the others are searched: as many as `query_budget` says, a tenth of all at most.

    None where there are fewer than ten.
    """
    count, dim = vectors.shape
    size = min(count // 10, query_budget(count, dim))
    return np.sort(np.random.default_rng(_SEED).choice(count, size, replace=False)).astype(np.int64) if size else None


def tune(
    store: VectorStore,
    vectors: Float16,
    image: QuerySet | None = None,
    text: Float32 | None = None,
    target: float = 0.95,
    progress: Callable[[Mapping[str, Any]], None] | None = None,
    held_out: Int64 | None = None,
) -> TuningReport:
    """Tries a store's parameters from the cheapest on, until every set of queries reaches the target, and some more.

    Of those that reach it the fastest in batches wins.

    Args:
        store: freshly opened over `vectors`, those held out excepted.
        vectors: (n, d) float16 of the collection.
        image: image queries; None takes gallery vectors, each asked without itself.
        text: (m, d) float32 unit vectors of captions; the first ones within `query_budget` are used.
        target: ann_recall_at_10 to reach.
        progress: called with each line of the sweep.
        held_out: rows that the store is without: they are the image queries, unless others are given, and no answers.

    Returns:
        The report; `params` are the new defaults, empty for a store that has nothing to choose.
    """
    budget = query_budget(*vectors.shape, exact=store.exact)
    if image is None:
        image = leave_one_out(vectors, budget) if held_out is None else QuerySet(normalized_rows(vectors[held_out]))
    exams = {"image": _Exam.prepare(vectors, image, held_out)}
    if text is not None and len(text):
        exams["text"] = _Exam.prepare(vectors, QuerySet(text[:budget]), held_out)
    exams = {name: exam for name, exam in exams.items() if exam.answerable}
    sweep: list[dict[str, Any]] = []

    def tried(params: SearchParameters) -> dict[str, Any]:
        """The line of the sweep about them, measured where it is not there yet."""
        if known := next((line for line in sweep if line["params"] == params), None):
            return known
        begun = time.perf_counter()
        # Rounded down, so that what is printed never claims a target that was missed.
        recalls = {name: math.floor(exam.take(store, params) * 1e4) / 1e4 for name, exam in exams.items()}
        took = (time.perf_counter() - begun) / max(1, sum(exam.size for exam in exams.values()))
        sweep.append({"params": dict(params), **recalls, "batch_ms": round(1e3 * took, 4)})
        if progress:
            progress(sweep[-1])
        return sweep[-1]

    def enough(line: Mapping[str, Any]) -> bool:
        return all(line[name] >= target for name in exams)

    trials = list(store.param_grid()) if isinstance(store, Tunable) else [{}]
    good: list[dict[str, Any]] = []
    since, reached = 0, dict[tuple[int, ...], float]()
    for params in _promising(trials, lambda params: enough(tried(params))) if exams else trials[:1]:
        _, *rest = [*params.values()] or [0]
        others = tuple(rest)
        if reached.get(others) == math.inf:
            continue
        line = tried(params)
        if enough(line):
            good.append(line)
        else:  # where more of the first parameter does not help, the others are in the way
            worst = min(line[name] for name in exams)
            reached[others] = worst if worst > reached.get(others, -1.0) else math.inf
        since += bool(good)
        if since > _RIVALS:
            break
    return _report(store, exams, sweep, good, target)


def _promising(
    trials: Sequence[SearchParameters], enough: Callable[[SearchParameters], bool]
) -> Sequence[SearchParameters]:
    """Trials without those that can't suffice, since the same search does not with the most of everything else.

    Recall grows with each parameter. Of the first one (lists visited, breadth of a walk) the smallest value is looked
    for with which anything suffices: in steps of three values, about a doubling, then one by one.
    """
    widest = {next(iter(params.values()), 0): params for params in trials}  # trials are sorted: the dearest of each
    values = sorted(widest)
    steps = sorted({*range(0, len(values), _STEP), len(values) - 1})
    reached = next((i for i, step in enumerate(steps) if enough(widest[values[step]])), None)
    if reached is None:
        return []
    between = range(steps[reached - 1] + 1 if reached else 0, steps[reached])
    least = next((i for i in between if enough(widest[values[i]])), steps[reached])
    return [params for params in trials if next(iter(params.values()), 0) >= values[least]]


def _report(
    store: VectorStore,
    exams: Mapping[str, _Exam],
    sweep: list[dict[str, Any]],
    good: list[dict[str, Any]],
    target: float,
) -> TuningReport:
    """The fastest of the good lines, else the line whose worse recall is best (the cheapest among equals)."""

    def worst(line: Mapping[str, Any]) -> float:
        return min((float(line[name]) for name in exams), default=1.0)

    best = _fastest(store, exams, good) if good else max(sweep, key=worst)
    measured = {name: Measured(exam.size, best[name]) for name, exam in exams.items()}
    asked = [exam.queries.vectors[:_TIMED_QUERIES] for exam in exams.values()]
    took = (
        _query_ms(store, next(iter(exams.values())).vectors, np.concatenate(asked), best["params"]) if asked else None
    )
    return TuningReport(
        target, bool(good), dict(best["params"]), measured.get("image"), measured.get("text"), took, sweep
    )


def _fastest(store: VectorStore, exams: Mapping[str, _Exam], good: list[dict[str, Any]]) -> dict[str, Any]:
    """Of lines that are good enough the first, or the one that answers a batch soonest and sooner in every turn."""
    if len(good) == 1 or not exams:
        return good[0]
    queries = np.concatenate([exam.queries.vectors[:_TIMED_BATCH] for exam in exams.values()])
    vectors = next(iter(exams.values())).vectors
    times = np.full((_TURNS, len(good)), np.inf)
    for turn in times:
        for i, line in enumerate(good):
            begun = time.perf_counter()
            _answers(store, vectors, queries, line["params"])
            turn[i] = time.perf_counter() - begun
    sooner = (times < _FASTER * times[:, :1]).all(axis=0)
    return good[int(np.argmin(np.where(sooner, times.min(axis=0), np.inf)))] if sooner.any() else good[0]


def _query_ms(store: VectorStore, vectors: Float16, queries: Float32, params: SearchParameters) -> float:
    """Median milliseconds of a query that comes alone; of three rounds the quickest, for other work may interfere."""

    def once(query: Float32) -> float:
        begun = time.perf_counter()
        _answers(store, vectors, query, params)
        return time.perf_counter() - begun

    rounds = [np.median([once(queries[i : i + 1]) for i in range(len(queries))]) for _ in range(_TIMED_ROUNDS)]
    return round(1e3 * float(min(rounds)), 4)


def _answers(store: VectorStore, vectors: Float16, queries: Float32, params: SearchParameters) -> list[Neighbors]:
    """The eleven nearest as the service finds them."""
    if store.exact:
        return store.search(queries, K + 1, params)
    return approximate_search(store, vectors, queries, K + 1, params)


@dataclass(frozen=True, slots=True)
class _Exam:
    """A set of queries with the cosine that an answer has to reach, and how many rows do reach it (at most ten)."""

    queries: QuerySet
    vectors: Float16
    floors: Float32
    wanted: Int64

    @classmethod
    def prepare(cls, vectors: Float16, queries: QuerySet, held_out: Int64 | None) -> _Exam:
        there = None if held_out is None else ~np.isin(np.arange(len(vectors)), held_out)
        truth = _without_own(ExactStore(vectors).search(queries.vectors, K + 1, mask=there), queries.own)
        wanted = np.array([len(found.rows) for found in truth], dtype=np.int64)
        floors = np.array([found.scores[-1] if len(found.scores) else 0 for found in truth], dtype=np.float32)
        return cls(queries, vectors, floors, wanted)

    @property
    def size(self) -> int:
        return len(self.wanted)

    @property
    def answerable(self) -> bool:
        """Whether any query has a neighbour at all."""
        return bool(self.wanted.any())

    def take(self, store: VectorStore, params: SearchParameters) -> float:
        """ann_recall_at_10 of the store under these parameters, re-ranked as the service re-ranks; see `Measured`."""
        answers = _without_own(_answers(store, self.vectors, self.queries.vectors, params), self.queries.own)
        # The exact store and re-ranking score a row alike to the bit, so ">=" needs no tolerance.
        right = [int((a.scores >= floor).sum()) for a, floor in zip(answers, self.floors, strict=True)]
        asked = self.wanted > 0
        shares = (np.minimum(right, self.wanted) / np.maximum(self.wanted, 1))[asked]
        return max(0.0, float(shares.mean() - shares.std() / math.sqrt(len(shares))))


def _without_own(found: Sequence[Neighbors], own: Int64 | None) -> list[Neighbors]:
    """The first ten of each, the query's own row left out."""
    if own is None:
        return [Neighbors(f.rows[:K], f.scores[:K]) for f in found]
    kept = [(f, f.rows != row) for f, row in zip(found, own, strict=True)]
    return [Neighbors(f.rows[keep][:K], f.scores[keep][:K]) for f, keep in kept]


def _measured_dict(measured: Measured | None) -> dict[str, Any] | None:
    return None if measured is None else {"queries": measured.queries, "ann_recall_at_10": measured.ann_recall_at_10}

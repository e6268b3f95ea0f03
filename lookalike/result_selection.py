"""From the nearest rows of a query to the results on its page: thresholds, groups, near-duplicates, probabilities.

Dimension letters: q queries, d embedding width, n rows of the collection, m rows of its sample, r results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from lookalike.collapse import Collapser, group_numbers
from lookalike.match_calibration import MATCH, MatchCalibration
from lookalike.metadata import ItemRecords
from lookalike.row_search import RowSearch, SearchOptions
from lookalike.stopwatch import Stopwatch
from lookalike.types import Float32, Float64, Int64, Neighbors, VectorRows

_MIN_COLLAPSED_ROWS = 100
_SCORE_ROUNDING = 5e-7
"""Responses have six decimals: a score that was read in one must pass as `min_score`."""
_GROWTH = 4
"""Collapsing searches first for this many times the wanted rows, and then for this many times as many again."""
_MAX_CACHED_GROUP_BYTES = 64 << 20
_MAX_CACHED_GROUPS = 8


Probability = Callable[[Float32], Float64]
"""(r,) scores of one query -> (r,) probabilities."""


@dataclass(frozen=True, slots=True)
class Probabilities:
    """How the probabilities of a collection's results are computed.

    Attributes:
        model: fitted to queries of this kind.
        sample: (m, d) float32 unit vectors of the collection.
    """

    model: MatchCalibration
    sample: Float32


@dataclass(frozen=True, slots=True)
class Selected:
    """The results of one query on its page, best first.

    Attributes:
        rows: (r,) int64.
        scores: (r,) float32.
        probabilities: (r,) float64; None where they are not calibrated.
        groups: value of the column that results are grouped by; None for no grouping.
        duplicates: near-identical items that each result stands for.
        no_match: whether the query's best item hardly matches it; None where that is not calibrated.
    """

    rows: Int64
    scores: Float32
    probabilities: Float64 | None
    groups: Sequence[Any] | None
    duplicates: Sequence[int]
    no_match: bool | None


class ResultSelector:
    """Selects the results of queries on one opened collection; safe to call from several threads."""

    def __init__(self, rows: RowSearch, vectors: VectorRows, metadata: ItemRecords, max_candidates: int) -> None:
        """Up to `max_candidates` rows are searched by the index; more of them exactly."""
        self._rows = rows
        self._vectors = vectors
        self._metadata = metadata
        self._max_candidates = max_candidates
        # Not a bound method, which would be a reference cycle; see `RowSearcher`.
        size = min(_MAX_CACHED_GROUPS, max(1, _MAX_CACHED_GROUP_BYTES // max(1, 8 * len(vectors))))
        self._groups = lru_cache(size)(partial(group_numbers, columns=metadata))

    def select(
        self, queries: Float32, options: SearchOptions, probabilities: Probabilities | None, stopwatch: Stopwatch
    ) -> list[Selected]:
        """Return the results of each query: `limit` of them, if so many meet the options.

        Args:
            queries: (q, d) float32 of unit norm.
            options: of the search.
            probabilities: how to compute them; None for no probabilities.
            stopwatch: times the stages filter, search and rerank.
        """
        depth = options.offset + options.limit
        if options.collapses:
            depth = max(depth, min(self._max_candidates, max(_MIN_COLLAPSED_ROWS, _GROWTH * depth)))
        found = self._rows.search(queries, replace(options, limit=depth), stopwatch)
        with stopwatch.stage("rerank"):
            background = None if probabilities is None else queries @ probabilities.sample.T
        selected: list[Selected] = []
        for i, neighbors in enumerate(found):
            probability: Probability | None = None
            if probabilities is not None and background is not None:
                count = self._rows.count(options.filter)
                probability = partial(probabilities.model.probabilities, background=background[i], count=count)
            kept = neighbors, [0] * len(neighbors.rows)
            if options.collapses:
                kept = self._collapse(queries[i], neighbors, depth, options, probability, stopwatch)
            selected.append(self._page(neighbors, *kept, options, probability))
        return selected

    def _page(
        self,
        nearest: Neighbors,
        kept: Neighbors,
        duplicates: Sequence[int],
        options: SearchOptions,
        probability: Probability | None,
    ) -> Selected:
        """Return the page of the kept results; `nearest` begins with the query's best item."""
        end = min(options.offset + options.limit, _passing(kept.scores, probability, options))
        page = slice(options.offset, end)
        rows, scores = kept.rows[page], kept.scores[page]
        probabilities = no_match = None
        if probability is not None:
            best, count = nearest.scores[:1], len(nearest.scores[:1])
            both = probability(np.concatenate([best, scores]))
            probabilities, no_match = both[count:], not (both[:count] >= MATCH).any()
        return Selected(
            rows=rows,
            scores=scores,
            probabilities=probabilities,
            groups=None if options.group_by is None else self._metadata.values(options.group_by, rows.tolist()),
            duplicates=duplicates[page],
            no_match=no_match,
        )

    def _collapse(
        self,
        query: Float32,
        neighbors: Neighbors,
        depth: int,
        options: SearchOptions,
        probability: Probability | None,
        stopwatch: Stopwatch,
    ) -> tuple[Neighbors, list[int]]:
        """Return a query's results and what they stand for; search beyond its `depth` neighbors if they are too few."""
        groups = None if options.group_by is None else self._groups(options.group_by)
        wanted = options.offset + options.limit
        collapser = Collapser(wanted, self._vectors, options.deduplicate, groups, options.group_size)
        while True:
            passing = _passing(neighbors.scores, probability, options)
            with stopwatch.stage("rerank"):
                collapser.add(Neighbors(neighbors.rows[:passing], neighbors.scores[:passing]))
            if collapser.complete or passing < depth:  # there are no more neighbors, or no better ones
                break
            whole = depth * _GROWTH > self._max_candidates
            depth = len(self._vectors) if whole else depth * _GROWTH
            further = replace(options, limit=depth, exact=options.exact or whole)
            neighbors = self._rows.search(query[None], further, stopwatch, collapser.remaining())[0]
        rows, scores = np.array(collapser.rows, np.int64), np.array(collapser.scores, np.float32)
        order = np.lexsort((rows, -scores))  # an approximate search may find better ones later
        return Neighbors(rows[order], scores[order]), [collapser.duplicates[i] for i in order.tolist()]


def _passing(scores: Float32, probability: Probability | None, options: SearchOptions) -> int:
    """Return the number of neighbors, which are best first, that reach the thresholds."""
    if options.min_score is None and options.min_probability is None:
        return len(scores)
    passing = np.ones(len(scores), np.bool_)
    if options.min_score is not None:
        passing &= scores + _SCORE_ROUNDING >= options.min_score
    if options.min_probability is not None and probability is not None:
        passing &= probability(scores) >= options.min_probability
    return int(np.count_nonzero(passing))

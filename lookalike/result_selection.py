"""From the nearest rows of a query to the results on its page: thresholds, groups, near-duplicates, probabilities.

Dimension letters: q queries, d embedding width, n rows of the collection, m rows of its sample, r results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lookalike.collapse import Collapsed, collapse
from lookalike.match_calibration import MatchCalibration
from lookalike.metadata import Metadata
from lookalike.row_search import RowSearcher, SearchOptions
from lookalike.stopwatch import Stopwatch
from lookalike.types import Float16, Float32, Float64, Int64, Neighbors

_MIN_COLLAPSED_ROWS = 100
_SCORE_ROUNDING = 5e-7
"""Responses have six decimals: a score that was read in one must pass as `min_score`."""
_GROWTH = 4
"""Collapsing searches first for this many times the wanted rows, and then for this many times as many again."""


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

    def __init__(self, rows: RowSearcher, vectors: Float16, metadata: Metadata, max_candidates: int) -> None:
        """Up to `max_candidates` rows are searched by the index; more of them exactly."""
        self._rows = rows
        self._vectors = vectors
        self._metadata = metadata
        self._max_candidates = max_candidates

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
        wanted = options.offset + options.limit
        depth = wanted
        if options.collapses:
            depth = max(wanted, min(self._max_candidates, max(_MIN_COLLAPSED_ROWS, _GROWTH * wanted)))
        selected: dict[int, Selected] = {}
        pending = list(range(len(queries)))
        while pending:
            whole = depth > self._max_candidates and depth > wanted
            depth = len(self._vectors) if whole else depth
            searched = replace(options, limit=max(1, depth), exact=options.exact or whole)
            found = self._rows.search(queries[pending], searched, stopwatch)
            with stopwatch.stage("rerank"):
                background = None if probabilities is None else queries[pending] @ probabilities.sample.T
                for i, neighbors in enumerate(found):
                    last = len(neighbors.rows) < depth or depth >= len(self._vectors)
                    evidence = None if background is None else background[i]
                    page = self._page(neighbors, options, wanted, last, probabilities, evidence)
                    if page is not None:
                        selected[pending[i]] = page
            pending = [i for i in pending if i not in selected]
            depth *= _GROWTH
        return [selected[i] for i in range(len(queries))]

    def _page(
        self,
        neighbors: Neighbors,
        options: SearchOptions,
        wanted: int,
        last: bool,
        probabilities: Probabilities | None,
        background: Float32 | None,
    ) -> Selected | None:
        """Return the results among a query's neighbors; None if there may be more beyond the `last` of them."""
        values = None
        if probabilities is not None and background is not None:
            count = self._rows.count(options.filter)
            values = probabilities.model.probabilities(neighbors.scores, background, count)
        passing = _passing(neighbors.scores, values, options)
        kept = self._collapse(neighbors.rows[:passing], wanted, options)
        if len(kept.positions) < wanted and not last and passing == len(neighbors.rows):
            return None
        on_page = kept.positions[options.offset : wanted]
        rows = neighbors.rows[on_page]
        return Selected(
            rows=rows,
            scores=neighbors.scores[on_page],
            probabilities=None if values is None else values[on_page],
            groups=None if options.group_by is None else self._metadata.values(options.group_by, rows.tolist()),
            duplicates=kept.duplicates[options.offset : wanted],
            no_match=None if values is None else not (len(values) and values[0] >= 0.5),
        )

    def _collapse(self, rows: Int64, wanted: int, options: SearchOptions) -> Collapsed:
        if not options.collapses:
            count = min(wanted, len(rows))
            return Collapsed(list(range(count)), [0] * count)
        groups = None if options.group_by is None else self._metadata.values(options.group_by, rows.tolist())
        return collapse(
            rows,
            wanted,
            groups=groups,
            group_size=options.group_size,
            vectors=self._vectors,
            threshold=options.deduplicate,
        )


def _passing(scores: Float32, probabilities: Float64 | None, options: SearchOptions) -> int:
    """Return the number of neighbors, which are best first, that reach the thresholds."""
    passing = np.ones(len(scores), np.bool_)
    if options.min_score is not None:
        passing &= scores + _SCORE_ROUNDING >= options.min_score
    if options.min_probability is not None and probabilities is not None:
        passing &= probabilities >= options.min_probability
    return int(np.count_nonzero(passing))

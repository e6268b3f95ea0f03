"""Search for the rows nearest to query vectors, with filters: by index, by scanning, or exactly.

Dimension letters: q queries, d embedding width, n rows of the collection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol

import numpy as np
from typing_extensions import override

from lookalike.approximate_search import approximate_search
from lookalike.columns import Columns
from lookalike.filters import Filter, filter_mask
from lookalike.memmap import random_access_mmap
from lookalike.rerank import rerank
from lookalike.stopwatch import Stopwatch
from lookalike.stores.exact import ExactStore
from lookalike.stores.protocol import FilteringStore, SearchParameters, VectorStore
from lookalike.types import Bool, Float16, Float32, Int64, Neighbors

_MAX_SCANNED_ROWS, _MAX_SCANNED_FRACTION = 2_000, 0.01
_MAX_CACHED_MASK_BYTES = 64 << 20
_MAX_CACHED_MASKS = 64
_MAX_CACHED_FILTER_CHARACTERS = 64 << 10
TUNED_LIMIT = 10
"""The `limit` for which a store's defaults were tuned."""
# For a limit f times as large, each default grows by f ** this. Measured on 500,000 CLIP-like vectors, with the
# defaults that give a recall of 0.95 for ten: recall of the hundred nearest 0.81 -> 0.96, of the thirty 0.91 -> 0.96.
_GROWTH_WITH_LIMIT = {"nprobe": 0.25, "candidates": 0.7, "efSearch": 0.25}


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Options of a search.

    Attributes:
        limit: number of items to return.
        filter: which items may be returned; None for all.
        params: search parameters of the store for this search only, such as `nprobe` and `candidates`.
        exact: whether to compare the query with every allowed vector instead of using the index.
        fields: columns of the results' metadata; None for all.
        offset: number of results to skip.
        min_score: lowest cosine of a result, in [-1, 1].
        min_probability: lowest probability of a result, in [0, 1].
        group_by: column of which each value has at most `group_size` results. Items without a value are not grouped.
        group_size: maximum number of results of a group.
        deduplicate: cosine in (0, 1] from which an item counts as near-identical to a better result, and is left out.
        embeddings: whether results have their embedding.
    """

    limit: int = 10
    filter: Filter | None = None
    params: SearchParameters | None = None
    exact: bool = False
    fields: tuple[str, ...] | None = None
    offset: int = 0
    min_score: float | None = None
    min_probability: float | None = None
    group_by: str | None = None
    group_size: int = 1
    deduplicate: float | None = None
    embeddings: bool = False

    @property
    def collapses(self) -> bool:
        """Whether some of the nearest items are left out in favour of better ones."""
        return self.group_by is not None or self.deduplicate is not None


@dataclass(frozen=True, slots=True)
class _FilteredRows:
    """The rows that pass a filter; `rows` is set if they are so few that scanning them is faster than the index."""

    mask: Bool
    count: int
    rows: Int64 | None


class RowSearch(Protocol):
    """Search for rows of a collection; safe to call from several threads."""

    def search(
        self, queries: Float32, options: SearchOptions, stopwatch: Stopwatch, allowed: Bool | None = None
    ) -> list[Neighbors]:
        """Return at most `options.limit` rows for each query, best first.

        Args:
            queries: (q, d) float32 of unit norm.
            options: limit, filter and search parameters.
            stopwatch: times the stages filter, search and rerank.
            allowed: (n,) bool, the rows that may be returned; None for all.

        Raises:
            FilterInvalid: the filter does not fit the metadata.
            QueryError: the store has no search parameter of that name.
        """
        ...

    def count(self, condition: Filter | None) -> int:
        """Return the number of rows that pass a filter. Raises FilterInvalid: it does not fit the metadata."""
        ...

    def filtered_rows(self, condition: Filter) -> Int64:
        """Return the rows that pass a filter, (m,) ascending. Raises FilterInvalid: it does not fit the metadata."""
        ...


class RowSearcher(RowSearch):
    """Search for rows of one opened version."""

    def __init__(self, store: VectorStore, vectors: Float16, metadata: Columns, max_candidates: int = 10_000) -> None:
        """`max_candidates` limits how far the store's defaults grow with a search's limit."""
        self._store = store
        self._max_candidates = max_candidates
        self._vectors = vectors if store.exact else random_access_mmap(vectors)
        self._exact: VectorStore = store if store.exact else ExactStore(vectors)
        cache_size = min(_MAX_CACHED_MASKS, max(1, _MAX_CACHED_MASK_BYTES // max(1, len(vectors))))
        # Successive pages of results use the same filter. Not a bound method: the reference cycle would keep a
        # replaced version in memory until the garbage collector runs.
        self._evaluate = partial(_evaluate, metadata)
        self._evaluate_cached = lru_cache(cache_size)(self._evaluate)

    @override
    def search(
        self, queries: Float32, options: SearchOptions, stopwatch: Stopwatch, allowed: Bool | None = None
    ) -> list[Neighbors]:
        mask = allowed
        if options.filter is not None or allowed is not None:
            with stopwatch.stage("filter"):
                filtered = self._allowed(options.filter, allowed)
            mask = filtered.mask
            if filtered.rows is not None:
                self._check_params(options)
                with stopwatch.stage("search"):
                    return self._scan(queries, filtered.rows, options.limit)
        if options.exact or self._store.exact:
            self._check_params(options)
            with stopwatch.stage("search"):
                return self._exact.search(queries, options.limit, mask=mask)
        return self._search_index(queries, options, mask, stopwatch, is_filter_alone=allowed is None)

    def _search_index(
        self,
        queries: Float32,
        options: SearchOptions,
        mask: Bool | None,
        stopwatch: Stopwatch,
        *,
        is_filter_alone: bool,
    ) -> list[Neighbors]:
        defaults = scaled_for_limit(self._store.defaults, options.limit, self._max_candidates)
        params = {**defaults, **(options.params or {})}
        store = self._store_for(options.filter) if is_filter_alone else self._store
        search = partial(approximate_search, store, self._vectors, limit=options.limit, params=params)
        results = search(queries, mask=mask, stopwatch=stopwatch)
        if mask is not None:
            return results
        expected = min(options.limit, len(self._vectors))
        short = [i for i, neighbors in enumerate(results) if len(neighbors.rows) < expected]
        if short:  # the visited part of the index is too small; with a mask, even of all rows, stores search the rest
            all_rows = np.ones(len(self._vectors), dtype=np.bool_)
            for i, neighbors in zip(short, search(queries[short], mask=all_rows, stopwatch=stopwatch), strict=True):
                results[i] = neighbors
        return results

    def _store_for(self, condition: Filter | None) -> VectorStore:
        """Return the store that evaluates a filter itself, if it can."""
        if condition is None or not isinstance(self._store, FilteringStore):
            return self._store
        return self._store.filtered(condition)

    @override
    def count(self, condition: Filter | None) -> int:
        return len(self._vectors) if condition is None else self._filtered(condition).count

    @override
    def filtered_rows(self, condition: Filter) -> Int64:
        filtered = self._filtered(condition)
        return np.flatnonzero(filtered.mask) if filtered.rows is None else filtered.rows

    def _allowed(self, condition: Filter | None, allowed: Bool | None) -> _FilteredRows:
        if condition is None:
            assert allowed is not None
            return _as_rows(allowed)
        filtered = self._filtered(condition)
        return filtered if allowed is None else _as_rows(filtered.mask & allowed)

    def _filtered(self, condition: Filter) -> _FilteredRows:
        text = condition.model_dump_json(by_alias=True, exclude_unset=True)
        return (self._evaluate_cached if len(text) <= _MAX_CACHED_FILTER_CHARACTERS else self._evaluate)(text)

    def _check_params(self, options: SearchOptions) -> None:
        """Reject wrong search parameters even if the filter or `exact` makes the index unnecessary."""
        if options.params:
            self._store.search(np.empty((0, self._store.dim), np.float32), 1, options.params)

    def _scan(self, queries: Float32, rows: Int64, limit: int) -> list[Neighbors]:
        candidates = Neighbors(rows, np.empty(0, np.float32))  # `rerank` reads only the rows
        return rerank(queries, [candidates] * len(queries), self._vectors, limit)


def scaled_for_limit(defaults: SearchParameters, limit: int, maximum: int) -> dict[str, int]:
    """Return a store's defaults for a larger `limit` than they were tuned for: farther neighbours are harder to find.

    No default grows beyond `maximum`.

    >>> scaled_for_limit({"nprobe": 81, "candidates": 150}, 100, 10_000)
    {'nprobe': 145, 'candidates': 752}
    """
    factor = max(1.0, limit / TUNED_LIMIT)
    grown = {name: math.ceil(value * factor ** _GROWTH_WITH_LIMIT.get(name, 0.0)) for name, value in defaults.items()}
    return {name: max(value, min(grown[name], maximum)) for name, value in defaults.items()}


def _evaluate(metadata: Columns, text: str) -> _FilteredRows:
    mask = filter_mask(Filter.model_validate_json(text), metadata)
    mask.flags.writeable = False  # stores cache their own form of read-only masks
    return _as_rows(mask)


def _as_rows(mask: Bool) -> _FilteredRows:
    count = int(np.count_nonzero(mask))
    scan = count <= max(_MAX_SCANNED_ROWS, _MAX_SCANNED_FRACTION * len(mask))
    return _FilteredRows(mask, count, np.flatnonzero(mask) if scan else None)

"""Query vectors -> the nearest allowed rows by exact cosine: store or brute force, then re-ranking.

It decides which of them a filter is searched with. q queries, d embedding width, n rows of the collection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from lookalike.approximate_search import approximate_search
from lookalike.filters import Filter, filter_mask
from lookalike.memmap import scattered
from lookalike.metadata import Metadata
from lookalike.rerank import rerank
from lookalike.stopwatch import Stopwatch
from lookalike.stores.exact import ExactStore
from lookalike.stores.protocol import SearchParameters, VectorStore
from lookalike.types import Bool, Float16, Float32, Int64, Neighbors

_FEW_ROWS, _FEW_SHARE = 2_000, 0.01
_MASK_BYTES = 64 << 20
_MOST_MASKS = 64
_LONGEST_KEPT = 64 << 10  # characters of a filter that is remembered
TUNED_LIMIT = 10
"""The `limit` that a store's defaults were tuned for."""
# For a limit f times as large each default grows by f ** this. Measured on 500,000 CLIP-like vectors: recall of the
# hundred nearest 0.81 -> 0.96, of the thirty nearest 0.91 -> 0.96, with the defaults that give 0.95 for ten.
_BROADENING = {"nprobe": 0.25, "candidates": 0.7, "efSearch": 0.25}


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a search may ask for beside its query.

    Attributes:
        limit: how many items.
        filter: which items may be found; None for all.
        params: the store's search parameters for this search alone, such as `nprobe` and `candidates`.
        exact: compare with every allowed vector instead of asking the index.
    """

    limit: int = 10
    filter: Filter | None = None
    params: SearchParameters | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class _Allowed:
    """The rows that a filter lets through; `rows` where there are so few that scanning them beats the index."""

    mask: Bool
    rows: Int64 | None


class RowSearcher:
    """Finds rows of one opened collection; safe to call from several threads."""

    def __init__(self, store: VectorStore, vectors: Float16, metadata: Metadata, most: int = 10_000) -> None:
        """`most`: candidates of a query, where it does not name them itself and the store's defaults are fewer."""
        self._store = store
        self._most = most
        self._vectors = vectors if store.exact else scattered(vectors)
        self._exact: VectorStore = store if store.exact else ExactStore(vectors)
        kept = min(_MOST_MASKS, max(1, _MASK_BYTES // max(1, len(vectors))))
        # A page of results, and the next one, ask the same filter. No bound method: a replaced version must go at once,
        # and not when the collector of cycles comes by.
        self._evaluate = partial(_evaluate, metadata)
        self._allowed = lru_cache(kept)(self._evaluate)

    def search(self, queries: Float32, options: SearchOptions, watch: Stopwatch) -> list[Neighbors]:
        """At most `options.limit` rows of each query, best first.

        Args:
            queries: (q, d) float32 of unit norm.
            options: limit, filter and search parameters.
            watch: gets the stages filter, search and rerank.

        Raises:
            FilterInvalid: the filter does not fit the metadata.
            QueryError: a search parameter that the store does not have.
        """
        mask = None
        if options.filter is not None:
            text = options.filter.model_dump_json(by_alias=True, exclude_unset=True)
            with watch.stage("filter"):
                allowed = (self._allowed if len(text) <= _LONGEST_KEPT else self._evaluate)(text)
            mask = allowed.mask
            if allowed.rows is not None:
                self._refuse(options)
                with watch.stage("search"):
                    return self._scan(queries, allowed.rows, options.limit)
        if options.exact or self._store.exact:
            self._refuse(options)
            with watch.stage("search"):
                return self._exact.search(queries, options.limit, mask=mask)
        wanted = {**scaled_for_limit(self._store.defaults, options.limit, self._most), **(options.params or {})}
        found = approximate_search(self._store, self._vectors, queries, options.limit, wanted, mask, watch)
        least = min(options.limit, len(self._vectors))
        short = [row for row, neighbors in enumerate(found) if len(neighbors.rows) < least] if mask is None else []
        if short:  # what is visited holds too few; under a mask, if one of all rows, stores look further
            every = np.ones(len(self._vectors), dtype=np.bool_)
            wider = approximate_search(self._store, self._vectors, queries[short], options.limit, wanted, every, watch)
            for row, neighbors in zip(short, wider, strict=True):
                found[row] = neighbors
        return found

    def _refuse(self, options: SearchOptions) -> None:
        """Wrong search parameters are wrong, too, where the filter, or `exact`, leaves the index nothing to do."""
        if options.params:
            self._store.search(np.empty((0, self._store.dim), np.float32), 1, options.params)

    def _scan(self, queries: Float32, rows: Int64, limit: int) -> list[Neighbors]:
        scores = np.empty(0, np.float32)  # rerank reads rows alone
        return rerank(queries, [Neighbors(rows, scores)] * len(queries), self._vectors, limit)


def scaled_for_limit(defaults: SearchParameters, limit: int, most: int) -> dict[str, int]:
    """A store's defaults for a larger `limit` than they were tuned for, since farther neighbours are harder to find.

    No default grows beyond `most`.

    >>> broadened({"nprobe": 81, "candidates": 150}, 100, 10_000)
    {'nprobe': 145, 'candidates': 752}
    """
    factor = max(1.0, limit / TUNED_LIMIT)
    grown = {name: math.ceil(value * factor ** _BROADENING.get(name, 0.0)) for name, value in defaults.items()}
    return {name: max(value, min(grown[name], most)) for name, value in defaults.items()}


def _evaluate(metadata: Metadata, text: str) -> _Allowed:
    mask = filter_mask(Filter.model_validate_json(text), metadata)
    mask.flags.writeable = False  # stores remember what they made of it
    few = int(mask.sum()) <= max(_FEW_ROWS, _FEW_SHARE * len(mask))
    return _Allowed(mask, np.flatnonzero(mask) if few else None)

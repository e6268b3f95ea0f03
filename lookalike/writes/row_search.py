"""Search for rows of a version and of what was written since: the version by its index, the delta exactly, merged.

Dimension letters: q queries, d embedding width, n rows of the version, m slots of the delta.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import numpy as np
from typing_extensions import override

from lookalike.cores import available_cores
from lookalike.filters import Filter, filter_mask
from lookalike.row_search import RowSearch, RowSearcher, SearchOptions
from lookalike.stopwatch import Stopwatch
from lookalike.stores.exact import ExactStore
from lookalike.types import Bool, Float32, Int64, Neighbors
from lookalike.writes.live_collection import DeltaColumns, LiveCollection

_MAX_CACHED_MASKS = 64
_MIN_CONCURRENT_SLOTS = 2_048
_THREADS = ThreadPoolExecutor(available_cores(), "delta")
"""A single query searches a large delta beside the index: half a millisecond less (benchmarks/history/writes.md)."""


class LiveRowSearcher(RowSearch):
    """Search for rows of a collection at one moment.

    Attributes:
        version: searches the rows of the version, dead ones included.
    """

    def __init__(self, version: RowSearcher, written: LiveCollection) -> None:
        self.version = version
        self._split = len(written.version)
        self._version_live = written.version_live
        self._delta_live = written.slots_live
        self._delta_full = bool(self._delta_live.all())
        self._delta_count = int(np.count_nonzero(self._delta_live))
        self._delta = ExactStore(written.delta.vectors(written.slots), copies=False)
        self._count = written.count
        columns = DeltaColumns(written.delta, written.slots, dict(written.types))
        self._delta_passing = lru_cache(_MAX_CACHED_MASKS)(partial(_passing, columns, self._delta_live))

    @override
    def search(
        self, queries: Float32, options: SearchOptions, stopwatch: Stopwatch, allowed: Bool | None = None
    ) -> list[Neighbors]:
        version_allowed = self._version_live
        if allowed is not None:
            first = allowed[: self._split]
            version_allowed = first if version_allowed is None else first & version_allowed
        if not self._delta_count:
            return self.version.search(queries, options, stopwatch, version_allowed)
        mask = None if self._delta_full and options.filter is None else self._delta_mask(options.filter)
        if allowed is not None:
            mask = allowed[self._split :] if mask is None else mask & allowed[self._split :]
        search_delta = partial(self._delta.search, queries, options.limit, mask=mask)
        if len(queries) == 1 and self._delta_count >= _MIN_CONCURRENT_SLOTS:
            future = _THREADS.submit(search_delta)
            found = self.version.search(queries, options, stopwatch, version_allowed)
            with stopwatch.stage("search"):
                written = future.result()
        else:
            found = self.version.search(queries, options, stopwatch, version_allowed)
            with stopwatch.stage("search"):
                written = search_delta()
        return [self._merged(a, b, options.limit) for a, b in zip(found, written, strict=True)]

    def _merged(self, found: Neighbors, written: Neighbors, limit: int) -> Neighbors:
        rows = np.concatenate([found.rows, written.rows + self._split])
        scores = np.concatenate([found.scores, written.scores])
        order = np.argsort(-scores, kind="stable")[:limit]  # ties: rows of the version come first, as they are lower
        return Neighbors(rows[order], scores[order])

    @override
    def count(self, condition: Filter | None) -> int:
        return self._count if condition is None else len(self.filtered_rows(condition))

    @override
    def filtered_rows(self, condition: Filter) -> Int64:
        rows = self.version.filtered_rows(condition)
        if self._version_live is not None:
            rows = rows[self._version_live[rows]]
        written = np.flatnonzero(self._delta_mask(condition))
        return np.concatenate([rows, written + self._split])

    def _delta_mask(self, condition: Filter | None) -> Bool:
        if condition is None:
            return self._delta_live
        return self._delta_passing(condition.model_dump_json(by_alias=True, exclude_unset=True))


def _passing(columns: DeltaColumns, live: Bool, text: str) -> Bool:
    return filter_mask(Filter.model_validate_json(text), columns) & live

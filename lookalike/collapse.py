"""Collapsing of search results: few of each group, and one of several near-identical items.

Rows are visited best first. A row is left out if a better result is near-identical to it, or if its group is full.

Dimension letters: n rows of the collection, m candidate rows, b rows of a block, r results, d embedding width.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.columns import Columns, field_values
from lookalike.comparisons import numpy_mask
from lookalike.rerank import normalized_rows
from lookalike.types import Bool, Float32, Int64, Neighbors, VectorRows

NEAR_IDENTICAL = 0.93
"""Cosine from which two images count as near-identical unless the user says otherwise."""
_BLOCK_ROWS = 256
_UNGROUPED = -1


def group_numbers(name: str, columns: Columns) -> Int64:
    """Return the number of each row's group, (n,): equal for rows of equal value, -1 for those without a value.

    Args:
        name: a column of single values, or a field of a column of records.
        columns: the table.
    """
    values = field_values(name, columns)
    if pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    elif isinstance(values.type, pa.UuidType):
        values = values.cast(values.type.storage_type)
    elif pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    encoded = values.dictionary_encode()
    chunks = [chunk.indices.fill_null(_UNGROUPED).to_numpy() for chunk in encoded.chunks]
    numbers: Int64 = np.concatenate([np.empty(0, np.int64), *chunks])
    if pa.types.is_floating(values.type):
        numbers[numpy_mask(pc.is_nan(values))] = _UNGROUPED
    numbers.flags.writeable = False
    return numbers


class Collapser:
    """The results of one query among candidates that are added best first.

    Attributes:
        rows: of the results.
        scores: of the results.
        duplicates: for each result, the number of candidates that are near-identical to it and to no better one.
    """

    def __init__(
        self, wanted: int, vectors: VectorRows, threshold: float | None, groups: Int64 | None, group_size: int
    ) -> None:
        """Start without results.

        Args:
            wanted: maximum number of results.
            vectors: (n, d) float16 of about unit norm.
            threshold: cosine from which two items are near-identical; None to keep them.
            groups: (n,) as from `group_numbers`; None for no grouping.
            group_size: maximum number of results of a group.
        """
        self.rows: list[int] = []
        self.scores: list[float] = []
        self.duplicates: list[int] = []
        self._wanted = wanted
        self._vectors = vectors
        self._threshold = threshold
        self._groups = groups
        self._group_size = group_size
        self._sizes: dict[int, int] = {}
        self._unseen = np.ones(len(vectors), np.bool_)
        self._results: Float32 = np.empty((0, vectors.shape[1]), np.float32)

    @property
    def complete(self) -> bool:
        """Whether there are as many results as wanted."""
        return len(self.rows) >= self._wanted

    def add(self, candidates: Neighbors) -> None:
        """Add (m,) candidates that were not added before, best first."""
        self._unseen[candidates.rows] = False
        for top in range(0, len(candidates.rows), _BLOCK_ROWS):
            part = slice(top, top + _BLOCK_ROWS)
            rows, scores = candidates.rows[part], candidates.scores[part]
            if self._threshold is None:
                self._add_distinct(rows, scores)
            else:
                self._add_block(rows, scores, self._threshold)

    def remaining(self) -> Bool:
        """Return (n,) bool: the rows that were not added and whose group is not full."""
        if self._groups is None:
            return self._unseen
        full = [group for group, size in self._sizes.items() if size >= self._group_size]
        return self._unseen & ~np.isin(self._groups, full)

    def _add_distinct(self, rows: Int64, scores: Float32) -> None:
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            self._keep(row, score)

    def _add_block(self, rows: Int64, scores: Float32, threshold: float) -> None:
        """Add (b,) candidates of which some may be near-identical to results or to each other."""
        block = normalized_rows(self._vectors[rows])
        similar_results = block @ self._results.T >= threshold  # (b, r)
        similar_in_block = block @ block.T >= threshold  # (b, b)
        before, kept = len(self._results), list[int]()
        for i, (row, score) in enumerate(zip(rows.tolist(), scores.tolist(), strict=True)):
            if (result := _first(similar_results[i])) is not None:
                self.duplicates[result] += 1
            elif (result := _first(similar_in_block[i, kept])) is not None:
                self.duplicates[before + result] += 1
            elif self._keep(row, score):
                kept.append(i)
        self._results = np.concatenate([self._results, block[kept]])

    def _keep(self, row: int, score: float) -> bool:
        """Make a row a result unless there are enough, or its group is full."""
        if self.complete:
            return False
        if self._groups is not None and (group := int(self._groups[row])) != _UNGROUPED:
            size = self._sizes.get(group, 0)
            if size >= self._group_size:
                return False
            self._sizes[group] = size + 1
        self.rows.append(row)
        self.scores.append(score)
        self.duplicates.append(0)
        return True


def _first(values: Bool) -> int | None:
    """Return the position of the first True, None if there is none."""
    position = int(np.argmax(values)) if len(values) else 0
    return position if len(values) and values[position] else None

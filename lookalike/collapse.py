"""Collapsing of search results: few of each group, and one of several near-identical items.

Rows are visited best first. A row is left out if a better result is near-identical to it, or if its group is full.

Dimension letters: m candidate rows, b rows of a block, r results, d embedding width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lookalike.rerank import normalized_rows
from lookalike.types import Float16, Float32, Int64

NEAR_IDENTICAL = 0.93
"""Cosine from which two images count as near-identical unless the user says otherwise."""
_BLOCK_ROWS = 256


@dataclass(slots=True)
class Collapsed:
    """The results among some candidates.

    Attributes:
        positions: of the results among the candidates, ascending.
        duplicates: for each result, the number of candidates that are near-identical to it and to no better one.
    """

    positions: list[int] = field(default_factory=list)
    duplicates: list[int] = field(default_factory=list)


def collapse(
    rows: Int64,
    wanted: int,
    *,
    groups: Sequence[Any] | None,
    group_size: int,
    vectors: Float16,
    threshold: float | None,
) -> Collapsed:
    """Return the first results among candidate rows.

    Args:
        rows: (m,) candidates, best first.
        wanted: maximum number of results.
        groups: the group of each candidate, None for one without; None for no grouping.
        group_size: maximum number of results of a group.
        vectors: (n, d) float16 of about unit norm, by row.
        threshold: cosine from which two items are near-identical; None to keep them.
    """
    if threshold is None:
        return _by_group(len(rows), wanted, groups, group_size)
    collapsed, sizes = Collapsed(), Counter[Any]()
    results: Float32 = np.empty((0, vectors.shape[1]), np.float32)
    for top in range(0, len(rows), _BLOCK_ROWS):
        block = normalized_rows(vectors[rows[top : top + _BLOCK_ROWS]])
        similar_results = block @ results.T >= threshold  # (b, r)
        similar_in_block = block @ block.T >= threshold  # (b, b)
        added: list[int] = []
        for i in range(len(block)):
            nearer = _first(similar_results[i])
            if nearer is None and (in_block := _first(similar_in_block[i, added])) is not None:
                nearer = len(results) + in_block
            if nearer is not None:
                collapsed.duplicates[nearer] += 1
            elif len(collapsed.positions) < wanted and _has_room(groups, top + i, sizes, group_size):
                added.append(i)
                collapsed.positions.append(top + i)
                collapsed.duplicates.append(0)
        results = np.concatenate([results, block[added]])
    return collapsed


def _by_group(count: int, wanted: int, groups: Sequence[Any] | None, group_size: int) -> Collapsed:
    sizes = Counter[Any]()
    positions = [i for i in range(count) if _has_room(groups, i, sizes, group_size)][:wanted]
    return Collapsed(positions, [0] * len(positions))


def _has_room(groups: Sequence[Any] | None, position: int, sizes: Counter[Any], group_size: int) -> bool:
    """Return whether the group of a candidate is not full yet; count the candidate if so."""
    group = None if groups is None else groups[position]
    if group is None:
        return True
    if sizes[group] >= group_size:
        return False
    sizes[group] += 1
    return True


def _first(values: Any) -> int | None:
    """Return the position of the first True, None if there is none."""
    position = int(np.argmax(values)) if len(values) else 0
    return position if len(values) and values[position] else None

"""The presets that a store's name leaves to choose among, and whether any of them fits the memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from indexing.build.budget import IndexBudget, format_size
from lookalike.errors import BudgetImpossible, SourceError
from lookalike.stores.presets import PRESETS, Preset, default_preset
from lookalike.stores.registry import AUTO, FAISS


def candidates(store: str, count: int) -> list[Preset]:
    """Return the presets that a store's name leaves to choose among.

    Raises:
        SourceError: the store has no presets, so it supports no limit of memory or time.
    """
    if store in PRESETS:
        return [PRESETS[store]]
    if store == FAISS:
        return [default_preset(count)]
    if store == AUTO:
        return [preset for preset in PRESETS.values() if count >= preset.min_rows]
    raise SourceError(f"--memory, --latency and --explain choose among presets; leave them out with --store {store}")


def require_possible(
    presets: Sequence[Preset], count: int, dim: int, budget: IndexBudget, min_share: float = 1.0
) -> None:
    """Check that one of the presets fits the memory.

    Args:
        presets: to choose among.
        count: expected number of vectors.
        dim: their width.
        budget: only its memory is checked.
        min_share: share of `count` that is certain; a preset that holds that many is not ruled out.

    Raises:
        BudgetImpossible: none fits; the message names the smallest.
    """
    if budget.memory is None or not count:
        return
    smallest = min(presets, key=lambda preset: preset.memory_bytes(count, dim))
    needed = smallest.memory_bytes(count, dim)
    # The suggestion suffices even if there are more vectors than expected.
    suggested = needed if min_share == 1 else smallest.memory_bytes(math.ceil(count * (2 - min_share)), dim)
    if needed > budget.memory and smallest.memory_bytes(max(1, int(min_share * count)), dim) > budget.memory:
        raise BudgetImpossible(
            f"no index of {count:,} vectors of width {dim} fits into {format_size(budget.memory)}: the smallest, "
            f"{smallest.name}, takes {format_size(needed)}; give --memory {format_size(suggested)}"
        )

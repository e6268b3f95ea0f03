"""Building of a store from memory-mapped vectors: train, add, finish; deterministic and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from lookalike.rerank import normalized_rows
from lookalike.stores.faiss.builder import add_held_out
from lookalike.stores.registry import AUTO, create_builder, resolve_kind
from lookalike.types import Float16, Float32, Int64

BuildProgress = Callable[[str, int, int], None]
"""(stage, rows done, total rows); stage is `train` or `add`."""

_BLOCK_ROWS = 16_384
_SEED = 0


def build_store(
    vectors: Float16,
    folder: Path,
    kind: str = AUTO,
    progress: BuildProgress | None = None,
    held_out: Int64 | None = None,
) -> tuple[str, Mapping[str, object]]:
    """Build a store over a collection's vectors.

    Args:
        vectors: (n, d) float16 of about unit norm, usually a memory map.
        folder: for the store's files.
        kind: a registered kind, a preset of `faiss`, or `auto`, which decides by n.
        progress: called after training and after each block that was added.
        held_out: rows that a graph does not hold until `complete_store`.

    Returns:
        The registered kind, and the parameters to open it with, JSON-ready, for the manifest.

    Raises:
        UnknownStore: the store is not registered.
        StoreUnavailable: the library behind the store failed.
    """
    count, dim = vectors.shape
    resolved = resolve_kind(kind, count)
    builder = create_builder(resolved if kind == AUTO else kind, count, dim, held_out, folder)
    report = progress or _ignore
    if builder.sample_size:
        builder.train(_sample(vectors, builder.sample_size))
        report("train", count, count)
    for done, block in _blocks(vectors):
        builder.add(block)
        report("add", done, count)
    return resolved, builder.finish(folder)


def complete_store(vectors: Float16, folder: Path, held_out: Int64) -> None:
    """Add the rows that were held out of a graph.

    Raises:
        StoreUnavailable: the library behind the store failed.
    """
    add_held_out(folder, held_out, normalized_rows(vectors[held_out]))


def _sample(vectors: Float16, size: int) -> Float32:
    """Draw (size, d) unit vectors without replacement, always the same ones; they are read in file order."""
    rows = np.random.default_rng(_SEED).choice(len(vectors), min(size, len(vectors)), replace=False)
    rows.sort()
    sample = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        sample[start : start + _BLOCK_ROWS] = normalized_rows(vectors[rows[start : start + _BLOCK_ROWS]])
    return sample


def _blocks(vectors: Float16) -> Iterator[tuple[int, Float32]]:
    """Yield (rows so far, unit vectors) in row order."""
    for start in range(0, len(vectors), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(vectors))
        yield stop, normalized_rows(vectors[start:stop])


def _ignore(stage: str, done: int, total: int) -> None:
    pass

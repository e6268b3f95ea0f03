"""Memory-mapped vectors -> a finished store: samples, trains, adds, in bounded memory, the same store every time.

It knows stores only through the builder protocol, and nothing of images or manifests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from lookalike.rerank import normalized_rows
from lookalike.stores.faiss.builder import add_held_out
from lookalike.stores.registry import AUTO, create_builder, resolve_kind
from lookalike.types import Float16, Float32, Int64

Progress = Callable[[str, int, int], None]
"""(stage, rows done, rows in all); stage is `train` or `add`."""

_ADD_ROWS = 16_384
_SEED = 0


def build_store(
    vectors: Float16,
    folder: Path,
    kind: str = AUTO,
    progress: Progress | None = None,
    held_out: Int64 | None = None,
) -> tuple[str, Mapping[str, object]]:
    """Builds a store over a collection's vectors.

    Args:
        vectors: (n, d) float16 of about unit norm, usually a memory map.
        folder: where the store's files go.
        kind: a registered kind, a preset of `faiss`, or `auto`, which decides by n.
        progress: called after training and after each piece that was added.
        held_out: rows that a graph is to be without until `complete_store`.

    Returns:
        The registered kind, and the parameters to open it with, JSON-ready, for the manifest.

    Raises:
        UnknownStore: no store goes by that name.
        StoreUnavailable: the library behind the store refused.
    """
    count, dim = vectors.shape
    resolved = resolve_kind(kind, count)
    builder = create_builder(resolved if kind == AUTO else kind, count, dim, held_out)
    report = progress or _silent
    if builder.sample_size:
        builder.train(_sample(vectors, builder.sample_size))
        report("train", count, count)
    for done, piece in _pieces(vectors):
        builder.add(piece)
        report("add", done, count)
    return resolved, builder.finish(folder)


def complete_store(vectors: Float16, folder: Path, held_out: Int64) -> None:
    """Puts the rows that were held out of a graph into it.

    Raises:
        StoreUnavailable: the library behind the store refused.
    """
    add_held_out(folder, held_out, normalized_rows(vectors[held_out]))


def _sample(vectors: Float16, size: int) -> Float32:
    """(size, d) unit vectors drawn without repetition; read in file order, and always the same ones."""
    rows = np.random.default_rng(_SEED).choice(len(vectors), min(size, len(vectors)), replace=False)
    rows.sort()
    sample = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _ADD_ROWS):
        sample[start : start + _ADD_ROWS] = normalized_rows(vectors[rows[start : start + _ADD_ROWS]])
    return sample


def _pieces(vectors: Float16) -> Iterator[tuple[int, Float32]]:
    """(rows so far, unit vectors) in row order."""
    for start in range(0, len(vectors), _ADD_ROWS):
        stop = min(start + _ADD_ROWS, len(vectors))
        yield stop, normalized_rows(vectors[start:stop])


def _silent(stage: str, done: int, total: int) -> None:
    """Nobody is watching."""

"""Any number of rows -> the few row counts that a graph of convolutions is compiled for.

Such a graph of fixed shape runs faster than one of free shape (EfficientNet-Lite0 in bf16: 530 against 200 images/s),
and each shape costs a compilation at its first use. Rows are independent, so padding rows change no result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.encoders.engines.tower import Arrays, Tower
from lookalike.types import Float32


def plan(n: int, batches: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Split n rows into (start, stop, rows run), padding only a batch that is more than half full.

    Args:
        n: rows to run, >= 0.
        batches: row counts that may be run, ascending, the first one 1.

    >>> list(plan(19, (1, 8)))
    [(0, 8, 8), (8, 16, 8), (16, 17, 1), (17, 18, 1), (18, 19, 1)]
    >>> list(plan(7, (1, 8)))
    [(0, 7, 8)]
    """
    start = 0
    while start < n:
        left = n - start
        size = next((b for b in batches if left <= b < 2 * left), None)
        if size is None:
            size = max(b for b in batches if b <= left)
        stop = min(n, start + size)
        yield start, stop, size
        start = stop


def plan_tokens(ids: NDArray[Any], tokens: int, rows: int) -> Iterator[tuple[int, int, int]]:
    """Split rows into (start, stop, rows run) within limits of tokens and rows; a single row is always allowed.

    Args:
        ids: (n, t), zeros after each row's end.
        tokens: maximum of one call.
        rows: maximum of one call.

    >>> list(plan_tokens(np.array([[5, 9, 0, 0], [5, 9, 0, 0], [5, 7, 7, 9]]), 5, 32))
    [(0, 2, 2), (2, 3, 1)]
    """
    lengths = np.where(ids != 0, np.arange(1, ids.shape[1] + 1), 0).max(axis=1, initial=1)
    start, held = 0, 0
    for row, length in enumerate(lengths.tolist()):
        if row > start and (held + length > tokens or row - start == rows):
            yield start, row, row - start
            start, held = row, 0
        held += length
    if len(ids):
        yield start, len(ids), len(ids) - start


def steps(tower: Tower, inputs: Arrays, batches: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Return (start, stop, rows run) of the calls that the tower needs."""
    if tower.max_packed_tokens:
        return plan_tokens(inputs[0], tower.max_packed_tokens, batches[-1])
    return plan(len(inputs[0]), batches)


def run_batched(
    run: Callable[[Arrays], Float32], inputs: Arrays, planned: Iterable[tuple[int, int, int]], dim: int
) -> Float32:
    """Call `run` with arrays of planned row counts and gather (n, d) float32."""
    gathered = np.empty((len(inputs[0]), dim), np.float32)
    for start, stop, size in planned:
        rows = run(tuple(padded(array[start:stop], size) for array in inputs))
        gathered[start:stop] = rows[: stop - start]
    return gathered


def padded(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array with its last row repeated up to `size` rows, C-contiguous."""
    missing = size - len(array)
    if missing:
        array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
    return np.ascontiguousarray(array)

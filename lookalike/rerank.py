"""Exact cosines for candidate rows: the last step of every search, and the only source of scores.

A store proposes rows; `rerank` reads them from the collection's memory-mapped float16 vectors and scores them in
float32. The exact store uses the same function, so a score never depends on the index.

Dimension letters: n rows of the collection, q queries, d embedding width, c candidates of a query, k neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lookalike.cores import available_cores
from lookalike.errors import DimensionMismatch, QueryError
from lookalike.types import Float16, Float32, Int64, Neighbors

_BLOCK_ELEMENTS = 1 << 18  # float32 elements upcast at a time: 1 MB, which fits into a core's L2 cache
_MIN_PAIRS_PER_THREAD = 4096  # fewer (query, candidate) pairs are not worth a thread
_PADDING = np.int64(-1)
_MIN_NORM = np.float32(1e-30)  # avoids division by zero; the smallest norm of a nonzero float16 vector is 6e-8


def rerank(
    queries: Float32, candidates: Sequence[Neighbors], vectors: Float16, k: int, threads: int | None = None
) -> list[Neighbors]:
    """Score each query's candidates exactly and return the k best.

    Args:
        queries: (q, d) float32, any positive norm; left unmodified.
        candidates: q records; only their rows are used, each in [0, n). Rows should not repeat within a record.
        vectors: (n, d) float16, usually a memory map; about unit norm (they are re-normalised after upcasting).
        k: neighbours to keep for each query, >= 1.
        threads: maximum number; None means one for each core that this process may use.

    Returns:
        q records of at most k, scores = cosine in [-1, 1], best first, ties by ascending row.

    Raises:
        DimensionMismatch: queries and vectors differ in width.
        QueryError: a query is zero or not finite, or the number of records is not q.
    """
    if len(candidates) != len(queries):
        raise QueryError(
            f"{len(queries)} queries came with {len(candidates)} candidate lists; pass one list for each query"
        )
    unit = normalized_queries(queries, vectors.shape[1])
    rows = candidates[0].rows[None].copy() if len(candidates) == 1 else _padded_rows(candidates)
    rows.sort(axis=1)  # reading in file order is faster, and a stable sort then breaks ties by row
    scores = _score(unit, rows, vectors, _worker_count(rows.size, threads))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    lines = np.arange(len(rows))[:, None]
    return _without_padding(rows[lines, order], scores[lines, order])


def normalized_queries(queries: Float32, dim: int) -> Float32:
    """Return a copy of (q, d) queries, scaled to unit norm.

    Raises:
        DimensionMismatch: the width is not `dim`.
        QueryError: a query has norm zero or a value that is not finite.
    """
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise DimensionMismatch(f"queries of shape {queries.shape} against vectors of width {dim}; need (q, {dim})")
    norms = np.sqrt(np.vecdot(queries, queries, dtype=np.float64))
    if len(norms) and not 0 < norms.min() <= norms.max() < np.inf:  # False for NaN, too
        invalid = int(np.argmin((norms > 0) & (norms < np.inf)))
        raise QueryError(f"query {invalid} has norm {norms[invalid]}; a query must be finite and not zero")
    return np.asarray(queries / norms[:, None], dtype=np.float32)


def normalized_rows(block: Float16) -> Float32:
    """Return (b, d) float16 rows as float32, scaled to unit norm; zero rows stay zero."""
    out = np.empty(block.shape, dtype=np.float32)
    _upcast(np.ascontiguousarray(block), out)
    out /= _norms(out)[:, None]
    return out


def _score(unit: Float32, rows: Int64, vectors: Float16, workers: int) -> Float32:
    """Return (q, c) cosines, -inf for padding."""
    scores = np.empty(rows.shape, dtype=np.float32)
    if workers == 1:
        _score_span(unit, rows, vectors, scores, 0, len(rows))
    else:
        parts = np.array_split(np.arange(len(rows)), workers)
        spans = [(int(p[0]), int(p[-1]) + 1) for p in parts if p.size]
        # NumPy releases the interpreter lock while it gathers, converts and multiplies.
        with ThreadPoolExecutor(len(spans)) as pool:
            list(pool.map(lambda span: _score_span(unit, rows, vectors, scores, *span), spans))
    return scores


def _score_span(unit: Float32, rows: Int64, vectors: Float16, scores: Float32, start: int, stop: int) -> None:
    """Fill scores[start:stop], a cache-sized block of pairs at a time."""
    dim = vectors.shape[1]
    pairs = max(1, _BLOCK_ELEMENTS // dim)
    width = rows.shape[1]
    if width == 0 or vectors.shape[0] == 0:
        scores[start:stop] = -np.inf
        return
    pairs = min(pairs, (stop - start) * width)
    half = np.empty((pairs, dim), dtype=np.float16)
    full = np.empty((pairs, dim), dtype=np.float32)
    step = max(1, pairs // width)
    for top in range(start, stop, step):
        bottom = min(top + step, stop)
        for left in range(0, width, pairs):
            ids = rows[top:bottom, left : left + pairs]
            scores[top:bottom, left : left + pairs] = _cosines(
                unit[top:bottom], ids, vectors, half[: ids.size], full[: ids.size]
            )


def _cosines(unit: Float32, ids: Int64, vectors: Float16, half: Float16, full: Float32) -> Float32:
    """(b, c) cosines of b unit queries with the rows `ids` (b, c); `half` and `full` (b * c, d) are scratch."""
    # "clip" skips numpy's bounds buffer; padding reads row 0 and is overwritten below.
    np.take(vectors, ids.ravel(), axis=0, out=half, mode="clip")
    _upcast(half, full)
    # One dot product for each pair, never a matrix product: a row's score must not depend on its position in the batch.
    # Otherwise equal vectors could differ in the last bit, and ties would no longer be ordered by row.
    products: Float32 = np.vecdot(full.reshape(*ids.shape, -1), unit[:, None, :])
    products /= _norms(full).reshape(ids.shape)
    np.minimum(products, 1.0, out=products)
    np.maximum(products, -1.0, out=products)
    products[ids == _PADDING] = -np.inf
    return products


def _norms(full: Float32) -> Float32:
    """Return (b,) L2 norms; a tiny number for zero vectors, so that their cosines are zero."""
    norms: Float32 = np.sqrt(np.vecdot(full, full))
    return np.maximum(norms, _MIN_NORM, out=norms)


def _upcast(half: Float16, out: Float32) -> None:
    """Convert finite float16 values to float32 exactly, by shifting bits.

    NumPy converts float16 values one at a time; these passes are vectorised and take less than half as long.
    Sign-extend to 32 bits, shift exponent and mantissa into place, and clear the copies of the sign bit. Then
    multiply to correct the difference of the exponents' biases (127 - 15 = 112), which is exact.
    """
    bits = out.view(np.int32)
    np.copyto(bits, half.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(-0x70000001), out=bits)
    np.multiply(out, np.float32(2.0**112), out=out)


def _worker_count(pairs: int, threads: int | None) -> int:
    if pairs < 2 * _MIN_PAIRS_PER_THREAD:
        return 1
    return max(1, min(threads or available_cores(), pairs // _MIN_PAIRS_PER_THREAD))


def _padded_rows(candidates: Sequence[Neighbors]) -> Int64:
    """Return (q, c) rows, shorter lists padded with -1."""
    width = max((len(neighbors.rows) for neighbors in candidates), default=0)
    rows = np.full((len(candidates), width), _PADDING)
    for i, neighbors in enumerate(candidates):
        rows[i, : len(neighbors.rows)] = neighbors.rows
    return rows


def _without_padding(rows: Int64, scores: Float32) -> list[Neighbors]:
    """Drop the padding, which sorting has moved to the end of each line."""
    if rows.size and rows.min() >= 0:
        return list(map(Neighbors, rows, scores))
    counts = (rows != _PADDING).sum(axis=1).tolist()
    return [Neighbors(r[:m], s[:m]) for r, s, m in zip(rows, scores, counts, strict=True)]

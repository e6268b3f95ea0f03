"""Exact search with torch: float16 vectors on a device, one matrix product and one top-k for a batch of queries.

The device proposes rows, and `lookalike.rerank` scores them on the host. Every row within the device's rounding error
of the k-th best is proposed, so results equal those of the exact store to the bit. The store works on a CPU, too, but
`exact` is faster there. The registry imports this module, and thereby torch, only when such a store is opened.

Dimension letters: n rows of the collection, q queries, d embedding width, b rows of a block, k neighbours, m rows that
the device proposes for a query.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from lookalike.errors import StoreUnavailable
from lookalike.rerank import normalized_queries, rerank
from lookalike.stores.protocol import SearchParameters, VectorStore, check_mask
from lookalike.types import Bool, Float16, Float32, Int64, Neighbors

_MAX_QUERIES_PER_BATCH = 1024  # larger batches are no faster: arithmetic is the limit
_MAX_BLOCK_ELEMENTS = {"cuda": 1 << 26, "cpu": 1 << 22}  # float32 numbers of an intermediate: 256 MB, 16 MB
_UPLOAD_ROWS = 16_384
_RESERVED_MEMORY_FRACTION = 0.2  # for a batch's scores and the encoder's activations
# Apart from the rounding of the query, |device's score - final score| <= (d + 8) times this. In units of 2**-24, at
# worst: 2 d for the device's product, since tensor cores truncate, d for the final one, d / 2 for each norm; 8 for the
# rest.
_ROUNDING_ERROR = 2.0**-22
_HINT = "let the CPU search (LOOKALIKE_STORE_DEVICE=cpu), or index with --store faiss or exact"


class TorchStore(VectorStore):
    """Brute force on a device. Safe to call from several threads: nothing changes after opening.

    Attributes:
        kind: `torch-exact`.
        dim: d.
        count: n.
        exact: True; scores are the exact cosines.
        defaults: empty; there are no search parameters.
        device: `cuda` or `cpu`.
    """

    kind = "torch-exact"
    exact = True
    refines = False

    def __init__(self, vectors: Float16, device: str | None = None) -> None:
        """Copy (n, d) float16 vectors of about unit norm to the device and run a first query.

        Errors of the device are raised here, while another store can still be opened.

        Args:
            vectors: usually a memory map; kept for the final scores.
            device: `cuda` or `cpu`; None means CUDA if there is one.

        Raises:
            StoreUnavailable: the device is missing, its memory is too small, it failed, or a vector is not finite.
        """
        self._host = vectors
        self.count, self.dim = (int(size) for size in vectors.shape)
        self.defaults: SearchParameters = {}
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._query_type = np.float16 if self.device == "cuda" else np.float32  # CPUs multiply float16 slowly
        if self.device == "cuda":
            _require_memory(self.count, self.dim)
        with _translated_errors("the vectors can't be brought to the device"):
            self._vectors = torch.empty((self.count, self.dim), dtype=torch.float16, device=self.device)
            self._inverse_norms = torch.empty(self.count, dtype=torch.float32, device=self.device)
            self._upload()
            self.search(np.ones((1, self.dim), dtype=np.float32), 1)

    @override
    def search(
        self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
    ) -> list[Neighbors]:
        """Return the k nearest by exact cosine. `params` have no effect.

        Raises:
            DimensionMismatch: queries or mask of another size than the store's.
            QueryError: a query is zero or not finite.
            StoreUnavailable: the device failed, most likely because its memory is full.
        """
        check_mask(mask, self.count)
        unit = normalized_queries(queries, self.dim)
        if not self.count:
            return [Neighbors(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in unit]
        # A second pass is rare then: a few percent of k of CLIP's cosines lie within the device's rounding error.
        proposed = min(self.count, k + max(32, k // 2))
        step = max(1, min(_MAX_QUERIES_PER_BATCH, _MAX_BLOCK_ELEMENTS[self.device] // (2 * proposed)))
        results: list[Neighbors] = []
        with _translated_errors("the search failed"), torch.inference_mode():
            excluded = None if mask is None else torch.tensor(~mask, device=self.device)
            for top in range(0, len(unit), step):
                block = slice(top, top + step)
                results += self._search_batch(queries[block], unit[block], k, proposed, excluded)
        return results

    def _search_batch(
        self, queries: Float32, unit: Float32, k: int, proposed: int, excluded: Tensor | None
    ) -> list[Neighbors]:
        """Return the k best rows of each query, from the device's `proposed` best or, if necessary, from more."""
        rounded = unit.astype(self._query_type)
        error = np.linalg.norm(unit - rounded.astype(np.float32), axis=1) + (self.dim + 8) * _ROUNDING_ERROR  # (q,)
        device_queries = torch.from_numpy(rounded).to(self.device)
        scores, rows = self._best(device_queries, proposed, excluded)
        # The true scores of the device's k best are at most `error` below the device's scores. So the true k best are
        # no lower than that, and the device's scores for them at most `error` lower still.
        thresholds = scores[:, min(k, proposed) - 1] - 2 * error
        keep = (scores >= thresholds[:, None]) & (scores > -np.inf)  # (q, m)
        # The original queries: normalising twice would change the last bit.
        candidates = [Neighbors(r[kept], s[kept]) for r, s, kept in zip(rows, scores, keep, strict=True)]
        results = rerank(queries, candidates, self._host, k)
        if proposed < self.count:
            # If even the last proposed row may be among the k best, rows that were not proposed may be, too.
            for i in np.flatnonzero(keep[:, -1]).tolist():
                candidates_i = self._all_above(device_queries[i : i + 1], float(thresholds[i]), excluded)
                results[i] = rerank(queries[i : i + 1], [candidates_i], self._host, k)[0]
        return results

    def _best(self, device_queries: Tensor, proposed: int, excluded: Tensor | None) -> tuple[Float32, Int64]:
        """Return (q, m) scores, descending, and their rows; -inf if the mask allows fewer than m."""
        best = torch.empty((len(device_queries), 0), dtype=torch.float32, device=self.device)
        rows = torch.empty((len(device_queries), 0), dtype=torch.int64, device=self.device)
        for start, stop in self._blocks(len(device_queries)):
            scores, offsets = self._scores(device_queries, start, stop, excluded).topk(
                min(proposed, stop - start), sorted=False
            )
            best, rows = torch.cat([best, scores], dim=1), torch.cat([rows, offsets + start], dim=1)
            best, order = best.topk(min(proposed, best.shape[1]))
            rows = rows.gather(1, order)
        return best.cpu().numpy(), rows.cpu().numpy()

    def _all_above(self, device_query: Tensor, threshold: float, excluded: Tensor | None) -> Neighbors:
        """Return all rows whose score for the (1, d) query reaches the threshold, ascending, without scores."""
        rows = [
            start + torch.nonzero(self._scores(device_query, start, stop, excluded)[0] >= threshold)[:, 0]
            for start, stop in self._blocks(1)
        ]
        return Neighbors(torch.cat(rows).cpu().numpy(), np.empty(0, np.float32))

    def _scores(self, device_queries: Tensor, start: int, stop: int, excluded: Tensor | None) -> Tensor:
        """Return (q, b) float32 cosines of the rows from start to stop, computed on the device; -inf if excluded."""
        scores = _products(device_queries, self._vectors[start:stop])
        scores *= self._inverse_norms[start:stop]
        if excluded is not None:
            scores.masked_fill_(excluded[start:stop], -torch.inf)
        return scores

    def _blocks(self, queries: int) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of blocks that limit the size of the scores and, on a CPU, of the upcast rows."""
        width = queries if self.device == "cuda" else max(queries, self.dim)
        rows = max(1, _MAX_BLOCK_ELEMENTS[self.device] // width)
        return ((start, min(start + rows, self.count)) for start in range(0, self.count, rows))

    def _upload(self) -> None:
        for start in range(0, self.count, _UPLOAD_ROWS):
            piece = slice(start, start + _UPLOAD_ROWS)
            # A copy: torch warns when it wraps a read-only array.
            self._vectors[piece] = torch.tensor(self._host[piece])
            norms = torch.linalg.vector_norm(self._vectors[piece], dim=1, dtype=torch.float32)
            if not bool(torch.isfinite(norms).all()):
                raise StoreUnavailable("a vector is not finite; index again or restore the folder from a copy")
            norms[norms == 0] = 1.0  # cosines with a zero vector are zero, as in re-ranking
            self._inverse_norms[piece] = 1.0 / norms


def device_bytes(count: int, dim: int) -> int:
    """Return the device memory of (n, d) vectors: float16 values, and a float32 norm each."""
    return count * (2 * dim + 4)


def _require_memory(count: int, dim: int) -> None:
    """Raise StoreUnavailable if the vectors would leave less than the reserved memory."""
    if not torch.cuda.is_available():
        raise StoreUnavailable(f"torch sees no CUDA device; {_HINT}")
    with _translated_errors("the device does not report its memory"):
        free, total = torch.cuda.mem_get_info()
    needed, reserved = device_bytes(count, dim), int(_RESERVED_MEMORY_FRACTION * total)
    if needed + reserved > free:
        raise StoreUnavailable(
            f"{count:,} vectors of width {dim} need {needed / 1e9:.2f} GB of the GPU's memory, of which "
            f"{free / 1e9:.2f} GB are free and {reserved / 1e9:.2f} GB stay in reserve; {_HINT}"
        )


def _products(device_queries: Tensor, block: Tensor) -> Tensor:
    """Return (q, b) inner products summed in float32; queries are float16 on CUDA, for tensor cores, else float32."""
    if device_queries.dtype == torch.float16:
        return torch.mm(device_queries, block.T, out_dtype=torch.float32)
    return device_queries @ block.float().T


@contextmanager
def _translated_errors(failure: str) -> Iterator[None]:
    """Raise torch's exceptions as StoreUnavailable; `failure` is the first part of the message."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StoreUnavailable(f"{failure}: the GPU is out of memory; {_HINT}") from error
    except (RuntimeError, MemoryError) as error:
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StoreUnavailable(f"{failure}: {message[:200]}; {_HINT}") from error

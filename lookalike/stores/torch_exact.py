"""Exact search by torch: float16 vectors on a device, one matrix product and one top-k for a batch of queries.

The device proposes and `lookalike.rerank` decides. Whatever comes so close to the k-th best that the device's rounding
could have misplaced it is scored again on the host, from the same vectors and by the same function as in the exact
store, so that answers are those of the exact store to the bit. On a CPU it works, and `exact` is the better choice.
The registry imports this module, and torch with it, only when such a store is opened.

Dimension letters: n rows of the collection, q queries, d embedding width, b rows of a block, k neighbours, m rows that
the device proposes for a query.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from lookalike.errors import StoreUnavailable
from lookalike.rerank import normalized_queries, rerank
from lookalike.stores.protocol import SearchParameters, check_mask
from lookalike.types import Bool, Float16, Float32, Int64, Neighbors

_QUERIES = 1024  # of one product; more of them would gain nothing, arithmetic bounds it long before
_BLOCK_ELEMENTS = {"cuda": 1 << 26, "cpu": 1 << 22}  # float32 numbers of the largest intermediate: 256 MB, 16 MB
_UPLOAD_ROWS = 16_384
_SPARE = 0.2  # of the device's memory, kept for a batch's scores and for the encoder's activations
# Beside the rounding of the query, |device's score - final score| <= (d + 8) times this. In units of 2**-24, at worst:
# 2 d for the device's product, since tensor cores truncate, d for the final one, d / 2 for either norm; 8 for the rest.
_ROUNDING = 2.0**-22
_MEND = "let the CPU search (LOOKALIKE_STORE_DEVICE=cpu), or index with --store faiss or exact"


class TorchStore:
    """Brute force on a device. Calls from several threads are safe: nothing is changed after opening.

    Attributes:
        kind: `torch-exact`.
        dim: d.
        count: n.
        exact: True; scores are the exact cosines.
        defaults: empty; there is nothing to tune.
        device: `cuda` or `cpu`.
    """

    kind = "torch-exact"
    exact = True
    refines = False

    def __init__(self, vectors: Float16, device: str | None = None) -> None:
        """Copies (n, d) float16 vectors of about unit norm to the device and sends it a first query.

        What the device refuses is told here, while another store can still be opened.

        Args:
            vectors: usually a memory map; kept, for the final scores are computed from it.
            device: `cuda` or `cpu`; None takes CUDA where there is one.

        Raises:
            StoreUnavailable: there is no such device, its memory is too small, it refused, or a vector is not finite.
        """
        self._host = vectors
        self.count, self.dim = (int(size) for size in vectors.shape)
        self.defaults: SearchParameters = {}
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._query_type = np.float16 if self.device == "cuda" else np.float32  # CPUs multiply halves slowly
        if self.device == "cuda":
            _require_room(self.count, self.dim)
        with _translated("the vectors can't be brought to the device"):
            self._vectors = torch.empty((self.count, self.dim), dtype=torch.float16, device=self.device)
            self._inverse_norms = torch.empty(self.count, dtype=torch.float32, device=self.device)
            self._upload()
            self.search(np.ones((1, self.dim), dtype=np.float32), 1)

    def search(
        self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
    ) -> list[Neighbors]:
        """The k nearest by exact cosine; see `VectorStore.search`. `params` are accepted and have no effect.

        Raises:
            DimensionMismatch: queries or mask of another size than the store's.
            QueryError: a query is zero or not finite.
            StoreUnavailable: the device refused, most likely for want of memory.
        """
        check_mask(mask, self.count)
        unit = normalized_queries(queries, self.dim)
        if not self.count:
            return [Neighbors(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in unit]
        # Enough that a second look is rare: of CLIP's cosines a few in a hundred of k lie within the device's rounding.
        proposed = min(self.count, k + max(32, k // 2))
        step = max(1, min(_QUERIES, _BLOCK_ELEMENTS[self.device] // (2 * proposed)))
        answers: list[Neighbors] = []
        with _translated("the search failed"), torch.inference_mode():
            denied = None if mask is None else torch.tensor(~mask, device=self.device)
            for top in range(0, len(unit), step):
                block = slice(top, top + step)
                answers += self._answer(queries[block], unit[block], k, proposed, denied)
        return answers

    def _answer(self, queries: Float32, unit: Float32, k: int, proposed: int, denied: Tensor | None) -> list[Neighbors]:
        """Of each query the k best, from the `proposed` best of the device, or from all that could be among them."""
        rounded = unit.astype(self._query_type)
        error = np.linalg.norm(unit - rounded.astype(np.float32), axis=1) + (self.dim + 8) * _ROUNDING  # (q,)
        asked = torch.from_numpy(rounded).to(self.device)
        scores, rows = self._best(asked, proposed, denied)
        # The k best of the device are at most `error` worse than they look, so the true ones are no worse than that,
        # and look at most `error` worse still.
        floors = scores[:, min(k, proposed) - 1] - 2 * error
        keep = (scores >= floors[:, None]) & (scores > -np.inf)  # (q, m)
        # The caller's queries, not the unit ones: normalising twice would cost the last bit.
        candidates = [Neighbors(r[kept], s[kept]) for r, s, kept in zip(rows, scores, keep, strict=True)]
        answers = rerank(queries, candidates, self._host, k)
        if proposed < self.count:
            # Where even the last row proposed could be among the k best, rows that were not proposed could be, too.
            for i in np.flatnonzero(keep[:, -1]).tolist():
                found = self._all_above(asked[i : i + 1], float(floors[i]), denied)
                answers[i] = rerank(queries[i : i + 1], [found], self._host, k)[0]
        return answers

    def _best(self, asked: Tensor, proposed: int, denied: Tensor | None) -> tuple[Float32, Int64]:
        """(q, m) scores, descending, and their rows; -inf where the mask allows fewer than m."""
        best = torch.empty((len(asked), 0), dtype=torch.float32, device=self.device)
        rows = torch.empty((len(asked), 0), dtype=torch.int64, device=self.device)
        for start, stop in self._blocks(len(asked)):
            scores, places = self._scores(asked, start, stop, denied).topk(min(proposed, stop - start), sorted=False)
            best, rows = torch.cat([best, scores], dim=1), torch.cat([rows, places + start], dim=1)
            best, order = best.topk(min(proposed, best.shape[1]))
            rows = rows.gather(1, order)
        return best.cpu().numpy(), rows.cpu().numpy()

    def _all_above(self, asked: Tensor, floor: float, denied: Tensor | None) -> Neighbors:
        """Every row whose score for the (1, d) query reaches the floor, ascending; scores are left to re-ranking."""
        found = [
            start + torch.nonzero(self._scores(asked, start, stop, denied)[0] >= floor)[:, 0]
            for start, stop in self._blocks(1)
        ]
        return Neighbors(torch.cat(found).cpu().numpy(), np.empty(0, np.float32))

    def _scores(self, asked: Tensor, start: int, stop: int, denied: Tensor | None) -> Tensor:
        """(q, b) float32 cosines of the rows from start to stop, as the device rounds them; -inf where denied."""
        scores = _products(asked, self._vectors[start:stop])
        scores *= self._inverse_norms[start:stop]
        if denied is not None:
            scores.masked_fill_(denied[start:stop], -torch.inf)
        return scores

    def _blocks(self, queries: int) -> Iterator[tuple[int, int]]:
        """(first row, row after the last) of blocks that bound the scores and, on a CPU, the upcast rows."""
        width = queries if self.device == "cuda" else max(queries, self.dim)
        rows = max(1, _BLOCK_ELEMENTS[self.device] // width)
        return ((start, min(start + rows, self.count)) for start in range(0, self.count, rows))

    def _upload(self) -> None:
        for start in range(0, self.count, _UPLOAD_ROWS):
            piece = slice(start, start + _UPLOAD_ROWS)
            # A copy: torch refuses to wrap read-only arrays without a warning.
            self._vectors[piece] = torch.tensor(self._host[piece])
            norms = torch.linalg.vector_norm(self._vectors[piece], dim=1, dtype=torch.float32)
            if not bool(torch.isfinite(norms).all()):
                raise StoreUnavailable("a vector is not finite; index again or restore the folder from a copy")
            norms[norms == 0] = 1.0  # its cosines are zero, as in re-ranking
            self._inverse_norms[piece] = 1.0 / norms


def device_bytes(count: int, dim: int) -> int:
    """Device memory that (n, d) vectors take: float16 values, and a float32 norm each."""
    return count * (2 * dim + 4)


def _require_room(count: int, dim: int) -> None:
    """Refuses vectors that would leave CUDA less than its spare memory."""
    if not torch.cuda.is_available():
        raise StoreUnavailable(f"torch sees no CUDA device; {_MEND}")
    with _translated("the device does not tell its memory"):
        free, total = torch.cuda.mem_get_info()
    needed, spare = device_bytes(count, dim), int(_SPARE * total)
    if needed + spare > free:
        raise StoreUnavailable(
            f"{count:,} vectors of width {dim} need {needed / 1e9:.2f} GB of the GPU's memory, of which "
            f"{free / 1e9:.2f} GB are free and {spare / 1e9:.2f} GB stay in reserve; {_MEND}"
        )


def _products(asked: Tensor, block: Tensor) -> Tensor:
    """(q, b) inner products summed in float32; queries are float16 for CUDA's tensor cores, float32 for a CPU."""
    if asked.dtype == torch.float16:
        return torch.mm(asked, block.T, out_dtype=torch.float32)
    return asked @ block.float().T


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Torch's exceptions as our own."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StoreUnavailable(f"{what}: the GPU is out of memory; {_MEND}") from error
    except (RuntimeError, MemoryError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StoreUnavailable(f"{what}: {first[:200]}; {_MEND}") from error

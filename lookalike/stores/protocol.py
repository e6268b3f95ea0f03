"""Protocols of a vector store: `VectorStore` searches, `VectorStoreBuilder` writes.

A store returns *candidates* with its own scores. Exact cosines are computed afterwards from the collection's float16
vectors (`lookalike.rerank`), unless the store is `exact`. The contract suite in `tests/contract/test_stores.py` runs
over every registered store.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from lookalike.errors import DimensionMismatch
from lookalike.filters import Filter
from lookalike.types import Bool, Float32, Neighbors

SearchParameters = Mapping[str, int]
"""FAISS's own names (`nprobe`, `efSearch`), and `candidates`, the number of rows to gather for re-ranking."""


class VectorStore(Protocol):
    """Read side: opened from a builder's output folder, safe to call from several threads."""

    kind: str
    """The registered name."""
    dim: int
    """d."""
    count: int
    """n."""
    exact: bool
    """Whether `search` already returns exact cosines over the collection's vectors."""
    refines: bool
    """Whether `search` gathers `candidates` rows and returns the k best by products with the float16 vectors. If not,
    it gathers k rows, and the caller passes as k the number that it will re-rank."""
    defaults: SearchParameters
    """Search parameters for calls that name none; measured when the store was built."""

    def search(
        self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
    ) -> list[Neighbors]:
        """Return at most k neighbours of each query.

        Args:
            queries: (q, d) float32 of unit norm; left unmodified.
            k: >= 1; values above n are taken as n.
            params: override `defaults` for this call only.
            mask: (n,) bool; rows with False are never returned.

        Returns:
            q records, best first, ties by ascending row.

        Raises:
            DimensionMismatch: queries of another width.
            StoreUnavailable: the library behind the store raised an error.
        """
        ...


@runtime_checkable
class FilteringStore(Protocol):
    """A store that can evaluate filters on the metadata itself."""

    def filtered(self, condition: Filter) -> VectorStore:
        """Return a store whose masks, which must be those of the filter, need not be sent; itself if it can't."""
        ...


def check_mask(mask: Bool | None, count: int) -> None:
    """Check that a mask has one value for each of `count` rows.

    Raises:
        DimensionMismatch: its shape is not (n,).
    """
    if mask is not None and mask.shape != (count,):
        raise DimensionMismatch(f"a mask of shape {mask.shape} for {count} rows; need ({count},)")


class VectorStoreBuilder(Protocol):
    """Write side, for the indexing job: train once, add in row order, finish into a folder."""

    sample_size: int
    """Number of vectors that `train` expects; 0 if there is nothing to learn."""

    def train(self, sample: Float32) -> None:
        """Learn from (m, d) float32 unit vectors, drawn from those that will be added."""
        ...

    def add(self, vectors: Float32) -> None:
        """Add (b, d) float32 unit vectors in row order, starting with row 0."""
        ...

    def finish(self, folder: Path) -> Mapping[str, object]:
        """Write the store's files into `folder` and return its parameters for the manifest."""
        ...

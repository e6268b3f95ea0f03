"""What a vector store is: a reader for the service and the searcher, a builder for the indexing job.

A store returns *candidates* with its own scores. Exact cosines are computed afterwards from the collection's float16
vectors (`lookalike.rerank`), unless `exact` says that the store's scores are those already. The contract suite in
`tests/contract/test_stores.py` runs over every registered store.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from lookalike.errors import DimensionMismatch
from lookalike.types import Bool, Float32, Neighbors

SearchParameters = Mapping[str, int]
"""Names are FAISS's own (`nprobe`, `efSearch`) plus `candidates`, how many rows are gathered for re-ranking."""


class VectorStore(Protocol):
    """The reading side: safe to call from several threads; opened from the folder that a builder finished."""

    kind: str
    """The registered name."""
    dim: int
    """d."""
    count: int
    """n."""
    exact: bool
    """Whether `search` already returns exact cosines over the collection's vectors."""
    refines: bool
    """Whether `search` gathers `candidates` rows and itself chooses the k best of them, by products with the
    collection's float16 vectors; otherwise k are gathered, and the caller asks for as many as it will re-rank."""
    defaults: SearchParameters
    """The parameters used where a call names none; chosen by measurement when the store was built."""

    def search(
        self, queries: Float32, k: int, params: SearchParameters | None = None, mask: Bool | None = None
    ) -> list[Neighbors]:
        """At most k neighbours of each query.

        Args:
            queries: (q, d) float32 of unit norm; left unmodified.
            k: >= 1; more than n gives n.
            params: overrides of `defaults` for this call only.
            mask: (n,) bool; rows that are False are never returned.

        Returns:
            q records, best first, ties by ascending row.

        Raises:
            DimensionMismatch: queries of another width.
            StoreUnavailable: the library behind the store refused.
        """
        ...


def check_mask(mask: Bool | None, count: int) -> None:
    """Refuses a mask that is not one of `count` rows.

    Raises:
        DimensionMismatch: its shape is another than (n,).
    """
    if mask is not None and mask.shape != (count,):
        raise DimensionMismatch(f"a mask of shape {mask.shape} for {count} rows; need ({count},)")


class VectorStoreBuilder(Protocol):
    """The writing side, held by the indexing job alone: train once, add in row order, finish into a folder."""

    sample_size: int
    """How many vectors `train` wants; 0 where there is nothing to learn."""

    def train(self, sample: Float32) -> None:
        """(m, d) float32 unit vectors drawn from what will be added."""
        ...

    def add(self, vectors: Float32) -> None:
        """(b, d) float32 unit vectors; the first one added is row 0."""
        ...

    def finish(self, folder: Path) -> Mapping[str, object]:
        """Writes the store's files into `folder` and returns its parameters as the manifest will state them."""
        ...

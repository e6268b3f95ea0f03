"""Writes to a hosted collection: in groups that share a transaction, and visible to the next query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.execution.pipeline import QueryPipeline
from app.execution.workers import WriteWorkers

if TYPE_CHECKING:
    from lookalike.filters import Filter
    from lookalike.writes.operations import Operation, Outcome
    from lookalike.writes.writer import Writer


class CollectionWrites:
    """The writer of one collection, and the pipeline over what it has written. Lives on the event loop's thread."""

    def __init__(self, writer: Writer, workers: WriteWorkers, pipeline: QueryPipeline) -> None:
        """`pipeline` answers queries on the version that the writer was opened with."""
        self._writer = writer
        self._workers = workers
        self._version = pipeline
        self._current = pipeline

    @property
    def pipeline(self) -> QueryPipeline:
        """The pipeline over the version and all acknowledged writes."""
        view = self._writer.view
        if self._current.searcher.collection is not view and view.version is self._version.searcher.collection:
            self._current = self._current.over(view)
        return self._current

    @property
    def pending(self) -> int:
        """Number of items that were written since the version was built."""
        return self._writer.pending

    async def apply(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Apply operations in order, durably; concurrent calls share a transaction.

        Raises:
            DiskFull, CollectionUnwritable, WritesDamaged: none was applied.
        """
        return await self._workers.apply(self._writer, operations)

    async def delete_matching(self, condition: Filter) -> int:
        """Delete the items that pass a filter, durably, and return their number. Raises FilterInvalid."""
        return await self._workers.run(lambda: self._writer.delete_matching(condition))

    async def rebase(self, pipeline: QueryPipeline) -> None:
        """Continue over another version of the collection, between two groups of writes.

        Raises:
            WritesDamaged, EncoderMismatch: the version does not fit the writes.
        """
        await self._workers.run(lambda: self._writer.rebase(pipeline.searcher.collection))
        self._version = self._current = pipeline

    async def release(self) -> None:
        """Free what the log keeps of writes that the version holds."""
        await self._workers.run(self._writer.release)

    def close(self) -> None:
        """Close the log and release the collection's lock."""
        self._writer.close()

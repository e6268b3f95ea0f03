"""The collections of a service by name, and which of them stay open within the memory budget.

The first collection is the default and stays open. The others are opened at the start or by their first query. When
the budget is exceeded, the least recently used one is evicted; its next query opens it again. Memory is counted as the
bytes of the versions' files and of the encoders' weights. Files are mapped, so a large collection really takes less.
A small one takes more: its vectors are kept in float32 besides (64 MB at most, `lookalike.stores.exact`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from app.collections.hosted import HostedCollection
from app.collections.runtime import Runtime
from app.collections.state import State
from app.collections.versions import version_bytes
from app.errors import UnknownCollection
from app.execution.pipeline import QueryPipeline
from lookalike.errors import ConfigInvalid

logger = logging.getLogger(__name__)

_MISSING_SECONDS = 60.0
"""A folder that is missing for longer is removed; one that is replaced by another is missing for less."""


class CollectionManager:
    """The collections of a service. Lives on the event loop's thread."""

    def __init__(self, roots: Sequence[Path], runtime: Runtime, budget: int) -> None:
        """Open nothing yet.

        Args:
            roots: folders of collections, the default one first.
            runtime: what all collections share.
            budget: bytes that open collections and their encoders may take; 0 for no limit.

        Raises:
            ConfigInvalid: two folders have the same name, or a name is not UTF-8.
        """
        self._by_name: dict[str, HostedCollection] = {}
        self._by_last_use: list[str] = []  # least recently used first
        self._runtime, self._budget = runtime, budget
        self._ignored: set[Path] = set()
        self._missing_since: dict[str, float] = {}
        for root in roots:
            self._add(root)
        self.default = next(iter(self._by_name.values()))

    def __iter__(self) -> Iterator[HostedCollection]:
        return iter(list(self._by_name.values()))

    def find(self, name: str | None) -> HostedCollection:
        """Return a collection by name, the default one for None.

        Raises:
            UnknownCollection: no collection has this name.
        """
        if name is None:
            return self.default
        if name not in self._by_name:
            raise UnknownCollection(f"no collection is named {name[:80]!r}; GET /v1/collections lists them")
        return self._by_name[name]

    async def pipeline(self, name: str | None) -> QueryPipeline:
        """Return the pipeline of a collection, which is opened first if necessary.

        Raises:
            UnknownCollection: no collection has this name.
            NotReady: it could not be opened, or the default one is still being opened.
        """
        hosted = self.find(name)
        self._by_last_use.remove(hosted.name)
        self._by_last_use.append(hosted.name)
        return hosted.pipeline if hosted is self.default else await hosted.ensure_open()

    async def open_all(self) -> None:
        """Open the default collection, then one after another those that fit into the budget."""
        await self.default.start()
        for hosted in self:
            await self.open_if_it_fits(hosted)

    async def open_if_it_fits(self, hosted: HostedCollection) -> None:
        """Open a collection if the budget allows for it without an eviction."""
        if self._budget and self.memory() + await asyncio.to_thread(version_bytes, hosted.root) > self._budget:
            logger.info("collection_left name=%s: the memory budget is reached; its first query opens it", hosted.name)
        else:
            await hosted.start()

    def add_discovered(self, roots: Sequence[Path]) -> list[HostedCollection]:
        """Add the collections that are new, without opening them, and return them.

        Of two with the same name the first stays; the other is logged and ignored.
        """
        known = {hosted.root for hosted in self} | self._ignored
        added = []
        for root in roots:
            if root in known:
                continue
            try:
                added.append(self._add(root))
            except ConfigInvalid as error:
                logger.error("collection_ignored: %s", error)
                self._ignored.add(root)
        return added

    def _add(self, root: Path) -> HostedCollection:
        hosted = HostedCollection(root, self._runtime, self._evict)
        if hosted.name in self._by_name:
            raise ConfigInvalid(
                f"{self._by_name[hosted.name].root} and {root} are both called {hosted.name!r}; rename one folder"
            )
        self._by_name[hosted.name] = hosted
        self._by_last_use.append(hosted.name)
        return hosted

    def remove_missing(self, roots: Sequence[Path], named: Collection[Path]) -> list[HostedCollection]:
        """Remove the collections that have been missing for a minute from a folder of collections; return them.

        Collections of a folder that is empty stay, since its disk may not be mounted.

        Args:
            roots: folders where a collection is now.
            named: folders that the settings name; they are never removed.
        """
        nonempty = {root.parent for root in roots if root not in named}
        removed, now = [], time.monotonic()
        for hosted in self:
            if hosted.root in roots or hosted.root in named or hosted.root.parent not in nonempty:
                self._missing_since.pop(hosted.name, None)
            elif now - self._missing_since.setdefault(hosted.name, now) >= _MISSING_SECONDS:
                self._remove(hosted)
                removed.append(hosted)
        return removed

    def _remove(self, hosted: HostedCollection) -> None:
        del self._by_name[hosted.name], self._missing_since[hosted.name]
        self._by_last_use.remove(hosted.name)
        hosted.close()

    def memory(self) -> int:
        """Return the bytes that count against the budget."""
        return self.weight_bytes() + sum(hosted.size_bytes() for hosted in self)

    def weight_bytes(self) -> int:
        """Return the bytes of the weights of all encoders in use; a shared encoder counts once."""
        encoders = {id(hosted.encoder): hosted.encoder for hosted in self if hosted.encoder is not None}
        return sum(encoder.weight_bytes for encoder in encoders.values())

    def _evict(self, opening: HostedCollection, more: int) -> None:
        """Close the least recently used collections until `more` bytes fit, but neither `opening` nor the default.

        A new version of `opening` counts in addition to the one that serves.
        """
        if not self._budget:
            return
        for name in list(self._by_last_use):
            if self.memory() + more <= self._budget:
                return
            hosted = self._by_name[name]
            # A collection whose newest version was refused could not be opened again, so it goes on serving.
            if hosted not in (opening, self.default) and hosted.status.state is State.SERVING:
                logger.warning("collection_closed name=%s: least recently used; the memory budget is reached", name)
                hosted.close()
        if (needed := self.memory() + more) > self._budget:
            logger.warning(
                "memory_budget_exceeded needed=%d budget=%d: for %s, and nothing else can be closed",
                needed,
                self._budget,
                opening.name,
            )

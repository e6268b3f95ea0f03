"""All collections of a service by name: which are open, and which must go when memory is short.

The first is the default and stays open. The others are opened at the start or on first use, and whichever has not been
asked for longest is closed where the budget is exceeded; it opens again when it is asked. Memory is counted as the
bytes of a version's files and of the encoders' weights. Files are mapped, so what a large collection really takes is
less; a small one's vectors are kept in float32 besides (64 MB at most, `lookalike.stores.exact`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from app.collections.hosted import HostedCollection, Runtime, version_bytes
from app.errors import UnknownCollection
from app.execution.pipeline import QueryPipeline
from lookalike.errors import ConfigInvalid

logger = logging.getLogger(__name__)

_MISSING_SECONDS = 60.0
"""A folder that is put in another's place is away for less."""


class CollectionManager:
    """The collections of a service. Lives on the event loop's thread."""

    def __init__(self, roots: Sequence[Path], runtime: Runtime, budget: int) -> None:
        """Opens nothing yet.

        Args:
            roots: folders of collections, the default one first.
            runtime: what all of them use.
            budget: bytes that open collections and their encoders may take; 0 for no bound.

        Raises:
            ConfigInvalid: two folders have the same name, or one's is not UTF-8.
        """
        self._by_name: dict[str, HostedCollection] = {}
        self._used: list[str] = []  # longest unused first
        self._runtime, self._budget = runtime, budget
        self._ignored: set[Path] = set()
        self._missing: dict[str, float] = {}  # since when
        for root in roots:
            self._add(root)
        self.default = next(iter(self._by_name.values()))

    def __iter__(self) -> Iterator[HostedCollection]:
        return iter(list(self._by_name.values()))

    def add_discovered(self, roots: Sequence[Path]) -> list[HostedCollection]:
        """Those that are new, which opens none; of two with the same name the first stays, and the log says so."""
        known = {hosted.root for hosted in self} | self._ignored
        fresh = []
        for root in roots:
            if root in known:
                continue
            try:
                fresh.append(self._add(root))
            except ConfigInvalid as error:
                logger.error("collection_ignored: %s", error)
                self._ignored.add(root)
        return fresh

    def remove_missing(self, roots: Sequence[Path], named: Collection[Path]) -> list[HostedCollection]:
        """Those that have been away for a minute from a folder of collections that holds others still.

        One that was named itself, or whose folder is empty, as it is before a disk is mounted, stays.
        """
        beside = {root.parent for root in roots if root not in named}
        gone, now = [], time.monotonic()
        for hosted in self:
            if hosted.root in roots or hosted.root in named or hosted.root.parent not in beside:
                self._missing.pop(hosted.name, None)
            elif now - self._missing.setdefault(hosted.name, now) >= _MISSING_SECONDS:
                del self._by_name[hosted.name], self._missing[hosted.name]
                self._used.remove(hosted.name)
                hosted.close()
                gone.append(hosted)
        return gone

    def _add(self, root: Path) -> HostedCollection:
        hosted = HostedCollection(root, self._runtime, self._evict)
        if hosted.name in self._by_name:
            raise ConfigInvalid(
                f"{self._by_name[hosted.name].root} and {root} are both called {hosted.name!r}; rename one folder"
            )
        self._by_name[hosted.name] = hosted
        self._used.append(hosted.name)
        return hosted

    def find(self, name: str | None) -> HostedCollection:
        """A collection by name, None for the default one.

        Raises:
            UnknownCollection: there is none of that name.
        """
        if name is None:
            return self.default
        if name not in self._by_name:
            raise UnknownCollection(f"no collection is named {name[:80]!r}; GET /v1/collections lists them")
        return self._by_name[name]

    async def pipeline(self, name: str | None) -> QueryPipeline:
        """What answers queries about a collection, which is opened where it is not.

        Raises:
            UnknownCollection: there is none of that name.
            NotReady: it could not be opened, or the default one is still being opened.
        """
        hosted = self.find(name)
        self._used.remove(hosted.name)
        self._used.append(hosted.name)
        return hosted.pipeline if hosted is self.default else await hosted.ensure_open()

    async def open_all(self) -> None:
        """Opens the default collection, then one after another those that the budget has room for."""
        await self.default.start()
        for hosted in self:
            await self.open(hosted)

    async def open(self, hosted: HostedCollection) -> None:
        """Opens a collection if the budget has room for it."""
        if self._budget and self.memory() + await asyncio.to_thread(version_bytes, hosted.root) > self._budget:
            logger.info("collection_left name=%s: opened on first use, for want of memory", hosted.name)
        else:
            await hosted.start()

    def weight_bytes(self) -> int:
        """Bytes of the weights of all encoders in use, each counted once."""
        encoders = {id(hosted.encoder): hosted.encoder for hosted in self if hosted.encoder is not None}
        return sum(encoder.weight_bytes for encoder in encoders.values())

    def memory(self) -> int:
        """Bytes that count against the budget."""
        return self.weight_bytes() + sum(hosted.size_bytes() for hosted in self)

    def _evict(self, wanted: HostedCollection, more: int) -> None:
        """Closes what has not been used longest until `more` bytes fit, but never `wanted` or the default.

        A version that is to replace one of `wanted` counts beside it.
        """
        if not self._budget:
            return
        for name in list(self._used):
            if self.memory() + more <= self._budget:
                return
            hosted = self._by_name[name]
            # One whose newest version was refused could not be opened again, and serves on.
            if hosted not in (wanted, self.default) and hosted.version and not hosted.has_failed():
                logger.warning("collection_closed name=%s: unused longest, and the memory budget is reached", name)
                hosted.close()
        if (needed := self.memory() + more) > self._budget:
            logger.warning(
                "memory_budget_exceeded needed=%d budget=%d: for %s, and nothing else can be closed",
                needed,
                self._budget,
                wanted.name,
            )


def collection_folders(first: Path, more: Sequence[Path]) -> list[Path]:
    """The folders to serve: a folder that is no collection stands for the collections in it, by name.

    Args:
        first: the default collection, whatever it is.
        more: further ones.
    """
    from lookalike.collection import CURRENT

    folders = [first]
    for folder in more:
        if folder.is_dir() and not any(folder.iterdir()):
            continue  # a folder for collections to come
        inside = [] if (folder / CURRENT).exists() else sorted(path.parent for path in folder.glob(f"*/{CURRENT}"))
        folders += [path for path in inside or [folder] if path.resolve() != first.resolve()]
    return folders


def discover_collections(first: Path, more: Sequence[Path]) -> list[Path]:
    """As `collection_folders`, without those where no collection is just now."""
    from lookalike.collection import CURRENT

    return [folder for folder in collection_folders(first, more) if (folder / CURRENT).exists()]

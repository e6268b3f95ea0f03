"""Background tasks of collections: probes, new versions, and folders of collections that appear or are removed."""

from __future__ import annotations

import asyncio
import logging
from itertools import chain

from app.collections.folders import discover_collections
from app.collections.hosted import HostedCollection
from app.collections.manager import CollectionManager
from app.collections.metrics import register_collection
from app.settings import Settings
from app.tasks import restarting, stop
from app.telemetry import Telemetry

logger = logging.getLogger(__name__)


class CollectionWatcher:
    """Keeps the collections of a service probed, up to date with their folders, and measured."""

    def __init__(self, collections: CollectionManager, settings: Settings, telemetry: Telemetry) -> None:
        self._collections = collections
        self._settings = settings
        self._telemetry = telemetry
        self._watchers: dict[str, list[asyncio.Task[None]]] = {}  # by the collection's name
        for hosted in collections:
            register_collection(telemetry, hosted)

    def start(self) -> None:
        """Start the tasks of the collections known so far."""
        for hosted in self._collections:
            self._watch(hosted)

    async def stop(self) -> None:
        """Cancel all tasks."""
        await stop(chain.from_iterable(self._watchers.values()))

    async def watch_folders(self) -> None:
        """Add collections that appear in a folder of collections and remove those that vanish from it, forever."""
        while True:
            await asyncio.sleep(self._settings.watch_seconds)
            first, more = self._settings.collection, self._settings.collections
            try:
                folders = await asyncio.to_thread(discover_collections, first, more)
            except OSError:  # a disk that is not available now
                continue
            for hosted in self._collections.remove_missing(folders, (first, *more)):
                self._remove(hosted)
            for hosted in self._collections.add_discovered(folders):
                await self._add(hosted)

    def _watch(self, hosted: HostedCollection) -> None:
        tasks = [hosted.keep_probing, *([hosted.watch] if self._settings.watch_seconds else [])]
        if self._settings.writable:
            tasks.append(hosted.compactor.run)
        self._watchers[hosted.name] = [asyncio.create_task(restarting(task)) for task in tasks]

    def _remove(self, hosted: HostedCollection) -> None:
        logger.warning("collection_removed name=%s: its folder has been missing for a minute", hosted.name)
        for task in self._watchers.pop(hosted.name):
            task.cancel()
        self._telemetry.remove(collection=hosted.name)

    async def _add(self, hosted: HostedCollection) -> None:
        logger.warning("collection_found name=%s", hosted.name)
        register_collection(self._telemetry, hosted)
        self._watch(hosted)
        if self._settings.preload:
            await self._collections.open_if_it_fits(hosted)

"""One collection's life in the service: opened, probed, and replaced by its next version while queries go on.

A query holds the version that it began with to its end, so that no answer is mixed of two, and the old version goes
when the last of its queries has. A new version that can't be opened, or whose first queries fail, is refused: the old
one serves on, and the reason is kept. It knows nothing of routes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.admission import Gates
from app.batching import Device
from app.errors import NotReady
from app.probe import Probe
from app.queries import Queries
from app.settings import Settings
from app.telemetry import Telemetry
from retrieval.errors import LookalikeError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all collections of a service use together."""

    settings: Settings
    device: Device
    pool: ThreadPoolExecutor
    gates: Gates
    telemetry: Telemetry


class Served:
    """One collection, opened or about to be.

    Attributes:
        failure: why the first version, or the newest, could not be opened; None while all is well.
        refused: the version's name that `failure` is about; empty where the collection has none.
        swaps: how often a version has been replaced by another.
        probe: whether queries pass.
        on_ready: called when the first version's first queries have passed.
        on_failure: called when the first version could not be opened.
    """

    def __init__(self, root: Path, shared: Shared) -> None:
        self.root = root
        self.failure: LookalikeError | None = None
        self.refused = ""
        self.swaps = 0
        self.probe = Probe(shared.settings.probe_timeout)
        self.on_ready: Callable[[Queries], None] = lambda queries: None
        self.on_failure: Callable[[LookalikeError], None] = lambda error: logger.error("%s [%s]", error, error.code)
        self._shared = shared
        self._queries: Queries | None = None
        self._opening = asyncio.Lock()

    @property
    def queries(self) -> Queries:
        """What answers queries.

        Raises:
            NotReady: the collection is still being opened, or could not be.
        """
        if self._queries is None:
            if self.failure is not None:
                raise NotReady(f"the collection could not be opened: {self.failure} [{self.failure.code}]")
            raise NotReady("the collection is being opened; try again in a moment")
        return self._queries

    @property
    def name(self) -> str:
        """What the collection is called in paths: its folder's name."""
        return self.root.resolve().name

    @property
    def version(self) -> str:
        """The version that answers; empty while none does."""
        return self._queries.searcher.collection.manifest.version if self._queries else ""

    def size(self) -> int:
        """Bytes of the files of the version that answers, 0 while none does."""
        return (
            sum(entry.size for entry in self.queries.searcher.collection.manifest.files.values()) if self.version else 0
        )

    async def start(self) -> None:
        """Opens the first version; a failure is kept and told, not raised."""
        try:
            self.on_ready(await self.reload())
        except LookalikeError as error:
            self.on_failure(error)

    async def reload(self) -> Queries:
        """Opens the current version, sends it a first query of each kind, and puts it in the old one's place.

        Raises:
            LookalikeError: the version is no good; what served before serves on.
        """
        async with self._opening:
            return await self._swap()

    async def watch(self) -> None:
        """Reloads whenever `CURRENT` names a version that neither serves nor was refused; never ends by itself."""
        while True:
            await asyncio.sleep(self._shared.settings.watch_seconds)
            async with self._opening:  # what is being opened just now is not opened once more
                named = await self._named()
                if named and named not in (self.version, self.refused):
                    with suppress(LookalikeError):  # logged, and kept as `failure`
                        await self._swap()

    async def keep_probing(self) -> None:
        """Sends a query of each kind every few seconds; never ends by itself."""
        while True:
            await asyncio.sleep(self._shared.settings.probe_seconds)
            if self._queries is not None:
                await self.probe.run(self._queries)

    async def _swap(self) -> Queries:
        before = self.version
        try:
            queries = await self._open()
        except Exception as error:
            self.failure = _told(error)
            self.refused = await self._named()
            if before:
                logger.error("version_refused version=%s: %s [%s]", self.refused, error, self.failure.code)
            if isinstance(error, LookalikeError):
                raise
            logger.exception("the collection could not be opened")
            raise self.failure from error
        self._queries, self.failure, self.refused = queries, None, ""
        if before and before != self.version:
            self.swaps += 1
            logger.warning("version_swapped from=%s to=%s", before, self.version)
        return queries

    async def _open(self) -> Queries:
        from retrieval.bootstrap import open_searcher  # torch, FAISS and Arrow: seconds that /livez need not wait for

        shared, settings = self._shared, self._shared.settings
        call = partial(
            open_searcher,
            self.root,
            encoder=settings.encoder,
            device=settings.device,
            engine=settings.engine,
            store_device=settings.store_device,
            verify=settings.verify,
            limits=settings.limits(),
            loaded=self._queries.searcher.encoder if self._queries else None,
        )
        # The first on the thread that owns the device; while others are answered there, beside it.
        searcher = await (asyncio.to_thread(call) if self._queries else shared.device.run(call))
        queries = Queries(searcher, shared.device, shared.pool, shared.gates, shared.telemetry)
        await Probe(settings.open_timeout).require(queries)
        return queries

    async def _named(self) -> str:
        """What `CURRENT` says; empty where it can't be read."""
        from retrieval.collection import current_version

        try:
            return await asyncio.to_thread(current_version, self.root)
        except LookalikeError:
            return ""


def _told(error: Exception) -> LookalikeError:
    return error if isinstance(error, LookalikeError) else LookalikeError(f"{type(error).__name__}: {error}")

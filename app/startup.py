"""What the application holds from start to end: threads, keys, gates, and the collections behind an open port.

/livez answers at once, /readyz when the first queries have passed. It knows nothing of routes.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from app.access import Access
from app.admission import Gates
from app.batching import Device
from app.catalog import Catalog, collection_folders
from app.errors import NotReady
from app.fetch import Fetcher
from app.queries import Queries
from app.served import Shared
from app.settings import Settings
from app.telemetry import Telemetry


class Service:
    """The service's parts.

    Attributes:
        settings: as given.
        access: keys and rate limit.
        gates: who is let in under load.
        fetcher: fetches pictures by URL.
        catalog: the collections.
        draining: whether the service is about to end: it answers still, but is not ready for more.
    """

    def __init__(self, settings: Settings) -> None:
        """Starts the threads; raises ConfigInvalid where keys, rate limit, allow-list or collections make no sense."""
        self.settings = settings
        self.access = Access(settings)
        self.gates = Gates(settings.max_wait)
        self.fetcher = Fetcher(
            enabled=settings.urls,
            allowed=settings.urls_allowed,
            max_bytes=settings.max_body_bytes,
            timeout=settings.url_timeout,
        )
        self.draining = False
        self.telemetry = Telemetry()
        self._device = Device(self.telemetry.batch)
        self._pool = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="work")
        self.catalog = Catalog(
            collection_folders(settings.collection, settings.collections),
            Shared(settings, self._device, self._pool, self.telemetry),
            settings.memory_budget,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._measure()

    def require_ready(self) -> Queries:
        """What answers queries about the default collection, where a query of each kind has passed of late.

        Raises:
            NotReady: says which part fails, or that the service is about to end.
        """
        queries = self.catalog.default.queries
        if self.draining:
            raise NotReady("the service is about to end")
        stuck = self._device.busy_for()
        if stuck > self.settings.probe_timeout:
            raise NotReady(f"the device's thread is stuck: one batch has taken {stuck:.0f} s so far")
        if trouble := self.catalog.default.probe.trouble():
            raise NotReady(f"a probe did not pass: {trouble}")
        return queries

    def start(self) -> None:
        """Opens the collections and watches over them, beside what the event loop does otherwise."""
        catalog, settings = self.catalog, self.settings
        work = [catalog.open_all() if settings.preload else catalog.default.start()]
        work += [served.keep_probing() for served in catalog]
        if settings.watch_seconds:
            work += [served.watch() for served in catalog]
            work.append(self.access.watch(settings.watch_seconds))
        self._tasks = [asyncio.create_task(part) for part in work]

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        try:
            self.require_ready()
        except NotReady:
            return False
        return True

    def _measure(self) -> None:
        gauge, catalog = self.telemetry.gauge, self.catalog
        gauge("ready", "Whether /readyz says 200.", self.is_ready)
        gauge("waiting", "Queries that wait for the device.", self._device.waiting)
        gauge("model_bytes", "Weights of the encoders in use.", catalog.weight_bytes)
        for served in catalog:
            of = {"collection": served.name}
            gauge("swaps", "Versions replaced since the start.", partial(getattr, served, "swaps"), **of)
            gauge("items", "Items in the collection; 0 while it is not open.", served.items, **of)
            gauge("collection_ready", "Whether the collection is open and its last probe passed.", served.is_well, **of)
            gauge("index_bytes", "Files of the version that serves; most are mapped.", served.size, **of)
        for kind, gate in self.gates.by_kind.items():
            gauge("under_way", "Queries let in and not answered yet.", partial(getattr, gate, "under_way"), kind=kind)
            gauge("refused", "Queries refused since the start.", partial(getattr, gate, "refused"), kind=kind)
            gauge("expected_wait_seconds", "What a query would wait now.", gate.expected_wait, kind=kind)

    async def close(self) -> None:
        """Drops what waits; what runs may finish."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._device.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

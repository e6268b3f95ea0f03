"""What the application holds from start to end: threads, keys, gates, and the collection behind an open port.

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
from app.errors import NotReady
from app.keys import load_keyring
from app.queries import Queries
from app.served import Served, Shared
from app.settings import Settings
from app.telemetry import Telemetry


class Service:
    """The service's parts.

    Attributes:
        settings: as given.
        access: keys and rate limit.
        gates: who is let in under load.
        served: the collection.
        draining: whether the service is about to end: it answers still, but is not ready for more.
    """

    def __init__(self, settings: Settings) -> None:
        """Starts the threads; raises ConfigInvalid where keys or the rate limit make no sense."""
        keyring = load_keyring(settings.keys.get_secret_value(), settings.keys_file)
        self.settings = settings
        self.access = Access(keyring, "read" if settings.anonymous else "admin", settings.rate_limit)
        self.gates = Gates(settings.max_wait, settings.deadline)
        self.draining = False
        self.telemetry = Telemetry()
        self._device = Device(self.telemetry.batch)
        self._pool = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="work")
        self.served = Served(
            settings.collection, Shared(settings, self._device, self._pool, self.gates, self.telemetry)
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._measure()

    @property
    def queries(self) -> Queries:
        """What answers queries. Raises NotReady."""
        return self.served.queries

    def require_ready(self) -> Queries:
        """What answers queries, where a query of each kind has passed of late.

        Raises:
            NotReady: says which part fails, or that the service is about to end.
        """
        queries = self.queries
        if self.draining:
            raise NotReady("the service is about to end")
        stuck = self._device.busy_for()
        if stuck > self.settings.probe_timeout:
            raise NotReady(f"the device's thread is stuck: one batch has taken {stuck:.0f} s so far")
        if trouble := self.served.probe.trouble():
            raise NotReady(f"a probe did not pass: {trouble}")
        return queries

    def start(self) -> None:
        """Opens the collection and watches over it, beside what the event loop does otherwise."""
        watched = [self.served.start(), self.served.keep_probing()]
        if self.settings.watch_seconds:
            watched.append(self.served.watch())
        self._tasks = [asyncio.create_task(work) for work in watched]

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        try:
            self.require_ready()
        except NotReady:
            return False
        return True

    def _measure(self) -> None:
        gauge, served = self.telemetry.gauge, self.served
        gauge("ready", "Whether /readyz says 200.", self.is_ready)
        gauge("waiting", "Queries that wait for the device.", self._device.waiting)
        gauge("swaps", "Versions replaced since the start.", lambda: served.swaps)
        gauge(
            "items",
            "Items in the collection.",
            lambda: len(served.queries.searcher.collection) if served.version else 0,
        )
        gauge("index_bytes", "Files of the version that serves; most are mapped.", served.size)
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

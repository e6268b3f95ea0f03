"""What the application holds from start to end: threads, keys, admission, and the collections behind an open port.

/livez answers at once, /readyz when the first queries have passed. It knows nothing of routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any

from app.admission import AdmissionControllers
from app.auth.authentication import Authenticator
from app.auth.rate_limit import RateLimiter
from app.collections.hosted import HostedCollection, Runtime
from app.collections.manager import CollectionManager, collection_folders, discover_collections
from app.errors import NotReady
from app.execution.batcher import lower_thread_priority
from app.execution.image_fetcher import ImageFetcher
from app.execution.pipeline import QueryPipeline
from app.execution.workers import DecodeWorkers, EncoderWorkers, SearchWorkers
from app.server.connections import BoundedConnection
from app.settings import Settings
from app.telemetry import Telemetry

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_JOIN_SECONDS = 2.0
_AGAIN_SECONDS = 5.0


class Service:
    """The service's parts.

    Attributes:
        settings: as given.
        authenticator: API keys.
        rate_limiter: queries of each caller.
        admission: which queries are admitted under load.
        fetcher: fetches images by URL.
        collections: the collections by name.
        draining: whether the service is about to end: it answers still, but is not ready for more.
    """

    def __init__(self, settings: Settings) -> None:
        """Starts the threads; raises ConfigInvalid where keys, rate limit, allow-list or collections make no sense."""
        self.settings = settings
        self.authenticator = Authenticator(settings)
        self.rate_limiter = RateLimiter(settings.rate_limit)
        self.admission = AdmissionControllers(settings.max_wait)
        self.fetcher = ImageFetcher(
            enabled=settings.urls,
            allowed=settings.urls_allowed,
            max_bytes=settings.max_body_bytes,
            timeout=settings.url_timeout,
        )
        self.draining = False
        self.telemetry = Telemetry()
        self._decode_workers = DecodeWorkers(settings.worker_threads)
        self._encoder_workers = EncoderWorkers(self.telemetry.observe_batch)
        self._search_workers = SearchWorkers(settings.worker_threads, self.telemetry.observe_batch)
        self._pool = ThreadPoolExecutor(settings.worker_threads, "work", lower_thread_priority)
        self._batchers = self._decode_workers, self._encoder_workers, self._search_workers
        self.collections = CollectionManager(
            collection_folders(settings.collection, settings.collections),
            Runtime(
                settings, self._decode_workers, self._encoder_workers, self._search_workers, self._pool, self.telemetry
            ),
            settings.memory_budget,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._watchers: dict[str, list[asyncio.Task[None]]] = {}  # of each collection
        self._measure()

    def require_ready(self) -> QueryPipeline:
        """What answers queries about the default collection, where a query of each kind has passed of late.

        Raises:
            NotReady: says which part fails, or that the service is about to end.
        """
        pipeline = self.collections.default.pipeline
        if self.draining:
            raise NotReady("the service is about to end")
        stuck = self._encoder_workers.busy_seconds()
        if stuck > self.settings.probe_timeout:
            raise NotReady(f"the device's thread is stuck: one batch has taken {stuck:.0f} s so far")
        if problem := self.collections.default.probe.problem():
            raise NotReady(f"a probe did not pass: {problem}")
        return pipeline

    def start(self) -> None:
        """Opens the collections and watches over them, beside what the event loop does otherwise."""
        collections, settings = self.collections, self.settings
        self._begin(collections.open_all if settings.preload else collections.default.start)
        for hosted in collections:
            self._look_after(hosted)
        self._begin(self._watch_device)
        if settings.watch_seconds:
            self._begin(self._watch_folders)
            self._begin(partial(self.authenticator.watch, settings.watch_seconds))

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.append(asyncio.create_task(_lasting(work)))

    def _look_after(self, hosted: HostedCollection) -> None:
        work = [hosted.keep_probing, *([hosted.watch] if self.settings.watch_seconds else [])]
        self._watchers[hosted.name] = [asyncio.create_task(_lasting(each)) for each in work]

    def _forget(self, hosted: HostedCollection) -> None:
        for task in self._watchers.pop(hosted.name):
            task.cancel()
        self.telemetry.remove(collection=hosted.name)

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        try:
            self.require_ready()
        except NotReady:
            return False
        return True

    async def _watch_folders(self) -> None:
        """Takes in collections that are new in a folder of collections, lets go of others; never ends by itself."""
        settings = self.settings
        named = settings.collection, *settings.collections
        while True:
            await asyncio.sleep(settings.watch_seconds)
            try:
                folders = await asyncio.to_thread(discover_collections, settings.collection, settings.collections)
            except OSError:  # a disk that is not there just now
                continue
            for hosted in self.collections.remove_missing(folders, named):
                logger.warning("collection_removed name=%s: its folder has been away for a minute", hosted.name)
                self._forget(hosted)
            for hosted in self.collections.add_discovered(folders):
                logger.warning("collection_found name=%s", hosted.name)
                self._measure_collection(hosted)
                self._look_after(hosted)
                if settings.preload:
                    await self.collections.open(hosted)

    async def _watch_device(self) -> None:
        """Logs, once, where a batch is stuck: the frames of the threads that own the device; never ends by itself."""
        told = False
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self.collections.default.version:
                continue  # opening it loads libraries and weights, which takes its time
            stuck = self._encoder_workers.busy_seconds()
            if (late := stuck > self.settings.probe_timeout) and not told:
                logger.error("device_stuck seconds=%.0f\n%s", stuck, "\n".join(self._encoder_workers.stack_traces()))
            told = late

    def _measure(self) -> None:
        gauge, counter, collections = self.telemetry.gauge, self.telemetry.counter, self.collections
        gauge("ready", "Whether /readyz says 200.", self.is_ready)
        gauge("waiting", "Queries that wait for the device.", self._encoder_workers.queue_size)
        gauge(
            "device_busy_seconds",
            "How long the oldest batch on the device has taken.",
            self._encoder_workers.busy_seconds,
        )
        gauge("decodes_waiting", "Images that wait to be decoded.", self._decode_workers.queue_size)
        gauge("searches_waiting", "Queries that wait for a search.", self._search_workers.queue_size)
        gauge("connections", "Connections that are open, of the port with most.", BoundedConnection.busiest)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # each connection is one
        most = partial(min, self.settings.max_connections, files)
        gauge("connections_most", "Connections of a port beyond which new ones are refused.", most)
        gauge("model_bytes", "Weights of the encoders in use.", collections.weight_bytes)
        for hosted in collections:
            self._measure_collection(hosted)
        for kind, controller in self.admission.by_kind.items():
            gauge(
                "under_way",
                "Queries admitted and not answered yet.",
                partial(getattr, controller, "in_flight"),
                kind=kind,
            )
            counter("refused", "Queries refused since the start.", partial(getattr, controller, "refused"), kind=kind)
            gauge("expected_wait_seconds", "What a query would wait now.", controller.expected_wait, kind=kind)

    def _measure_collection(self, hosted: HostedCollection) -> None:
        gauge, counter, of = self.telemetry.gauge, self.telemetry.counter, {"collection": hosted.name}
        counter("swaps", "Versions replaced since the start.", partial(getattr, hosted, "swaps"), **of)
        gauge("items", "Items in the collection; 0 while it is not open.", hosted.item_count, **of)
        gauge("collection_failed", "Whether the newest version could not be opened.", hosted.has_failed, **of)
        gauge("collection_ready", "Whether the collection is open and its last probe passed.", hosted.is_healthy, **of)
        gauge("index_bytes", "Files of the version that serves; most are mapped.", hosted.size_bytes, **of)

    def at_work(self) -> bool:
        """Whether a batch is under way still: Python must not end under a thread that is inside a library."""
        return any(thread.is_alive() for batcher in self._batchers for thread in batcher.threads)

    async def close(self) -> None:
        """Drops what waits; what runs may finish."""
        for task in [*self._tasks, *chain(*self._watchers.values())]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for batcher in self._batchers:
            batcher.close()
            await asyncio.to_thread(batcher.join, _JOIN_SECONDS)
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _lasting(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Does what watches over something; where that fails, which nobody foresaw, it is told and begun anew."""
    while True:
        try:
            return await work()
        except Exception:
            logger.exception("a task of the service failed; it begins anew in %.0f s", _AGAIN_SECONDS)
            await asyncio.sleep(_AGAIN_SECONDS)

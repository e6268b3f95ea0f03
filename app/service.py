"""The service's parts: threads, authentication, admission and collections, their start and their end.

The port is open before the collections are: /livez responds immediately, /readyz when the first queries have passed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from app import metrics
from app.admission import AdmissionControllers
from app.auth.authentication import Authenticator
from app.auth.rate_limit import RateLimiter
from app.collections.folders import collection_folders
from app.collections.manager import CollectionManager
from app.collections.runtime import Runtime
from app.collections.watching import CollectionWatcher
from app.errors import NotReady
from app.execution.batcher import lower_thread_priority
from app.execution.image_fetcher import ImageFetcher
from app.execution.pipeline import QueryPipeline
from app.execution.response_cache import ResponseCache
from app.execution.workers import DecodeWorkers, EncoderWorkers, SearchWorkers, WriteWorkers
from app.settings import Settings
from app.tasks import restarting, stop
from app.telemetry import Telemetry

logger = logging.getLogger(__name__)

_DEVICE_CHECK_SECONDS = 1.0
_JOIN_SECONDS = 2.0


class Service:
    """The service's parts.

    Attributes:
        settings: the service's settings.
        authenticator: API keys.
        rate_limiter: queries of each caller.
        admission: which queries are admitted under load.
        fetcher: fetches images by URL.
        collections: the collections by name.
        responses: encoded responses that take long to build.
        draining: whether the service is shutting down: it still answers, but is not ready for more.
    """

    def __init__(self, settings: Settings) -> None:
        """Start the threads.

        Raises:
            ConfigInvalid: keys, rate limit, allow-list or collections are invalid.
        """
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
        self.responses = ResponseCache()
        self.draining = False
        self.telemetry = Telemetry()
        self._runtime = Runtime(
            settings,
            DecodeWorkers(settings.worker_threads),
            EncoderWorkers(self.telemetry.observe_batch),
            SearchWorkers(settings.worker_threads, self.telemetry.observe_batch),
            WriteWorkers(self.telemetry.observe_batch),
            ThreadPoolExecutor(settings.worker_threads, "work", lower_thread_priority),
            ThreadPoolExecutor(settings.worker_threads, "original", lower_thread_priority),
            self.telemetry,
        )
        folders = collection_folders(settings.collection, settings.collections)
        self.collections = CollectionManager(folders, self._runtime, settings.memory_budget)
        self._watcher = CollectionWatcher(self.collections, settings, self.telemetry)
        self._tasks: list[asyncio.Task[None]] = []
        self._register_metrics()

    def _register_metrics(self) -> None:
        self.telemetry.gauge("ready", "Whether /readyz answers 200.", self.is_ready)
        self.telemetry.gauge("model_bytes", "Weights of the encoders in use.", self.collections.weight_bytes)
        metrics.register_workers(self.telemetry, self._runtime)
        metrics.register_admission(self.telemetry, self.admission)

    def start(self) -> None:
        """Start to open the collections and to watch them; return immediately."""
        settings = self.settings
        self._run(self.collections.open_all if settings.preload else self.collections.default.start)
        self._watcher.start()
        self._run(self._watch_device)
        if settings.watch_seconds:
            self._run(self._watcher.watch_folders)
            self._run(partial(self.authenticator.watch, settings.watch_seconds))

    def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.append(asyncio.create_task(restarting(work)))

    async def close(self) -> None:
        """Drop what is queued; batches that run may finish."""
        await stop(self._tasks)
        await self._watcher.stop()
        for workers in self._runtime.batchers:
            workers.close()
            await asyncio.to_thread(workers.join, _JOIN_SECONDS)
        for hosted in self.collections:
            hosted.close()
        for pool in (self._runtime.pool, self._runtime.original_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    def has_running_batch(self) -> bool:
        """Return whether a batch still runs; Python must not exit under a thread that is inside a library."""
        return any(thread.is_alive() for workers in self._runtime.batchers for thread in workers.threads)

    def require_ready(self) -> QueryPipeline:
        """Return the default collection's pipeline if a query of each kind has passed recently.

        Raises:
            NotReady: a part fails, which the message names, or the service is shutting down.
        """
        pipeline = self.collections.default.pipeline
        if self.draining:
            raise NotReady("the service is shutting down")
        if (seconds := self._runtime.encoder_workers.busy_seconds()) > self.settings.probe_timeout:
            raise NotReady(f"the device's thread is stuck: one batch has taken {seconds:.0f} s so far")
        if problem := self.collections.default.probe.problem():
            raise NotReady(f"a probe did not pass: {problem}")
        return pipeline

    def is_ready(self) -> bool:
        """Return whether /readyz answers 200."""
        try:
            self.require_ready()
        except NotReady:
            return False
        return True

    async def _watch_device(self) -> None:
        """Log once that a batch is stuck, with the stack traces of the device's threads; runs forever."""
        is_reported = False
        while True:
            await asyncio.sleep(_DEVICE_CHECK_SECONDS)
            if not self.collections.default.version:
                continue  # opening it loads libraries and weights on the device's thread, which takes long
            encoder_workers = self._runtime.encoder_workers
            seconds = encoder_workers.busy_seconds()
            is_stuck = seconds > self.settings.probe_timeout
            if is_stuck and not is_reported:
                logger.error("device_stuck seconds=%.0f\n%s", seconds, "\n".join(encoder_workers.stack_traces()))
            is_reported = is_stuck

"""One collection's life in the service: opened, probed, and replaced by its next version while queries go on.

A query holds the version that it began with to its end, so that no answer is mixed of two, and the old version goes
when the last of its queries has. A new version that can't be opened, or whose first queries fail, is refused: the old
one serves on, and the reason is kept. It knows nothing of routes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from threadpoolctl import ThreadpoolController

from app.collections.probe import Probe
from app.errors import NotReady
from app.execution.pipeline import QueryPipeline
from app.execution.workers import DecodeWorkers, EncoderWorkers, SearchWorkers
from app.settings import Settings
from app.telemetry import Telemetry
from lookalike.errors import ConfigInvalid, LookalikeError

if TYPE_CHECKING:
    from lookalike.encoders.protocol import Encoder
    from lookalike.types import Identity

logger = logging.getLogger(__name__)

_AGAIN_SECONDS, _LONGEST_PAUSE = 5.0, 60.0
"""After a failure that was not the collection's own, it is opened again for the next query, no sooner than this; after
each further one twice as long, up to a minute."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What all collections of a service use together.

    Attributes:
        encoders: those in use, by the name they were asked for and identity: collections of the same one share it.
        opening: held while a collection is opened, one at a time.
    """

    settings: Settings
    decode_workers: DecodeWorkers
    encoder_workers: EncoderWorkers
    search_workers: SearchWorkers
    pool: ThreadPoolExecutor
    telemetry: Telemetry
    encoders: WeakValueDictionary[tuple[str, Identity], Encoder] = field(default_factory=WeakValueDictionary)
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)


Stamp = tuple[tuple[str, int, int], ...]

Evict = Callable[["HostedCollection", int], None]
"""Called before a version of so many bytes is opened, and once more (0) when its encoder is known."""


class HostedCollection:
    """One collection, opened or to be opened.

    Attributes:
        name: what the collection is called in paths: its folder's name.
        failure: why the first version, or the newest, could not be opened; None while all is well.
        refused: the version's name that `failure` is about; empty where the collection has none.
        swaps: how often a version has been replaced by another.
        probe: whether queries pass.
        on_ready: called when the first version's first queries have passed.
        on_failure: called when the first version could not be opened.
    """

    def __init__(self, root: Path, runtime: Runtime, evict: Evict = lambda hosted, more: None) -> None:
        self.root = root
        self.name = folder_name(root)
        self.failure: LookalikeError | None = None
        self.refused = ""
        self.swaps = 0
        self.probe = Probe(runtime.settings.probe_timeout, runtime.settings.probe_seconds)
        self.on_ready: Callable[[QueryPipeline], None] = lambda pipeline: None
        self.on_failure: Callable[[LookalikeError], None] = lambda error: logger.error("%s [%s]", error, error.code)
        self._runtime = runtime
        self._evict = evict
        self._pipeline: QueryPipeline | None = None
        self._first: asyncio.Task[None] | None = None
        self._gone = False  # whether the folder has vanished under the version that serves
        self._bad: Stamp = ()  # the files of the version that was refused, then and at the last look
        self._seen: Stamp = ()
        self._again = math.inf  # when a failure may have passed that was not the collection's own, such as a full disk
        self._pause = _AGAIN_SECONDS
        self._next: asyncio.Task[QueryPipeline] | None = None  # a reload that was asked for and has not begun

    @property
    def pipeline(self) -> QueryPipeline:
        """What answers queries.

        Raises:
            NotReady: the collection is still being opened, or could not be.
        """
        if self._pipeline is None:
            if self.failure is not None:
                raise NotReady(f"the collection could not be opened: {self.failure} [{self.failure.code}]")
            raise NotReady("the collection is being opened; try again in a moment")
        return self._pipeline

    @property
    def version(self) -> str:
        """The version that answers; empty while none does."""
        return self._pipeline.searcher.collection.manifest.version if self._pipeline else ""

    @property
    def encoder(self) -> Encoder | None:
        """What encodes its queries; None while it is not open."""
        return self._pipeline.searcher.encoder if self._pipeline else None

    def item_count(self) -> int:
        """How many items the version holds that answers, 0 while none does."""
        return len(self._pipeline.searcher.collection) if self._pipeline else 0

    def has_failed(self) -> bool:
        """Whether the first version, or the newest, could not be opened."""
        return self.failure is not None

    def is_healthy(self) -> bool:
        """Whether a version answers and the last probe of it passed."""
        return self._pipeline is not None and not self.probe.problem()

    def size_bytes(self) -> int:
        """Bytes of the files of the version that answers, 0 while none does."""
        return (
            sum(entry.size for entry in self.pipeline.searcher.collection.manifest.files.values())
            if self.version
            else 0
        )

    async def start(self) -> None:
        """Opens the first version where it is not open; a failure is kept and told, not raised."""
        async with self._runtime.opening:
            if self._pipeline is not None or self._in_backoff:
                return
            try:
                self.on_ready(await self._swap())
            except LookalikeError as error:
                self.on_failure(error)

    async def ensure_open(self) -> QueryPipeline:
        """What answers queries, opened now where it is not; it opens on where the caller leaves.

        Raises:
            NotReady: the collection could not be opened, or not within a query's deadline.
        """
        if self._pipeline is None and not self._in_backoff:
            if self._first is None or self._first.done():
                self._first = asyncio.create_task(self.start())
            await asyncio.wait([self._first], timeout=self._runtime.settings.deadline)
        return self.pipeline

    def close(self) -> None:
        """Lets go of what is open; queries under way end in peace, and the next one opens it again."""
        self._pipeline = None

    @property
    def _in_backoff(self) -> bool:
        return self.failure is not None and time.monotonic() < self._again

    async def reload(self) -> QueryPipeline:
        """Opens the current version, sends it a first query of each kind, and puts it in the old one's place.

        Those that ask while another is being opened get one opening together, and it takes place if they leave.

        Raises:
            LookalikeError: the version is no good, or the device is stuck; what served before serves on.
        """
        if self._stuck():
            raise LookalikeError("the device's thread is stuck, so that no version can be tried")
        if self._next is None:
            self._next = asyncio.create_task(self._reload())
            self._next.add_done_callback(_log_result)
        return await asyncio.shield(self._next)

    async def _reload(self) -> QueryPipeline:
        try:
            await self._runtime.opening.acquire()
        finally:
            self._next = None  # who asks from now on may mean files that are newer than what is opened here
        try:
            return await self._swap()
        finally:
            self._runtime.opening.release()

    def _stuck(self) -> bool:
        return (
            self._pipeline is not None
            and self._runtime.encoder_workers.busy_seconds() > self._runtime.settings.probe_timeout
        )

    async def watch(self) -> None:
        """Reloads whenever `CURRENT` names a version that neither serves nor was refused; never ends by itself.

        What was refused is looked at again once its files have changed and stay so. What was never asked for, or was
        closed, stays closed.
        """
        while True:
            await asyncio.sleep(self._runtime.settings.watch_seconds)
            async with self._runtime.opening:  # what is being opened just now is not opened once more
                if self._pipeline is not None or self.failure is not None:
                    await self._poll()

    async def _poll(self) -> None:
        from lookalike.collection import current_version

        if self._stuck():
            return
        try:
            named = await asyncio.to_thread(current_version, self.root)
        except LookalikeError as error:
            if self.version and not self._gone:
                self.failure, self.refused, self._gone = error, "", True
                logger.error("collection_gone version=%s serves on: %s [%s]", self.version, error, error.code)
            return
        back, self._gone = self._gone, False
        if named == self.version and (back or self.refused != named):
            self.failure, self.refused = None, ""
        elif named not in (self.version, self.refused) or (
            named == self.refused and (not self._in_backoff or await self._changed(named))
        ):
            with suppress(LookalikeError):  # logged, and kept as `failure`
                await self._swap()

    async def _changed(self, version: str) -> bool:
        """Whether a refused version's files are others than when it was refused, and the same as a moment ago."""
        before, self._seen = self._seen, await asyncio.to_thread(_stamp, self.root, version)
        return self._seen == before != self._bad

    async def keep_probing(self) -> None:
        """Sends a query of each kind every few seconds; never ends by itself."""
        while True:
            await asyncio.sleep(self._runtime.settings.probe_seconds)
            if self._pipeline is not None:
                await self.probe.run(self._pipeline)

    async def _swap(self) -> QueryPipeline:
        before = self.version
        try:
            pipeline = await self._open()
        except Exception as error:
            self.failure = _as_error(error)
            self.refused = await self._named()
            self._bad = self._seen = await asyncio.to_thread(_stamp, self.root, self.refused)
            own = isinstance(error, LookalikeError)
            self._again = math.inf if own else time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            if before:
                logger.error("version_refused version=%s: %s [%s]", self.refused, error, self.failure.code)
            if own:
                raise
            logger.exception("the collection could not be opened")
            raise self.failure from error
        self._pipeline, self.failure, self.refused, self._pause = pipeline, None, "", _AGAIN_SECONDS
        self.probe.record_success()  # one of its own did, before it took the place
        self._evict(self, 0)
        if before and before != self.version:
            self.swaps += 1
            logger.warning("version_swapped from=%s to=%s", before, self.version)
        return pipeline

    async def _open(self) -> QueryPipeline:
        # torch, FAISS and Arrow: seconds that /livez need not wait for
        from lookalike.bootstrap import EngineOptions, open_searcher
        from lookalike.collection import open_collection

        runtime, settings = self._runtime, self._runtime.settings
        collection = await asyncio.to_thread(open_collection, self.root, verify=settings.verify)
        size_bytes = sum(entry.size for entry in collection.manifest.files.values())
        self._evict(self, size_bytes)  # and not before it is known to be sound
        call = partial(
            open_searcher,
            collection,
            encoder=self._encoder_name(),
            engine_options=EngineOptions(settings.device, settings.engine),
            store_device=settings.store_device,
            limits=settings.limits(),
            loaded=runtime.encoders,
        )
        # The first on a thread that owns the device; while others are answered there, beside it.
        searcher = await (asyncio.to_thread(call) if runtime.encoders else runtime.encoder_workers.run(call))
        asked = self._encoder_name() or searcher.collection.manifest.encoder.name
        # Searches run side by side, beside the encoder's threads: several threads of BLAS for each would fight for the
        # same cores (benchmarks/RESULTS.md). Only now is every copy of BLAS loaded, FAISS's own too.
        libraries = ThreadpoolController()
        libraries.limit(limits=1, user_api="blas")
        runtime.search_workers.libraries = libraries.select(user_api="openmp")
        known = runtime.encoders.get((asked, searcher.encoder.spec.identity)) is searcher.encoder
        runtime.encoders[asked, searcher.encoder.spec.identity] = searcher.encoder
        batchers = runtime.decode_workers, runtime.encoder_workers, runtime.search_workers
        pipeline = QueryPipeline(self.name, searcher, *batchers, runtime.pool, runtime.telemetry)
        await Probe(settings.open_timeout).check(pipeline)
        if not known:  # the first that come together shall not wait for it
            try:
                async with asyncio.timeout(settings.open_timeout):
                    await runtime.encoder_workers.warm(searcher)
            except TimeoutError as error:
                raise LookalikeError(f"a first batch did not end within {settings.open_timeout:g} s") from error
        return pipeline

    def _encoder_name(self) -> str | None:
        """What overrides the manifest's encoder; it is meant for the default collection."""
        settings = self._runtime.settings
        return settings.encoder if self.root == settings.collection else None

    async def _named(self) -> str:
        """What `CURRENT` says; empty where it can't be read."""
        from lookalike.collection import current_version

        try:
            return await asyncio.to_thread(current_version, self.root)
        except LookalikeError:
            return ""


def folder_name(root: Path) -> str:
    """What a collection is called in paths: its folder's name, a link's own.

    Raises:
        ConfigInvalid: no path can hold it.
    """
    name = root.absolute().name
    if name in ("", ".."):
        name = root.resolve().name
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConfigInvalid(f"the name of the folder {str(root)!r} is not UTF-8; rename it") from error
    return name


def version_bytes(root: Path) -> int:
    """The bytes of the current version's files; 0 where they can't be known, which opening will say."""
    from lookalike.collection import current_manifest

    try:
        return sum(entry.size for entry in current_manifest(root).files.values())
    except LookalikeError:
        return 0


def _stamp(root: Path, version: str) -> Stamp:
    """Names, sizes and times of a version's files; their permissions count, too."""
    from lookalike.collection import VERSIONS

    try:
        folder = root / VERSIONS / version
        return tuple(sorted((path.name, (stat := path.stat()).st_size, stat.st_ctime_ns) for path in folder.iterdir()))
    except (OSError, ValueError):
        return ()


def _log_result(reload: asyncio.Task[QueryPipeline]) -> None:
    """Its error is kept and logged already, and whoever asked may have left."""
    if not reload.cancelled():
        reload.exception()


def _as_error(error: Exception) -> LookalikeError:
    return error if isinstance(error, LookalikeError) else LookalikeError(f"{type(error).__name__}: {error}")

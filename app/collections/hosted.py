"""One collection of the service: opened, probed, and replaced by its next version while queries go on.

A query keeps the version that it began with, so no response mixes two versions. The old version is released with the
last of its queries. A version that can't be opened, or whose first queries fail, is refused: the one that serves goes
on, and the reason is kept. `app.collections.state` has the states.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from app.collections.backoff import Backoff
from app.collections.compaction import Compactor
from app.collections.folders import folder_name
from app.collections.opening import is_on_milvus, open_version, open_writes
from app.collections.probe import Probe
from app.collections.runtime import Runtime
from app.collections.state import State
from app.collections.status import OpenVersion, Refusal, Status
from app.collections.versions import Fingerprint, fingerprint, named_version
from app.collections.writes import CollectionWrites
from app.errors import NotReady, ReadOnly
from app.execution.pipeline import QueryPipeline
from lookalike.errors import CollectionBusy, LookalikeError, StoreUnreachable

if TYPE_CHECKING:
    from lookalike.encoders.protocol import Encoder

logger = logging.getLogger(__name__)

Evict = Callable[["HostedCollection", int], None]
"""Closes others until so many bytes fit; called before a version is opened, and with 0 once its encoder is loaded."""


class HostedCollection:
    """A collection by its name. Lives on the event loop's thread.

    Attributes:
        name: the collection's name in URLs: its folder's.
        status: state, the version that serves and the one that was refused; replaced as a whole.
        backoff: when a failed opening is retried.
        probe: the last probe of the version that serves.
        compactor: compacts the collection when it is due, if the service writes to it.
        on_ready: called when `start` has opened a version.
        on_failure: called when `start` could not open one.
    """

    def __init__(self, root: Path, runtime: Runtime, evict: Evict = lambda hosted, more: None) -> None:
        self.root = root
        self.name = folder_name(root)
        self.status = Status()
        self.backoff = Backoff()
        self.probe = Probe(runtime.settings.probe_timeout, runtime.settings.probe_seconds)
        self.compactor = Compactor(self, runtime.settings)
        self.on_ready: Callable[[QueryPipeline], None] = lambda pipeline: None
        self.on_failure: Callable[[LookalikeError], None] = lambda error: logger.error("%s [%s]", error, error.code)
        self._runtime = runtime
        self._evict = evict
        self._start_task: asyncio.Task[None] | None = None
        self._pending_reload: asyncio.Task[QueryPipeline] | None = None  # requested, and not begun
        self._writes: CollectionWrites | None = None

    @property
    def pipeline(self) -> QueryPipeline:
        """The pipeline that answers queries.

        Raises:
            NotReady: the collection is still being opened, or could not be.
        """
        if self.status.serving is not None:
            return self.status.serving.pipeline
        if self.status.refusal is not None:
            raise NotReady(f"the collection could not be opened: {self.status.refusal}")
        raise NotReady("the collection is being opened; try again in a moment")

    def require_writes(self) -> CollectionWrites:
        """Return the writer of the collection.

        Raises:
            NotReady: the collection is not open.
            ReadOnly: the service does not write to it.
        """
        if self.status.serving is None:
            raise NotReady("the collection is being opened; try again in a moment")
        if self._writes is not None:
            return self._writes
        if self._runtime.settings.writable:
            raise ReadOnly(f"collection {self.name!r} is on Milvus, and writes go to FAISS collections only")
        raise ReadOnly("this service does not accept writes; start it with --writable (LOOKALIKE_WRITABLE=true)")

    @property
    def is_writable(self) -> bool:
        """Whether the collection is open and the service writes to it."""
        return self._writes is not None

    @property
    def pending_writes(self) -> int:
        """Number of items that were written since the version that serves was built."""
        return self._writes.pending if self._writes is not None else 0

    @property
    def version(self) -> str:
        """The version that serves; empty if none does."""
        return self.status.version

    @property
    def encoder(self) -> Encoder | None:
        """The encoder of the version that serves; None if none does."""
        return self.status.serving.pipeline.searcher.encoder if self.status.serving else None

    def item_count(self) -> int:
        """Return the number of items in the version that serves, 0 if none does."""
        return len(self.status.serving.pipeline.searcher.collection) if self.status.serving else 0

    def size_bytes(self) -> int:
        """Return the bytes of the files of the version that serves, 0 if none does."""
        return self.status.serving.size_bytes if self.status.serving else 0

    def has_failed(self) -> bool:
        """Return whether the newest version could not be opened."""
        return self.status.state.has_failure

    def is_healthy(self) -> bool:
        """Return whether a version serves and its last probe passed."""
        return self.status.state.serves and not self.probe.problem()

    async def start(self) -> None:
        """Open the current version unless one serves; a failure is kept and reported, not raised."""
        async with self._runtime.opening_lock:
            if self.status.state.serves or self._in_backoff():
                return
            try:
                self.on_ready(await self._open_current())
            except LookalikeError as error:
                self.on_failure(error)

    async def ensure_open(self) -> QueryPipeline:
        """Return the pipeline that answers queries; open the current version first if none serves.

        The opening goes on if the caller disconnects.

        Raises:
            NotReady: the collection could not be opened, or not within a query's deadline.
        """
        if self.status.serving is None and not self._in_backoff():
            if self._start_task is None or self._start_task.done():
                self._start_task = asyncio.create_task(self.start())
            await asyncio.wait([self._start_task], timeout=self._runtime.settings.deadline)
        return self.pipeline

    async def reload(self) -> QueryPipeline:
        """Open the current version, send it a first query of each kind, and let it replace the one that serves.

        Calls that arrive while another version is being opened share one opening. It goes on if the callers
        disconnect.

        Raises:
            LookalikeError: the version was refused, or the device is stuck; what served before goes on serving.
        """
        if self._is_device_stuck():
            raise LookalikeError("the device's thread is stuck, so that no version can be tried")
        if self._pending_reload is None or self._pending_reload.done():
            self._pending_reload = asyncio.create_task(self._reload())
            self._pending_reload.add_done_callback(_log_result)
        return await asyncio.shield(self._pending_reload)

    async def _reload(self) -> QueryPipeline:
        async with self._runtime.opening_lock:
            self._pending_reload = None  # later calls may mean files that are newer than those opened here
            return await self._open_current()

    def close(self) -> None:
        """Release the version that serves; queries in flight finish, and the next one opens it again."""
        self.status = self.status.released()
        writes, self._writes = self._writes, None
        if writes is not None:
            writes.close()

    async def keep_probing(self) -> None:
        """Send a query of each kind every few seconds, forever."""
        while True:
            await asyncio.sleep(self._runtime.settings.probe_seconds)
            if self.status.serving is not None:
                await self.probe.run(self.status.serving.pipeline)

    async def watch(self) -> None:
        """Poll `CURRENT` every few seconds, forever. A closed collection stays closed."""
        while True:
            await asyncio.sleep(self._runtime.settings.watch_seconds)
            async with self._runtime.opening_lock:  # so that a version that is being opened is not opened twice
                if self.status.state is not State.CLOSED:
                    await self._poll()

    async def _poll(self) -> None:
        """Open the version that `CURRENT` names unless it serves, or was refused and need not be retried yet."""
        from lookalike.collection import current_version

        if self._is_device_stuck():
            return
        try:
            named = await asyncio.to_thread(current_version, self.root)
        except LookalikeError as error:
            if self.status.state in (State.SERVING, State.STALE):
                self._record_refusal(Refusal(error.code, str(error), failures=self.status.failures))
            return
        if self.status.state is State.CLOSED:  # in the meantime
            return
        refusal = self.status.refusal
        if refusal and refusal.version == named:
            if not await self._may_retry(refusal):
                return
        elif named == self.version:
            if refusal:
                self.status = self.status.restored()
            return
        with suppress(LookalikeError):  # logged, and kept in the status
            await self._open_current()

    async def _may_retry(self, refusal: Refusal) -> bool:
        """Return whether the back-off is over, or the refused files have been replaced by others that are stable."""
        if not self.backoff.is_waiting(refusal.retry_at):
            return True
        files = await asyncio.to_thread(fingerprint, self.root, refusal.version)
        if self.status.refusal is not refusal:  # closed in the meantime
            return False
        self.status = replace(self.status, refusal=replace(refusal, last_files=files))
        return refusal.is_replaced_by(files)

    async def _open_current(self) -> QueryPipeline:
        named = await asyncio.to_thread(named_version, self.root)
        files = await asyncio.to_thread(fingerprint, self.root, named)  # before it is opened: they may change meanwhile
        try:
            version = await open_version(self.root, self.name, self._runtime, partial(self._evict, self))
            version = await self._with_writes(version)
        except LookalikeError as error:
            if named and await asyncio.to_thread(named_version, self.root) not in ("", named):
                return await self._open_current()  # a job has published another one, and may have removed this one
            permanent = not isinstance(error, StoreUnreachable | CollectionBusy)
            await self._refuse(error, named, files, permanent=permanent)
            raise
        except Exception as error:
            logger.exception("the collection could not be opened")
            failure = _as_error(error)
            await self._refuse(failure, named, files, permanent=False)
            raise failure from error
        self._serve(version)
        await self._release_writes()
        return version.pipeline

    async def _release_writes(self) -> None:
        """Free what the log keeps of writes that the version holds; a failure, such as a full disk, is only logged."""
        if self._writes is None:
            return
        try:
            await self._writes.release()
        except LookalikeError as error:
            logger.warning("writes_not_released name=%s: %s", self.name, error)

    async def _with_writes(self, version: OpenVersion) -> OpenVersion:
        """Return the version with the collection's writer, if the service writes to it."""
        if not self._runtime.settings.writable:
            return version
        if is_on_milvus(version.opened):
            logger.warning("collection_read_only name=%s: it is on Milvus, which takes no writes this way", self.name)
            return version
        if self._writes is None:
            self._writes = await open_writes(version.opened, self._runtime)
        else:
            await self._writes.rebase(version.opened)
        return replace(version, writes=self._writes)

    def _serve(self, version: OpenVersion) -> None:
        before, self.status = self.version, self.status.opened(version)
        self.probe.record_success()  # the version has just passed its first queries
        self._evict(self, 0)
        if before and before != version.name:
            logger.warning("version_swapped from=%s to=%s", before, version.name)

    async def _refuse(self, error: LookalikeError, version: str, files: Fingerprint, *, permanent: bool) -> None:
        failures = self.status.failures + 1
        if self.version:
            logger.error("version_refused version=%s: %s [%s]", version, error, error.code)
        retry_at = self.backoff.retry_at(failures, permanent=permanent)
        self._record_refusal(Refusal(error.code, str(error), version, files, files, failures, retry_at))

    def _record_refusal(self, refusal: Refusal) -> None:
        before, self.status = self.status, self.status.refused(refusal)
        if self.status.state is State.DETACHED and before.state is not State.DETACHED:
            logger.error("collection_gone version=%s still serves: %s", self.version, refusal)

    def _in_backoff(self) -> bool:
        refusal = self.status.refusal
        return refusal is not None and self.backoff.is_waiting(refusal.retry_at)

    def _is_device_stuck(self) -> bool:
        busy = self._runtime.encoder_workers.busy_seconds()
        return self.status.state.serves and busy > self._runtime.settings.probe_timeout


def _log_result(reload: asyncio.Task[QueryPipeline]) -> None:
    """Retrieve a reload's error, which is logged already, in case every caller has disconnected."""
    if not reload.cancelled():
        reload.exception()


def _as_error(error: Exception) -> LookalikeError:
    return LookalikeError(f"{type(error).__name__}: {error}")

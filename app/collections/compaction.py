"""Compaction by itself: once enough has been written, or long enough ago, a process builds the next version.

The process is `lookalike compact`. The service goes on meanwhile, and swaps the version in like any other.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from app.collections.backoff import Backoff
from app.settings import Settings
from lookalike.errors import LookalikeError

if TYPE_CHECKING:
    from app.collections.hosted import HostedCollection

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 1.0
_STOP_SECONDS = 5.0
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 30.0, 3_600.0
_MAX_MESSAGE_CHARACTERS = 500


class Compactor:
    """Compacts one collection when it is due. Lives on the event loop's thread.

    Attributes:
        runs: compactions that succeeded since the start.
        failures: compactions that failed since the start.
    """

    def __init__(
        self,
        hosted: HostedCollection,
        settings: Settings,
        command: Sequence[str] = (),
        check_seconds: float = _CHECK_SECONDS,
    ) -> None:
        """Compact nothing yet.

        Args:
            hosted: the collection.
            settings: of the service.
            command: run with the collection's folder as last argument; by default, `lookalike compact`.
            check_seconds: interval of the checks whether a compaction is due.
        """
        self.runs = 0
        self.failures = 0
        self._hosted = hosted
        self._items, self._seconds = settings.compact_items, settings.compact_seconds
        self._command = command or (sys.executable, "-m", "cli.main", "compact")
        self._check_seconds = check_seconds
        self._backoff = Backoff(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS)
        self._failures_in_row = 0
        self._retry_at = 0.0
        self._pending_since: float | None = None

    async def run(self) -> None:
        """Compact the collection whenever it is due, forever."""
        while True:
            await asyncio.sleep(self._check_seconds)
            if self._is_due():
                await self._compact()

    def _is_due(self) -> bool:
        pending = self._hosted.pending_writes
        if not pending:
            self._pending_since = None
            return False
        now = time.monotonic()
        since = self._pending_since = self._pending_since or now
        many = 0 < self._items <= pending
        old = 0 < self._seconds <= now - since
        return (many or old) and not self._backoff.is_waiting(self._retry_at)

    async def _compact(self) -> None:
        """Run one compaction, and serve its version."""
        logger.warning("compaction_started collection=%s pending=%d", self._hosted.name, self._hosted.pending_writes)
        problem = await self._build(self._hosted.root)
        if not problem:
            try:
                await self._hosted.reload()
            except LookalikeError as error:  # logged, and kept in the collection's status
                problem = str(error)
        self._pending_since = None
        if problem:
            self.failures += 1
            self._failures_in_row += 1
            self._retry_at = self._backoff.retry_at(self._failures_in_row, permanent=False)
            logger.error("compaction_failed collection=%s: %s", self._hosted.name, problem)
        else:
            self.runs += 1
            self._failures_in_row = 0

    async def _build(self, root: Path) -> str:
        """Run the process that builds the version; return what went wrong, empty if nothing did."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            str(root),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, output = await process.communicate()
        finally:
            await _end(process)
        if not process.returncode:
            return ""
        lines = output.decode(errors="replace").strip().splitlines() or [f"exit status {process.returncode}"]
        return lines[-1][-_MAX_MESSAGE_CHARACTERS:]


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process that still runs: what it has built is left out, and the next one starts anew."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        process.kill()

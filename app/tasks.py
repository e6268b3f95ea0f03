"""Background tasks that outlive their own failures."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

logger = logging.getLogger(__name__)

_RESTART_SECONDS = 5.0


async def restarting(work: Callable[[], Coroutine[Any, Any, None]], delay: float = _RESTART_SECONDS) -> None:
    """Run `work()` until it returns. An unexpected error is logged, and the work starts again after `delay` seconds."""
    while True:
        try:
            return await work()
        except Exception:
            logger.exception("a task of the service failed; it starts again in %.0f s", delay)
            await asyncio.sleep(delay)


async def stop(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

"""Takes connections, at a rate: the longer a turn of the event loop lasts, the more in it.

libuv takes one a turn, and under load a turn lasts a tenth of a second: a hundred clients that connect would wait for
ten, the health check behind them, and the kernel's queue would overflow. All that wait at once would keep the loop from
those it has already (benchmarks/RESULTS.md). It knows nothing of what is sent.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress

logger = logging.getLogger(__name__)

QUEUE = 4096
"""Connections that the kernel holds for us meanwhile, if its own limit (`net.core.somaxconn`) lets it. Those beyond
come again after seconds, as TCP has it, or are broken."""
_A_SECOND, _MOST = 1000, 256
"""Connections that are taken in a second and in a turn; one in each turn, whatever it lasts. Taking one costs the loop
about 0.2 ms."""
_PAUSE = 1.0
"""Seconds until it is tried again where the system has no file left for a connection."""


class Listener:
    """What `uvicorn.Server` wants of a server: it can be closed. Used on one event loop."""

    def __init__(self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        """`listening` stays the caller's to close, after `close`."""
        listening.setblocking(False)
        self._socket = listening
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._paused: asyncio.TimerHandle | None = None
        self._taken = 0.0  # when it last did
        self._tasks: set[asyncio.Task[None]] = set()
        self._resume()

    def close(self) -> None:
        """Takes those that wait, which would be reset with the socket, and no more."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._socket)
        with suppress(OSError):  # no files left: then they are reset
            self._take_most(QUEUE)

    async def wait_closed(self) -> None:
        """Waits for the connections that are being taken."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._socket, self._take)

    def _take(self) -> None:
        now = time.monotonic()
        most = max(1, min(_MOST, int((now - self._taken) * _A_SECOND)))
        self._taken = now
        try:
            self._take_most(most)
        except OSError as error:
            logger.error("connections_wait: %s; tried again in %.0f s", error.strerror, _PAUSE)
            self._loop.remove_reader(self._socket)
            self._paused = self._loop.call_later(_PAUSE, self._resume)

    def _take_most(self, most: int) -> None:
        """Raises OSError where there is no file for one."""
        for _ in range(most):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # it has gone already
            task = self._loop.create_task(self._connect(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # it has gone already
            connection.close()

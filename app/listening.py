"""Takes connections: in each turn of the event loop all that wait.

libuv takes one a turn, and under load a turn lasts a tenth of a second: a hundred clients that connect would wait for
ten, and the health check behind them. It knows nothing of what is sent.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

logger = logging.getLogger(__name__)

_A_TURN = 256
"""Connections; what waits beyond them is taken in the next turn."""
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
        self._tasks: set[asyncio.Task[None]] = set()
        self._resume()

    def close(self) -> None:
        """Takes no more."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._socket)

    async def wait_closed(self) -> None:
        """Waits for the connections that are being taken."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._socket, self._take)

    def _take(self) -> None:
        for _ in range(_A_TURN):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # it has gone already
            except OSError as error:
                logger.error("connections_wait: %s; tried again in %.0f s", error.strerror, _PAUSE)
                self._loop.remove_reader(self._socket)
                self._paused = self._loop.call_later(_PAUSE, self._resume)
                return
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

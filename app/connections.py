"""Connections, bounded in number, bytes and time: uvicorn's protocol for HTTP bounds none of them.

One head of 40 MB holds up the event loop for more than a second, a head that never ends keeps its connection for ever,
and so does a client that does not read. What is refused here gets a bare 431 or 503 or nothing: there is no request yet
to answer. It knows nothing of routes.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_BYTES = 64 * 1024
"""Of a request line and its headers; what arrives in one piece with them, up to 256 KB, is let pass."""

_EMPTY = b"Content-Length: 0\r\nConnection: close\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + _EMPTY
_TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n" + _EMPTY


class BoundedConnection(HttpToolsProtocol):
    """Closes a connection whose request's head is too long, or has not come `seconds` after its first byte.

    A connection that sends nothing is closed after as long, and so is one X. Beyond
    `most` connections, a new one is told to come again.
    """

    seconds = 30.0
    most = 10_000

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As its base has it; the clock starts."""
        super().connection_made(transport)
        self._clock: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._start()
        if len(self.connections) > self.most:
            transport.write(_TOO_MANY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """As its base has it."""
        self._stop()
        self._taken()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """As its base has it; the clock starts anew."""
        super().on_message_begin()
        self._start()

    def data_received(self, data: bytes) -> None:
        """Counts what comes while a head is incomplete."""
        super().data_received(data)
        if self._clock is None or self.transport.is_closing():
            return
        self._head += len(data)
        if self._head > MOST_BYTES:
            self._stop()
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """As its base has it; the clock stops."""
        self._stop()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """As its base has it: the client takes less than it is sent, and has `seconds` to take it."""
        super().pause_writing()
        self._taken()
        self._reading = self.loop.call_later(self.seconds, self.transport.abort)  # closing would wait for it to read

    def resume_writing(self) -> None:
        """As its base has it."""
        super().resume_writing()
        self._taken()

    def _start(self) -> None:
        self._stop()
        self._head = 0
        self._clock = self.loop.call_later(self.seconds, self.transport.close)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _taken(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

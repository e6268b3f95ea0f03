"""Connections, bounded in number, bytes and time: uvicorn's protocol for HTTP bounds none of them.

One head of 40 MB holds up the event loop for more than a second, a head that never ends keeps its connection for ever,
and so does a client that does not read. What is refused here gets a bare 431 or 503 or nothing: there is no request yet
to answer. It knows nothing of routes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MOST_BYTES = 64 * 1024
"""Of a request line and its headers, and of trailers after a body; what arrives in one piece with them, up to 256 KB,
is let pass."""
LINGER = 2.0
"""Seconds that the rest of a body may take whose request is answered already: closing at once could lose the answer."""
_LAST = 1.0
"""Seconds for a request's head, once the service ends."""

_EMPTY = b"Content-Length: 0\r\nConnection: close\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + _EMPTY
_TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n" + _EMPTY


class BoundedConnection(HttpToolsProtocol):
    """Closes a connection whose request's head is too long, or has not come `seconds` after its first byte.

    A connection that sends nothing is closed after as long. One whose request was answered before all of its body had
    come, such as a 401, is closed soon after, and not before its client can have read that, even if it was to be closed
    then (RFC 9112, 9.6). Trailers are dropped. Beyond `most` connections of a port, a new one is told to come again.
    """

    seconds = 30.0
    most = 10_000
    counts: ClassVar[Counter[int | None]] = Counter()  # open just now in this process, by the port they came to
    _hurried = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As its base has it; the clock starts."""
        super().connection_made(transport)
        self._port = self.server[1] if self.server else None
        self.counts[self._port] += 1
        self._running: RequestResponseCycle | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._patient = _Patient(transport, self.end)
        self._ending = False
        self._beside = 0
        self._start()
        if self.counts[self._port] > self.most:
            transport.write(_TOO_MANY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """As its base has it."""
        self._stop()
        self._taken()
        self._arrived()
        self.counts[self._port] -= 1
        self._patient.close = self.transport.close  # and no longer holds what holds it
        super().connection_lost(exc)
        if self.pipeline:  # then its base told the last request, and not the one that is being answered
            self._tell_running()
            for cycle, _ in self.pipeline:
                cycle.on_response = _nothing  # nor will they be answered: nothing else lets go of this
            self.pipeline.clear()

    @classmethod
    def busiest(cls) -> int:
        """Connections that are open of the port with most: `most` bounds each."""
        return max(cls.counts.values(), default=0)

    def hurry(self) -> None:
        """The service ends: what is to be asked is asked within a second."""
        self._hurried = True

    def shutdown(self) -> None:
        """As its base has it, but one that has asked nothing so far may have begun to."""
        if self.cycle is None:
            self.hurry()  # type: ignore[unreachable]  # whatever its type says
            self._start()
        else:
            super().shutdown()

    def on_message_begin(self) -> None:
        """As its base has it; the clock starts anew."""
        super().on_message_begin()
        self._unset_keepalive_if_required()  # set, where it begins in one piece with the body before it
        self._start()

    def data_received(self, data: bytes) -> None:
        """Counts what comes and is no body."""
        self._beside += len(data)
        super().data_received(data)
        if self._beside <= MOST_BYTES or self.transport.is_closing():
            return
        if self._clock is not None:
            self._stop()
            self.transport.write(_TOO_LARGE)
        self.transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """As its base has it, which takes trailers for headers."""
        if self._clock is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """As its base has it; the clock stops. Raises ValueError, which is answered 400, as RFC 9112, 3.2 has it."""
        self._stop()
        self._beside = 0
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            raise ValueError("a request has one Host")
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = self._patient  # type: ignore[assignment]  # all of a transport that it uses

    def on_body(self, body: bytes) -> None:
        """As its base has it."""
        self._beside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """As its base has it; where the answer came first, the connection waits for another request."""
        self._beside = 0
        super().on_message_complete()
        if self._lingering is not None:
            self._arrived()
            if self._ending:
                return self.transport.close()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """As its base has it; a body that nobody waits for any more has `LINGER` seconds."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._lingering = self.loop.call_later(LINGER, self.transport.abort)

    def end(self) -> None:
        """Closes the connection: what it sends at once, what it receives when the request's body has come.

        Closed with unread bytes in it, a connection is reset, and its client may lose what it was sent.
        """
        if self.cycle.more_body and not self.pipeline and not self.transport.is_closing():
            self._ending = True
            self.transport.write_eof()
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """As its base has it: the client takes less than it is sent, and has `seconds` to take it."""
        super().pause_writing()
        self._taken()
        self._reading = self.loop.call_later(self.seconds, self.transport.abort)  # closing would wait for it to read

    def resume_writing(self) -> None:
        """As its base has it."""
        super().resume_writing()
        self._taken()

    def send_400_response(self, msg: str) -> None:
        """As its base has it, where the client can't take it for the answer to a request before."""
        answering = self._running is not None and not (self._running.response_complete or self._running.more_body)
        if self._ending or answering:
            self.transport.close()
        else:
            super().send_400_response(msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _tell_running(self) -> None:
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _start(self) -> None:
        self._stop()
        seconds = min(self.seconds, _LAST) if self._hurried else self.seconds
        self._clock = self.loop.call_later(seconds, self.transport.close)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _taken(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _arrived(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None


def _nothing() -> None:
    """What is left to do when a request was answered whose connection is gone."""


class _Patient:
    """A request's view of its connection, which it closes when it has answered: see `BoundedConnection.end`."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close

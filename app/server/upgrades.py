"""Connections that stay with HTTP/1.1 where a client would go on in another protocol, as they may (RFC 9110, 7.8).

Java's HttpClient and `curl --http2` ask for HTTP/2 with their first request, and proxies pass on what browsers ask. The
parser takes all after such a head, the request's body too, for the other protocol's.
"""

from __future__ import annotations

import sys

import httptools

from app.server.connections import BoundedConnection


class PlainConnection(BoundedConnection):
    """Answers a request with `Upgrade` as if it had none: a new parser is told its head again, without, and goes on."""

    _head_end: int | None = None
    _again = False

    def data_received(self, data: bytes) -> None:
        """As its base has it, to the end of the data."""
        left = memoryview(data)
        while (end := self._parse(left)) is not None and not self.transport.is_closing():
            left = left[end:]
            head = self._head()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as its base has it
            self._again = True
            self._parse(head)
            self._again = False

    def on_message_begin(self) -> None:
        """As its base has it."""
        if not self._again:
            super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """As its base has it."""
        if not self._again:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """As its base has it. Raises ValueError, which is answered 400, where a proxy is asked for."""
        if self._again:
            self._beside = 0
            return
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("this is no proxy")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """As its base has it, but that a body after `Upgrade` is still to come."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """The base calls it where the parser has stopped, and says so in two lines for each request."""
        stopped = sys.exception()
        assert isinstance(stopped, httptools.HttpParserUpgrade)
        self._head_end = stopped.args[0]

    def _parse(self, data: bytes | memoryview) -> int | None:
        """Where the parser stopped behind a head with `Upgrade`, if it did."""
        self._head_end = None
        super().data_received(data)  # type: ignore[arg-type]  # the parser takes any buffer
        return self._head_end

    def _head(self) -> bytes:
        lines = [b"%s / HTTP/%s" % (self.parser.get_method(), self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

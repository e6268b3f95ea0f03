"""A limit on request bodies: size, time of arrival, and bytes held by all requests together."""

from __future__ import annotations

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTooLarge, BodyTooSlow, Overloaded

MAX_BUFFERED_BODIES = 8
"""Bodies of the maximum size that all requests together may hold."""


class BodyLimitMiddleware:
    """Rejects a body over `max_bytes`: immediately by its Content-Length, otherwise while it streams in.

    A body that has not arrived after `timeout` seconds is rejected, and so is one that would bring the bytes of all
    bodies in memory over `MAX_BUFFERED_BODIES` times `max_bytes`.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.timeout = timeout
        self.buffered_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with a `receive` that counts bytes and time."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if _content_length(scope) > self.max_bytes:
            raise self.too_large()
        body = _BoundedBody(self, receive)
        try:
            await self.app(scope, body.receive, send)
        finally:
            self.buffered_bytes -= body.size

    def too_large(self) -> BodyTooLarge:
        """Return the error of a body over the limit."""
        return BodyTooLarge(
            f"the body is over the limit of {self.max_bytes:,} bytes; send less, or raise LOOKALIKE_MAX_BODY_BYTES"
        )


class _BoundedBody:
    """The body of one request."""

    def __init__(self, limit: BodyLimitMiddleware, receive: Receive) -> None:
        self.size = 0
        self._complete = False
        self._limit = limit
        self._receive = receive
        self._deadline = time.monotonic() + limit.timeout

    async def receive(self) -> Message:
        """Receive a message and check the limits. After the body only a disconnect can follow."""
        if self._complete:
            return await self._receive()
        message = await self._next_part()
        size = len(message.get("body", b""))
        self.size += size
        self._limit.buffered_bytes += size
        self._complete = not message.get("more_body", False)
        if self.size > self._limit.max_bytes:
            raise self._limit.too_large()
        if self._limit.buffered_bytes > MAX_BUFFERED_BODIES * self._limit.max_bytes:
            raise Overloaded(
                f"request bodies already hold {self._limit.buffered_bytes:,} bytes; retry after Retry-After seconds"
            )
        return message

    async def _next_part(self) -> Message:
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                return await self._receive()
        except TimeoutError:
            raise BodyTooSlow(
                f"the body did not arrive within {self._limit.timeout:g} s; send faster, or raise "
                "LOOKALIKE_BODY_TIMEOUT"
            ) from None


def _content_length(scope: Scope) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"")
    return int(value) if value.isdigit() else 0

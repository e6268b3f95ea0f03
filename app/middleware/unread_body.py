"""Responses that begin before the request's body has arrived, such as 401 or 413.

A connection that is closed with unread bytes is reset, and its client may lose the response (RFC 9112, 9.6).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_DISCARDED_BYTES = 64 * 1024 * 1024
_DISCARD_SECONDS = 2.0
_BODY_GRACE_SECONDS = 0.05
"""How long a response waits for the rest of a small body, so that its connection can be kept."""


class UnreadBodyMiddleware:
    """Discards what arrives of a request's body after the response to it, bounded in bytes and time.

    Where the body is not complete as the response begins, the response says `Connection: close`, and its end is held
    back until the body has arrived or a bound is reached.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; one without a body as it is."""
        if scope["type"] != "http" or not _has_body(scope):
            return await self.app(scope, receive, send)
        body = _DiscardableBody(receive, expects_continue=any(name == b"expect" for name, _ in scope["headers"]))
        closes = False

        async def send_wrapper(message: Message) -> None:
            nonlocal closes
            if message["type"] == "http.response.start" and not body.complete:
                await body.discard(_BODY_GRACE_SECONDS)
                if closes := not body.complete:
                    MutableHeaders(scope=message)["Connection"] = "close"
            elif closes and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.discard(_DISCARD_SECONDS)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self.app(scope, body.receive, send_wrapper)


class _DiscardableBody:
    """A request's body, as far as it was received.

    Attributes:
        complete: whether all of it was, or the client disconnected.
    """

    def __init__(self, receive: Receive, *, expects_continue: bool) -> None:
        self.complete = False
        self._receive = receive
        self._expects_continue = expects_continue  # the client sends nothing until `receive` is called

    async def receive(self) -> Message:
        message = await self._receive()
        self._expects_continue = False
        self.complete = self.complete or not message.get("more_body", False)
        return message

    async def discard(self, seconds: float) -> None:
        """Receive the rest, for some seconds at most."""
        if self._expects_continue:
            return
        discarded = 0
        # Cancelled as the process ends: the response was sent.
        with suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(seconds):
                while not self.complete and discarded < MAX_DISCARDED_BYTES:
                    discarded += len((await self.receive()).get("body", b""))


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])

"""Responses that begin before the request's body has arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from app.middleware import unread_body
from app.middleware.unread_body import UnreadBodyMiddleware


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("no", 401)(scope, receive, send)


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body", False):
        pass
    await PlainTextResponse("yes")(scope, receive, send)


class Exchange:
    """A request whose body arrives in pieces, `delays` apart, and what is sent in response."""

    def __init__(self, pieces: list[bytes], delay: float = 0.0, endless: bool = False) -> None:
        self.left, self.delay, self.endless = list(pieces), delay, endless
        self.received = 0
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if self.delay:
            await asyncio.sleep(self.delay)
        piece = self.left[0] if self.endless else self.left.pop(0)
        self.received += len(piece)
        return {"type": "http.request", "body": piece, "more_body": bool(self.left)}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self, app: Callable[[Scope, Receive, Send], object], **headers: str) -> None:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope: Scope = {"type": "http", "method": "POST", "headers": pairs}
        await UnreadBodyMiddleware(app)(scope, self.receive, self.send)  # type: ignore[arg-type]

    def closes(self) -> bool:
        return (b"connection", b"close") in [(name.lower(), value) for name, value in self.sent[0]["headers"]]

    def body(self) -> bytes:
        assert [message.get("more_body", False) for message in self.sent[1:]] == [True] * (len(self.sent) - 2) + [False]
        return b"".join(message["body"] for message in self.sent[1:])


LENGTH = {"content-length": "10"}


async def test_small_body_is_discarded_and_connection_kept() -> None:
    exchange = Exchange([b"12345", b"67890"])
    await exchange.run(refuse, **LENGTH)
    assert (exchange.received, exchange.closes(), exchange.body()) == (10, False, b"no")


async def test_slow_body_is_discarded_before_the_connection_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread_body, "_BODY_GRACE_SECONDS", 0.01)
    exchange = Exchange([b"12345", b"67890"], delay=0.05)
    await exchange.run(refuse, **LENGTH)
    assert (exchange.received, exchange.closes(), exchange.body()) == (10, True, b"no")


@pytest.mark.parametrize(("limit", "value"), [("MAX_DISCARDED_BYTES", 100), ("_DISCARD_SECONDS", 0.05)])
async def test_endless_body_is_discarded_within_bounds(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(unread_body, "_BODY_GRACE_SECONDS", 0.01)
    monkeypatch.setattr(unread_body, limit, value)
    exchange = Exchange([b"x"], delay=0.001, endless=True)
    await asyncio.wait_for(exchange.run(refuse, **LENGTH), 10)
    assert exchange.received <= 150
    assert (exchange.closes(), exchange.body()) == (True, b"no")


async def test_client_that_expects_continue_sends_no_body() -> None:
    exchange = Exchange([b"1234567890"])
    await exchange.run(refuse, expect="100-continue", **LENGTH)
    assert (exchange.received, exchange.closes(), exchange.body()) == (0, True, b"no")


@pytest.mark.parametrize("headers", [{}, LENGTH])
async def test_complete_body_changes_nothing(headers: dict[str, str]) -> None:
    exchange = Exchange([b"12345", b"67890"])
    await exchange.run(read, **headers)
    assert (len(exchange.sent), exchange.closes(), exchange.body()) == (2, False, b"yes")

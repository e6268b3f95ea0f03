"""Requests that ask to go on in another protocol: Java's HttpClient and `curl --http2` do so with their first one."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.server.upgrades import PlainConnection

H2C = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """The path, the number of headers and the body."""
    request = Request(scope, receive)
    body = await request.body()
    text = f"<{scope['path']} {len(scope['headers'])} {body.decode()}>"
    await PlainTextResponse(text)(scope, receive, send)


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    server = uvicorn.Server(uvicorn.Config(echo, port=0, http=PlainConnection, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join()


def answers(address: tuple[str, int], *pieces: bytes) -> tuple[int, list[str]]:
    """How many times 200 was answered, and what `echo` said."""
    found = b""
    with socket.create_connection(address, timeout=30) as client, suppress(ConnectionError):
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.05)
        while more := client.recv(65536):
            found += more
    return found.count(b"HTTP/1.1 200 "), [part.split(">")[0] for part in found.decode().split("<")[1:]]


def post(body: bytes, path: bytes = b"/", chunked: bool = False) -> bytes:
    head = b"POST %s HTTP/1.1\r\n" % path + H2C
    if chunked:
        pieces = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 3]), body[i : i + 3]) for i in range(0, len(body), 3))
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\nTrailer: x\r\n\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_after_upgrade_is_the_requests(address: tuple[str, int], chunked: bool) -> None:
    sent = post(b"one", b"/a", chunked) + post(b"four", b"/b", chunked) + LAST
    expected = (3, ["/a 5 one", "/b 5 four", "/last 2 "])
    assert answers(address, sent) == expected
    cut = sent.index(b"\r\n\r\n") + 4
    assert answers(address, sent[: cut - 20], sent[cut - 20 : cut], sent[cut : cut + 1], sent[cut + 1 :]) == expected
    assert answers(address, *(sent[i : i + 40] for i in range(0, len(sent), 40))) == expected


def test_upgrade_without_a_body_is_ignored_and_nothing_is_logged(
    address: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    asked = (
        b"GET /w HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AA==\r\n\r\n"
    )
    with caplog.at_level(logging.INFO):
        assert answers(address, asked * 2 + LAST) == (3, ["/w 4 ", "/w 4 ", "/last 2 "])
        assert answers(address, asked, asked, LAST) == (3, ["/w 4 ", "/w 4 ", "/last 2 "])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_thousands_of_upgrades_in_one_piece_are_answered(address: tuple[str, int]) -> None:
    number, found = answers(address, (b"GET /n HTTP/1.1\r\n" + H2C + b"\r\n") * 1500 + LAST)
    assert number == 1501
    assert found[-1] == "/last 2 "


def test_a_large_head_with_upgrade_passes_as_without(address: tuple[str, int]) -> None:
    head = b"POST /l HTTP/1.1\r\n" + H2C + b"a:bb\r\n" * 10_000 + b"Content-Length: 2\r\n\r\n"
    assert answers(address, head, b"hi", LAST) == (2, ["/l 10005 hi", "/last 2 "])


@pytest.mark.parametrize(
    "asked",
    [
        b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
        b"CONNECT /x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",  # no Host
    ],
)
def test_what_is_no_request_to_this_service_is_answered_400(address: tuple[str, int], asked: bytes) -> None:
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(asked)
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
        assert client.recv(1000) == b""


def test_a_body_without_an_end_after_upgrade_ends_the_connection(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(b"POST /x HTTP/1.1\r\n" + H2C + b"Transfer-Encoding: gzip\r\n\r\nhi")
        with suppress(ConnectionError):
            assert b"200" not in client.recv(1000)
    assert answers(address, LAST) == (1, ["/last 2 "])

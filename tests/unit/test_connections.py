"""Connections: those that pipeline, send nonsense, are too many, or come as the service ends."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.server import connections
from app.server.connections import BoundedConnection

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


FAILED: list[Exception] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers everything, /slow after a while; what it could not is in `FAILED`."""
    try:
        if scope["path"] == "/slow":
            await asyncio.sleep(1.5)
        await PlainTextResponse("here")(scope, receive, send)
    except Exception as error:
        FAILED.append(error)
        raise


@pytest.fixture
def server() -> Iterator[uvicorn.Server]:
    FAILED.clear()
    found = uvicorn.Server(uvicorn.Config(app, port=0, http=BoundedConnection, log_config=None, lifespan="off"))
    thread = threading.Thread(target=found.run)
    thread.start()
    while not found.started:
        time.sleep(0.01)
    yield found
    found.should_exit = True
    thread.join()


def _connect(server: uvicorn.Server) -> socket.socket:
    return socket.create_connection(server.servers[0].sockets[0].getsockname(), timeout=30)


def _no_longer_listens(address: tuple[str, int]) -> bool:
    with suppress(OSError), socket.create_connection(address, timeout=30):
        return False
    return True


def test_who_has_just_connected_can_ask_though_the_service_ends(
    server: uvicorn.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_LAST", 10.0)
    with _connect(server) as client:
        address = client.getpeername()
        while not server.server_state.connections:
            time.sleep(0.01)
        server.should_exit = True
        while not _no_longer_listens(address):
            time.sleep(0.01)
        client.sendall(REQUEST)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_who_asks_nothing_does_not_keep_the_service_from_ending(server: uvicorn.Server) -> None:
    with _connect(server) as client:
        while not server.server_state.connections:
            time.sleep(0.01)
        server.should_exit = True
        assert client.recv(1000) == b""


SLOW = b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
EARLY = b"POST /early HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
CHUNKED = (
    b"POST /early HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
)


def _answers(client: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    found = b""
    with suppress(ConnectionError):
        while piece := client.recv(65536):
            found += piece
    return found


def _first(client: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"here"):
        found += client.recv(65536)
    return found


def test_a_request_in_one_piece_with_the_body_before_it_has_its_time(server: uvicorn.Server) -> None:
    server.config.timeout_keep_alive = 1
    with _connect(server) as client:
        client.sendall(EARLY + b"12345")
        assert _first(client).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"67890" + SLOW)  # which takes longer than an idle connection is kept
        assert _first(client).startswith(b"HTTP/1.1 200 ")


def test_nonsense_after_an_early_answer_is_no_failure(server: uvicorn.Server, caplog: pytest.LogCaptureFixture) -> None:
    with _connect(server) as client:
        client.sendall(CHUNKED)
        assert _first(client).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"zz\r\n")
        while server.server_state.connections:
            time.sleep(0.01)
    assert "Fatal error" not in caplog.text


def test_nonsense_behind_a_request_is_not_answered_in_its_place(server: uvicorn.Server) -> None:
    with _connect(server) as client:
        client.sendall(SLOW + b"nonsense\r\n\r\n")
        assert b"400" not in _answers(client)
    with _connect(server) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert _answers(client).startswith(b"HTTP/1.1 400 ")


def test_who_pipelines_and_leaves_ends_what_is_under_way(server: uvicorn.Server) -> None:
    with _connect(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + SLOW + SLOW)
        assert _first(client).startswith(b"HTTP/1.1 200 ")
    while server.server_state.connections or server.server_state.tasks:
        time.sleep(0.01)
    assert FAILED == []


def test_each_port_has_its_own_bound(server: uvicorn.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedConnection, "most", 2)
    monkeypatch.setitem(BoundedConnection.counts, 1, 100)  # those of another port
    with ExitStack() as clients:
        for _ in range(2):
            client = clients.enter_context(_connect(server))
            client.sendall(SLOW)
            assert _first(client).startswith(b"HTTP/1.1 200 ")
        assert _answers(clients.enter_context(_connect(server))).startswith(b"HTTP/1.1 503 ")

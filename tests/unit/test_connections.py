"""Connections at the service's end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from app import connections
from app.connections import BoundedConnection

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
def server() -> Iterator[uvicorn.Server]:
    """That answers everything."""
    app = PlainTextResponse("here")
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

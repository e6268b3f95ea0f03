"""Connections are taken at a rate: many in one turn of the event loop, where it was long."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import pytest
import uvloop

from app.server import listening
from app.server.listening import Listener

LOOPS = pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])


class Greeting(asyncio.Protocol):
    """Says so once it is connected."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.write(b"taken")
        transport.close()


def run(loop: Callable[[], asyncio.AbstractEventLoop], work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work)


def connect(count: int, to: socket.socket, clients: ExitStack) -> list[socket.socket]:
    return [clients.enter_context(socket.create_connection(to.getsockname(), timeout=30)) for _ in range(count)]


@LOOPS
def test_all_that_wait_are_taken_in_a_few_turns(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    made: list[Greeting] = []

    def protocol() -> Greeting:
        made.append(Greeting())
        return made[-1]

    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listening_socket, ExitStack() as clients:
            connected = connect(50, listening_socket, clients)
            listener = Listener(listening_socket, protocol)
            for _ in range(20):
                await asyncio.sleep(0)
                time.sleep(0.01)
            assert len(made) == 50
            assert await asyncio.to_thread(connected[0].recv, 100) == b"taken"
            listener.close()
            await listener.wait_closed()
            with socket.create_connection(listening_socket.getsockname(), timeout=30):
                for _ in range(10):
                    await asyncio.sleep(0)
                assert len(made) == 50

    run(loop, work())


@LOOPS
@pytest.mark.parametrize(("a_second", "at_least", "at_most"), [(0, 5, 20), (1000, 40, 40)])
def test_a_turn_takes_as_many_as_its_time_allows_and_one_in_any_case(
    loop: Callable[[], asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
    a_second: int,
    at_least: int,
    at_most: int,
) -> None:
    monkeypatch.setattr(listening, "_A_SECOND", a_second)
    made: list[Greeting] = []

    def protocol() -> Greeting:
        made.append(Greeting())
        return made[-1]

    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listening_socket, ExitStack() as clients:
            listener = Listener(listening_socket, protocol)
            await asyncio.sleep(0)
            connect(40, listening_socket, clients)
            time.sleep(0.1)  # the turn lasts
            for _ in range(10):
                await asyncio.sleep(0)
            assert at_least <= len(made) <= at_most
            listener.close()
            await listener.wait_closed()

    run(loop, work())


@LOOPS
def test_those_that_wait_as_it_closes_are_taken(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def work() -> None:
        with ExitStack() as clients:
            with socket.create_server(("127.0.0.1", 0), backlog=100) as listening_socket:
                listener = Listener(listening_socket, Greeting)
                connected = connect(50, listening_socket, clients)
                listener.close()
            await listener.wait_closed()
            for client in connected:
                assert await asyncio.to_thread(client.recv, 100) == b"taken"

    run(loop, work())


@LOOPS
def test_without_files_left_it_waits_and_goes_on(
    loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "_PAUSE", 0.05)

    class Short(socket.socket):
        left = 2

        def accept(self) -> tuple[socket.socket, Any]:
            if Short.left:
                Short.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def work() -> None:
        with Short() as listening_socket:
            listening_socket.bind(("127.0.0.1", 0))
            listening_socket.listen()
            listener = Listener(listening_socket, Greeting)
            with socket.create_connection(listening_socket.getsockname(), timeout=30) as client:
                assert await asyncio.to_thread(client.recv, 100) == b"taken"
            listener.close()
            await listener.wait_closed()

    run(loop, work())
    assert caplog.text.count("connections_wait: Too many open files") == 2

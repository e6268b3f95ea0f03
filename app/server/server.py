"""The HTTP server: uvicorn, which drains before it shuts down.

Of `uvicorn.Server` it uses `should_exit`, `handle_exit` and `serve(sockets=...)`; tests/unit/test_uvicorn.py fails when
they change or others are used.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
import uvloop
from fastapi import FastAPI
from typing_extensions import override

from app.main import lifespan
from app.server.config import uvicorn_config
from app.server.process import end_process
from app.service import Service

_GRACE_SECONDS = 2.0
"""Between the last moment of requests in flight and the process's end, for threads to finish."""


class Server:
    """The server of an application; uvicorn's members are not reachable through it."""

    def __init__(self, app: FastAPI, log_level: str = "warning") -> None:
        self._application = app
        self._server = _DrainingServer(app.state.service, uvicorn_config(app, app.state.service.settings, log_level))

    def stop(self) -> None:
        """Begin to shut down: accept no connection, finish the requests in flight."""
        self._server.stop()

    async def serve_application(self, sockets: list[socket.socket]) -> None:
        """Start the application, serve it until a signal or `stop`, and close it."""
        async with lifespan(self._application):
            await self._server.serve(sockets=sockets)


class _DrainingServer(uvicorn.Server):
    """A server that accepts requests for `drain_seconds` after SIGTERM, so that clients see /readyz fail first."""

    def __init__(self, service: Service, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._service = service

    def stop(self) -> None:
        self.should_exit = True

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:
            return super().handle_exit(sig, frame)
        self._service.draining = True
        settings = self._service.settings
        drain_seconds = settings.drain_seconds if sig == signal.SIGTERM else 0.0
        _call_later(drain_seconds + settings.shutdown_seconds + _GRACE_SECONDS, end_process)
        if sig == signal.SIGTERM:
            _call_later(drain_seconds, self.stop)
        else:
            super().handle_exit(sig, frame)


def run(server: Server, sockets: list[socket.socket]) -> None:
    """Serve until a signal, or until `stop` where this is not the main thread."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises what it handled once more when it has shut down
            signal.signal(number, lambda *_: server.stop())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve_application(sockets))


def _call_later(seconds: float, action: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()

"""`lookalike serve`: the service over collections, in this process, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lookalike.errors import LookalikeError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from app.execution.pipeline import QueryPipeline
    from app.settings import Settings

_MOST_FILES = 65_536
_MMAP_THRESHOLD, _LARGE_BYTES = -3, 1024 * 1024
"""mallopt(3): M_MMAP_THRESHOLD, and what is allocated by itself from there on."""
_YOUNG = 50_000
"""Objects, made and not gone, after which Python's garbage collector looks for cycles; 700 by itself."""
_GRACE_SECONDS = 2.0
"""What a process has, after the time for requests under way, before its threads are left to themselves."""


def serve(
    collections: Annotated[
        list[Path],
        typer.Argument(
            metavar="COLLECTION...",
            help="Folders of collections, as `lookalike index` made them; the first is the default one.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every interface.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    health_port: Annotated[
        int | None,
        typer.Option(
            help="Another port, for /livez, /readyz and /metrics alone: answered while clients flood the first.",
            min=1,
            max=65535,
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Encoder's name, for weights that moved; it must be the collection's encoder.")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where the encoder runs; CUDA where there is one.")
    ] = None,
    engine: Annotated[
        Literal["auto", "torch", "openvino"] | None,
        typer.Option(help="What runs the encoder; OpenVINO on a CPU, torch on CUDA."),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="How much to log, on stderr.")
    ] = "warning",
    access_log: Annotated[bool | None, typer.Option("--access-log", help="Log every request, too.")] = None,
    log_format: Annotated[
        Literal["text", "json"] | None, typer.Option(help="Form of the log; json for an object a line.")
    ] = None,
) -> None:
    """Serve collections: the search page at /, the API at /v1, its documentation at /docs.

    It listens at once, opens the collection, sends itself a first query, and says when it is ready (as /readyz does).
    Every other setting is read from the environment as LOOKALIKE_<NAME>; docs/settings.md lists them.

    The short paths (/v1/search/text) ask the first, /v1/collections/NAME/search/text any by its folder's name.

    Example:  lookalike serve images --port 8001
    """
    from app import logs
    from app.collections.folders import collection_folders
    from app.main import create_app
    from app.settings import misspelled_variables
    from lookalike.collection import current_version

    first, more = collections[0], tuple(collections[1:]) or None
    for folder in collection_folders(first, more or ()):
        current_version(folder)  # a folder that is no collection is told before anything is loaded
    settings = _settings(
        {
            "collection": first,
            "collections": more,
            "health_port": health_port,
            "encoder": encoder,
            "device": device,
            "engine": engine,
            "access_log": access_log,
            "log_format": log_format,
        }
    )
    logs.configure(log_level, settings.log_format)
    for name, meant in misspelled_variables(os.environ).items():
        logging.getLogger("app.settings").warning(
            "setting_unknown name=%s: there is none of that name; did you mean %s?", name, meant
        )
    faulthandler.enable()  # a mapped file that is cut short ends the process: where, the log shall say
    _allow_many_connections()
    _give_back_memory()
    if settings.access_log:
        logging.getLogger("app.telemetry").setLevel(logging.INFO)
    app = create_app(settings)
    if not (app.state.service.authenticator.requires_key or settings.anonymous or _is_loopback(host)):
        typer.echo(
            f"error: {host} can be reached from other machines, and the service has no keys: make one (`lookalike key "
            "NAME`, then LOOKALIKE_KEYS_FILE=keys.toml), or let anyone in with LOOKALIKE_ANONYMOUS=true",
            err=True,
        )
        raise typer.Exit(1)
    listeners = [_listen(host, each) for each in (port, settings.health_port) if each]
    server = _server(app, log_level)
    failures: list[LookalikeError] = []

    def failed(error: LookalikeError) -> None:
        failures.append(error)
        server.should_exit = True

    manager = app.state.service.collections
    default = manager.default
    default.on_ready = lambda pipeline: _ready(pipeline, len(list(manager)) - 1, host, port)
    default.on_failure = failed
    _run(server, listeners)
    gc.unfreeze()  # libraries that look for leaks as they end would find all of it
    if failures:
        raise failures[0]
    if app.state.service.at_work():
        _leave()


def _settings(given: dict[str, Any]) -> Settings:
    """The environment's settings and the arguments that were given; a value that makes no sense ends the command."""
    from pydantic import ValidationError

    from app.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = f"LOOKALIKE_{str(first['loc'][0]).upper()}"
        typer.echo(f"error: {name} is {first['input']!r}: {first['msg']}; see docs/settings.md", err=True)
        raise typer.Exit(1) from None


def _allow_many_connections() -> None:
    """Lifts the limit of open files, which is one for each connection, as far as this user may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _MOST_FILES)), hard))


def _give_back_memory() -> None:
    """Has what was an image go back to the system at once.

    glibc learns from every large buffer that is freed to keep the next ones, up to 32 MB each and in each thread.
    """
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


def _leave() -> None:
    logging.getLogger(__name__).warning("a thread is still at work; the process ends without it")
    os._exit(0)


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name counts by what it resolves to."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return True  # listening on it will say what is wrong
    return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; a port that is taken ends the command with one line."""
    from app.server.listening import QUEUE

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(QUEUE)
    except OSError as error:
        typer.echo(f"error: can't listen on {host} port {port}: {error.strerror}; choose another with --port", err=True)
        raise typer.Exit(1) from None
    return listener


def _server(app: FastAPI, log_level: str) -> uvicorn.Server:
    import uvicorn

    from app.server.listening import Listener
    from app.server.upgrades import PlainConnection

    class Server(uvicorn.Server):
        """Answers on for a while after SIGTERM, so that who sends it requests can hear of it first."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=[])  # those it would leave to the event loop
            listeners: list[Any] = [Listener(each, self._connection) for each in sockets or []]
            self.servers = listeners

        def _connection(self) -> asyncio.Protocol:
            made = Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
            if service.draining or self.should_exit:
                made.hurry()
            return made

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await super().shutdown(sockets)
            if self.force_exit:  # then its base leaves the application as it is, which ends in a traceback
                await self.lifespan.shutdown()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if sig == signal.SIGTERM and not service.draining:
                service.draining = True
                settings = service.settings
                Timer(settings.drain_seconds, super().handle_exit, (sig, frame)).start()
                # A thread that opens a collection, or hangs in a batch, can't be stopped, and Python would wait for it.
                last = Timer(settings.drain_seconds + settings.shutdown_seconds + _GRACE_SECONDS, _leave)
                last.daemon = True
                last.start()
            else:
                service.draining = True
                super().handle_exit(sig, frame)

    class Connection(PlainConnection):
        seconds = app.state.service.settings.body_timeout
        most = app.state.service.settings.max_connections

    service = app.state.service
    return Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            proxy_headers=bool(service.settings.proxies),
            forwarded_allow_ips=service.settings.proxies,
            server_header=False,
            log_config=None,
            log_level=log_level,
            access_log=False,  # our own names the request and leaves out the query string
            timeout_keep_alive=service.settings.keep_alive,
            timeout_graceful_shutdown=service.settings.shutdown_seconds,
        )
    )


def _run(server: uvicorn.Server, listeners: list[socket.socket]) -> None:
    """Serves until a signal; uvicorn raises it once more when it has shut down, and then it has nothing left to end."""

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with ExitStack() as listening:
        for listener in listeners:
            listening.enter_context(listener)
        server.run(sockets=listeners)


def _ready(pipeline: QueryPipeline, others: int, host: str, port: int) -> None:
    """Says so, and takes what is there out of the garbage collector's sight.

    The libraries brought half a million objects, and looking them through would stop all queries for a quarter of a
    second every few seconds. What is made later is seldom looked through: a request leaves nothing that only the
    collector would find (tests/api/test_garbage.py), and hundreds under way at once are many objects
    (benchmarks/RESULTS.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
    manifest = pipeline.searcher.collection.manifest
    shown = f"[{host}]" if ":" in host else host
    beside = f", and {others} more" if others else ""
    typer.echo(
        f"Serving {pipeline.name} ({len(pipeline.searcher.collection):,} images, encoder {manifest.encoder.name})"
        f"{beside} at http://{shown}:{port}/  API: /docs  Ctrl-C stops."
    )
    sys.stdout.flush()

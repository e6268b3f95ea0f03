"""`lookalike serve`: run the service until Ctrl-C or SIGTERM."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from lookalike.errors import LookalikeError, StoreUnreachable

if TYPE_CHECKING:
    import socket

    from app.execution.pipeline import QueryPipeline
    from app.service import Service
    from app.settings import Settings


def serve(
    collections: Annotated[
        list[Path],
        typer.Argument(
            metavar="COLLECTION",
            help="Folder of a collection that `lookalike index` wrote. Repeatable; the first one is the default. A "
            "further one may also be a folder of collections.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every interface.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    health_port: Annotated[
        int | None,
        typer.Option(
            help="Additional port for /livez, /readyz and /metrics only; it responds while the main port is flooded.",
            min=1,
            max=65535,
        ),
    ] = None,
    writable: Annotated[
        bool | None,
        typer.Option(
            "--writable",
            help="Accept writes: PUT, PATCH and DELETE of items. Needs keys, unless it listens on loopback only.",
        ),
    ] = None,
    originals: Annotated[
        bool | None,
        typer.Option("--originals", help="Serve the image files that items were indexed from, where it can read them."),
    ] = None,
    root_path: Annotated[
        str | None, typer.Option(help="Path under which a reverse proxy publishes the service, such as /lookalike.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Name of the collection's encoder, for weights that have moved.")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(help="Device of the encoder; auto uses CUDA if it is available.", show_default="auto"),
    ] = None,
    engine: Annotated[
        Literal["auto", "torch", "openvino"] | None,
        typer.Option(
            help="Runtime of the encoder; auto uses OpenVINO on a CPU and torch on CUDA.", show_default="auto"
        ),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="Least severe level to log on stderr.")
    ] = "warning",
    access_log: Annotated[bool | None, typer.Option("--access-log", help="Log every request.")] = None,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(help="Format of the log; json for one object per line.", show_default="text"),
    ] = None,
) -> None:
    """Serve collections over HTTP: the search page at /, the API at /v1, its documentation at /docs.

    The service listens immediately, opens the collections, runs a first query, and prints a line when it is ready.

    Short paths such as /v1/search/text use the first collection. /v1/collections/NAME/search/text uses the collection
    in the folder NAME. docs/reference/http-api.md describes the API.

    Environment variables set everything else: docs/reference/settings.md lists them. An option overrides its variable.

    Example:  lookalike serve images --port 8001

    Example:  lookalike serve images --writable
    """
    from app import logs
    from app.collections.folders import collection_folders
    from app.main import create_app
    from app.server import process
    from app.server.server import Server, run
    from lookalike.collection import current_version

    first, more = collections[0], tuple(collections[1:]) or None
    for folder in collection_folders(first, more or ()):
        current_version(folder)  # reports a folder that is no collection before anything is loaded
    settings = _settings(
        {
            "collection": first,
            "collections": more,
            "health_port": health_port,
            "writable": writable,
            "originals": originals,
            "root_path": root_path,
            "encoder": encoder,
            "device": device,
            "engine": engine,
            "access_log": access_log,
            "log_format": log_format,
        }
    )
    logs.configure(log_level, settings.log_format)
    _warn_of_settings(settings)
    faulthandler.enable()  # a mapped file that is truncated ends the process: the log then has its stack trace
    process.raise_open_file_limit()
    process.return_freed_memory()
    if settings.access_log:
        logging.getLogger("app.telemetry").setLevel(logging.INFO)
    app = create_app(settings)
    service: Service = app.state.service
    if not service.authenticator.requires_key:
        _require_loopback(host, settings)
    sockets = [_listen(host, each) for each in (port, settings.health_port) if each]
    server = Server(app, log_level)
    failures: list[LookalikeError] = []

    def fail(error: LookalikeError) -> None:
        if isinstance(error, StoreUnreachable):  # it is opened when its server is back
            logging.getLogger("app.collections").warning("collection_waits: %s", error)
            return
        failures.append(error)
        server.stop()

    default = service.collections.default
    default.on_ready = lambda pipeline: _announce(pipeline, len(list(service.collections)) - 1, host, port)
    default.on_failure = fail
    run(server, sockets)
    gc.unfreeze()  # leak checks that libraries run at exit would visit all of it
    if failures:
        raise failures[0]
    if service.has_running_batch():
        process.end_process()


def _settings(arguments: dict[str, Any]) -> Settings:
    """Return the environment's settings with the arguments; end the command where a value is invalid."""
    from pydantic import ValidationError

    from app.settings import Settings
    from lookalike.messages import quoted

    try:
        return Settings(**{name: value for name, value in arguments.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = f"LOOKALIKE_{str(first['loc'][0]).upper()}"
        problem = first["msg"].removeprefix("Value error, ")
        _fail(f"{name} is {quoted(first['input'])}: {problem}; see docs/reference/settings.md")


def _warn_of_settings(settings: Settings) -> None:
    """Log unknown variables that resemble a setting, and settings that no longer have an effect."""
    from app.settings import misspelled_variables

    log = logging.getLogger("app.settings")
    for name, suggestion in misspelled_variables(os.environ).items():
        log.warning("setting_unknown name=%s: no setting has this name; did you mean %s?", name, suggestion)
    if settings.max_connections is not None:
        log.warning(
            "setting_deprecated name=LOOKALIKE_MAX_CONNECTIONS: it has no effect; bound connections in a reverse "
            "proxy, as deploy/nginx.conf does"
        )


def _require_loopback(host: str, settings: Settings) -> None:
    """End the command if a service without keys can be reached from other machines, where that is not allowed."""
    from app.server.sockets import is_loopback

    if is_loopback(host):
        return
    if settings.writable:
        _fail(
            f"{host} can be reached from other machines, and a service that accepts writes must then have keys: make "
            "one (`lookalike key NAME --role write`, then LOOKALIKE_KEYS_FILE=keys.toml)"
        )
    if not settings.anonymous:
        _fail(
            f"{host} can be reached from other machines, and the service has no keys: make one (`lookalike key NAME`, "
            "then LOOKALIKE_KEYS_FILE=keys.toml), or allow anonymous access with LOOKALIKE_ANONYMOUS=true"
        )


def _listen(host: str, port: int) -> socket.socket:
    from app.server.sockets import listen

    try:
        return listen(host, port)
    except OSError as error:
        _fail(f"can't listen on {host} port {port}: {error.strerror}; choose another with --port")


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


def _announce(pipeline: QueryPipeline, others: int, host: str, port: int) -> None:
    """Print that the service is ready, and where."""
    from app.server.process import tune_garbage_collector

    tune_garbage_collector()
    collection = pipeline.searcher.collection
    address = f"[{host}]" if ":" in host else host
    more = f", and {others} more" if others else ""
    typer.echo(
        f"Serving {pipeline.name} ({len(collection):,} images, encoder {collection.manifest.encoder.name})"
        f"{more} at http://{address}:{port}/  API: /docs  Ctrl-C stops."
    )
    sys.stdout.flush()

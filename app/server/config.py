"""uvicorn's configuration, made from the settings."""

from __future__ import annotations

import logging

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.server.proxies import ForwardedPrefixMiddleware, trusted_networks
from app.settings import Settings

MAX_HEAD_BYTES = 64 * 1024
"""Of a request line with its headers, and of trailers; beyond it h11 sends 400, unless all arrives in one read."""
BACKLOG = 4096
"""Connections that the kernel queues before they are accepted; `net.core.somaxconn` may lower it."""


def uvicorn_config(app: FastAPI, settings: Settings, log_level: str = "warning") -> uvicorn.Config:
    """Return the configuration of the server.

    h11 reads the body of a request that offers `Upgrade: h2c`, as Java's HttpClient and `curl --http2` do; httptools
    takes it for the other protocol's.
    """
    logging.getLogger("uvicorn.error").addFilter(_is_worth_logging)
    return uvicorn.Config(
        _behind_proxies(app, settings.proxies),
        http="h11",
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ws="none",
        lifespan="off",  # `app.server.server` enters it, so that it also ends after a second Ctrl-C
        backlog=BACKLOG,
        proxy_headers=False,  # `_behind_proxies` reads them
        server_header=False,
        log_config=None,
        log_level=log_level,
        access_log=False,  # the application's own has the request's id and no query string
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


def _behind_proxies(app: ASGIApp, proxies: str) -> ASGIApp:
    """Return an application that reads `X-Forwarded-For`, `-Proto` and `-Prefix` of trusted proxies."""
    networks = trusted_networks(proxies)
    if not networks:
        return app
    return ForwardedPrefixMiddleware(ProxyHeadersMiddleware(app, trusted_hosts=networks), networks)  # type: ignore[arg-type]


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Drop the two warnings that uvicorn logs for each request with `Upgrade`."""
    return not str(record.msg).startswith(("Unsupported upgrade request", "No supported WebSocket library"))

"""Wiring: settings -> application. Importing this is cheap; models and indexes are opened by the lifespan.

`lookalike serve COLLECTION` runs it; `app.server` is the HTTP server.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from app import errors, tracing
from app.api import collections, health, items, openapi, pages, search, similarity, stats
from app.api.dependencies import named
from app.middleware.admission import AdmissionMiddleware
from app.middleware.body_limit import BodyLimitMiddleware
from app.middleware.health_port import HealthPortMiddleware
from app.middleware.request_metrics import RequestMetricsMiddleware
from app.middleware.security_headers import SecurityHeadersMiddleware
from app.middleware.trusted_hosts import TrustedHostMiddleware
from app.middleware.unread_body import UnreadBodyMiddleware
from app.paths import HEALTH, NAMED, SHORT
from app.service import Service
from app.settings import Settings, split_list


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application over the collections of its settings.

    Args:
        settings: read from the environment where not given.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # warns of every hostile form; its error is answered
    service = Service(settings or Settings())
    app = FastAPI(
        title="Lookalike", version=_version(), docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    app.state.service = service
    errors.install(app)
    app.add_middleware(
        BodyLimitMiddleware, max_bytes=service.settings.max_body_bytes, timeout=service.settings.body_timeout
    )
    app.add_middleware(
        AdmissionMiddleware,
        admission=service.admission,
        deadline=service.settings.deadline,
        telemetry=service.telemetry,
    )
    if service.settings.health_port:
        app.add_middleware(HealthPortMiddleware, port=service.settings.health_port, paths=HEALTH)
    if not service.authenticator.requires_key:
        names = frozenset(split_list(service.settings.hosts.lower()))
        app.add_middleware(TrustedHostMiddleware, names=names, anonymous=service.settings.anonymous)
    app.add_middleware(SecurityHeadersMiddleware, ending=lambda: service.draining)
    if origins := split_list(service.settings.cors_origins):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID", "Content-Type"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(RequestMetricsMiddleware, telemetry=service.telemetry)
    app.add_middleware(UnreadBodyMiddleware)
    if service.settings.tracing:
        tracing.install(app, service.telemetry)
    for resource in (search, similarity, items):
        app.include_router(resource.router, prefix=SHORT)
        app.include_router(resource.router, prefix=NAMED, dependencies=[Depends(named)], responses=openapi.errors(404))
    for other in (collections, stats, health):
        app.include_router(other.router)
    pages.mount(app)
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the service's tasks, and close it at the end."""
    service: Service = app.state.service
    service.start()
    try:
        yield
    finally:
        await service.close()


def _version() -> str:
    try:
        return version("lookalike")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0.0.0"

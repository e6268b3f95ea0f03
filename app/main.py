"""The application, built from its settings. Importing this is cheap: the lifespan opens models and indexes.

`lookalike serve COLLECTION` runs it; `app.server` is the HTTP server.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from app import tracing
from app.api import (
    classify,
    collections,
    embeddings,
    fields,
    health,
    items,
    models,
    openapi,
    originals,
    pages,
    search,
    search_batch,
    similarity,
    similarity_matrix,
    stats,
    writes,
)
from app.api import map as map_routes
from app.middleware.body_limit import BodyLimitMiddleware
from app.middleware.health_port import HealthPortMiddleware
from app.middleware.problems import ProblemMiddleware, raise_framework_errors
from app.middleware.request_metrics import RequestMetricsMiddleware
from app.middleware.root_path import RootPathMiddleware
from app.middleware.security_headers import SecurityHeadersMiddleware
from app.middleware.trusted_hosts import TrustedHostMiddleware
from app.middleware.unread_body import UnreadBodyMiddleware
from app.service import Service
from app.settings import Settings, split_list


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application.

    Args:
        settings: read from the environment by default.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every invalid form
    app = FastAPI(
        title="Lookalike", version=_version(), docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    app.state.service = Service(settings or Settings())
    _add_middleware(app, app.state.service)
    app.include_router(search.router)
    app.include_router(search_batch.router)
    app.include_router(similarity.router)
    app.include_router(similarity_matrix.router)
    app.include_router(classify.router)
    app.include_router(embeddings.router)
    app.include_router(models.router)
    app.include_router(originals.router)  # before items, whose ids may hold slashes
    app.include_router(items.router)
    app.include_router(writes.router)
    app.include_router(fields.router)
    app.include_router(map_routes.router)
    app.include_router(collections.router)
    app.include_router(stats.router)
    app.include_router(health.router)
    pages.mount(app)
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _add_middleware(app: FastAPI, service: Service) -> None:
    """Add the middleware, from the innermost to the outermost."""
    settings = service.settings
    raise_framework_errors(app)
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes, timeout=settings.body_timeout)
    if settings.health_port:
        app.add_middleware(HealthPortMiddleware, port=settings.health_port, paths=health.PATHS)
    if not service.authenticator.requires_key:
        names = frozenset(split_list(settings.hosts.lower()))
        app.add_middleware(TrustedHostMiddleware, names=names, anonymous=settings.anonymous)
    app.add_middleware(ProblemMiddleware, telemetry=service.telemetry)
    app.add_middleware(SecurityHeadersMiddleware, draining=lambda: service.draining)
    if origins := split_list(settings.cors_origins):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST", *(["PUT", "PATCH", "DELETE"] if settings.writable else [])],
            allow_headers=["*"],  # tracing and libraries add headers; what protects the service is the list of origins
            expose_headers=["ETag", "X-Request-ID", "Retry-After"],
        )
    app.add_middleware(RequestMetricsMiddleware, telemetry=service.telemetry)
    app.add_middleware(UnreadBodyMiddleware)
    app.add_middleware(RootPathMiddleware, root_path=settings.root_path)
    if settings.tracing:
        tracing.install(app, service.telemetry, health.PATHS)


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
    except PackageNotFoundError:  # a checkout that was never installed
        return "0.0.0"

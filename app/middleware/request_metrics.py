"""Request metrics, request ids and the access log."""

from __future__ import annotations

import logging
import random
import re
import time
from urllib.parse import quote

from fastapi.routing import APIRoute, iter_route_contexts
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs
from app.errors import CLIENT_DISCONNECTED
from app.middleware.root_path import route_path
from app.telemetry import Telemetry

logger = logging.getLogger("app.telemetry")
"""The access log, at level INFO."""

_MAX_PATH_CHARS = 300
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_OTHER = "other"


class RequestMetricsMiddleware:
    """Counts, times and logs every request, and gives it an id.

    The response's `X-Request-ID` repeats the client's if that is well-formed.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app = app
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with a `send` that adds the id and reads the status."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = time.perf_counter(), CLIENT_DISCONNECTED  # unless a response starts
        headers = Headers(scope=scope)
        request_id = _request_id(headers.get("x-request-id", ""))
        scope.setdefault("state", {})["request_id"] = request_id
        logs.request_id.set(request_id)
        logs.trace_id.set(self.telemetry.trace_id() or logs.parse_trace_id(headers.get("traceparent", "")))

        async def send_wrapper(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_wrapper)
        except Exception:
            status = 500
            raise
        finally:
            seconds = time.perf_counter() - started
            self.telemetry.count_request(_route_path(scope), _method(scope), status, seconds)
            if logger.isEnabledFor(logging.INFO):
                _log(scope, status, seconds)


def _request_id(sent: str) -> str:
    return sent if _REQUEST_ID.fullmatch(sent) else f"{random.getrandbits(64):016x}"


def _route_path(scope: Scope) -> str:
    """Return the path that the request's route declares: one name for all collections and items."""
    route = scope.get("route")
    if isinstance(route, APIRoute):
        return route.path
    # A request that is rejected before it is routed, or has no route.
    path = route_path(scope)
    for context in iter_route_contexts(scope["app"].routes) if "app" in scope else ():
        if isinstance(context.original_route, APIRoute) and context.path_regex.match(path):
            return context.path or _OTHER
    return _OTHER


def _method(scope: Scope) -> str:
    """Return the method, or `other`: a client may invent methods, and each would be a time series of its own."""
    return scope["method"] if scope["method"] in _METHODS else _OTHER


def _log(scope: Scope, status: int, seconds: float) -> None:
    """Write a line of the access log; the path is percent-encoded again, so that it stays one line."""
    fields = {
        "method": _method(scope),
        "path": quote(scope["path"])[:_MAX_PATH_CHARS],
        "status": status,
        "milliseconds": round(seconds * 1000.0, 1),
        "caller": scope["state"].get("caller", ""),
    }
    logger.info("request method=%(method)s path=%(path)s status=%(status)d", fields, extra=fields)

"""Metrics, the request's id and the access log."""

from __future__ import annotations

import logging
import random
import re
import time
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs
from app.paths import declared
from app.telemetry import Telemetry

logger = logging.getLogger("app.telemetry")
"""The access log, at level INFO."""

_MAX_PATH_CHARS = 300
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestMetricsMiddleware:
    """Counts, names and logs every request: `X-Request-ID` is the client's if it makes sense, else a new one.

    The access log is this module's logger at level INFO.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app = app
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on with a `send` that adds the name and sees the status."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun, status = time.perf_counter(), 499  # nobody waits for an answer any more
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        name = given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(64):016x}"
        scope.setdefault("state", {})["request_id"] = name
        logs.request_id.set(name)
        logs.trace_id.set(self.telemetry.trace_id() or logs.trace_of(headers.get("traceparent", "")))

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = name
            await send(message)

        try:
            await self.app(scope, receive, named)
        except Exception:
            status = 500  # answered outside of this, by `app.errors`
            raise
        finally:
            seconds = time.perf_counter() - begun
            self.telemetry.count_request(declared(scope), _method(scope), status, seconds)
            if logger.isEnabledFor(logging.INFO):
                _log(scope, status, seconds)


def _log(scope: Scope, status: int, seconds: float) -> None:
    """A line of the access log; the path is percent-encoded again, so that it stays one line."""
    facts = {
        "method": _method(scope),
        "path": quote(scope["path"])[:_MAX_PATH_CHARS],
        "status": status,
        "milliseconds": round(seconds * 1000.0, 1),
        "caller": scope["state"].get("caller", ""),
    }
    logger.info("request method=%(method)s path=%(path)s status=%(status)d", facts, extra=facts)


def _method(scope: Scope) -> str:
    """A method that HTTP knows; a client may invent others, and each would be a time series of its own."""
    method = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "OPTIONS") else "other"

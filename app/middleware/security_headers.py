"""Security headers on every response."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.root_path import route_path

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
# Swagger UI sets style attributes; its scripts are files.
_DOCS_POLICY = _PAGE_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")


class SecurityHeadersMiddleware:
    """Adds the headers that keep a browser from sniffing types, framing, and loading from other hosts.

    While the service shuts down, a response also closes its connection: a client must not send another request on it.
    """

    def __init__(self, app: ASGIApp, draining: Callable[[], bool] = lambda: False) -> None:
        """`draining` returns whether the service is shutting down."""
        self.app = app
        self.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with a `send` that adds the headers."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        policy = _DOCS_POLICY if route_path(scope) == "/docs" else _PAGE_POLICY

        async def send_wrapper(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Content-Security-Policy"] = policy
                headers["X-Frame-Options"] = "DENY"
                if self.draining():
                    headers["Connection"] = "close"
            await send(message)

        await self.app(scope, receive, send_wrapper)

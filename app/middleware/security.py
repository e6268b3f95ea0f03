"""What guards requests before a route sees them: a cap on bodies, headers for browsers, a port for some paths alone.

All are plain ASGI, so that they cost nothing where they have nothing to do. They know nothing of the routes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTooLarge, BodyTooSlow, NotReady, Overloaded, problem, problem_of, surprise

_MOST_HELD = 8
"""Bodies of the largest size that are held at once."""
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# Swagger UI sets style attributes; its scripts come from files all the same.
_DOCS_POLICY = _PAGE_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")


class OnlyPaths:
    """Lets through a port's requests for a few paths alone; those of other ports as they are."""

    def __init__(self, app: ASGIApp, port: int, paths: frozenset[str]) -> None:
        self.app = app
        self.port = port
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on, or answers 404."""
        if (
            scope["type"] == "http"
            and (scope.get("server") or ("", 0))[1] == self.port
            and scope["path"] not in self.paths
        ):
            told = f"port {self.port} is for {', '.join(sorted(self.paths))} alone"
            return await problem(scope["path"], 404, "not_found", told)(scope, receive, send)
        await self.app(scope, receive, send)


class BodyLimit:
    """Refuses a request body over `max_bytes`: by its Content-Length at once, else while it streams in.

    One that has not arrived after `timeout` seconds is refused as well, however busily it drips, and so is what would
    bring all bodies that are held at once over eight times `max_bytes`.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.timeout = timeout
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on with a counting `receive`."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if _content_length(scope) > self.max_bytes:
            scope["app"].state.service.telemetry.error(BodyTooLarge.code)
            return await problem_of(scope["path"], self._error())(scope, receive, send)
        seen, whole = 0, False
        deadline = time.monotonic() + self.timeout

        async def counted() -> Message:
            nonlocal seen, whole
            if whole:
                return await receive()  # what comes now is the client's leaving
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlow(
                    f"the body did not arrive within {self.timeout:g} s; send faster, or raise LOOKALIKE_BODY_TIMEOUT"
                ) from None
            size = len(message.get("body", b""))
            seen += size
            self.held += size
            whole = not message.get("more_body", False)
            if seen > self.max_bytes:
                raise self._error()
            if self.held > _MOST_HELD * self.max_bytes:
                raise Overloaded(f"bodies of {self.held:,} bytes are held already; come again as Retry-After says")
            return message

        try:
            return await self.app(scope, counted, send)
        finally:
            self.held -= seen

    def _error(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"the body is over the limit of {self.max_bytes:,} bytes; send less, or raise LOOKALIKE_MAX_BODY_BYTES"
        )


def _content_length(scope: Scope) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"")
    return int(value) if value.isdigit() else 0


class SecurityHeaders:
    """Adds to every answer what keeps a browser from guessing, framing, or loading anything from elsewhere.

    The answer to a failure of ours is given here as well, so that it has them, too. While the service ends, an answer
    says that its connection does: a client that sends its next request on it might come too late.
    """

    def __init__(self, app: ASGIApp, ending: Callable[[], bool] = lambda: False) -> None:
        """`ending` tells whether the service is about to end."""
        self.app = app
        self.ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on with a `send` that adds the headers."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun = False
        policy = _DOCS_POLICY if scope["path"].rstrip("/").endswith("/docs") else _PAGE_POLICY

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Content-Security-Policy"] = policy
                headers["X-Frame-Options"] = "DENY"
                if self.ending():
                    headers["Connection"] = "close"
            await send(message)

        try:
            await self.app(scope, receive, guarded)
        except asyncio.CancelledError:  # the server's, where the process ends and the request's time with it
            if begun:
                raise
            await problem_of(scope["path"], NotReady("the service is about to end"))(scope, receive, guarded)
        except Exception:  # answered here, where the headers are; the framework logs it
            if not begun:
                await surprise(scope)(scope, receive, guarded)
            raise

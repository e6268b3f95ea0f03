"""Errors as problem documents: application/problem+json (RFC 9457).

This is the one place that writes and counts error responses. Other code raises; `app.errors` maps classes to statuses.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import (
    CLIENT_DISCONNECTED,
    INTERNAL_ERROR,
    InputError,
    NotReady,
    RangeUnsatisfiable,
    RequestError,
    RetryableError,
    status_of,
)
from app.middleware.openai_errors import expects_openai_errors, openai_error, openai_status
from app.middleware.root_path import root_path
from app.telemetry import Telemetry
from app.validation import request_validation_error
from lookalike.errors import LookalikeError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_TEXT_CHARS = 2000
"""Characters of a detail, or of a field's name or message: they may repeat what was sent, of any length."""

_INTERNAL_DETAIL = "the service failed on this request; its log says why"
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


class ProblemMiddleware:
    """Turns every error of the application into a problem document, and counts it.

    An unexpected error becomes a 500 without details, and is raised again: the server logs it.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app = app
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, and respond to its error unless a response has started."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def send_wrapper(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            return await self.app(scope, receive, send_wrapper)
        except ClientDisconnect:
            if started:
                raise
            response = Response(status_code=CLIENT_DISCONNECTED)
        except (Exception, asyncio.CancelledError) as error:  # the server cancels when its time to shut down is over
            if started:
                raise
            problem = problem_of(error, scope)
            self.telemetry.count_error(problem.code)
            if problem.code == INTERNAL_ERROR:
                await problem.response(scope)(scope, receive, send)
                raise
            response = problem.response(scope)
        await response(scope, receive, send)


@dataclass(frozen=True, slots=True)
class ProblemContent:
    """The content of a problem document."""

    status: int
    code: str
    detail: str
    errors: list[dict[str, str]] | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def of_input(self, name: str) -> ProblemContent:
        """Return the same problem of one input among several."""
        if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self
        entries = [{"field": name, "message": self.detail}]
        return replace(self, detail=f"{name}: {self.detail}", errors=self.errors or entries)

    def document(self, path: str) -> dict[str, Any]:
        """Return the document of a request to a path."""
        body: dict[str, Any] = {
            "type": f"urn:lookalike:error:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": int(self.status),
            "detail": _shorten(self.detail),
            "instance": _shorten(path),
            "code": self.code,
        }
        if self.errors:
            body["errors"] = [{name: _shorten(text) for name, text in entry.items()} for entry in self.errors]
        return body

    def response(self, scope: Scope) -> Response:
        """Return the response to a request."""
        problem, is_openai = self, expects_openai_errors(scope)
        if is_openai:
            problem = replace(self, status=openai_status(self.status))
        document = problem.document(scope["path"])
        if is_openai:
            document["error"] = openai_error(document)
        return Response(to_json(document), problem.status, problem.headers, MEDIA_TYPE)


def problem_of(error: BaseException, scope: Scope) -> ProblemContent:
    """Return the problem that reports an error to a client."""
    if isinstance(error, InputError):
        return problem_of(error.cause, scope).of_input(error.name)
    if isinstance(error, asyncio.CancelledError):
        error = NotReady("the service is shutting down")
    elif isinstance(error, RequestValidationError):
        error = request_validation_error(error)
    elif isinstance(error, HTTPException) and isinstance(error.__cause__, LookalikeError):
        error = error.__cause__  # FastAPI wraps what is raised while it reads a body
    if isinstance(error, LookalikeError):
        return _of_lookalike(error)
    if isinstance(error, HTTPException):
        return _of_http(error, scope)
    return ProblemContent(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR, _INTERNAL_DETAIL)


def _of_lookalike(error: LookalikeError) -> ProblemContent:
    status, detail = status_of(type(error)), str(error)
    headers: dict[str, str] = {}
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = str(error.retry_after if isinstance(error, RetryableError) else 1)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RangeUnsatisfiable):
        headers["Content-Range"] = error.content_range
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s: %s", error.code, detail)
        detail = _INTERNAL_DETAIL
    return ProblemContent(
        status, error.code, detail, error.errors if isinstance(error, RequestError) else None, headers
    )


def _of_http(error: HTTPException, scope: Scope) -> ProblemContent:
    status, detail, path = error.status_code, str(error.detail), scope["path"]
    docs = f"{root_path(scope)}/docs"
    if detail == HTTPStatus.NOT_FOUND.phrase:  # the framework's own
        detail = f"nothing is served at {path}; see {docs}"
    elif detail == HTTPStatus.METHOD_NOT_ALLOWED.phrase:
        detail = f"{scope['method']} is not served at {path}; see {docs}"
    return ProblemContent(status, _HTTP_CODES.get(status, "http_error"), detail, headers=dict(error.headers or {}))


def _shorten(text: str) -> str:
    """Return the beginning and the end of a long text; a detail names the fix at its end."""
    left_out = len(text) - MAX_TEXT_CHARS
    half = MAX_TEXT_CHARS // 2
    return text if left_out <= 0 else f"{text[:half]} ... {left_out:,} characters left out ... {text[-half:]}"


def raise_framework_errors(app: FastAPI) -> None:
    """Let the framework raise the errors that it would turn into responses of its own."""
    for error in (HTTPException, RequestValidationError):
        app.add_exception_handler(error, _reraise)


async def _reraise(_: Request, error: Exception) -> Response:
    try:
        raise error
    finally:
        del error  # or it and its traceback, which holds this frame, would be a reference cycle

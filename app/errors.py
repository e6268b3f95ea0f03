"""Error class -> status, and the body of every error: application/problem+json (RFC 9457).

The library's tree says what went wrong, this file says how HTTP calls it, once. `code` is stable, `type` is
`urn:lookalike:error:<code>`, and `detail` names the offending value and the mend. What was not raised on purpose
becomes a 500 that tells the client nothing of the inside; the log has the traceback.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from lookalike.errors import (
    CollectionError,
    EncoderError,
    ImageError,
    LookalikeError,
    QueryError,
    StoreError,
    TextUnsupported,
    UnknownItem,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_FIELD_ERRORS = 20
"""Of one body that are told: a hundred thousand would take longer to write down than to find."""
MAX_DETAIL_CHARS = 2000
"""Characters of a detail, or of a field's name or message: what was sent is named in it, and may be of any length."""


class RequestError(LookalikeError):
    """A request that HTTP or JSON already rules out, before anything is decoded."""

    code = "request_invalid"

    def __init__(self, detail: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.errors = errors


class JsonInvalid(RequestError):
    """The body is not JSON."""

    code = "json_invalid"


class FormInvalid(RequestError):
    """The body is not the multipart form that its header promises."""

    code = "form_invalid"


class Base64Invalid(RequestError):
    """An image in JSON that is neither base64 nor a base64 data URI."""

    code = "base64_invalid"


class BodyTooLarge(RequestError):
    """More bytes than `max_body_bytes`; the rest is thrown away."""

    code = "body_too_large"


class MediaTypeUnsupported(RequestError):
    """A Content-Type that the endpoint does not take."""

    code = "media_type_unsupported"


class NoThumbnail(RequestError):
    """The item is known but has no thumbnail."""

    code = "no_thumbnail"


class KeyMissing(RequestError):
    """The service has API keys, and the request shows none."""

    code = "key_missing"


class KeyInvalid(RequestError):
    """The key is none of the service's."""

    code = "key_invalid"


class RoleMissing(RequestError):
    """The key is known but may not do this."""

    code = "role_missing"


class KeysRequired(RequestError):
    """The service has no keys, and other machines reach the address that was asked."""

    code = "keys_wanted"


class HostRefused(RequestError):
    """A name that a service without keys does not answer to, or a page from elsewhere that would change something."""

    code = "host_refused"


class RetryableError(RequestError):
    """A request that may succeed when it comes again; never raised itself.

    Attributes:
        retry_after: in how many seconds, at least 1.
    """

    code = "later"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class NotReady(RetryableError):
    """The collection is still being opened, or could not be; or the service is about to end."""

    code = "not_ready"


class RateLimited(RetryableError):
    """More queries than the rate limit allows."""

    code = "rate_limited"


class Overloaded(RetryableError):
    """More queries are waiting than can be answered in time."""

    code = "overloaded"


class DeadlineExceeded(RetryableError):
    """The query was not answered before its deadline."""

    code = "deadline_exceeded"


class BodyTooSlow(RequestError):
    """The body did not arrive in time."""

    code = "body_too_slow"


class UnknownCollection(RequestError):
    """No collection of the service has this name."""

    code = "unknown_collection"


class UrlDisabled(RequestError):
    """The service fetches no images."""

    code = "url_disabled"


class UrlRefused(RequestError):
    """A URL that the service would not ask."""

    code = "url_refused"


class UrlFailed(RequestError):
    """The image at a URL could not be fetched."""

    code = "url_failed"


class VersionRefused(RetryableError):
    """The collection's newest version could not be opened; the one before serves on."""

    code = "version_refused"


STATUS: dict[type[LookalikeError], HTTPStatus] = {
    RequestError: HTTPStatus.UNPROCESSABLE_ENTITY,
    JsonInvalid: HTTPStatus.BAD_REQUEST,
    FormInvalid: HTTPStatus.BAD_REQUEST,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    MediaTypeUnsupported: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    NoThumbnail: HTTPStatus.NOT_FOUND,
    KeyMissing: HTTPStatus.UNAUTHORIZED,
    KeyInvalid: HTTPStatus.UNAUTHORIZED,
    UnknownCollection: HTTPStatus.NOT_FOUND,
    RoleMissing: HTTPStatus.FORBIDDEN,
    KeysRequired: HTTPStatus.FORBIDDEN,
    HostRefused: HTTPStatus.FORBIDDEN,
    BodyTooSlow: HTTPStatus.REQUEST_TIMEOUT,
    RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    RetryableError: HTTPStatus.SERVICE_UNAVAILABLE,
    ImageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    QueryError: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnknownItem: HTTPStatus.NOT_FOUND,
    TextUnsupported: HTTPStatus.UNPROCESSABLE_ENTITY,
    EncoderError: HTTPStatus.INTERNAL_SERVER_ERROR,
    CollectionError: HTTPStatus.INTERNAL_SERVER_ERROR,
    StoreError: HTTPStatus.SERVICE_UNAVAILABLE,
    LookalikeError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""The most specific class in an error's ancestry decides."""

_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


def status_of(error: type[LookalikeError]) -> HTTPStatus:
    """The status of an error class."""
    return next(STATUS[parent] for parent in error.__mro__ if parent in STATUS)


def problem_response(
    request_path: str,
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """One problem document as a response."""
    body: dict[str, Any] = {
        "type": f"urn:lookalike:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": _short(detail),
        "instance": _short(request_path),
        "code": code,
    }
    if errors:
        body["errors"] = [{name: _short(text) for name, text in entry.items()} for entry in errors]
    return Response(to_json(body), status, headers, MEDIA_TYPE)


def _short(text: str) -> str:
    """Beginning and end, where the mend stands, of a text that is long."""
    left_out = len(text) - MAX_DETAIL_CHARS
    half = MAX_DETAIL_CHARS // 2
    return text if left_out <= 0 else f"{text[:half]} ... {left_out:,} characters left out ... {text[-half:]}"


def error_response(request_path: str, error: LookalikeError) -> Response:
    """The problem document of a deliberate error."""
    status = status_of(type(error))
    errors = error.errors if isinstance(error, RequestError) else None
    headers: dict[str, str] = {}
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = str(error.retry_after if isinstance(error, RetryableError) else 1)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    detail = str(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s: %s", error.code, detail)
        detail = "the service failed on this request; its log says why"
    return problem_response(request_path, status, error.code, detail, errors=errors, headers=headers)


def validation_error(error: ValidationError) -> LookalikeError:
    """What pydantic found wrong with a JSON body, as one of our own errors."""
    if error.error_count() > MAX_FIELD_ERRORS:
        return RequestError(f"{error.error_count():,} things are wrong with the body; /docs shows what it may hold")
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return JsonInvalid(f"the body is not valid JSON: {found[0]['msg']}")
    errors = [
        {"field": ".".join(map(str, entry["loc"])) or "body", "message": entry["msg"].removeprefix("Value error, ")}
        for entry in found
    ]
    return RequestError("; ".join(f"{entry['field']}: {entry['message']}" for entry in errors), errors)


def install(app: FastAPI) -> None:
    """Makes every error of `app` a problem document."""
    app.add_exception_handler(LookalikeError, _on_deliberate)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_hang_up)


def _count(request: Request, code: str) -> None:
    request.app.state.service.telemetry.count_error(code)


async def _on_deliberate(request: Request, error: Exception) -> Response:
    assert isinstance(error, LookalikeError)
    _count(request, error.code)
    return error_response(request.url.path, error)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, status = request.url.path, error.status_code
    detail = {
        404: f"nothing is served at {path}; see /docs",
        405: f"{request.method} is not served at {path}; see /docs",
    }.get(status, str(error.detail))
    code = _HTTP_CODES.get(status, "http_error")
    _count(request, code)
    return problem_response(path, status, code, detail, headers=dict(error.headers or {}))


async def _on_hang_up(request: Request, error: Exception) -> Response:
    """The client left while it was still sending: nobody reads this answer, and nothing went wrong here."""
    return Response(status_code=499)  # as who leaves later is counted


def internal_error_response(scope: Scope) -> Response:
    """The answer to a request on which we failed."""
    scope["app"].state.service.telemetry.count_error("internal_error")
    detail = "the service failed on this request; its log says why"
    return problem_response(scope["path"], 500, "internal_error", detail)

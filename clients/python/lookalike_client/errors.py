"""Errors of the client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

_MAX_TEXT = 200
"""Characters of a response that is no problem document, such as a proxy's page."""


class LookalikeError(Exception):
    """Any error of a call.

    Attributes:
        results: where `write_items` raised it, the results of the operations before, which were sent in other requests.
    """

    results: Sequence[Any] = ()


class ConnectionFailed(LookalikeError):
    """No response came: the service can't be reached, or took longer than the timeout."""


class ResponseInvalid(LookalikeError):
    """A response is not what the service sends; the address may be another service's."""


class ApiError(LookalikeError):
    """The service responded with an error.

    Attributes:
        status: the HTTP status; of a query of a batch, the one that it would get alone.
        code: the error's stable code, such as `unknown_item`; empty where something else responded, such as a proxy.
        detail: what is wrong, with the offending value, and the fix.
        errors: the invalid fields, each with `field` and `message`.
        retry_after: seconds after which to retry, None if the service named none.
        request_id: the request's `X-Request-ID`, which the service's log has too.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: list[dict[str, Any]] | None = None,
        *,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}" if code else f"{status}: {detail}")
        self.status, self.code, self.detail, self.errors = status, code, detail, errors or []
        self.retry_after, self.request_id = retry_after, request_id

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.status, self.code, self.detail, self.errors, self.retry_after, self.request_id)


def _rebuild(
    status: int,
    code: str,
    detail: str,
    errors: list[dict[str, Any]],
    retry_after: float | None,
    request_id: str | None,
) -> ApiError:
    return ApiError(status, code, detail, errors, retry_after=retry_after, request_id=request_id)


def error_of_response(response: httpx.Response) -> ApiError:
    """Return the error that a response stands for."""
    retry_after, request_id = retry_after_of(response), response.headers.get("X-Request-ID")
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and "code" in problem:
        return error_of_problem(problem, retry_after=retry_after, request_id=request_id)
    if response.has_redirect_location:
        detail = f"redirected to {response.headers['Location']}; use the final address as base_url"
    else:
        detail = f"{response.reason_phrase}, without a problem document: {response.text[:_MAX_TEXT]!r}"
    return ApiError(response.status_code, "", detail, retry_after=retry_after, request_id=request_id)


def error_of_problem(
    problem: dict[str, Any], *, retry_after: float | None = None, request_id: str | None = None
) -> ApiError:
    """Return the error that a problem document (RFC 9457) describes."""
    return ApiError(
        int(problem.get("status", 0)),
        str(problem["code"]),
        str(problem.get("detail", "")),
        problem.get("errors"),
        retry_after=retry_after,
        request_id=request_id,
    )


def retry_after_of(response: httpx.Response) -> float | None:
    """Return the seconds of `Retry-After`, from 0, which may be a date; None if it is absent or invalid."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None

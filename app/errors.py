"""Errors of the service, and the HTTP status of every error.

`code` is stable; it is in the problem document, a label in telemetry and a heading in the documentation. The detail
names the offending value and the fix. `app.middleware.problems` writes the response.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.exceptions import HTTPException

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

CLIENT_DISCONNECTED = 499
"""The status of a request whose client disconnected before its response, as nginx has it; for metrics and logs."""


class RequestError(LookalikeError):
    """A request that is rejected before anything is decoded."""

    code = "request_invalid"

    def __init__(self, detail: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.errors = errors


class JsonInvalid(RequestError):
    """The body is not JSON."""

    code = "json_invalid"


class FormInvalid(RequestError):
    """The body is not the multipart form that its Content-Type declares."""

    code = "form_invalid"


class Base64Invalid(RequestError):
    """An image in JSON that is neither base64 nor a base64 data URI."""

    code = "base64_invalid"


class BodyTooLarge(RequestError):
    """The body is larger than `max_body_bytes`; the rest of it is discarded."""

    code = "body_too_large"


class MediaTypeUnsupported(RequestError):
    """The endpoint does not accept this Content-Type or Content-Encoding."""

    code = "media_type_unsupported"


class NoThumbnail(RequestError):
    """The item is known but has no thumbnail."""

    code = "no_thumbnail"


class KeyMissing(RequestError):
    """The service requires an API key, and the request has none."""

    code = "key_missing"


class KeyInvalid(RequestError):
    """The service does not have this key."""

    code = "key_invalid"


class RoleMissing(RequestError):
    """The key's role does not allow this."""

    code = "role_missing"


class KeysRequired(RequestError):
    """The service has no keys, and the address of the request can be reached from other machines."""

    code = "keys_wanted"


class HostRefused(RequestError):
    """A service without keys does not serve this host name, or changes nothing for a page of another origin."""

    code = "host_refused"


class RetryableError(RequestError):
    """A request that may succeed when it is retried; the base of such errors.

    Attributes:
        retry_after: seconds until a retry makes sense, at least 1.
    """

    code = "later"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class NotReady(RetryableError):
    """The collection is being opened, or could not be opened, or the service is shutting down."""

    code = "not_ready"


class RateLimited(RetryableError):
    """The caller's rate limit is used up."""

    code = "rate_limited"


class Overloaded(RetryableError):
    """More queries are in flight than can be processed in time."""

    code = "overloaded"


class DeadlineExceeded(RetryableError):
    """The response did not start before the deadline."""

    code = "deadline_exceeded"


class BodyTooSlow(RequestError):
    """The body did not arrive in time."""

    code = "body_too_slow"


class UnknownCollection(RequestError):
    """No collection of the service has this name."""

    code = "unknown_collection"


class UrlDisabled(RequestError):
    """The service does not fetch images by URL."""

    code = "url_disabled"


class UrlRefused(RequestError):
    """The service does not fetch from this URL."""

    code = "url_refused"


class UrlFailed(RequestError):
    """The image at a URL could not be fetched."""

    code = "url_failed"


class VersionRefused(RetryableError):
    """The collection's newest version could not be opened; the previous one stays in service."""

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
"""Of an error's base classes the most specific one decides."""


def status_of(error: type[LookalikeError]) -> HTTPStatus:
    """Return the status of an error class."""
    return next(STATUS[parent] for parent in error.__mro__ if parent in STATUS)


def is_client_error(error: BaseException) -> bool:
    """Return whether the status of an error is in the 400s."""
    if isinstance(error, HTTPException):
        return error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, LookalikeError) and status_of(type(error)) < HTTPStatus.INTERNAL_SERVER_ERROR

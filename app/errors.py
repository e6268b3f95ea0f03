"""Errors of the service, and the HTTP status of every error.

`code` is stable; it is in the problem document, a label in telemetry and a heading in `docs/reference/errors.md`. That
page is generated from the docstrings of the classes: the error, then what to do. The detail names the offending value
and the fix. `app.middleware.problems` writes the response.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.exceptions import HTTPException

from lookalike.errors import (
    CollectionError,
    CollectionUnwritable,
    DiskFull,
    EncoderError,
    ImageError,
    LookalikeError,
    PendingFull,
    PreconditionFailed,
    QueryError,
    StoreError,
    TextUnsupported,
    UnknownItem,
)

CLIENT_DISCONNECTED = 499
"""The status of a request whose client disconnected before its response, as nginx has it; for metrics and logs."""


class RequestError(LookalikeError):
    """A field that is missing, unknown, repeated, of a wrong type or out of range; also the family of codes below.

    The list `errors` of the response names each field and what is wrong with it.
    """

    code = "request_invalid"

    def __init__(self, detail: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.errors = errors


class JsonInvalid(RequestError):
    """A body that is not JSON.

    The message says where parsing stopped.
    """

    code = "json_invalid"


class FormInvalid(RequestError):
    """A body that is not the multipart form that its Content-Type declares, or that has too many parts.

    Let the HTTP client write the header `Content-Type: multipart/form-data` and its boundary.
    """

    code = "form_invalid"


class Base64Invalid(RequestError):
    """An image in JSON that is neither base64 nor a base64 data URI.

    Encode the bytes of the file, not its path. Line breaks are allowed.
    """

    code = "base64_invalid"


class BodyTooLarge(RequestError):
    """A body that is larger than `LOOKALIKE_MAX_BODY_BYTES`; the rest of it is discarded.

    Send a smaller image, or raise the limit. It is 32 MiB by default.
    """

    code = "body_too_large"


class MediaTypeUnsupported(RequestError):
    """A Content-Type that the endpoint does not accept, or a compressed body.

    The message names the types that the endpoint accepts. Send the body without a Content-Encoding.
    """

    code = "media_type_unsupported"


class ReadOnly(RequestError):
    """A write to a collection that this service does not write to.

    Start the service with `--writable` (`LOOKALIKE_WRITABLE=true`) and keys. A collection on Milvus can't be written to
    this way: index it again.
    """

    code = "read_only"


class NoThumbnail(RequestError):
    """An item without a thumbnail.

    Its `thumbnail_url` is null. Imported embeddings have no thumbnail where their image was not available.
    """

    code = "no_thumbnail"


class OriginalsDisabled(RequestError):
    """An original requested from a service that does not serve them.

    Start the service with `--originals` (`LOOKALIKE_ORIGINALS=true`), on a machine that has the indexed folders.
    """

    code = "originals_disabled"


class NoOriginal(RequestError):
    """An item whose original can't be served.

    The message says why: the image lies in a tar, in the bytes of a table or in a bucket, or was written over HTTP. Or
    its file is gone, is no longer an image, can't be read, or lies outside the folder of its source.
    """

    code = "no_original"


class RangeUnsatisfiable(RequestError):
    """A `Range` that begins behind the end of the file.

    `Content-Range` of the response has the file's size. Ask for bytes below it.

    Attributes:
        content_range: value of the header `Content-Range`.
    """

    code = "range_unsatisfiable"

    def __init__(self, detail: str, content_range: str = "") -> None:
        super().__init__(detail)
        self.content_range = content_range


class NoMap(RequestError):
    """A collection without a map, or whose map is damaged.

    `lookalike map COLLECTION` makes the map of the version that is current; the service finds it without a restart. A
    new version of a collection has no map until the command has run again.
    """

    code = "no_map"


class KeyMissing(RequestError):
    """A request without an API key to a service that requires one.

    Send the header `Authorization: Bearer KEY` or `X-API-Key: KEY`. `lookalike key` makes a key.
    """

    code = "key_missing"


class KeyInvalid(RequestError):
    """An API key that the service does not have.

    Check for a truncated key, and that the service reads the key file that the key was added to.
    """

    code = "key_invalid"


class RoleMissing(RequestError):
    """An API key whose role does not allow the request.

    `read` may search and list items, `write` may also add, change and delete them, and `admin` may also reload
    collections.
    """

    code = "role_missing"


class KeysRequired(RequestError):
    """A request from another machine to a service without keys.

    Start the service with keys (`LOOKALIKE_KEYS_FILE`). Or allow everyone to search with `LOOKALIKE_ANONYMOUS=true`.
    """

    code = "keys_wanted"


class HostRefused(RequestError):
    """A host name that a service without keys does not accept, or a change requested by a page of another origin.

    Add the name to `LOOKALIKE_HOSTS`, or use keys.
    """

    code = "host_refused"


class RetryableError(RequestError):
    """A request that may succeed when it is retried; the family of the codes below.

    Never raised itself.

    Attributes:
        retry_after: seconds until a retry makes sense, at least 1.
    """

    code = "later"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class NotReady(RetryableError):
    """A collection that is being opened or could not be opened, or a service that is shutting down.

    The message says which. Retry after the seconds in `Retry-After`. If the collection could not be opened, fix the
    error that the message names.
    """

    code = "not_ready"


class RateLimited(RetryableError):
    """More queries than `LOOKALIKE_RATE_LIMIT` allows for this key or address.

    Retry after the seconds in `Retry-After`.
    """

    code = "rate_limited"


class Overloaded(RetryableError):
    """More queries in flight than can be processed in time.

    The expected wait is longer than `LOOKALIKE_MAX_WAIT`. Retry after the seconds in `Retry-After`. If it happens
    often, add replicas or a GPU.
    """

    code = "overloaded"


class DeadlineExceeded(RetryableError):
    """No response before the deadline.

    The deadline is `LOOKALIKE_DEADLINE`: 10 seconds after the end of the body by default. Retry when the load is lower.
    """

    code = "deadline_exceeded"


class BodyTooSlow(RequestError):
    """A body that did not arrive within `LOOKALIKE_BODY_TIMEOUT`.

    Send smaller images, or raise the limit. It is 30 seconds by default.
    """

    code = "body_too_slow"


class UnknownCollection(RequestError):
    """No collection of the service has this name.

    `GET /v1/collections` lists the names.
    """

    code = "unknown_collection"


class UnknownModel(RequestError):
    """No collection of the service, and no encoder of its open collections, has this name.

    The message lists the names; `GET /v1/models` does, too.
    """

    code = "unknown_model"


class UrlDisabled(RequestError):
    """An image given as a URL to a service that does not fetch images.

    Send the image itself, or set `LOOKALIKE_URLS=true`.
    """

    code = "url_disabled"


class UrlRefused(RequestError):
    """A URL that the service does not fetch from, or that redirects to such a URL.

    Only http and https are allowed, and only hosts on the public internet. `LOOKALIKE_URLS_ALLOWED` adds others.
    """

    code = "url_refused"


class UrlFailed(RequestError):
    """An image that could not be fetched from its URL.

    The server did not respond within `LOOKALIKE_URL_TIMEOUT`, responded with another status than 200, or sent too many
    bytes. The message says which.
    """

    code = "url_failed"


class VersionRefused(RetryableError):
    """A newest version that could not be opened; the previous one stays in service.

    The message has the reason. Index again, then reload again.
    """

    code = "version_refused"


class InputError(Exception):
    """The error of one input among several; the response has the code and the status of its cause.

    Attributes:
        name: the input's name, such as `input.3`.
        cause: what is wrong with it.
    """

    def __init__(self, name: str, cause: Exception) -> None:
        super().__init__(f"{name}: {cause}")
        self.name = name
        self.cause = cause


STATUS: dict[type[LookalikeError], HTTPStatus] = {
    RequestError: HTTPStatus.UNPROCESSABLE_ENTITY,
    JsonInvalid: HTTPStatus.BAD_REQUEST,
    FormInvalid: HTTPStatus.BAD_REQUEST,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    MediaTypeUnsupported: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    NoThumbnail: HTTPStatus.NOT_FOUND,
    NoOriginal: HTTPStatus.NOT_FOUND,
    OriginalsDisabled: HTTPStatus.FORBIDDEN,
    RangeUnsatisfiable: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    NoMap: HTTPStatus.NOT_FOUND,
    KeyMissing: HTTPStatus.UNAUTHORIZED,
    KeyInvalid: HTTPStatus.UNAUTHORIZED,
    UnknownCollection: HTTPStatus.NOT_FOUND,
    UnknownModel: HTTPStatus.NOT_FOUND,
    RoleMissing: HTTPStatus.FORBIDDEN,
    ReadOnly: HTTPStatus.FORBIDDEN,
    PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    PendingFull: HTTPStatus.SERVICE_UNAVAILABLE,
    DiskFull: HTTPStatus.INSUFFICIENT_STORAGE,
    CollectionUnwritable: HTTPStatus.SERVICE_UNAVAILABLE,
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

INTERNAL_ERROR = "internal_error"

HTTP_CODES: dict[str, tuple[HTTPStatus, str]] = {
    "not_found": (HTTPStatus.NOT_FOUND, "A path at which nothing is served. `/docs` of the service lists the paths."),
    "method_not_allowed": (
        HTTPStatus.METHOD_NOT_ALLOWED,
        "A method that is not served at this path. `/docs` of the service lists the methods.",
    ),
    "http_error": (HTTPStatus.BAD_REQUEST, "Another error of the HTTP framework; its status may differ."),
    INTERNAL_ERROR: (
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "A bug of the service, or a failure of the machine. The log has the stack trace, with the `X-Request-ID` of "
        "the response.",
    ),
}
"""Codes without an error class: status and description, for the documentation."""


def status_of(error: type[LookalikeError]) -> HTTPStatus:
    """Return the status of an error class."""
    return next(STATUS[parent] for parent in error.__mro__ if parent in STATUS)


def is_client_error(error: BaseException) -> bool:
    """Return whether the status of an error is in the 400s."""
    if isinstance(error, InputError):
        return is_client_error(error.cause)
    if isinstance(error, HTTPException):
        return error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, LookalikeError) and status_of(type(error)) < HTTPStatus.INTERNAL_SERVER_ERROR

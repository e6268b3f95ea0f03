"""OpenAI's form of errors, on the paths whose clients expect it: 400 for invalid input, and an `error` object."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.types import Scope

from app.middleware.root_path import route_path

_PATHS = ("/v1/embeddings", "/v1/models")
_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}


def expects_openai_errors(scope: Scope) -> bool:
    """Return whether a request is for a path of OpenAI's API."""
    path = route_path(scope)
    return path in _PATHS or path.startswith("/v1/models/")


def openai_status(status: int) -> HTTPStatus:
    """Return the status that OpenAI's API has for an error: 400 for what is 422 elsewhere."""
    return HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else HTTPStatus(status)


def openai_error(document: dict[str, Any]) -> dict[str, Any]:
    """Return the `error` object of a problem document; `param` is the first invalid field."""
    status, errors = HTTPStatus(document["status"]), document.get("errors")
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return {
        "message": document["detail"],
        "type": _TYPES.get(status, kind),
        "param": errors[0]["field"] if errors else None,
        "code": document["code"],
    }

"""Validation errors of pydantic and FastAPI -> the service's own errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app.errors import JsonInvalid, RequestError

MAX_FIELD_ERRORS = 20
"""Errors of one body that are listed: a hundred thousand would take longer to write than to find."""


def validation_error(error: ValidationError) -> RequestError:
    """Return the error of a JSON body that pydantic rejected."""
    if error.error_count() > MAX_FIELD_ERRORS:
        return _too_many(error.error_count())
    return _field_errors(error.errors(include_url=False, include_context=False, include_input=False))


def request_validation_error(error: RequestValidationError) -> RequestError:
    """Return the error of parameters that FastAPI rejected."""
    entries = error.errors()
    return _too_many(len(entries)) if len(entries) > MAX_FIELD_ERRORS else _field_errors(entries)


def _too_many(count: int) -> RequestError:
    return RequestError(f"the body has {count:,} errors; /docs shows its schema")


def _field_errors(entries: Sequence[Any]) -> RequestError:
    if entries[0]["type"] == "json_invalid":
        return JsonInvalid(f"the body is not valid JSON: {entries[0]['msg']}")
    errors = [{"field": ".".join(map(str, entry["loc"])) or "body", "message": _message(entry)} for entry in entries]
    return RequestError("; ".join(f"{entry['field']}: {entry['message']}" for entry in errors), errors)


def _message(entry: Any) -> str:
    if entry["type"] == "extra_forbidden":
        return "unknown field"
    return str(entry["msg"]).removeprefix("Value error, ")

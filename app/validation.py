"""Validation errors of pydantic and FastAPI -> the service's own errors."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import isclass
from typing import Any, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from app.errors import JsonInvalid, RequestError
from lookalike.errors import shortened
from lookalike.messages import unknown_name

MAX_FIELD_ERRORS = 20
"""Errors of one body that are listed: a hundred thousand would take longer to write than to find."""
_UNKNOWN = "extra_forbidden"


def validation_error(error: ValidationError, model: type[BaseModel] | None = None) -> RequestError:
    """Return the error of JSON that pydantic rejected; `model` is what it was validated by, to suggest names."""
    if error.error_count() > MAX_FIELD_ERRORS:
        return _too_many(error.error_count())
    return _field_errors(error.errors(include_url=False, include_context=False, include_input=False), model)


def request_validation_error(error: RequestValidationError) -> RequestError:
    """Return the error of parameters that FastAPI rejected."""
    entries = error.errors()
    return _too_many(len(entries)) if len(entries) > MAX_FIELD_ERRORS else _field_errors(entries)


def _too_many(count: int) -> RequestError:
    return RequestError(f"the body has {count:,} errors; /docs shows its schema")


def _field_errors(entries: Sequence[Any], model: type[BaseModel] | None = None) -> RequestError:
    if entries[0]["type"] == "json_invalid":
        return JsonInvalid(f"the body is not valid JSON: {entries[0]['msg']}")
    errors = [
        {"field": shortened(_path(entry["loc"])) or "body", "message": _message(entry, model)} for entry in entries
    ]
    return RequestError("; ".join(map(_sentence, entries, errors)), errors)


def _sentence(entry: Any, error: dict[str, str]) -> str:
    """Return an error with its place; the message about an unknown field names the field itself."""
    place = _path(entry["loc"][:-1]) if entry["type"] == _UNKNOWN else error["field"]
    return f"{place}: {error['message']}" if place else error["message"]


def _message(entry: Any, model: type[BaseModel] | None) -> str:
    if entry["type"] == _UNKNOWN:
        *path, name = entry["loc"]
        return unknown_name("field", str(name), _names_at(model, path))
    return str(entry["msg"]).removeprefix("Value error, ")


def _path(location: Sequence[str | int]) -> str:
    return ".".join(map(str, location))


def _names_at(model: type[BaseModel] | None, path: Sequence[str | int]) -> list[str]:
    """Return the names of the fields of a model, or of the model at a path of fields in it; none if there is none."""
    for step in path:
        if isinstance(step, int):  # a position in a list, whose elements the type of the field names
            continue
        if model is None:
            break
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        kinds = (fields[step].annotation, *get_args(fields[step].annotation)) if step in fields else ()
        model = next((kind for kind in kinds if isclass(kind) and issubclass(kind, BaseModel)), None)
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]

"""Parameters that a query string or a form holds as text: their parsers, and their entries in the OpenAPI document."""

from __future__ import annotations

import math
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.api.schemas import MAX_FIELDS, Fields, Params
from app.errors import RequestError
from app.validation import validation_error
from lookalike.errors import InvalidLimit
from lookalike.filters import parse_filter
from lookalike.messages import quoted

LIMIT = "Number of items to return, at most `LOOKALIKE_MAX_RESULTS`."
FILTER = "A `Filter` as JSON text. Only items that pass it are found."
PARAMS = "A `Params` object as JSON text: how thoroughly to search."
FIELDS = "Metadata columns of the results, separated by commas; empty for none. By default, all columns."

_FIELDS = TypeAdapter(Fields)


def parameter(name: str, description: str, kind: str = "string", **schema: Any) -> dict[str, Any]:
    """Return a query parameter for `openapi_extra`; requests to the route may then have it."""
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind, **schema}}


def parse_whole(name: str, text: str) -> int:
    """Parse a whole number.

    Args:
        name: the parameter, for the error; `limit` has one of its own.
        text: at most ten digits, perhaps with a sign.

    Raises:
        InvalidLimit, RequestError: it is no such number.
    """
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 10):
        kind = InvalidLimit if name == "limit" else RequestError
        raise kind(f"{name} is {quoted(text)}; it must be a whole number of at most ten digits")
    return int(text)


def parse_threshold(text: str) -> float:
    """Parse a threshold. Raises RequestError: not a number in [0, 2]."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 2.0:
        raise RequestError(f"threshold is {quoted(text)}; it must be a cosine distance between 0 and 2")
    return value


def parse_fields(text: str) -> list[str]:
    """Parse names of columns: separated by commas, or a JSON array, which names with commas need.

    Raises:
        RequestError: an invalid JSON array, or too many names.
    """
    if not text.strip():
        return []
    if text.lstrip().startswith("["):
        try:
            return _FIELDS.validate_json(text)
        except ValidationError as error:
            raise RequestError(f"fields: {validation_error(error)}") from error
    names = [name.strip() for name in text.split(",")]
    if len(names) > MAX_FIELDS:
        raise RequestError(f"fields has {len(names):,} names; at most {MAX_FIELDS:,} are allowed")
    return names


def _parse_params(text: str) -> Params:
    try:
        return Params.model_validate_json(text)
    except ValidationError as error:
        raise RequestError(f"params: {validation_error(error, Params)}") from error


def _parse_limit(text: str) -> int:
    return parse_whole("limit", text)


PARSERS = {"limit": _parse_limit, "filter": parse_filter, "params": _parse_params, "fields": parse_fields}
"""The options of a search, and what parses each from text."""

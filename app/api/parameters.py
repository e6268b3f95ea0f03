"""Parameters that a query string or a form holds as text: their parsers, and their entries in the OpenAPI document."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from app.api.schemas import (
    DEDUPLICATE,
    GROUP_BY,
    GROUP_SIZE,
    INCLUDABLE,
    MAX_FIELDS,
    MIN_PROBABILITY,
    MIN_SCORE,
    OFFSET,
    Fields,
    Params,
    Search,
)
from app.errors import RequestError
from app.validation import validation_error
from lookalike.errors import InvalidLimit
from lookalike.filters import parse_filter
from lookalike.messages import quoted, unknown_name

LIMIT = "Number of items to return, at most `LOOKALIKE_MAX_RESULTS`."
FILTER = "A `Filter` as JSON text. Only items that pass it are found."
SORT = "Column to sort by, such as `width`; `-width` is descending. By default, items have the order of their rows."
PARAMS = "A `Params` object as JSON text: how thoroughly to search."
FIELDS = "Metadata columns of the results, separated by commas; empty for none. By default, all columns."

INCLUDE = "What else the results have, separated by commas: `embedding`."

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


def _parse_number(name: str, text: str) -> float:
    """Parse a finite number. Raises RequestError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RequestError(f"{name} is {quoted(text)}; it must be a number")
    return value


def _parse_deduplicate(text: str) -> float | bool:
    if text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    return _parse_number("deduplicate", text)


def _parse_include(text: str) -> list[Any]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = next((name for name in names if name not in INCLUDABLE), None)
    if unknown is not None:
        raise RequestError(f"include: {unknown_name('part of a result', unknown, INCLUDABLE)}")
    return names


class SearchOption(NamedTuple):
    """An option of a search in a query string or a form: its JSON type, its description, and what parses its text."""

    kind: str
    description: str
    parse: Callable[[str], Any]


SEARCH_OPTIONS = {
    "limit": SearchOption("integer", LIMIT, partial(parse_whole, "limit")),
    "offset": SearchOption("integer", OFFSET, partial(parse_whole, "offset")),
    "min_score": SearchOption("number", MIN_SCORE, partial(_parse_number, "min_score")),
    "min_probability": SearchOption("number", MIN_PROBABILITY, partial(_parse_number, "min_probability")),
    "filter": SearchOption("string", FILTER, parse_filter),
    "params": SearchOption("string", PARAMS, _parse_params),
    "fields": SearchOption("string", FIELDS, parse_fields),
    "include": SearchOption("string", INCLUDE, _parse_include),
    "group_by": SearchOption("string", GROUP_BY, str),
    "group_size": SearchOption("integer", GROUP_SIZE, partial(parse_whole, "group_size")),
    "deduplicate": SearchOption("string", DEDUPLICATE, _parse_deduplicate),
}
assert SEARCH_OPTIONS.keys() == Search.model_fields.keys()

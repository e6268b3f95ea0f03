"""A call of the service, and what reads its response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx

from lookalike_client.errors import ResponseInvalid
from lookalike_client.results import parse

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_LISTS = ("fields", "include", "labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T_co]):
    """A request, and the function that reads its response.

    Attributes:
        retried: whether to send it again after a failure: no reload, and no health check.
        repeatable: whether it can be sent again where it may have taken effect, such as after a lost connection.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T_co]
    params: Mapping[str, str | int] | None = None
    json: Any = None
    data: Mapping[str, str] | None = None
    files: Mapping[str, bytes] | None = None
    headers: Mapping[str, str] | None = None
    retried: bool = True
    repeatable: bool = True


def record(kind: type[T]) -> Callable[[httpx.Response], T]:
    """Return the function that reads a response as a record."""
    return lambda response: parse(kind, read_json(response))


def member(name: str, kind: type[T]) -> Callable[[httpx.Response], T]:
    """Return the function that reads one member of a response."""

    def read(response: httpx.Response) -> T:
        return parse(kind, parse(dict[str, Any], read_json(response)).get(name))

    return read


def read_json(response: httpx.Response) -> Any:
    """Return the JSON of a response. Raises ResponseInvalid."""
    try:
        return response.json()
    except ValueError as error:
        raise ResponseInvalid(f"the response to {response.request.url} is no JSON: {error}") from error


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are not None; those that are sequences as lists, which JSON has."""
    return {name: _as_list(value) if name in _LISTS else value for name, value in options.items() if value is not None}


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)

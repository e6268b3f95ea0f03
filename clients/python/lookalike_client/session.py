"""What both clients share: the address, the headers, the collection, and how a response ends a call."""

from __future__ import annotations

import copy
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import httpx

from lookalike_client import calls
from lookalike_client.call import Call
from lookalike_client.errors import ConnectionFailed, error_of_response
from lookalike_client.retries import Retries, had_no_effect

T = TypeVar("T")
SessionT = TypeVar("SessionT", bound="Session")


class Session:
    """A service, and the collection that calls are for."""

    def __init__(self, collection: str | None, retries: Retries | int) -> None:
        self.collection = collection
        self._retries = Retries(attempts=retries) if isinstance(retries, int) else retries

    def for_collection(self: SessionT, collection: str | None) -> SessionT:
        """Return a client for another collection; it shares the connections, and is closed with this one.

        Args:
            collection: its name; None for the service's default collection.
        """
        other = copy.copy(self)
        other.collection = collection
        return other

    @property
    def _base(self) -> str:
        return calls.base_path(self.collection)

    def _named(self, name: str | None) -> str:
        """Return the name of a collection, by default this client's."""
        if name is None and self.collection is None:
            raise ValueError("name the collection, here or as the client's; collections() lists them")
        return name or self.collection or ""

    def _delay(self, call: Call[Any], attempt: int, outcome: httpx.Response | httpx.RequestError) -> float | None:
        if not call.retried or not (call.repeatable or had_no_effect(outcome)):
            return None
        return self._retries.delay(attempt, outcome)


def client_options(base_url: str, key: str | None, timeout: float | httpx.Timeout) -> dict[str, Any]:
    """Return the arguments of httpx's clients."""
    headers = {"User-Agent": f"lookalike-client/{_version()}"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    if not isinstance(timeout, httpx.Timeout):
        timeout = httpx.Timeout(timeout, pool=None)  # waiting for a free connection is no failure
    return {"base_url": base_url, "headers": headers, "timeout": timeout}


def request_options(call: Call[Any]) -> dict[str, Any]:
    """Return the arguments of httpx's `request`."""
    given = {
        "params": call.params,
        "json": call.json,
        "data": call.data,
        "files": call.files,
        "headers": call.headers,
    }
    return {
        "method": call.method,
        "url": call.path,
        **{name: value for name, value in given.items() if value is not None},
    }


def finish(call: Call[T], outcome: httpx.Response | httpx.RequestError) -> T:
    """Return the result of a call.

    Raises:
        ConnectionFailed: there is no response.
        ApiError: the response is an error.
        ResponseInvalid: the response is not what the service sends.
    """
    if isinstance(outcome, httpx.RequestError):
        reason = str(outcome) or type(outcome).__name__
        raise ConnectionFailed(f"no response from {outcome.request.url}: {reason}") from outcome
    if not outcome.is_success:
        raise error_of_response(outcome)
    return call.read(outcome)


def _version() -> str:
    try:
        return version("lookalike-client")
    except PackageNotFoundError:  # copied without its metadata
        return "0"

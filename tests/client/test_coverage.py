"""The clients reach every operation of the OpenAPI document, and both send the same."""

from __future__ import annotations

import inspect
import json
import re

import httpx
import pytest

from lookalike_client import AsyncClient, Client
from tests.client.recorded import CALLS, async_requests, requests
from tests.conftest import REPOSITORY

_NO_CALLS = {"close", "aclose", "for_collection"}


def _operations() -> set[tuple[str, str]]:
    paths = json.loads((REPOSITORY / "docs" / "openapi.json").read_text(encoding="utf-8"))["paths"]
    return {(method.upper(), path) for path, operations in paths.items() for method in operations}


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\})", template)
    names = {"{item_id}": ".+", "{model}": ".+"}
    return re.compile("".join(names.get(part, "[^/]+") if part.startswith("{") else re.escape(part) for part in parts))


def _operation(request: httpx.Request) -> tuple[str, str] | None:
    """Return the operation that a request is for: of those that fit, the one with the longest fixed part."""
    path = request.url.raw_path.decode().partition("?")[0]
    fitting = [
        (method, template)
        for method, template in _operations()
        if method == request.method and _pattern(template).fullmatch(path)
    ]
    return max(fitting, key=lambda each: len(re.sub(r"\{\w+\}", "", each[1])), default=None)


def _public(kind: type) -> set[str]:
    return {name for name, value in inspect.getmembers(kind, callable) if not name.startswith("_")} - _NO_CALLS


def _content(request: httpx.Request) -> tuple[str, str, bytes]:
    boundary = request.headers.get("Content-Type", "").partition("boundary=")[2].encode()
    content = request.read()
    return request.method, str(request.url), content.replace(boundary, b"") if boundary else content


def test_every_operation_is_reached() -> None:
    reached = {
        _operation(request)
        for calls in CALLS.values()
        for call in calls
        for collection in (None, "my collection")
        for request in requests(call, collection)
    }
    assert reached == _operations()


def test_every_method_is_called() -> None:
    assert _public(Client) == set(CALLS) == _public(AsyncClient)


@pytest.mark.parametrize("name", CALLS)
def test_signatures_are_the_same(name: str) -> None:
    parameters, others = (inspect.signature(getattr(kind, name)).parameters for kind in (Client, AsyncClient))
    assert list(parameters.values()) == list(others.values())


@pytest.mark.parametrize("name", CALLS)
async def test_requests_are_the_same(name: str) -> None:
    for call in CALLS[name]:
        sent = [_content(request) for request in requests(call, "my collection")]
        assert sent
        assert sent == [_content(request) for request in await async_requests(call, "my collection")]


def test_key_is_sent_as_bearer() -> None:
    (request,) = requests(CALLS["collections"][0], None)
    assert request.headers["Authorization"] == "Bearer key"
    assert request.headers["User-Agent"].startswith("lookalike-client/")


def test_root_path_of_the_address_is_kept() -> None:
    paths: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200, json={"collections": []})

    for base_url in ("http://service/images", "http://service/images/"):
        with Client(base_url, transport=httpx.MockTransport(respond)) as client:
            client.collections()
    assert paths == ["/images/v1/collections"] * 2

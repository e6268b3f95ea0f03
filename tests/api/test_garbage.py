"""A request leaves no reference cycles: all its memory is freed without Python's garbage collector.

A body of megabytes or a decoded image is freed when the request ends. The collector, which stops all requests while it
runs, is rarely needed.
"""

from __future__ import annotations

import base64
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from app.admission import AdmissionController
from app.errors import Overloaded
from app.main import create_app
from app.server.server import Server, run
from app.server.sockets import listen
from app.settings import Settings
from lookalike.encoders.fake import FakeEncoder
from tests.api.small_collection import photograph

_REPEATS = 6
_PHOTOGRAPH = photograph("space/rocket.jpg")
_FORM = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    + _PHOTOGRAPH
    + b"\r\n--x--\r\n"
)
_JSON, _JPEG, _MULTIPART = "application/json", "image/jpeg", "multipart/form-data; boundary=x"
_TEXT, _IMAGE = "/v1/search/text", "/v1/search/image"

REQUESTS = {
    "text": (_TEXT, _JSON, b'{"text": "a cat"}', 200),
    "filter": (_TEXT, _JSON, b'{"text": "a cat", "filter": {"must": [{"field": "caption", "equals": "a cat"}]}}', 200),
    "image": (_IMAGE, _JPEG, _PHOTOGRAPH, 200),
    "form": (_IMAGE, _MULTIPART, _FORM, 200),
    "base64": (_IMAGE, _JSON, b'{"image": "' + base64.b64encode(_PHOTOGRAPH) + b'"}', 200),
    "item": ("/v1/search/item", _JSON, b'{"id": "cup"}', 200),
    "no JSON": (_TEXT, _JSON, b'{"text": "a cat"', 400),
    "no text": (_TEXT, _JSON, b'{"text": 5}', 422),
    "no limit": (_TEXT, _JSON, b'{"text": "a cat", "limit": "many"}', 422),
    "no filter": (_TEXT, _JSON, b'{"text": "a cat", "filter": {"must": 3}}', 422),
    "no image": (_IMAGE, _JPEG, _PHOTOGRAPH[:5000], 422),
    "no end of a form": (_IMAGE, _MULTIPART, _FORM[:-20], 400),
    "no item": ("/v1/search/item", _JSON, b'{"id": "none"}', 404),
    "no such type": (_TEXT, "text/plain", b"a cat", 415),
    "no such path": ("/v1/nothing", _JSON, b"{}", 404),
    "too large": (_IMAGE, _JPEG, _PHOTOGRAPH * 30, 413),
}
"""Path, media type, body and status of the response."""


@pytest.fixture(scope="module")
def port(settings: Settings) -> Iterator[int]:
    """Return the port of a service in this process, without background tasks that create garbage."""
    with _served(settings.model_copy(update={"watch_seconds": 0.0})) as port:
        yield port


@contextmanager
def _served(settings: Settings) -> Iterator[int]:
    server, listener = Server(create_app(settings)), listen("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    thread = threading.Thread(target=run, args=(server, [listener]))
    thread.start()
    try:
        end = time.monotonic() + 60
        while _request(port, "/readyz", _JSON, b"", "GET") != 200:
            assert time.monotonic() < end
            time.sleep(0.02)
        yield port
    finally:
        server.stop()
        thread.join()


def _request(port: int, path: str, media_type: str, body: bytes, method: str = "POST", *, wait: bool = True) -> int:
    """Return the status, or 0 if the client does not wait for it; the client leaves no garbage."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {media_type}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        response = b""
        while wait and (piece := client.recv(65536)):
            response += piece
    return int(response[9:12] or 0)


def _garbage(port: int, *request: str | bytes, wait: bool = True) -> tuple[set[int], int]:
    """Return the statuses of a few equal requests, and the number of objects that the collector found afterwards."""
    statuses: set[int] = set()
    _request(port, *request, wait=wait)  # creates what is created once
    count = _garbage_of(lambda: statuses.add(_request(port, *request, wait=wait)))
    return statuses, count


def _garbage_of(action: Callable[[], object]) -> int:
    time.sleep(0.1)
    gc.collect()
    gc.disable()
    try:
        for _ in range(_REPEATS):
            action()
        time.sleep(0.3)  # the server closes the last connection
        return gc.collect()
    finally:
        gc.enable()


@pytest.mark.parametrize(("path", "media_type", "body", "status"), REQUESTS.values(), ids=list(REQUESTS))
def test_response_leaves_no_garbage(port: int, path: str, media_type: str, body: bytes, status: int) -> None:
    statuses, count = _garbage(port, path, media_type, body)
    assert statuses == {status}
    assert count < _REPEATS


def test_disconnected_client_leaves_no_garbage(port: int) -> None:
    statuses, count = _garbage(port, _IMAGE, _JPEG, _PHOTOGRAPH, wait=False)
    assert statuses == {0}
    assert count < _REPEATS


def test_disconnected_pipelining_client_leaves_no_garbage(port: int) -> None:
    def disconnect() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            head = b"POST /v1/search/image HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            client.sendall(b"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
            client.sendall(head + f"Content-Length: {len(_PHOTOGRAPH)}\r\n\r\n".encode() + _PHOTOGRAPH)

    disconnect()
    assert _garbage_of(disconnect) < _REPEATS


def test_internal_error_leaves_no_garbage(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the encoder failed")

    monkeypatch.setattr(FakeEncoder, "encode_texts", fail)
    statuses, count = _garbage(port, _TEXT, _JSON, b'{"text": "a dog"}')
    assert statuses == {500}
    assert count < _REPEATS


def test_rejected_query_leaves_no_garbage(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: AdmissionController) -> None:
        raise Overloaded("many are waiting", 3)

    monkeypatch.setattr(AdmissionController, "admit", full)
    statuses, count = _garbage(port, _IMAGE, _JPEG, _PHOTOGRAPH)
    assert statuses == {503}
    assert count < _REPEATS


@pytest.mark.parametrize(("update", "status"), [({"rate_limit": "1/hour"}, 429), ({"deadline": 0.0001}, 503)])
def test_limited_request_leaves_no_garbage(settings: Settings, update: dict[str, object], status: int) -> None:
    with _served(settings.model_copy(update={"watch_seconds": 0.0, **update})) as port:
        statuses, count = _garbage(port, _IMAGE, _JPEG, _PHOTOGRAPH)
    assert statuses == {status}
    assert count < _REPEATS

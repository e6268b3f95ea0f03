"""Faults that the service survives: hostile requests, floods, lack of memory or disk, damaged files."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.middleware.body_limit import BodyLimitMiddleware
from app.settings import Settings
from lookalike.collection import VECTORS, VERSIONS, current_version
from lookalike.encoders.fake import FakeEncoder
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import build_collection, photograph
from tests.api.test_serve import free_port, refused, response_to, serving

TEXT, IMAGE = "/v1/search/text", "/v1/search/image"
AS_JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": ' + b"[" * 200_000,
        b'{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"text": "a", "filter": ' + b'{"must": [' * 5_000 + b"]}" * 5_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=["never closed", "nested lists", "nested filters", "nested objects"],
)
def test_deeply_nested_json_is_rejected(client: TestClient, body: bytes) -> None:
    response = client.post(TEXT, content=body, headers=AS_JSON)
    assert response.status_code in (400, 422), response.text[:200]
    assert len(response.content) < 10_000
    assert client.post(TEXT, json={"text": "a cat"}).status_code == 200


def test_text_of_a_million_characters_is_rejected(client: TestClient) -> None:
    response = client.post(TEXT, json={"text": "a " * 500_000})
    assert (response.status_code, response.json()["code"]) == (422, "text_too_long")
    assert len(response.content) < 10_000


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "a", "filter": {"must": [' + b"1," * 400_000 + b"1]}}",
        b'{"text": "a", "filter": {"must": [' + b"1," * 90_000 + b"1]}}",
        b'{"text": "a", "filter": {"must": [' + b"{}," * 60_000 + b"{}]}}",
        b'{"text": "a", "filter": {"should": [{"field": "a", "in": [' + b"{}," * 60_000 + b"1]}]}}",
        b'{"text": "a"' + b"".join(b', "k%d": 1' % number for number in range(100_000)) + b"}",
    ],
    ids=["numbers", "fewer numbers", "empty filters", "wrong values", "unknown keys"],
)
def test_json_of_many_values_is_rejected_with_short_message(client: TestClient, body: bytes) -> None:
    response = client.post(TEXT, content=body, headers=AS_JSON)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert len(response.content) < 10_000


def test_total_size_of_concurrent_bodies_is_limited(collection: Path) -> None:
    with TestClient(create_app(Settings(collection=collection, max_body_bytes=10_000))) as own:
        wait_until_ready(own)
        limit = next(
            layer
            for layer in _layers(own.app.middleware_stack)
            if isinstance(layer, BodyLimitMiddleware)  # type: ignore[attr-defined]
        )
        limit.buffered_bytes = 8 * 10_000  # as if eight bodies of the maximum size were being received
        response = own.post(TEXT, json={"text": "a cat"})
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        assert limit.buffered_bytes == 8 * 10_000
        limit.buffered_bytes = 0
        assert own.post(TEXT, json={"text": "a cat"}).status_code == 200


def _layers(app: Any) -> Iterator[Any]:
    while app is not None:
        yield app
        app = getattr(app, "app", None)


@dataclass
class Service:
    """A running `lookalike serve` that several tests share."""

    process: subprocess.Popen[str]
    client: httpx.Client

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.client.base_url.port or 0), timeout=30)


@pytest.fixture(scope="module")
def shared(collection: Path) -> Iterator[Service]:
    with serving(collection, LOOKALIKE_MAX_BODY_BYTES="1000000") as (process, client):
        yield Service(process, client)


@pytest.fixture
def service(shared: Service) -> Iterator[Service]:
    """The shared service, which must still respond after the test."""
    yield shared
    assert shared.process.poll() is None
    assert shared.client.get("/livez").status_code == 200


def test_long_head_is_refused(service: Service) -> None:
    with service.connect() as long:
        long.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"a" * 70_000)
        assert long.recv(100).startswith(b"HTTP/1.1 400 ")
    with service.connect() as endless, pytest.raises(ConnectionError):
        endless.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"a" * 50_000_000)


@pytest.mark.parametrize("hosts", ["", "Host: a\r\nHost: b\r\n"], ids=["none", "two"])
def test_request_needs_exactly_one_host(service: Service, hosts: str) -> None:
    for path, status in (("/livez", b"400"), ("/v1/search/text", b"400")):
        with service.connect() as own:
            own.sendall(f"POST {path} HTTP/1.1\r\n{hosts}Content-Length: 2\r\n\r\n{{}}".encode())
            assert own.recv(1000).split()[1] == status
            while own.recv(1000):
                pass
    with service.connect() as old:
        old.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert old.recv(1000).split()[1] == b"200"


def test_truncated_form_is_reported(client: TestClient) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\npixels'
    for body in (form, form + b"\r\n--b", b"--b\r\n"):
        response = client.post(
            "/v1/search/image", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
        assert (response.status_code, response.json()["code"]) == (400, "form_invalid"), response.text
        assert "ends before its last boundary" in response.json()["detail"]


def test_trailers_take_no_memory(service: Service) -> None:
    begun = b"POST /v1/search/text HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    whole = b'{"text": "a cat"}'

    def sent(trailers: bytes, *more: bytes) -> bytes:
        with service.connect() as peer:
            peer.sendall(begun + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(whole), whole))
            with suppress(ConnectionError):
                for piece in (trailers, *more):
                    peer.sendall(piece)
                return peer.recv(100_000)
        return b""

    assert sent(b"X-Sum: 1\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    before = memory_of(service.process.pid)
    for flood in (b"a:\r\n" * 20_000, b"a" * 80_000):  # many, and one without end
        assert sent(b"a: ", *[flood] * 500) == b""
    assert memory_of(service.process.pid) < before + 20e6


def memory_of(process: int) -> float:
    """Bytes that no other process shares."""
    status = Path(f"/proc/{process}/status").read_text()
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) * 1024


def test_body_after_its_response_is_cut_off(service: Service) -> None:
    head = b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\n"
    with service.connect() as drip, suppress(ConnectionError):
        drip.sendall(head + b"x")
        response = response_to(drip)
        assert response.startswith(b"HTTP/1.1 404 ")
        assert b"\r\nconnection: close\r\n" in response.lower()
        since = time.monotonic()
        while time.monotonic() < since + 20:
            drip.sendall(b"x")
            time.sleep(1)
    assert time.monotonic() < since + 20
    with service.connect() as late:  # the connection is closed, and not reset
        late.sendall(head + b"x")
        assert response_to(late).startswith(b"HTTP/1.1 404 ")
        late.sendall(b"x" * 29)
        assert late.recv(1) == b""
    with service.connect() as prompt:  # its connection is kept
        for _ in range(2):
            prompt.sendall(head + b"x" * 30)
            assert response_to(prompt).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_early_response_is_readable_before_close(service: Service, version: str) -> None:
    head = f"POST /v1/search/image HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n"
    with service.connect() as upload:
        upload.sendall(f"{head}Content-Length: 1500000\r\n\r\n".encode())
        for _ in range(15):  # like a proxy that sends everything before it reads the response
            upload.sendall(b"x" * 100_000)
            time.sleep(0.02)
        response = b""
        while piece := upload.recv(65536):
            response += piece
    assert response.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in response.lower()
    assert response.endswith(b"}")
    with service.connect() as endless:
        endless.sendall(f"{head}Content-Length: 1500000\r\n\r\n".encode())
        assert response_to(endless).startswith(b"HTTP/1.1 413 ")
        with pytest.raises(ConnectionError):
            drip(endless)


def drip(peer: socket.socket) -> None:
    """Send slowly for 20 seconds."""
    for _ in range(100):
        peer.sendall(b"x" * 1000)
        time.sleep(0.2)


@pytest.fixture
def files() -> Iterator[None]:
    """Raise the limit of open files for a thousand sockets at both ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"needs 4,096 open files; the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("files")
def test_thousand_idle_connections_block_no_query(service: Service) -> None:
    with ExitStack() as idle:
        for number in range(1000):
            opened = idle.enter_context(service.connect())
            if number % 2:
                opened.sendall(b"POST /v1/search/image HTTP/1.1\r\nHost: x\r\nContent-Le")  # and no more
        for _ in range(5):
            assert service.client.post(TEXT, json={"text": "a cat"}).status_code == 200


def test_batch_beyond_memory_is_retried_one_by_one(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = FakeEncoder.encode_images, []
    busy = threading.Event()

    def small_memory(self: FakeEncoder, batch: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 1:
            raise MemoryError
        busy.wait(0.05)
        return real(self, batch)

    monkeypatch.setattr(FakeEncoder, "encode_images", small_memory)
    statuses: list[int] = []
    with TestClient(create_app(Settings(collection=collection))) as own:
        wait_until_ready(own)
        image = photograph("cup")
        threads = [
            threading.Thread(target=lambda: statuses.append(own.post(IMAGE, files={"file": image}).status_code))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [200] * 8
    assert max(sizes) > 1  # at least one batch failed


def test_uploads_need_no_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", full)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    large = photograph("cup") + b"\0" * 1_500_000  # more than a form keeps in memory by default
    response = client.post(IMAGE, files={"file": ("a.png", large)})
    assert (response.status_code, response.json()["results"][0]["id"]) == (200, "cup")


def test_truncated_file_stops_service_and_is_rejected_at_start(tmp_path: Path) -> None:
    root = build_collection(tmp_path / "gallery")
    vectors = root / VERSIONS / current_version(root) / VECTORS
    with serving(root, LOOKALIKE_PROBE_SECONDS="0.1") as (process, _):
        os.truncate(vectors, 0)  # not done by Lookalike itself, as published files never change
        _, err = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGBUS
        assert "Bus error" in err
    assert "[checksum_mismatch]" in refused("serve", root, "--port", str(free_port()))

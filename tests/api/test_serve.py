"""`lookalike serve` and `lookalike search` as a user runs them: a process, a port, signals, exit statuses."""

from __future__ import annotations

import gc
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest

from cli import serve
from lookalike.bootstrap import load_encoder
from tests.api.small_collection import build_collection, photograph
from tests.api.waiting import eventually


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "cli.main", *map(str, arguments)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(collection: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A running, ready `lookalike serve` and a client for it; killed at the end if it still runs."""
    port = free_port()
    process = subprocess.Popen(
        command("serve", collection, "--port", str(port)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until_ready(process, client)
            yield process, client
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until_ready(process: subprocess.Popen[str], client: httpx.Client) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.1)
    raise AssertionError("the service was not ready in time")


def test_health_port_answers_health_paths_only(collection: Path) -> None:
    port = free_port()
    environment = {
        "LOOKALIKE_HEALTH_PORT": str(port),
        "LOOKALIKE_MAX_CONNECTIONS": "3",
        "LOOKALIKE_DRAIN_SECONDS": "60",
    }
    with serving(collection, **environment) as (process, client):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as health:
            for path in ("/livez", "/readyz", "/metrics"):
                assert health.get(path).status_code == client.get(path).status_code == 200
            refused = health.post("/v1/search/text", json={"text": "a cat"})
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
            assert health.get("/").status_code == 404
        assert client.post("/v1/search/text", json={"text": "a cat"}).status_code == 200
        process.terminate()
        eventually(lambda: client.get("/readyz").status_code == 503)
        process.terminate()  # a second signal ends the draining
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "setting_deprecated name=LOOKALIKE_MAX_CONNECTIONS" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_service_with_status_0(collection: Path, number: signal.Signals) -> None:
    with serving(collection) as (process, client):
        text = client.post("/v1/search/text", json={"text": "a cat", "limit": 2})
        image = client.post("/v1/search/image", files={"file": photograph("left.png")})
        pair = client.post("/v1/similarity", json={"a": {"id": "left.png"}, "b": {"id": "right.png"}})
        assert [response.status_code for response in (text, image, pair)] == [200, 200, 200]
        assert image.json()["results"][0]["id"] == "left.png"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert f"{client.base_url}".rstrip("/") in out
    assert "Traceback" not in err


def test_second_ctrl_c_cancels_requests_without_traceback(collection: Path) -> None:
    with serving(collection) as (process, client):
        upload = socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=30)
        upload.sendall(b"POST /v1/search/image HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n")
        upload.sendall(b"Content-Length: 1000\r\n\r\nx")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=30)[1]
        upload.close()
    assert process.returncode == 0, err
    assert "Traceback" not in err


def test_shutdown_answers_unfinished_upload_with_503(collection: Path) -> None:
    with serving(collection, LOOKALIKE_SHUTDOWN_SECONDS="1", LOOKALIKE_DRAIN_SECONDS="0") as (process, client):
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=30) as upload:
            upload.sendall(b"POST /v1/search/image HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n")
            upload.sendall(b"Content-Length: 1000\r\n\r\nx")
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            response = response_to(upload)
        assert response.startswith(b"HTTP/1.1 503 ")
        assert b"shutting down" in response
        err = process.communicate(timeout=30)[1]
    assert process.returncode == 0, err
    assert "Traceback" not in err


def response_to(peer: socket.socket) -> bytes:
    """Return a whole response with a JSON object; it may arrive in parts."""
    received = b""
    while not received.endswith(b"}"):
        piece = peer.recv(10_000)
        assert piece, received
        received += piece
    return received


def test_endless_body_is_cut_off_and_takes_no_memory(collection: Path) -> None:
    with serving(collection, LOOKALIKE_MAX_BODY_BYTES="2000000") as (process, client):
        before = resident_bytes(process.pid)
        for declared in (True, False):
            assert send_endlessly(client.base_url.port or 0, declared) == 413
        assert client.post("/v1/search/text", json={"text": "a cat"}).status_code == 200
        assert resident_bytes(process.pid) - before < 50_000_000


def send_endlessly(port: int, declared: bool) -> int:
    """Send up to a gigabyte, with or without declaring it; return the status of the response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("POST", "/v1/search/image")
    connection.putheader("Content-Type", "image/png")
    connection.putheader(*("Content-Length", "1000000000") if declared else ("Transfer-Encoding", "chunked"))
    connection.endheaders()
    block = b"\0" * 100_000
    try:
        for _ in range(10_000):
            connection.send(block if declared else b"%x\r\n%s\r\n" % (len(block), block))
    except OSError:
        pass  # the service hung up, as it should
    status = connection.getresponse().status
    connection.close()
    return status


def resident_bytes(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def test_slow_body_is_refused_in_time(collection: Path) -> None:
    with serving(collection, LOOKALIKE_BODY_TIMEOUT="0.5") as (_, client):
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=30) as dripping:
            dripping.sendall(b"POST /v1/search/image HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n")
            dripping.sendall(b"Content-Length: 100000\r\n\r\n")
            for _ in range(8):
                dripping.sendall(b"x")
                time.sleep(0.1)
            response = response_to(dripping)
        assert response.startswith(b"HTTP/1.1 408 ")
        assert b"body_too_slow" in response
        assert client.post("/v1/search/text", json={"text": "a cat"}).status_code == 200


def test_sigterm_fails_readiness_first(collection: Path) -> None:
    with serving(collection, LOOKALIKE_DRAIN_SECONDS="1.5") as (process, client):
        process.terminate()
        eventually(lambda: client.get("/readyz").status_code == 503, 1.0)
        assert client.get("/readyz").json()["detail"] == "the service is shutting down"
        assert client.post("/v1/search/text", json={"text": "a cat"}).status_code == 200
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator and /proc")
def test_large_buffers_return_to_the_system() -> None:
    work = """
import re, sys
from pathlib import Path
from app.server.process import return_freed_memory

def own():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024

if sys.argv[1] == "returned":
    return_freed_memory()
bytearray(24 << 20)  # from its end glibc learns, left to itself, to keep what comes after
before, kept = own(), []
for _ in range(20):
    large = [bytearray(b"x") * (4 << 20) for _ in range(8)]
    kept.append(bytes(200_000))  # lies behind them, and holds them
    del large
print(own() - before)
"""
    grown = {
        how: int(subprocess.run([sys.executable, "-c", work, how], capture_output=True, text=True, check=True).stdout)
        for how in ("returned", "default")
    }
    assert grown["returned"] <= 8 < grown["default"], grown  # MB, of which 4 are kept


def test_ready_service_exempts_libraries_from_gc(capsys: pytest.CaptureFixture[str]) -> None:
    names = SimpleNamespace(name="as indexed", encoder=SimpleNamespace(name="fake"))
    collection = MagicMock(manifest=names, __len__=lambda _: 3)
    queries: Any = SimpleNamespace(name="gallery", searcher=SimpleNamespace(collection=collection))
    usual = gc.get_threshold()
    try:
        serve._announce(queries, 0, "127.0.0.1", 8000)
        assert len(gc.get_objects()) < gc.get_freeze_count() / 10
        assert gc.get_threshold()[0] >= 50 * usual[0]  # and seldom looks at what came later
    finally:
        gc.unfreeze()
        gc.set_threshold(*usual)
    assert "Serving gallery (3 images, encoder fake)" in capsys.readouterr().out


def test_public_address_requires_keys(collection: Path) -> None:
    line = refused("serve", collection, "--host", "0.0.0.0", "--port", str(free_port()))
    assert "lookalike key" in line
    assert "LOOKALIKE_ANONYMOUS" in line


def test_disconnected_uploads_leave_no_traceback(collection: Path) -> None:
    with serving(collection) as (process, client):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as leaving:
                leaving.sendall(b"POST /v1/search/image HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n")
                leaving.sendall(b"Content-Length: 100000\r\n\r\n\x89PNG")
        assert client.post("/v1/search/text", json={"text": "a cat"}).status_code == 200
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in err


def refused(*arguments: str | Path) -> str:
    """Runs a command that must fail with one line, and returns that line."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_port_in_use_is_reported_in_one_line(collection: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refused("serve", collection, "--port", str(taken.getsockname()[1]))
    assert "--port" in line
    assert "in use" in line


def test_invalid_setting_is_reported_in_one_line(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_MAX_PIXELS", "many")
    line = refused("serve", collection)
    assert "LOOKALIKE_MAX_PIXELS is 'many'" in line


def test_missing_collection_is_reported_in_one_line(tmp_path: Path) -> None:
    for name, rest in (("serve", ()), ("search", ("--text", "x"))):
        line = refused(name, tmp_path / "nowhere", *rest)
        assert "lookalike index" in line
        assert "[collection_not_found]" in line


def test_other_encoder_is_refused_with_both_names(tmp_path: Path) -> None:
    other = replace(load_encoder("fake").spec, name="open_clip:ViT-B-32/mine", weights="f" * 64)
    collection = build_collection(tmp_path / "theirs", made_by=other)
    line = refused("serve", collection, "--encoder", "fake", "--port", str(free_port()))
    assert "'fake'" in line
    assert "'open_clip:ViT-B-32/mine'" in line
    assert "[encoder_mismatch]" in line


def test_search_command_prints_results(collection: Path, tmp_path: Path) -> None:
    image = tmp_path / "left.png"
    image.write_bytes(photograph("left.png"))
    for query in (("--text", "a cat"), ("--image", str(image))):
        run = subprocess.run(
            command("search", collection, *query, "--limit", "3", "--json"),
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        response = json.loads(run.stdout)
        assert len(response["results"]) == 3
        assert {"took_ms", "truncated_tokens", "collection", "version", "encoder"} < set(response)
    assert response["results"][0]["id"] == "left.png"
    table = subprocess.run(
        command("search", collection, "--image", image, "--limit", "2"),
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert table[0].split() == ["1", "1.0000", "left.png", "a", "motorcycle"]
    assert len(table) == 3


def test_search_command_shows_chosen_fields(collection: Path) -> None:
    query = ("search", collection, "--text", "red " * 40, "--limit", "1")
    run = subprocess.run(
        command(*query, "--json", "--fields", "width, height"), capture_output=True, text=True, timeout=120, check=True
    )
    response = json.loads(run.stdout)
    assert response["results"][0]["metadata"].keys() == {"width", "height"}
    assert response["truncated_tokens"] == 8
    assert "note: the encoder did not read the last 8 tokens of the text" in run.stderr
    assert "did you mean 'width'" in refused(*query, "--fields", "widht")


def test_search_command_reports_errors_in_one_line(collection: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    assert "[image_unsupported]" in refused("search", collection, "--image", broken)
    assert "[source_not_found]" in refused("search", collection, "--image", tmp_path / "absent.jpg")
    assert "[text_empty]" in refused("search", collection, "--text", "  ")
    assert "[invalid_limit]" in refused("search", collection, "--text", "x", "--limit", "5000")


_SLOW_OPENING = """
import time
from lookalike import bootstrap
real, opened = bootstrap.open_searcher, []

def slow(*args, **options):
    opened.append(None)
    if len(opened) > 1:
        time.sleep(120)
    return real(*args, **options)

bootstrap.open_searcher = slow
from cli.main import app
app()
"""


def test_sigterm_ends_process_despite_busy_thread(tmp_path: Path) -> None:
    root, port = build_collection(tmp_path / "gallery"), free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW_OPENING, "serve", str(root), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LOOKALIKE_DRAIN_SECONDS": "0.1", "LOOKALIKE_SHUTDOWN_SECONDS": "1"},
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until_ready(process, client)
            with pytest.raises(httpx.TimeoutException):
                client.post(f"/v1/collections/{root.name}/reload", timeout=0.5)
        process.terminate()
        process.communicate(timeout=60)  # half of what the thread would take
    finally:
        process.kill()
        process.communicate()

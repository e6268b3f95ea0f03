"""A real nginx by `deploy/nginx.conf`, with TLS, in front of two replicas."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.commands import free_port, serving

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy/nginx.conf"
NAME = "images.example.com"
SETTINGS = {"LOOKALIKE_PROXIES": "127.0.0.1", "LOOKALIKE_HOSTS": NAME}

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None or shutil.which("openssl") is None,
    reason="nginx or openssl is not installed (Debian: apt-get install nginx-light openssl)",
)


@contextmanager
def _nginx(replicas: list[int], folder: Path) -> Iterator[httpx.Client]:
    """A client of an nginx in front of replicas on two ports; what it writes stays in the folder, whose owner it is."""
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "privkey.pem"]
    made = ["openssl", "req", "-x509", "-days", "2", *subject, *key, "-out", "fullchain.pem"]
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
    port, text = free_port(), CONFIGURATION.read_text()
    for asked, given in [(8443, port), (8000, replicas[0]), (8010, replicas[1])]:
        assert f"{asked}" in text
        text = text.replace(f":{asked} ", f":{given} ").replace(f"listen {asked} ", f"listen 127.0.0.1:{given} ")
    own = "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(text.replace("access_log off;", f"access_log off; {own}"))
    log = (folder / "log").open("w")
    nginx = subprocess.Popen(
        ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off; user root;"], stderr=log
    )
    trusted = ssl.create_default_context(cafile=folder / "fullchain.pem")
    try:
        with log, httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted, timeout=60) as client:
            client.headers["Host"] = NAME
            while not _listens(client):
                assert nginx.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            yield client
    finally:
        nginx.terminate()
        nginx.wait(timeout=30)


def _listens(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def test_what_passes_and_what_does_not(sample_collection: Path, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    settings = SETTINGS | {"LOOKALIKE_RATE_LIMIT": "5/hour", "LOOKALIKE_MAX_BODY_BYTES": "33000000"}
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(serving(sample_collection, port, **settings))
        client = stack.enter_context(_nginx(ports, tmp_path))
        assert [client.get(path).status_code for path in ("/", "/docs", "/metrics", "/readyz")] == [200, 200, 404, 404]
        assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 403
        large = client.post("/v1/search/image", content=b"x" * 33_500_000, headers={"Content-Type": "image/jpeg"})
        assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
        statuses = [
            client.post("/v1/search/text", json={"text": "a cat"}, headers={"X-Forwarded-For": f"8.8.8.{i}"})
            for i in range(11)  # each replica lets five pass, whoever the client says it is
        ]
        assert [answer.status_code for answer in statuses].count(200) <= 10
        assert statuses[-1].status_code == 429
        assert int(statuses[-1].headers["Retry-After"]) > 0


def test_replicas_are_replaced_one_by_one_and_no_query_fails(sample_collection: Path, tmp_path: Path) -> None:
    ports, stop, statuses = [free_port(), free_port()], threading.Event(), Counter[int | str]()
    with ExitStack() as stack:
        replicas = [stack.enter_context(ExitStack()) for _ in ports]
        addresses = [
            replica.enter_context(serving(sample_collection, port, **SETTINGS))
            for replica, port in zip(replicas, ports, strict=True)
        ]
        client = stack.enter_context(_nginx(ports, tmp_path))

        def ask() -> None:
            while not stop.is_set():
                try:
                    statuses[client.post("/v1/search/text", json={"text": "a cat"}).status_code] += 1
                except httpx.TransportError as error:
                    statuses[repr(error)] += 1

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
        try:
            time.sleep(1)
            for replica, port in zip(replicas, ports, strict=True):
                replica.close()
                replica.enter_context(serving(sample_collection, port, **SETTINGS))
                time.sleep(1)
        finally:
            stop.set()
            for thread in asking:
                thread.join()
        for address in addresses:  # both took part again
            assert 'route="/v1/search/text",status="200"' in httpx.get(f"{address}/metrics").text
    assert list(statuses) == [200], statuses
    assert statuses[200] > 100

"""A real nginx by the configurations in `deploy/`: slow clients, floods, its own errors, replicas that are replaced."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from benchmarks.nginx import compose_proxy, nginx
from lookalike.collection import current_version
from tests.api.small_collection import build_collection
from tests.e2e.commands import free_port, serving, start_service, wait_until_ready

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NAME = "images.example.com"
TEXT, IMAGE = "/v1/search/text", "/v1/search/image"
H2C = b"Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None or shutil.which("openssl") is None,
    reason="nginx or openssl is not installed (Debian: apt-get install nginx-light openssl)",
)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine photographs, indexed by the fake encoder."""
    return build_collection(tmp_path_factory.mktemp("nginx") / "photographs")


@pytest.fixture(scope="module")
def ports(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Of a service, and of the proxy in front of it."""
    own = free_port()
    settings = {
        "LOOKALIKE_PROXIES": "127.0.0.1",
        "LOOKALIKE_MAX_BODY_BYTES": "2000000",
        "LOOKALIKE_RATE_LIMIT": "20/hour",
    }
    with serving(collection, own, **settings), compose_proxy(tmp_path_factory.mktemp("proxy"), own) as proxy:
        yield {"service": own, "proxy": proxy}


@pytest.fixture
def client(ports: dict[str, int]) -> Iterator[httpx.Client]:
    """Of the proxy."""
    with httpx.Client(base_url=f"http://127.0.0.1:{ports['proxy']}", timeout=60) as opened:
        yield opened


@pytest.fixture(scope="module")
def lonely_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Ports of a proxy and of its service, which does not run."""
    upstream = free_port()
    with compose_proxy(tmp_path_factory.mktemp("lonely"), upstream) as port:
        yield port, upstream


def connect(port: int, source: str = "127.0.0.1", receive_buffer: int | None = None) -> socket.socket:
    opened = socket.socket()
    if receive_buffer:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    opened.settimeout(60)
    opened.bind((source, 0))
    opened.connect(("127.0.0.1", port))
    return opened


def received(peer: socket.socket) -> bytes:
    """All that arrives until the connection is closed or reset."""
    data = b""
    with suppress(ConnectionError):
        while piece := peer.recv(65536):
            data += piece
    return data


def assert_problem(status: int, headers: httpx.Headers, body: bytes, expected: int, code: str, instance: str) -> None:
    """A problem document with the service's keys."""
    problem = json.loads(body)
    assert (status, headers["content-type"]) == (expected, "application/problem+json")
    assert set(problem) == {"type", "title", "status", "detail", "instance", "code"}
    assert (problem["type"], problem["status"]) == (f"urn:lookalike:error:{code}", expected)
    assert (problem["code"], problem["instance"]) == (code, instance)
    assert ("retry-after" in headers) == (expected in (429, 502, 503, 504))
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("server", ["service", "proxy"])
def test_upgrade_keeps_the_body(ports: dict[str, int], server: str) -> None:
    body = b'{"text": "a cat"}'
    head = f"POST {TEXT} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n".encode()
    for pieces in ([head + H2C + b"\r\n" + body], [head + H2C + b"\r\n", body]):
        with connect(ports[server]) as peer:
            for piece in pieces:
                peer.sendall(piece)
                time.sleep(0.05)
            assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")
    if curl := shutil.which("curl"):
        command = [curl, "-s", "--http2", "--noproxy", "*", "-H", "Content-Type: application/json", "--data", body]
        address = f"http://127.0.0.1:{ports[server]}{TEXT}"
        done = subprocess.run([*command, address], capture_output=True, check=True, timeout=60)
        assert json.loads(done.stdout)["results"]


def by_httpx(port: int, path: str, body: bytes) -> tuple[int, bytes]:
    response = httpx.post(f"http://127.0.0.1:{port}{path}", content=body, headers={"Content-Type": "image/png"})
    return response.status_code, response.content


def by_http_client(port: int, path: str, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, body, {"Content-Type": "image/png", "Connection": "close"})
    response = connection.getresponse()
    return response.status, response.read()


def by_curl(port: int, path: str, body: bytes) -> tuple[int, bytes]:
    command = ["curl", "-s", "--noproxy", "*", "-w", "%{http_code}", "-H", "Content-Type: image/png"]
    address = f"http://127.0.0.1:{port}{path}"
    done = subprocess.run([*command, "--data-binary", "@-", address], input=body, capture_output=True, timeout=60)
    assert done.returncode == 0
    return int(done.stdout[-3:]), done.stdout[:-3]


@pytest.mark.parametrize("post", [by_httpx, by_http_client, by_curl])
@pytest.mark.parametrize("server", ["service", "proxy"])
def test_early_response_reaches_the_client(
    ports: dict[str, int], server: str, post: Callable[[int, str, bytes], tuple[int, bytes]]
) -> None:
    if post is by_curl and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    for path, size, expected, code in ((IMAGE, 6_000_000, 413, "body_too_large"), ("/no", 1_500_000, 404, "not_found")):
        status, body = post(ports[server], path, b"x" * size)
        assert (status, json.loads(body)["code"]) == (expected, code)


def test_service_problems_pass_unchanged(client: httpx.Client) -> None:
    large = client.post(IMAGE, content=b"x" * 3_000_000, headers={"Content-Type": "image/png"})
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    assert "LOOKALIKE_MAX_BODY_BYTES" in large.json()["detail"]
    for number in range(21):  # the service counts the address that nginx sends
        limited = client.post(TEXT, json={"text": "a cat"}, headers={"X-Forwarded-For": f"8.8.8.{number}"})
        if limited.status_code != 200:
            break
    assert (limited.status_code, limited.json()["code"]) == (429, "rate_limited")
    assert int(limited.headers["Retry-After"]) > 1
    assert [client.get(path).status_code for path in ("/", "/livez", "/readyz", "/metrics")] == [200] * 4


def test_client_sets_no_prefix(ports: dict[str, int], client: httpx.Client) -> None:
    headers = {"X-Forwarded-Prefix": "/elsewhere"}
    assert "servers" not in client.get("/openapi.json", headers=headers).json()
    direct = httpx.get(f"http://127.0.0.1:{ports['service']}/openapi.json", headers=headers)
    assert direct.json()["servers"] == [{"url": "/elsewhere"}]  # 127.0.0.1 is trusted here


def test_slow_clients_are_cut_off(ports: dict[str, int], client: httpx.Client) -> None:
    def lasts(*pieces: bytes, drips: bool = False) -> tuple[float, bytes]:
        """Seconds until nginx closes the connection, and what it sent."""
        begun = time.monotonic()
        with connect(ports["proxy"], receive_buffer=4096) as peer:
            for piece in pieces:
                peer.sendall(piece)
            with suppress(ConnectionError):
                while drips and time.monotonic() < begun + 30:
                    peer.sendall(b"x")
                    time.sleep(0.25)
            if not drips and pieces[0].startswith(b"GET"):
                time.sleep(13)  # reads nothing until then
            data = received(peer)
        return time.monotonic() - begun, data

    upload = f"POST {IMAGE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx".encode()
    read = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 900
    with ThreadPoolExecutor(3) as pool:
        head = pool.submit(lasts, b"GET /livez HTTP/1.1\r\nX: ", drips=True)
        body = pool.submit(lasts, upload)
        deaf = pool.submit(lasts, read)
        while not (head.done() and body.done() and deaf.done()):
            assert client.get("/livez", timeout=5).status_code == 200
            time.sleep(0.2)
    for slow in (head, body):
        assert 8 < slow.result()[0] < 25
        assert slow.result()[1] == b""
    assert deaf.result()[1].count(b"HTTP/1.1 200 OK") < 900


def test_flood_of_connections_blocks_its_address_only(ports: dict[str, int], client: httpx.Client) -> None:
    upload = f"POST {IMAGE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx".encode()
    with ExitStack() as stack:
        for _ in range(256):
            stack.enter_context(connect(ports["proxy"], "127.0.0.2")).sendall(upload)
        for _ in range(200):
            stack.enter_context(connect(ports["proxy"], "127.0.0.2"))  # idle
        time.sleep(0.5)
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), timeout=60) as same:
            refused = same.get(f"http://127.0.0.1:{ports['proxy']}/livez?a=1")
        assert_problem(refused.status_code, refused.headers, refused.content, 429, "rate_limited", "/livez")
        assert client.get("/livez").status_code == 200


def test_flood_of_requests_is_refused(lonely_proxy: tuple[int, int]) -> None:
    port, _ = lonely_proxy

    def ask(_: int) -> list[bytes]:
        with connect(port, "127.0.0.3") as peer:
            peer.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)  # then nginx closes the connection
            return re.findall(rb"HTTP/1.1 (\d+)", received(peer))

    with ThreadPoolExecutor(4) as pool:
        statuses = Counter(status for answers in pool.map(ask, range(10)) for status in answers)
    assert set(statuses) == {b"502", b"429"}
    assert statuses[b"502"] >= 500
    assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 502  # another address


def test_proxy_errors_are_problem_documents(lonely_proxy: tuple[int, int]) -> None:
    port, upstream = lonely_proxy
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        def check(response: httpx.Response, *expected: object) -> None:
            assert_problem(response.status_code, response.headers, response.content, *expected)  # type: ignore[arg-type]

        check(client.post(TEXT, json={"text": "a cat"}), 502, "not_ready", TEXT)
        check(client.get("/v1/items/a%22b%5Cc?q=1"), 502, "not_ready", "/v1/items/a%22b%5Cc")
        with connect(port) as peer:
            peer.sendall(b'GET /"quote HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
            assert json.loads(received(peer).partition(b"\r\n\r\n")[2])["instance"] == "/"
        for invalid in (b"GET /livez HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n"):
            with connect(port) as peer:
                peer.sendall(invalid)
                head, _, body = received(peer).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 400 ")
                assert json.loads(body)["code"] == "http_error"
        check(client.post(IMAGE, content=b"x" * 34_000_000), 413, "body_too_large", IMAGE)
        check(client.get("/a" * 10_000), 414, "http_error", "/")
        check(client.get("/livez", headers={"X": "a" * 20_000}), 431, "http_error", "/livez")
        check(client.request("TRACE", "/livez"), 405, "method_not_allowed", "/livez")
        check(client.get("/problem"), 404, "not_found", "/problem")
        with socket.socket() as full, ExitStack() as stack:  # accepts nothing more: connecting takes too long
            full.bind(("127.0.0.1", upstream))
            full.listen(0)
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", upstream))
            check(client.get("/livez"), 504, "deadline_exceeded", "/livez")


@contextmanager
def tls_proxy(folder: Path, replicas: list[int], more: dict[str, str] | None = None) -> Iterator[httpx.Client]:
    """A client of `deploy/nginx.conf` in front of replicas on two ports."""
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "privkey.pem"]
    command = ["openssl", "req", "-x509", "-days", "2", *subject, *key, "-out", "fullchain.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    port = free_port()
    changes = {
        "listen 8443": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8000": f"127.0.0.1:{replicas[0]}",
        "127.0.0.1:8010": f"127.0.0.1:{replicas[1]}",
        **(more or {}),
    }
    trusted = ssl.create_default_context()
    trusted.load_verify_locations(folder / "fullchain.pem")
    client = httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted, timeout=60, headers={"Host": NAME})
    with nginx("nginx.conf", folder, changes), client:
        yield client


def test_plain_http_on_the_tls_port_is_a_problem(tmp_path: Path) -> None:
    with tls_proxy(tmp_path, [free_port(), free_port()]) as client:
        response = httpx.get(f"http://127.0.0.1:{client.base_url.port}/livez")
        assert_problem(response.status_code, response.headers, response.content, 400, "http_error", "/livez")
        assert "https://" in response.json()["detail"]


@contextmanager
def slow_replica(paths: list[str]) -> Iterator[int]:
    """The port of a service that notes each path of a POST and responds after 0.8 s, or 4 s if it contains `stuck`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            time.sleep(4.0 if "stuck" in self.path else 0.8)
            with suppress(ConnectionError):
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("configuration", ["nginx.conf", "nginx-compose.conf"])
def test_reload_has_its_own_timeout_and_no_retry(configuration: str, tmp_path: Path) -> None:
    slow, stuck = "/v1/collections/slow/reload", "/v1/collections/stuck/reload"
    timeouts = {
        "proxy_read_timeout 30s": "proxy_read_timeout 300ms",
        "proxy_read_timeout 180s": "proxy_read_timeout 2s",
    }
    paths: list[str] = []
    with ExitStack() as stack:
        replicas = [stack.enter_context(slow_replica(paths)) for _ in range(2)]
        if configuration == "nginx.conf":
            client = stack.enter_context(tls_proxy(tmp_path, replicas, timeouts))
        else:
            port = stack.enter_context(compose_proxy(tmp_path, *replicas, more=timeouts))
            client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60))
        assert client.post(slow).status_code == 200
        response = client.post(stuck)
        assert_problem(response.status_code, response.headers, response.content, 504, "deadline_exceeded", stuck)
        assert paths == [slow, stuck]
        assert client.post(TEXT, json={"text": "a cat"}).status_code == 504
        assert paths[2:] == [TEXT, TEXT]


@dataclass(frozen=True)
class Outcome:
    """A response's status, or the failure of the connection, with the version that it names and its time."""

    status: int | str
    version: str
    time: float


def query(client: httpx.Client) -> Outcome:
    try:
        response = client.post(TEXT, json={"text": "a cat"})
    except httpx.TransportError as error:
        return Outcome(repr(error), "", time.monotonic())
    return Outcome(response.status_code, response.json().get("version", ""), time.monotonic())


@contextmanager
def continuous_queries(client: httpx.Client) -> Iterator[list[Outcome]]:
    """Four threads that send queries until the end of the block; all must have succeeded."""
    stop, outcomes = threading.Event(), list[Outcome]()

    def send() -> None:
        while not stop.is_set():
            outcomes.append(query(client))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1)
        yield outcomes
        time.sleep(1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert Counter(each.status for each in outcomes) == {200: len(outcomes)}
    assert len(outcomes) > 100


def took_part(address: str) -> bool:
    return f'route="{TEXT}",status="200"' in httpx.get(f"{address}/metrics").text


def test_replacing_replicas_fails_no_query(collection: Path, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    settings = {"LOOKALIKE_PROXIES": "127.0.0.1", "LOOKALIKE_HOSTS": NAME}
    with ExitStack() as stack:
        replicas = [stack.enter_context(ExitStack()) for _ in ports]
        addresses = [
            replica.enter_context(serving(collection, port, **settings))
            for replica, port in zip(replicas, ports, strict=True)
        ]
        client = stack.enter_context(tls_proxy(tmp_path, ports))
        assert [client.get(path).status_code for path in ("/", "/docs", "/metrics", "/readyz")] == [200, 200, 404, 404]
        assert client.get("/metrics").json()["code"] == "not_found"
        assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 403
        with continuous_queries(client):
            for replica, port in zip(replicas, ports, strict=True):
                replica.close()
                replica.enter_context(serving(collection, port, **settings))
                time.sleep(1)
        assert all(map(took_part, addresses))


class Replicas:
    """Two services over one collection, as docker-compose.yml runs them."""

    def __init__(self, collection: Path) -> None:
        self.collection = collection
        self.ports = [free_port(), free_port()]
        self.addresses = [f"http://127.0.0.1:{port}" for port in self.ports]
        self.processes = [self._start(port) for port in self.ports]
        for number in range(2):
            self.wait(number)

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        return start_service(self.collection, port, LOOKALIKE_PROXIES="127.0.0.1")

    def wait(self, number: int) -> None:
        wait_until_ready(self.processes[number], self.addresses[number])

    def replace(self, number: int, stop: signal.Signals) -> None:
        """End a replica by a signal, start another one in its place and wait until that is ready."""
        self.processes[number].send_signal(stop)
        self.processes[number].wait(timeout=30)
        time.sleep(0.5)  # nothing listens
        self.processes[number] = self._start(self.ports[number])
        self.wait(number)

    def end(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Two services over a collection of their own."""
    started = Replicas(build_collection(tmp_path_factory.mktemp("replicas") / "photographs"))
    try:
        yield started
    finally:
        started.end()


@pytest.fixture(scope="module")
def balanced(replicas: Replicas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of docker-compose.yml's proxy in front of both."""
    with (
        compose_proxy(tmp_path_factory.mktemp("balanced"), *replicas.ports) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield client


def test_rolling_restart_behind_compose_fails_no_query(replicas: Replicas, balanced: httpx.Client) -> None:
    with continuous_queries(balanced):
        for number in range(2):
            replicas.replace(number, signal.SIGTERM)
            time.sleep(1)
    assert all(map(took_part, replicas.addresses))


def test_killed_replica_fails_no_query(replicas: Replicas, balanced: httpx.Client) -> None:
    with continuous_queries(balanced):
        replicas.replace(0, signal.SIGKILL)
        time.sleep(1)
    assert took_part(replicas.addresses[0])


def test_new_version_reaches_both_replicas(replicas: Replicas, balanced: httpx.Client) -> None:
    with continuous_queries(balanced) as outcomes:
        before = query(balanced).version
        build_collection(replicas.collection.parent / "photographs")
        published, after = time.monotonic(), current_version(replicas.collection)
        time.sleep(6)
    assert {each.version for each in outcomes} == {before, after} != {before}
    last = max(each.time for each in outcomes if each.version == before)
    assert last - published < 5  # LOOKALIKE_WATCH_SECONDS is 2
    for address in replicas.addresses:
        assert httpx.get(f"{address}/readyz").json()["version"] == after

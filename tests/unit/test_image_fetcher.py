"""`ImageFetcher` connects to public and allowed addresses only, and limits redirects, bytes and time."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpcore
import pytest

from app.errors import Overloaded, UrlDisabled, UrlFailed, UrlRefused
from app.execution import image_fetcher
from app.execution.image_fetcher import AllowList, ImageFetcher, is_public
from lookalike.errors import ConfigInvalid
from tests.loopback_server import responds, serving

PUBLIC = "93.184.215.14"
PRIVATE = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
    "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1",
    "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::", "2001::1",
    "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "168.63.129.16", "::ffff:168.63.129.16", "192.88.99.1",
    "3fff::1", "192.0.0.192", "192.0.0.100", "::ffff:192.0.0.192", "64:ff9b::c000:c0", "2002:c000:c0::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_address_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_address_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


class RecordingBackend(httpcore.AsyncNetworkBackend):
    """Records the address and connects to a port on loopback instead; refuses the connection if the port is None."""

    def __init__(self, port: int | None = None) -> None:
        self.connected: list[tuple[str, int]] = []
        self._port = port
        self._real = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append((host, port))
        if self._port is None:
            raise httpcore.ConnectError("refused")
        return await self._real.connect_tcp("127.0.0.1", self._port, timeout)

    async def sleep(self, seconds: float) -> None:
        await self._real.sleep(seconds)


class FakeResolver:
    """A resolver that returns one list of addresses after another."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.queried: list[str] = []
        self._answers = list(answers)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.queried.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def fetcher(
    allowed: str = "",
    *,
    resolve: FakeResolver | None = None,
    backend: RecordingBackend | None = None,
    max_bytes: int = 1000,
    timeout: float = 5,
) -> ImageFetcher:
    return ImageFetcher(
        enabled=True, allowed=allowed, max_bytes=max_bytes, timeout=timeout, resolve=resolve, backend=backend
    )


async def test_fetching_is_disabled_by_default() -> None:
    with pytest.raises(UrlDisabled, match="LOOKALIKE_URLS=true"):
        await ImageFetcher(enabled=False, max_bytes=1, timeout=1).get("http://example.com/")


@pytest.mark.parametrize(
    "url",
    [
        "", "cat.jpg", "//example.com/cat.jpg", "file:///etc/passwd", "ftp://example.com/cat.jpg", "gopher://example.com/",
        "data:image/png;base64,iVBORw0", "unix:///var/run/docker.sock", "http://", "http:///cat.jpg", "http://:80/",
        "http://user:word@example.com/", "http://user@example.com/", "http://example.com:0/", "http://example.com:99999/",
        "http://exa mple.com/", "http://[::1", "http://example.com/" + "a" * 5000, "javascript:alert(1)", "\x00",
        "http://ex\nample.com/",
    ],
)  # fmt: skip
async def test_invalid_url_is_refused_without_dns_lookup(url: str) -> None:
    resolver, backend = FakeResolver([PUBLIC]), RecordingBackend()
    with pytest.raises(UrlRefused):
        await fetcher(resolve=resolver, backend=backend).get(url)
    assert (resolver.queried, backend.connected) == ([], [])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "0", "0.0.0.0",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[64:ff9b::7f00:1]",
        "localhost", "LOCALHOST", "localhost.", "169.254.169.254", "[fe80::1%25lo]", "\uff11\uff12\uff17.0.0.1",
    ],
)  # fmt: skip
async def test_loopback_is_refused_in_any_notation(host: str) -> None:
    backend = RecordingBackend()
    with pytest.raises((UrlRefused, UrlFailed)):
        await fetcher(backend=backend).get(f"http://{host}:80/cat.jpg")
    assert backend.connected == []


@pytest.mark.parametrize("address", PRIVATE)
async def test_host_with_private_address_is_refused(address: str) -> None:
    backend = RecordingBackend()
    for answers in ([address], [PUBLIC, address]):  # one private address is enough
        with pytest.raises(UrlRefused, match="LOOKALIKE_URLS_ALLOWED"):
            await fetcher(resolve=FakeResolver(answers), backend=backend).get("http://images.example/cat.jpg")
    assert backend.connected == []


async def test_connects_to_the_address_that_was_checked() -> None:
    with serving(responds(200, b"image")) as port:
        resolver, backend = FakeResolver([PUBLIC], ["127.0.0.1"]), RecordingBackend(port)
        assert await fetcher(resolve=resolver, backend=backend).get("http://rebinding.example/cat.jpg") == b"image"
    assert resolver.queried == ["rebinding.example"]
    assert backend.connected == [(PUBLIC, 80)]


async def test_host_is_checked_again_after_redirect() -> None:
    with serving(responds(302, Location="http://rebinding.example/again")) as port:
        resolver, backend = FakeResolver([PUBLIC], ["127.0.0.1"]), RecordingBackend(port)
        with pytest.raises(UrlRefused):
            await fetcher(resolve=resolver, backend=backend).get("http://rebinding.example/cat.jpg")
    assert backend.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd",
        "//127.0.0.1/x", "http://2130706433/", "ftp://example.com/", "http://user:word@images.example/", "http://[",
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_to_forbidden_url_is_refused(status: int, location: str) -> None:
    class TwoHosts(FakeResolver):
        async def __call__(self, host: str, port: int) -> Sequence[str]:
            return [PUBLIC] if host == "images.example" else [host if host != "2130706433" else "127.0.0.1"]

    with serving(responds(status, Location=location)) as port:
        backend = RecordingBackend(port)
        with pytest.raises(UrlRefused):
            await fetcher(resolve=TwoHosts([]), backend=backend).get("http://images.example/cat.jpg")
    assert backend.connected == [(PUBLIC, 80)]


async def test_redirects_are_followed_up_to_five() -> None:
    def respond(request: BaseHTTPRequestHandler) -> None:
        left = int(request.path.strip("/"))
        responds(302, Location=f"/{left - 1}")(request) if left else responds(200, b"image")(request)

    with serving(respond) as port:
        assert await fetcher("127.0.0.1").get(f"http://127.0.0.1:{port}/5") == b"image"
        with pytest.raises(UrlFailed, match="more than 5"):
            await fetcher("127.0.0.1").get(f"http://127.0.0.1:{port}/6")


@pytest.mark.parametrize(
    "allowed", ["127.0.0.1", "127.0.0.0/8", "localhost", "10.0.0.0/8, LOCALHOST.", "::1 127.0.0.0/8"]
)
async def test_allow_list_permits_private_addresses(allowed: str) -> None:
    with serving(responds(200, b"image")) as port:
        resolver = FakeResolver(["127.0.0.1"])
        assert await fetcher(allowed, resolve=resolver).get(f"http://localhost:{port}/cat.jpg") == b"image"


@pytest.mark.parametrize("host", ["bücher.internal", "xn--bcher-kva.internal", "BÜCHER.internal."])
async def test_allow_list_accepts_international_host_names(host: str) -> None:
    with serving(responds(200, b"image")) as port:
        for allowed in ("bücher.internal", "xn--bcher-kva.internal"):
            assert await fetcher(allowed, resolve=FakeResolver(["127.0.0.1"])).get(f"http://{host}:{port}/") == b"image"


async def test_allow_list_compares_whole_host_names() -> None:
    backend = RecordingBackend()
    for host in ("images.internal.evil.example", "evil-images.internal", "internal"):
        with pytest.raises(UrlRefused):
            await fetcher("images.internal", resolve=FakeResolver(["10.0.0.1"]), backend=backend).get(f"http://{host}/")
    assert backend.connected == []


@pytest.mark.parametrize(
    "text",
    ["10.0.0.0/33", "10.0.0.1/8", "http://images.internal", "::g", "*", "*.local", "999.1.1.1", "127.0.0.1-127.0.0.9"],
)
def test_invalid_allow_list_is_rejected(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="LOOKALIKE_URLS_ALLOWED"):
        AllowList.parse(text)


@pytest.mark.parametrize("declared", [True, False])
async def test_large_body_is_not_read_to_its_end(declared: bool) -> None:
    sent = []

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if declared:
            request.send_header("Content-Length", str(10**9))
        request.end_headers()
        try:
            for _ in range(10_000):
                request.wfile.write(b"x" * 100_000)
                sent.append(1)
        except OSError:
            pass  # the client closed the connection, as expected

    with serving(endless) as port, pytest.raises(UrlFailed, match="over the limit of 1,000 bytes"):
        await fetcher("127.0.0.1").get(f"http://127.0.0.1:{port}/")
    assert len(sent) < 1000


async def test_slow_server_times_out() -> None:
    stop = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while not stop.wait(0.02):
                request.wfile.write(b"x")
        except OSError:
            pass

    with serving(drip) as port:
        started = time.monotonic()
        with pytest.raises(UrlFailed, match=r"within 0\.3 s"):
            await fetcher("127.0.0.1", timeout=0.3).get(f"http://127.0.0.1:{port}/")
        assert time.monotonic() - started < 10
        stop.set()


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 500])
async def test_error_message_names_the_status(status: int) -> None:
    with serving(responds(status)) as port, pytest.raises(UrlFailed, match=str(status)):
        await fetcher("127.0.0.1").get(f"http://127.0.0.1:{port}/")


async def test_compressed_response_is_refused() -> None:
    with (
        serving(responds(200, b"x", Content_Encoding="gzip")) as port,
        pytest.raises(UrlFailed, match="compressed response"),
    ):
        await fetcher("127.0.0.1").get(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_server_of_another_protocol_is_an_error(scheme: str) -> None:
    def ssh(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")

    with serving(ssh) as port, pytest.raises(UrlFailed, match="can't be reached"):
        await fetcher("127.0.0.1").get(f"{scheme}://127.0.0.1:{port}/")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_invalid_certificate_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "openssl req -x509 -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out cert"
    options = ["-subj", "/CN=x", "-addext", "subjectAltName=DNS:images.internal"]
    subprocess.run([*command.split(), *options], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with serving(responds(200, b"image"), tls=context) as port:
        trusting = fetcher("127.0.0.0/8", resolve=FakeResolver(["127.0.0.1"]))
        with pytest.raises(UrlFailed, match="its issuer is not trusted"):
            await trusting.get(f"https://images.internal:{port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
        image_fetcher._tls_context.cache_clear()
        try:
            assert await trusting.get(f"https://images.internal:{port}/") == b"image"
            with pytest.raises(UrlFailed, match="certificate of the image server is invalid for this host"):
                await trusting.get(f"https://elsewhere.internal:{port}/")
        finally:
            image_fetcher._tls_context.cache_clear()


async def test_protocol_error_keeps_no_traceback() -> None:
    def malformed(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 99_000 + b"\r\n\x00\x00 no header\r\n\r\n")

    with serving(malformed) as port, pytest.raises(UrlFailed) as failed:
        await fetcher("127.0.0.1").get(f"http://127.0.0.1:{port}/")
    errors: list[BaseException | None] = [failed.value.__cause__]
    while errors:
        if error := errors.pop():
            assert error.__traceback__ is None  # its frames would hold the data that was read, and the error itself
            errors += [error.__cause__, error.__context__]


async def test_fetch_beyond_the_concurrency_limit_is_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_fetcher, "_MAX_CONCURRENT_FETCHES", 2)
    with serving(lambda _: time.sleep(0.6)) as port:
        limited = fetcher("127.0.0.1", timeout=0.3)
        fetches = (limited.get(f"http://127.0.0.1:{port}/{i}") for i in range(3))
        results = await asyncio.gather(*fetches, return_exceptions=True)
    assert [type(result) for result in results] == [UrlFailed, UrlFailed, Overloaded]


async def test_refused_connection_is_an_error() -> None:
    with pytest.raises(UrlFailed, match="can't be reached"):
        await fetcher(resolve=FakeResolver([PUBLIC]), backend=RecordingBackend()).get("https://images.example/")


async def test_next_address_is_tried_after_a_failure() -> None:
    backend = RecordingBackend()
    with pytest.raises(UrlFailed):
        await fetcher(resolve=FakeResolver([PUBLIC, "8.8.8.8"]), backend=backend).get("http://images.example/")
    assert backend.connected == [(PUBLIC, 80), ("8.8.8.8", 80)]


async def test_request_uses_no_proxy_and_sends_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[dict[str, str]] = []

    def record(request: BaseHTTPRequestHandler) -> None:
        requests.append({name.lower(): value for name, value in request.headers.items()})
        responds(200, b"image")(request)

    with serving(record) as port, serving(responds(500)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        assert await fetcher("127.0.0.1").get(f"http://127.0.0.1:{port}/") == b"image"
    assert set(requests[0]) == {"host", "accept", "accept-encoding", "user-agent"}
    assert requests[0]["accept"] == "image/*, application/octet-stream;q=0.5"
    assert requests[0]["host"] == f"127.0.0.1:{port}"

"""Images by URL: what is dialled, and everything that is not."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpcore
import pytest

from app.errors import Overloaded, UrlDisabled, UrlFailed, UrlRefused
from app.execution import image_fetcher
from app.execution.image_fetcher import AllowList, ImageFetcher, is_public
from lookalike.errors import ConfigInvalid

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
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


class Dial(httpcore.AsyncNetworkBackend):
    """Notes the address that is dialled and connects to loopback instead; None refuses to connect at all."""

    def __init__(self, port: int | None = None) -> None:
        self.dialled: list[tuple[str, int]] = []
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
        self.dialled.append((host, port))
        if self._port is None:
            raise httpcore.ConnectError("refused")
        return await self._real.connect_tcp("127.0.0.1", self._port, timeout)

    async def sleep(self, seconds: float) -> None:
        await self._real.sleep(seconds)


class Names:
    """A resolver that answers one list of addresses after another."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def get(fetcher: ImageFetcher, url: str) -> bytes:
    return asyncio.run(fetcher.get(url))


def fetcher(
    allowed: str = "",
    *,
    resolve: Names | None = None,
    dial: Dial | None = None,
    max_bytes: int = 1000,
    timeout: float = 5,
) -> ImageFetcher:
    return ImageFetcher(enabled=True, allowed=allowed, max_bytes=max_bytes, timeout=timeout, resolve=resolve, dial=dial)


@contextmanager
def web(answer: Callable[[BaseHTTPRequestHandler], None], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on loopback; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            """Keeps still."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def says(status: int, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def test_it_is_off_by_default() -> None:
    with pytest.raises(UrlDisabled, match="LOOKALIKE_URLS=true"):
        get(ImageFetcher(enabled=False, max_bytes=1, timeout=1), "http://example.com/")


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
def test_what_is_no_url_to_fetch_is_refused_without_asking_anyone(url: str) -> None:
    names, dial = Names([PUBLIC]), Dial()
    with pytest.raises(UrlRefused):
        get(fetcher(resolve=names, dial=dial), url)
    assert (names.asked, dial.dialled) == ([], [])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "0", "0.0.0.0",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[64:ff9b::7f00:1]",
        "localhost", "LOCALHOST", "localhost.", "169.254.169.254", "[fe80::1%25lo]", "\uff11\uff12\uff17.0.0.1",
    ],
)  # fmt: skip
def test_this_machine_by_any_name_is_refused(host: str) -> None:
    dial = Dial()
    with pytest.raises((UrlRefused, UrlFailed)):
        get(fetcher(dial=dial), f"http://{host}:80/cat.jpg")
    assert dial.dialled == []


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_of_an_address_that_is_not_public_is_refused(address: str) -> None:
    dial = Dial()
    for answers in ([address], [PUBLIC, address]):  # one bad address spoils all
        with pytest.raises(UrlRefused, match="LOOKALIKE_URLS_ALLOWED"):
            get(fetcher(resolve=Names(answers), dial=dial), "http://images.example/cat.jpg")
    assert dial.dialled == []


def test_a_name_that_moves_is_dialled_where_it_was_judged() -> None:
    with web(says(200, b"picture")) as port:
        names, dial = Names([PUBLIC], ["127.0.0.1"]), Dial(port)
        assert get(fetcher(resolve=names, dial=dial), "http://rebinding.example/cat.jpg") == b"picture"
    assert names.asked == ["rebinding.example"]
    assert dial.dialled == [(PUBLIC, 80)]


def test_a_name_that_has_moved_is_judged_again_after_a_redirect() -> None:
    with web(says(302, Location="http://rebinding.example/again")) as port:
        names, dial = Names([PUBLIC], ["127.0.0.1"]), Dial(port)
        with pytest.raises(UrlRefused):
            get(fetcher(resolve=names, dial=dial), "http://rebinding.example/cat.jpg")
    assert dial.dialled == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    "where",
    [
        "http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd",
        "//127.0.0.1/x", "http://2130706433/", "ftp://example.com/", "http://user:word@images.example/", "http://[",
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_where_nobody_may_go_is_refused(status: int, where: str) -> None:
    class Two(Names):
        async def __call__(self, host: str, port: int) -> Sequence[str]:
            return [PUBLIC] if host == "images.example" else [host if host != "2130706433" else "127.0.0.1"]

    with web(says(status, Location=where)) as port:
        dial = Dial(port)
        with pytest.raises(UrlRefused):
            get(fetcher(resolve=Two([]), dial=dial), "http://images.example/cat.jpg")
    assert dial.dialled == [(PUBLIC, 80)]


def test_redirects_are_followed_and_counted() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        left = int(request.path.strip("/"))
        says(302, Location=f"/{left - 1}")(request) if left else says(200, b"picture")(request)

    with web(answer) as port:
        assert get(fetcher("127.0.0.1"), f"http://127.0.0.1:{port}/5") == b"picture"
        with pytest.raises(UrlFailed, match="more than 5"):
            get(fetcher("127.0.0.1"), f"http://127.0.0.1:{port}/6")


@pytest.mark.parametrize(
    "allowed", ["127.0.0.1", "127.0.0.0/8", "localhost", "10.0.0.0/8, LOCALHOST.", "::1 127.0.0.0/8"]
)
def test_the_allow_list_lets_through(allowed: str) -> None:
    with web(says(200, b"picture")) as port:
        names = Names(["127.0.0.1"])
        assert get(fetcher(allowed, resolve=names), f"http://localhost:{port}/cat.jpg") == b"picture"


@pytest.mark.parametrize("host", ["bücher.internal", "xn--bcher-kva.internal", "BÜCHER.internal."])
def test_the_allow_list_takes_names_in_any_letters(host: str) -> None:
    with web(says(200, b"picture")) as port:
        for allowed in ("bücher.internal", "xn--bcher-kva.internal"):
            assert get(fetcher(allowed, resolve=Names(["127.0.0.1"])), f"http://{host}:{port}/") == b"picture"


def test_the_allow_list_takes_names_by_the_letter() -> None:
    dial = Dial()
    for host in ("images.internal.evil.example", "evil-images.internal", "internal"):
        with pytest.raises(UrlRefused):
            get(fetcher("images.internal", resolve=Names(["10.0.0.1"]), dial=dial), f"http://{host}/")
    assert dial.dialled == []


@pytest.mark.parametrize(
    "text",
    ["10.0.0.0/33", "10.0.0.1/8", "http://images.internal", "::g", "*", "*.local", "999.1.1.1", "127.0.0.1-127.0.0.9"],
)
def test_an_allow_list_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="LOOKALIKE_URLS_ALLOWED"):
        AllowList.parse(text)


@pytest.mark.parametrize("declared", [True, False])
def test_too_many_bytes_are_not_read(declared: bool) -> None:
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
            pass  # the reader hung up, as it should

    with web(endless) as port, pytest.raises(UrlFailed, match="over the limit of 1,000 bytes"):
        get(fetcher("127.0.0.1"), f"http://127.0.0.1:{port}/")
    assert len(sent) < 1000


def test_a_server_that_drips_is_left_in_time() -> None:
    stop = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while not stop.wait(0.02):
                request.wfile.write(b"x")
        except OSError:
            pass

    with web(drip) as port:
        begun = time.monotonic()
        with pytest.raises(UrlFailed, match=r"within 0\.3 s"):
            get(fetcher("127.0.0.1", timeout=0.3), f"http://127.0.0.1:{port}/")
        assert time.monotonic() - begun < 10
        stop.set()


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 500])
def test_no_image_is_an_error_that_says_the_status(status: int) -> None:
    with web(says(status)) as port, pytest.raises(UrlFailed, match=str(status)):
        get(fetcher("127.0.0.1"), f"http://127.0.0.1:{port}/")


def test_compression_that_was_not_asked_for_is_refused() -> None:
    with web(says(200, b"x", Content_Encoding="gzip")) as port, pytest.raises(UrlFailed, match="compresses"):
        get(fetcher("127.0.0.1"), f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_speaks_something_else(scheme: str) -> None:
    def ssh(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")

    with web(ssh) as port, pytest.raises(UrlFailed, match="can't be reached"):
        get(fetcher("127.0.0.1"), f"{scheme}://127.0.0.1:{port}/")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_certificate_that_nobody_trusts_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = "openssl req -x509 -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out cert"
    named = ["-subj", "/CN=x", "-addext", "subjectAltName=DNS:images.internal"]
    subprocess.run([*made.split(), *named], cwd=tmp_path, check=True, capture_output=True)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with web(says(200, b"picture"), tls=own) as port:
        here = fetcher("127.0.0.0/8", resolve=Names(["127.0.0.1"]))
        with pytest.raises(UrlFailed, match="signed by nobody trusted here"):
            get(here, f"https://images.internal:{port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
        image_fetcher._tls.cache_clear()
        try:
            assert get(here, f"https://images.internal:{port}/") == b"picture"
            with pytest.raises(UrlFailed, match="certificate of the image's server is not valid for it"):
                get(here, f"https://elsewhere.internal:{port}/")
        finally:
            image_fetcher._tls.cache_clear()


def test_a_server_that_speaks_nonsense_leaves_no_garbage() -> None:
    def nonsense(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 99_000 + b"\r\n\x00\x00 no header\r\n\r\n")

    with web(nonsense) as port, pytest.raises(UrlFailed) as failed:
        get(fetcher("127.0.0.1"), f"http://127.0.0.1:{port}/")
    links: list[BaseException | None] = [failed.value.__cause__]
    while links:
        if link := links.pop():
            assert link.__traceback__ is None  # whose frames hold what was read, and the error itself
            links += [link.__cause__, link.__context__]


def test_who_gets_no_turn_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_fetcher, "_AT_ONCE", 2)
    with web(lambda _: time.sleep(0.6)) as port:

        async def at_once() -> list[Any]:
            here = fetcher("127.0.0.1", timeout=0.3)
            asked = (here.get(f"http://127.0.0.1:{port}/{i}") for i in range(3))
            return await asyncio.gather(*asked, return_exceptions=True)

        assert [type(each) for each in asyncio.run(at_once())] == [UrlFailed, UrlFailed, Overloaded]


def test_nobody_listens() -> None:
    with pytest.raises(UrlFailed, match="can't be reached"):
        get(fetcher(resolve=Names([PUBLIC]), dial=Dial()), "https://images.example/")


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    dial = Dial()
    with pytest.raises(UrlFailed):
        get(fetcher(resolve=Names([PUBLIC, "8.8.8.8"]), dial=dial), "http://images.example/")
    assert dial.dialled == [(PUBLIC, 80), ("8.8.8.8", 80)]


def test_no_proxy_of_the_environment_and_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []

    def note(request: BaseHTTPRequestHandler) -> None:
        asked.append({name.lower(): value for name, value in request.headers.items()})
        says(200, b"picture")(request)

    with web(note) as port, web(says(500)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        assert get(fetcher("127.0.0.1"), f"http://127.0.0.1:{port}/") == b"picture"
    assert set(asked[0]) == {"host", "accept", "accept-encoding", "user-agent"}
    assert asked[0]["host"] == f"127.0.0.1:{port}"

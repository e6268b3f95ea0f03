"""DNS rebinding: a real name server on loopback returns a public address first and loopback afterwards."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat

import dns.asyncresolver
import dns.message
import dns.rrset
import httpcore
import pytest

from app.errors import UrlFailed, UrlRefused
from app.execution.image_fetcher import ImageFetcher, Resolve

PUBLIC, LOOPBACK = "93.184.215.14", "127.0.0.1"
NAME = "rebinding.example."


class NameServer(socketserver.ThreadingUDPServer):
    """Answers each query for an address with the next of `answers`, with a TTL of 0."""

    def __init__(self, answers: Iterable[str]) -> None:
        self.answers, self.queries = iter(answers), 0
        super().__init__((LOOPBACK, 0), _QueryHandler)


class _QueryHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server: NameServer = self.server  # type: ignore[assignment]
        data, reply_socket = self.request
        query = dns.message.from_wire(data)
        server.queries += 1
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text(query.question[0].name, 0, "IN", "A", next(server.answers)))
        reply_socket.sendto(response.to_wire(), self.client_address)


class PrivateServer(ThreadingHTTPServer):
    """A server on loopback that must not be reachable; counts its requests."""

    def __init__(self) -> None:
        self.requests = 0
        super().__init__((LOOPBACK, 0), _PrivateHandler)


class _PrivateHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests += 1  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"secret")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class RecordingBackend(httpcore.AsyncNetworkBackend):
    """Records addresses; connects to loopback and refuses other connections."""

    def __init__(self) -> None:
        self.connected: list[str] = []
        self._real = httpcore.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: object, **__: object
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append(host)
        if host != LOOPBACK:
            raise httpcore.ConnectError("not loopback")
        return await self._real.connect_tcp(host, port, timeout)

    async def sleep(self, seconds: float) -> None:
        await self._real.sleep(seconds)


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator[int]:
    """Serve in a thread; yield the port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]  # type: ignore[index]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def resolver_at(port: int) -> Resolve:
    """Return a resolver that queries the name server on a port and caches nothing."""

    async def resolve(host: str, _: int) -> Sequence[str]:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = [LOOPBACK], port
        return [str(address) for address in await resolver.resolve(host, "A")]

    return resolve


@pytest.mark.parametrize(
    ("answers", "rest"),
    [([PUBLIC], repeat(LOOPBACK)), ([LOOPBACK], repeat(PUBLIC)), ([], chain.from_iterable(repeat((PUBLIC, LOOPBACK))))],
)
async def test_rebinding_never_reaches_loopback(answers: list[str], rest: Iterable[str]) -> None:
    name_server, private, backend = NameServer(chain(answers, rest)), PrivateServer(), RecordingBackend()
    with running(name_server) as name_port, running(private) as port:
        fetcher = ImageFetcher(enabled=True, max_bytes=1000, timeout=5, resolve=resolver_at(name_port), backend=backend)
        for _ in range(8):
            with pytest.raises((UrlRefused, UrlFailed), match=r"not on the public internet|can't be reached"):
                await fetcher.get(f"http://{NAME[:-1]}:{port}/")
    assert name_server.queries == 8  # one lookup an image: the connection uses the address that was checked
    assert LOOPBACK not in backend.connected
    assert private.requests == 0


async def test_allow_list_permits_the_same_host() -> None:
    name_server, private = NameServer(repeat(LOOPBACK)), PrivateServer()
    with running(name_server) as name_port, running(private) as port:
        fetcher = ImageFetcher(
            enabled=True,
            allowed=NAME[:-1],
            max_bytes=1000,
            timeout=5,
            resolve=resolver_at(name_port),
            backend=RecordingBackend(),
        )
        assert await fetcher.get(f"http://{NAME[:-1]}:{port}/") == b"secret"
    assert private.requests == 1

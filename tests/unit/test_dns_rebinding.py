"""DNS rebinding for real: a name server on loopback whose host is public when it is judged and this machine after."""

from __future__ import annotations

import asyncio
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

PUBLIC, HERE = "93.184.215.14", "127.0.0.1"
NAME = "rebinding.example."


class NameServer(socketserver.ThreadingUDPServer):
    """Answers every question for an address with the next of `answers`, to be kept for no time at all."""

    def __init__(self, answers: Iterable[str]) -> None:
        self.answers, self.asked = iter(answers), 0
        super().__init__((HERE, 0), _Question)


class _Question(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server: NameServer = self.server  # type: ignore[assignment]
        data, answering = self.request
        asked = dns.message.from_wire(data)
        server.asked += 1
        answer = dns.message.make_response(asked)
        answer.answer.append(dns.rrset.from_text(asked.question[0].name, 0, "IN", "A", next(server.answers)))
        answering.sendto(answer.to_wire(), self.client_address)


class Secrets(ThreadingHTTPServer):
    """What nobody outside may see, on loopback."""

    def __init__(self) -> None:
        self.reached = 0
        super().__init__((HERE, 0), _Secret)


class _Secret(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.reached += 1  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"secret")

    def log_message(self, *_: object) -> None:
        """Keeps still."""


class Dial(httpcore.AsyncNetworkBackend):
    """Connects to this machine for real; whom it would have to leave it for does not answer."""

    def __init__(self) -> None:
        self.dialled: list[str] = []
        self._real = httpcore.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: object, **__: object
    ) -> httpcore.AsyncNetworkStream:
        self.dialled.append(host)
        if host != HERE:
            raise httpcore.ConnectError("no way out of this machine")
        return await self._real.connect_tcp(host, port, timeout)

    async def sleep(self, seconds: float) -> None:
        await self._real.sleep(seconds)


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator[int]:
    """Serves in a thread; yields the port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]  # type: ignore[index]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def through(port: int) -> Resolve:
    """A resolver that asks the name server on a port, and keeps nothing."""

    async def resolve(host: str, _: int) -> Sequence[str]:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = [HERE], port
        return [str(address) for address in await resolver.resolve(host, "A")]

    return resolve


@pytest.mark.parametrize(
    ("answers", "asked"),
    [([PUBLIC], repeat(HERE)), ([HERE], repeat(PUBLIC)), ([], chain.from_iterable(repeat((PUBLIC, HERE))))],
)
def test_no_order_of_answers_leads_to_this_machine(answers: list[str], asked: Iterable[str]) -> None:
    names, secrets, dial = NameServer(chain(answers, asked)), Secrets(), Dial()
    with running(names) as name_port, running(secrets) as port:
        fetcher = ImageFetcher(enabled=True, max_bytes=1000, timeout=5, resolve=through(name_port), dial=dial)
        for _ in range(8):
            with pytest.raises((UrlRefused, UrlFailed), match=r"not on the public internet|can't be reached"):
                asyncio.run(fetcher.get(f"http://{NAME[:-1]}:{port}/"))
    assert names.asked == 8  # once for an image: what was judged is what is dialled
    assert HERE not in dial.dialled
    assert secrets.reached == 0


def test_the_same_name_leads_here_where_the_allow_list_says_so() -> None:
    names, secrets = NameServer(repeat(HERE)), Secrets()
    with running(names) as name_port, running(secrets) as port:
        fetcher = ImageFetcher(
            enabled=True,
            allowed=NAME[:-1],
            max_bytes=1000,
            timeout=5,
            resolve=through(name_port),
            dial=Dial(),
        )
        assert asyncio.run(fetcher.get(f"http://{NAME[:-1]}:{port}/")) == b"secret"
    assert secrets.reached == 1

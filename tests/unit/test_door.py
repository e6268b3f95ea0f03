"""The door: who is refused before anything is read, what a deadline ends, and what a client's leaving drops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.admission import AdmissionControllers
from app.errors import Overloaded
from app.middleware.admission import AdmissionMiddleware
from app.telemetry import Telemetry

TEXT = "/v1/search/text"


class Client:
    """One request as ASGI has it: sends what it is given, then nothing until `leave`."""

    def __init__(self, path: str = TEXT, body: tuple[bytes, ...] = (b"{}",), method: str = "POST") -> None:
        self.scope: Scope = {"type": "http", "method": method, "path": path, "headers": [], "state": {}}
        self.sent: list[Message] = []
        self._parts = [
            {"type": "http.request", "body": part, "more_body": number < len(body)}
            for number, part in enumerate(body, start=1)
        ]
        self._gone = asyncio.Event()

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> Message:
        if self._parts:
            return self._parts.pop(0)
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


def application(work: Callable[[], Awaitable[Any]], status: int = 200) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await work()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


async def nothing() -> None:
    """Takes no time."""


def door(app: ASGIApp, max_wait: float = 1.0, deadline: float = 5.0) -> AdmissionMiddleware:
    return AdmissionMiddleware(app, AdmissionControllers(max_wait), deadline, Telemetry())


@pytest.mark.parametrize("path", ["/v1/items", "/v1/items/a/b.png", "/v1/collections/x/items/a/thumbnail"])
def test_items_that_would_wait_too_long_are_refused(path: str) -> None:
    async def main() -> None:
        tested = door(application(nothing))
        for refused in (False, True):
            client = Client(path, method="GET")
            await tested(client.scope, client.receive, client.send)
            assert client.status == (503 if refused else 200)
            assert tested.admission["read"].in_flight == refused
            assert client.scope["state"]["route"].endswith("/items")
            if not refused:
                full(tested.admission, "read")
        other = Client("/v1/collections", method="GET")
        await tested(other.scope, other.receive, other.send)
        assert other.status == 200

    run(main())


def full(gates: AdmissionControllers, kind: str) -> None:
    """Makes a gate believe that the next query would wait for long."""
    gate = gates[kind]
    gate._intervals.extend([10.0] * 64)  # as many as are needed to be sure
    gate.acquire()


def run(main: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(bounded())


@pytest.mark.parametrize(
    ("path", "kind", "route"),
    [
        (TEXT, "text", TEXT),
        ("/v1/search/image", "image", "/v1/search/image"),
        ("/v1/search/item", "item", "/v1/search/item"),
        ("/v1/similarity", "pair", "/v1/similarity"),
        ("/v1/collections/a b/search/text", "text", "/v1/collections/{name}/search/text"),
        ("/v1/collections/gallery/similarity", "pair", "/v1/collections/{name}/similarity"),
    ],
)
def test_a_query_that_would_wait_too_long_is_refused_before_it_is_read(path: str, kind: str, route: str) -> None:
    async def untouched(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the application was asked")

    async def main() -> None:
        tested, client = door(untouched), Client(path)
        full(tested.admission, kind)
        await tested(client.scope, client.receive, client.send)
        assert client.status == 503
        headers = dict(client.sent[0]["headers"])
        assert int(headers[b"retry-after"]) >= 1
        assert headers[b"content-type"] == b"application/problem+json"
        assert client.scope["state"]["route"] == route
        assert tested.admission[kind].refused == 1

    run(main())


@pytest.mark.parametrize(
    ("path", "method"), [("/livez", "GET"), ("/v1/items", "GET"), ("/v1/items/v1/search/text", "GET")]
)
def test_what_is_no_query_passes_a_full_gate(path: str, method: str) -> None:
    async def main() -> None:
        tested, client = door(application(nothing)), Client(path, method=method)
        for kind in ("text", "image", "item", "pair"):
            full(tested.admission, kind)
        await tested(client.scope, client.receive, client.send)
        assert client.status == 200

    run(main())


def test_a_query_is_known_behind_a_prefix() -> None:
    async def main() -> None:
        tested, client = door(application(nothing)), Client("/pictures" + TEXT)
        client.scope["root_path"] = "/pictures"
        full(tested.admission, "text")
        await tested(client.scope, client.receive, client.send)
        assert client.status == 503

    run(main())


def test_a_query_counts_from_its_last_byte_to_its_answer() -> None:
    counts: list[int] = []

    async def main() -> None:
        tested = door(nothing_app)
        gate = tested.admission["text"]

        async def watching(scope: Scope, receive: Receive, send: Send) -> None:
            counts.append(gate.in_flight)
            for _ in range(3):
                await receive()
                counts.append(gate.in_flight)
            await application_end(send)

        tested.app = watching
        client = Client(body=(b"a", b"b", b"c"))
        await tested(client.scope, client.receive, client.send)
        counts.append(gate.in_flight)

    run(main())
    assert counts == [0, 0, 0, 1, 0]


async def nothing_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Replaced by the test."""


async def application_end(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_a_deadline_ends_the_work_with_503() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("cancelled")

    async def main() -> None:
        tested, client = door(application(work), deadline=0.01), Client()
        await tested(client.scope, client.receive, client.send)
        assert client.status == 503
        assert b"deadline_exceeded" in client.sent[1]["body"]
        assert tested.admission["text"].in_flight == 0

    run(main())
    assert ended == ["cancelled"]


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/v1/items", "GET", 503), ("/v1/items/a", "HEAD", 503), ("/livez", "GET", 200),
                                   ("/v1/collections/a/reload", "POST", 200)]
)  # fmt: skip
def test_what_is_read_has_the_deadline_too(path: str, method: str, status: int) -> None:
    async def main() -> None:
        tested, client = door(application(lambda: asyncio.sleep(0.05)), deadline=0.01), Client(path, method=method)
        await tested(client.scope, client.receive, client.send)
        assert client.status == status

    run(main())


def test_an_answer_that_has_begun_is_not_cut_short() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"whole"})

    async def main() -> None:
        tested, client = door(slow, deadline=0.01), Client("/v1/items", method="GET")
        await tested(client.scope, client.receive, client.send)
        assert [message.get("body", message.get("status")) for message in client.sent] == [200, b"whole"]

    run(main())


def test_a_client_that_leaves_ends_the_work_and_is_answered_nothing() -> None:
    ended: list[str] = []

    async def main() -> None:
        client = Client()

        async def work() -> None:
            client.leave()
            try:
                await asyncio.sleep(30)
            finally:
                ended.append("cancelled")

        tested = door(application(work))
        await tested(client.scope, client.receive, client.send)
        assert client.sent == []
        assert tested.admission["text"].in_flight == 0

    run(main())
    assert ended == ["cancelled"]


def test_a_client_that_leaves_while_it_is_answered_ends_nothing() -> None:
    async def main() -> None:
        client = Client()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            client.leave()
            await asyncio.sleep(0.05)
            await send({"type": "http.response.body", "body": b""})

        await door(app, deadline=0.01)(client.scope, client.receive, client.send)
        assert [message["type"] for message in client.sent] == ["http.response.start", "http.response.body"]

    run(main())


def test_an_error_of_the_application_is_its_own() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    async def slow() -> None:
        raise TimeoutError("not the door's")

    async def main() -> None:
        for work, error in ((broken, ZeroDivisionError), (slow, TimeoutError)):
            tested, client = door(application(work)), Client()
            with pytest.raises(error):
                await tested(client.scope, client.receive, client.send)
            assert tested.admission["text"].in_flight == 0

    run(main())


def test_a_bad_query_tells_nothing_of_the_speed() -> None:
    async def main() -> None:
        for status, known in ((422, 0), (200, 1), (500, 1)):
            tested, client = door(application(nothing, status)), Client()
            await tested(client.scope, client.receive, client.send)
            assert len(tested.admission["text"]._intervals) == known

    run(main())


def test_a_query_is_judged_once_more_when_its_body_has_come() -> None:
    async def main() -> None:
        guarded = door(application(nothing))
        slow = Client(body=(b"{", b"}"))
        real = slow.receive

        async def receive() -> Message:
            message = await real()
            if not message.get("more_body"):
                full(guarded.admission, "text")  # others came meanwhile
            return message

        with pytest.raises(Overloaded):  # which the application turns into a 503
            await guarded(slow.scope, receive, slow.send)
        assert guarded.admission["text"].in_flight == 1

    run(main())


def test_who_does_not_read_the_answer_keeps_no_place() -> None:
    async def main() -> None:
        guarded, client = door(application(nothing)), Client()
        stalled, reading = asyncio.Event(), asyncio.Event()

        async def send(message: Message) -> None:
            stalled.set()
            await reading.wait()

        task = asyncio.create_task(guarded(client.scope, client.receive, send))
        await stalled.wait()
        assert guarded.admission["text"].in_flight == 0
        reading.set()
        await task
        assert guarded.admission["text"].in_flight == 0

    run(main())


def test_who_waits_for_another_server_keeps_no_place() -> None:
    counts: list[int] = []

    async def main() -> None:
        tested = door(nothing_app)
        gate = tested.admission["text"]

        async def fetching(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            counts.append(gate.in_flight)
            with scope["state"]["aside"]():
                counts.append(gate.in_flight)
                with scope["state"]["aside"]():  # the other side of a pair
                    counts.append(gate.in_flight)
                counts.append(gate.in_flight)
            counts.append(gate.in_flight)
            await application_end(send)

        tested.app = fetching
        client = Client()
        await tested(client.scope, client.receive, client.send)
        counts.append(gate.in_flight)

    run(main())
    assert counts == [1, 0, 0, 0, 1, 0]


def test_who_comes_back_to_a_full_gate_is_refused() -> None:
    async def main() -> None:
        tested, client = door(nothing_app), Client()

        async def fetching(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            with scope["state"]["aside"]():
                full(tested.admission, "text")

        tested.app = fetching
        with pytest.raises(Overloaded):
            await tested(client.scope, client.receive, client.send)
        assert tested.admission["text"].in_flight == 1

    run(main())

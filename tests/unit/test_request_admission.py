"""Admission of requests: refusal before the body, what is in flight, deadlines and disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Scope

from app import main
from app.admission import AdmissionControllers, RequestKind
from app.api.request_admission import Admission, admitted, with_deadline
from app.api.routing import Route, Router
from app.errors import RequestError
from app.middleware.problems import ProblemMiddleware, raise_framework_errors
from app.middleware.request_metrics import RequestMetricsMiddleware
from app.telemetry import Telemetry
from lookalike.errors import EncoderError

pytestmark = pytest.mark.timeout(20)  # seconds

TEXT, READ, BOUNDED, FREE = "/text", "/read", "/bounded", "/free"
Work = Callable[[Request], Awaitable[Any]]


class Client:
    """One ASGI request: sends its body, then nothing until `disconnect`."""

    def __init__(self, path: str = TEXT, body: tuple[bytes, ...] = (b"{}",), method: str = "") -> None:
        self.scope: Scope = {
            "type": "http",
            "method": method or ("POST" if path in (TEXT, FREE) else "GET"),
            "path": path,
            "query_string": b"",
            "headers": [],
            "state": {},
        }
        self.sent: list[Message] = []
        self.received = 0
        self._parts = [
            {"type": "http.request", "body": part, "more_body": number < len(body)}
            for number, part in enumerate(body, start=1)
        ]
        self._disconnected = asyncio.Event()

    def disconnect(self) -> None:
        self._disconnected.set()

    async def receive(self) -> Message:
        if self._parts:
            self.received += 1
            return self._parts.pop(0)
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def request(self, app: ASGIApp) -> Client:
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class Service:
    """An application whose routes do `work` and respond with `status`."""

    def __init__(self, work: Work, max_wait: float = 1.0, deadline: float = 5.0, status: int = 200) -> None:
        self.admission = AdmissionControllers(max_wait)
        self.settings = SimpleNamespace(deadline=deadline)
        self.text = self.admission["text"]
        self.telemetry = Telemetry()
        self.app = FastAPI()
        self.app.state.service = self
        raise_framework_errors(self.app)
        self.app.add_middleware(ProblemMiddleware, telemetry=self.telemetry)
        self.app.add_middleware(RequestMetricsMiddleware, telemetry=self.telemetry)
        router = Router()

        @router.post(FREE)
        async def free(request: Request) -> Response:
            await request.body()
            return await respond(request)

        @router.post(TEXT)
        @admitted("text")
        async def text(request: Request) -> Response:
            await request.body()
            return await respond(request)

        @router.get(READ)
        @admitted("read")
        async def read(request: Request) -> Response:
            return await respond(request)

        @router.head(BOUNDED)
        @router.get(BOUNDED)
        @with_deadline
        async def bounded(request: Request) -> Response:
            return await respond(request)

        async def respond(request: Request) -> Response:
            result = await work(request)
            return result if isinstance(result, Response) else Response(status_code=status)

        self.app.include_router(router)

    def overload(self, kind: RequestKind) -> None:
        """Make the controller expect that the next request would wait for long."""
        controller = self.admission[kind]
        controller._intervals.extend([10.0] * 64)  # as many as are needed to be sure
        controller.acquire()


async def nothing(_: Request) -> None:
    """Take no time."""


async def too_long(_: Request) -> None:
    await asyncio.sleep(30)


@pytest.mark.parametrize(("path", "kind"), [(TEXT, "text"), (READ, "read")])
async def test_overload_is_refused_before_the_body_is_read(path: str, kind: RequestKind) -> None:
    service = Service(nothing)
    assert (await Client(path).request(service.app)).status == 200
    assert service.admission[kind].in_flight == 0
    service.overload(kind)
    refused = await Client(path).request(service.app)
    assert (refused.status, refused.received) == (503, 0)
    headers = dict(refused.sent[0]["headers"])
    assert int(headers[b"retry-after"]) >= 1
    assert headers[b"content-type"] == b"application/problem+json"
    assert (service.admission[kind].refused, service.admission[kind].in_flight) == (1, 1)
    sample = f'lookalike_requests_total{{method="{refused.scope["method"]}",route="{path}",status="503"}} 1.0'
    assert sample in service.telemetry.prometheus().decode()


async def test_other_routes_are_served_under_overload() -> None:
    service = Service(nothing)
    for kind in ("text", "image", "item", "pair", "read"):
        service.overload(cast(RequestKind, kind))
    for path in (FREE, BOUNDED):
        assert (await Client(path).request(service.app)).status == 200


async def test_routes_are_admitted_behind_a_prefix() -> None:
    service, client = Service(nothing), Client("/images" + TEXT, method="POST")
    client.scope["root_path"] = "/images"
    service.overload("text")
    assert (await client.request(service.app)).status == 503


async def test_request_is_in_flight_from_body_to_response() -> None:
    counts: list[int] = []

    async def endpoint(_: Request) -> None:
        counts.append(service.text.in_flight)

    service, client = Service(endpoint), Client(body=(b"a", b"b", b"c"))
    receive = client.receive

    async def counting() -> Message:
        counts.append(service.text.in_flight)
        return await receive()

    async def send(message: Message) -> None:
        counts.append(service.text.in_flight)

    await service.app(client.scope, counting, send)
    assert counts == [0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("path", [TEXT, READ, BOUNDED])
async def test_deadline_cancels_the_work_with_503(path: str) -> None:
    ended: list[str] = []

    async def work(request: Request) -> None:
        try:
            await too_long(request)
        finally:
            ended.append("cancelled")

    service = Service(work, deadline=0.01)
    client = await Client(path).request(service.app)
    assert client.status == 503
    assert b"deadline_exceeded" in client.body
    assert not any(controller.in_flight for controller in service.admission.by_kind.values())
    assert ended == ["cancelled"]


async def test_other_routes_have_no_deadline() -> None:
    service = Service(lambda _: asyncio.sleep(0.05), deadline=0.01)
    assert (await Client(FREE).request(service.app)).status == 200


@pytest.mark.parametrize("path", [TEXT, READ])
async def test_deadline_does_not_cut_a_started_response(path: str) -> None:
    async def slow() -> Any:
        await asyncio.sleep(0.05)
        yield b"whole"

    async def work(_: Request) -> Response:
        return StreamingResponse(slow())

    service = Service(work, deadline=0.01)
    client = await Client(path).request(service.app)
    assert (client.status, client.body) == (200, b"whole")


async def test_disconnect_cancels_the_work() -> None:
    ended: list[str] = []
    client = Client()

    async def work(request: Request) -> None:
        client.disconnect()
        try:
            await too_long(request)
        finally:
            ended.append("cancelled")

    service = Service(work)
    await client.request(service.app)
    assert (client.status, client.body) == (499, b"")  # for the metrics; nobody reads it
    assert service.text.in_flight == 0
    assert len(service.text._intervals) == 0
    assert ended == ["cancelled"]


async def test_disconnect_does_not_cancel_a_started_response() -> None:
    client = Client()

    async def slow() -> Any:
        yield b"a"
        client.disconnect()
        await asyncio.sleep(0.05)
        yield b"b"

    async def work(_: Request) -> Response:
        return StreamingResponse(slow())

    client.scope["asgi"] = {"spec_version": "2.4"}  # or Starlette itself would watch for a disconnect
    await client.request(Service(work, deadline=0.01).app)
    assert (client.status, client.body) == (200, b"ab")


@pytest.mark.parametrize("error", [ZeroDivisionError, TimeoutError])
async def test_an_error_of_the_endpoint_stays_its_own(error: type[Exception]) -> None:
    async def broken(_: Request) -> None:
        raise error

    for path in (TEXT, READ, BOUNDED):
        service, client = Service(broken), Client(path)
        with pytest.raises(error):
            await client.request(service.app)
        assert client.status == 500
        assert service.text.in_flight == 0


async def test_immediate_client_errors_do_not_measure_speed() -> None:
    for status, known in ((422, 0), (200, 1), (500, 1)):

        async def work(_: Request, status: int = status) -> None:
            if status == 422:
                raise RequestError("bad")
            if status == 500:
                raise EncoderError("failed")

        service = Service(work)
        assert (await Client().request(service.app)).status == status
        assert len(service.text._intervals) == known


async def test_query_is_checked_again_when_its_body_has_arrived() -> None:
    service, client = Service(nothing), Client(body=(b"{", b"}"))
    receive = client.receive

    async def overloading() -> Message:
        message = await receive()
        if not message.get("more_body"):
            service.overload("text")  # by others, while the body arrived
        return message

    await service.app(client.scope, overloading, client.send)
    assert (client.status, service.text.in_flight, service.text.refused) == (503, 1, 1)


async def test_slow_reader_is_not_in_flight() -> None:
    service, client = Service(nothing), Client()
    stalled, reading = asyncio.Event(), asyncio.Event()

    async def send(message: Message) -> None:
        stalled.set()
        await reading.wait()

    task = asyncio.create_task(service.app(client.scope, client.receive, send))
    await stalled.wait()
    assert service.text.in_flight == 0
    reading.set()
    await task
    assert service.text.in_flight == 0


async def test_suspended_request_is_not_in_flight() -> None:
    counts: list[int] = []

    async def fetching(request: Request) -> None:
        admission: Admission = request.state.admission
        counts.append(service.text.in_flight)
        with admission.suspended():
            counts.append(service.text.in_flight)
            with admission.suspended():  # the other side of a pair
                counts.append(service.text.in_flight)
            counts.append(service.text.in_flight)
        counts.append(service.text.in_flight)

    service = Service(fetching)
    await Client().request(service.app)
    counts.append(service.text.in_flight)
    assert counts == [1, 0, 0, 0, 1, 0]


async def test_request_of_another_kind_moves() -> None:
    counts: list[tuple[int, int]] = []

    async def searching(request: Request) -> None:
        request.state.admission.change_kind("image")
        counts.append((service.text.in_flight, service.admission["image"].in_flight))

    service = Service(searching)
    await Client().request(service.app)
    assert counts == [(0, 1)]
    assert service.admission["image"].in_flight == 0


async def test_batch_counts_as_its_queries_until_each_ends() -> None:
    counts: list[tuple[int, int]] = []

    async def searching(request: Request) -> None:
        slots = request.state.admission.split(["text", "text", "image"])
        counts.append((service.text.in_flight, service.admission["image"].in_flight))
        slots[0].finish(completed=True)
        counts.append((service.text.in_flight, service.admission["image"].in_flight))
        raise RequestError("the others are still in flight")

    service = Service(searching)
    assert (await Client().request(service.app)).status == 422
    assert counts == [(2, 1), (1, 1)]
    assert (service.text.in_flight, service.admission["image"].in_flight) == (0, 0)


async def test_resume_is_refused_under_overload() -> None:
    async def fetching(request: Request) -> None:
        with request.state.admission.suspended():
            service.overload("text")

    service = Service(fetching)
    assert (await Client().request(service.app)).status == 503
    assert service.text.in_flight == 1


async def test_fetch_that_outlives_its_request_does_not_resume() -> None:
    ended = asyncio.Event()

    async def fetch(admission: Admission) -> None:
        with admission.suspended():
            await ended.wait()

    async def failing(request: Request) -> None:
        tasks.append(asyncio.create_task(fetch(request.state.admission)))
        await asyncio.sleep(0)
        raise RequestError("the other side of a pair failed")

    tasks: list[asyncio.Task[None]] = []
    service = Service(failing)
    assert (await Client().request(service.app)).status == 422
    ended.set()
    await tasks[0]
    assert service.text.in_flight == 0


ROUTES = [
    each
    for each in vars(main).values()
    if isinstance(each, ModuleType) and hasattr(each, "router") and each is not main.pages
]


def test_service_routes_declare_kinds_and_deadlines() -> None:
    declared = {
        route.path: getattr(route.endpoint, "admission", "nothing")
        for module in ROUTES
        if module is not main.writes
        for route in module.router.routes
        if isinstance(route, Route)
    }
    assert declared.keys() == {
        route.path
        for module in ROUTES
        if module is not main.writes
        for route in module.router.routes
        if isinstance(route, APIRoute)
    }
    of_a_collection = {
        "/search": "text",
        "/search/batch": "text",
        "/search/text": "text",
        "/search/image": "image",
        "/search/item": "item",
        "/similarity": "pair",
        "/similarity/matrix": "text",
        "/classify": "text",
        "/items": "read",
        "/items/{item_id:path}": "read",
        "/items/{item_id:path}/thumbnail": "read",
        "/items/{item_id:path}/original": "read",
        "/item": "read",
        "/item/thumbnail": "read",
        "/item/original": "read",
        "/fields": "read",
        "/facets": "read",
        "/count": "read",
        "/map": "read",
    }
    assert declared == {
        **{f"/v1{path}": kind for path, kind in of_a_collection.items()},
        **{f"/v1/collections/{{name}}{path}": kind for path, kind in of_a_collection.items()},
        "/v1/embeddings": "text",
        "/v1/models": None,
        "/v1/models/{model:path}": None,
        "/v1/collections": None,
        "/v1/collections/{name}": None,
        "/v1/collections/{name}/reload": "nothing",
        "/v1/stats": None,
        "/livez": "nothing",
        "/readyz": "nothing",
        "/metrics": "nothing",
    }


def test_writes_declare_kinds_and_deadlines() -> None:
    declared = {
        (method, route.path): getattr(route.endpoint, "admission", "nothing")
        for route in main.writes.router.routes
        if isinstance(route, Route)
        for method in route.methods
    }
    of_a_collection = {
        ("PUT", "/items/{item_id:path}"): "image",
        ("PATCH", "/items/{item_id:path}"): "write",
        ("DELETE", "/items/{item_id:path}"): "write",
        ("POST", "/items/batch"): "write",
        ("POST", "/items/delete"): "write",
    }
    assert declared == {
        (method, f"{prefix}{path}"): kind
        for (method, path), kind in of_a_collection.items()
        for prefix in ("/v1", "/v1/collections/{name}")
    }

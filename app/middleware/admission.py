"""The door: a query that would wait too long is refused before anything of it is read, and one let in has a deadline.

It stands in front of the framework, where a refusal costs a fraction of a query's own HTTP; behind it, refusals alone
could take all the time of an event loop that is busy already. A query counts from the moment its body has arrived, when
it is asked once more, to the moment its answer begins, so that a client who drips, or does not read, keeps nobody out;
its work is dropped when the client leaves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.admission import AdmissionController, AdmissionControllers
from app.errors import DeadlineExceeded, Overloaded, RetryableError, error_response
from app.paths import NAMED, SHORT
from app.telemetry import Telemetry

_QUERY = re.compile(r"/v1(?P<named>/collections/[^/]+)?/(?P<route>search/(?P<kind>image|text|item)|similarity)")
_ITEMS = re.compile(r"/v1(?P<named>/collections/[^/]+)?/items(?:/.*)?")


class AdmissionMiddleware:
    """Plain ASGI around the application: asks the gate of the query's kind.

    Items and thumbnails have a gate, too; what is told of collections passes none, but has the deadline.
    """

    def __init__(self, app: ASGIApp, admission: AdmissionControllers, deadline: float, telemetry: Telemetry) -> None:
        """`deadline` is in seconds, from a query's body to its answer."""
        self.app = app
        self.admission = admission
        self.deadline = deadline
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is no query, and queries that are let in."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        query = _QUERY.fullmatch(path) if scope["method"] == "POST" else None
        if query is None:
            if not path.startswith("/v1/") or scope["method"] not in ("GET", "HEAD"):
                return await self.app(scope, receive, send)
            controller = None
            if items := _ITEMS.fullmatch(path):
                controller = self.admission["read"]
                scope.setdefault("state", {})["route"] = f"{NAMED if items['named'] else SHORT}/items"
            return await self._answer_in_time(controller, scope, receive, send)
        kind = query["kind"] or "pair"
        scope.setdefault("state", {})["route"] = f"{NAMED if query['named'] else SHORT}/{query['route']}"
        try:
            self.admission[kind].admit()
        except Overloaded as error:
            return await self._refuse(error, scope, receive, send)
        await self._let_in(self.admission[kind], scope, receive, send)

    async def _let_in(self, controller: AdmissionController, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        leaving: asyncio.Future[Message] | None = None
        gone, over, status, inside, aside, entered = False, False, 0, False, 0, 0.0

        def left(future: asyncio.Future[Message]) -> None:
            nonlocal gone
            if future.cancelled() or future.exception() or future.result()["type"] != "http.disconnect":
                return
            if not (status or over or limit.expired()):
                gone = True
                limit.reschedule(loop.time())

        def release() -> None:
            nonlocal inside
            if inside:
                inside = False
                controller.release(entered, worked=not gone, faulty=400 <= status < 500)

        @contextmanager
        def stepped_aside() -> Iterator[None]:
            """Within it the query waits for another's server and not for the device: no time that others wait for."""
            nonlocal inside, aside, entered
            aside += 1
            if inside:
                inside = False
                controller.release(entered, worked=False)
            try:
                yield
            finally:
                aside -= 1
            if not (aside or over):
                controller.admit()
                entered = controller.acquire()
                inside = True

        async def receiving() -> Message:
            nonlocal leaving, inside, entered
            message = await receive()
            if leaving is None and message["type"] == "http.request" and not message.get("more_body", False):
                controller.admit()  # others may have come while this one's body did
                entered = controller.acquire()
                inside = True
                limit.reschedule(loop.time() + self.deadline)
                leaving = asyncio.ensure_future(receive())  # after the body, all that can come is the client's leaving
                leaving.add_done_callback(left)
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                release()
                if not limit.expired():
                    limit.reschedule(None)
            await send(message)

        scope["state"]["aside"] = stepped_aside
        try:
            async with asyncio.timeout(None) as limit:
                await self.app(scope, receiving, sending)
        except TimeoutError:
            if status or not limit.expired():
                raise
            if not gone:
                await self._refuse(self._late(), scope, receive, send)
        finally:
            over = True
            release()
            if leaving is not None:
                leaving.cancel()

    async def _answer_in_time(
        self, controller: AdmissionController | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        status, entered = 0, 0.0

        async def sending(message: Message) -> None:
            nonlocal status
            if not status:
                status = message["status"]
                limit.reschedule(None)  # how fast a client reads is its own affair
                release()
            await send(message)

        def release() -> None:
            nonlocal entered
            if controller is not None and entered:
                controller.release(entered, worked=bool(status), faulty=400 <= status < 500)
                entered = 0.0

        if controller is not None:
            try:
                controller.admit()
            except Overloaded as error:
                return await self._refuse(error, scope, receive, send)
            entered = controller.acquire()
        try:
            async with asyncio.timeout(self.deadline) as limit:
                await self.app(scope, receive, sending)
        except TimeoutError:
            if status or not limit.expired():
                raise
            await self._refuse(self._late(), scope, receive, send)
        finally:
            release()

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"no answer within {self.deadline:g} s; come again when there is less to do")

    async def _refuse(self, error: RetryableError, scope: Scope, receive: Receive, send: Send) -> None:
        self.telemetry.count_error(error.code)
        await error_response(scope["path"], error)(scope, receive, send)

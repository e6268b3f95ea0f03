"""The door: a query that would wait too long is refused before anything of it is read, and one let in has a deadline.

It stands in front of the framework, where a refusal costs a fraction of a query's own HTTP; behind it, refusals alone
could take all the time of an event loop that is busy already. A query counts from the moment its body has arrived, when
it is asked once more, to the moment its answer begins, so that a client who drips, or does not read, keeps nobody out;
its work is dropped when the client leaves.
"""

from __future__ import annotations

import asyncio
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.admission import Gate, Gates
from app.errors import DeadlineExceeded, Later, Overloaded, problem_of
from app.telemetry import Telemetry

_QUERY = re.compile(r"/v1(?P<named>/collections/[^/]+)?/(?P<route>search/(?P<kind>image|text|item)|similarity)")


class Door:
    """Plain ASGI around the application: asks the gate of the query's kind."""

    def __init__(self, app: ASGIApp, gates: Gates, deadline: float, telemetry: Telemetry) -> None:
        """`deadline` is in seconds, from a query's body to its answer."""
        self.app = app
        self.gates = gates
        self.deadline = deadline
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is no query, and queries that are let in."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        query = _QUERY.fullmatch(scope["path"].removeprefix(scope.get("root_path", "")))
        if query is None:
            return await self.app(scope, receive, send)
        kind = query["kind"] or "pair"
        try:
            self.gates[kind].check()
        except Overloaded as error:
            scope.setdefault("state", {})["route"] = (
                f"/v1{'/collections/{name}' if query['named'] else ''}/{query['route']}"
            )
            return await self._refuse(error, scope, receive, send)
        await self._let_in(self.gates[kind], scope, receive, send)

    async def _let_in(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        leaving: asyncio.Future[Message] | None = None
        gone, over, status, inside = False, False, 0, False

        def left(future: asyncio.Future[Message]) -> None:
            nonlocal gone
            if future.cancelled() or future.exception() or future.result()["type"] != "http.disconnect":
                return
            if not (status or over or limit.expired()):
                gone = True
                limit.reschedule(loop.time())

        def leave() -> None:
            nonlocal inside
            if inside:
                inside = False
                gate.leave(worked=not gone and not 400 <= status < 500)

        async def receiving() -> Message:
            nonlocal leaving, inside
            message = await receive()
            if leaving is None and message["type"] == "http.request" and not message.get("more_body", False):
                gate.check()  # others may have come while this one's body did
                gate.enter()
                inside = True
                limit.reschedule(loop.time() + self.deadline)
                leaving = asyncio.ensure_future(receive())  # after the body, all that can come is the client's leaving
                leaving.add_done_callback(left)
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                leave()
                if not limit.expired():
                    limit.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout(None) as limit:
                await self.app(scope, receiving, sending)
        except TimeoutError:
            if status or not limit.expired():
                raise
            if not gone:
                late = DeadlineExceeded(f"no answer within {self.deadline:g} s; come again when there is less to do")
                await self._refuse(late, scope, receive, send)
        finally:
            over = True
            leave()
            if leaving is not None:
                leaving.cancel()

    async def _refuse(self, error: Later, scope: Scope, receive: Receive, send: Send) -> None:
        self.telemetry.error(error.code)
        await problem_of(scope["path"], error)(scope, receive, send)

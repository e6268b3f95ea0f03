"""Admission of requests, as their routes declare it.

    @router.post("/search/text")
    @admitted("text")
    async def search_text(request: Request) -> Response: ...

A query that would wait too long is refused before its body is read, and once more when its body has arrived. It is in
flight from then to the start of its response, so that slow clients delay no others. This time has a deadline. The work
is cancelled when the client disconnects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive

from app.admission import AdmissionController, AdmissionControllers, RequestKind
from app.errors import DeadlineExceeded, is_client_error

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_DECLARED = "admission"
"""The attribute of an endpoint that holds what it declares: a kind, or None for a deadline alone."""
_WITHOUT_BODY = ("GET", "HEAD")


def admitted(kind: RequestKind) -> Callable[[Endpoint], Endpoint]:
    """Declare that requests of an endpoint pass admission control and have a deadline."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARED, kind)
        return endpoint

    return declare


def with_deadline(endpoint: Endpoint) -> Endpoint:
    """Declare that requests of an endpoint have a deadline, from their start to the start of their response."""
    setattr(endpoint, _DECLARED, None)
    return endpoint


def apply_declaration(handler: Handler, endpoint: Callable[..., Any]) -> Handler:
    """Return a route's handler with the admission and the deadline that its endpoint declares."""
    if not hasattr(endpoint, _DECLARED):
        return handler
    kind: RequestKind | None = getattr(endpoint, _DECLARED)

    async def admitted_handler(request: Request) -> Response:
        service = request.app.state.service
        if kind is None:
            return await _with_timeout(service.settings.deadline, handler(request))
        return await Admission(service.admission, kind, service.settings.deadline).run(handler, request)

    return admitted_handler


class Slot:
    """The place of one query in admission control: in flight, or not. Lives on the event loop's thread."""

    def __init__(self, controller: AdmissionController) -> None:
        self._controller = controller
        self._acquired: float | None = None  # None while the query is not in flight
        self._suspensions = 0
        self._finished = False

    def acquire(self, *, check: bool = True) -> None:
        """Put the query in flight; unless `check` is False, raise Overloaded if it would wait too long."""
        if check:
            self._controller.admit()
        self._acquired = self._controller.acquire()

    def suspend(self) -> None:
        """Take the query out of flight while it waits for another server. May be nested."""
        self._suspensions += 1
        self.release(completed=False)

    def resume(self) -> None:
        """End a suspension; after the last one the query is in flight again. Raises Overloaded."""
        self._suspensions -= 1
        if not (self._suspensions or self._finished):
            self.acquire()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Suspend within a `with` block; an error in it does not resume."""
        self.suspend()
        try:
            yield
        except BaseException:
            self._suspensions -= 1
            raise
        self.resume()

    def release(self, *, completed: bool, client_error: bool = False) -> None:
        """Take the query out of flight, if it is in flight."""
        if self._acquired is not None:
            acquired, self._acquired = self._acquired, None
            self._controller.release(acquired, completed=completed, client_error=client_error)

    def finish(self, *, completed: bool, client_error: bool = False) -> None:
        """Take the query out of flight for good."""
        self._finished = True
        self.release(completed=completed, client_error=client_error)


class Admission(Slot):
    """One request on its way through admission control. Lives on the event loop's thread.

    The handler finds it as `request.state.admission`.
    """

    def __init__(self, controllers: AdmissionControllers, kind: RequestKind, deadline: float) -> None:
        """`deadline` is in seconds."""
        super().__init__(controllers[kind])
        self._controllers = controllers
        self._deadline = deadline
        self._timeout = asyncio.timeout(None)
        self._slots: Sequence[Slot] = ()
        self._disconnect: asyncio.Future[Message] | None = None
        self._disconnected = False

    async def run(self, handler: Handler, request: Request) -> Response:
        """Return the handler's response.

        Raises:
            Overloaded: the request would wait too long.
            DeadlineExceeded: the handler took too long, and was cancelled.
            ClientDisconnect: the client disconnected, and the handler was cancelled.
        """
        self._controller.admit()  # before anything of the body is read
        if request.method not in _WITHOUT_BODY:
            request = Request(request.scope, self._wrap_receive(request.receive))
        request.state.admission = self
        client_error = False
        try:
            async with self._timeout:
                if request.method in _WITHOUT_BODY:
                    self.admit()
                return await handler(request)
        except TimeoutError:
            if not self._timeout.expired():
                raise
            raise ClientDisconnect if self._disconnected else _deadline_error(self._deadline) from None
        except Exception as error:
            client_error = is_client_error(error)
            raise
        finally:
            del request.state.admission  # or it would keep alive what it belongs to
            self._finish(client_error=client_error)

    def admit(self) -> None:
        """Put the request in flight, and start its deadline. Raises Overloaded."""
        self.acquire()
        self.restart_deadline()

    def change_kind(self, kind: RequestKind) -> None:
        """Count the request as one of another kind, which its body has shown. Raises Overloaded."""
        controller = self._controllers[kind]
        if controller is not self._controller:
            self.release(completed=False)
            self._controller = controller
            self.acquire()

    def split(self, kinds: Sequence[RequestKind]) -> Sequence[Slot]:
        """Put a slot for each query of a batch in flight, in place of the request. Raises Overloaded."""
        self.release(completed=False)
        for kind in dict.fromkeys(kinds):
            self._controllers[kind].admit()
        self._slots = [Slot(self._controllers[kind]) for kind in kinds]
        for slot in self._slots:
            slot.acquire(check=False)
        return self._slots

    def admit_inputs(self, kinds: Sequence[RequestKind]) -> None:
        """Put inputs in flight in place of the request, each by a slot of `input_slot`. Raises Overloaded."""
        self.release(completed=False)
        for kind in dict.fromkeys(kinds):
            self._controllers[kind].admit()

    def input_slot(self, kind: RequestKind) -> Slot:
        """Return the slot, in flight, of one input; the caller finishes it."""
        slot = Slot(self._controllers[kind])
        slot.acquire(check=False)
        return slot

    def restart_deadline(self) -> None:
        """Start the deadline again: the request has made progress."""
        if not (self._disconnected or self._timeout.expired()):
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._deadline)

    def _wrap_receive(self, receive: Receive) -> Receive:
        """Return a `receive` that admits the request when its body is complete, and waits for a disconnect then."""

        async def receive_wrapper() -> Message:
            message = await receive()
            if self._disconnect is None and message["type"] == "http.request" and not message.get("more_body", False):
                self.admit()
                self._disconnect = asyncio.ensure_future(receive())  # nothing else can follow a body
                self._disconnect.add_done_callback(self._on_disconnect)
            return message

        return receive_wrapper

    def _on_disconnect(self, message: asyncio.Future[Message]) -> None:
        if message.cancelled() or message.exception() or message.result()["type"] != "http.disconnect":
            return
        if not (self._finished or self._timeout.expired()):
            self._disconnected = True
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def _finish(self, *, client_error: bool) -> None:
        for slot in self._slots:
            slot.finish(completed=False)
        self.finish(completed=not self._disconnected, client_error=client_error)
        if self._disconnect is not None:
            self._disconnect.cancel()


async def _with_timeout(seconds: float, response: Coroutine[Any, Any, Response]) -> Response:
    try:
        async with asyncio.timeout(seconds) as timeout:
            return await response
    except TimeoutError:
        if not timeout.expired():
            raise
        raise _deadline_error(seconds) from None


def _deadline_error(seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"no response within {seconds:g} s; retry when the load is lower")

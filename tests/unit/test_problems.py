"""Errors as problem documents: every kind of error, its status, and that it is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from app.errors import BodyTooSlow, KeyMissing, Overloaded
from app.middleware.problems import ProblemMiddleware, raise_framework_errors
from app.telemetry import Telemetry
from lookalike.errors import ChecksumMismatch, UnknownItem


class Body(BaseModel):
    text: str


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def app(telemetry: Telemetry) -> FastAPI:
    app = FastAPI()
    raise_framework_errors(app)
    app.add_middleware(ProblemMiddleware, telemetry=telemetry)
    return app


@pytest.mark.parametrize(
    ("error", "status", "code", "header"),
    [
        (UnknownItem("no item"), 404, "unknown_item", None),
        (Overloaded("busy", 7), 503, "overloaded", ("retry-after", "7")),
        (KeyMissing("no key"), 401, "key_missing", ("www-authenticate", "Bearer")),
        (ChecksumMismatch("a secret path"), 500, "checksum_mismatch", None),
        (HTTPException(404), 404, "not_found", None),
        (HTTPException(404, "port 9 serves /livez"), 404, "not_found", None),
        (HTTPException(418, "short and stout"), 418, "http_error", None),
        (asyncio.CancelledError(), 503, "not_ready", ("retry-after", "1")),
        (ZeroDivisionError("a secret path"), 500, "internal_error", None),
    ],
    ids=repr,
)
def test_error_becomes_a_counted_problem(
    app: FastAPI,
    telemetry: Telemetry,
    error: BaseException,
    status: int,
    code: str,
    header: tuple[str, str] | None,
) -> None:
    @app.get("/x")
    async def fail() -> None:
        raise error

    response = TestClient(app, raise_server_exceptions=False).get("/x")
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert header is None or response.headers[header[0]] == header[1]
    assert "secret" not in response.text
    assert f'lookalike_errors_total{{code="{code}"}} 1.0' in telemetry.prometheus().decode()


def test_unexpected_error_is_raised_again_for_the_log(app: FastAPI) -> None:
    @app.get("/x")
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        TestClient(app).get("/x")


def test_framework_errors_become_problems(app: FastAPI) -> None:
    @app.post("/x")
    async def parse(body: Body, limit: int = 1) -> None:
        """Parameters that FastAPI validates."""

    client = TestClient(app)
    unknown, method = client.get("/nowhere").json(), client.get("/x").json()
    assert (unknown["code"], unknown["detail"]) == ("not_found", "nothing is served at /nowhere; see /docs")
    assert (method["code"], method["detail"]) == ("method_not_allowed", "GET is not served at /x; see /docs")
    invalid = client.post("/x?limit=many", json={"text": 5}).json()
    assert (invalid["status"], invalid["code"]) == (422, "request_invalid")
    assert [entry["field"] for entry in invalid["errors"]] == ["query.limit", "body.text"]
    assert (
        client.post("/x", content=b"{", headers={"Content-Type": "application/json"}).json()["code"] == "json_invalid"
    )


def test_error_of_receive_keeps_its_status_in_fastapi(app: FastAPI) -> None:
    @app.post("/x")
    async def parse(body: Body) -> None:
        """FastAPI reads the body, and wraps errors of that in a 400."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        async def failing() -> Message:
            raise BodyTooSlow("the body did not arrive")

        await app(scope, failing if scope["type"] == "http" else receive, send)

    response = TestClient(slow).post("/x", json={"text": "a"})
    assert (response.status_code, response.json()["code"]) == (408, "body_too_slow")


def test_disconnect_is_499_and_no_error(app: FastAPI, telemetry: Telemetry) -> None:
    @app.get("/x")
    async def fail() -> None:
        raise ClientDisconnect

    response = TestClient(app).get("/x")
    assert (response.status_code, response.content) == (499, b"")
    assert "lookalike_errors_total{" not in telemetry.prometheus().decode()


def test_error_after_the_start_of_a_response_is_raised(app: FastAPI) -> None:
    async def broken() -> Any:
        yield b"begun"
        raise UnknownItem("too late for a problem")

    @app.get("/x")
    async def stream() -> StreamingResponse:
        return StreamingResponse(broken())

    with pytest.raises(UnknownItem):
        TestClient(app).get("/x")

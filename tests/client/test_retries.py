"""When the clients send a call again, and which errors they raise."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate

import httpx
import pytest

from lookalike_client import ApiError, AsyncClient, Client, ConnectionFailed, LookalikeError, ResponseInvalid, Retries

Reply = httpx.Response | Exception
_COLLECTIONS = {"collections": []}


def _problem(status: int, code: str, retry_after: str | None = None) -> httpx.Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return httpx.Response(status, json={"status": status, "code": code, "detail": "why"}, headers=headers)


def _replying(*replies: Reply) -> tuple[Callable[[httpx.Request], httpx.Response], Iterator[Reply]]:
    left = iter(replies)

    def reply(request: httpx.Request) -> httpx.Response:
        following = next(left)
        if isinstance(following, Exception):
            raise following
        return following

    return reply, left


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client waits, without waiting."""
    waits: list[float] = []
    monkeypatch.setattr("lookalike_client.client.time.sleep", waits.append)
    monkeypatch.setattr("lookalike_client.retries.random.uniform", lambda low, high: low)
    return waits


def _client(*replies: Reply, retries: Retries | int = 4) -> tuple[Client, Iterator[Reply]]:
    reply, left = _replying(*replies)
    return Client("http://service", retries=retries, transport=httpx.MockTransport(reply)), left


def test_retry_after_is_waited(waits: list[float]) -> None:
    client, _ = _client(
        _problem(503, "overloaded", "2"),
        _problem(429, "rate_limited", "7"),
        httpx.ConnectError("refused"),
        httpx.Response(200, json=_COLLECTIONS),
    )
    assert client.collections() == []
    assert waits == [2.0, 7.0, 0.8]


@pytest.mark.parametrize(("ahead", "low", "high"), [(5, 3.0, 5.0), (-60, 0.2, 0.2)])
def test_retry_after_may_be_a_date(waits: list[float], ahead: int, low: float, high: float) -> None:
    date = formatdate(time.time() + ahead, usegmt=True)
    client, _ = _client(_problem(503, "", date), httpx.Response(200, json=_COLLECTIONS))
    assert client.collections() == []
    assert low <= waits[0] <= high


def test_last_error_is_raised(waits: list[float]) -> None:
    client, left = _client(*[_problem(503, "overloaded", "1")] * 3, retries=2)
    with pytest.raises(ApiError, match="503 overloaded: why") as raised:
        client.collections()
    assert (raised.value.status, raised.value.code, raised.value.retry_after) == (503, "overloaded", 1.0)
    assert waits == [1.0, 1.0]
    assert next(left, None) is None


def test_long_retry_after_is_not_waited(waits: list[float]) -> None:
    client, _ = _client(_problem(429, "rate_limited", "3600"))
    with pytest.raises(ApiError) as raised:
        client.collections()
    assert raised.value.retry_after == 3600
    assert waits == []


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (_problem(404, "unknown_collection"), ApiError),
        (_problem(500, "internal"), ApiError),
        (httpx.ReadTimeout("slow"), ConnectionFailed),
        (httpx.Response(200, text="<html>"), ResponseInvalid),
        (httpx.Response(200, json={"collections": [{"name": 1}]}), ResponseInvalid),
        (httpx.Response(200, json=[]), ResponseInvalid),
    ],
)
def test_other_failures_are_raised_at_once(reply: Reply, kind: type[LookalikeError], waits: list[float]) -> None:
    client, _ = _client(reply)
    with pytest.raises(kind):
        client.collections()
    assert waits == []


@pytest.mark.parametrize("name", ["reload", "live", "ready"])
def test_reload_and_health_checks_are_not_retried(name: str, waits: list[float]) -> None:
    for reply in (_problem(503, "not_ready", "1"), httpx.ConnectError("refused")):
        client, _ = _client(reply)
        with pytest.raises(LookalikeError):
            getattr(client.for_collection("photographs"), name)()
    assert waits == []


def test_proxy_error_is_shown(waits: list[float]) -> None:
    client, _ = _client(httpx.Response(502, text="<h1>Bad Gateway</h1>"), retries=0)
    with pytest.raises(ApiError, match="502: Bad Gateway, without a problem document: '<h1>Bad") as raised:
        client.collections()
    assert raised.value.code == ""


def test_redirect_is_an_error_that_names_the_address() -> None:
    client, _ = _client(httpx.Response(301, headers={"Location": "https://images.example.com/v1/collections"}))
    with pytest.raises(ApiError, match=r"301: redirected to https://images\.example\.com/v1/collections; use"):
        client.collections()


def test_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(ApiError(422, "request_invalid", "why", [{"field": "limit"}], retry_after=1.0)))
    assert (error.status, error.errors, error.retry_after) == (422, [{"field": "limit"}], 1.0)


async def test_async_client_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("lookalike_client.async_client.asyncio.sleep", sleep)
    monkeypatch.setattr("lookalike_client.retries.random.uniform", lambda low, high: low)
    reply, _ = _replying(_problem(503, "overloaded", "3"), httpx.Response(200, json=_COLLECTIONS))
    async with AsyncClient("http://service", transport=httpx.MockTransport(reply)) as client:
        assert await client.collections() == []
    assert waits == [3.0]

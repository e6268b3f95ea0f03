"""What the clients send to change items, what they make of the responses, and when they send it again."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from lookalike_client import (
    ApiError,
    AsyncClient,
    Client,
    ConnectionFailed,
    Delete,
    LookalikeError,
    Patch,
    Put,
    WrittenItem,
)
from tests.client.recorded import PHOTOGRAPH, requests

SOURCE = {"collection": "photographs", "version": "v1", "encoder": "fake"}
WRITTEN = {"id": "cat.png", "result": "replaced", "etag": '"1"', **SOURCE}


def _client(*replies: httpx.Response | Exception) -> tuple[Client, list[httpx.Request]]:
    """Return a client whose requests get the replies in turn, and the requests that it sends."""
    sent: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        request.read()
        sent.append(request)
        following = replies[len(sent) - 1]
        if isinstance(following, Exception):
            raise following
        return following

    return Client("http://service", transport=httpx.MockTransport(reply)), sent


def _echoing(requests: list[httpx.Request]) -> httpx.MockTransport:
    """Return a transport whose service puts all items of batches."""

    def reply(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        operations = json.loads(request.read())["operations"]
        results = [{"id": each["id"], "result": "created", "etag": '"1"'} for each in operations]
        return httpx.Response(200, json={"results": results, **SOURCE})

    return httpx.MockTransport(reply)


def _problem(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"status": status, "code": code, "detail": "why"})


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client waits, without waiting."""
    waits: list[float] = []
    monkeypatch.setattr("lookalike_client.client.time.sleep", waits.append)
    return waits


def test_image_is_sent_as_it_is_with_its_metadata() -> None:
    (request,) = requests(lambda client: client.put_item("a b/ü.png", PHOTOGRAPH, metadata={"n": 1}), None)
    assert request.method == "PUT"
    assert request.url.raw_path == b"/v1/items/a%20b/%C3%BC.png"
    assert request.headers["Content-Type"].startswith("multipart/form-data")
    body = request.read()
    assert PHOTOGRAPH.read_bytes() in body
    assert b'name="metadata"\r\n\r\n{"n": 1}\r\n' in body


def test_metadata_too_long_for_a_form_is_sent_in_json() -> None:
    metadata = {"text": "x" * 61_000}
    (request,) = requests(lambda client: client.put_item("cat.png", PHOTOGRAPH, metadata=metadata), None)
    body = json.loads(request.read())
    assert body["metadata"] == metadata
    assert base64.b64decode(body["image"]) == PHOTOGRAPH.read_bytes()


def test_embeddings_and_urls_are_sent_in_json() -> None:
    (request,) = requests(lambda client: client.put_item("cat", embedding=(1, 0.5), metadata={}), "shoes")
    assert request.url.path == "/v1/collections/shoes/items/cat"
    assert json.loads(request.read()) == {"embedding": [1.0, 0.5], "metadata": {}}
    (request,) = requests(lambda client: client.put_item("cat", image_url="http://host/cat.jpg"), None)
    assert json.loads(request.read()) == {"url": "http://host/cat.jpg"}


def test_conditions_are_headers() -> None:
    (put,) = requests(lambda client: client.put_item("cat", embedding=[1], if_none_match="*"), None)
    assert put.headers["If-None-Match"] == "*"
    for call in (
        lambda client: client.patch_item("cat", {"n": None}, if_match='"1"'),
        lambda client: client.delete_item("cat", if_match='"1"'),
    ):
        (request,) = requests(call, None)
        assert request.headers["If-Match"] == '"1"'
        assert "If-None-Match" not in request.headers
    assert json.loads(requests(lambda client: client.patch_item("cat", {"n": None}), None)[0].read()) == {
        "metadata": {"n": None}
    }


@pytest.mark.parametrize("item_id", ["100%.png", "what?", "a\\b", "#1", "a//b", "../x", "cup/thumbnail"])
def test_id_that_no_path_carries_is_sent_in_a_batch(item_id: str) -> None:
    (request,) = requests(lambda client: client.delete_item(item_id, if_match='"1"'), None)
    assert (request.method, request.url.path) == ("POST", "/v1/items/batch")
    assert json.loads(request.read()) == {"operations": [{"op": "delete", "id": item_id, "if_match": '"1"'}]}


def test_result_of_a_batch_of_one_is_that_of_the_item() -> None:
    client, _ = _client(
        httpx.Response(200, json={"results": [{"id": "a?", "result": "deleted", "etag": None}], **SOURCE})
    )
    assert client.delete_item("a?") == WrittenItem(id="a?", result="deleted", etag=None, **SOURCE)
    failed = {"id": "a?", "status": 404, "code": "unknown_item", "title": "x", "detail": "why"}
    client, _ = _client(httpx.Response(200, json={"results": [failed], **SOURCE}))
    with pytest.raises(ApiError, match="404 unknown_item: why"):
        client.delete_item("a?")


def test_written_item_has_its_metadata() -> None:
    client, _ = _client(httpx.Response(201, json={**WRITTEN, "metadata": {"n": 1}, "thumbnail_url": "/t", "new": 1}))
    written = client.put_item("cat.png", PHOTOGRAPH)
    assert (written.metadata, written.thumbnail_url, written.etag) == ({"n": 1}, "/t", '"1"')


def test_item_has_the_etag_of_its_header() -> None:
    body = {"id": "cat.png", "metadata": {}, "thumbnail_url": None, **SOURCE}
    client, _ = _client(httpx.Response(200, json=body, headers={"ETag": '"abc"'}), httpx.Response(200, json=body))
    assert client.item("cat.png").etag == '"abc"'
    assert client.item("cat.png").etag is None


@pytest.mark.parametrize("given", [{}, {"image": b"x", "embedding": [1.0]}])
def test_put_has_one_input(given: dict[str, Any]) -> None:
    client, sent = _client()
    with pytest.raises(ValueError, match="give exactly one of image, image_url, embedding"):
        client.put_item("cat", **given)
    with pytest.raises(ValueError, match="give exactly one of"):
        client.write_items([{"op": "put", "id": "cat", **given}])
    assert sent == []


def test_unknown_operation_is_named() -> None:
    client, _ = _client()
    with pytest.raises(ValueError, match="op is 'post'; it must be one of put, patch, delete"):
        client.write_items([{"op": "post", "id": "cat"}])
    with pytest.raises(TypeError, match="metdata"):
        client.write_items([{"op": "patch", "id": "cat", "metdata": {}}])


def test_batch_has_results_and_errors_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    failed = {"id": "b", "status": 412, "code": "precondition_failed", "title": "x", "detail": "why"}
    results = [{"id": "a", "result": "created", "etag": '"1"'}, failed]
    client, sent = _client(httpx.Response(200, json={"results": results, **SOURCE}))
    operations = [Put(id="a", image=tmp_path / "a.png", metadata={"n": 1}), Delete(id="b", if_match='"9"')]
    written, error = client.write_items(operations)
    assert written == WrittenItem(id="a", result="created", etag='"1"', **SOURCE)
    assert isinstance(error, ApiError)
    assert (error.status, error.code, error.detail) == (412, "precondition_failed", "why")
    assert json.loads(sent[0].content) == {
        "operations": [
            {"op": "put", "id": "a", "metadata": {"n": 1}, "image": base64.b64encode(b"image").decode()},
            {"op": "delete", "id": "b", "if_match": '"9"'},
        ]
    }


def test_nothing_is_sent_for_no_operations() -> None:
    client, sent = _client()
    assert client.write_items([]) == []
    assert sent == []


@pytest.mark.parametrize(
    ("operation", "count", "sizes"),
    [
        (lambda number: Delete(id=str(number)), 2_001, [1_000, 1_000, 1]),
        (lambda number: Put(id=str(number), image=b"x" * 100), 130, [64, 64, 2]),
        (lambda number: Put(id=str(number), image=b"x" * 1_500_000), 5, [2, 2, 1]),
        (lambda number: Put(id=str(number), image=b"x" * 2_500_000), 2, [1, 1]),
    ],
    ids=["operations", "images", "bytes", "single"],
)
def test_many_operations_are_several_requests(
    operation: Callable[[int], Put | Delete], count: int, sizes: list[int]
) -> None:
    sent: list[httpx.Request] = []
    with Client("http://service", transport=_echoing(sent)) as client:
        results = client.write_items(operation(number) for number in range(count))
    assert [len(json.loads(request.content)["operations"]) for request in sent] == sizes
    assert [result.id for result in results if isinstance(result, WrittenItem)] == [str(n) for n in range(count)]


async def test_async_client_sends_several_requests_too() -> None:
    sent: list[httpx.Request] = []
    async with AsyncClient("http://service", transport=_echoing(sent)) as client:
        results = await client.write_items(Put(id=str(number), image=b"x") for number in range(100))
    assert (len(sent), len(results)) == (2, 100)


def test_failed_request_has_the_results_before_it() -> None:
    operations = [Delete(id=str(number)) for number in range(2_500)]
    results = [{"id": str(number), "result": "deleted", "etag": None} for number in range(1_000)]
    client, sent = _client(httpx.Response(200, json={"results": results, **SOURCE}), httpx.ReadTimeout("slow"))
    with pytest.raises(ConnectionFailed) as raised:
        client.write_items(operations)
    assert [result.id for result in raised.value.results] == [str(number) for number in range(1_000)]
    assert len(sent) == 2
    client, _ = _client(_problem(403, "read_only"))
    with pytest.raises(ApiError, match="read_only") as refused:
        client.write_items(operations)
    assert refused.value.results == []


def test_large_image_is_sent_alone_and_costs_no_other() -> None:
    results = [{"id": "b", "result": "created", "etag": '"1"'}]
    client, sent = _client(_problem(413, "body_too_large"), httpx.Response(200, json={"results": results, **SOURCE}))
    large, small = client.write_items([Put(id="a", image=b"x" * 5_000_000), Put(id="b", image=b"x")])
    assert isinstance(large, ApiError)
    assert large.status == 413
    assert isinstance(small, WrittenItem)
    assert [(request.method, request.url.path) for request in sent] == [
        ("PUT", "/v1/items/a"),
        ("POST", "/v1/items/batch"),
    ]
    client, sent = _client(httpx.Response(200, json=WRITTEN))
    assert client.write_items([Put(id="a", image=b"x" * 5_000_000)]) == [WrittenItem(**WRITTEN)]
    assert len(sent[0].content) < 5_001_000


def test_deleted_items_are_counted() -> None:
    client, sent = _client(httpx.Response(200, json={"count": 3, "dry_run": True, **SOURCE}))
    assert client.delete_items({"must": []}, dry_run=True).count == 3
    assert json.loads(sent[0].content) == {"filter": {"must": []}, "dry_run": True}


REPEATABLE: list[Callable[[Client], object]] = [
    lambda client: client.put_item("cat.png", PHOTOGRAPH),
    lambda client: client.patch_item("cat.png", {"n": 1}),
    lambda client: client.write_items([Put(id="cat.png", embedding=[1]), Patch(id="cat.png", metadata={"n": 1})]),
    lambda client: client.delete_items({"must": []}, dry_run=True),
]
NOT_REPEATABLE: list[Callable[[Client], object]] = [
    lambda client: client.put_item("cat.png", PHOTOGRAPH, if_none_match="*"),
    lambda client: client.put_item("cat.png", PHOTOGRAPH, if_match='"1"'),
    lambda client: client.put_item("cat?", PHOTOGRAPH, if_match='"1"'),
    lambda client: client.patch_item("cat.png", {"n": 1}, if_match='"1"'),
    lambda client: client.delete_item("cat.png"),
    lambda client: client.write_items([Put(id="cat.png", embedding=[1]), Delete(id="dog.png")]),
    lambda client: client.write_items([Put(id="cat.png", embedding=[1], if_none_match="*")]),
    lambda client: client.delete_items({"must": []}),
]
LOST = [
    httpx.ReadError("lost"),
    httpx.RemoteProtocolError("closed"),
    httpx.Response(502),
    httpx.Response(504),
    _problem(503, "deadline_exceeded"),
]
REFUSED = [httpx.ConnectError("refused"), _problem(503, "pending_full"), _problem(429, "rate_limited")]


@pytest.mark.parametrize("call", REPEATABLE)
@pytest.mark.parametrize("outcome", [*LOST, *REFUSED], ids=repr)
def test_repeatable_write_is_sent_again(
    call: Callable[[Client], object], outcome: httpx.Response | Exception, waits: list[float]
) -> None:
    client, sent = _client(outcome, _problem(400, "end"))
    with pytest.raises(ApiError, match="end"):
        call(client)
    assert len(sent) == 2
    assert sent[0].content.partition(b"--")[0] == sent[1].content.partition(b"--")[0]


@pytest.mark.parametrize("call", NOT_REPEATABLE)
@pytest.mark.parametrize("outcome", LOST, ids=repr)
def test_write_that_may_have_succeeded_is_not_repeated(
    call: Callable[[Client], object], outcome: httpx.Response | Exception, waits: list[float]
) -> None:
    client, sent = _client(outcome, _problem(400, "end"))
    with pytest.raises(LookalikeError):
        call(client)
    assert (len(sent), waits) == (1, [])


@pytest.mark.parametrize("call", NOT_REPEATABLE)
@pytest.mark.parametrize("outcome", REFUSED, ids=repr)
def test_refused_write_is_sent_again(
    call: Callable[[Client], object], outcome: httpx.Response | Exception, waits: list[float]
) -> None:
    client, sent = _client(outcome, _problem(400, "end"))
    with pytest.raises(ApiError, match="end"):
        call(client)
    assert len(sent) == 2

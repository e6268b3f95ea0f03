"""Images by URL over HTTP; tests/unit/test_image_fetcher.py tests which URLs are fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import photograph
from tests.unit.test_image_fetcher import says, web


@pytest.fixture(scope="module")
def fetching(collection: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(collection=collection, urls=True, urls_allowed="127.0.0.1"))) as opened:
        wait_until_ready(opened)
        yield opened


def test_an_image_by_url_finds_what_its_bytes_find(fetching: TestClient) -> None:
    with web(says(200, photograph("cup"), Content_Type="text/plain")) as port:
        found = fetching.post("/v1/search/image", json={"url": f"http://127.0.0.1:{port}/a.txt", "limit": 2})
    assert found.status_code == 200, found.text
    best = found.json()["results"][0]
    assert (best["id"], best["score"]) == ("cup", 1.0)


def test_a_pair_may_have_a_url(fetching: TestClient) -> None:
    with web(says(200, photograph("cup"))) as port:
        pair = {"a": {"url": f"http://127.0.0.1:{port}/"}, "b": {"id": "cup"}}
        answer = fetching.post("/v1/similarity", json=pair).json()
    assert (answer["cosine"], answer["kinds"]) == (1.0, ["image", "image"])


def test_what_is_no_image_is_said_by_its_bytes(fetching: TestClient) -> None:
    with web(says(200, b"<html>", Content_Type="image/png")) as port:
        answer = fetching.post("/v1/search/image", json={"url": f"http://127.0.0.1:{port}/"})
    assert (answer.status_code, answer.json()["code"]) == (422, "image_unsupported")


@pytest.mark.parametrize(
    ("url", "code"),
    [("http://[::1]/", "url_refused"), ("file:///etc/passwd", "url_refused"), ("http://127.0.0.1:1/", "url_failed")],
)
def test_what_is_not_fetched_is_an_error_of_the_query(fetching: TestClient, url: str, code: str) -> None:
    for path, body in (("search/image", {"url": url}), ("similarity", {"a": {"url": url}, "b": {"id": "cup"}})):
        answer = fetching.post(f"/v1/{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_it_is_off_where_nobody_turned_it_on(client: TestClient) -> None:
    answer = client.post("/v1/search/image", json={"url": "http://example.com/cat.jpg"})
    assert (answer.status_code, answer.json()["code"]) == (422, "url_disabled")


@pytest.mark.parametrize("body", [{}, {"url": "http://x/", "image": "aGk="}, {"url": 5}, {"url": None}])
def test_exactly_one_of_image_and_url(client: TestClient, body: dict[str, object]) -> None:
    answer = client.post("/v1/search/image", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")

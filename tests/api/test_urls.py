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
from tests.loopback_server import responds, serving


@pytest.fixture(scope="module")
def fetching(collection: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(collection=collection, urls=True, urls_allowed="127.0.0.1"))) as opened:
        wait_until_ready(opened)
        yield opened


def test_image_by_url_gives_the_same_results_as_its_bytes(fetching: TestClient) -> None:
    with serving(responds(200, photograph("cup"), Content_Type="text/plain")) as port:
        response = fetching.post("/v1/search/image", json={"url": f"http://127.0.0.1:{port}/a.txt", "limit": 2})
    assert response.status_code == 200, response.text
    best = response.json()["results"][0]
    assert (best["id"], best["score"]) == ("cup", 1.0)


def test_similarity_accepts_a_url(fetching: TestClient) -> None:
    with serving(responds(200, photograph("cup"))) as port:
        pair = {"a": {"url": f"http://127.0.0.1:{port}/"}, "b": {"id": "cup"}}
        response = fetching.post("/v1/similarity", json=pair).json()
    assert (response["cosine"], response["kinds"]) == (1.0, ["image", "image"])


def test_lists_of_inputs_accept_urls(fetching: TestClient) -> None:
    with serving(responds(200, photograph("cup"))) as port:
        url = f"http://127.0.0.1:{port}/"
        embedded = fetching.post("/v1/embeddings", json={"input": [{"image": url}, "red"]}).json()
        as_strings = fetching.post("/v1/embeddings", json={"input": [url], "modality": "image"}).json()
        matrix = fetching.post("/v1/similarity/matrix", json={"a": [{"id": "cup"}, {"url": url}]}).json()
        classes = fetching.post("/v1/classify", json={"inputs": [{"url": url}], "labels": ["red"]}).json()
    assert embedded["data"][0]["embedding"] == as_strings["data"][0]["embedding"]
    assert matrix["cosine"][0][1] == pytest.approx(1.0, abs=1e-5)
    assert classes["results"][0]["predictions"][0]["label"] == "red"


def test_body_that_is_no_image_is_unsupported(fetching: TestClient) -> None:
    with serving(responds(200, b"<html>", Content_Type="image/png")) as port:
        response = fetching.post("/v1/search/image", json={"url": f"http://127.0.0.1:{port}/"})
    assert (response.status_code, response.json()["code"]) == (422, "image_unsupported")


@pytest.mark.parametrize(
    ("url", "code"),
    [("http://[::1]/", "url_refused"), ("file:///etc/passwd", "url_refused"), ("http://127.0.0.1:1/", "url_failed")],
)
def test_failed_fetch_is_an_error_response(fetching: TestClient, url: str, code: str) -> None:
    for path, body in (("search/image", {"url": url}), ("similarity", {"a": {"url": url}, "b": {"id": "cup"}})):
        response = fetching.post(f"/v1/{path}", json=body)
        assert (response.status_code, response.json()["code"]) == (422, code)


def test_urls_are_disabled_by_default(client: TestClient) -> None:
    response = client.post("/v1/search/image", json={"url": "http://example.com/cat.jpg"})
    assert (response.status_code, response.json()["code"]) == (422, "url_disabled")


@pytest.mark.parametrize("body", [{}, {"url": "http://x/", "image": "aGk="}, {"url": 5}, {"url": None}])
def test_image_search_needs_exactly_one_of_image_and_url(client: TestClient, body: dict[str, object]) -> None:
    response = client.post("/v1/search/image", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "request_invalid")

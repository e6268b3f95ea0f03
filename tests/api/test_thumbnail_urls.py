"""The URLs of thumbnails: of any id, in a path where proxies leave it as it is, and different for each version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import AWKWARD_ITEMS, ITEMS, build_collection

IN_A_PATH = {"a/b.jpg": "a/b.jpg", "a b/ü.jpg": "a%20b/%C3%BC.jpg"}
MAX_AGE = 3_600


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    collection = build_collection(tmp_path_factory.mktemp("awkward") / "awkward", items=AWKWARD_ITEMS)
    with TestClient(create_app(Settings(collection=collection)), raise_server_exceptions=False) as opened:
        wait_until_ready(opened)
        yield opened


def url_of(client: TestClient, item_id: str, resource: str = "/v1") -> str:
    url: str = client.get(f"{resource}/item", params={"id": item_id}).json()["thumbnail_url"]
    return url


@pytest.mark.parametrize("resource", ["/v1", "/v1/collections/awkward"])
@pytest.mark.parametrize("item_id", AWKWARD_ITEMS)
def test_any_id_has_a_working_url(awkward: TestClient, item_id: str, resource: str) -> None:
    version = awkward.get("/v1/collections/awkward").json()["version"]
    url = url_of(awkward, item_id, resource)
    if item_id in IN_A_PATH:
        assert url == f"{resource}/items/{IN_A_PATH[item_id]}/thumbnail?v={version}"
    else:
        assert url == f"{resource}/item/thumbnail?id={quote(item_id, safe='')}&v={version}"
    response = awkward.get(url)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/jpeg")
    assert awkward.head(url).status_code == 200


def test_each_url_has_the_thumbnail_of_its_item(awkward: TestClient) -> None:
    assert len({awkward.get(url_of(awkward, item_id)).content for item_id in AWKWARD_ITEMS}) == len(AWKWARD_ITEMS)


def test_searches_and_lists_have_the_same_urls(awkward: TestClient) -> None:
    found = awkward.post("/v1/search/text", json={"text": "x"}).json()["results"]
    listed = awkward.get("/v1/items").json()["items"]
    expected = {item_id: url_of(awkward, item_id) for item_id in AWKWARD_ITEMS}
    for records in (found, listed):
        assert {record["id"]: record["thumbnail_url"] for record in records} == expected


@pytest.mark.parametrize(
    "item_id", ["", "/", "a/", "/a", ".", "a/..", "\x85", "\x7f", "a\\b", "a;b", "100%", "thumbnail/thumbnail"]
)
def test_item_by_parameter_takes_any_text(awkward: TestClient, item_id: str) -> None:
    for path in ("/v1/item", "/v1/item/thumbnail", "/v1/collections/awkward/item"):
        response = awkward.get(path, params={"id": item_id})
        assert (response.status_code, response.json()["code"]) == (404, "unknown_item")


@pytest.mark.parametrize("item_id", [item_id for item_id in AWKWARD_ITEMS if "%" not in item_id])  # the client's fault
def test_encoded_id_works_in_a_path(awkward: TestClient, item_id: str) -> None:
    path = f"/v1/items/{quote(item_id, safe='')}"
    assert awkward.get(path).json()["id"] == item_id
    assert awkward.get(f"{path}/thumbnail").content == awkward.get(url_of(awkward, item_id)).content


def test_line_break_at_the_end_is_part_of_the_id(awkward: TestClient) -> None:
    assert awkward.get("/v1/items/a/b.jpg").status_code == 200
    assert awkward.get("/v1/items/a/b.jpg%0A").json()["code"] == "unknown_item"


def test_item_by_parameter_needs_the_parameter(awkward: TestClient) -> None:
    for path in ("/v1/item", "/v1/item/thumbnail"):
        assert (awkward.get(path).status_code, awkward.get(path).json()["code"]) == (422, "request_invalid")


def test_encoded_slashes_still_work(client: TestClient) -> None:
    for item_id in ITEMS:
        by_path = client.get(f"/v1/items/{quote(item_id, safe='')}/thumbnail")
        by_parameter = client.get("/v1/item/thumbnail", params={"id": item_id})
        assert (by_path.status_code, by_path.headers.get("etag")) == (
            by_parameter.status_code,
            by_parameter.headers.get("etag"),
        )


@pytest.mark.parametrize("path", ["/v1/items/left.png/thumbnail?", "/v1/item/thumbnail?id=left.png&"])
def test_cache_control_follows_the_version(client: TestClient, path: str) -> None:
    version = client.get("/v1/collections/photographs").json()["version"]
    expected = {"": f"private, max-age={MAX_AGE}", f"v={version}": f"private, max-age={MAX_AGE}, immutable"}
    for parameter, value in {**expected, "v=another": "private, no-cache"}.items():
        assert client.get(path + parameter).headers["cache-control"] == value


def test_replaced_image_has_another_url(tmp_path: Path) -> None:
    collection, item_id = tmp_path / "changing", "a/b.jpg"
    build_collection(collection, items={item_id: ("chelsea.png", None)})
    with TestClient(create_app(Settings(collection=collection, watch_seconds=0))) as client:
        wait_until_ready(client)
        before = url_of(client, item_id)
        first = client.get(before)
        build_collection(collection, items={item_id: ("rocket.jpg", None)})
        assert client.post("/v1/collections/changing/reload").status_code == 200
        after = url_of(client, item_id)
        assert after != before
        assert client.get(after).content != first.content
        assert client.get(before).headers["cache-control"] == "private, no-cache"

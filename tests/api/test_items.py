"""Items and their thumbnails, also with unusual ids."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from app.api.schemas import ItemResponse, ItemsResponse
from lookalike import images
from tests.api.small_collection import ITEMS, WITHOUT_THUMBNAIL

KINDS = {"image/webp", "image/jpeg", "image/png"}


@pytest.mark.parametrize("item_id", ITEMS)
def test_item_is_found_by_its_encoded_id(client: TestClient, item_id: str) -> None:
    response = client.get(f"/v1/items/{quote(item_id, safe='')}")
    assert response.status_code == 200, response.text
    item = ItemResponse.model_validate(response.json(), extra="forbid")
    assert (item.id, item.metadata["path"]) == (item_id, item_id)


def test_item_is_found_by_its_id_in_either_unicode_form(client: TestClient) -> None:
    item_id = next(item_id for item_id in ITEMS if "ö" in item_id)
    url = f"/v1/items/{quote(unicodedata.normalize('NFD', item_id), safe='')}"
    assert client.get(url).json()["id"] == item_id
    assert client.get(f"{url}/thumbnail").status_code == 200
    found = client.post("/v1/search/item", json={"id": unicodedata.normalize("NFD", item_id), "limit": 1})
    assert found.status_code == 200, found.text


def test_slashes_in_ids_need_no_encoding(client: TestClient) -> None:
    assert client.get("/v1/items/space/rocket.jpg").json()["id"] == "space/rocket.jpg"
    assert client.get("/v1/items/space/rocket.jpg/thumbnail").headers["content-type"] in KINDS


def test_id_that_ends_in_thumbnail_is_distinguished(client: TestClient) -> None:
    assert client.get("/v1/items/cup%2Fthumbnail").json()["id"] == "cup/thumbnail"
    coins, coffee = client.get("/v1/items/cup/thumbnail"), client.get("/v1/items/cup%2Fthumbnail/thumbnail")
    assert {coins.headers["content-type"], coffee.headers["content-type"]} <= KINDS
    assert coins.content != coffee.content


def test_thumbnail_is_small_and_cacheable(client: TestClient) -> None:
    first = client.get("/v1/items/left.png/thumbnail")
    assert max(images.decode(first.content).image.size) == images.THUMBNAIL_SIDE
    assert first.headers["x-content-type-options"] == "nosniff"
    assert first.headers["cache-control"] == "private, max-age=3600"
    assert first.headers["x-collection-version"] == client.get("/v1/collections/photographs").json()["version"]
    again = client.get("/v1/items/left.png/thumbnail", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get("/v1/items/right.png/thumbnail", headers={"If-None-Match": first.headers["etag"]})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/items/nobody.png", "unknown_item"),
        ("/v1/items/nobody.png/thumbnail", "unknown_item"),
        ("/v1/items/..%2F..%2Fetc%2Fpasswd", "unknown_item"),
        ("/v1/items/%00", "unknown_item"),
        ("/v1/items/%ff%fe", "unknown_item"),
        (f"/v1/items/{quote(WITHOUT_THUMBNAIL)}/thumbnail", "no_thumbnail"),
    ],
)
def test_unknown_item_and_thumbnail_are_404(client: TestClient, path: str, code: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, code)


def test_paging_lists_every_item_once(client: TestClient) -> None:
    pages = [client.get("/v1/items", params={"offset": offset, "limit": 4}).json() for offset in range(0, 16, 4)]
    for page in pages:
        ItemsResponse.model_validate(page, extra="forbid")
    assert [item["id"] for page in pages for item in page["items"]] == list(ITEMS)
    assert {page["total"] for page in pages} == {len(ITEMS)}


@pytest.mark.parametrize("query", ["limit=0", "limit=51", "limit=x", "offset=-1", "offset=1e3", f"offset={10**30}"])
def test_invalid_page_is_422(client: TestClient, query: str) -> None:
    response = client.get(f"/v1/items?{query}")
    assert response.status_code == 422
    assert response.json()["detail"].startswith(f"{query.partition('=')[0]} is ")

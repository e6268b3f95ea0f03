"""Fields, facets, counts, and the order of items."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api.schemas import CountResponse, FacetsResponse, ItemsResponse
from tests.api.small_collection import ITEMS

ANIMALS = {"must": [{"field": "path", "prefix": "animals/"}]}
PATHS = ("/v1", "/v1/collections/photographs")


def fields(response: Any) -> dict[str, dict[str, Any]]:
    assert response.status_code == 200, response.text
    FacetsResponse.model_validate(response.json(), extra="forbid")
    return {field["name"]: field for field in response.json()["fields"]}


@pytest.mark.parametrize("path", PATHS)
def test_fields_describe_every_column(client: TestClient, path: str) -> None:
    response = client.get(f"{path}/fields")
    found = fields(response)
    assert {name: field["type"] for name, field in found.items()} == {
        "id": "text", "path": "text", "caption": "text", "width": "integer", "height": "integer",
    }  # fmt: skip
    assert (response.json()["count"], response.json()["total"]) == (len(ITEMS), len(ITEMS))
    assert found["id"]["distinct"] == len(ITEMS)
    assert found["caption"]["count"] == len(ITEMS) - 1
    widths = [item["metadata"]["width"] for item in client.get("/v1/items").json()["items"]]
    assert (found["width"]["minimum"], found["width"]["maximum"]) == (min(widths), max(widths))


def test_fields_are_computed_once_a_version(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first = client.get("/v1/fields").json()
    monkeypatch.setattr("lookalike.item_table.facet", None)
    assert client.get("/v1/fields").json() == first


@pytest.mark.parametrize("path", PATHS)
def test_facets_and_count_agree_under_a_filter(client: TestClient, path: str) -> None:
    body = {"filter": ANIMALS, "fields": ["caption", "width"], "bins": 4, "limit": 1}
    response = client.post(f"{path}/facets", json=body)
    found = fields(response)
    assert list(found) == ["caption", "width"]
    assert found["caption"]["values"] == [{"value": "a cat", "count": 1}]
    assert found["caption"]["distinct"] == 2
    assert sum(found["width"]["histogram"]["counts"]) == 2
    count = client.post(f"{path}/count", json={"filter": ANIMALS}).json()
    CountResponse.model_validate(count, extra="forbid")
    assert (count["count"], count["total"]) == (response.json()["count"], len(ITEMS)) == (2, len(ITEMS))


def test_empty_bodies_describe_and_count_all(client: TestClient) -> None:
    assert client.post("/v1/facets", json={}).json()["fields"] == client.get("/v1/fields").json()["fields"]
    assert client.post("/v1/count", json={}).json()["count"] == len(ITEMS)
    assert fields(client.post("/v1/facets", json={"fields": []})) == {}


def test_bins_find_what_their_filters_count(client: TestClient) -> None:
    histogram = fields(client.post("/v1/facets", json={"fields": ["width"], "bins": 5}))["width"]["histogram"]
    bins = zip(histogram["edges"], histogram["edges"][1:], histogram["counts"], strict=False)
    for low, high, expected in bins:
        condition = {"must": [{"field": "width", "range": {"gte": low, "lt": high}}]}
        assert client.post("/v1/count", json={"filter": condition}).json()["count"] == expected


@pytest.mark.parametrize(
    ("path", "body", "code", "match"),
    [
        ("facets", {"fields": ["widht"]}, "query_invalid", "'widht'; did you mean 'width'? The columns are caption, h"),
        ("facets", {"fields": "width"}, "request_invalid", "fields"),
        ("facets", {"limit": 0}, "invalid_limit", "limit is 0; it must be between 1 and 1,000"),
        ("facets", {"limit": 1_001}, "invalid_limit", "limit is 1001"),
        ("facets", {"limit": "9"}, "invalid_limit", "limit"),
        ("facets", {"bins": 1}, "query_invalid", "bins is 1; it must be between 2 and 100"),
        ("facets", {"bins": 101}, "query_invalid", "bins is 101"),
        ("facets", {"filter": {"most": []}}, "filter_invalid", "filter.most"),
        ("facets", {"field": ["width"]}, "request_invalid", "did you mean 'fields'?"),
        ("count", {"filter": {"must": [{"field": "widht", "equals": 3}]}}, "filter_invalid", "did you mean 'width'?"),
        ("count", {"filter": {"must": [{"field": "width", "equals": "x"}]}}, "filter_invalid", "value 'x'"),
        ("count", {"fliter": {}}, "request_invalid", "did you mean 'filter'?"),
        ("count", [], "request_invalid", ""),
    ],
)
def test_invalid_requests_name_the_value(client: TestClient, path: str, body: Any, code: str, match: str) -> None:
    response = client.post(f"/v1/{path}", json=body)
    assert (response.status_code, response.json()["code"]) == (422, code), response.text
    assert match in response.json()["detail"]


def items(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    response = client.get("/v1/items", params=query)
    assert response.status_code == 200, response.text
    ItemsResponse.model_validate(response.json(), extra="forbid")
    found: list[dict[str, Any]] = response.json()["items"]
    return found


def test_items_are_sorted_in_both_directions(client: TestClient) -> None:
    for sort, reverse in (("width", False), ("-width", True)):
        expected = sorted(items(client), key=lambda item: item["metadata"]["width"], reverse=reverse)
        assert items(client, sort=sort) == expected  # `sorted` is stable in both directions


def test_missing_values_are_last_in_both_directions(client: TestClient) -> None:
    for sort in ("caption", "-caption"):
        captions = [item["metadata"].get("caption") for item in items(client, sort=sort)]
        known = [caption for caption in captions if caption]
        assert captions == [*sorted(known, reverse=sort.startswith("-")), None]


def test_sorted_pages_list_every_filtered_item_once(client: TestClient) -> None:
    condition = '{"must": [{"field": "caption", "prefix": "a"}]}'
    whole = [item["id"] for item in items(client, sort="-id", filter=condition)]
    pages = [items(client, sort="-id", filter=condition, offset=i, limit=2) for i in range(0, 10, 2)]
    assert [item["id"] for page in pages for item in page] == whole == sorted(whole, reverse=True)
    assert 2 < len(whole) < len(ITEMS)


@pytest.mark.parametrize("sort", ["widht", "-widht", "", "-", "width.x"])
def test_unknown_sort_names_the_columns(client: TestClient, sort: str) -> None:
    response = client.get("/v1/items", params={"sort": sort})
    assert (response.status_code, response.json()["code"]) == (422, "query_invalid"), response.text
    assert response.json()["detail"].startswith("sort: unknown metadata column ")
    if "." not in sort:
        assert "The columns are caption, height, id, path, width" in response.json()["detail"]

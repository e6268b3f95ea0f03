"""No parameter is ignored: options in the query string, in forms and in JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api.schemas import ItemsResponse, SearchResponse
from tests.api.small_collection import ITEMS, photograph

CAT = "animals/cat.png"
HORSE = "animals/höhe & breite?#100%.png"
ANIMALS = {"must": [{"field": "path", "prefix": "animals/"}]}
TEXT, IMAGE, ITEM = "/v1/search/text", "/v1/search/image", "/v1/search/item"
FILE = ("cat.png", photograph(CAT), "image/png")
BASE64 = base64.b64encode(photograph(CAT)).decode()

OPTIONS: dict[str, tuple[Any, str]] = {
    "limit": (2, "2"),
    "filter": (ANIMALS, json.dumps(ANIMALS)),
    "params": ({"exact": True}, json.dumps({"exact": True})),
    "fields": (["caption", "width"], "caption, width"),
    "offset": (2, "2"),
    "min_score": (0.99, "0.99"),
    "include": (["embedding"], "embedding"),
    "group_by": ("height", "height"),
    "deduplicate": (0.9, "0.9"),
}
"""The options of a search: their JSON, and their text."""


def as_json(path: str, **options: Any) -> dict[str, Any]:
    query: dict[str, Any] = {TEXT: {"text": "a cat"}, IMAGE: {"image": BASE64}, ITEM: {"id": CAT}}[path]
    return {"json": {**query, **{name: value for name, (value, _) in options.items()}}}


def as_form(path: str, **options: Any) -> dict[str, Any]:
    queries: dict[str, dict[str, Any]] = {
        TEXT: {"text": (None, "a cat")},
        IMAGE: {"file": FILE},
        ITEM: {"id": (None, CAT)},
    }
    query = queries[path]
    return {"files": {**query, **{name: (None, text) for name, (_, text) in options.items()}}}


def as_raw(path: str, **options: Any) -> dict[str, Any]:
    assert path == IMAGE
    assert not options
    return {"content": photograph(CAT), "headers": {"Content-Type": "image/png"}}


BODIES = [(path, body) for path in (TEXT, IMAGE, ITEM) for body in (as_json, as_form)]
every_body = pytest.mark.parametrize(("path", "body"), BODIES, ids=lambda value: str(getattr(value, "__name__", value)))
every_option = pytest.mark.parametrize("name", OPTIONS)


def problem(response: Any, status: int = 422) -> str:
    assert response.status_code == status, response.text
    detail: str = response.json()["detail"]
    return detail


def results(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    SearchResponse.model_validate(response.json(), extra="forbid")
    found: list[dict[str, Any]] = response.json()["results"]
    return found


def is_applied(name: str, response: Any) -> bool:
    found = results(response)
    return {
        "limit": len(found) == 2,
        "filter": sorted(hit["id"] for hit in found) == sorted([CAT, HORSE]),
        "params": len(found) == len(ITEMS),
        "fields": all(hit["metadata"].keys() <= {"caption", "width"} and "width" in hit["metadata"] for hit in found),
        "offset": len(found) == len(ITEMS) - 2,
        "min_score": len(found) < len(ITEMS) and all(hit["score"] >= 0.99 for hit in found),
        "include": all(hit.get("embedding") for hit in found),
        "group_by": all("group" in hit and hit["group"] == hit["metadata"]["height"] for hit in found),
        "deduplicate": sum(1 + hit.get("duplicates", 0) for hit in found) == len(ITEMS) > len(found),
    }[name]


@every_option
@every_body
def test_option_is_applied_from_body_and_query(client: TestClient, path: str, body: Any, name: str) -> None:
    option = OPTIONS[name]
    assert is_applied(name, client.post(path, **body(path, **{name: option})))
    assert is_applied(name, client.post(path, params={name: option[1]}, **body(path)))


@every_option
def test_option_of_a_raw_image_is_applied(client: TestClient, name: str) -> None:
    assert is_applied(name, client.post(IMAGE, params={name: OPTIONS[name][1]}, **as_raw(IMAGE)))


@every_option
@every_body
def test_option_in_query_and_body_is_refused(client: TestClient, path: str, body: Any, name: str) -> None:
    response = client.post(path, params={name: OPTIONS[name][1]}, **body(path, **{name: OPTIONS[name]}))
    assert problem(response) == f"{name} is in the query string and in the body; give it once"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", TEXT),
        ("POST", IMAGE),
        ("POST", ITEM),
        ("POST", "/v1/collections/photographs/search/text"),
        ("POST", "/v1/similarity"),
        ("GET", "/v1/items"),
        ("HEAD", "/v1/items/cup"),
        ("GET", "/v1/items/cup"),
        ("GET", "/v1/items/cup/thumbnail"),
        ("GET", "/v1/collections"),
        ("GET", "/v1/collections/photographs"),
        ("POST", "/v1/collections/photographs/reload"),
        ("GET", "/v1/stats"),
    ],
)
def test_unknown_query_parameter_is_refused(client: TestClient, method: str, path: str) -> None:
    response = client.request(method, path, params={"utm_source": "x"})
    assert response.status_code == 422
    if method != "HEAD":
        assert "unknown query parameter 'utm_source'" in problem(response)
        assert response.json()["errors"] == [{"field": "utm_source", "message": "unknown query parameter"}]


@pytest.mark.parametrize("path", ["/", "/docs", "/livez", "/readyz", "/metrics", "/openapi.json", "/static/api.js"])
def test_other_paths_accept_any_parameter(client: TestClient, path: str) -> None:
    assert client.get(path, params={"utm_source": "x"}).status_code == 200


def test_unknown_parameter_gets_the_nearest_known_one(client: TestClient) -> None:
    by_query = problem(client.post(TEXT, params={"lmit": "3"}, **as_json(TEXT)))
    assert by_query == (
        "unknown query parameter 'lmit'; did you mean 'limit'? Known: deduplicate, fields, filter, group_by, "
        "group_size, include, limit, min_probability, min_score, offset, params"
    )
    by_form = problem(client.post(IMAGE, files={"file": FILE}, data={"filters": json.dumps(ANIMALS)}))
    assert by_form == (
        "unknown form field 'filters'; did you mean 'filter'? Known: deduplicate, fields, file, filter, group_by, "
        "group_size, include, limit, min_probability, min_score, offset, params"
    )
    by_json = problem(client.post(TEXT, json={"text": "x", "filtr": ANIMALS}))
    assert by_json == (
        "unknown field 'filtr'; did you mean 'filter'? Known: deduplicate, fields, filter, group_by, group_size, "
        "include, limit, min_probability, min_score, offset, params, text"
    )
    nested = problem(client.post(TEXT, json={"text": "x", "params": {"efsearch": 8}}))
    assert nested.startswith("params: unknown field 'efsearch'; did you mean 'efSearch'? Known: ")
    side = problem(client.post("/v1/similarity", json={"a": {"txt": "x"}, "b": {"text": "x"}}))
    assert side.startswith("a: unknown field 'txt'; did you mean 'text'? Known: id, image, text, url")
    pair = problem(client.post("/v1/similarity", files={"a": FILE, "b": FILE}, data={"treshold": "1"}))
    assert "did you mean 'threshold'?" in pair


@pytest.mark.parametrize("query", ["limit=1&limit=2", "limit=1&limit=1", "fields=&fields=caption"])
def test_repeated_query_parameter_is_refused(client: TestClient, query: str) -> None:
    assert "is given 2 times; give it once" in problem(client.get(f"/v1/items?{query}"))
    assert "is given 2 times; give it once" in problem(client.post(f"{TEXT}?{query}", **as_json(TEXT)))


def test_repeated_form_field_is_refused(client: TestClient) -> None:
    response = client.post(IMAGE, files=[("file", FILE), ("limit", (None, "1")), ("limit", (None, "2"))])
    assert problem(response) == "the field 'limit' is given twice; give it once"


@pytest.mark.parametrize("name", ["limit", "filter", "params"])
def test_empty_option_is_refused(client: TestClient, name: str) -> None:
    assert name in problem(client.post(f"{TEXT}?{name}=", **as_json(TEXT)))
    assert name in problem(client.post(IMAGE, **as_form(IMAGE, **{name: (None, "")})))


def test_caller_is_checked_before_parameters(client: TestClient, settings: Any) -> None:
    from app.main import create_app

    keyed = settings.model_copy(update={"keys": type(settings.keys)("read:0123456789abcdef")})
    with TestClient(create_app(keyed)) as other:
        assert other.get("/v1/items?unknown=1").status_code == 401


# Fields.


def test_no_fields_gives_no_metadata(client: TestClient) -> None:
    for response in (
        client.post(f"{TEXT}?fields=", **as_json(TEXT)),
        client.post(TEXT, json={"text": "x", "fields": []}),
    ):
        assert all(hit["metadata"] == {} and hit["id"] and "thumbnail_url" in hit for hit in results(response))


def test_fields_may_be_a_json_array_in_text(client: TestClient) -> None:
    found = results(client.post(TEXT, params={"fields": '["width"]'}, **as_json(TEXT)))
    assert all(hit["metadata"].keys() == {"width"} for hit in found)


@pytest.mark.parametrize("path", ["/v1/items", "/v1/items/cup", "/v1/item?id=cup/thumbnail"])
def test_items_have_the_chosen_fields(client: TestClient, path: str) -> None:
    def metadata(response: Any) -> list[dict[str, Any]]:
        body = response.json()
        return [item["metadata"] for item in body.get("items", [body])]

    sign = "&" if "?" in path else "?"
    assert all(each.keys() == {"width", "path"} for each in metadata(client.get(f"{path}{sign}fields=width,path,id")))
    assert all(each == {} for each in metadata(client.get(f"{path}{sign}fields=")))


@pytest.mark.parametrize("path", ["/v1/items/cup/thumbnail", "/v1/item/thumbnail?id=cup"])
def test_thumbnails_take_no_fields(client: TestClient, path: str) -> None:
    response = client.get(path, params={"id": "cup", "fields": "width"} if "?" in path else {"fields": "width"})
    assert response.status_code == 422
    assert "unknown query parameter 'fields'" in problem(response)


@pytest.mark.parametrize("send", ["text", "item", "items", "one"])
def test_unknown_field_gets_the_nearest_column(client: TestClient, send: str) -> None:
    response = {
        "text": lambda: client.post(TEXT, json={"text": "x", "fields": ["captoin"]}),
        "item": lambda: client.post(ITEM, params={"fields": "captoin"}, json={"id": CAT}),
        "items": lambda: client.get("/v1/items?fields=width,captoin"),
        "one": lambda: client.get("/v1/items/cup?fields=captoin"),
    }[send]()
    assert "unknown metadata column 'captoin'; did you mean 'caption'?" in problem(response)
    assert response.json()["code"] == "query_invalid"


# The list of items.


def listed(client: TestClient, **query: Any) -> ItemsResponse:
    response = client.get("/v1/items", params=query)
    assert response.status_code == 200, response.text
    return ItemsResponse.model_validate(response.json(), extra="forbid")


def test_items_are_filtered_in_row_order(client: TestClient) -> None:
    small = {"must": [{"field": "width", "range": {"lt": 700}}]}
    expected = [item.id for item in listed(client, limit=50).items if item.metadata["width"] < 700]
    assert 3 < len(expected) < len(ITEMS)
    pages = [listed(client, filter=json.dumps(small), offset=offset, limit=2) for offset in range(0, 8, 2)]
    assert [item.id for page in pages for item in page.items] == expected
    assert {page.total for page in pages} == {len(expected)}
    assert listed(client, filter=json.dumps(small), limit=2, offset=10**6).items == []


def test_items_without_a_match_are_none(client: TestClient) -> None:
    nothing = {"must": [{"field": "width", "range": {"gt": 10**6}}]}
    assert listed(client, filter=json.dumps(nothing)).total == 0


@pytest.mark.parametrize(
    ("condition", "match"),
    [
        ("", "filter: Invalid JSON"),
        ("width > 3", "filter: Invalid JSON"),
        ('{"must": [{"field": "widht", "equals": 3}]}', "did you mean 'width'?"),
    ],
)
def test_invalid_filter_of_items_is_refused(client: TestClient, condition: str, match: str) -> None:
    response = client.get("/v1/items", params={"filter": condition})
    assert response.json()["code"] == "filter_invalid"
    assert match in problem(response)

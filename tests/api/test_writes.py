"""Writes over HTTP: what a client sends, what it gets back, and what the next search finds."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from lookalike.encoders.registry import load_encoder
from lookalike.errors import DiskFull
from lookalike.writes.writer import Writer
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import ITEMS, PHOTOGRAPHS, build_collection
from tests.api.waiting import eventually

IMAGE = (PHOTOGRAPHS / "coffee.png").read_bytes()
JPEG = {"Content-Type": "image/png"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build_collection(tmp_path / "photographs")


@pytest.fixture
def client(root: Path) -> Iterator[TestClient]:
    with _serving(Settings(collection=root, writable=True, max_body_bytes=4_000_000)) as opened:
        wait_until_ready(opened)
        yield opened


def _serving(settings: Settings) -> TestClient:
    return TestClient(create_app(settings), raise_server_exceptions=False)


def put(client: TestClient, item_id: str, **metadata: Any) -> Any:
    return client.put(f"/v1/items/{item_id}", content=IMAGE, headers=JPEG, params={"metadata": json.dumps(metadata)})


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def bomb() -> bytes:
    """A PNG of a few kilobytes that decodes to 400 million pixels."""
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    return out.getvalue()


def first(client: TestClient, **search: Any) -> list[str]:
    response = client.post("/v1/search/text", json={"text": "a cat", "limit": 50, **search})
    assert response.status_code == 200, response.text
    return [each["id"] for each in response.json()["results"]]


def test_put_image_is_found_by_the_next_search(client: TestClient) -> None:
    response = put(client, "shop/red shoe.jpg", brand="acme", price=49.9)
    assert response.status_code == 201
    body = response.json()
    assert body["metadata"] == {"width": 600, "height": 400, "format": "PNG", "brand": "acme", "price": 49.9}
    assert response.headers["etag"] == body["etag"]
    found = client.post("/v1/search/image", content=IMAGE, headers=JPEG).json()["results"]
    assert {each["id"] for each in found[:2]} == {"shop/red shoe.jpg", "cup/thumbnail"}
    assert [each["score"] for each in found[:2]] == [1.0, 1.0]
    thumbnail = client.get(body["thumbnail_url"])
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert "immutable" in thumbnail.headers["cache-control"]
    item = client.get("/v1/items/shop/red shoe.jpg")
    assert item.json()["metadata"] == body["metadata"]
    assert item.headers["etag"] == body["etag"]
    assert client.get("/v1/collections/photographs").json()["items"] == len(ITEMS) + 1


def test_put_by_form_base64_and_embedding(client: TestClient) -> None:
    form = client.put("/v1/items/form", files={"file": IMAGE}, data={"metadata": '{"brand": "acme"}'})
    coded = {"image": base64.b64encode(IMAGE).decode(), "metadata": {"brand": "acme"}}
    by_json = client.put("/v1/items/json", json=coded)
    vector = load_encoder("fake").encode_texts(["green"])[0]  # type: ignore[attr-defined]
    by_vector = client.put("/v1/items/vector", json={"embedding": [2 * float(x) for x in vector]})
    assert [each.status_code for each in (form, by_json, by_vector)] == [201, 201, 201]
    assert by_vector.json()["thumbnail_url"] is None
    hits = client.post("/v1/search/text", json={"text": "green", "limit": 1}).json()["results"]
    assert (hits[0]["id"], hits[0]["score"]) == ("vector", pytest.approx(1.0, abs=1e-4))
    passing = {"must": [{"field": "brand", "equals": "acme"}]}
    assert set(first(client, filter=passing)) == {"form", "json"}


def test_put_replaces_and_its_thumbnail_has_another_url(client: TestClient) -> None:
    before = client.get("/v1/items/cup").json()["thumbnail_url"]
    response = client.put("/v1/items/cup", content=IMAGE, headers=JPEG)
    assert (response.status_code, response.json()["result"]) == (200, "replaced")
    assert "caption" not in response.json()["metadata"]
    after = response.json()["thumbnail_url"]
    assert after != before
    assert client.get(after).content != client.get("/v1/items/left.png/thumbnail").content
    assert first(client).count("cup") == 1
    again = put(client, "cup", caption="new")
    assert again.json()["thumbnail_url"] not in (before, after)


def test_patch_merges_metadata(client: TestClient) -> None:
    put(client, "shoe", brand="acme", size={"eu": 42, "us": 9}, tags=["a", "b"])
    patched = client.patch("/v1/items/shoe", json={"metadata": {"brand": None, "size": {"us": 10}, "stock": 3}})
    assert (patched.status_code, patched.json()["result"]) == (200, "patched")
    expected = {"size": {"eu": 42, "us": 10}, "tags": ["a", "b"], "stock": 3}
    assert patched.json()["metadata"].items() >= expected.items()
    assert "brand" not in patched.json()["metadata"]
    of_source = client.patch("/v1/items/left.png", json={"metadata": {"caption": "two wheels", "stock": 4}})
    assert of_source.json()["metadata"]["caption"] == "two wheels"
    assert of_source.json()["thumbnail_url"] is not None
    assert set(first(client, filter={"must": [{"field": "stock", "exists": True}]})) == {"shoe", "left.png"}
    listed = client.get("/v1/items", params={"sort": "-stock", "limit": 2, "fields": "stock"}).json()
    assert [(each["id"], each["metadata"]["stock"]) for each in listed["items"]] == [("left.png", 4), ("shoe", 3)]
    assert listed["total"] == len(ITEMS) + 1


def test_deleted_item_is_gone_at_once(client: TestClient) -> None:
    put(client, "shoe", brand="acme")
    for item_id in ("shoe", "space/rocket.jpg"):
        assert item_id in first(client)
        assert client.delete(f"/v1/items/{item_id}").json()["result"] == "deleted"
        assert item_id not in first(client)
        assert code(client.get(f"/v1/items/{item_id}")) == (404, "unknown_item")
        assert code(client.delete(f"/v1/items/{item_id}")) == (404, "unknown_item")
    assert client.post("/v1/count", json={}).json()["count"] == len(ITEMS) - 1
    facets = client.post("/v1/facets", json={"fields": ["brand"]}).json()["fields"][0]
    assert (facets["count"], facets["values"]) == (0, [])


def test_batch_has_a_result_for_each_operation(client: TestClient) -> None:
    image = base64.b64encode(IMAGE).decode()
    operations = [
        {"op": "put", "id": "a", "image": image, "metadata": {"price": 5}},
        {"op": "put", "id": "b", "image": base64.b64encode(b"no image").decode()},
        {"op": "patch", "id": "a", "metadata": {"price": 6}},
        {"op": "patch", "id": "nobody", "metadata": {"price": 6}},
        {"op": "delete", "id": "cup"},
        {"op": "put", "id": "c"},
        {"op": "put", "id": "a", "image": image, "if_none_match": "*"},
        {"op": "destroy", "id": "d"},
    ]
    response = client.post("/v1/items/batch", json={"operations": operations})
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    assert [each.get("result", each.get("code")) for each in results] == [
        "created",
        "image_unsupported",
        "patched",
        "unknown_item",
        "deleted",
        "request_invalid",
        "precondition_failed",
        "request_invalid",
    ]
    assert [each["id"] for each in results] == ["a", "b", "a", "nobody", "cup", "c", "a", "d"]
    assert response.json()["counts"] == {"created": 1, "replaced": 0, "patched": 1, "deleted": 1, "failed": 5}
    assert client.get("/v1/items/a").json()["metadata"]["price"] == 6
    assert code(client.post("/v1/items/batch", json={"operations": []})) == (422, "request_invalid")
    many = [{"op": "delete", "id": str(i)} for i in range(1_001)]
    assert code(client.post("/v1/items/batch", json={"operations": many})) == (422, "request_invalid")


def test_batch_of_a_thousand_embeddings(client: TestClient) -> None:
    dim = load_encoder("fake").spec.dim
    vectors = [[float(number % 7 - 3), *[0.5] * (dim - 1)] for number in range(1_000)]
    operations = [{"op": "put", "id": f"v/{i}", "embedding": vector} for i, vector in enumerate(vectors)]
    operations = [{**each, "metadata": {"list": [0] * 700}} for each in operations]  # as many values as larger encoders
    response = client.post("/v1/items/batch", json={"operations": operations})
    assert response.status_code == 200, response.text
    assert response.json()["counts"]["created"] == 1_000
    assert client.get("/v1/collections/photographs").json()["items"] == len(ITEMS) + 1_000


def test_id_that_is_not_utf8_is_refused(client: TestClient) -> None:
    assert code(client.put("/v1/items/a%FFb", content=IMAGE, headers=JPEG)) == (422, "id_invalid")
    assert client.put("/v1/items/a%C3%BFb", content=IMAGE, headers=JPEG).json()["id"] == "aÿb"


def test_delete_by_filter(client: TestClient) -> None:
    for number in range(5):
        put(client, f"shoe/{number}", price=number)
    body = {"filter": {"must": [{"field": "price", "range": {"gte": 2}}]}}
    assert client.post("/v1/items/delete", json={**body, "dry_run": True}).json()["count"] == 3
    assert len(first(client)) == len(ITEMS) + 5
    assert client.post("/v1/items/delete", json=body).json()["count"] == 3
    assert len(first(client)) == len(ITEMS) + 2
    assert code(client.post("/v1/items/delete", json={"filter": {}})) == (422, "filter_invalid")
    assert client.post("/v1/items/delete", json=body).json()["count"] == 0


def test_preconditions(client: TestClient) -> None:
    tag = client.get("/v1/items/cup").headers["etag"]
    new = {"If-None-Match": "*", **JPEG}
    assert code(client.put("/v1/items/cup", content=IMAGE, headers=new)) == (412, "precondition_failed")
    assert client.put("/v1/items/new", content=IMAGE, headers=new).status_code == 201
    patch = {"json": {"metadata": {"caption": "coins"}}}
    assert client.patch("/v1/items/cup", headers={"If-Match": tag}, **patch).status_code == 200
    assert code(client.patch("/v1/items/cup", headers={"If-Match": tag}, **patch)) == (412, "precondition_failed")
    assert code(client.delete("/v1/items/cup", headers={"If-Match": tag})) == (412, "precondition_failed")
    now = client.get("/v1/items/cup").headers["etag"]
    assert code(client.delete("/v1/items/cup", headers={"If-None-Match": "*"})) == (412, "precondition_failed")
    assert client.delete("/v1/items/cup", headers={"If-Match": f'"other", {now}'}).status_code == 200
    assert code(client.put("/v1/items/gone", content=IMAGE, headers={"If-Match": "*", **JPEG})) == (
        412,
        "precondition_failed",
    )


@pytest.mark.parametrize("item_id", ["a//b", "a/../b", "a/./b", "x/thumbnail", "a\x01b", "é" * 600, "a/", "%2E%2E/b"])
def test_ids_that_no_new_item_can_have(client: TestClient, item_id: str) -> None:
    operation = {"op": "put", "id": item_id.replace("%2E", "."), "image": base64.b64encode(IMAGE).decode()}
    results = client.post("/v1/items/batch", json={"operations": [operation]}).json()["results"]
    assert results[0]["code"] == "id_invalid"
    assert len(first(client)) == len(ITEMS)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"caption": 5}, "metadata.caption is 5, but the column holds text"),
        ({"width": 5}, "metadata.width is measured on the image"),
        ({"source": "mine"}, "metadata.source can't be set by a write"),
        ({"_hidden": 5}, "can't be a column"),
        ({"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}, "nested 6 deep"),
        ({"text": "x" * 70_000}, "the metadata has 70,"),
        ({"mixed": [1, "a"]}, "must have one type"),
        ({f"column {number}": 1 for number in range(300)}, "writes create columns up to 256"),
    ],
)
def test_metadata_that_does_not_fit(client: TestClient, metadata: dict[str, Any], message: str) -> None:
    coded = {"image": base64.b64encode(IMAGE).decode(), "metadata": metadata}
    response = client.put("/v1/items/new", json=coded)
    assert code(response) == (422, "metadata_invalid")
    assert message in response.json()["detail"]
    assert code(client.get("/v1/items/new")) == (404, "unknown_item")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"content": b"no image", "headers": JPEG}, (422, "image_unsupported")),
        ({"content": b"", "headers": JPEG}, (422, "image_undecodable")),
        ({"content": IMAGE, "headers": {"Content-Type": "text/plain"}}, (415, "media_type_unsupported")),
        ({"json": {"embedding": [1.0, 2.0]}}, (422, "query_invalid")),
        ({"json": {"embedding": [1.0], "image": "x"}}, (422, "request_invalid")),
        ({"json": {}}, (422, "request_invalid")),
        ({"json": {"url": "http://127.0.0.1/x.jpg"}}, (422, "url_disabled")),
        ({"content": IMAGE, "headers": JPEG, "params": {"metadata": "[1]"}}, (422, "metadata_invalid")),
        ({"content": IMAGE, "headers": JPEG, "params": {"metadata": "{"}}, (422, "metadata_invalid")),
        ({"files": {"other": IMAGE}}, (422, "request_invalid")),
        ({"content": bytes(5_000_000), "headers": JPEG}, (413, "body_too_large")),
        ({"content": bomb(), "headers": JPEG}, (422, "image_too_large")),
        (
            {"content": IMAGE, "headers": JPEG, "params": {"metadata": '{"a":' + "[" * 900 + "]" * 900 + "}"}},
            (422, "metadata_invalid"),
        ),
    ],
)
def test_bodies_that_are_no_item(client: TestClient, body: dict[str, Any], expected: tuple[int, str]) -> None:
    assert code(client.put("/v1/items/new", **body)) == expected
    assert code(client.get("/v1/items/new")) == (404, "unknown_item")


def test_service_that_is_not_writable_refuses(root: Path) -> None:
    with _serving(Settings(collection=root)) as client:
        wait_until_ready(client)
        for response in (
            put(client, "new"),
            client.patch("/v1/items/cup", json={"metadata": {}}),
            client.delete("/v1/items/cup"),
            client.post("/v1/items/batch", json={"operations": [{"op": "delete", "id": "cup"}]}),
            client.post("/v1/items/delete", json={"filter": {"must": []}}),
        ):
            assert code(response) == (403, "read_only")
        assert not (root / "writes.lock").exists()


def test_role_write_is_needed(root: Path) -> None:
    keys = {role: f"{role}-0123456789abcdef" for role in ("read", "write", "admin")}
    settings = Settings(collection=root, writable=True, keys=" ".join(f"{role}:{key}" for role, key in keys.items()))
    with _serving(settings) as client:
        for role, status in (("read", 403), ("write", 200), ("admin", 200)):
            client.headers["Authorization"] = f"Bearer {keys[role]}"
            if role == "read":
                wait_until_ready(client)
            response = client.patch("/v1/items/cup", json={"metadata": {"caption": role}})
            assert response.status_code == status, response.text
        reload = client.post("/v1/collections/photographs/reload", headers={"Authorization": f"Bearer {keys['write']}"})
        assert code(reload) == (403, "role_missing")


def test_page_of_another_origin_may_not_write(client: TestClient) -> None:
    response = client.delete("/v1/items/cup", headers={"Origin": "https://elsewhere.example"})
    assert code(response) == (403, "host_refused")


def test_writes_survive_a_restart(root: Path) -> None:
    with _serving(Settings(collection=root, writable=True)) as client:
        wait_until_ready(client)
        tag = put(client, "new", brand="acme").headers["etag"]
        client.patch("/v1/items/left.png", json={"metadata": {"caption": "wheels"}})
        client.delete("/v1/items/cup")
    with _serving(Settings(collection=root, writable=True)) as client:
        wait_until_ready(client)
        assert client.get("/v1/items/new").headers["etag"] == tag
        assert client.get("/v1/items/left.png").json()["metadata"]["caption"] == "wheels"
        assert code(client.get("/v1/items/cup")) == (404, "unknown_item")
        facts = client.get("/v1/collections/photographs").json()
        assert (facts["writable"], facts["pending_writes"], facts["items"]) == (True, 3, len(ITEMS))


def test_second_writable_service_is_refused(root: Path, client: TestClient) -> None:
    with _serving(Settings(collection=root, writable=True)) as second:
        eventually(lambda: "collection_busy" in second.get("/readyz").text)
        assert "one writer at a time" in second.get("/readyz").text


def test_pending_writes_are_bounded(root: Path) -> None:
    with _serving(Settings(collection=root, writable=True, max_pending=2)) as client:
        wait_until_ready(client)
        assert [put(client, name).status_code for name in ("a", "b", "a")] == [201, 201, 200]
        refused = put(client, "c")
        assert code(refused) == (503, "pending_full")
        assert refused.headers["retry-after"]
        assert client.delete("/v1/items/a").status_code == 200
        assert put(client, "c").status_code == 201


def test_cross_origin_writes_follow_the_settings(root: Path) -> None:
    preflight = {"Origin": "https://shop.example", "Access-Control-Request-Method": "PUT"}
    for writable in (False, True):
        settings = Settings(collection=root, writable=writable, cors_origins="https://shop.example")
        with _serving(settings) as client:
            response = client.options("/v1/items/cup", headers=preflight)
            assert ("PUT" in response.headers["access-control-allow-methods"]) == writable


def test_version_is_served_although_its_writes_are_not_released(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(writer: Writer) -> None:
        raise DiskFull("the disk is full")

    monkeypatch.setattr(Writer, "release", full)
    with _serving(Settings(collection=root, writable=True)) as client:
        wait_until_ready(client)
        assert put(client, "new").status_code == 201
        assert "writes_not_released name=photographs: the disk is full" in caplog.text
        assert client.post("/v1/collections/photographs/reload").status_code == 200

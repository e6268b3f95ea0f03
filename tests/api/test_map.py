"""GET /v1/map: the places of items, found without a restart, revalidated, coloured, and after writes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.api.schemas import MapResponse
from app.main import create_app
from app.settings import Settings
from lookalike.collection import current_manifest, store_map
from lookalike.collection_map import MAP_FILE, CollectionMap
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import ITEMS

PATHS = ("/v1/map", "/v1/collections/photographs/map")


@pytest.fixture
def root(collection: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(collection, tmp_path / "photographs"))


@pytest.fixture
def opened(root: Path) -> Iterator[TestClient]:
    settings = Settings(collection=root, writable=True)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client


def mapped(root: Path, scale: float = 1.0) -> Path:
    """Store a map whose points are on a diagonal, and return its file."""
    version = current_manifest(root).version
    points = np.repeat(np.linspace(0, scale, len(ITEMS), dtype=np.float32)[:, None], 2, axis=1)
    folder = root / "versions" / version
    store_map(folder, CollectionMap(version, points, "umap", {}, "2026-01-01T00:00:00Z"))
    return folder / MAP_FILE


def test_map_is_found_without_a_restart(opened: TestClient, root: Path) -> None:
    missing = opened.get("/v1/map")
    assert (missing.status_code, missing.json()["code"]) == (404, "no_map")
    assert "`lookalike map photographs`" in missing.json()["detail"]
    mapped(root)
    for path in PATHS:
        response = opened.get(path)
        assert response.status_code == 200, response.text
        MapResponse.model_validate(response.json(), extra="forbid")
    body = response.json()
    assert body["ids"] == list(ITEMS)
    assert body["x"] == body["y"] == [round(i / 8, 5) for i in range(9)]
    assert (body["items"], body["unmapped"], body["method"], body["field"]) == (9, 0, "umap", None)


def test_etag_changes_with_the_map(opened: TestClient, root: Path) -> None:
    mapped(root)
    first = opened.get("/v1/map")
    again = opened.get("/v1/map", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    mapped(root, scale=0.5)
    changed = opened.get("/v1/map", headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert max(changed.json()["x"]) == 0.5


def test_field_has_a_value_for_each_item(opened: TestClient, root: Path) -> None:
    mapped(root)
    field = opened.get("/v1/map", params={"field": "caption"}).json()["field"]
    assert field == {"name": "caption", "type": "text", "values": [caption for _, caption in ITEMS.values()]}
    unknown = opened.get("/v1/map", params={"field": "captoin"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "query_invalid")
    assert "did you mean 'caption'" in unknown.json()["detail"]


@pytest.mark.parametrize("content", [b"", b"no map"])
def test_damaged_map_is_as_good_as_none(opened: TestClient, root: Path, content: bytes) -> None:
    mapped(root).write_bytes(content)
    response = opened.get("/v1/map")
    assert (response.status_code, response.json()["code"]) == (404, "no_map")
    assert "damaged; make it again with `lookalike map photographs`" in response.json()["detail"]
    assert opened.get("/readyz").status_code == 200


def test_writes_show_at_once(opened: TestClient, root: Path) -> None:
    mapped(root)
    before = opened.get("/v1/map?field=caption").json()
    embedding = np.eye(current_manifest(root).encoder.dim)[0].tolist()
    assert opened.put("/v1/items/new", json={"embedding": embedding}).status_code == 201
    assert opened.patch("/v1/items/left.png", json={"metadata": {"caption": "changed"}}).status_code == 200
    assert opened.delete("/v1/items/right.png").status_code == 200
    after = opened.get("/v1/map?field=caption").json()
    assert (after["items"], after["unmapped"]) == (8, 1)
    kept = [i for i, item_id in enumerate(before["ids"]) if item_id != "right.png"]
    assert after["ids"] == [before["ids"][i] for i in kept]
    assert after["x"] == [before["x"][i] for i in kept]
    assert after["field"]["values"][after["ids"].index("left.png")] == "changed"

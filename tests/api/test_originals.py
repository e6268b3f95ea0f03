"""Originals: the files below the sources' folders, and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from app.api.schemas import ItemResponse, SearchResponse
from app.main import create_app
from app.settings import Settings
from indexing.job import IndexSettings, IndexSummary, run_index
from lookalike.source_places import SOURCES_FILE
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import PHOTOGRAPHS

KEY = "read:0123456789abcdef0123456789abcdef"
TYPES = {
    "cat.png": ("chelsea.png", "image/png"),
    "sub folder/höhe & 100%?#.jpg": ("rocket.jpg", "image/jpeg"),
    "named-wrongly.jpg": ("coins.png", "image/png"),
    "original": ("coffee.png", "image/png"),
    "cup/original": ("motorcycle_left.png", "image/png"),
}
SPOILED = ("deleted.png", "text.png", "vector.png", "page.png", "bmw.png", "outside.png", "folder.png", "fifo.png")


def index(collection: Path, *sources: str | Path) -> IndexSummary:
    return run_index(IndexSettings(tuple(map(str, sources)), collection, encoder="fake", store="exact"))


def photograph(name: str) -> bytes:
    return (PHOTOGRAPHS / name).read_bytes()


def put(folder: Path, name: str, source: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PHOTOGRAPHS / source, path)


@contextlib.contextmanager
def serving(collection: Path, **settings: object) -> Iterator[TestClient]:
    given = {"collection": collection, "originals": True, **settings}
    with TestClient(create_app(Settings(**given)), raise_server_exceptions=False) as client:  # type: ignore[arg-type]
        wait_until_ready(client)
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, a tar and tables, and a collection of them that a relative path named."""
    root = tmp_path_factory.mktemp("originals")
    photos = root / "photos"
    for name, (source, _) in TYPES.items():
        put(photos, name, source)
    for name in SPOILED:
        put(photos, name, "camera.png")
    put(root / "inside", "a.png", "astronaut.png")
    put(root, "secret.png", "horse.png")
    with tarfile.open(root / "tarred.tar", "w") as tar:
        tar.add(root / "inside" / "a.png", "a.png")
    paths = ["inside/a.png", "../" + root.name + "/secret.png", "../secret-beside.png", str(root / "secret.png")]
    put(root.parent, "secret-beside.png", "horse.png")
    pq.write_table(pa.table({"id": ["below", "back", "beside", "absolute"], "file": paths}), root / "listed.parquet")
    held = [photograph("chelsea.png")]
    pq.write_table(pa.table({"id": ["held"], "image": pa.array(held, pa.binary())}), root / "held.parquet")
    with contextlib.chdir(root):
        index(root / "collection", "photos", "tarred.tar", "listed.parquet", "held.parquet")
    (photos / "deleted.png").unlink()
    (photos / "text.png").write_text("no image")
    (photos / "vector.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    (photos / "page.png").write_text("<!DOCTYPE html><script>alert(1)</script>")
    (photos / "bmw.png").write_text("BMW is a make of cars; BM is how bitmaps begin, too.")
    for name in ("outside.png", "folder.png", "fifo.png"):
        (photos / name).unlink()
    (photos / "outside.png").symlink_to(root / "secret.png")
    (photos / "folder.png").mkdir()
    os.mkfifo(photos / "fifo.png")
    return root


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with serving(folder / "collection") as opened:
        yield opened


def item(client: TestClient, item_id: str) -> dict[str, str]:
    found: dict[str, str] = client.get("/v1/item", params={"id": item_id}).json()
    return found


@pytest.mark.parametrize("item_id", TYPES)
def test_original_is_the_file_with_the_type_of_its_content(client: TestClient, item_id: str) -> None:
    source, media_type = TYPES[item_id]
    response = client.get(item(client, item_id)["original_url"])
    assert response.status_code == 200, response.text
    assert response.content == photograph(source)
    headers = response.headers
    assert (headers["content-type"], headers["x-content-type-options"]) == (media_type, "nosniff")
    assert headers["cache-control"] == "private, no-cache"
    name = item_id.rpartition("/")[2]
    encoded = f"filename*=utf-8''{quote(name)}" if quote(name) != name else f'filename="{name}"'
    assert headers["content-disposition"] == f"inline; {encoded}"
    head = client.head(item(client, item_id)["original_url"])
    assert (head.status_code, head.content, head.headers["content-length"]) == (
        200,
        b"",
        str(len(response.content)),
    )


def test_ids_that_end_in_original_are_distinguished(client: TestClient) -> None:
    assert client.get("/v1/items/cup%2Foriginal").json()["id"] == "cup/original"
    assert client.get("/v1/items/original").json()["id"] == "original"
    assert item(client, "cup/original")["original_url"] == "/v1/item/original?id=cup%2Foriginal"
    by_path = client.get("/v1/items/cup%2Foriginal/original")
    assert by_path.content == photograph("motorcycle_left.png")
    assert client.get("/v1/items/cup/original").json()["code"] == "unknown_item"


def test_range_returns_a_part(client: TestClient) -> None:
    url, data = item(client, "cat.png")["original_url"], photograph("chelsea.png")
    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, data[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(data)}"
    assert client.get(url, headers={"Range": "bytes=-5"}).content == data[-5:]
    same = client.get(url, headers={"Range": "bytes=0-3", "If-Range": part.headers["etag"]})
    other = client.get(url, headers={"Range": "bytes=0-3", "If-Range": '"another"'})
    assert (same.status_code, other.status_code, other.content) == (206, 200, data)


@pytest.mark.parametrize("asked", ["bytes=9-2", "bytes=a-b", "lines=1-2", "bytes=", "nonsense"])
def test_invalid_range_is_ignored(client: TestClient, asked: str) -> None:
    response = client.get(item(client, "cat.png")["original_url"], headers={"Range": asked})
    assert (response.status_code, response.content) == (200, photograph("chelsea.png"))


def test_range_behind_the_end_is_416(client: TestClient) -> None:
    size = (PHOTOGRAPHS / "chelsea.png").stat().st_size
    response = client.get(item(client, "cat.png")["original_url"], headers={"Range": f"bytes={size}-"})
    assert (response.status_code, response.json()["code"]) == (416, "range_unsatisfiable")
    assert response.headers["content-range"] == f"bytes */{size}"


def test_unmodified_original_is_304(client: TestClient) -> None:
    url = item(client, "cat.png")["original_url"]
    first = client.get(url).headers
    for header in ({"If-None-Match": first["etag"]}, {"If-Modified-Since": first["last-modified"]}):
        again = client.get(url, headers=header)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first["etag"])
    both = {"If-None-Match": '"another"', "If-Modified-Since": first["last-modified"]}
    assert client.get(url, headers=both).status_code == 200


@pytest.mark.parametrize(
    ("item_id", "reason"),
    [
        ("deleted.png", "no longer there"),
        ("text.png", "no longer an image"),
        ("vector.png", "no longer an image"),
        ("page.png", "no longer an image"),
        ("bmw.png", "no longer an image"),
        ("outside.png", "leads outside"),
        ("folder.png", "is a folder"),
        ("fifo.png", "not a regular file"),
        ("beside", "leads outside"),
        ("tarred/a", "in a tar"),
        ("held", "in a table"),
    ],
)
def test_what_is_no_original_is_refused(client: TestClient, item_id: str, reason: str) -> None:
    response = client.get("/v1/item/original", params={"id": item_id})
    assert (response.status_code, response.json()["code"]) == (404, "no_original"), response.text
    assert reason in response.json()["detail"]


@pytest.mark.parametrize("item_id", ["below", "back", "absolute"])
def test_paths_of_a_table_resolve_below_its_folder(client: TestClient, item_id: str) -> None:
    assert client.get(item(client, item_id)["original_url"]).headers["content-type"] == "image/png"


def test_column_path_of_another_file_is_no_original(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "chelsea.png")
    put(tmp_path, "b.png", "horse.png")
    table = pa.table({"id": ["a"], "image_path": ["a.png"], "path": ["b.png"]})
    pq.write_table(table, tmp_path / "listed.parquet")
    index(tmp_path / "collection", tmp_path / "listed.parquet")
    with serving(tmp_path / "collection") as client:
        assert "original_url" not in item(client, "a")
        assert "in a table" in client.get("/v1/items/a/original").json()["detail"]


@pytest.mark.parametrize("item_id", ["../secret.png", "/etc/passwd", "photos/../../secret.png", "secret.png"])
def test_path_that_is_no_id_is_unknown(client: TestClient, item_id: str) -> None:
    assert client.get("/v1/item/original", params={"id": item_id}).json()["code"] == "unknown_item"
    assert client.get(f"/v1/items/{quote(item_id, safe='')}/original").json()["code"] == "unknown_item"


def test_folder_that_became_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    collection = tmp_path / "collection"
    put(tmp_path / "photos" / "sub", "a.png", "chelsea.png")
    put(tmp_path / "other" / "sub", "a.png", "horse.png")
    index(collection, tmp_path / "photos")
    with serving(collection) as client:
        assert client.get("/v1/items/sub/a.png/original").status_code == 200
        shutil.rmtree(tmp_path / "photos" / "sub")
        (tmp_path / "photos" / "sub").symlink_to(tmp_path / "other" / "sub")
        assert "leads outside" in client.get("/v1/items/sub/a.png/original").json()["detail"]
        shutil.rmtree(tmp_path / "photos")
        (tmp_path / "photos").symlink_to(tmp_path / "other")
        assert "leads outside" in client.get("/v1/items/sub/a.png/original").json()["detail"]


def test_original_url_is_there_where_the_source_can_be_read(client: TestClient) -> None:
    found = client.post("/v1/search/text", json={"text": "red", "limit": 50, "fields": []}).json()
    SearchResponse.model_validate(found, extra="forbid")
    listed = client.get("/v1/items?limit=50").json()["items"]
    for records in (found["results"], listed):
        without = {record["id"] for record in records if "original_url" not in record}
        assert without == {"tarred/a", "held"}
    ItemResponse.model_validate(item(client, "cat.png"), extra="forbid")
    named = client.get("/v1/collections/collection/items/cat.png").json()["original_url"]
    assert named == "/v1/collections/collection/items/cat.png/original"
    assert client.get(named).status_code == 200


def test_originals_are_off_by_default(folder: Path) -> None:
    with serving(folder / "collection", originals=False) as client:
        response = client.get("/v1/items/cat.png/original")
        assert (response.status_code, response.json()["code"]) == (403, "originals_disabled")
        assert "LOOKALIKE_ORIGINALS" in response.json()["detail"]
        assert "original_url" not in item(client, "cat.png")
    assert not Settings().originals


def test_original_needs_the_key(folder: Path) -> None:
    with serving(folder / "collection", keys=KEY) as client:
        assert client.get("/v1/items/cat.png/original").status_code == 401
        headers = {"Authorization": f"Bearer {KEY.partition(':')[2]}"}
        assert client.get("/v1/items/cat.png/original", headers=headers).status_code == 200


def test_original_url_has_the_root_path(folder: Path) -> None:
    with serving(folder / "collection", root_path="/lookalike") as client:
        url = item(client, "cat.png")["original_url"]
        assert url == "/lookalike/v1/items/cat.png/original"
        assert client.get(url).status_code == 200


def test_written_item_has_no_original(folder: Path, tmp_path: Path) -> None:
    collection = tmp_path / "collection"
    shutil.copytree(folder / "collection", collection)
    with serving(collection, writable=True) as client:
        image = {"file": photograph("chelsea.png")}
        assert client.put("/v1/items/new.png", files=image).status_code == 201
        assert client.patch("/v1/items/cat.png", json={"metadata": {"caption": "a cat"}}).status_code == 200
        assert "original_url" not in item(client, "new.png")
        assert "written over HTTP" in client.get("/v1/items/new.png/original").json()["detail"]
        assert client.get(item(client, "cat.png")["original_url"]).status_code == 200


def test_folder_that_moved_has_no_urls_until_the_next_job(tmp_path: Path) -> None:
    collection = tmp_path / "collection"
    put(tmp_path / "photos", "a.png", "chelsea.png")
    index(collection, tmp_path / "photos")
    (tmp_path / "drive").mkdir()
    (tmp_path / "photos").rename(tmp_path / "drive" / "photos")
    with serving(collection) as client:
        assert "original_url" not in item(client, "a.png")
        assert "no longer there" in client.get("/v1/items/a.png/original").json()["detail"]
    assert index(collection, tmp_path / "drive" / "photos").unchanged
    with serving(collection) as client:
        assert client.get(item(client, "a.png")["original_url"]).status_code == 200


@pytest.mark.parametrize("content", [None, "{}", "not JSON"])
def test_collection_without_places_has_no_originals(folder: Path, tmp_path: Path, content: str | None) -> None:
    collection = tmp_path / "collection"
    shutil.copytree(folder / "collection", collection)
    (collection / SOURCES_FILE).unlink()
    if content is not None:
        (collection / SOURCES_FILE).write_text(content)
    with serving(collection) as client:
        assert "original_url" not in item(client, "cat.png")
        assert "run `lookalike index` again" in client.get("/v1/items/cat.png/original").json()["detail"]


def test_sources_of_one_name_have_no_originals(tmp_path: Path) -> None:
    collection = tmp_path / "collection"
    put(tmp_path / "a" / "photos", "x.png", "chelsea.png")
    put(tmp_path / "b" / "photos", "y.png", "horse.png")
    index(collection, tmp_path / "a" / "photos", tmp_path / "b" / "photos")
    with serving(collection) as client:
        assert "original_url" not in item(client, "x.png")
        assert "NAME=PATH" in client.get("/v1/items/x.png/original").json()["detail"]

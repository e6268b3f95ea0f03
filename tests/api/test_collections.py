"""Several collections: paths, shared encoders, the memory budget, and folders of collections."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api import schemas
from app.collections import manager
from app.collections.folders import collection_folders, folder_name
from app.collections.versions import version_bytes
from app.main import create_app
from app.settings import Settings
from lookalike import bootstrap, collection
from lookalike.collection import VECTORS, VERSIONS, Collection, current_version, make_current
from lookalike.encoders.fake import FakeEncoder
from lookalike.encoders.lite import editions
from lookalike.encoders.lite.editions import FIRST_EDITION
from lookalike.errors import ConfigInvalid
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import build_collection, photograph
from tests.api.waiting import eventually

NAMES = ("first", "second", "third")
ITEM = {"id": "left.png", "limit": 3}


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    return [build_collection(tmp_path / name) for name in NAMES]


@contextmanager
def service(roots: list[Path], **settings: Any) -> Iterator[TestClient]:
    configured = Settings(collection=roots[0], collections=tuple(roots[1:]), watch_seconds=0.05, **settings)
    with TestClient(create_app(configured), raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client


def opened(client: TestClient) -> set[str]:
    listed = client.get("/v1/collections").json()
    schemas.CollectionsResponse.model_validate(listed)
    return {entry["name"] for entry in listed["collections"] if entry["version"]}


def search(client: TestClient, name: str) -> dict[str, Any]:
    response = client.post(f"/v1/collections/{name}/search/item", json=ITEM)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def test_each_has_its_path_and_the_default_the_short_paths(roots: list[Path]) -> None:
    with service(roots) as client:
        eventually(lambda: opened(client) == set(NAMES))
        assert client.post("/v1/search/item", json=ITEM).json()["collection"] == "first"
        for name, root in zip(NAMES, roots, strict=True):
            body = search(client, name)
            assert (body["collection"], body["version"]) == (name, current_version(root))
            url = body["results"][0]["thumbnail_url"]
            assert url == f"/v1/collections/{name}/items/left.png/thumbnail?v={body['version']}"
            assert client.get(url).headers["content-type"].startswith("image/")
            base = f"/v1/collections/{name}"
            assert client.get(f"{base}/items/animals%2Fcat.png").json()["collection"] == name
            assert client.get(f"{base}/items", params={"limit": 2}).json()["total"] == 9
            assert client.post(f"{base}/search/text", json={"text": "a cat"}).json()["collection"] == name
            image = {"file": photograph("cup")}
            assert client.post(f"{base}/search/image", files=image).json()["results"][0]["id"] == "cup"
            pair = {"a": {"id": "left.png"}, "b": {"id": "right.png"}}
            assert client.post(f"{base}/similarity", json=pair).json()["collection"] == name


@pytest.mark.parametrize("path", ["search/text", "search/image", "search/item", "similarity", "reload"])
def test_unknown_name_is_404(client: TestClient, path: str) -> None:
    response = client.post(f"/v1/collections/nowhere/{path}", json={"text": "x"})
    assert (response.status_code, response.json()["code"]) == (404, "unknown_collection")
    assert client.get("/v1/collections/nowhere/items").status_code == 404


def test_equal_encoders_are_loaded_once(roots: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    real = bootstrap.load_encoder

    def counting(name: str, *options: Any) -> Any:
        loaded.append(name)
        return real(name, *options)

    monkeypatch.setattr(bootstrap, "load_encoder", counting)
    with service(roots) as client:
        eventually(lambda: opened(client) == set(NAMES))
        build_collection(roots[1])
        assert client.post("/v1/collections/second/reload").status_code == 200
    assert loaded == ["fake"]


def test_without_preload_first_query_opens_collection(roots: list[Path]) -> None:
    with service(roots, preload=False) as client:
        assert opened(client) == {"first"}
        closed = client.get("/v1/collections/second").json()
        assert (closed["version"], closed["failure"]) == (None, None)
        search(client, "second")
        assert opened(client) == {"first", "second"}


def test_query_waits_for_opening_up_to_its_deadline(roots: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real, release = bootstrap.open_searcher, threading.Event()

    def slow(collection: Collection, **options: Any) -> Any:
        if collection.root == roots[1]:
            release.wait(30)
        return real(collection, **options)

    monkeypatch.setattr(bootstrap, "open_searcher", slow)
    with service(roots, preload=False, deadline=0.2) as client:
        for _ in range(2):
            response = client.post("/v1/collections/second/search/item", json=ITEM)
            assert (response.status_code, response.json()["code"]) == (503, "not_ready")
            assert int(response.headers["retry-after"]) >= 1
        release.set()  # the opening has gone on
        eventually(lambda: opened(client) == {"first", "second"})
        search(client, "second")


def test_least_recently_used_collection_is_evicted(roots: list[Path]) -> None:
    budget = 2 * max(map(version_bytes, roots)) + 10
    with service(roots, preload=False, memory_budget=budget) as client:
        for name, other in (("second", "second"), ("third", "third"), ("second", "second"), ("first", "second")):
            search(client, name)
            assert opened(client) == {"first", other}


def test_watcher_does_not_reopen_evicted_collection(roots: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = collection.open_collection

    def slow(root: Path, **options: Any) -> Collection:
        if root == roots[2]:
            time.sleep(0.3)  # several polls of the watcher before the eviction
        return real(root, **options)

    monkeypatch.setattr(collection, "open_collection", slow)
    budget = 2 * max(map(version_bytes, roots)) + 10
    with service(roots, preload=False, memory_budget=budget) as client:
        search(client, "second")
        search(client, "third")
        for _ in range(10):
            assert opened(client) == {"first", "third"}
            time.sleep(0.02)


def test_preload_stops_at_memory_budget(roots: list[Path]) -> None:
    budget = 2 * max(map(version_bytes, roots)) + 10
    with service(roots, memory_budget=budget) as client:
        eventually(lambda: opened(client) == {"first", "second"})
        search(client, "third")
        assert opened(client) == {"first", "third"}


def test_evicted_collection_releases_its_memory(roots: list[Path]) -> None:
    budget = 2 * max(map(version_bytes, roots)) + 10
    with service(roots, preload=False, memory_budget=budget) as client:
        search(client, "second")
        assert maps_of(roots[1])
        search(client, "third")
        eventually(lambda: not maps_of(roots[1]))  # a probe may have been in flight


def maps_of(root: Path) -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if f"{root}/" in line]


def test_broken_collection_is_reported_and_others_serve(roots: list[Path]) -> None:
    broken = roots[1] / VERSIONS / current_version(roots[1]) / VECTORS
    broken.write_bytes(broken.read_bytes()[:-1] + b"\xff")
    with service(roots) as client:
        eventually(lambda: opened(client) == {"first", "third"})
        response = client.post("/v1/collections/second/search/item", json=ITEM)
        assert (response.status_code, response.json()["code"]) == (503, "not_ready")
        assert client.get("/v1/collections/second").json()["failure"]["code"] == "checksum_mismatch"
        assert client.get("/readyz").status_code == 200
        search(client, "third")
        build_collection(roots[1])  # the watcher opens the sound version
        eventually(lambda: opened(client) == set(NAMES))


def test_collection_with_refused_version_is_not_evicted(roots: list[Path]) -> None:
    budget = 2 * max(map(version_bytes, roots)) + 10
    with service(roots, preload=False, memory_budget=budget) as client:
        version = search(client, "second")["version"]
        publish_broken_version(roots[1])
        eventually(lambda: client.get("/v1/collections/second").json()["failure"] is not None)
        search(client, "third")
        assert search(client, "second")["version"] == version


def publish_broken_version(root: Path) -> None:
    """Publish a version that is broken before CURRENT names it."""
    aside = build_collection(root.with_name("aside") / root.name)
    broken = aside / VERSIONS / current_version(aside) / VECTORS
    broken.write_bytes(broken.read_bytes()[:-1] + b"\xff")
    broken.parent.rename(root / VERSIONS / broken.parent.name)
    make_current(root, broken.parent.name)


def test_broken_version_evicts_nothing(roots: list[Path]) -> None:
    broken = roots[1] / VERSIONS / current_version(roots[1]) / VECTORS
    broken.write_bytes(broken.read_bytes()[:-1] + b"\xff")
    budget = 2 * max(map(version_bytes, roots)) + 10
    with service(roots, preload=False, memory_budget=budget) as client:
        search(client, "third")
        assert client.post("/v1/collections/second/search/item", json=ITEM).status_code == 503
        assert opened(client) == {"first", "third"}


def test_watcher_swaps_open_collections_only(roots: list[Path]) -> None:
    with service(roots, preload=False) as client:
        search(client, "second")
        for root in roots:
            build_collection(root)
        eventually(lambda: search(client, "second")["version"] == current_version(roots[1]))
        assert opened(client) == {"first", "second"}


def test_folder_of_collections_stands_for_its_collections(tmp_path: Path) -> None:
    for name in ("b", "a"):
        build_collection(tmp_path / "all" / name)
    (tmp_path / "all" / "notes").mkdir()
    first = tmp_path / "all" / "b"
    assert collection_folders(first, [tmp_path / "all"]) == [first, tmp_path / "all" / "a"]


def test_new_collection_in_folder_is_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, folder = build_collection(tmp_path / "first"), tmp_path / "all"
    folder.mkdir()
    with service([first, folder]) as client:
        assert [entry["name"] for entry in client.get("/v1/collections").json()["collections"]] == ["first"]
        assert client.post("/v1/collections/later/search/item", json=ITEM).status_code == 404
        build_collection(folder / "later")
        eventually(lambda: opened(client) == {"first", "later"})
        assert search(client, "later")["version"] == current_version(folder / "later")
        assert 'lookalike_items{collection="later"} 9.0' in client.get("/metrics").text
        build_collection(folder / "later")  # its new versions are opened, too
        eventually(lambda: search(client, "later")["version"] == current_version(folder / "later"))
        build_collection(folder / "first")
        eventually(lambda: "both called 'first'" in caplog.text)
        assert search(client, "first")["version"] == current_version(first)
        assert opened(client) == {"first", "later"}
    assert caplog.text.count("both called 'first'") == 1


def test_removed_collection_is_forgotten_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, folder = build_collection(tmp_path / "first"), tmp_path / "all"
    for name in ("second", "third"):
        build_collection(folder / name)
    with service([first, folder]) as client:
        eventually(lambda: opened(client) == {"first", "second", "third"})
        (folder / "second").rename(tmp_path / "away")
        eventually(lambda: client.get("/v1/collections/second").json()["failure"] is not None)
        search(client, "second")  # from memory
        (tmp_path / "away").rename(folder / "second")
        eventually(lambda: client.get("/v1/collections/second").json()["failure"] is None)
        (folder / "second").rename(tmp_path / "away")
        monkeypatch.setattr(manager, "_MISSING_SECONDS", 0.0)
        eventually(lambda: opened(client) == {"first", "third"})
        assert client.post("/v1/collections/second/search/item", json=ITEM).status_code == 404
        assert '{collection="third"}' in client.get("/metrics").text
        assert '{collection="second"}' not in client.get("/metrics").text
        (tmp_path / "away").rename(folder / "second")  # a returned folder is found again
        eventually(lambda: opened(client) == {"first", "second", "third"})
        folder.rename(tmp_path / "unmounted")
        time.sleep(0.3)
        folder.mkdir()
        time.sleep(0.3)
        assert opened(client) == {"first", "second", "third"}
        assert search(client, "third")["collection"] == "third"


def test_new_collection_without_preload_waits_for_query(tmp_path: Path) -> None:
    first, folder = build_collection(tmp_path / "first"), tmp_path / "all"
    build_collection(folder / "second")
    with service([first, folder], preload=False) as client:
        build_collection(folder / "later")
        eventually(lambda: client.get("/v1/collections/later").status_code == 200)
        assert opened(client) == {"first"}
        search(client, "later")


def test_symbolic_link_is_named_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, real = build_collection(tmp_path / "first"), build_collection(tmp_path / "of-today")
    folder = tmp_path / "all"
    folder.mkdir()
    (folder / "shoes").symlink_to(real)
    with service([first, folder]) as client:
        eventually(lambda: opened(client) == {"first", "shoes"})
        assert search(client, "shoes")["version"] == current_version(real)
    monkeypatch.chdir(real)
    assert [folder_name(Path(each)) for each in (".", "../all/shoes", "../all/..")] == [
        "of-today",
        "shoes",
        tmp_path.name,
    ]


def test_folder_whose_name_is_not_utf8_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, folder = build_collection(tmp_path / "first"), tmp_path / "all"
    folder.mkdir()
    with service([first, folder]) as client:
        strange = build_collection(folder / "strange").rename(folder / os.fsdecode(b"caf\xe9"))
        eventually(lambda: "is not UTF-8" in caplog.text)
        assert opened(client) == {"first"}
        assert client.get("/metrics").status_code == 200
    with pytest.raises(ConfigInvalid, match="is not UTF-8; rename it"):
        create_app(Settings(collection=strange))


def test_two_folders_of_one_name_are_rejected(tmp_path: Path) -> None:
    roots = [build_collection(tmp_path / place / "same") for place in ("x", "y")]
    with pytest.raises(ConfigInvalid, match="both called 'same'"):
        create_app(Settings(collection=roots[0], collections=(roots[1],)))


def test_environment_lists_folders_between_colons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_COLLECTIONS", "/data/shoes:/data/my bags")
    assert Settings().collections == (Path("/data/shoes"), Path("/data/my bags"))


def test_collection_states_what_its_encoder_understands(client: TestClient) -> None:
    (listed,) = client.get("/v1/collections").json()["collections"]
    assert (listed["languages"], listed["limits"]) == (["en"], "Good for colours; not for anything else.")


def test_first_edition_of_lite_is_refused_until_indexed_again(
    roots: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editions, "weights_digest", lambda: "2" * 64)
    old = replace(FakeEncoder.spec, name="lite", weights=FIRST_EDITION)
    build_collection(roots[1], old)
    with service(roots) as client:
        eventually(lambda: opened(client) == {"first", "third"})
        eventually(lambda: failure(client, "second") is not None)
        refused = failure(client, "second")
        assert (refused["code"], refused["version"]) == ("encoder_mismatch", current_version(roots[1]))
        assert "the first edition of 'lite'" in refused["detail"]
        assert f"`lookalike index SOURCE --out {roots[1]}" in refused["detail"]
        response = client.post("/v1/collections/second/search/text", json={"text": "a cat"})
        assert (response.status_code, response.json()["code"]) == (503, "not_ready")
        assert refused["detail"] in response.json()["detail"]
        build_collection(roots[1])
        eventually(lambda: "second" in opened(client))


def test_return_to_a_version_of_the_first_edition_is_refused(
    roots: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editions, "weights_digest", lambda: "2" * 64)
    with service(roots) as client:
        before = current_version(roots[0])
        build_collection(roots[0], replace(FakeEncoder.spec, name="lite", weights=FIRST_EDITION))
        response = client.post("/v1/collections/first/reload")
        assert (response.status_code, response.json()["code"]) == (503, "version_refused")
        assert "the first edition of 'lite'" in response.json()["detail"]
        assert client.get("/readyz").json()["version"] == before


def failure(client: TestClient, name: str) -> dict[str, Any]:
    reason: dict[str, Any] = client.get(f"/v1/collections/{name}").json()["failure"]
    return reason

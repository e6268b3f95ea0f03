"""Several collections: each under its name, encoders shared, opened and closed as memory allows."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from lookalike.collection import VECTORS, VERSIONS, Collection, current_version
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
    given = Settings(collection=roots[0], collections=tuple(roots[1:]), watch_seconds=0.05, **settings)
    with TestClient(create_app(given), raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client


def opened(client: TestClient) -> set[str]:
    listed = client.get("/v1/collections").json()
    schemas.CollectionsResponse.model_validate(listed)
    return {entry["name"] for entry in listed["collections"] if entry["version"]}


def search(client: TestClient, name: str) -> dict[str, Any]:
    answer = client.post(f"/v1/collections/{name}/search/item", json=ITEM)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_each_is_asked_under_its_name_and_the_first_under_the_short_paths(roots: list[Path]) -> None:
    with service(roots) as client:
        eventually(lambda: opened(client) == set(NAMES))
        assert client.post("/v1/search/item", json=ITEM).json()["collection"] == "first"
        for name, root in zip(NAMES, roots, strict=True):
            found = search(client, name)
            assert (found["collection"], found["version"]) == (name, current_version(root))
            url = found["results"][0]["thumbnail_url"]
            assert url == f"/v1/collections/{name}/items/left.png/thumbnail"
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
def test_a_name_that_nobody_has(client: TestClient, path: str) -> None:
    answer = client.post(f"/v1/collections/nowhere/{path}", json={"text": "x"})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_collection")
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


def test_without_preload_each_opens_when_it_is_first_asked(roots: list[Path]) -> None:
    with service(roots, preload=False) as client:
        assert opened(client) == {"first"}
        closed = client.get("/v1/collections/second").json()
        assert (closed["version"], closed["failure"]) == (None, None)
        search(client, "second")
        assert opened(client) == {"first", "second"}


def test_nobody_waits_longer_than_a_deadline_for_one_to_open(
    roots: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, let_go = bootstrap.open_searcher, threading.Event()

    def slow(collection: Collection, **options: Any) -> Any:
        if collection.root == roots[1]:
            let_go.wait(30)
        return real(collection, **options)

    monkeypatch.setattr(bootstrap, "open_searcher", slow)
    with service(roots, preload=False, deadline=0.2) as client:
        for _ in range(2):
            answer = client.post("/v1/collections/second/search/item", json=ITEM)
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert int(answer.headers["retry-after"]) >= 1
        let_go.set()  # it was being opened all the while
        eventually(lambda: opened(client) == {"first", "second"})
        search(client, "second")


def test_what_was_not_asked_for_longest_is_closed_for_another(roots: list[Path]) -> None:
    budget = 2 * max(map(version_bytes, roots)) + 10
    with service(roots, preload=False, memory_budget=budget) as client:
        for name, other in (("second", "second"), ("third", "third"), ("second", "second"), ("first", "second")):
            search(client, name)
            assert opened(client) == {"first", other}


def test_the_watcher_leaves_closed_what_was_closed_while_it_waited(
    roots: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = collection.open_collection

    def slow(root: Path, **options: Any) -> Collection:
        if root == roots[2]:
            time.sleep(0.3)  # several looks of the watcher, before the one that must go is closed
        return real(root, **options)

    monkeypatch.setattr(collection, "open_collection", slow)
    budget = 2 * max(map(version_bytes, roots)) + 10
    with service(roots, preload=False, memory_budget=budget) as client:
        search(client, "second")
        search(client, "third")
        for _ in range(10):
            assert opened(client) == {"first", "third"}
            time.sleep(0.02)


def test_preload_stops_where_memory_does(roots: list[Path]) -> None:
    budget = 2 * max(map(version_bytes, roots)) + 10
    with service(roots, memory_budget=budget) as client:
        eventually(lambda: opened(client) == {"first", "second"})
        search(client, "third")
        assert opened(client) == {"first", "third"}


def test_a_closed_collection_lets_its_memory_go(roots: list[Path]) -> None:
    budget = 2 * max(map(version_bytes, roots)) + 10
    with service(roots, preload=False, memory_budget=budget) as client:
        search(client, "second")
        assert maps_of(roots[1])
        search(client, "third")
        eventually(lambda: not maps_of(roots[1]))  # a probe may have been under way


def maps_of(root: Path) -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if f"{root}/" in line]


def test_a_broken_one_leaves_the_others_alone_and_is_told(roots: list[Path]) -> None:
    broken = roots[1] / VERSIONS / current_version(roots[1]) / VECTORS
    broken.write_bytes(broken.read_bytes()[:-1] + b"\xff")
    with service(roots) as client:
        eventually(lambda: opened(client) == {"first", "third"})
        answer = client.post("/v1/collections/second/search/item", json=ITEM)
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert client.get("/v1/collections/second").json()["failure"]["code"] == "checksum_mismatch"
        assert client.get("/readyz").status_code == 200
        search(client, "third")
        build_collection(roots[1])  # a sound version appears: the watcher takes it
        eventually(lambda: opened(client) == set(NAMES))


def test_one_whose_newest_version_was_refused_serves_on_though_memory_is_short(roots: list[Path]) -> None:
    budget = 2 * max(map(version_bytes, roots)) + 10
    with service(roots, preload=False, memory_budget=budget) as client:
        version = search(client, "second")["version"]
        build_collection(roots[1])
        broken = roots[1] / VERSIONS / current_version(roots[1]) / VECTORS
        broken.write_bytes(broken.read_bytes()[:-1] + b"\xff")
        eventually(lambda: client.get("/v1/collections/second").json()["failure"] is not None)
        search(client, "third")
        assert search(client, "second")["version"] == version


def test_no_room_is_made_for_a_version_that_is_no_good(roots: list[Path]) -> None:
    broken = roots[1] / VERSIONS / current_version(roots[1]) / VECTORS
    broken.write_bytes(broken.read_bytes()[:-1] + b"\xff")
    budget = 2 * max(map(version_bytes, roots)) + 10
    with service(roots, preload=False, memory_budget=budget) as client:
        search(client, "third")
        assert client.post("/v1/collections/second/search/item", json=ITEM).status_code == 503
        assert opened(client) == {"first", "third"}


def test_the_watcher_swaps_each_but_opens_none(roots: list[Path]) -> None:
    with service(roots, preload=False) as client:
        search(client, "second")
        for root in roots:
            build_collection(root)
        eventually(lambda: search(client, "second")["version"] == current_version(roots[1]))
        assert opened(client) == {"first", "second"}


def test_a_folder_of_collections_stands_for_what_is_in_it(tmp_path: Path) -> None:
    for name in ("b", "a"):
        build_collection(tmp_path / "all" / name)
    (tmp_path / "all" / "notes").mkdir()
    first = tmp_path / "all" / "b"
    assert collection_folders(first, [tmp_path / "all"]) == [first, tmp_path / "all" / "a"]


def test_a_collection_that_appears_is_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, folder = build_collection(tmp_path / "first"), tmp_path / "all"
    folder.mkdir()
    with service([first, folder]) as client:
        assert [entry["name"] for entry in client.get("/v1/collections").json()["collections"]] == ["first"]
        assert client.post("/v1/collections/later/search/item", json=ITEM).status_code == 404
        build_collection(folder / "later")
        eventually(lambda: opened(client) == {"first", "later"})
        assert search(client, "later")["version"] == current_version(folder / "later")
        assert 'lookalike_items{collection="later"} 9.0' in client.get("/metrics").text
        build_collection(folder / "later")  # and its versions are followed
        eventually(lambda: search(client, "later")["version"] == current_version(folder / "later"))
        build_collection(folder / "first")
        eventually(lambda: "both called 'first'" in caplog.text)
        assert search(client, "first")["version"] == current_version(first)
        assert opened(client) == {"first", "later"}
    assert caplog.text.count("both called 'first'") == 1


def test_a_collection_that_is_removed_is_forgotten_and_one_that_is_away_for_a_moment_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        (tmp_path / "away").rename(folder / "second")  # and it may come again
        eventually(lambda: opened(client) == {"first", "second", "third"})
        folder.rename(tmp_path / "unmounted")
        time.sleep(0.3)
        folder.mkdir()
        time.sleep(0.3)
        assert opened(client) == {"first", "second", "third"}
        assert search(client, "third")["collection"] == "third"


def test_a_collection_that_appears_waits_for_its_first_query_where_none_is_preloaded(tmp_path: Path) -> None:
    first, folder = build_collection(tmp_path / "first"), tmp_path / "all"
    build_collection(folder / "second")
    with service([first, folder], preload=False) as client:
        build_collection(folder / "later")
        eventually(lambda: client.get("/v1/collections/later").status_code == 200)
        assert opened(client) == {"first"}
        search(client, "later")


def test_a_link_is_called_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_folder_whose_name_is_no_text_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, folder = build_collection(tmp_path / "first"), tmp_path / "all"
    folder.mkdir()
    with service([first, folder]) as client:
        strange = build_collection(folder / "strange").rename(folder / os.fsdecode(b"caf\xe9"))
        eventually(lambda: "is not UTF-8" in caplog.text)
        assert opened(client) == {"first"}
        assert client.get("/metrics").status_code == 200
    with pytest.raises(ConfigInvalid, match="is not UTF-8; rename it"):
        create_app(Settings(collection=strange))


def test_two_of_the_same_name_are_refused(tmp_path: Path) -> None:
    roots = [build_collection(tmp_path / place / "same") for place in ("x", "y")]
    with pytest.raises(ConfigInvalid, match="both called 'same'"):
        create_app(Settings(collection=roots[0], collections=(roots[1],)))


def test_the_environment_lists_folders_between_colons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_COLLECTIONS", "/data/shoes:/data/my bags")
    assert Settings().collections == (Path("/data/shoes"), Path("/data/my bags"))

"""New versions under load, broken ones, and readiness."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.collections import hosted as hosted_module
from app.collections.backoff import Backoff
from app.collections.hosted import HostedCollection
from app.collections.opening import open_version
from app.collections.status import OpenVersion
from app.main import create_app
from app.settings import Settings
from lookalike import bootstrap
from lookalike.collection import CURRENT, VECTORS, VERSIONS, Collection, current_version
from lookalike.encoders.fake import FakeEncoder
from lookalike.errors import LookalikeError
from tests.api.conftest import wait_until_ready
from tests.api.small_collection import build_collection, photograph
from tests.api.waiting import eventually

SEARCH = {"json": {"id": "left.png", "limit": 3}}


def reload_path(root: Path) -> str:
    return f"/v1/collections/{root.name}/reload"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build_collection(tmp_path / "gallery")


def test_swaps_under_load_fail_no_request_and_mix_no_response(tmp_path: Path) -> None:
    root = build_collection(tmp_path / "gallery", tagged=True)
    responses: list[tuple[int, str, str]] = []
    mixed: list[str] = []
    queries: list[tuple[str, dict[str, Any]]] = [
        ("item", SEARCH),
        ("text", {"json": {"text": "a motorcycle", "limit": 9}}),
        ("image", {"files": {"file": photograph("left.png")}}),
    ]
    stop = threading.Event()

    with TestClient(create_app(Settings(collection=root, watch_seconds=0))) as client:
        wait_until_ready(client)

        def ask(kind: str, query: dict[str, Any]) -> None:
            while not stop.is_set():
                response = client.post(f"/v1/search/{kind}", **query)
                body = response.json()
                mixed.extend(
                    f"{kind}: {result['metadata']['caption']} in a response of {body['version']}"
                    for result in body["results"]
                    if result["metadata"]["caption"] != body["version"]
                )
                responses.append((response.status_code, body.get("version"), kind))

        threads = [threading.Thread(target=ask, args=query) for query in queries]
        for thread in threads:
            thread.start()
        versions = [current_version(root)]
        for _ in range(10):
            build_collection(root, tagged=True)
            versions.append(current_version(root))
            swapped = client.post(reload_path(root))
            assert swapped.status_code == 200, swapped.text
            assert swapped.json()["version"] == versions[-1]
            eventually(lambda: any(version == versions[-1] for _, version, _ in list(responses)))
        stop.set()
        for thread in threads:
            thread.join()
        assert client.get(f"/v1/collections/{root.name}").json()["swaps"] == 10
    assert {status for status, _, _ in responses} == {200}
    assert not mixed
    assert {kind for _, _, kind in responses} == {"item", "text", "image"}
    assert {version for _, version, _ in responses} == set(versions)


def test_watcher_swaps_new_version(root: Path) -> None:
    with TestClient(create_app(Settings(collection=root, watch_seconds=0.05))) as client:
        wait_until_ready(client)
        before = client.get("/readyz").json()["version"]
        build_collection(root)
        eventually(lambda: client.get("/readyz").json()["version"] == current_version(root))
        assert before != current_version(root)


def break_newest(root: Path) -> str:
    """Publish a version and flip a bit of its vectors; return its name."""
    build_collection(root)
    version = current_version(root)
    path = root / VERSIONS / version / VECTORS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return version


def test_broken_version_is_refused_and_old_one_still_serves(root: Path) -> None:
    with TestClient(create_app(Settings(collection=root, watch_seconds=0.05))) as client:
        wait_until_ready(client)
        good = client.get("/readyz").json()["version"]
        # Broken before CURRENT names it, so that the watcher never sees it whole.
        broken = break_newest_unseen(root, good)
        facts = f"/v1/collections/{root.name}"
        eventually(lambda: client.get(facts).json()["failure"] is not None)
        body = client.get(facts).json()
        assert body["version"] == good
        assert (body["failure"]["code"], body["failure"]["version"]) == ("checksum_mismatch", broken)
        assert client.post("/v1/search/item", **SEARCH).json()["version"] == good
        assert client.get("/readyz").status_code == 200
        refused = client.post(reload_path(root))
        assert (refused.status_code, refused.json()["code"]) == (503, "version_refused")
        assert "checksum_mismatch" in refused.json()["detail"]
        build_collection(root)  # the next sound version is opened
        eventually(lambda: client.get(facts).json()["version"] == current_version(root))
        assert client.get(facts).json()["failure"] is None


def break_newest_unseen(root: Path, good: str) -> str:
    """Publish a version that is broken before CURRENT names it; return its name."""
    aside = root.with_name("aside") / root.name
    build_collection(aside)
    version = break_newest(aside)
    (aside / VERSIONS / version).rename(root / VERSIONS / version)
    replacement = root / "CURRENT.new"
    replacement.write_text(version)
    replacement.replace(root / CURRENT)
    return version


def test_vanished_collection_still_serves(root: Path) -> None:
    with TestClient(create_app(Settings(collection=root, watch_seconds=0.02))) as client:
        wait_until_ready(client)
        root.rename(root.with_name("gone"))
        time.sleep(0.1)
        assert client.post("/v1/search/item", **SEARCH).status_code == 200
        assert client.post(reload_path(root)).json()["code"] == "version_refused"
        assert client.post("/v1/search/item", **SEARCH).status_code == 200


def failure(client: TestClient, root: Path) -> str | None:
    failure = client.get(f"/v1/collections/{root.name}").json()["failure"]
    return failure and str(failure["code"])


def test_vanished_collection_is_reported_until_restored(root: Path) -> None:
    with TestClient(create_app(Settings(collection=root, watch_seconds=0.05))) as client:
        wait_until_ready(client)
        version = current_version(root)
        away = root.rename(root.with_name("away"))
        eventually(lambda: failure(client, root) == "collection_not_found")
        assert client.post("/v1/search/item", **SEARCH).json()["version"] == version
        away.rename(root)
        eventually(lambda: failure(client, root) is None)
        build_collection(root)  # later versions are opened again
        eventually(lambda: client.post("/v1/search/item", **SEARCH).json()["version"] == current_version(root))


def test_failed_reload_of_vanished_folder_is_forgotten(root: Path) -> None:
    with TestClient(create_app(Settings(collection=root, watch_seconds=1.5))) as client:
        wait_until_ready(client)
        time.sleep(0.05)
        away = root.rename(root.with_name("away"))
        assert client.post(reload_path(root)).json()["code"] == "version_refused"
        away.rename(root)  # before the watcher has polled
        assert failure(client, root) == "collection_not_found"
        eventually(lambda: failure(client, root) is None)


def test_version_published_before_its_files_is_opened_later(root: Path) -> None:
    with TestClient(create_app(Settings(collection=root, watch_seconds=0.05))) as client:
        wait_until_ready(client)
        before = current_version(root)
        newer = build_collection(root.with_name("newer"))
        version = current_version(newer)
        (root / CURRENT).write_text(version)
        eventually(lambda: failure(client, root) is not None)
        folder = root / VERSIONS / version
        folder.mkdir()
        for file in sorted((newer / VERSIONS / version).iterdir(), reverse=True):  # the manifest is not the last
            (folder / file.name).write_bytes(file.read_bytes())
            time.sleep(0.1)
        eventually(lambda: client.post("/v1/search/item", **SEARCH).json()["version"] == version)
        assert failure(client, root) is None
        assert before != version


def test_version_completed_while_it_is_refused_is_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = build_collection(root.with_name("newer"))
    version = current_version(newer)

    async def complete_late(*arguments: Any) -> OpenVersion:
        try:
            return await open_version(*arguments)
        except LookalikeError:
            if current_version(root) == version and not (root / VERSIONS / version).exists():
                shutil.copytree(newer / VERSIONS / version, root / VERSIONS / version)
            raise

    monkeypatch.setattr(hosted_module, "open_version", complete_late)
    with TestClient(create_app(Settings(collection=root, watch_seconds=0.05))) as client:
        wait_until_ready(client)
        (root / CURRENT).write_text(version)
        eventually(lambda: client.post("/v1/search/item", **SEARCH).json()["version"] == version)


def test_refused_version_is_withdrawn_or_repaired(root: Path) -> None:
    with TestClient(create_app(Settings(collection=root, watch_seconds=0.05))) as client:
        wait_until_ready(client)
        before = current_version(root)
        build_collection(root.with_name("newer"))
        newer = root.with_name("newer") / VERSIONS
        version = next(newer.iterdir()).name
        shutil.copytree(newer / version, root / VERSIONS / version)
        damaged = root / VERSIONS / version / VECTORS
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-1] + b"\xff")
        (root / CURRENT).write_text(version)
        eventually(lambda: failure(client, root) == "checksum_mismatch")
        (root / CURRENT).write_text(before)
        eventually(lambda: failure(client, root) is None)
        (root / CURRENT).write_text(version)
        eventually(lambda: failure(client, root) == "checksum_mismatch")
        damaged.write_bytes(whole)
        eventually(lambda: client.post("/v1/search/item", **SEARCH).json()["version"] == version)
        assert failure(client, root) is None


def test_reload_accepts_repaired_version(root: Path) -> None:
    with TestClient(create_app(Settings(collection=root, watch_seconds=0.05))) as client:
        wait_until_ready(client)
        version = current_version(root)
        vectors = root / VERSIONS / version / VECTORS
        whole = vectors.rename(root / "whole")  # the mapped file stays unchanged
        vectors.write_bytes(whole.read_bytes()[:-1] + b"\xff")
        assert client.post(reload_path(root)).status_code == 503
        assert failure(client, root) == "checksum_mismatch"
        assert client.post("/v1/search/item", **SEARCH).json()["version"] == version
        whole.rename(vectors)
        eventually(lambda: failure(client, root) is None)
        assert client.get("/readyz").json()["version"] == version


def test_collection_that_appears_later_is_opened(tmp_path: Path) -> None:
    root = tmp_path / "gallery"
    with TestClient(create_app(Settings(collection=root, watch_seconds=0.05))) as client:
        eventually(lambda: "collection_not_found" in client.get("/readyz").json()["detail"])
        assert client.get("/v1/collections").json()["collections"][0]["version"] is None
        build_collection(root)
        wait_for = current_version(root)
        eventually(lambda: client.get("/readyz").json().get("version") == wait_for)


def test_unknown_collection(client: TestClient) -> None:
    for response in (client.get("/v1/collections/other"), client.post("/v1/collections/other/reload")):
        assert (response.status_code, response.json()["code"]) == (404, "unknown_collection")


def test_stuck_device_is_reported_while_the_port_answers(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free, real = threading.Event(), FakeEncoder.encode_images
    stuck = threading.Event()

    def slow(self: FakeEncoder, batch: Any) -> Any:
        if stuck.is_set():
            free.wait(30)
        return real(self, batch)

    monkeypatch.setattr(FakeEncoder, "encode_images", slow)
    settings = Settings(collection=root, probe_seconds=0.05, probe_timeout=0.3)
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
        stuck.set()
        eventually(lambda: client.get("/readyz").status_code == 503)
        eventually(lambda: "device's thread is stuck" in client.get("/readyz").json()["detail"])
        assert client.get("/livez").status_code == 200
        eventually(lambda: "device_stuck" in caplog.text)
        assert "in slow" in caplog.text  # where it hangs
        refused = client.post(reload_path(root))  # immediately: no version can be tried
        assert (refused.status_code, refused.json()["code"]) == (503, "version_refused")
        assert "stuck" in refused.json()["detail"]
        stuck.clear()
        free.set()
        eventually(lambda: client.get("/readyz").status_code == 200)


def test_hanging_first_batch_does_not_block_other_openings(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free, real = threading.Event(), FakeEncoder.encode_texts

    def hangs_on_batches(self: FakeEncoder, texts: Any) -> Any:
        if len(texts) > 1:
            free.wait(30)
        return real(self, texts)

    monkeypatch.setattr(FakeEncoder, "encode_texts", hangs_on_batches)
    with TestClient(create_app(Settings(collection=root, open_timeout=0.3, watch_seconds=0.05))) as client:
        eventually(lambda: "a first batch did not end within 0.3 s" in client.get("/readyz").json()["detail"])
        free.set()
        assert client.post(reload_path(root)).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_failing_search_makes_service_unready_and_is_logged_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from lookalike.search import Searcher

    broken, real = threading.Event(), Searcher.search_vectors

    def search_vectors(self: Searcher, *args: Any) -> Any:
        if broken.is_set():
            raise OSError("input/output error")
        return real(self, *args)

    monkeypatch.setattr(Searcher, "search_vectors", search_vectors)
    with TestClient(create_app(Settings(collection=root, probe_seconds=0.02))) as client:
        wait_until_ready(client)
        broken.set()
        eventually(lambda: client.get("/readyz").status_code == 503)
        assert "search failed: OSError: input/output error" in client.get("/readyz").json()["detail"]
        time.sleep(0.1)  # several probes
        broken.clear()
        eventually(lambda: client.get("/readyz").status_code == 200)
    assert caplog.text.count("probe_failed stage=search: OSError: input/output error") == 1
    assert caplog.text.count("probe_passed again") == 1


def test_draining_service_answers_but_is_not_ready(root: Path) -> None:
    app = create_app(Settings(collection=root))
    with TestClient(app) as client:
        wait_until_ready(client)
        assert "connection" not in client.get("/readyz").headers
        app.state.service.draining = True
        assert client.get("/readyz").status_code == 503
        response = client.post("/v1/search/item", **SEARCH)
        assert (response.status_code, response.headers["connection"]) == (200, "close")


def test_slow_first_opening_is_not_started_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, real = [], bootstrap.open_searcher

    def slow(*args: Any, **kwargs: Any) -> Any:
        opened.append(args)
        time.sleep(0.3)
        return real(*args, **kwargs)

    monkeypatch.setattr(bootstrap, "open_searcher", slow)
    with TestClient(create_app(Settings(collection=root, watch_seconds=0.02))) as client:
        wait_until_ready(client)
        time.sleep(0.2)
        assert client.get("/v1/collections").json()["collections"][0]["swaps"] == 0
    assert len(opened) == 1


@pytest.mark.parametrize("written", [b"\xff\xfe", b"a\0b", b"\0" * 30])
def test_invalid_current_is_reported_and_still_watched(root: Path, written: bytes) -> None:
    with TestClient(create_app(Settings(collection=root, watch_seconds=0.02))) as client:
        wait_until_ready(client)
        (root / CURRENT).write_bytes(written)
        time.sleep(0.1)
        refused = client.post(reload_path(root))
        assert "manifest_invalid" in refused.json()["detail"]
        build_collection(root)
        eventually(lambda: client.get("/readyz").json()["version"] == current_version(root))


@pytest.mark.parametrize("watch_seconds", [0, 0.05])
def test_passing_failure_is_retried(tmp_path: Path, watch_seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [build_collection(tmp_path / name) for name in ("first", "second")]
    failing = roots[0] if watch_seconds else roots[1]  # the watcher retries any, a query all but the default one
    real, broken = bootstrap.open_searcher, [True]

    def opening(collection: Collection, **options: Any) -> Any:
        if broken[0] and collection.root == failing:
            raise OSError("too many open files")
        return real(collection, **options)

    monkeypatch.setattr(bootstrap, "open_searcher", opening)
    settings = Settings(collection=roots[0], collections=(roots[1],), preload=False, watch_seconds=watch_seconds)
    path = f"/v1/collections/{failing.name}/search/item"
    app = create_app(settings)
    for hosted in app.state.service.collections:
        hosted.backoff = Backoff(first_seconds=0.0)
    with TestClient(app) as client:
        eventually(lambda: "too many open files" in client.post(path, **SEARCH).json()["detail"])
        broken[0] = False
        eventually(lambda: client.post(path, **SEARCH).status_code == 200)


def test_waiting_reloads_share_one_opening(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, requested, release = [], [], threading.Event()
    open_searcher, reload = bootstrap.open_searcher, HostedCollection.reload

    def slow(collection: Collection, **options: Any) -> Any:
        opened.append(collection.manifest.version)
        release.wait(30)
        return open_searcher(collection, **options)

    async def counted(self: HostedCollection) -> Any:
        requested.append(self.name)
        return await reload(self)

    with TestClient(create_app(Settings(collection=root, watch_seconds=0))) as client:
        wait_until_ready(client)
        monkeypatch.setattr(bootstrap, "open_searcher", slow)
        monkeypatch.setattr(HostedCollection, "reload", counted)
        with ThreadPoolExecutor(12) as pool:
            first = pool.submit(client.post, reload_path(root))
            eventually(lambda: len(opened) == 1)
            build_collection(root)  # the version that later requests mean
            others = [pool.submit(client.post, reload_path(root)) for _ in range(10)]
            eventually(lambda: len(requested) == 11)
            release.set()
            assert {response.result().status_code for response in [first, *others]} == {200}
        assert {response.result().json()["version"] for response in others} == {current_version(root)}
        assert len(opened) == 2

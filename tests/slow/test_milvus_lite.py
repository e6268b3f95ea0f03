"""The Milvus store on Milvus Lite: congruence with exact search, filters, publication and faults."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from starlette.testclient import TestClient

import lookalike
import lookalike.row_search as row_search
from app.main import create_app
from app.settings import Settings
from cli.gallery import write_gallery
from indexing import index
from indexing.build.stores import build_store
from lookalike.collection import VERSIONS, current_manifest, current_version, open_collection
from lookalike.errors import CollectionUnwritable, ConfigInvalid, StoreUnavailable, StoreUnreachable, UnknownStore
from lookalike.manifest import MANIFEST_FILE
from lookalike.stores.milvus import builder as builder_module
from lookalike.stores.milvus.client import alias_target, connect, own_name, owner_digits
from lookalike.stores.milvus.location import parse_location
from lookalike.stores.registry import open_store
from lookalike.writes.writer import Writer
from tests.api.conftest import wait_until_ready
from tests.contract.milvus import (
    FILTERS,
    SEARCHES,
    UNTRANSLATABLE,
    Pair,
    assert_congruent,
    assert_expression_selects,
    import_into,
    write_embeddings,
)
from tests.e2e.commands import free_port, start_service

ALIAS = "lookalike"


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embeddings") / "vectors"
    write_embeddings(folder)
    return folder


@pytest.fixture(scope="module")
def pair(embeddings: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    import_into(embeddings, folder / "exact", "exact")
    import_into(embeddings, folder / "milvus", f"milvus:{folder}/store.db")
    return Pair(folder / "exact", folder / "milvus")


def test_collection_on_milvus_is_not_writable(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CollectionUnwritable, match="is on Milvus"):
        Writer(open_collection(pair.milvus))
    with TestClient(create_app(Settings(collection=pair.milvus, writable=True))) as client:
        wait_until_ready(client)
        assert client.get(f"/v1/collections/{pair.milvus.name}").json()["writable"] is False
        refused = client.delete("/v1/items/0")
        assert (refused.status_code, refused.json()["code"]) == (403, "read_only")
        assert "is on Milvus" in refused.json()["detail"]
    assert "collection_read_only name=milvus: it is on Milvus" in caplog.text


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_search_equals_exact_search(pair: Pair, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_search, "_MAX_SCANNED_ROWS", 0)  # few rows would be scanned here
    monkeypatch.setattr(row_search, "_MAX_SCANNED_FRACTION", 0)
    assert_congruent(pair, options)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=FILTERS)
@example(document={"must": [], "should": [], "must_not": [{"field": "weight", "equals": 0.0}]})  # there are -0.0, too
@example(document={"must": [{"field": "weight", "in": [1.5, -0.0]}]})
def test_expression_selects_the_same_rows(pair: Pair, document: dict[str, Any]) -> None:
    assert_expression_selects(pair.milvus, document)


@pytest.mark.parametrize("field", ["brand", "price", "weight", "new", "day", "seen", "tags", "exif.lens"])
def test_filter_on_each_type_has_an_expression(pair: Pair, field: str) -> None:
    assert assert_expression_selects(pair.milvus, {"must": [{"field": field, "exists": True}]})


@pytest.mark.parametrize("field", sorted(UNTRANSLATABLE))
def test_filter_that_milvus_cannot_express_has_none(pair: Pair, field: str) -> None:
    assert not assert_expression_selects(pair.milvus, {"must": [{"field": field, "exists": True}]})


def test_manifest_names_the_collection_and_its_recall(pair: Pair) -> None:
    manifest = current_manifest(pair.milvus)
    assert manifest.store.kind == "milvus"
    assert manifest.store.params["preset"] == "exact"
    assert manifest.recall["image"]["ann_recall_at_10"] >= 0.95
    client = connect(manifest.store.params["uri"])
    assert alias_target(client, ALIAS) == manifest.store.params["collection"]


def test_new_version_moves_the_alias_and_the_old_one_still_opens(embeddings: Path, tmp_path: Path) -> None:
    store, out = f"milvus:{tmp_path}/store.db", tmp_path / "out"
    names = []
    for _ in range(3):
        import_into(embeddings, out, store)
        names.append(current_manifest(out).store.params["collection"])
    client = connect(current_manifest(out).store.params["uri"])
    assert alias_target(client, ALIAS) == names[2]
    assert sorted(client.list_collections()) == sorted(names)  # the oldest is removed by the next build
    import_into(embeddings, out, store)
    assert names[0] not in client.list_collections()
    assert len(client.list_collections()) == 3


def test_a_partial_load_is_removed(embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(builder_module.MilvusBuilder, "_build_index", fail)
    with pytest.raises(KeyboardInterrupt):
        import_into(embeddings, tmp_path / "out", f"milvus:{tmp_path}/store.db")
    assert connect(str(tmp_path / "store.db")).list_collections() == []


def test_leftovers_of_a_killed_build_are_removed(embeddings: Path, tmp_path: Path) -> None:
    client = connect(str(tmp_path / "store.db"))
    own = own_name(ALIAS, owner_digits(tmp_path / "out" / VERSIONS))
    foreign = own_name(ALIAS, owner_digits(tmp_path / "else" / VERSIONS))
    for name in (own, foreign, "other"):
        client.create_collection(name, dimension=8)
    import_into(embeddings, tmp_path / "out", f"milvus:{tmp_path}/store.db")
    name = current_manifest(tmp_path / "out").store.params["collection"]
    assert sorted(client.list_collections()) == sorted([name, foreign, "other"])


def test_a_lost_collection_is_loaded_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_gallery(tmp_path / "photos")
    store, out = f"milvus:{tmp_path}/store.db", tmp_path / "out"
    assert not index(tmp_path / "photos", out, encoder="fake", store=store).unchanged
    client = connect(str(tmp_path / "store.db"))
    client.drop_alias(ALIAS)
    client.drop_collection(current_manifest(out).store.params["collection"])
    summary = index(tmp_path / "photos", out, encoder="fake", store=store)
    assert (summary.unchanged, summary.encoded) == (False, 0)
    assert "store_lost" in caplog.text
    with lookalike.open_collection(out) as collection:
        assert len(collection.search(id="rocket.jpg", limit=2)) == 2
    assert index(tmp_path / "photos", out, encoder="fake", store=store).unchanged


def test_the_alias_of_another_folder_is_refused_before_encoding(embeddings: Path, tmp_path: Path) -> None:
    store = f"milvus:{tmp_path}/store.db"
    import_into(embeddings, tmp_path / "first", store)
    write_gallery(tmp_path / "photos")
    with pytest.raises(StoreUnavailable, match=r"belongs to another folder: it names 'lookalike_.*choose another name"):
        index(tmp_path / "photos", tmp_path / "second", encoder="fake", store=store)
    assert not (tmp_path / "second").exists()
    with lookalike.open_collection(tmp_path / "first") as collection:
        assert len(collection.search(id="item-3", limit=2)) == 2


def test_moved_folder_keeps_its_alias(embeddings: Path, tmp_path: Path) -> None:
    store = f"milvus:{tmp_path}/store.db"
    import_into(embeddings, tmp_path / "first", store)
    (tmp_path / "first").rename(tmp_path / "moved")
    import_into(embeddings, tmp_path / "moved", store)
    client = connect(str(tmp_path / "store.db"))
    assert alias_target(client, ALIAS) == current_manifest(tmp_path / "moved").store.params["collection"]


def test_a_collection_of_the_aliass_name_is_refused(embeddings: Path, tmp_path: Path) -> None:
    client = connect(str(tmp_path / "store.db"))
    client.create_collection(ALIAS, dimension=8)
    with pytest.raises(StoreUnavailable, match="collection named 'lookalike'"):
        import_into(embeddings, tmp_path / "out", f"milvus:{tmp_path}/store.db")
    assert client.list_collections() == [ALIAS]


def test_an_alias_that_somebody_moved_is_refused(
    embeddings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, out = f"milvus:{tmp_path}/store.db", tmp_path / "out"
    import_into(embeddings, out, store)
    client = connect(str(tmp_path / "store.db"))
    client.create_collection("other", dimension=8)
    client.alter_alias("other", ALIAS)
    with pytest.raises(StoreUnavailable, match="names 'other', which Lookalike did not make"):
        import_into(embeddings, out, store)
    with lookalike.open_collection(out) as collection:  # the version keeps to its own rows
        assert len(collection.search(id="item-3", limit=2)) == 2
    assert "milvus_alias_moved" in caplog.text


def test_a_removed_or_replaced_collection_is_refused(embeddings: Path, tmp_path: Path) -> None:
    import_into(embeddings, tmp_path / "out", f"milvus:{tmp_path}/store.db")
    client = connect(str(tmp_path / "store.db"))
    name = current_manifest(tmp_path / "out").store.params["collection"]
    client.drop_alias(ALIAS)
    client.drop_collection(name)
    with pytest.raises(StoreUnavailable, match="has no collection"):
        lookalike.open_collection(tmp_path / "out")
    client.create_collection(name, dimension=8)
    with pytest.raises(StoreUnavailable, match="another schema"):
        lookalike.open_collection(tmp_path / "out")


def test_a_server_that_is_away_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_MILVUS_TIMEOUT", "0.5")
    vectors = np.eye(8, dtype=np.float16)
    with pytest.raises(StoreUnreachable, match=r"http://127.0.0.1:9 can't be reached"):
        build_store(vectors, tmp_path, "milvus:http://127.0.0.1:9/name")
    params = {"uri": "http://127.0.0.1:9", "alias": "a", "collection": "a_1", "preset": "exact", "count": 8}
    with pytest.raises(StoreUnreachable):
        open_store("milvus", tmp_path, vectors, params)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("TIMEOUT", "-1", "LOOKALIKE_MILVUS_TIMEOUT is '-1': .*greater than 0"),
        ("TIMEOUT", "abc", "LOOKALIKE_MILVUS_TIMEOUT is 'abc'"),
        ("CA", "/nowhere.pem", "LOOKALIKE_MILVUS_CA is '/nowhere.pem'; there is no such file"),
    ],
)
def test_invalid_settings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"LOOKALIKE_MILVUS_{setting}", value)
    with pytest.raises(ConfigInvalid, match=message):
        connect(str(tmp_path / "other.db"))


def test_file_in_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="its folder does not exist"):
        connect(str(tmp_path / "none" / "store.db"))


def test_service_waits_for_a_server_that_is_away(
    embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_into(embeddings, tmp_path / "out", f"milvus:{tmp_path}/store.db")
    manifest = tmp_path / "out" / VERSIONS / current_version(tmp_path / "out") / MANIFEST_FILE
    content = json.loads(manifest.read_text())
    content["store"]["params"]["uri"] = "http://127.0.0.1:9"
    manifest.write_text(json.dumps(content))
    monkeypatch.setenv("LOOKALIKE_MILVUS_TIMEOUT", "0.5")
    port = free_port()
    service = start_service(tmp_path / "out", port)
    try:
        deadline = time.monotonic() + 60
        while "can't be reached" not in (text := _readyz(port)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "Milvus at http://127.0.0.1:9 can't be reached" in text
        time.sleep(1)
        assert service.poll() is None
    finally:
        service.terminate()
        service.wait(timeout=30)


def _readyz(port: int) -> str:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).text
    except httpx.TransportError:
        return ""


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("milvus", "names no place"),
        ("milvus:", "names no place"),
        ("milvus:store", "names no place"),
        ("milvus:http://host:19530", "names no place"),
        ("milvus:http://host:19530/two/names", "names no place"),
        ("milvus:ftp://host/name", "names no place"),
        ("milvus:http://host:19530/name?index=best", "unknown index"),
        ("milvus:http://host:19530/name?nlist=4", "unknown index"),
        ("milvus:http://root:secret@host:19530/name", "LOOKALIKE_MILVUS_TOKEN"),
    ],
)
def test_invalid_places_are_refused(name: str, match: str) -> None:
    with pytest.raises(UnknownStore, match=match) as error:
        parse_location(name)
    assert "secret" not in str(error.value)


def test_places() -> None:
    assert parse_location("milvus:https://host:19530/photos?index=ivf-pq4").preset_for(1, 10_000) == "ivf-pq4"
    assert parse_location("milvus:http://host:19530/photos").preset_for(10_000, 10_000) == "ivf-pq4"
    assert parse_location("milvus:a.db").preset_for(10_000, 10_000) == "ivf-sq8"
    assert parse_location("milvus:a.db").preset_for(9_999, 10_000) == "exact"

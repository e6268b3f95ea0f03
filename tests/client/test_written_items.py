"""Writes by the clients to a running service, as its searches show them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike_client import ApiError, AsyncClient, Client, Delete, Patch, Put, WrittenItem
from tests.api.small_collection import ITEMS, PHOTOGRAPHS, build_collection
from tests.e2e.commands import serving

PAGE = PHOTOGRAPHS / "page.png"
CAT = "animals/cat.png"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a writable service with nine photographs, whose bodies are at most 6 MB."""
    collection = build_collection(tmp_path_factory.mktemp("writable") / "photographs")
    with serving(collection, LOOKALIKE_WRITABLE="true", LOOKALIKE_MAX_BODY_BYTES="6000000") as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


@pytest.mark.parametrize("item_id", ["new/ä page.png", "100%?.png", "back\\slash;#1"])
def test_item_is_added_changed_and_removed(client: Client, item_id: str) -> None:
    written = client.put_item(item_id, PAGE, metadata={"caption": "a page", "rank": 3}, if_none_match="*")
    assert (written.id, written.result, written.collection) == (item_id, "created", "photographs")
    hit = client.search(image=PAGE, limit=1).results[0]
    assert (hit.id, hit.score) == (item_id, 1.0)
    item = client.item(item_id)
    assert item.etag == written.etag
    assert (item.metadata["caption"], item.metadata["rank"], item.metadata["format"]) == ("a page", 3, "PNG")
    with pytest.raises(ApiError, match="412 precondition_failed"):
        client.put_item(item_id, PAGE, if_none_match="*")
    patched = client.patch_item(item_id, {"caption": None, "rank": 4}, if_match=written.etag)
    assert patched.result == "patched"
    assert "caption" not in client.item(item_id).metadata
    with pytest.raises(ApiError, match="412 precondition_failed"):
        client.delete_item(item_id, if_match=written.etag)
    deleted = client.delete_item(item_id, if_match=patched.etag)
    assert (deleted.result, deleted.etag) == ("deleted", None)
    with pytest.raises(ApiError, match="404 unknown_item"):
        client.delete_item(item_id)


def test_embedding_is_an_item(client: Client) -> None:
    embedding = client.embed("a line of text").embeddings[0]
    client.put_item("text", embedding=embedding, metadata={"caption": "by hand"})
    assert client.search("a line of text", limit=1).results[0].id == "text"
    client.delete_item("text")


def test_several_are_written_together(client: Client) -> None:
    outcomes = client.write_items(
        [
            Put(id="page", image=PAGE, metadata={"rank": 1}),
            Put(id="page", image=PAGE.read_bytes(), if_none_match="*"),
            Patch(id="page", metadata={"rank": 2}),
            {"op": "put", "id": "broken", "image": b"no image"},
            Put(id="a//b", image=PAGE),
            Delete(id="nowhere"),
        ]
    )
    created, unmet, patched, broken, invalid, missing = outcomes
    assert isinstance(created, WrittenItem)
    assert isinstance(patched, WrittenItem)
    assert (created.result, patched.result, patched.etag) == ("created", "patched", client.item("page").etag)
    codes = [each.code for each in (unmet, broken, invalid, missing) if isinstance(each, ApiError)]
    assert codes == ["precondition_failed", "image_unsupported", "id_invalid", "unknown_item"]
    assert client.item("page").metadata["rank"] == 2
    client.delete_item("page")


def test_more_than_a_request_is_written(client: Client) -> None:
    embedding = client.embed("a cat").embeddings[0]
    many = [Put(id=f"many/{number}", embedding=embedding, metadata={"batch": "many"}) for number in range(1_100)]
    assert {each.result for each in client.write_items(many) if isinstance(each, WrittenItem)} == {"created"}
    condition = {"must": [{"field": "batch", "equals": "many"}]}
    assert client.delete_items(condition, dry_run=True).count == client.count(condition).count == 1_100
    deleted = client.delete_items(condition)
    assert (deleted.count, deleted.dry_run) == (1_100, False)
    assert client.count().total == len(ITEMS)


def test_file_over_the_limit_costs_no_other(client: Client, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(PAGE.read_bytes() + bytes(7_000_000))
    (tmp_path / "fitting.png").write_bytes(PAGE.read_bytes() + bytes(5_000_000))  # too large as base64
    names = ["large.png", "page.png", "fitting.png"]
    paths = [tmp_path / "large.png", PAGE, tmp_path / "fitting.png"]
    outcomes = client.write_items(Put(id=name, image=path) for name, path in zip(names, paths, strict=True))
    large, *others = outcomes
    assert isinstance(large, ApiError)
    assert large.status == 413
    assert [each.result for each in others if isinstance(each, WrittenItem)] == ["created", "created"]
    client.write_items([Delete(id=name) for name in names[1:]])


def test_collection_says_whether_it_is_writable(client: Client) -> None:
    info = client.collection_info("photographs")
    assert info.writable
    before = info.pending_writes or 0
    client.put_item("pending", PAGE)
    assert client.collection_info("photographs").pending_writes == before + 1
    client.delete_item("pending")


async def test_async_client_writes_too(address: str, client: Client) -> None:
    async with AsyncClient(address) as other:
        written = await other.put_item("page", PAGE)
        await other.patch_item("page", {"caption": "a page"}, if_match=written.etag)
        (outcome,) = await other.write_items([Patch(id="page", metadata={"rank": 1})])
        assert isinstance(outcome, WrittenItem)
        assert (await other.delete_items({"must": [{"field": "rank", "equals": 1}]}, dry_run=True)).count == 1
        assert client.item("page").metadata["caption"] == "a page"
        assert (await other.delete_item("page", if_match=outcome.etag)).result == "deleted"

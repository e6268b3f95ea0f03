"""`lookalike add` and `lookalike delete` through a running service with keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike_client import Client
from tests.api.small_collection import ITEMS, PHOTOGRAPHS, build_collection
from tests.e2e.commands import invoke, serving

PAGE = PHOTOGRAPHS / "page.png"
KEY = "a-key-that-writes-for-tests-0123456789"
READER = "a-key-that-only-reads-tests-0123456789"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_collection(tmp_path_factory.mktemp("served") / "photographs")


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    keys = f"write:{KEY},read:{READER}"
    with serving(root, LOOKALIKE_WRITABLE="true", LOOKALIKE_KEYS=keys, LOOKALIKE_MAX_BODY_BYTES="6000000") as address:
        yield address


@pytest.fixture
def client(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client; the commands get its key from the environment."""
    monkeypatch.setenv("LOOKALIKE_KEY", KEY)
    with Client(address, KEY) as client:
        yield client
        client.delete_items({"must": [{"field": "test", "equals": True}]})


def add(address: str, *arguments: str | Path) -> tuple[int, list[str], list[str]]:
    """Add images with a mark by which they are deleted afterwards; return the status and both outputs."""
    done = invoke("add", "--url", address, *arguments, "--metadata", '{"test": true}')
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def test_next_search_finds_added_images(address: str, client: Client, tmp_path: Path) -> None:
    (tmp_path / "new" / "deep").mkdir(parents=True)
    shutil.copy(PAGE, tmp_path / "new" / "deep" / "page.png")
    (tmp_path / "new" / "deep" / "page.txt").write_text("a page of a book")
    (tmp_path / "new" / "broken.png").write_bytes(b"no image")
    status, out, err = add(address, tmp_path / "new", "--prefix", "2026/")
    assert (status, out) == (1, ["added 1 image: 1 new, 0 replaced; 1 failed"])
    assert err[0].startswith("error: 2026/broken.png: ")
    assert err[0].endswith("[image_unsupported]")
    hit = client.search(image=PAGE, limit=1).results[0]
    assert (hit.id, hit.score) == ("2026/deep/page.png", 1.0)
    assert (hit.metadata["caption"], hit.metadata["test"]) == ("a page of a book", True)


def test_more_images_than_a_request_are_added(address: str, client: Client, tmp_path: Path) -> None:
    for number in range(70):
        shutil.copy(PAGE, tmp_path / f"{number}.png")
    (tmp_path / "large.png").write_bytes(PAGE.read_bytes() + bytes(5_000_000))
    (tmp_path / "too large.png").write_bytes(PAGE.read_bytes() + bytes(7_000_000))
    status, out, err = add(address, tmp_path)
    assert (status, out) == (1, ["added 71 images: 71 new, 0 replaced; 1 failed"])
    assert "too large.png" in err[0]
    assert client.count({"must": [{"field": "test", "equals": True}]}).count == 71


def test_existing_items_are_skipped_or_replaced(address: str, client: Client, tmp_path: Path) -> None:
    shutil.copy(PAGE, tmp_path / "100%?.png")
    shutil.copy(PHOTOGRAPHS / "coffee.png", tmp_path / "new.png")
    assert add(address, tmp_path / "100%?.png")[:2] == (0, ["added 1 image: 1 new, 0 replaced"])
    before = client.item("100%?.png").etag
    done = add(address, tmp_path, "--if-new")
    assert done[:2] == (0, ["added 1 image: 1 new, 0 replaced; 1 skipped, whose ids exist"])
    assert client.item("100%?.png").etag == before
    assert add(address, tmp_path)[1] == ["added 2 images: 0 new, 2 replaced"]


def test_items_are_deleted(address: str, client: Client) -> None:
    add(address, PAGE, PHOTOGRAPHS / "coffee.png")
    dry = invoke("delete", "--url", address, "page.png", "nowhere", "--dry-run")
    assert (dry.returncode, dry.stdout) == (1, "1 item would be deleted; 1 failed\n")
    done = invoke("delete", "--url", address, "page.png", "nowhere", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["deleted"] == 1
    assert "error: nowhere: no item has the id 'nowhere'" in done.stderr
    condition = '{"must": [{"field": "test", "equals": true}]}'
    dry = invoke("delete", "--url", address, "--filter", condition, "--dry-run", "--collection", "photographs")
    assert dry.stdout == "1 item would be deleted\n"
    assert invoke("delete", "--url", address, "--filter", condition).stdout == "deleted 1 item\n"
    assert client.count().total == len(ITEMS)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--key", READER], "[role_missing]"),
        (["--key", "wrong"], "[key_invalid]"),
        (["--collection", "elsewhere"], "[unknown_collection]"),
    ],
)
def test_refusal_of_the_service_ends_the_command(
    address: str, client: Client, arguments: list[str], error: str
) -> None:
    status, _, err = add(address, PAGE, *arguments)
    assert status == 1
    assert err[-1].startswith("error: ")
    assert err[-1].endswith(error)
    assert client.count().total == len(ITEMS)


def test_absent_service_is_named(client: Client) -> None:
    status, _, err = add("http://127.0.0.1:9", PAGE)
    assert status == 1
    assert err[-1].startswith("error: no response from http://127.0.0.1:9/")


def test_folder_of_a_writable_service_is_locked(root: Path, client: Client) -> None:
    done = invoke("add", root, PAGE)
    assert done.returncode == 1
    assert "write through it with --url" in done.stderr


def test_folder_and_service_make_the_same_item(address: str, client: Client, tmp_path: Path) -> None:
    other = build_collection(tmp_path / "photographs")
    assert invoke("add", other, PAGE, "--metadata", '{"test": true}').returncode == 0
    add(address, PAGE)
    with serving(other, LOOKALIKE_WRITABLE="true") as second, Client(second) as reader:
        assert reader.item("page.png").etag == client.item("page.png").etag
        assert reader.thumbnail("page.png").data == client.thumbnail("page.png").data

"""`lookalike add` and `lookalike delete` on a collection in a folder."""

from __future__ import annotations

import doctest
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from cli import folder_writes, service_writes, write_report
from cli.new_items import NewItem
from indexing.api import index
from lookalike.bootstrap import open_searcher
from lookalike.collection import open_collection
from lookalike.encoders.fake import FakeEncoder
from lookalike.errors import (
    EncoderError,
    FilterInvalid,
)
from lookalike.images import decode
from lookalike.row_search import SearchOptions
from lookalike.search import Searcher
from lookalike.writes.log import WriteLog
from lookalike.writes.writer import Writer
from lookalike_client import Client
from tests.api.small_collection import ITEMS, PHOTOGRAPHS, build_collection
from tests.e2e.commands import invoke

PAGE = PHOTOGRAPHS / "page.png"
CAT = "animals/cat.png"
CATS = '{"must": [{"field": "caption", "equals": "a cat"}]}'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build_collection(tmp_path / "photographs")


def run(*arguments: str | Path) -> tuple[int, list[str], list[str]]:
    """Run a command; return its status and the lines of both outputs."""
    done = invoke(*arguments)
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def view(root: Path) -> Searcher:
    """Return a searcher over the collection with its pending writes."""
    with Writer(open_collection(root)) as writer:
        searcher = open_searcher(root)
        return searcher.over(writer.view)


def record(root: Path, item_id: str) -> dict[str, Any]:
    metadata = view(root).collection.metadata
    return metadata.records([metadata.row_of(item_id)])[0]


def ids(root: Path) -> set[str]:
    searcher = view(root)
    return {str(each["id"]) for each in searcher.collection.metadata.records(searcher.table.rows().tolist(), ["id"])}


def failing(*arguments: str | Path) -> str:
    """Run a command that an error ends; return its line."""
    status, out, err = run(*arguments)
    assert status == 1, (out, err)
    return err[-1]


class TestAdd:
    def test_added_image_is_found_with_score_1(self, root: Path) -> None:
        status, out, _ = run("add", root, PAGE)
        assert (status, out[0]) == (0, "added 1 image: 1 new, 0 replaced")
        assert out[1] == f"`lookalike search` and running services see this after:  lookalike compact {root}"
        hit = view(root).search_image(PAGE.read_bytes(), SearchOptions(limit=1)).hits[0]
        assert (hit.id, hit.score) == ("page.png", 1.0)

    def test_item_is_as_the_indexing_job_makes_it(self, tmp_path: Path) -> None:
        (tmp_path / "gallery" / "sub").mkdir(parents=True)
        shutil.copy(PAGE, tmp_path / "gallery" / "sub" / "page.png")
        (tmp_path / "gallery" / "sub" / "page.txt").write_text("a page of a book")
        (tmp_path / "other").mkdir()
        shutil.copy(PHOTOGRAPHS / "coffee.png", tmp_path / "other")
        out = [tmp_path / "indexed", tmp_path / "added"]
        index([str(tmp_path / "gallery")], out[0], encoder="fake")
        index([str(tmp_path / "other")], out[1], encoder="fake")
        assert run("add", out[1], tmp_path / "gallery")[0] == 0
        indexed, added = (record(root, "sub/page.png") for root in out)
        assert added == {name: value for name, value in indexed.items() if name not in ("source", "path")}
        searchers = [view(root) for root in out]
        rows = [searcher.collection.metadata.row_of("sub/page.png") for searcher in searchers]
        vectors, thumbnails = (
            [take(searcher.collection, row) for searcher, row in zip(searchers, rows, strict=True)]
            for take in (
                lambda stored, row: stored.stored_vectors[[row]],
                lambda stored, row: stored.thumbnails.get(row),
            )
        )
        np.testing.assert_array_equal(vectors[0], vectors[1])
        assert thumbnails[0] == thumbnails[1] is not None
        with WriteLog(out[1]) as log:
            entry = log.find("sub/page.png")
        assert entry is not None
        version = open_collection(out[0]).folder
        assert entry.content_hash == np.load(version / "content_hashes.npy")[0].tobytes()

    def test_ids_are_those_of_the_folder_with_the_prefix(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "new" / "deep").mkdir(parents=True)
        shutil.copy(PAGE, tmp_path / "new" / "deep" / "a.png")
        shutil.copy(PAGE, tmp_path / "new" / "b.png")
        (tmp_path / "new" / "notes.txt").write_text("no image")
        assert run("add", root, tmp_path / "new", f"more={PAGE}", "--prefix", "2026/")[0] == 0
        assert ids(root) - set(ITEMS) == {"2026/deep/a.png", "2026/b.png", "2026/more/page.png"}

    def test_id_of_a_single_image_is_given(self, root: Path) -> None:
        assert run("add", root, PAGE, "--id", "shoes/4711")[0] == 0
        assert "shoes/4711" in ids(root)
        line = failing("add", root, PAGE, PHOTOGRAPHS / "coffee.png", "--id", "one")
        assert line.startswith("error: --id names one image, but there are several")
        assert "one" not in ids(root)

    def test_metadata_is_that_of_all_images(self, root: Path) -> None:
        metadata = '{"caption": "mine", "brand": "acme", "sizes": [1, 2]}'
        assert run("add", root, PAGE, PHOTOGRAPHS / "coffee.png", "--metadata", metadata)[0] == 0
        for item_id in ("page.png", "coffee.png"):
            stored = record(root, item_id)
            assert (stored["caption"], stored["brand"], stored["sizes"]) == ("mine", "acme", [1, 2])
            assert stored["width"] == decode((PHOTOGRAPHS / item_id).read_bytes()).width

    def test_existing_item_is_replaced(self, root: Path) -> None:
        status, out, _ = run("add", root, PAGE, "--id", CAT)
        assert (status, out[0]) == (0, "added 1 image: 0 new, 1 replaced")
        assert view(root).search_image(PAGE.read_bytes(), SearchOptions(limit=1)).hits[0].id == CAT
        assert "caption" not in record(root, CAT)

    def test_existing_item_is_skipped(self, root: Path) -> None:
        run("add", root, PAGE)
        before = Path(root / "writes.head").read_bytes()
        status, out, _ = run("add", root, PAGE, "--if-new")
        assert (status, out) == (0, ["added 0 images; 1 skipped, whose ids exist"])
        assert Path(root / "writes.head").read_bytes() == before
        status, out, _ = run("add", root, PAGE, PHOTOGRAPHS / "coffee.png", "--if-new")
        assert out[0] == "added 1 image: 1 new, 0 replaced; 1 skipped, whose ids exist"

    def test_failed_images_cost_no_others(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "broken.png").write_bytes(b"no image")
        (tmp_path / "cut.png").write_bytes(PAGE.read_bytes()[:2000])
        status, out, err = run("add", root, tmp_path / "broken.png", tmp_path / "absent.png", PAGE)
        assert (status, out[0]) == (1, "added 1 image: 1 new, 0 replaced; 2 failed")
        assert [line.split(":")[1].strip() for line in err] == ["broken.png", str(tmp_path / "absent.png")]
        assert [line.rsplit(" ", 1)[1] for line in err] == ["[image_unsupported]", "[source_not_found]"]
        assert "page.png" in ids(root)

    def test_same_id_twice_is_an_error(self, root: Path, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            shutil.copy(PHOTOGRAPHS / ("page.png" if name == "a" else "coffee.png"), tmp_path / name / "1.png")
        assert run("add", root, tmp_path / "a", tmp_path / "b")[0] == 0
        assert {"1.png", "b/1.png"} <= ids(root)  # as the indexing job names the second one
        status, out, err = run("add", root, PAGE, PAGE, PAGE)
        assert (status, out[0]) == (1, "added 2 images: 2 new, 0 replaced; 1 failed")
        assert err[0].startswith("error: page.png: id 'page.png' was seen before; write NAME=PATH")
        assert err[0].endswith("[duplicate_id]")

    def test_json_has_counts_and_errors(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "broken.png").write_bytes(b"no image")
        status, out, err = run("add", root, PAGE, tmp_path / "broken.png", "--json")
        assert status == 1
        counts = json.loads(out[0])
        (error,) = counts.pop("errors")
        assert counts == {"created": 1, "replaced": 0, "skipped": 0, "failed": 1}
        assert (error["id"], error["code"]) == ("broken.png", "image_unsupported")
        assert error["detail"] in err[0]

    def test_metadata_that_does_not_fit_is_an_error_of_the_image(self, root: Path) -> None:
        status, _, err = run("add", root, PAGE, "--metadata", '{"caption": 5}')
        assert status == 1
        assert err[0].startswith("error: page.png: metadata.caption is ")
        assert "[metadata_invalid]" in failing("add", root, PAGE, "--metadata", '{"width": 5}')
        for text in ("{", "[1]"):
            status, _, err = run("add", root, PAGE, "--metadata", text)
            assert status == 2
            assert "--metadata is" in " ".join(err)

    def test_folder_without_images_is_an_error(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert failing("add", root, tmp_path / "empty").startswith("error: there are no images in")

    def test_large_image_is_rejected(self, root: Path) -> None:
        assert "[image_too_large]" in failing("add", root, PAGE, "--max-pixels", "100")

    def test_many_images_are_encoded_in_batches(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes: list[int] = []

        class Counting(FakeEncoder):
            def encode_images(self, batch: Any) -> Any:
                sizes.append(len(batch))
                return super().encode_images(batch)

        monkeypatch.setattr(folder_writes, "load_encoder", lambda *_: Counting())
        (tmp_path / "many").mkdir()
        for number in range(150):
            Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / "many" / f"{number:03}.png")
        assert run("add", root, tmp_path / "many")[1][0] == "added 150 images: 150 new, 0 replaced"
        assert sum(sizes) == 150
        assert len(sizes) <= 3
        assert ids(root) - set(ITEMS) == {f"{number:03}.png" for number in range(150)}

    def test_image_that_the_encoder_fails_on_costs_no_other(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Failing(FakeEncoder):
            def encode_images(self, batch: Any) -> Any:
                if any(image.max() < 20 for image in batch):
                    raise EncoderError("too dark")
                return super().encode_images(batch)

        monkeypatch.setattr(folder_writes, "load_encoder", lambda *_: Failing())
        Image.new("RGB", (64, 64)).save(tmp_path / "dark.png")
        status, out, err = run("add", root, tmp_path / "dark.png", PAGE)
        assert (status, out[0]) == (1, "added 1 image: 1 new, 0 replaced; 1 failed")
        assert err[0].startswith("error: dark.png: the encoder's vector for this image is not finite")

    def test_full_collection_stops_the_command(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer = folder_writes.Writer
        monkeypatch.setattr(folder_writes, "Writer", lambda stored: writer(stored, max_pending=1))
        status, out, err = run("add", root, PAGE, PHOTOGRAPHS / "coffee.png")
        assert (status, out[0]) == (1, "added 1 image: 1 new, 0 replaced; 1 failed")
        assert "lookalike compact" in err[-1]
        assert err[-1].endswith("[pending_full]")

    def test_lock_of_another_process_is_named(self, root: Path) -> None:
        with Writer(open_collection(root)):
            line = failing("add", root, PAGE)
        assert f"process {os.getpid()} writes to" in line
        assert "write through it with --url" in line
        assert line.endswith("[collection_busy]")

    def test_compacted_version_has_the_image(self, root: Path) -> None:
        assert run("add", root, PAGE, "--metadata", '{"caption": "a page"}')[0] == 0
        assert "page.png" not in run("search", root, "--image", PAGE, "--limit", "1")[1][0]
        assert run("compact", root)[0] == 0
        assert re.match(r" *1 +1\.0000 +page\.png", run("search", root, "--image", PAGE, "--limit", "1")[1][0])

    def test_other_arguments_are_errors(self, root: Path, tmp_path: Path) -> None:
        assert failing("add", tmp_path / "nowhere", PAGE).endswith("[collection_not_found]")
        assert run("add", root)[0] == run("add")[0] == 2
        assert run("add", root, PAGE, "--collection", "photographs")[0] == 2
        assert failing("add", "--url", "localhost:8000", PAGE).endswith("[config_invalid]")


class TestDelete:
    def test_items_are_deleted(self, root: Path) -> None:
        status, out, _ = run("delete", root, CAT, "cup")
        assert (status, out[0]) == (0, "deleted 2 items")
        assert out[1].endswith(f"lookalike compact {root}")
        assert ids(root) == set(ITEMS) - {CAT, "cup"}

    def test_unknown_id_costs_no_other(self, root: Path) -> None:
        status, out, err = run("delete", root, "nowhere", CAT)
        assert (status, out[0]) == (1, "deleted 1 item; 1 failed")
        assert err == ["error: nowhere: no item has the id 'nowhere' in this collection [unknown_item]"]
        assert CAT not in ids(root)

    def test_items_are_deleted_by_a_filter(self, root: Path) -> None:
        assert run("delete", root, "--filter", CATS)[1][0] == "deleted 1 item"
        assert ids(root) == set(ITEMS) - {CAT}
        assert run("delete", root, "--filter", CATS)[1] == ["deleted 0 items"]

    def test_dry_run_deletes_nothing(self, root: Path) -> None:
        assert run("delete", root, "--filter", CATS, "--dry-run")[1] == ["1 item would be deleted"]
        status, out, _ = run("delete", root, CAT, "nowhere", "--dry-run")
        assert (status, out) == (1, ["1 item would be deleted; 1 failed"])
        assert ids(root) == set(ITEMS)

    def test_json_has_counts_and_errors(self, root: Path) -> None:
        status, out, _ = run("delete", root, CAT, "nowhere", "--json")
        assert status == 1
        counts = json.loads(out[0])
        assert [error["code"] for error in counts.pop("errors")] == ["unknown_item"]
        assert counts == {"deleted": 1, "failed": 1, "dry_run": False}

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ([], "pass ids of items, or --filter JSON"),
            (["cup", "--filter", CATS], "one of them"),
            (["--filter", "{"], "is not JSON"),
        ],
    )
    def test_wrong_usage_is_refused(self, root: Path, arguments: Sequence[str], text: str) -> None:
        status, _, err = run("delete", root, *arguments)
        assert status == 2
        assert text in " ".join(" ".join(err).replace("│", " ").split())

    def test_filter_must_have_a_condition_and_fit(self, root: Path) -> None:
        for text in ("{}", '{"must": []}', '{"must": [{"field": "nothing", "equals": 1}]}'):
            assert failing("delete", root, "--filter", text).endswith(f"[{FilterInvalid.code}]")
        assert ids(root) == set(ITEMS)


def test_operations_without_capacity_are_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(service_writes.time, "sleep", waits.append)
    sent: list[list[str]] = []

    def reply(request: httpx.Request) -> httpx.Response:
        ids = [each["id"] for each in json.loads(request.read())["operations"]]
        sent.append(ids)
        full = {"status": 503, "code": "pending_full", "detail": "full"}
        done = {"result": "created", "etag": '"1"'}
        results = [{"id": each, **(full if each == "b" and len(sent) < 3 else done)} for each in ids]
        return httpx.Response(200, json={"results": results, "collection": "c", "version": "v", "encoder": "fake"})

    items = [NewItem(name, lambda: b"image", {}) for name in "abc"]
    with Client("http://service", transport=httpx.MockTransport(reply)) as client:
        (outcomes,) = service_writes.add_images(items, client, if_new=False)
    assert [(each.id, each.result) for each in outcomes] == [("a", "created"), ("b", "created"), ("c", "created")]
    assert sent == [["a", "b", "c"], ["b"], ["b"]]
    assert waits == [1, 2]


def test_examples_of_the_report_are_right() -> None:
    assert doctest.testmod(write_report).failed == 0

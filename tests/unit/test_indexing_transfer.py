"""`lookalike push` and `pull`: a collection to a bucket and back, checked, resumed, and refused where it is damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from indexing import transfer
from indexing.compaction import run_compact
from indexing.job import IndexSettings, run_index
from indexing.transfer import pull, push
from indexing.work_folder import exclusive
from lookalike.collection import CURRENT, VECTORS, VERSIONS, current_version, open_collection
from lookalike.collection_map import MAP_FILE
from lookalike.errors import (
    BucketUnavailable,
    ChecksumMismatch,
    CollectionBusy,
    CollectionNotFound,
    CollectionUnwritable,
    LookalikeError,
    ManifestInvalid,
    SourceNotFound,
    WritesDamaged,
)
from lookalike.manifest import MANIFEST_FILE
from lookalike.object_storage import Location, StoredObject
from tests.bad_images import encoded, make_image
from tests.bucket_server import Bucket, bucket_server, new_bucket, only_allowed
from tests.e2e.commands import invoke, invoke_json
from tests.unit.written_collections import apply, opened_writer, put, seen


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    with bucket_server() as running:
        yield running


@pytest.fixture
def bucket(server: ThreadedMotoServer, tmp_path: Path) -> Bucket:
    return new_bucket(server, tmp_path.name.replace("_", "-").lower()[:60])


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    return updated(tmp_path / "built", 0)


def updated(root: Path, seed: int) -> Path:
    images = root.with_name("images")
    images.mkdir(exist_ok=True)
    (images / f"{seed}.jpg").write_bytes(encoded(make_image(seed=seed), "JPEG"))
    run_index(IndexSettings((str(images),), root, encoder="fake"))
    return root


def test_pulled_collection_is_the_pushed_one(bucket: Bucket, collection: Path, tmp_path: Path) -> None:
    (collection / "calibration.json").write_text("{}\n")
    pushed = push(collection, bucket.url("c/name"))
    assert pushed.copied_files == pushed.files
    assert bucket.keys("c/name/")[0] == "c/name/CURRENT"
    (collection / "calibration.json").unlink()
    copy = tmp_path / "copy"
    pulled = pull(bucket.url("c/name"), copy)
    assert (pulled.unchanged, pulled.copied_files, pulled.bytes) == (False, pushed.files, pushed.bytes)
    assert (copy / "calibration.json").read_text() == "{}\n"
    assert not (copy / "sources.json").exists()  # it has paths of the machine that pushed
    (copy / "calibration.json").unlink()
    np.testing.assert_array_equal(open_collection(copy).vectors, open_collection(collection).vectors)
    assert {path.name for path in (copy / VERSIONS).iterdir()} == {current_version(collection)}


def test_second_run_copies_nothing(bucket: Bucket, collection: Path, tmp_path: Path) -> None:
    url = bucket.url()
    push(collection, url)
    again = push(collection, url)
    assert (again.unchanged, again.copied_files) == (True, 0)
    pull(url, tmp_path / "copy")
    again = pull(url, tmp_path / "copy")
    assert (again.unchanged, again.copied_files) == (True, 0)


def test_later_map_is_copied_with_its_version(bucket: Bucket, collection: Path, tmp_path: Path) -> None:
    url, copy = bucket.url("c"), tmp_path / "copy"
    push(collection, url)
    pull(url, copy)
    drawn = Path(VERSIONS, current_version(collection), MAP_FILE)
    for content in (b"a map", b"a later map"):
        (collection / drawn).write_bytes(content)
        assert push(collection, url).unchanged
        assert pull(url, copy).unchanged
        assert (copy / drawn).read_bytes() == content


def test_both_sides_keep_two_versions(bucket: Bucket, collection: Path, tmp_path: Path) -> None:
    copy, versions = tmp_path / "copy", []
    for seed in range(3):
        updated(collection, seed)
        versions.append(current_version(collection))
        push(collection, bucket.url("c"))
        pull(bucket.url("c"), copy)
    kept = {path.name for path in (copy / VERSIONS).iterdir()}
    assert len(kept) == 2
    assert {key.split("/")[2] for key in bucket.keys("c/versions/")} == kept  # names of one second sort by chance
    assert current_version(copy) == versions[-1]
    assert versions[-1] in kept


@pytest.mark.parametrize("damage", ["other bytes", "other size", "missing"])
def test_damaged_file_in_the_bucket_is_refused(bucket: Bucket, collection: Path, tmp_path: Path, damage: str) -> None:
    push(collection, bucket.url())
    key = f"versions/{current_version(collection)}/{VECTORS}"
    data = bytearray((collection / key).read_bytes())
    data[-1] ^= 1
    bucket.remove(key)
    if damage != "missing":
        bucket.put({key: bytes(data) if damage == "other bytes" else bytes(data[:-1])})
    with pytest.raises(ChecksumMismatch, match=r"vectors\.npy"):
        pull(bucket.url(), tmp_path / "copy")
    assert not (tmp_path / "copy" / CURRENT).exists()
    assert push(collection, bucket.url()).copied_files == 1
    summary = pull(bucket.url(), tmp_path / "copy")
    assert open_collection(tmp_path / "copy").manifest.version == summary.version


def test_interrupted_pull_resumes_with_the_missing_files(
    bucket: Bucket, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(collection, bucket.url())
    copy, read = tmp_path / "copy", transfer.read_parts

    def break_off(found: StoredObject) -> Iterator[bytes]:
        if found.location.name == VECTORS:
            raise BucketUnavailable("the network is down")
        return read(found)

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "read_parts", break_off)
        with pytest.raises(BucketUnavailable):
            pull(bucket.url(), copy)
    (unfinished,) = (copy / VERSIONS).glob(".copying-*")
    done = {path.name for path in unfinished.iterdir()} - {VECTORS}
    summary = pull(bucket.url(), copy)
    assert done
    assert summary.copied_files == summary.files - len(done)
    assert open_collection(copy).manifest.version == summary.version


def test_damaged_local_copy_is_replaced(bucket: Bucket, collection: Path, tmp_path: Path) -> None:
    push(collection, bucket.url())
    copy = tmp_path / "copy"
    pull(bucket.url(), copy)
    (copy / VERSIONS / current_version(copy) / VECTORS).write_bytes(b"short")
    assert not pull(bucket.url(), copy).unchanged
    open_collection(copy)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"files": {"../../evil": {"sha256": "0", "size": 1}}}, "names file '../../evil'"),
        ({"files": {".hidden": {"sha256": "0", "size": 1}}}, "names file"),
        ({"version": "another"}, "names version 'another'"),
    ],
)
def test_manifest_with_other_names_is_refused(
    bucket: Bucket, collection: Path, tmp_path: Path, change: dict[str, object], text: str
) -> None:
    push(collection, bucket.url())
    key = f"versions/{current_version(collection)}/{MANIFEST_FILE}"
    bucket.put({key: json.dumps(json.loads((collection / key).read_text()) | change).encode()})
    with pytest.raises(ManifestInvalid, match=text):
        pull(bucket.url(), tmp_path / "copy")


@pytest.mark.parametrize("name", ["..", "../x", ".building-1", ""])
def test_current_that_names_no_version_is_refused(bucket: Bucket, tmp_path: Path, name: str) -> None:
    bucket.put({"CURRENT": name.encode()})
    with pytest.raises(ManifestInvalid, match="does not name a version"):
        pull(bucket.url(), tmp_path / "copy")


def test_faults_are_clear(bucket: Bucket, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(error: type[LookalikeError], url: str, root: Path = tmp_path / "copy") -> None:
        with pytest.raises(error):
            pull(url, root)

    refused(CollectionNotFound, bucket.url("nothing"))
    refused(SourceNotFound, "s3://no-such-bucket/x")
    refused(SourceNotFound, "elsewhere")
    assert not (tmp_path / "copy").exists()
    bucket.put({"half/CURRENT": b"20260101T000000Z-abcdef\n"})
    refused(ManifestInvalid, bucket.url("half"))
    push(collection, bucket.url("c"))
    refused(CollectionUnwritable, bucket.url("c"), tmp_path / "images")
    with exclusive(tmp_path / "copy"):
        refused(CollectionBusy, bucket.url("c"))
    with (
        only_allowed(bucket, monkeypatch, "s3:ListBucket", "s3:GetObject"),
        pytest.raises(CollectionUnwritable, match="need s3:PutObject"),
    ):
        push(collection, bucket.url("d"))


def test_commands_print_a_summary(bucket: Bucket, collection: Path, tmp_path: Path) -> None:
    copy, url = tmp_path / "copy", bucket.url("c")
    done = invoke("push", collection, url)
    assert done.stdout.startswith(f"pushed {collection} to {url}, version {current_version(collection)}\n")
    assert invoke_json("pull", url, copy)["version"] == current_version(collection)
    assert invoke("pull", url, copy).stdout.startswith("unchanged: version ")
    failed = invoke("pull", bucket.url("d"), copy)
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert "no collection at s3://" in failed.stderr


def test_large_objects_are_read_in_parts(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    from lookalike import object_storage

    monkeypatch.setattr(object_storage, "_PART_BYTES", 3)
    bucket.put({"x": b"0123456789"})
    assert list(object_storage.read_parts(StoredObject(Location(bucket.name, "x"), 10, ""))) == [
        b"012", b"345", b"678", b"9",
    ]  # fmt: skip


# Collections that are written to


def test_push_warns_of_pending_writes(bucket: Bucket, collection: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened_writer(collection) as writer:
        apply(writer, put("own", 1))
    push(collection, bucket.url("c"))
    run_compact(collection)
    push(collection, bucket.url("c"))
    assert [record.getMessage() for record in caplog.records if record.name == "indexing.transfer"] == [
        f"only the version is pushed, without 1 pending write: run `lookalike compact {collection}` first"
    ]


def test_pull_refuses_a_version_that_the_log_does_not_continue(
    bucket: Bucket, collection: Path, tmp_path: Path
) -> None:
    push(collection, bucket.url("c"))
    pull(bucket.url("c"), tmp_path / "pulled")
    with opened_writer(tmp_path / "pulled") as writer:
        apply(writer, put("own", 1))
    updated(collection, 1)
    push(collection, bucket.url("c"))
    pull(bucket.url("c"), tmp_path / "pulled")  # the write stays pending
    with opened_writer(tmp_path / "pulled") as writer:
        assert {"own", "1.jpg"} <= seen(writer.view)["records"].keys()
    run_compact(tmp_path / "pulled")
    version = current_version(tmp_path / "pulled")
    updated(collection, 2)
    push(collection, bucket.url("c"))
    with pytest.raises(WritesDamaged, match=r"holds the writes up to 0, .* nothing was changed"):
        pull(bucket.url("c"), tmp_path / "pulled")
    assert current_version(tmp_path / "pulled") == version
    assert len(open_collection(tmp_path / "pulled")) == 3

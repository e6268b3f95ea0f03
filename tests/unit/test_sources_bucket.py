"""Sources in a bucket: which objects become items, under which ids, and what faults look like."""

from __future__ import annotations

import doctest
import gzip
import io
import itertools
import pickle
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from s3fs.errors import translate_boto_error

from lookalike import object_storage
from lookalike.errors import (
    BucketUnavailable,
    ConfigInvalid,
    ExtraMissing,
    ImageTooLarge,
    LookalikeError,
    SourceError,
    SourceNotFound,
)
from lookalike.object_storage import Location, StoredObject
from lookalike.sources import bucket as bucket_module
from lookalike.sources import bucket_pattern
from lookalike.sources.bucket import load_object
from lookalike.sources.item import MAX_FILE_BYTES, Item, Source
from lookalike.sources.registry import open_sources
from tests.bad_images import encoded, make_image
from tests.bucket_server import Bucket, bucket_server, new_bucket, only_allowed
from tests.unit.small_images import write_tar

JPEG = encoded(make_image(), "JPEG")
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    with bucket_server() as running:
        yield running


@pytest.fixture
def bucket(server: ThreadedMotoServer) -> Bucket:
    return new_bucket(server, f"bucket-{next(_NUMBERS)}")


def items(*arguments: str, exclude: tuple[str, ...] = ()) -> list[Item]:
    return [item for source in open_sources(arguments, exclude=exclude) for item in source]


def ids(*arguments: str, exclude: tuple[str, ...] = ()) -> list[str]:
    return [item.id for item in items(*arguments, exclude=exclude)]


def one(argument: str) -> Source:
    (source,) = open_sources([argument])
    return source


@pytest.mark.parametrize("module", [object_storage, bucket_module, bucket_pattern])
def test_docstring_examples(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


class TestPrefix:
    def test_ids_are_keys_below_the_prefix_in_utf8_order(self, bucket: Bucket) -> None:
        names = ["Z.jpg", "a/b.PNG", "a/ü.webp", "a/€.jpg", "a/\U0001f600.jpg", "b.jpg"]
        bucket.put(dict.fromkeys([f"p/{name}" for name in reversed(names)], JPEG) | {"pq/other.jpg": JPEG})
        bucket.put({"p/": b"", "p/.hidden.jpg": JPEG, "p/.git/x.jpg": JPEG, "p/notes.md": b"x"})
        for url in (bucket.url("p"), bucket.url("p/")):
            source = one(url)
            found = list(source)
            assert [item.id for item in found] == names
            assert source.report.skipped == {".md": 1}
        assert (found[0].source, found[0].columns, found[0].load()) == ("p", {"path": "Z.jpg"}, JPEG)
        assert source.estimated_count() == len(names)
        assert source.count_is_maximum

    def test_whole_bucket_and_named_source(self, bucket: Bucket) -> None:
        bucket.put({"a/x.jpg": JPEG})
        assert ids(bucket.url(), f"more={bucket.url('a')}") == ["a/x.jpg", "more/x.jpg"]
        assert one(f"s3://{bucket.name}").label == bucket.name

    def test_fingerprint_changes_with_the_content_only(self, bucket: Bucket) -> None:
        bucket.put({"a.jpg": JPEG, "b.jpg": JPEG})
        before = {item.id: item.fingerprint for item in items(bucket.url())}
        bucket.put({"a.jpg": JPEG, "b.jpg": encoded(make_image(seed=1), "JPEG"), "c.jpg": JPEG})
        after = {item.id: item.fingerprint for item in items(bucket.url())}
        assert after["a.jpg"] == before["a.jpg"]
        assert after["b.jpg"] != before["b.jpg"]

    def test_captions_and_json_beside_images(self, bucket: Bucket) -> None:
        bucket.put({"a.jpg": JPEG, "a.txt": b"a cat", "b.webp": JPEG, "b.webp.json": b'{"stars": 3}', "b.json": b"no"})
        bucket.put({"c.jpg": JPEG, "c.txt": b"", "d.txt": b"alone"})
        source = one(bucket.url())
        found = {item.id: dict(item.columns) for item in source}
        assert found["a.jpg"] == {"path": "a.jpg", "caption": "a cat"}
        assert found["b.webp"] == {"path": "b.webp", "stars": 3}
        assert found["c.jpg"] == {"path": "c.jpg"}
        assert source.report.skipped == {".json": 1, ".txt": 1}

    def test_objects_without_extension_are_images_by_content(self, bucket: Bucket) -> None:
        bucket.put({"photo": JPEG, "README": b"text", "empty": b"", "a.jpg": b""})
        source = one(bucket.url())
        assert [item.id for item in source] == ["a.jpg", "photo"]
        assert source.report.skipped == {"": 2}

    def test_exclude_patterns_hold(self, bucket: Bucket) -> None:
        bucket.put(dict.fromkeys(["a/x.jpg", "a/y.png", "drafts/1.jpg", "drafts/2/3.jpg", "@eaDir/t.jpg"], JPEG))
        (source,) = open_sources([bucket.url()], exclude=["*.png", "drafts/"])
        assert [item.id for item in source] == ["a/x.jpg"]
        assert source.report.excluded == {"*.png": 1, "drafts/": 1, "@eaDir/": 1}

    def test_listing_comes_in_pages(self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [f"{i}.jpg" for i in range(9)]
        bucket.put(dict.fromkeys(names, JPEG))
        found = object_storage.list_objects(Location(bucket.name), most=2)
        first = [next(found).location.key for _ in range(3)]
        bucket.remove("8.jpg")  # a page that was not requested yet
        assert first + [place.location.key for place in found] == names[:8]
        monkeypatch.setattr(bucket_module, "MAX_COUNTED", 5)
        assert one(bucket.url()).estimated_count() is None

    def test_many_objects_with_one_start(self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bucket_module, "_MAX_GROUP", 2)
        names = [f"frame.{i}.jpg" for i in range(5)]
        bucket.put(dict.fromkeys(names, JPEG))
        assert ids(bucket.url()) == names

    def test_items_can_be_pickled(self, bucket: Bucket) -> None:
        bucket.put({"a.jpg": JPEG, "t.tar": tar_of({"b.jpg": JPEG})})
        for item in items(bucket.url("a.jpg"), bucket.url("t.tar")):
            assert pickle.loads(pickle.dumps(item)).load() == JPEG


class TestObjectsAndPatterns:
    def test_one_image_with_its_caption(self, bucket: Bucket) -> None:
        bucket.put({"p/a[1].jpg": JPEG, "p/a[1].txt": b"a cat", "p/a1.jpg": JPEG, "p/ab.jpg": JPEG})
        (item,) = items(bucket.url("p/a[1].jpg"))
        assert (item.id, item.columns["caption"]) == ("a[1].jpg", "a cat")

    def test_pattern_of_images(self, bucket: Bucket) -> None:
        bucket.put(dict.fromkeys(["p/a1.jpg", "p/a2.png", "p/b.jpg", "p/q/a3.jpg"], JPEG) | {"p/a1.txt": b"a cat"})
        assert ids(bucket.url("p/a*.jpg")) == ["a1.jpg"]
        assert ids(bucket.url("p/**/*.jpg")) == ["a1.jpg", "b.jpg", "q/a3.jpg"]
        assert items(bucket.url("p/a?.*"))[0].columns["caption"] == "a cat"

    def test_tars_by_pattern_and_below_a_prefix(self, bucket: Bucket) -> None:
        bucket.put({f"sets/part-{i}.tar": tar_of({f"{i}.jpg": JPEG, f"{i}.txt": b"cat"}) for i in range(2)})
        expected = ["part-0/0", "part-1/1"]
        assert ids(bucket.url("sets/part-*.tar")) == expected
        found = items(bucket.url("sets"))
        assert [item.id for item in found] == expected
        assert [(item.columns["caption"], item.load()) for item in found] == [("cat", JPEG)] * 2

    def test_compressed_and_truncated_tars(self, bucket: Bucket, tmp_path: Path) -> None:
        data = tar_of({"a.jpg": JPEG, "b.jpg": JPEG})
        bucket.put({"whole.tgz": gzip.compress(data), "cut.tar": data[: 512 + len(JPEG) + 700]})
        assert [item.load() for item in items(bucket.url("whole.tgz"))] == [JPEG, JPEG]
        assert ids(bucket.url("cut.tar"))[0] == "cut/a"
        assert "truncated" in str(error_of(items(bucket.url("cut.tar"))[-1]))

    def test_parquet_with_bytes(self, bucket: Bucket) -> None:
        table = pa.table({"id": ["x", "y"], "image": [JPEG, JPEG], "stars": [1, 2]})
        bucket.put({"t.parquet": parquet_of(table), "paths.parquet": parquet_of(pa.table({"image_path": ["a.jpg"]}))})
        found = items(bucket.url("t.parquet"))
        assert [(item.id, item.columns["stars"], item.load()) for item in found] == [("x", 1, JPEG), ("y", 2, JPEG)]
        (item,) = items(bucket.url("paths.parquet"))
        assert "must hold their bytes" in str(error_of(item))

    @pytest.mark.parametrize(
        ("key", "error", "text"),
        [
            ("nothing", SourceNotFound, "no object has this key"),
            ("no-*.tar", SourceNotFound, "no object matches the pattern"),
            ("a.md", SourceError, "unknown kind"),
        ],
    )
    def test_bad_keys(self, bucket: Bucket, key: str, error: type[LookalikeError], text: str) -> None:
        bucket.put({"a.md": b"x"})
        with pytest.raises(error, match=text):
            open_sources([bucket.url(key)])


class TestFaults:
    @pytest.mark.parametrize("url", ["s3://", "s3:///key"])
    def test_url_without_bucket(self, server: ThreadedMotoServer, url: str) -> None:
        with pytest.raises(SourceNotFound, match="names no bucket"):
            open_sources([url])

    def test_unknown_bucket(self, server: ThreadedMotoServer) -> None:
        with pytest.raises(SourceNotFound, match="no bucket 'no-such-bucket'"):
            open_sources(["s3://no-such-bucket/x"])
        with pytest.raises(SourceNotFound, match="Invalid bucket name"):
            open_sources(["s3://no bucket/x"])

    def test_missing_extra(self, server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "s3fs", None)
        with pytest.raises(ExtraMissing, match=r"s3:// needs s3fs.*pip install '\.\[s3\]'"):
            open_sources(["s3://bucket/x"])

    @pytest.mark.parametrize("missing", [["AWS_SECRET_ACCESS_KEY"], ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]])
    def test_missing_credentials(
        self, server: ThreadedMotoServer, fresh_client: pytest.MonkeyPatch, missing: list[str]
    ) -> None:
        for name in missing:
            fresh_client.delenv(name)
        with pytest.raises(BucketUnavailable, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
            open_sources(["s3://bucket/x"])

    @pytest.mark.parametrize(
        ("endpoint", "error", "text"),
        [
            ("http://127.0.0.1:1", BucketUnavailable, "Could not connect.*AWS_ENDPOINT_URL"),
            ("http://no-such-host.invalid", BucketUnavailable, "AWS_ENDPOINT_URL"),
            ("nonsense", ConfigInvalid, "AWS_ENDPOINT_URL is not a URL"),
        ],
    )
    def test_endpoint_that_does_not_answer(
        self,
        server: ThreadedMotoServer,
        fresh_client: pytest.MonkeyPatch,
        endpoint: str,
        error: type[LookalikeError],
        text: str,
    ) -> None:
        fresh_client.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(error, match=text) as caught:
            open_sources(["s3://bucket/x"])
        assert "\n" not in str(caught.value)

    def test_vanished_key_is_one_rejected_item(self, bucket: Bucket) -> None:
        bucket.put({"a.jpg": JPEG, "b.jpg": JPEG})
        first, second = items(bucket.url())
        bucket.remove("a.jpg")
        assert error_of(first).code == "source_not_found"
        assert second.load() == JPEG

    def test_missing_permission_names_it(self, bucket: Bucket, fresh_client: pytest.MonkeyPatch) -> None:
        bucket.put({"a.jpg": JPEG})
        (item,) = items(bucket.url())
        with only_allowed(bucket, fresh_client, "s3:GetObject"):
            assert item.load() == JPEG
            with pytest.raises(SourceError, match="these credentials need s3:ListBucket"):
                open_sources([bucket.url()])
        with only_allowed(bucket, fresh_client, "s3:ListBucket"):
            assert "these credentials need s3:GetObject" in str(error_of(items(bucket.url())[0]))

    def test_oversized_object_is_not_read(self) -> None:
        with pytest.raises(ImageTooLarge):
            load_object(StoredObject(Location("bucket", "key"), MAX_FILE_BYTES + 1, "tag"))

    @pytest.mark.parametrize(
        ("code", "error", "text"),
        [
            ("SignatureDoesNotMatch", BucketUnavailable, "credentials .* are refused"),
            ("InternalError", BucketUnavailable, "can't be reached"),
            ("InvalidObjectState", SourceError, "InvalidObjectState"),
        ],
    )
    def test_errors_of_the_server(
        self, bucket: Bucket, fresh_client: pytest.MonkeyPatch, code: str, error: type[LookalikeError], text: str
    ) -> None:
        async def refuse(*_: object, **__: object) -> None:
            raise translate_boto_error(ClientError({"Error": {"Code": code, "Message": "no"}}, "GetObject"))

        fresh_client.setattr(s3fs.S3FileSystem, "_cat_file", refuse)
        with pytest.raises(error, match=text):
            load_object(StoredObject(Location(bucket.name, "a.jpg"), 1, "tag"))

    def test_listing_that_breaks_off_ends_the_scan(self, bucket: Bucket, fresh_client: pytest.MonkeyPatch) -> None:
        bucket.put(dict.fromkeys([f"{i}.jpg" for i in range(6)], JPEG))
        found = object_storage.list_objects(Location(bucket.name), most=2)
        next(found)
        fresh_client.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(BucketUnavailable):
            list(found)


@pytest.fixture
def fresh_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Settings that a new client reads."""
    s3fs.S3FileSystem.clear_instance_cache()
    yield monkeypatch
    s3fs.S3FileSystem.clear_instance_cache()


def error_of(item: Item) -> LookalikeError:
    with pytest.raises(LookalikeError) as caught:
        item.load()
    return caught.value


def tar_of(members: dict[str, bytes]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_tar(Path(folder) / "t.tar", members).read_bytes()


def parquet_of(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()

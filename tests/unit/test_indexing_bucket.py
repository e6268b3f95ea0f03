"""The indexing job with images and encoded shards in a bucket: resumed, updated, and stopped by faults."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from indexing.ingest import shards as shards_module
from indexing.job import IndexSettings, IndexSummary, run_index
from lookalike.collection import current_version, open_collection
from lookalike.encoders.fake import FakeEncoder
from lookalike.errors import BucketUnavailable, CollectionUnwritable, ConfigInvalid, EncoderError
from lookalike.object_storage import Location, StoredObject, list_objects
from lookalike.sources import bucket as bucket_module
from lookalike.types import Float32, UInt8
from tests.bad_images import encoded, make_image
from tests.bucket_server import Bucket, bucket_server, new_bucket, only_allowed

COUNT = 20


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    with bucket_server() as running:
        yield running


@pytest.fixture
def bucket(server: ThreadedMotoServer, tmp_path: Path) -> Bucket:
    bucket = new_bucket(server, tmp_path.name.replace("_", "-").lower()[:60])
    bucket.put({f"photos/{i:02}.jpg": encoded(make_image(seed=i), "JPEG") for i in range(COUNT)})
    return bucket


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "collection"


def index(bucket: Bucket, out: Path, batch_size: int = 4, **settings: object) -> IndexSummary:
    url = bucket.url("photos")
    return run_index(IndexSettings((url,), out, encoder="fake", batch_size=batch_size, **settings))  # type: ignore[arg-type]


def test_bucket_is_indexed_then_unchanged_then_updated(bucket: Bucket, out: Path) -> None:
    first = index(bucket, out)
    assert (first.indexed, first.encoded, first.rejected) == (COUNT, COUNT, 0)
    assert index(bucket, out).unchanged
    bucket.put({"photos/new.jpg": encoded(make_image(seed=99), "JPEG"), "photos/broken.jpg": b"no image"})
    bucket.remove("photos/00.jpg")
    again = index(bucket, out)
    assert (again.indexed, again.encoded, again.rejected, again.dropped) == (COUNT, 1, 1, 1)
    assert [record["path"] for record in open_collection(out).metadata.records([0, 1])] == ["01.jpg", "02.jpg"]


def test_shards_in_a_bucket_are_resumed_then_removed(
    bucket: Bucket, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "MAX_SHARD_ROWS", 4)
    shards = bucket.url("work/mine")
    sizes: list[int] = []  # images by batch, of which a slow source may not fill each
    encode = failing_after(3)

    def counting(encoder: FakeEncoder, pixels: UInt8) -> Float32:
        vectors = encode(encoder, pixels)
        sizes.append(len(pixels))
        return vectors

    with monkeypatch.context() as patch:
        patch.setattr(FakeEncoder, "encode_images", counting)
        with pytest.raises(EncoderError):
            index(bucket, out, shards=shards)
    assert len(sizes) == 3
    assert bucket.keys("work/mine/")
    assert list(out.glob(".work/*/encoded-*")) == []
    elsewhere = tmp_path / "another machine"
    summary = index(bucket, elsewhere, shards=shards)
    assert (summary.indexed, summary.encoded, summary.reused) == (COUNT, COUNT - sum(sizes), sum(sizes))
    assert bucket.keys("work/") == []


def test_lost_connection_stops_the_run_and_rejects_nothing(
    bucket: Bucket, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        encode = FakeEncoder.encode_images

        def unplug(encoder: FakeEncoder, pixels: UInt8) -> Float32:
            patch.setattr(s3fs.S3FileSystem, "_cat_file", unreachable)
            s3fs.S3FileSystem.clear_instance_cache()
            return encode(encoder, pixels)

        patch.setattr(FakeEncoder, "encode_images", unplug)
        with pytest.raises(BucketUnavailable, match="can't be reached"):
            index(bucket, out, batch_size=1, workers=1)
    assert not (out / "CURRENT").exists()
    s3fs.S3FileSystem.clear_instance_cache()
    summary = index(bucket, out)
    assert summary.indexed == COUNT
    assert summary.reused >= 1


def test_listing_that_breaks_off_removes_nothing(bucket: Bucket, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = index(bucket, out).version
    bucket.put({"photos/new.jpg": encoded(make_image(seed=99), "JPEG")})

    def break_off(*_: object) -> Iterator[StoredObject]:
        yield from islice(list_objects(Location(bucket.name, "photos/")), COUNT // 2)
        raise BucketUnavailable("the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(bucket_module, "MAX_COUNTED", 1)
        patch.setattr(bucket_module, "list_objects", break_off)
        with pytest.raises(BucketUnavailable):
            index(bucket, out)
    assert current_version(out) == version
    assert index(bucket, out).indexed == COUNT + 1


def test_shards_need_a_url_and_a_permission(bucket: Bucket, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigInvalid, match="must be s3://BUCKET/PATH"):
        index(bucket, out, shards="work")
    with (
        only_allowed(bucket, monkeypatch, "s3:ListBucket", "s3:GetObject"),
        pytest.raises(CollectionUnwritable, match="need s3:PutObject"),
    ):
        index(bucket, out, shards=bucket.url("work"))


def test_shards_stay_without_the_permission_to_remove_them(
    bucket: Bucket, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with only_allowed(bucket, monkeypatch, "s3:ListBucket", "s3:GetObject", "s3:PutObject"):
        assert index(bucket, out, shards=bucket.url("work")).indexed == COUNT
    assert "need s3:DeleteObject" in caplog.text
    assert len(bucket.keys("work/")) == 1


async def unreachable(*_: object, **__: object) -> bytes:
    raise ConnectionError("no route to host")


def failing_after(batches: int) -> Any:
    encode, done = FakeEncoder.encode_images, []

    def encode_images(encoder: FakeEncoder, pixels: UInt8) -> Float32:
        if len(done) == batches:
            raise EncoderError("out of memory")
        done.append(pixels)
        return encode(encoder, pixels)

    return encode_images

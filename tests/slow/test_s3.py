"""A thousand images in a bucket, with the real commands: indexed, killed, resumed, copied, served and searched.

`make test` leaves these tests out; run them with `pytest tests/slow`.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from lookalike.collection import VECTORS, VERSIONS, current_version, open_collection
from tests.bad_images import encoded, make_image
from tests.bucket_server import Bucket, bucket_server, new_bucket
from tests.e2e.commands import invoke, invoke_json, lookalike, serving

COUNT = 1_000
SMALL_SHARDS = """
from cli.main import main
from indexing.ingest import shards
shards.MAX_SHARD_ROWS = 64
main()
"""
"""The command `lookalike`, whose first shard is written long before the last, however fast the machine is."""


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    with bucket_server() as running:
        yield running


@pytest.fixture(scope="module")
def bucket(server: ThreadedMotoServer) -> Bucket:
    bucket = new_bucket(server, "many-images")
    bucket.put({name(i): image(i) for i in range(COUNT)})
    return bucket


def name(i: int) -> str:
    return f"photos/{i // 100}/{i:04}.jpg"


def image(i: int) -> bytes:
    return encoded(make_image(32, 32, seed=i), "JPEG")


@pytest.fixture(scope="module")
def collection(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, whose job was killed in the middle and then resumed on another disk."""
    folder = tmp_path_factory.mktemp("killed")
    options = ["--encoder", "fake", "--workers", "1", "--batch-size", "8", "--shards", bucket.url("work")]
    arguments = ["index", bucket.url("photos"), "--out", str(folder / "first"), *options]
    command = [sys.executable, "-c", SMALL_SHARDS, *arguments]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_shards(job, bucket, 1)
    job.kill()
    job.communicate()
    summary = invoke_json("index", bucket.url("photos"), "--out", folder / "second", *options)
    assert summary["indexed"] == COUNT
    assert 0 < summary["reused"] < COUNT
    assert summary["encoded"] == COUNT - summary["reused"]
    assert bucket.keys("work/") == []
    return folder / "second"


def wait_for_shards(job: subprocess.Popen[str], bucket: Bucket, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(bucket.keys("work/")) < count:
        assert job.poll() is None, "the job ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_job_gives_the_same_collection(collection: Path, bucket: Bucket, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    invoke_json("index", bucket.url("photos"), "--out", whole, "--encoder", "fake")
    first, second = open_collection(collection), open_collection(whole)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    ids = [record["id"] for record in first.metadata.records(range(COUNT))]
    assert ids == [name(i).removeprefix("photos/") for i in range(COUNT)]


def test_second_run_reads_nothing(collection: Path, bucket: Bucket) -> None:
    again = invoke("index", bucket.url("photos"), "--out", collection, "--encoder", "fake")
    assert again.stdout.startswith(f"unchanged: {COUNT:,} images"), again.stderr


def test_collection_is_pushed_pulled_served_and_searched(collection: Path, bucket: Bucket, tmp_path: Path) -> None:
    url, copy = bucket.url("collections/photos"), tmp_path / "copy"
    for arguments in (("push", collection, url), ("pull", url, copy)):
        done = lookalike(*arguments)
        assert done.returncode == 0, done.stderr
    with serving(copy) as address, httpx.Client(trust_env=False) as client:
        files = {"file": ("query.jpg", io.BytesIO(image(7)), "image/jpeg")}
        response = client.post(f"{address}/v1/search/image", files=files)
        assert response.status_code == 200, response.text
        assert name(7).removeprefix("photos/") in [hit["id"] for hit in response.json()["results"]]
        served_version_changes(client, address, collection, bucket, copy)


def served_version_changes(client: httpx.Client, address: str, collection: Path, bucket: Bucket, copy: Path) -> None:
    """A new version that is pulled under a running service is served soon."""
    bucket.put({"photos/9/new.jpg": image(COUNT)})
    invoke_json("index", bucket.url("photos"), "--out", collection, "--encoder", "fake")
    invoke_json("push", collection, bucket.url("collections/photos"))
    invoke_json("pull", bucket.url("collections/photos"), copy)
    deadline = time.monotonic() + 60
    while client.get(f"{address}/v1/items/9/new.jpg").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_damaged_copy_in_the_bucket_is_detected(collection: Path, bucket: Bucket, tmp_path: Path) -> None:
    url = bucket.url("damaged")
    invoke_json("push", collection, url)
    key = f"{VERSIONS}/{current_version(collection)}/{VECTORS}"
    data = bytearray((collection / key).read_bytes())
    data[len(data) // 2] ^= 1
    bucket.put({f"damaged/{key}": bytes(data)})
    done = lookalike("pull", url, tmp_path / "copy")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "differs from its checksum in the manifest" in done.stderr
    assert not (tmp_path / "copy" / "CURRENT").exists()

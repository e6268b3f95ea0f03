"""`lookalike index --runner ray` on a cluster of two machines: equal results, lost workers, and what is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from moto.server import ThreadedMotoServer
from ray.util.placement_group import placement_group

from benchmarks.ray_cluster import HOSTS, two_machines
from indexing import job as job_module
from indexing.api import index
from indexing.ingest.ray_runner import pool
from indexing.ingest.ray_runner.cluster import ClusterSettings
from indexing.job import IndexSettings, IndexSummary, run_index
from lookalike.collection import Collection, open_collection
from lookalike.encoders.engines.options import EngineOptions
from lookalike.encoders.engines.selection import cpu_precisions
from lookalike.encoders.fake import FakeEncoder
from lookalike.errors import ClusterUnavailable, EncoderError, SourceError, WeightsMissing
from tests.bad_images import encoded, make_image
from tests.bucket_server import Bucket, bucket_server, new_bucket
from tests.e2e.commands import invoke_json
from tests.unit.test_sources import write_tar

COUNT = 400
TIMES = {"seconds", "encode_seconds", "images_per_second", "encoder_waited_seconds"}


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    with bucket_server() as running:  # before the cluster, whose workers are to find it
        yield running


@pytest.fixture(scope="module")
def address(server: ThreadedMotoServer) -> Iterator[str]:
    with two_machines() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, one of which is no image."""
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(COUNT):
        (folder / f"{i:03}.jpg").write_bytes(jpeg(i))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


def jpeg(seed: int) -> bytes:
    return encoded(make_image(320, 240, seed=seed), "JPEG")


def on_cluster(address: str, sources: Path | str, out: Path, **options: Any) -> IndexSummary:
    return index(sources, out, runner="ray", address=address, **options)


def ids(collection: Collection) -> list[str]:
    return [record["id"] for record in collection.metadata.records(range(len(collection)))]


def comparable(summary: IndexSummary) -> dict[str, Any]:
    """The counts of a summary; where it ran, how long, and what it is called may differ."""
    return {
        name: value
        for name, value in asdict(summary).items()
        if name not in TIMES | {"collection", "version", "engine", "images_by_machine", "recall"}
    }


@pytest.mark.parametrize(("precision", "cosine"), [("fp32", None), ("bf16", 0.9999)])
def test_result_equals_that_of_one_machine(
    address: str, photographs: Path, tmp_path: Path, precision: str, cosine: float | None
) -> None:
    if precision not in cpu_precisions():
        pytest.skip(f"this CPU does not compute in {precision}")
    common = {"sources": (str(photographs),), "encoder": "lite", "engine_options": EngineOptions(precision=precision)}
    local = run_index(IndexSettings(out=tmp_path / "local", **common))
    both = run_index(IndexSettings(out=tmp_path / "ray", cluster=ClusterSettings(address), **common))
    assert comparable(both) == comparable(local)
    assert (both.indexed, both.rejected) == (COUNT, 1)
    assert both.engine == f"openvino {precision} on cpu"
    assert list(both.images_by_machine) == list(HOSTS)
    assert sum(both.images_by_machine.values()) == COUNT
    expected, found = open_collection(tmp_path / "local"), open_collection(tmp_path / "ray")
    assert ids(found) == ids(expected)
    if cosine is None:
        np.testing.assert_allclose(found.vectors, expected.vectors, rtol=0, atol=1e-6)
    else:
        a, b = (np.asarray(each.vectors, np.float32) for each in (expected, found))
        assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() >= cosine


def test_killed_worker_costs_a_shard_and_not_the_job(address: str, photographs: Path, tmp_path: Path) -> None:
    job = start(photographs, tmp_path / "out", "--encoder", "lite", "--runner", "ray", "--address", address)
    wait_for_shards(job, tmp_path / "out", 1)
    os.kill(wait_for_worker("encode"), signal.SIGKILL)
    output, errors = job.communicate(timeout=180)
    assert job.returncode == 0, errors
    assert "a worker on 127.0.0." in errors
    assert output.startswith(f"indexed {COUNT} images")
    assert "  encoded on " in output
    assert ids(open_collection(tmp_path / "out")) == [f"{i:03}.jpg" for i in range(COUNT)]


def test_killed_job_is_resumed_without_the_cluster(address: str, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = start(photographs, out, "--encoder", "lite", "--runner", "ray", "--address", address)
    wait_for_shards(job, out, 1)
    job.kill()
    job.communicate()
    summary = invoke_json("index", photographs, "--out", out, "--encoder", "lite")
    assert summary["indexed"] == COUNT
    assert 0 < summary["encoded"] < COUNT
    assert summary["reused"] + summary["encoded"] == COUNT


def test_interrupted_job_is_resumed_on_the_cluster(address: str, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = start(photographs, out, "--encoder", "lite")
    wait_for_shards(job, out, 1)
    job.send_signal(signal.SIGINT)
    _, errors = job.communicate(timeout=60)
    assert "run the same command again to resume" in errors
    summary = on_cluster(address, photographs, out, encoder="lite")
    assert summary.indexed == COUNT
    assert 0 < summary.encoded < COUNT


def start(sources: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """Start the command, whose batches and shards are small."""
    small = "from cli.main import main; from indexing.ingest import shards; shards.MAX_SHARD_ROWS = 32; main()"
    arguments = ["index", str(sources), "--out", str(out), "--batch-size", "16", *options]
    return subprocess.Popen(
        [sys.executable, "-c", small, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_shards(job: subprocess.Popen[str], out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.glob(".work/*/encoded-*.arrow"))) < count:
        assert job.poll() is None, "the job ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_worker(method: str) -> int:
    """Return the process of a worker in a call of `method`, which is in the title that Ray gives the process."""
    deadline = time.monotonic() + 60
    while not (found := workers(f".{method}")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found[0]


def workers(call: str = "") -> list[int]:
    """Return the processes of this cluster's workers."""
    return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if is_worker(pid, call)]


def is_worker(pid: int, call: str) -> bool:
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
        return title.startswith(f"ray::Worker{call}".encode()) and is_descendant(pid)
    except OSError:  # it has ended
        return False


def is_descendant(pid: int) -> bool:
    while pid > 1 and pid != os.getpid():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid == os.getpid()


def test_images_inside_tars_and_tables_are_sent(address: str, tmp_path: Path) -> None:
    members = {f"{i:03}.jpg": jpeg(i) for i in range(80)}
    write_tar(tmp_path / "plain.tar", members)
    write_tar(tmp_path / "small.tar.gz", members, mode="w:gz")
    table = pa.table({"id": [f"row-{i}" for i in range(80)], "image": list(members.values())})
    pq.write_table(table, tmp_path / "table.parquet")
    sources = [tmp_path / "plain.tar", tmp_path / "small.tar.gz", tmp_path / "table.parquet"]
    local = index(sources, tmp_path / "local", encoder="fake")
    both = index(sources, tmp_path / "ray", encoder="fake", runner="ray", address=address, batch_size=8)
    assert comparable(both) == comparable(local)
    expected, found = open_collection(tmp_path / "local"), open_collection(tmp_path / "ray")
    assert ids(found) == ids(expected)
    np.testing.assert_array_equal(found.vectors, expected.vectors)


def test_known_content_is_recognised_verified_and_edited(address: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.jpg").write_bytes(jpeg(i))
    out = tmp_path / "out"
    assert on_cluster(address, folder, out, encoder="fake").encoded == 6
    (folder / "0.jpg").rename(folder / "renamed.jpg")
    (folder / "new.jpg").write_bytes(jpeg(7))
    stat = (folder / "1.jpg").stat()
    (folder / "1.jpg").write_bytes(jpeg(8)[: stat.st_size].ljust(stat.st_size, b"\0"))
    os.utime(folder / "1.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    summary = on_cluster(address, folder, out, verify_content=True)
    counts = (summary.encoded, summary.recognised, summary.verified, summary.edited, summary.indexed)
    assert counts == (2, 1, 4, 1, 7)


def test_images_of_a_bucket_are_encoded(address: str, server: ThreadedMotoServer, tmp_path: Path) -> None:
    bucket: Bucket = new_bucket(server, "encoded-on-ray")
    bucket.put({f"photos/{i:02}.jpg": jpeg(i) for i in range(40)})
    options = {"encoder": "fake", "batch_size": 4, "shards": bucket.url("work")}
    summary = on_cluster(address, bucket.url("photos"), tmp_path / "out", **options)
    assert summary.indexed == 40
    assert list(summary.images_by_machine) == list(HOSTS)
    assert bucket.keys("work/") == []


def test_files_of_one_machine_alone_end_the_job(address: str, photographs: Path, tmp_path: Path) -> None:
    folder = os.open(photographs, os.O_RDONLY)
    try:
        with pytest.raises(SourceError, match=r"the machine 127\.0\.0\.. does not have the files.*mount the sources"):
            on_cluster(address, f"/proc/self/fd/{folder}", tmp_path / "out", encoder="fake")
    finally:
        os.close(folder)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": "folder:/nowhere"}, WeightsMissing, r"on the machine 127\.0\.0\..*/nowhere"),
        ({"weights": "1" * 64}, EncoderError, r"the encoder 'fake' on the machine 127\.0\.0\.. is another than here"),
    ],
)
def test_encoder_that_a_machine_lacks_ends_the_job(
    address: str,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    error: type[EncoderError],
    message: str,
) -> None:
    encoder = FakeEncoder()
    changed = SimpleNamespace(spec=replace(encoder.spec, **change), preprocessing=encoder.preprocessing)
    monkeypatch.setattr(job_module, "load_encoder", lambda *_: changed)
    with pytest.raises(error, match=message):
        on_cluster(address, photographs, tmp_path / "out", encoder="fake")


def test_cluster_without_free_cpus_ends_the_job(
    address: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool, "_WARN_SECONDS", 0.5)
    monkeypatch.setattr(pool, "MAX_START_SECONDS", 4.0)
    ray.init(address=address, log_to_driver=False)
    try:
        group = placement_group([{"CPU": 1}] * len(HOSTS), strategy="SPREAD")
        ray.get(group.ready())
        with pytest.raises(
            ClusterUnavailable, match=r"it needs 1 CPUs and 0 GPUs on .* free in the cluster are 0 and 0"
        ):
            on_cluster(address, photographs, tmp_path / "out", encoder="fake")
        assert ray.is_initialized()  # the caller's connection stays
    finally:
        ray.shutdown()
    assert "still waiting" in caplog.text


def test_interrupted_job_on_the_cluster_keeps_its_shards(address: str, photographs: Path, tmp_path: Path) -> None:
    job = start(photographs, tmp_path / "out", "--encoder", "lite", "--runner", "ray", "--address", address)
    wait_for_shards(job, tmp_path / "out", 1)
    job.send_signal(signal.SIGINT)
    _, errors = job.communicate(timeout=60)
    assert (job.returncode, "run the same command again to resume" in errors) == (130, True), errors
    assert list((tmp_path / "out").glob(".work/*/encoded-*.arrow"))


def test_images_that_end_every_worker_end_the_job(
    address: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ("--encoder", "lite", "--runner", "ray", "--address", address)
    job = start(photographs, out, *command)
    deadline = time.monotonic() + 120
    while job.poll() is None and time.monotonic() < deadline:
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "3 workers" in errors
    assert "Traceback" not in errors

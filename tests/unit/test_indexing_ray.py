"""The parts of the Ray runner that need no cluster, and what is reported where there is none."""

from __future__ import annotations

import pickle
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from indexing import index
from indexing.ingest.decoding import DecodeTask
from indexing.ingest.encoding import EncodeOptions
from indexing.ingest.ray_runner import worker as worker_module
from indexing.ingest.ray_runner.cluster import Place
from indexing.ingest.ray_runner.runner import shard_images, source_shards
from indexing.ingest.ray_runner.worker import Worker, WorkerSettings
from lookalike.encoders.engines.options import EngineOptions
from lookalike.encoders.fake import FakeEncoder
from lookalike.errors import ClusterUnavailable, ConfigInvalid, ExtraMissing
from lookalike.sources.item import HeldBytes
from lookalike.sources.registry import open_sources
from lookalike.types import Float32, UInt8
from tests.bad_images import encoded, make_image
from tests.e2e.commands import free_port, invoke

OPTIONS = EncodeOptions(batch_size=8, workers=1, max_pixels=1_000_000)
PLACES = [Place("a", "127.0.0.2", 4, 0), Place("b", "127.0.0.3", 4, 0)]
TASKS = [DecodeTask(HeldBytes(encoded(make_image(16, 16, i), "PNG")), i, i) for i in range(20)]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "0.png"
    path.parent.mkdir()
    path.write_bytes(encoded(make_image(16, 16), "PNG"))
    return path


class SizedEncoder(FakeEncoder):
    """Records the sizes of its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def encode_images(self, batch: UInt8) -> Float32:
        self.sizes.append(len(batch))
        return super().encode_images(batch)


def test_cluster_that_does_not_run_is_reported(image: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ClusterUnavailable, match=rf"no Ray cluster listens at {address}.*ray start --head"):
        index(image, tmp_path / "out", encoder="fake", runner="ray", address=address)
    assert not (tmp_path / "out").exists()


def test_machine_without_cluster_is_reported(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where a cluster would have left its address
    done = invoke("index", image, "--out", tmp_path / "out", "--encoder", "fake", "--runner", "ray")
    assert done.returncode == 1
    assert "no Ray cluster runs on this machine; start one with `ray start --head`, or name --address" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("address", ["head", "head:port", ":6379", "ray://127.0.0.1:10001", ""])
def test_address_without_host_or_port_is_refused(image: Path, tmp_path: Path, address: str) -> None:
    with pytest.raises((ConfigInvalid, ClusterUnavailable), match=r"must be HOST:PORT or auto|no Ray cluster runs"):
        index(image, tmp_path / "out", encoder="fake", runner="ray", address=address)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runner": "spark"}, "runner is 'spark'; it must be local or ray"),
        ({"address": "head:6379"}, "address is head:6379, and the runner is local"),
        ({"gpus_per_worker": 1.0}, "gpus_per_worker is 1.0, and the runner is local"),
        ({"runner": "ray", "gpus_per_worker": -1.0}, "gpus_per_worker is -1; it must be 0 or more"),
        ({"runner": "ray", "gpus_per_worker": float("nan")}, "gpus_per_worker is nan; it must be 0 or more"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    image: Path, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigInvalid, match=message):
        index(image, tmp_path / "out", encoder="fake", **options)


def test_missing_extra_is_named(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExtraMissing, match=r"ray is not installed: pip install 'lookalike\[ray\]'"):
        index(image, tmp_path / "out", encoder="fake", runner="ray")


@pytest.mark.parametrize(("halvings", "sizes"), [(0, [8, 8, 4]), (1, [4] * 5), (9, [1] * 20)])
def test_batch_is_halved_after_each_lost_worker(
    monkeypatch: pytest.MonkeyPatch, halvings: int, sizes: list[int]
) -> None:
    encoder = SizedEncoder()
    monkeypatch.setattr(worker_module, "load_encoder", lambda *_: encoder)
    settings = WorkerSettings("127.0.0.2", "/", "fake", encoder.spec.identity, EngineOptions(), OPTIONS, 1)
    worker = Worker(settings, np.empty(0, np.uint64))
    worker.load()
    encoder.sizes.clear()
    result = worker.encode(TASKS, halvings)
    assert encoder.sizes == sizes
    assert [row.id_hash for row in result.batch.rows] == list(range(20))


@pytest.mark.parametrize(("expected", "size"), [(None, 1_024), (1_000_000, 1_024), (640, 80), (100, 8), (1, 8)])
def test_every_worker_gets_several_shards_of_whole_batches(expected: int | None, size: int) -> None:
    assert shard_images(expected, PLACES, OPTIONS) == size


def test_shard_of_images_in_memory_is_bounded() -> None:
    large = HeldBytes(bytes(30 << 20))
    sizes = [len(shard.tasks) for shard in source_shards((DecodeTask(large, i, i) for i in range(7)), 1_024)]
    assert sizes == [3, 3, 1]
    assert [len(shard.tasks) for shard in source_shards(iter(TASKS), 8)] == [8, 8, 4]


def test_items_of_folders_can_be_pickled(image: Path) -> None:
    (image.parent / "broken.jpg").symlink_to(image.parent / "nowhere")
    items = [item for source in open_sources([str(image.parent)]) for item in source]
    assert len(items) == 2
    copies = [pickle.loads(pickle.dumps(item.load)) for item in items]
    assert all(isinstance(copy, partial) for copy in copies)
    assert image.read_bytes() in [copy() for copy, item in zip(copies, items, strict=True) if item.id == "0.png"]

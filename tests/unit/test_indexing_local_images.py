"""Local images of imported rows: found, read once, and not again by a resumed import."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from indexing.importing import job, local_images
from indexing.importing.job import ImportSettings, run_import
from indexing.importing.local_images import IMAGE_SCHEMA, MAX_COMPARED_IMAGES, LocalImages
from indexing.row_stream import RowStream
from lookalike.encoders.fake import FakeEncoder
from lookalike.types import Float32
from tests.bad_images import encoded, make_image

WIDTH = 48


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(20):
        (tmp_path / f"images/{number:02}.png").write_bytes(encoded(make_image(WIDTH, 24, seed=number), "PNG"))
    return tmp_path / "images"


def local_images_in(folder: Path, pool: ThreadPoolExecutor) -> LocalImages:
    return LocalImages(folder.parent, folder, folder.parent / "work", FakeEncoder(), pool)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read."""
    seen: list[str] = []
    real = local_images.read_range

    def counted(path: Path) -> bytes:
        seen.append(path.name)
        return real(path)

    monkeypatch.setattr(local_images, "read_range", counted)
    return seen


def test_rows_without_image_are_null_and_not_cached(folder: Path, pool: ThreadPoolExecutor) -> None:
    table = local_images_in(folder, pool).read(["nowhere.png", None, "", "\0", "x" * 5_000])
    assert table.schema == IMAGE_SCHEMA
    assert table.to_pylist() == [dict.fromkeys(IMAGE_SCHEMA.names)] * 5
    assert not (folder.parent / "work").exists()


def test_batch_is_read_once(folder: Path, pool: ThreadPoolExecutor, reads: list[str]) -> None:
    paths = ["/content/00.png", "01.png", "missing.png", "02.png"]
    first = local_images_in(folder, pool).read(paths)
    assert first.column("width").to_pylist() == [WIDTH, WIDTH, None, WIDTH]
    assert first.column("format").to_pylist() == ["PNG", "PNG", None, "PNG"]
    assert sorted(reads) == ["00.png", "01.png", "02.png"]
    assert local_images_in(folder, pool).read(paths).equals(first)
    assert len(reads) == 3


def test_repaired_image_is_read_again(folder: Path, pool: ThreadPoolExecutor) -> None:
    whole = (folder / "00.png").read_bytes()
    (folder / "00.png").write_bytes(whole[:60])
    assert local_images_in(folder, pool).read(["00.png"]).column("thumbnail").null_count == 1
    (folder / "00.png").write_bytes(whole)
    assert local_images_in(folder, pool).read(["00.png"]).column("thumbnail").null_count == 0


def test_first_images_are_compared_with_vectors(folder: Path, pool: ThreadPoolExecutor) -> None:
    encoder, local = FakeEncoder(), local_images_in(folder, pool)
    paths = [f"{number:02}.png" for number in range(20)]
    vectors: Float32 = np.concatenate(
        [encoder.encode_images(encoder.preprocess(Image.open(folder / path))[None]) for path in paths]
    )
    assert local.agreement is None
    assert local.compare(paths, local.read(paths), vectors)
    assert len(local.cosines) == MAX_COMPARED_IMAGES
    assert local.agreement == pytest.approx(1.0, abs=1e-5)
    assert not local.compare(paths, local.read(paths), vectors)


def test_resumed_import_does_not_read_images_again(
    folder: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(os.listdir(folder))
    (tmp_path / "source").mkdir()
    np.save(tmp_path / "source/a.npy", np.random.default_rng(0).standard_normal((count, 13)).astype(np.float32))
    pq.write_table(pa.table({"path": [f"{i:02}.png" for i in range(count)]}), tmp_path / "source/a.parquet")
    settings = ImportSettings(tmp_path / "source", tmp_path / "mine", "fake", images=folder, unchecked=True)
    build = job.build_version

    def killed(root: Path, rows: RowStream, *rest: object) -> None:
        list(rows.chunks)
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "build_version", killed)
    with pytest.raises(KeyboardInterrupt):
        run_import(settings)
    assert len(reads) == count + MAX_COMPARED_IMAGES
    assert (tmp_path / "mine/.work/import").is_dir()
    monkeypatch.setattr(job, "build_version", build)
    assert run_import(settings).pictures == count
    assert len(reads) == count + 2 * MAX_COMPARED_IMAGES  # those compared with their vectors
    assert not (tmp_path / "mine/.work").exists()

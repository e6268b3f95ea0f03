"""Every way by which images come in takes the formats of phones: folders, tars, import, training and HTTP alike."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from cli.index import summary_text
from evaluation.datasets import read_examples
from indexing.importing.local_images import LocalImages
from indexing.job import IndexSettings, IndexSummary, run_index
from lookalike.collection import open_collection
from lookalike.encoders.fake import FakeEncoder
from lookalike.encoders.preprocessing import Preprocessing
from tests.bad_images import encoded, heic, make_image
from tests.raw_files import dng
from tests.unit.small_images import write_tar
from training.data.image_cache import cache_images

IMAGE = make_image(96, 64)
FILES = {
    "a.HEIC": heic(IMAGE),
    "b.avif": encoded(IMAGE, "AVIF"),
    "c.jp2": encoded(IMAGE, "JPEG2000"),
    "d.jxl": encoded(IMAGE, "JXL"),
    "e.dng": dng(encoded(make_image(640, 428), "JPEG")),
    "f.jfif": encoded(IMAGE, "JPEG"),
    "g.jpg": heic(IMAGE),
}
FORMATS = ["HEIF", "AVIF", "JPEG2000", "JXL", "RAW", "JPEG", "HEIF"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name, data in FILES.items():
        (tmp_path / "photos" / name).write_bytes(data)
    return tmp_path / "photos"


def _index(out: Path, source: Path) -> IndexSummary:
    return run_index(IndexSettings((str(source),), out, encoder="fake"))


def _values(out: Path, column: str) -> list[object]:
    collection = open_collection(out)
    return [record.get(column) for record in collection.metadata.records(range(len(collection)))]


def test_folder_of_every_format_is_indexed(folder: Path, tmp_path: Path) -> None:
    summary = _index(tmp_path / "out", folder)
    assert (summary.indexed, summary.rejected, summary.skipped) == (len(FILES), 0, 0)
    assert _values(tmp_path / "out", "format") == FORMATS


def test_tar_of_every_format_is_indexed(tmp_path: Path) -> None:
    write_tar(tmp_path / "photos.tar", FILES)
    summary = _index(tmp_path / "out", tmp_path / "photos.tar")
    assert (summary.indexed, summary.rejected) == (len(FILES), 0)


def test_import_reads_local_images_of_every_format(folder: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        images = LocalImages(tmp_path, folder, tmp_path / "work", FakeEncoder(), pool).read([*FILES])
    assert images.column("format").to_pylist() == FORMATS
    assert images.column("thumbnail").null_count == 0


def test_training_decodes_every_format(folder: Path, tmp_path: Path) -> None:
    examples = read_examples([str(folder)])
    size = Preprocessing(8, 8, "squash", "bilinear", (0.0,) * 3, (1.0,) * 3)
    _, kept = cache_images(examples, size, tmp_path / "work", lambda _: None)
    assert len(kept) == len(FILES)


def test_truncated_images_are_counted_and_marked(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    whole = encoded(make_image(640, 480), "JPEG")
    for name, data in {"a.jpg": whole, "b.jpg": whole[:-2], "c.jpg": whole[: len(whole) // 4]}.items():
        (tmp_path / "photos" / name).write_bytes(data)
    summary = _index(tmp_path / "out", tmp_path / "photos")
    assert (summary.indexed, summary.rejected, summary.truncated) == (2, 1, 1)
    assert "  1 truncated, read as far as they go" in summary_text(summary)
    assert json.loads(json.dumps(asdict(summary)))["truncated"] == 1
    assert _values(tmp_path / "out", "truncated") == [None, True]
    assert _index(tmp_path / "out", tmp_path / "photos").truncated == 1  # unchanged


def test_truncated_mark_survives_a_rename(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(encoded(make_image(640, 480), "JPEG")[:-2])
    _index(tmp_path / "out", tmp_path / "photos")
    (tmp_path / "photos/a.jpg").rename(tmp_path / "photos/b.jpg")
    summary = _index(tmp_path / "out", tmp_path / "photos")
    assert (summary.encoded, summary.truncated) == (0, 1)
    assert _values(tmp_path / "out", "truncated") == [True]


def test_summary_without_truncated_images_says_nothing(folder: Path, tmp_path: Path) -> None:
    assert "truncated, read" not in summary_text(_index(tmp_path / "out", folder))

"""The indexing job with files beside images: metadata that changes alone, and what is counted as skipped."""

from __future__ import annotations

import json
import unicodedata
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lookalike
from indexing.job import IndexSettings, IndexSummary, run_index
from lookalike.collection import open_collection
from lookalike.errors import UnknownItem
from lookalike.sources.folder import FolderSource
from tests.bad_images import encoded, make_image
from tests.unit.test_sources import write_tar

JPEG = encoded(make_image(), "JPEG")


def index(source: Path, out: Path) -> IndexSummary:
    return run_index(IndexSettings((str(source),), out, encoder="fake"))


def column(out: Path, name: str) -> dict[str, object]:
    metadata = open_collection(out).metadata
    return {record["id"]: record.get(name) for record in metadata.records(range(len(metadata)))}


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    folder = tmp_path / "gallery"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(encoded(make_image(seed=i), "JPEG"))
    return folder


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("1.txt", "a cat", "a dog"),
        ("1.json", '{"caption": "a cat"}', '{"caption": "a dog"}'),
        ("metadata.csv", "file_name,caption\n1.jpg,a cat\n", "file_name,caption\n1.jpg,a dog\n"),
        (
            "1.jpg.supplemental-metadata.json",
            '{"description": "a cat", "photoTakenTime": {}}',
            '{"description": "a dog", "photoTakenTime": {}}',
        ),
    ],
)
def test_changed_sidecar_alone_changes_metadata(
    gallery: Path, tmp_path: Path, name: str, before: str, after: str
) -> None:
    out = tmp_path / "out"
    (gallery / name).write_text(before)
    index(gallery, out)
    assert column(out, "caption") == {"0.jpg": None, "1.jpg": "a cat", "2.jpg": None}
    assert index(gallery, out).unchanged
    (gallery / name).write_text(after)
    summary = index(gallery, out)
    assert (summary.encoded, summary.reused, summary.unchanged) == (0, 3, False)
    assert column(out, "caption") == {"0.jpg": None, "1.jpg": "a dog", "2.jpg": None}


def test_used_sidecars_are_not_skipped_files(gallery: Path) -> None:
    (gallery / "sub").mkdir()
    (gallery / "metadata.parquet").write_bytes(b"no table")
    for name in ("0.txt", "1.json", "sub/metadata.jsonl"):
        (gallery / name).write_text(json.dumps({"file_name": "../1.jpg", "x": 1}))
    for name in ("7.txt", "sub/other.json", "notes.md"):
        (gallery / name).write_text("{}")
    source = FolderSource(gallery, "images")
    assert len(list(source)) == 3
    assert source.report.skipped == {".txt": 1, ".json": 1, ".md": 1, ".parquet": 1}


def test_columns_of_a_csv_have_their_own_types(gallery: Path, tmp_path: Path) -> None:
    (gallery / "metadata.csv").write_text("file_name,price,day\n0.jpg,3,2024-05-03\n1.jpg,4,2024-05-04\n")
    index(gallery, tmp_path / "out")
    schema = open_collection(tmp_path / "out").metadata
    assert {name: str(schema.column(name).type) for name in ("price", "day")} == {
        "price": "int64",
        "day": "date32[day]",
    }


def test_columns_of_a_parquet_table_keep_their_types(gallery: Path, tmp_path: Path) -> None:
    columns = {
        "file_name": pa.array(["0.jpg", "2.jpg"]),
        "price": pa.array([Decimal("19.90"), None], pa.decimal128(9, 2)),
        "hash": pa.array([2**64 - 1, 1], pa.uint64()),
        "score": pa.array([0.1, 0.2], pa.float32()),
        "class": pa.array(["a", "b"]).dictionary_encode(),
        "text": ["a cat", "a dog"],
        "mask": [b"x", b"y"],
    }
    pq.write_table(pa.table(columns), gallery / "metadata.parquet")
    index(gallery, tmp_path / "out")
    metadata = open_collection(tmp_path / "out").metadata
    names = ("price", "hash", "score", "class")
    assert [str(metadata.column(name).type) for name in names] == ["decimal128(9, 2)", "uint64", "float", "string"]
    assert metadata.column("hash").to_pylist() == [2**64 - 1, None, 1]
    assert metadata.column("caption").to_pylist() == ["a cat", None, "a dog"]
    assert not {"mask", "text"} & set(metadata.columns)


def test_two_spellings_of_a_name_are_two_rows(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for form in ("NFC", "NFD"):
        (folder / unicodedata.normalize(form, "Café.jpg")).write_bytes(JPEG)  # type: ignore[arg-type]
    assert index(folder, tmp_path / "out").indexed == 2
    assert set(column(tmp_path / "out", "path")) == {"Café.jpg", "images/Café.jpg"}


def test_python_api_finds_ids_in_either_unicode_form(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "Cafe\u0301.jpg").write_bytes(JPEG)
    index(folder, tmp_path / "out")
    with lookalike.open_collection(tmp_path / "out") as collection:
        for form in ("Café.jpg", "Cafe\u0301.jpg"):
            assert collection.item(form).id == "Café.jpg"
            assert collection.thumbnail(form) is not None
        with pytest.raises(UnknownItem):
            collection.item("Cafe.jpg")


def test_plain_tar_is_indexed_completely(tmp_path: Path) -> None:
    names = [f"Screenshot 2024-05-03 at 10.15.{i}.png" for i in range(10, 20)] + ["v1.2.jpg", "x.jpg", "v1.3.jpg"]
    summary = index(write_tar(tmp_path / "x.tar", dict.fromkeys(names, JPEG)), tmp_path / "out")
    assert (summary.indexed, summary.rejected) == (len(names), 0)

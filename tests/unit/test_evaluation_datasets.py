"""Labels and captions of every shape of source."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.datasets import read_examples
from lookalike.errors import ImageError, SourceError, SourceNotFound
from lookalike.images import decode
from tests.unit.small_images import make_image, write_folders, write_tar


def parquet(target: Path, **columns: list[object]) -> str:
    pq.write_table(pa.table(columns), target)
    return str(target)


def test_folder_gives_label_and_text_file_captions(tmp_path: Path) -> None:
    write_folders(tmp_path, {"red_ones/a.png": "red", "blue/deep/b.png": "blue", "astray.png": "green"})
    (tmp_path / "red_ones" / "a.txt").write_text("a red thing\n\nall  red\n")
    examples = {example.key: example for example in read_examples([str(tmp_path)])}
    assert {key: example.label for key, example in examples.items()} == {
        "astray.png": None,
        "blue/deep/b.png": "blue",
        "red_ones/a.png": "red_ones",
    }
    assert examples["red_ones/a.png"].captions == ("a red thing", "all red")
    assert examples["astray.png"].captions == ()
    assert examples["astray.png"].load() == make_image("green")


def test_table_of_a_folder_gives_labels_and_captions(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train/a.png": "red", "train/b.png": "blue"})
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label,text\na.png,cat,a cat\n")
    examples = {example.key: example for example in read_examples([str(tmp_path)])}
    assert {key: (example.label, example.captions) for key, example in examples.items()} == {
        "train/a.png": ("cat", ("a cat",)),
        "train/b.png": ("train", ()),
    }


def test_tar_sidecars_give_labels(tmp_path: Path) -> None:
    members = {"a.png": make_image("red"), "a.json": json.dumps({"cls": 3, "caption": "three"}).encode()}
    members |= {"b.png": make_image("red"), "b.txt": b"one\ntwo"}
    examples = read_examples([str(write_tar(tmp_path / "t.tar", members))])
    assert [(example.key, example.label, example.captions) for example in examples] == [
        ("t/a", "3", ("three",)),
        ("t/b", None, ("one", "two")),
    ]


def test_table_label_is_named_or_first_known_column(tmp_path: Path) -> None:
    columns = {"image": [make_image("red")] * 2, "label": [0, 1], "class_name": ["cat", "dog"], "path": ["x/1", "y/2"]}
    source = parquet(tmp_path / "t.parquet", id=["a", "b"], shop=["s", None], **columns)
    assert [example.label for example in read_examples([source])] == ["cat", "dog"]
    assert [example.label for example in read_examples([source], label_column="label")] == ["0", "1"]
    assert [example.label for example in read_examples([source], label_column="path")] == ["x/1", "y/2"]
    assert [example.label for example in read_examples([source], label_column="shop")] == ["s", None]
    with pytest.raises(SourceError, match="no image has a label in column 'colour'"):
        read_examples([source], label_column="colour")


def test_image_and_caption_columns_can_be_named(tmp_path: Path) -> None:
    source = parquet(
        tmp_path / "t.parquet", id=["a"], front=[make_image("red")], back=[make_image("blue")], said=[["one", "two"]]
    )
    example = read_examples([source], image_column="back", caption_column="said")[0]
    assert example.captions == ("one", "two")
    assert decode(example.load()).image.getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(SourceError, match="no column 'side'"):
        read_examples([source], image_column="side")


def test_limit_keeps_all_classes_of_sorted_table(tmp_path: Path) -> None:
    labels = [name for name in "abcde" for _ in range(20)]
    source = parquet(tmp_path / "t.parquet", id=list(range(100)), image=[make_image("red")] * 100, label=labels)
    examples = read_examples([source], limit=10)
    assert [example.label for example in examples] == list("aabbccddee")
    assert len(read_examples([source], limit=1000)) == 100
    assert len(read_examples([source], limit=1)) == 1
    with pytest.raises(ValueError, match="limit is 0"):
        read_examples([source], limit=0)


def test_sources_keep_order_and_broken_image_fails_on_load(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "f", {"red/a.png": "red"})
    (folder / "red" / "b.png").write_bytes(b"no image")
    tar = write_tar(tmp_path / "t.tar", {"c.png": make_image("blue")})
    examples = read_examples([str(folder), str(tar)])
    assert [example.key for example in examples] == ["red/a.png", "red/b.png", "t/c"]
    with pytest.raises(ImageError):
        decode(examples[1].load())


def test_lost_member_of_damaged_tar_fails_on_load(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {"a.png": make_image("red"), "b.png": make_image("red")})
    path.write_bytes(path.read_bytes()[:1600])
    *kept, lost = read_examples([str(path)])
    assert kept[0].load() == make_image("red")
    with pytest.raises(SourceError, match="truncated or corrupt"):
        lost.load()


def test_missing_or_empty_source_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match=r"absent\.tar"):
        read_examples([str(tmp_path / "absent.tar")])
    with pytest.raises(SourceError, match="no images found"):
        read_examples([str(tmp_path)])


def test_captioned_photographs_are_read_completely(shared_data: Path) -> None:
    examples = read_examples([str(shared_data / "flickr8k" / "val.tar")])
    assert len(examples) == 974
    assert all(len(example.captions) == 5 and example.label is None for example in examples)
    labelled = read_examples([str(shared_data / "cifar10-test.parquet")], limit=50)
    assert sorted({example.label for example in labelled})[:2] == ["airplane", "automobile"]

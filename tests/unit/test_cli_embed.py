"""`lookalike embed` with the fake encoder: each input has one row, in order, in every format."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typing_extensions import override

from indexing.embedding.embed import ImageInputs, embed_images, embed_texts
from lookalike.encoders.fake import FakeEncoder
from lookalike.errors import EncoderError
from lookalike.types import Float32, UInt8
from tests.bad_images import encoded, make_image
from tests.e2e.commands import invoke


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two images and a damaged one between them; the current folder is above it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded(make_image(seed=1), "PNG"))
    (folder / "b.png").write_bytes(encoded(make_image(seed=1), "PNG")[:50])
    (folder / "c.png").write_bytes(encoded(make_image(seed=2), "PNG"))
    return folder


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_images_are_printed_in_order_as_json_lines(photos: Path) -> None:
    done = invoke("embed", "photos/c.png", "photos/a.png", "--encoder", "fake")
    rows = lines(done.stdout)
    assert (done.returncode, [row["image"] for row in rows]) == (0, ["photos/c.png", "photos/a.png"])
    encoder = FakeEncoder()
    for row, seed in zip(rows, (2, 1), strict=True):
        expected = encoder.encode_images(encoder.preprocess(make_image(seed=seed))[None])[0]
        assert np.array_equal(np.array(row["embedding"], np.float32), expected)  # no digit of a float32 is lost


def test_failing_images_keep_their_row_and_are_named(photos: Path) -> None:
    done = invoke("embed", "photos", "missing.png", "photos/a.png", "--encoder", "fake")
    rows = lines(done.stdout)
    assert done.returncode == 1
    assert [(row["image"], row.get("code")) for row in rows] == [
        ("photos/a.png", None),
        ("photos/b.png", "image_undecodable"),
        ("photos/c.png", None),
        ("missing.png", "source_not_found"),
        ("photos/a.png", None),
    ]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [error.split(": ")[1] for error in errors] == ["photos/b.png", "missing.png"]
    assert errors[0].endswith("[image_undecodable]")


def test_npy_row_of_a_failing_image_is_nan(photos: Path) -> None:
    done = invoke("embed", "photos", "--encoder", "fake", "--out", "x.npy")
    array = np.load("x.npy")
    assert (done.returncode, array.dtype, len(array)) == (1, np.float32, 3)
    assert np.isnan(array).all(axis=1).tolist() == [False, True, False]
    assert np.linalg.norm(array[[0, 2]], axis=1) == pytest.approx([1, 1])
    assert done.stdout.startswith("2 embeddings of ")
    assert done.stdout.endswith("in x.npy, 1 failed\n")


def test_parquet_and_json_lines_hold_the_same(photos: Path) -> None:
    for name in ("x.parquet", "x.jsonl"):
        assert invoke("embed", "photos", "--encoder", "fake", "--out", name).returncode == 1
    table = pq.read_table("x.parquet").to_pylist()
    rows = lines(Path("x.jsonl").read_text("utf-8"))
    assert [row["path"] for row in table] == [row["image"] for row in rows]
    assert [row["code"] for row in table] == [row.get("code") for row in rows] == [None, "image_undecodable", None]
    assert [row["detail"] for row in table] == [row.get("detail") for row in rows]
    for one, other in zip(table, rows, strict=True):
        assert (one["embedding"] is None) == ("embedding" not in other)
        assert np.array_equal(np.float32(one["embedding"] or []), np.float32(other.get("embedding", [])))


def test_tar_and_pattern_are_read(photos: Path) -> None:
    with tarfile.open("part.tar", "w") as tar:
        tar.add("photos/a.png", "0001.png")
    rows = lines(invoke("embed", "part.tar", "photos/[ac].png", "--encoder", "fake").stdout)
    assert [row["image"] for row in rows][1:] == ["photos/a.png", "photos/c.png"]
    assert rows[0]["image"] == "part/0001"
    assert rows[0]["embedding"] == rows[1]["embedding"]


def test_texts_are_read_from_a_file_and_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts.txt").write_text("a cat\n\ncaf\u00e9\n", "utf-8")
    done = invoke("embed", "--texts", tmp_path / "texts.txt", "--encoder", "fake")
    rows = lines(done.stdout)
    assert [(row["text"], row.get("code")) for row in rows] == [
        ("a cat", None),
        ("", "text_empty"),
        ("caf\u00e9", None),
    ]
    assert "error: line 2: the text is empty [text_empty]" in done.stderr
    assert done.returncode == 1
    expected = FakeEncoder().encode_texts(["a cat"])[0]
    assert np.array_equal(np.array(rows[0]["embedding"], np.float32), expected)
    monkeypatch.setattr(sys, "stdin", io.StringIO("a cat\n"))
    assert lines(invoke("embed", "--texts", "-", "--encoder", "fake").stdout) == rows[:1]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "pass images, or --texts FILE"),
        (["a.png", "--texts", "x.txt"], 2, "pass images, or --texts FILE"),
        (["photos", "--out", "x.txt"], 1, "--out is 'x.txt'; its name must end in .npy, .parquet or .jsonl"),
        (["--texts", "missing.txt"], 1, "missing.txt can't be read"),
        (["photos", "--encoder", "liet"], 1, "[unknown_encoder]"),
        (["photos", "--encoder", "fake", "--out", "missing/x.npy"], 1, "missing"),
        (["empty", "--encoder", "fake", "--out", "old.npy"], 1, "there are no images to embed"),
    ],
)
def test_invalid_arguments_write_no_file(photos: Path, arguments: list[str], status: int, message: str) -> None:
    Path("empty").mkdir()
    Path("old.npy").write_bytes(b"kept")
    done = invoke("embed", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in " ".join(done.stderr.replace("\u2502", " ").split())
    assert sorted(path.name for path in Path().iterdir()) == ["empty", "old.npy", "photos"]
    assert Path("old.npy").read_bytes() == b"kept"


class _Failing(FakeEncoder):
    """Fails on batches that hold an image of the value 7; `nan` returns vectors that are not finite in place of it."""

    def __init__(self, nan: bool = False) -> None:
        super().__init__()
        self._nan = nan

    @override
    def encode_images(self, batch: UInt8) -> Float32:
        faulty = (batch == 7).all(axis=(1, 2, 3))
        if faulty.any() and not self._nan:
            raise EncoderError("out of registers")
        vectors = super().encode_images(batch)
        vectors[faulty] = np.nan
        return vectors

    @override
    def preprocess(self, image: Any) -> UInt8:
        pixels = super().preprocess(image)
        return np.full_like(pixels, 7) if image.size == (7, 7) else pixels


@pytest.mark.parametrize("nan", [False, True])
def test_only_images_that_the_encoder_fails_on_fail(photos: Path, nan: bool) -> None:
    (photos / "b.png").write_bytes(encoded(make_image(7, 7), "PNG"))
    (batch,) = embed_images(ImageInputs(["photos"]), _Failing(nan), 10**6, 2)
    assert [result.error is None for result in batch] == [True, False, True]
    assert isinstance(batch[1].error, EncoderError)
    assert [result.vector is None for result in batch] == [False, True, False]


def test_encoder_that_always_fails_ends_the_run(photos: Path) -> None:
    (photos / "b.png").write_bytes(encoded(make_image(7, 7), "PNG"))
    with pytest.raises(EncoderError, match="out of registers"):
        list(embed_images(ImageInputs(["photos/b.png"]), _Failing(), 10**6, 2))


def test_batches_keep_the_order(photos: Path) -> None:
    arguments: Sequence[str] = ["photos/a.png", "photos/c.png"] * 70
    batches = list(embed_images(ImageInputs(arguments), FakeEncoder(), 10**6, 4))
    assert len(batches) > 1
    assert [result.name for batch in batches for result in batch] == arguments
    texts = [f"text {number}" for number in range(130)]
    assert [result.name for batch in embed_texts(texts, FakeEncoder()) for result in batch] == texts

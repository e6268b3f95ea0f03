"""Reports on small archives and folders that a reader can check, with an encoder whose vectors are colours."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from evaluation.measure import measure, measure_captions, measure_categories
from evaluation.report import as_json, as_table
from retrieval.encoders.preprocessing import Preprocessing
from retrieval.errors import SourceError, SourceNotFound, TextUnsupported
from retrieval.types import EncoderSpec

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
HALF = (0.5, 0.5, 0.5)


class ColourEncoder:
    """A picture's vector is its mean colour, a text's the colour it names."""

    def __init__(self, text: bool = True) -> None:
        self.preprocessing = Preprocessing(8, 8, "squash", "bilinear", HALF, HALF)
        self.spec = EncoderSpec("colour", "0", 3, 8, self.preprocessing.digest, text, "numpy", "fp32")

    def preprocess(self, image):
        return self.preprocessing(image)

    def encode_images(self, batch):
        means = batch.astype(np.float32).mean((2, 3)) + 1e-3
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def encode_texts(self, texts):
        named = [np.float32(next(rgb for name, rgb in COLOURS.items() if name in text)) for text in texts]
        return np.stack(named) / 255


def picture(colour, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (12, 12), COLOURS[colour]).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_captions_that_name_the_colour_find_their_photograph(tmp_path):
    members = {}
    for colour in COLOURS:
        members |= {f"{colour}.png": picture(colour), f"{colour}.txt": f"a {colour} thing\nall {colour}\n\n".encode()}
    report = measure_captions(ColourEncoder(), write_tar(tmp_path / "a.tar", members))
    assert (report.photographs, report.captions, report.rejected) == (3, 6, 0)
    perfect = {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0, "mean_rank": 1.0, "median_rank": 1.0}
    assert report.text_to_image == perfect
    assert report.image_to_text == perfect


def test_wrong_captions_are_counted_as_misses(tmp_path):
    members = {"a.png": picture("red"), "a.txt": b"red", "b.png": picture("green"), "b.txt": b"red again\nblue"}
    report = measure_captions(ColourEncoder(), write_tar(tmp_path / "a.tar", members))
    # "red again" finds the red picture first; "blue" scores both alike, and a tie counts against it
    assert report.text_to_image["R@1"] == pytest.approx(1 / 3)
    assert report.text_to_image["mean_rank"] == pytest.approx((1 + 2 + 2) / 3)


def test_an_undecodable_picture_is_left_out_and_counted(tmp_path):
    members = {"a.png": picture("red"), "a.txt": b"red", "b.png": b"not a picture", "b.txt": b"green"}
    report = measure_captions(ColourEncoder(), write_tar(tmp_path / "a.tar", members))
    assert (report.photographs, report.captions, report.rejected) == (1, 1, 1)


def test_categories_are_folders(tmp_path):
    for colour, count in (("red", 3), ("green", 2)):
        folder = tmp_path / f"{colour}_things" / "deeper"
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}.PNG").write_bytes(picture(colour))
    (tmp_path / "red_things" / "astray.png").write_bytes(picture("green"))
    report = measure_categories(ColourEncoder(), tmp_path, k=4)
    assert report.precision == {"green things": 1.0, "red things": 0.75}
    assert report.mean_precision == pytest.approx(0.875)
    assert report.zero_shot_accuracy == pytest.approx(5 / 6)


def test_reports_print_as_one_line_and_as_a_table(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"a.png": picture("red"), "a.txt": b"red"})
    report = measure(ColourEncoder(), tar)
    line = as_json(report)
    assert "\n" not in line
    assert json.loads(line)["text_to_image"]["R@1"] == 1.0
    assert json.loads(line)["encoder"]["name"] == "colour"
    (tmp_path / "folder" / "blue").mkdir(parents=True)
    (tmp_path / "folder" / "blue" / "a.png").write_bytes(picture("blue"))
    table = as_table(measure(ColourEncoder(), tmp_path / "folder"))
    assert "P@10" in table
    assert "text -> image" in as_table(report)


def test_what_can_not_be_measured_says_why(tmp_path):
    with pytest.raises(SourceNotFound, match="is not a file"):
        measure(ColourEncoder(), tmp_path / "absent.tar")
    with pytest.raises(SourceError, match="no class folder"):
        measure(ColourEncoder(), tmp_path)
    (tmp_path / "no.tar").write_bytes(b"garbage" * 200)
    with pytest.raises(SourceError, match="read as a tar"):
        measure(ColourEncoder(), tmp_path / "no.tar")
    with pytest.raises(SourceError, match=r"no picture with a \.txt"):
        measure(ColourEncoder(), write_tar(tmp_path / "b.tar", {"a.png": picture("red")}))
    with pytest.raises(SourceError, match="can be read"):
        measure(ColourEncoder(), write_tar(tmp_path / "c.tar", {"a.png": b"x", "a.txt": b"red"}))
    tar = write_tar(tmp_path / "a.tar", {"a.png": picture("red"), "a.txt": b"red"})
    with pytest.raises(TextUnsupported, match="'colour'"):
        measure(ColourEncoder(text=False), tar)

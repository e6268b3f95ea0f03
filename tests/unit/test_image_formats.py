"""HEIC, AVIF, JPEG 2000, JPEG XL and camera RAW: found by content, upright once, bounded before they are decoded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pillow_jxl
import pytest
from PIL import Image

from lookalike import images
from lookalike.errors import ImageTooLarge, ImageUndecodable, ImageUnsupported
from lookalike.images import raw
from lookalike.images.formats import content_format
from lookalike.images.opened import UPRIGHT
from tests.bad_images import encoded, heic, make_image
from tests.raw_files import dng

IMAGE = make_image(96, 64)
EXIF_FILES: dict[str, Callable[..., bytes]] = {
    "HEIF": heic,
    "AVIF": lambda image, **options: encoded(image, "AVIF", **options),
    "JXL": lambda image, **options: encoded(image, "JXL", **options),
    "PNG": lambda image, **options: encoded(image, "PNG", **options),
    "WEBP": lambda image, **options: encoded(image, "WEBP", **options),
}


def _preview(width: int = 640, height: int = 428, orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    return encoded(make_image(width, height), "JPEG", quality=95, exif=exif)


def _difference(image: Image.Image, expected: Image.Image) -> float:
    assert image.size == expected.size
    return float(np.abs(np.asarray(image, np.int16) - np.asarray(expected, np.int16)).mean())


def _files() -> dict[str, bytes]:
    files = {kind: encode(IMAGE) for kind, encode in EXIF_FILES.items()}
    files["JPEG2000"] = encoded(IMAGE, "JPEG2000")
    files["JPEG"] = encoded(IMAGE, "JPEG", quality=95)
    return files


@pytest.mark.parametrize("kind", [*EXIF_FILES, "JPEG2000", "JPEG"])
def test_content_decides_the_format(kind: str) -> None:
    data = _files()[kind]
    decoded = images.decode(data)
    assert (decoded.format, decoded.width, decoded.height, decoded.truncated) == (kind, 96, 64, False)
    assert _difference(decoded.image, IMAGE) < 8
    assert images.is_image_start(data[:32])


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
        b"RIFF\0\0\0\0AVI LIST",
        b"%PDF-1.7",
    ],
)
def test_other_files_are_no_start_of_an_image(head: bytes) -> None:
    assert not images.is_image_start(head)


def test_brands_of_a_general_container_decide() -> None:
    assert content_format(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf") == "AVIF"
    assert content_format(b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf") == "HEIF"
    assert content_format(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom") == "RAW"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", EXIF_FILES)
def test_orientation_is_applied_exactly_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = images.decode(EXIF_FILES[kind](IMAGE, exif=exif.tobytes()))
    expected = images.decode(_files()["PNG"]).image
    if orientation in UPRIGHT:
        expected = expected.transpose(UPRIGHT[orientation])
    assert _difference(decoded.image, expected) < 8
    assert (decoded.width, decoded.height) == expected.size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_by_exif_alone_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = heic(IMAGE, exif=exif)  # as an object, which pillow-heif does not look into
    assert b"irot" not in data
    assert b"imir" not in data
    decoded = images.decode(data)
    expected = IMAGE.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else IMAGE
    assert _difference(decoded.image, expected) < 8


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_jpeg_within_jpeg_xl_is_upright_once(orientation: int, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(_preview(orientation=orientation))
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.jxl", lossless_jpeg=True)
    decoded = images.decode((tmp_path / "a.jxl").read_bytes())
    expected = images.decode((tmp_path / "a.jpg").read_bytes())
    assert decoded.format == "JXL"
    assert (decoded.width, decoded.height) == (expected.width, expected.height)
    assert _difference(decoded.image, expected.image) < 1


def test_codestream_orientation_of_jpeg_xl_counts(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(_preview(96, 64, orientation=6))
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.jxl", lossless_jpeg=True)
    data = (tmp_path / "a.jxl").read_bytes().replace(b"jbrd", b"free")  # the JPEG can't be restored: pixels only
    decoded = images.decode(data)
    assert (decoded.width, decoded.height) == decoded.image.size == (64, 96)
    assert _difference(decoded.image, images.decode(_preview(96, 64, orientation=6)).image) < 4


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (256, 256), (40, 24), (600, 500), (800, 600), (1600, 900), (1000, 7)])
def test_size_of_jpeg_xl_is_read_from_its_header(size: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", size, "red"), "JXL")
    with pytest.raises(ImageTooLarge, match=f"{size[0]} x {size[1]}"):
        images.decode(data, max_pixels=size[0] * size[1] - 1)
    assert images.decode(data, max_pixels=size[0] * size[1]).image.size == size


def test_jpeg_xl_above_the_limit_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(IMAGE, "JXL")
    monkeypatch.setattr(pillow_jxl, "Decoder", None)
    with pytest.raises(ImageTooLarge):
        images.decode(data, max_pixels=1_000)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "JPEG2000", "JXL"])
def test_truncated_file_is_one_short_error(kind: str) -> None:
    data = _files()[kind]
    for cut in (20, 40, len(data) // 2):
        with pytest.raises((ImageUndecodable, ImageUnsupported)) as caught:
            images.decode(data[:cut])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("module", "extra"), [("rawpy", "raw"), ("pillow_jxl", "jxl")])
def test_missing_extra_is_named(module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dng(_preview()) if extra == "raw" else encoded(IMAGE, "JXL")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImageUnsupported, match=rf"pip install 'lookalike\[{extra}\]'"):
        images.decode(data)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("own", [None, 1, 6])
def test_preview_of_raw_is_upright_once(orientation: int, own: int | None) -> None:
    decoded = images.decode(dng(_preview(orientation=own), orientation=orientation))
    expected = images.decode(_preview(orientation=orientation)).image
    assert _difference(decoded.image, expected) < 2
    assert decoded.format == "RAW"
    assert (decoded.width, decoded.height) == ((64, 96) if orientation >= 5 else (96, 64))


def test_preview_that_the_camera_turned_stays_as_it_is() -> None:
    decoded = images.decode(dng(_preview(428, 640), orientation=6))
    assert _difference(decoded.image, make_image(428, 640)) < 4


@pytest.mark.parametrize("preview", [None, _preview(160, 107)])
def test_sensor_is_developed_without_a_usable_preview(preview: bytes | None) -> None:
    decoded = images.decode(dng(preview, orientation=6))
    assert (decoded.width, decoded.height) == (64, 96)
    assert decoded.image.size == (32, 48)


@pytest.mark.parametrize("preview", [None, _preview(160, 107)])
def test_thumbnail_of_raw_is_never_taken_for_the_image(preview: bytes | None) -> None:
    with pytest.raises(ImageUndecodable, match="no usable preview, and its pixels are missing"):
        images.decode(dng(preview, sensor=None))


def test_raw_is_bounded_by_what_is_decoded() -> None:
    assert images.decode(dng(_preview(), (960, 640)), max_pixels=640 * 428).image.size == (640, 428)
    with pytest.raises(ImageTooLarge):
        images.decode(dng(None, (960, 640)), max_pixels=640 * 428)


def test_raw_that_libraw_refuses_is_an_error() -> None:
    for data in (b"FUJIFILMCCD-RAW 0201" + bytes(200), dng(_preview())[:600], b"II*\0\x10\0\0\0CR\2\0" + bytes(200)):
        with pytest.raises((ImageUndecodable, ImageUnsupported)):
            images.decode(data)


def test_directories_that_point_in_circles_end() -> None:
    data = bytearray(b"II*\0\x08\0\0\0\0\0\x08\0\0\0")
    assert raw.is_raw_tiff(bytes(data)) is False


def test_ordinary_tiff_is_not_taken_for_raw() -> None:
    assert images.decode(encoded(IMAGE, "TIFF")).format == "TIFF"


def test_pillow_itself_does_not_read_more_formats() -> None:
    images.decode(heic(IMAGE))
    assert "HEIF" not in Image.OPEN
    assert pillow_heif.options.DISABLE_SECURITY_LIMITS is False

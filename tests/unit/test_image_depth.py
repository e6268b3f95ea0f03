"""Samples of more than 8 bits: scaled by what the file says of their range, else by the values themselves."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from lookalike import images
from lookalike.errors import ImageError, ImageTooLarge
from tests.bad_images import encoded

GRADIENT = np.add.outer(np.arange(48), np.arange(64)) / 110  # (48, 64), 0 to 1
COLORS = np.stack([GRADIENT, GRADIENT / 2, 1 - GRADIENT], -1)


def _tiff(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    photometric = "rgb" if samples.ndim == 3 else "minisblack"
    tifffile.imwrite(buffer, samples, metadata=None, **{"photometric": photometric, **options})
    return buffer.getvalue()


def _deep_rgb_png(samples: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits in red, green and blue, or with opacity."""
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _error(data: bytes, expected: np.ndarray) -> float:
    """Greatest difference of the decoded image from values of 0 to 1, of 255."""
    decoded = np.asarray(images.decode(data).image, np.float64)
    expected = expected if expected.ndim == 3 else expected[..., None]
    return float(np.abs(decoded - 255 * expected).max())


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "RGB PNG", "RGB TIFF"])
def test_fewer_bits_in_sixteen_keep_their_brightness(kind: str, bits: int) -> None:
    values = COLORS if kind.startswith("RGB") else GRADIENT
    samples = np.rint(values * (2**bits - 1)).astype(np.uint16)
    if kind == "RGB PNG":
        assert _error(_deep_rgb_png(samples), values) <= 1
    else:
        assert _error(_tiff(samples) if "TIFF" in kind else encoded(Image.fromarray(samples), "PNG"), values) <= 1


def test_dark_sixteen_bit_photograph_stays_dark() -> None:
    samples = np.rint(GRADIENT * 20_000).astype(np.uint16)
    assert _error(encoded(Image.fromarray(samples), "PNG"), GRADIENT * 20_000 / 65_535) <= 1
    samples = np.rint(COLORS * 20_000).astype(np.uint16)
    assert _error(_deep_rgb_png(samples), COLORS * 20_000 / 65_535) <= 1


@pytest.mark.parametrize(("declared", "scale"), [(12, 4095), (16, 65_535), (8, 1023)])
def test_significant_bits_of_a_png_decide(declared: int, scale: int) -> None:
    samples = np.rint(GRADIENT * 900).astype(np.uint16)  # more than 8 bits hold: the declaration is wrong then
    png = encoded(Image.fromarray(samples), "PNG")
    data = png[:33] + _chunk(b"sBIT", bytes([declared])) + png[33:]
    assert _error(data, samples / scale) <= 1
    samples = np.rint(COLORS * 900).astype(np.uint16)
    assert _error(_deep_rgb_png(samples, (b"sBIT", bytes([declared] * 3))), samples / scale) <= 1


def test_opacity_of_a_deep_png_is_kept() -> None:
    samples = np.full((8, 8, 4), 1023, np.uint16)
    samples[..., 1:3] = 0
    samples[..., 3] = 65_535
    samples[0, 0, 3] = 0
    decoded = images.decode(_deep_rgb_png(samples)).image
    assert (decoded.getpixel((4, 4)), decoded.getpixel((0, 0))) == ((255, 0, 0), (255, 255, 255))


@pytest.mark.parametrize("tag", [281, 341])
def test_greatest_value_that_a_tiff_declares_is_white(tag: int) -> None:
    for values in (GRADIENT, COLORS):
        samples = np.rint(values * 900).astype(np.uint16)
        data = _tiff(samples, extratags=[(tag, 3, samples.ndim // 3 * 2 + 1, (4095,) * 3, True)] if values is COLORS
                     else [(tag, 3, 1, 4095, True)])  # fmt: skip
        assert _error(data, samples / 4095) <= 1


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("values", [GRADIENT, COLORS], ids=["grey", "colour"])
def test_floats_from_0_to_1_are_taken_as_they_are(kind: str, compression: str | None, values: np.ndarray) -> None:
    samples = (0.1 + values / 2).astype(kind)
    assert _error(_tiff(samples, compression=compression), samples.astype(np.float64)) <= 1


@pytest.mark.parametrize("values", [GRADIENT, COLORS], ids=["grey", "colour"])
def test_other_floats_are_stretched_from_their_range(values: np.ndarray) -> None:
    samples = (values * 3000 - 40).astype(np.float32)
    assert _error(_tiff(samples), values) <= 1


def test_numbers_that_are_none_become_black_or_white() -> None:
    samples = np.full((9, 9, 3), 0.5, np.float32)
    samples[0, 0], samples[1, 1], samples[2, 2] = np.nan, np.inf, -np.inf
    decoded = images.decode(_tiff(samples)).image
    assert [decoded.getpixel((at, at))[0] for at in range(4)] == [0, 255, 0, 128]
    images.decode(_tiff(np.full((9, 9, 3), np.nan, np.float32)))
    images.decode(_tiff(np.full((9, 9), np.nan, np.float32)))


@pytest.mark.parametrize("kind", ["u4", "i4", "u8", "i8"])
@pytest.mark.parametrize("values", [GRADIENT, COLORS], ids=["grey", "colour"])
def test_integers_of_32_bits_and_more_are_scaled(kind: str, values: np.ndarray) -> None:
    for bits in (12, 16, 24, 31):
        samples = np.rint(values * (2**bits - 1)).astype(kind)
        assert _error(_tiff(samples), values) <= 1


def test_unsigned_32_bits_use_their_upper_half() -> None:
    assert _error(_tiff(np.rint(GRADIENT * (2**32 - 1)).astype(np.uint32)), GRADIENT) <= 1


def test_negative_integers_are_stretched_from_their_range() -> None:
    assert _error(_tiff(np.rint(GRADIENT * 2000 - 1000).astype(np.int16)), GRADIENT) <= 1


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "f4"])
def test_zero_is_white_where_a_tiff_says_so(kind: str) -> None:
    scale = {"u1": 255, "u2": 4095, "i2": 4095, "u4": 4095, "f4": 1}[kind]
    samples = GRADIENT * scale if kind == "f4" else np.rint(GRADIENT * scale)
    assert _error(_tiff(samples.astype(kind), photometric="miniswhite"), 1 - GRADIENT) <= 1


@pytest.mark.parametrize("options", [{"planarconfig": "separate"}, {"tile": (16, 32), "compression": "zlib"},
                                     {"compression": "zlib", "predictor": 2, "rowsperstrip": 7}])  # fmt: skip
def test_layouts_of_deep_tiffs_are_read(options: dict[str, Any]) -> None:
    samples = np.rint(COLORS * 1023).astype(np.uint16)
    stored = np.moveaxis(samples, -1, 0) if "planarconfig" in options else samples
    assert _error(_tiff(stored, photometric="rgb", **options), COLORS) <= 1


def test_opacity_of_a_deep_tiff_is_applied_once() -> None:
    samples = np.concatenate([COLORS, np.ones((48, 64, 1))], -1).astype(np.float32)
    samples[0, 0, 3] = 0
    decoded = images.decode(_tiff(samples, extrasamples=["unassalpha"])).image
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert np.abs(np.asarray(decoded)[5, 5] - 255 * COLORS[5, 5]).max() <= 1
    samples[..., 3] = 0.25
    assert _error(_tiff(samples, extrasamples=["unspecified"]), COLORS) <= 1


def test_orientation_of_a_deep_tiff_is_applied() -> None:
    data = _tiff(COLORS.astype(np.float32), extratags=[(274, 3, 1, 6, True)])
    decoded = images.decode(data)
    assert (decoded.format, decoded.width, decoded.height) == ("TIFF", 48, 64)


def test_pixel_limit_holds_for_deep_tiffs_before_decompression() -> None:
    data = _tiff(np.zeros((4000, 4000, 3), np.float32), compression="zlib")
    tracemalloc.start()
    with pytest.raises(ImageTooLarge, match="4000 x 4000"):
        images.decode(data, max_pixels=15_999_999)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_strip_that_decompresses_beyond_its_size_is_refused() -> None:
    data = bytearray(_tiff(np.zeros((2000, 2000, 3), np.float32), compression="zlib", rowsperstrip=2000))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tag = file.pages[0].tags[name]  # type: ignore[union-attr]
            struct.pack_into("<H" if tag.dtype == 3 else "<I", data, tag.valueoffset, 20)
    tracemalloc.start()
    with pytest.raises(ImageError):
        images.decode(bytes(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000  # 48 MB when it is decompressed whole

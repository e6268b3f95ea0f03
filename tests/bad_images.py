"""Every kind of bad or odd image, as file bytes, with the expected result; shared by the tests of several packages."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401  # registers JXL with Pillow
from PIL import Image


@dataclass(frozen=True)
class OddImage:
    """File bytes and the expected result.

    Attributes:
        name: a file name, with an extension that the indexing job reads.
        data: the bytes.
        code: the error code, None where it becomes an image.
        size: (width, height) of the upright image, None where it does not become one.
    """

    name: str
    data: bytes
    code: str | None = None
    size: tuple[int, int] | None = None


def make_image(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """A smooth colourful RGB image; JPEG keeps it nearly as it is."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    phase = np.random.default_rng(seed).uniform(0, 1, 3)
    channels = [x * phase[0] + y * (1 - phase[0]), (1 - x) * phase[1] + 0.3 * y, (1 - y) * phase[2] + 0.3 * x]
    return Image.fromarray((np.clip(np.stack(channels, -1), 0, 1) * 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file of the given Pillow format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def heic(image: Image.Image, **options: Any) -> bytes:
    """The image as a HEIC file; `exif` gives its orientation both in EXIF and as the container's rotation."""
    buffer = io.BytesIO()
    file = pillow_heif.from_pillow(image)
    file.info.update(options)
    file.save(buffer, quality=90)
    return buffer.getvalue()


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """Return a PNG of a hundred bytes whose header declares width x height pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"\0" * 64)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(make_image(), "JPEG", exif=exif)


def bad_images() -> list[OddImage]:
    """Return images that must be rejected, each with its code."""
    jpeg, png = encoded(make_image(), "JPEG"), encoded(make_image(), "PNG")
    return [
        OddImage("zero_bytes.jpg", b"", "image_undecodable"),
        OddImage("truncated.jpg", jpeg[: len(jpeg) // 2], "image_undecodable"),
        OddImage("truncated.png", png[: len(png) // 2], "image_undecodable"),
        OddImage("truncated_header.png", png[:12], "image_undecodable"),
        OddImage("corrupt.png", png[:60] + bytes(40) + png[100:], "image_undecodable"),
        OddImage("text.jpg", b"this is a letter, not an image", "image_unsupported"),
        OddImage("vector.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_unsupported"),
        OddImage("document.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "image_unsupported"),
        OddImage("bomb.png", bomb(), "image_too_large"),
    ]


def odd_images() -> list[OddImage]:
    """Return unusual images that must be converted."""
    image = make_image()
    gradient = (np.arange(64 * 48, dtype=np.uint32) * 21).astype(np.uint16).reshape(48, 64)
    palette = image.quantize(16)
    frames = [make_image(seed=seed) for seed in range(3)]
    rgba = image.copy()
    rgba.putalpha(128)
    jpeg = encoded(image, "JPEG")
    corrupt_exif = jpeg[:2] + b"\xff\xe1\x00\x10Exif\0\0" + b"\xff" * 8 + jpeg[2:]
    several: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    return [
        OddImage("one_pixel.png", encoded(make_image(1, 1), "PNG"), size=(1, 1)),
        OddImage("one_line.png", encoded(Image.new("RGB", (100_000, 1), "red"), "PNG"), size=(100_000, 1)),
        OddImage("one_column.png", encoded(Image.new("RGB", (1, 100_000), "red"), "PNG"), size=(1, 100_000)),
        OddImage("cmyk.jpg", encoded(image.convert("CMYK"), "JPEG"), size=(64, 48)),
        OddImage("grey.jpg", encoded(image.convert("L"), "JPEG"), size=(64, 48)),
        OddImage("sixteen_bits.png", encoded(Image.fromarray(gradient), "PNG"), size=(64, 48)),
        OddImage("sixteen_bits.tiff", encoded(Image.fromarray(gradient), "TIFF"), size=(64, 48)),
        OddImage("float.tif", encoded(Image.fromarray(gradient.astype(np.float32)), "TIFF"), size=(64, 48)),
        OddImage("palette_alpha.png", encoded(palette, "PNG", transparency=0), size=(64, 48)),
        OddImage("alpha.png", encoded(rgba, "PNG"), size=(64, 48)),
        OddImage("grey_alpha.png", encoded(rgba.convert("LA"), "PNG"), size=(64, 48)),
        OddImage("one_bit.png", encoded(image.convert("1"), "PNG"), size=(64, 48)),
        OddImage("animated.gif", encoded(frames[0], "GIF", **several), size=(64, 48)),
        OddImage("animated.webp", encoded(frames[0], "WEBP", **several), size=(64, 48)),
        OddImage("two_frames.mpo.jpg", encoded(frames[0], "MPO", **several), size=(64, 48)),
        OddImage("image.bmp", encoded(image, "BMP"), size=(64, 48)),
        OddImage("rotated_180.jpg", _rotated(3), size=(64, 48)),
        OddImage("rotated_90.jpg", _rotated(6), size=(48, 64)),
        OddImage("corrupt_exif.jpg", corrupt_exif, size=(64, 48)),
        OddImage("trailing_bytes.jpg", jpeg + b"\0" * 1000, size=(64, 48)),
    ]

"""Bytes -> RGB image: the only decoder, for the indexing job and for the service alike.

It decides what happens to every odd image: EXIF orientation is applied, transparency is laid on white, CMYK, palette
and 16-bit images become 8-bit RGB, of an animation the first frame counts. What can't become an image is an
`ImageError` with a stable code; nothing is decompressed before its size was checked. It knows nothing of models.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from lookalike.errors import ImageTooLarge, ImageUndecodable, ImageUnsupported

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Accepted formats by Pillow's names; its JPEG opener takes MPO too, a JPEG with a preview as many phones write it."""

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""File name endings taken for images, lower case."""

DEFAULT_MAX_PIXELS = 64_000_000
"""Width x height above which an image is refused: about 260 MB once decoded, up to 1 GB on the way."""

THUMBNAIL_SIDE = 256
"""Longest side of a thumbnail, pixels."""

# The limit is checked here, per call and before decompression; Pillow's own global one would warn and raise besides.
# Its warnings of odd metadata say nothing of the pixels, and `catch_warnings` is not safe in threads.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")

_STRIP = 256
"""Rows that are turned into 8-bit RGB at once."""
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        image: 8-bit RGB, upright; smaller than the original where `decode` was given a target.
        width: of the upright original, pixels.
        height: of the upright original, pixels.
        format: `JPEG`, `PNG`, ...
    """

    image: Image.Image
    width: int
    height: int
    format: str


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, target: int | None = None) -> DecodedImage:
    """Decodes an image of any accepted format.

    Args:
        data: the file's bytes.
        max_pixels: width x height above which the image is refused unread.
        target: where only a reduced image is needed, its side in pixels: a JPEG is then decoded at 1/2, 1/4 or 1/8
            of its size, as long as both sides stay at least twice the target. A 12-megapixel photograph takes a
            third of the time.

    Raises:
        ImageUnsupported: not an image, or not of an accepted format.
        ImageTooLarge: more pixels than `max_pixels`.
        ImageUndecodable: empty, truncated or corrupt.
    """
    with decoding(data, max_pixels=max_pixels, target=target) as decoded:
        return decoded


@contextmanager
def decoding(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, target: int | None = None) -> Iterator[DecodedImage]:
    """As `decode`, while the image has its share of the room that all have together: see `_Room`."""
    image = _open(data)
    if image.width * image.height > max_pixels:
        raise ImageTooLarge(
            f"image of {image.width} x {image.height} pixels is over the limit of {max_pixels:,}; scale it down"
        )
    width, height, source_format = image.width, image.height, image.format or "unknown"
    if target is not None:
        _draft(image, target)
    with _ROOM.take(image.width * image.height):
        try:
            image.load()
            orientation = _orientation(image)
            rgb = _to_rgb(image)
        except Exception as error:  # hostile bytes make Pillow's decoders raise nearly anything
            raise ImageUndecodable(f"truncated or corrupt {source_format} image: {error}") from error
        del image
        if orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[orientation])
            if orientation >= 5:
                width, height = height, width
        yield DecodedImage(rgb, width, height, source_format)


class _Room:
    """Pixels that the threads of this process may have decoded at once.

    Pillow takes 4 to 16 bytes for each: eight threads with an image of the largest size each would take 9 GB.
    """

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._changed = threading.Condition()
        self._turn = threading.Lock()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Waits until so many are free; who wants more than there are has them all.

        Who waits is next, so that small images that come all the while do not keep a large one out.
        """
        wanted = min(pixels, self._most)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


_ROOM = _Room(DEFAULT_MAX_PIXELS)


def _draft(image: Image.Image, target: int) -> None:
    """Has a JPEG decoded smaller. Raises ImageUndecodable."""
    try:
        image.draft("RGB", (2 * target, 2 * target))
    except Exception as error:  # as below
        raise ImageUndecodable(f"truncated or corrupt {image.format} image: {error}") from error


def encode_thumbnail(image: Image.Image, side: int = THUMBNAIL_SIDE) -> bytes:
    """RGB image -> JPEG bytes, at most `side` pixels a side, never enlarged; nothing of the original's metadata.

    JPEG, since WebP takes seven times as long (1.5 ms instead of 0.2 for 224 pixels) to save an eighth of the bytes.
    """
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.info = {}  # else an ICC profile, a comment or EXIF would be written again
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageUndecodable("empty file: zero bytes")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if data.startswith(_MAGIC):
            raise ImageUndecodable("the header of the image is truncated or corrupt") from error
        accepted = "JPEG, PNG, WebP, GIF, BMP, TIFF"
        raise ImageUnsupported(
            f"not an image of an accepted format ({accepted}); its bytes begin {data[:8].hex(' ')}"
        ) from error
    except Exception as error:  # hostile headers make Pillow's parsers raise nearly anything
        raise ImageUndecodable(f"the header of the image is corrupt: {error}") from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a corrupt EXIF block is no reason to refuse the pixels
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_to_8_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """An image from top to bottom, so that what is made of it on the way is never held whole."""
    for top in range(0, image.height, _STRIP):
        yield top, image.crop((0, top, image.width, min(image.height, top + _STRIP)))


def _on_white(image: Image.Image) -> Image.Image:
    found = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        layered = strip.convert("RGBA")
        found.paste(Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB"), (0, top))
    return found


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Integers are taken for 16 bits where any exceeds 8; floats are stretched from their own range."""
    low, scale = 0.0, 1.0
    if image.mode == "F":
        low, high = _finite_range(image)
        scale = 255.0 / max(high - low, 1e-12)
    elif image.mode.startswith("I;16") or cast(tuple[float, float], image.getextrema())[1] > 255:
        scale = 1.0 / 257.0
    found = Image.new("L", image.size)
    for top, strip in _strips(image):
        pixels = np.asarray(strip).astype(np.float64)
        if image.mode == "F":
            pixels = np.nan_to_num(pixels, nan=low, posinf=high, neginf=low)
        found.paste(Image.fromarray(np.clip(np.rint((pixels - low) * scale), 0, 255).astype(np.uint8)), (0, top))
    return found


def _finite_range(image: Image.Image) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for _, strip in _strips(image):
        pixels = np.asarray(strip)
        finite = pixels[np.isfinite(pixels)]
        low, high = min(low, finite.min(initial=np.inf)), max(high, finite.max(initial=-np.inf))
    return (float(low), float(high)) if low <= high else (0.0, 1.0)

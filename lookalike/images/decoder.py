"""Bytes -> an upright 8-bit RGB image, or an `ImageError` with a stable code.

EXIF orientation is applied, colours become sRGB, transparency is laid on a background, CMYK, palette and 16-bit images
become 8-bit RGB; of an animation the first frame counts. The size is checked before anything is decompressed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from lookalike.errors import ImageTooLarge, ImageUndecodable
from lookalike.images.color import to_rgb
from lookalike.images.opening import open_image
from lookalike.images.pixel_budget import PixelBudget

DEFAULT_MAX_PIXELS = 64_000_000
"""Width x height above which an image is rejected: about 260 MB once decoded, up to 1 GB on the way."""

# The limit is checked here, per call and before decompression; Pillow's own global one would warn and raise besides.
# Its warnings about odd metadata do not concern the pixels, and `catch_warnings` is not safe in threads.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")

_PIXEL_BUDGET = PixelBudget(DEFAULT_MAX_PIXELS)
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
        image: 8-bit RGB, upright; smaller than the original where a target was given.
        width: of the upright original, pixels.
        height: of the upright original, pixels.
        format: `JPEG`, `PNG`, ...
    """

    image: Image.Image
    width: int
    height: int
    format: str


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, target: int | None = None) -> DecodedImage:
    """Decode an image of any accepted format.

    Args:
        data: the file's bytes.
        max_pixels: width x height above which the image is rejected without being decompressed.
        target: side in pixels of the image that is needed. A JPEG is then decoded at 1/2, 1/4 or 1/8 of its size, as
            long as both sides stay at least twice the target: a 12-megapixel photograph takes a third of the time.

    Raises:
        ImageUnsupported: not an image, or not of an accepted format.
        ImageTooLarge: more pixels than `max_pixels`.
        ImageUndecodable: empty, truncated or corrupt.
    """
    with open_decoded(data, max_pixels=max_pixels, target=target) as decoded:
        return decoded


@contextmanager
def open_decoded(
    data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, target: int | None = None
) -> Iterator[DecodedImage]:
    """Decode an image as `decode` does, and hold its share of the process's pixel budget until the block ends."""
    image = open_image(data)
    if image.width * image.height > max_pixels:
        raise ImageTooLarge(
            f"image of {image.width} x {image.height} pixels is over the limit of {max_pixels:,}; scale it down"
        )
    width, height, source_format = image.width, image.height, image.format or "unknown"
    if target is not None:
        _reduce(image, target)
    with _PIXEL_BUDGET.reserve(image.width * image.height):
        try:
            image.load()
            orientation = orientation_of(image)
            rgb = to_rgb(image, data=data, target=target)
        except Exception as error:  # hostile bytes make Pillow's decoders raise nearly anything
            raise ImageUndecodable(f"truncated or corrupt {source_format} image: {error}") from error
        del image
        if orientation >= 5:
            width, height = height, width
        rgb = upright(rgb, orientation)
        yield DecodedImage(rgb, width, height, source_format)


def _reduce(image: Image.Image, target: int) -> None:
    """Have a JPEG decoded at a fraction of its size; others offer an embedded thumbnail, maybe a stale one."""
    if image.format not in ("JPEG", "MPO"):
        return
    try:
        image.draft("RGB", (2 * target, 2 * target))
    except Exception as error:  # hostile bytes, as above
        raise ImageUndecodable(f"truncated or corrupt {image.format} image: {error}") from error


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none."""
    try:
        orientation = int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a corrupt EXIF block is no reason to reject the pixels
        return 1
    return orientation if orientation in _UPRIGHT else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Rotate or flip an image by its EXIF orientation."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image

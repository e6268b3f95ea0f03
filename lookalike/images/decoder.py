"""Bytes -> an upright 8-bit RGB image, or an `ImageError` with a stable code.

The orientation is applied, colours become sRGB, transparency is laid on a background, CMYK, palette and 16-bit images
become 8-bit RGB; of an animation the first frame counts. The size is checked before anything is decompressed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from lookalike.errors import ImageError, ImageTooLarge, ImageUndecodable
from lookalike.images.color import to_rgb
from lookalike.images.opened import OpenedImage, upright
from lookalike.images.opening import one_line, open_image
from lookalike.images.pixel_budget import PixelBudget

DEFAULT_MAX_PIXELS = 64_000_000
"""Width x height above which an image is rejected: about 260 MB once decoded, up to 1 GB on the way."""

# The limit is checked here, per call and before decompression; Pillow's own global one would warn and raise besides.
# Its warnings about odd metadata do not concern the pixels, and `catch_warnings` is not safe in threads.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")

_PIXEL_BUDGET = PixelBudget(DEFAULT_MAX_PIXELS)
_MAX_UNSCALED = 16
"""An image that is decoded at a fraction of its size may have so many times the limit's pixels: all are read."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        image: 8-bit RGB, upright; smaller than the original where a target was given.
        width: of the upright original, pixels.
        height: of the upright original, pixels.
        format: `JPEG`, `PNG`, `HEIF`, ...
        truncated: whether the end of the file is missing, and it was read as far as it goes.
    """

    image: Image.Image
    width: int
    height: int
    format: str
    truncated: bool = False


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, target: int | None = None) -> DecodedImage:
    """Decode an image of any accepted format.

    Args:
        data: the file's bytes.
        max_pixels: pixels above which the image is rejected without being decompressed. Those of a JPEG count at the
            size at which it is decoded, unless it is progressive.
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
    opened = open_image(data, target)
    _check_size(opened, max_pixels)
    with _PIXEL_BUDGET.reserve(opened.held_pixels):
        try:
            pixels = opened.load()
            rgb = to_rgb(pixels.image, data=data, target=target)
        except ImageError:
            raise
        except Exception as error:  # hostile bytes make decoders raise nearly anything
            raise ImageUndecodable(f"truncated or corrupt {opened.format} image: {one_line(error)}") from error
        width, height = opened.width, opened.height
        if pixels.orientation >= 5:
            width, height = height, width
        orientation, truncated = pixels.orientation, pixels.truncated
        del pixels
        yield DecodedImage(upright(rgb, orientation), width, height, opened.format, truncated)


def _check_size(opened: OpenedImage, max_pixels: int) -> None:
    if opened.held_pixels > max_pixels or opened.width * opened.height > _MAX_UNSCALED * max_pixels:
        raise ImageTooLarge(
            f"image of {opened.width} x {opened.height} pixels is over the limit of {max_pixels:,}; scale it down"
        )

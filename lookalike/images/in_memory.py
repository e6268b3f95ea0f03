"""An image that a program holds already, as a Pillow image or an array of pixels -> an upright 8-bit RGB image."""

from __future__ import annotations

import threading

import numpy as np
from PIL import Image

from lookalike.errors import ImageTooLarge, ImageUndecodable, ImageUnsupported
from lookalike.images.color import to_rgb
from lookalike.images.opened import orientation_of, upright
from lookalike.types import UInt8

PillowImage = Image.Image

_LOAD_LOCK = threading.Lock()  # Pillow decodes an opened file on first use, which two threads must not do at once


def from_pillow(image: PillowImage, max_pixels: int, target: int | None = None) -> PillowImage:
    """Return a Pillow image as upright 8-bit RGB in sRGB, as `decode` would return its file; it may be the same object.

    Args:
        image: of any mode.
        max_pixels: width x height above which it is rejected.
        target: side in pixels of the image that is needed; one whose colours are converted is reduced first.

    Raises:
        ImageTooLarge: more pixels than `max_pixels`.
        ImageUndecodable: it has no pixels, or its file is truncated or corrupt.
    """
    _check_size(image.width, image.height, max_pixels)
    try:
        with _LOAD_LOCK:
            image.load()
        return upright(to_rgb(image, target=target), orientation_of(image))
    except Exception as error:  # hostile bytes make Pillow's decoders raise nearly anything
        raise ImageUndecodable(f"the Pillow image can't be read: {error}") from error


def from_array(pixels: UInt8, max_pixels: int) -> PillowImage:
    """Return (height, width, 3) uint8 RGB pixels as a Pillow image.

    Raises:
        ImageUnsupported: the array has another shape or type.
        ImageTooLarge: more pixels than `max_pixels`.
        ImageUndecodable: it has no pixels.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ImageUnsupported(
            f"an array of shape {pixels.shape} and type {pixels.dtype}; it must be (height, width, 3) uint8, RGB"
        )
    _check_size(pixels.shape[1], pixels.shape[0], max_pixels)
    return Image.fromarray(np.ascontiguousarray(pixels))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if not width or not height:
        raise ImageUndecodable(f"image of {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageTooLarge(f"image of {width} x {height} pixels is over the limit of {max_pixels:,}; scale it down")

"""An image file of which only the header was read, and its pixels once they are decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Pixels:
    """Decoded pixels of any mode.

    Attributes:
        image: loaded.
        orientation: how to turn it upright, 1 to 8 as in EXIF.
        truncated: whether the end of the file is missing.
    """

    image: Image.Image
    orientation: int = 1
    truncated: bool = False


class OpenedImage(Protocol):
    """An image whose header was read. The sizes are the original's, before the orientation of `load` is applied."""

    format: str
    width: int
    height: int

    @property
    def held_pixels(self) -> int:
        """How many pixels are held while it is decoded; it bounds memory."""

    def load(self) -> Pixels:
        """Decode it, once. Hostile bytes make decoders raise nearly anything."""


class PillowFile:
    """A file that Pillow, or a plugin of it, opened."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self.format = image.format or "unknown"
        self.width, self.height = image.size

    @property
    def held_pixels(self) -> int:
        """All pixels."""
        return self.width * self.height

    def load(self) -> Pixels:
        """Decode the first frame."""
        self._image.load()
        return Pixels(self._image, orientation_of(self._image))


class LateFile:
    """A file whose decoder has no header of its own: sizes are given, and `decode` is called once they are accepted."""

    def __init__(self, format: str, size: tuple[int, int], decode: Callable[[], Pixels]) -> None:
        self.format = format
        self.width, self.height = size
        self._decode = decode

    @property
    def held_pixels(self) -> int:
        """All pixels."""
        return self.width * self.height

    def load(self) -> Pixels:
        """Decode it."""
        return self._decode()


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none."""
    try:
        orientation = int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a corrupt EXIF block is no reason to reject the pixels
        return 1
    return orientation if orientation in UPRIGHT else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Rotate or flip an image by its EXIF orientation."""
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image

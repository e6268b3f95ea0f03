"""JPEG files: decoded at a fraction of their size, and read as far as they go where the end is missing."""

from __future__ import annotations

import io
from typing import cast

from PIL import Image

from lookalike.images import jpeg_structure
from lookalike.images.opened import Pixels, orientation_of


class JpegFile:
    """A JPEG, or an MPO whose first image is decoded.

    Args:
        data: the file.
        target: side in pixels of the image that is needed, None for the full size.
    """

    def __init__(self, data: bytes, target: int | None) -> None:
        self._data = data
        self._target = target
        self._image = Image.open(io.BytesIO(data), formats=["JPEG"])
        self.format = self._image.format or "JPEG"
        self.width, self.height = self._image.size
        self._frame = jpeg_structure.read_frame(data)
        self._reduce(self._image)

    @property
    def held_pixels(self) -> int:
        """The pixels at the size at which it is decoded, or all where the decoder holds several scans."""
        if self._frame is None or self._frame.several_scans:
            return self.width * self.height
        return self._image.width * self._image.height

    def load(self) -> Pixels:
        """Decode it; where its end is missing, as far as it goes.

        Raises:
            ImageUndecodable: too little of it is there.
        """
        try:
            self._image.load()
        except OSError:  # truncated, or corrupt, which decoding it again shows
            image = Image.open(io.BytesIO(jpeg_structure.complete(self._data)), formats=["JPEG"])
            self._reduce(image)
            image.load()
            return Pixels(image, orientation_of(image), truncated=True)
        return Pixels(self._image, orientation_of(self._image), truncated=self._ends_early())

    def _reduce(self, image: Image.Image) -> None:
        """Have it decoded at 1/2, 1/4 or 1/8 of its size, both sides at least twice the target."""
        if self._target is not None:
            image.draft("RGB", (2 * self._target, 2 * self._target))

    def _ends_early(self) -> bool:
        """Return whether the end marker is missing, or data before it, which leaves the last block grey."""
        if self._frame is None:
            return False
        if self._data.rfind(jpeg_structure.END_MARKER, self._frame.scan_header) < 0:
            return True  # the data of a JPEG with restart markers may be complete without it
        if not _is_grey(self._image):
            return False
        present = jpeg_structure.fraction_present(jpeg_structure.first_scan(self._data, self._frame))
        if present < 1:
            jpeg_structure.require_enough(present, self._frame)
        return present < 1


def _is_grey(image: Image.Image) -> bool:
    """Return whether the last pixel is as decoders leave blocks without data: 128 in each channel."""
    last = image.getpixel((image.width - 1, image.height - 1))
    return all(126 <= channel <= 130 for channel in (last if isinstance(last, tuple) else (cast(int, last),)))

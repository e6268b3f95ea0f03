"""An image in strips, so that pixels on their way to 8-bit RGB are never held whole."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

_STRIP_ROWS = 256


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield (top row, strip) from top to bottom."""
    for top in range(0, image.height, _STRIP_ROWS):
        yield top, image.crop((0, top, image.width, min(image.height, top + _STRIP_ROWS)))

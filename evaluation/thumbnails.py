"""Thumbnails of examples for a report: JPEG for HTML, pixels for plots."""

from __future__ import annotations

import base64

import numpy as np

from evaluation.datasets import Example
from lookalike.images import decode, encode_thumbnail
from lookalike.types import UInt8

SIDE_PIXELS = 88
PLOT_SIDE_PIXELS = 64


class ReportThumbnails:
    """A cache of readable examples' thumbnails; each image is decoded once."""

    def __init__(self) -> None:
        self._cache: dict[int, tuple[Example, bytes]] = {}

    def jpeg(self, example: Example) -> bytes:
        """Return a JPEG of at most SIDE_PIXELS a side."""
        cached = self._cache.get(id(example))
        if cached is None:
            cached = (example, encode_thumbnail(decode(example.load(), target=SIDE_PIXELS).image, SIDE_PIXELS))
            self._cache[id(example)] = cached  # holds the example too, so that its id stays unique
        return cached[1]

    def url(self, example: Example) -> str:
        """Return the JPEG as a data URL."""
        return data_url(self.jpeg(example), "image/jpeg")

    def pixels(self, example: Example) -> UInt8:
        """Return (h, w, 3) uint8, at most PLOT_SIDE_PIXELS a side."""
        return plot_pixels(self.jpeg(example))


def plot_pixels(data: bytes) -> UInt8:
    """Return an image file's (h, w, 3) uint8, at most PLOT_SIDE_PIXELS a side."""
    image = decode(data).image
    image.thumbnail((PLOT_SIDE_PIXELS, PLOT_SIDE_PIXELS))
    return np.asarray(image)


def data_url(data: bytes, kind: str) -> str:
    """Return bytes as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

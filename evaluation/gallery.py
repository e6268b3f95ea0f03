"""Small images for a report: read once, at two sizes, as JPEG for HTML and as pixels for plots."""

from __future__ import annotations

import base64

import numpy as np

from evaluation.datasets import Example
from lookalike.images import decode, encode_thumbnail
from lookalike.types import UInt8

SIDE = 88
PLOTTED = 64


class Thumbnails:
    """Images of examples that could be read before; each is decoded once."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Example, bytes]] = {}

    def jpeg(self, example: Example) -> bytes:
        """At most SIDE pixels a side."""
        kept = self._kept.get(id(example))
        if kept is None:
            kept = (example, encode_thumbnail(decode(example.load(), target=SIDE).image, SIDE))
            self._kept[id(example)] = kept  # the example is kept as well, so that its id stays its own
        return kept[1]

    def url(self, example: Example) -> str:
        """As a data URL."""
        return data_url(self.jpeg(example), "image/jpeg")

    def pixels(self, example: Example) -> UInt8:
        """(h, w, 3), at most PLOTTED pixels a side."""
        image = decode(self.jpeg(example)).image
        image.thumbnail((PLOTTED, PLOTTED))
        return np.asarray(image)


def data_url(data: bytes, kind: str) -> str:
    """Bytes as a URL that needs no second file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

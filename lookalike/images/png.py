"""What Pillow leaves out of a PNG: the significant bits of its samples, and the lower half of 16-bit colours."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from PIL import Image

from lookalike.images.depth import bit_depth_range
from lookalike.images.strips import strips

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEEP_COLOR_TYPES = {2: "RGB;16L", 6: "RGBA;16L"}  # Pillow's name of the layout whose upper half is our lower half
_MAX_DIM_SAMPLE = 63  # upper halves up to here hold 14 bits or fewer


def significant_bits(data: bytes) -> int | None:
    """Return the most significant bits of a channel that a PNG's sBIT chunk declares; None if it has none."""
    at = len(_SIGNATURE)
    while data.startswith(_SIGNATURE) and at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"sBIT" and 1 <= length <= 4 and at + 8 + length <= len(data):
            return max(data[at + 8 : at + 8 + length])
        if kind in (b"PLTE", b"IDAT"):
            return None
        at += 12 + length
    return None


def is_deep_png(data: bytes) -> bool:
    """Whether a file is a PNG of 16 bits in red, green and blue."""
    return data.startswith(_SIGNATURE) and data[24:25] == b"\x10" and data[25] in _DEEP_COLOR_TYPES


def brighten_deep_colors(image: Image.Image, data: bytes) -> Image.Image:
    """Return a loaded PNG of 16-bit colours that hold 14 bits or fewer, with these scaled to 8 bits.

    Pillow keeps the upper 8 of 16 bits, which leaves such an image nearly black. Other images are returned as they are.
    """
    bits, layout = significant_bits(data), _DEEP_COLOR_TYPES[data[25]]
    if (bits is not None and bits > 14) or max(_color_maxima(image)) > _MAX_DIM_SAMPLE:
        return image
    with Image.open(io.BytesIO(data), formats=("PNG",)) as lower:
        lower.tile = [tile._replace(args=layout) for tile in lower.tile]
        lower.load()
        return _scaled(image, lower, bits)


def _color_maxima(image: Image.Image) -> list[int]:
    return [int(band.getextrema()[1]) for band in image.split()[:3]]  # type: ignore[arg-type]


def _scaled(upper: Image.Image, lower: Image.Image, bits: int | None) -> Image.Image:
    def samples(top: int, strip: Image.Image) -> Any:
        below = lower.crop((0, top, strip.width, top + strip.height))
        return np.asarray(strip, np.uint16)[..., :3] * 256 + np.asarray(below)[..., :3]

    span = bit_depth_range(max(int(samples(top, strip).max()) for top, strip in strips(upper)), bits)
    scaled = Image.new("RGB", upper.size)
    for top, strip in strips(upper):
        scaled.paste(Image.fromarray(span.scale(samples(top, strip))), (0, top))
    if upper.mode == "RGBA":
        scaled.putalpha(upper.getchannel("A"))
    scaled.info = upper.info
    return scaled

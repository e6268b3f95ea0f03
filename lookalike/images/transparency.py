"""Transparent images -> opaque ones, on a background that their content is visible on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageChops

from lookalike.images.strips import strips

_WHITE = (255, 255, 255)
_GREY = (128, 128, 128)
_LEAST_WHITE = 243  # of the darkest channel; encoders tell shapes of 243 on white apart, but not of 255


def is_opaque(image: Image.Image) -> bool:
    """Whether an image has a channel of opacity that is full everywhere, as screenshots have."""
    return image.mode in ("RGBA", "LA") and image.getchannel("A").getextrema() == (255, 255)


def lay_on_background(image: Image.Image, to_rgb: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Return a transparent image as 8-bit RGB: on white, or on grey where it would vanish on white.

    It would vanish where at least half of what is visible, by opacity, is white. That depends on the content alone:
    the same image in another size or file format is laid on the same background.

    Args:
        image: of any 8-bit mode with transparency.
        to_rgb: converts an opaque RGBA strip's colours to sRGB.
    """
    background = _GREY if _is_mostly_white(image, to_rgb) else _WHITE
    opaque = Image.new("RGB", image.size)
    for top, layer in _layers(image, to_rgb):
        opaque.paste(Image.alpha_composite(Image.new("RGBA", layer.size, background), layer).convert("RGB"), (0, top))
    return opaque


def _layers(image: Image.Image, to_rgb: Callable[[Image.Image], Image.Image]) -> Iterator[tuple[int, Image.Image]]:
    """Yield (top row, RGBA strip in sRGB)."""
    for top, strip in strips(image):
        layer = strip.convert("RGBA")
        colors = to_rgb(layer)
        colors.putalpha(layer.getchannel("A"))
        yield top, colors


def _is_mostly_white(image: Image.Image, to_rgb: Callable[[Image.Image], Image.Image]) -> bool:
    white = visible = 0
    for _, layer in _layers(image, to_rgb):
        red, green, blue, alpha = layer.split()
        darkest = np.asarray(ImageChops.darker(ImageChops.darker(red, green), blue))
        opacity = np.asarray(alpha)
        white += int(opacity.sum(where=darkest >= _LEAST_WHITE, dtype=np.uint64))
        visible += int(opacity.sum(dtype=np.uint64))
    return 2 * white >= visible > 0

"""Pixels of any mode -> 8-bit RGB, strip by strip, so that intermediate pixels are never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
from PIL import Image

_STRIP_ROWS = 256


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image as 8-bit RGB: transparency on white, 16-bit integers and floats scaled to 8 bits."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_to_8_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(top row, strip) from top to bottom."""
    for top in range(0, image.height, _STRIP_ROWS):
        yield top, image.crop((0, top, image.width, min(image.height, top + _STRIP_ROWS)))


def _on_white(image: Image.Image) -> Image.Image:
    opaque = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        layered = strip.convert("RGBA")
        opaque.paste(Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB"), (0, top))
    return opaque


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Integers count as 16 bits where any exceeds 8; floats are stretched from their own range."""
    low, scale = 0.0, 1.0
    if image.mode == "F":
        low, high = _finite_range(image)
        scale = 255.0 / max(high - low, 1e-12)
    elif image.mode.startswith("I;16") or cast(tuple[float, float], image.getextrema())[1] > 255:
        scale = 1.0 / 257.0
    scaled = Image.new("L", image.size)
    for top, strip in _strips(image):
        pixels = np.asarray(strip).astype(np.float64)
        if image.mode == "F":
            pixels = np.nan_to_num(pixels, nan=low, posinf=high, neginf=low)
        scaled.paste(Image.fromarray(np.clip(np.rint((pixels - low) * scale), 0, 255).astype(np.uint8)), (0, top))
    return scaled


def _finite_range(image: Image.Image) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for _, strip in _strips(image):
        pixels = np.asarray(strip)
        finite = pixels[np.isfinite(pixels)]
        low, high = min(low, finite.min(initial=np.inf)), max(high, finite.max(initial=-np.inf))
    return (float(low), float(high)) if low <= high else (0.0, 1.0)

"""Pixels of any mode -> 8-bit RGB in sRGB, strip by strip, so that intermediate pixels are never held whole."""

from __future__ import annotations

from PIL import Image

from lookalike.images.depth import has_deep_samples, to_8_bits
from lookalike.images.icc import Transform, srgb_transform
from lookalike.images.png import brighten_deep_colors, is_deep_png, significant_bits
from lookalike.images.strips import strips
from lookalike.images.transparency import is_opaque, lay_on_background


def to_rgb(image: Image.Image, *, data: bytes = b"", target: int | None = None) -> Image.Image:
    """Return a loaded image as 8-bit RGB in sRGB, without transparency; it may be the same object.

    Args:
        image: of any mode.
        data: the file's bytes, where it was a file: those of a PNG say more of its depth than Pillow does.
        target: side in pixels of the image that is needed. Where colours must be converted, which takes as long as
            decoding, the image is reduced first, as long as both sides stay at least twice the target.
    """
    transform = srgb_transform(image)
    if has_deep_samples(image):
        image = to_8_bits(image, significant_bits(data))
    elif is_deep_png(data):
        image = brighten_deep_colors(image, data)
    if image.has_transparency_data and not is_opaque(image):
        return lay_on_background(image, lambda layer: _convert(layer, transform))
    if transform is None:
        return image if image.mode == "RGB" else image.convert("RGB")
    return _to_srgb(_reduced(image, target), transform)


def _convert(image: Image.Image, transform: Transform | None) -> Image.Image:
    if transform is None:
        return image.convert("RGB")
    return transform.apply(image.convert(transform.input_mode))


def _to_srgb(image: Image.Image, transform: Transform) -> Image.Image:
    converted = Image.new("RGB", image.size)
    for top, strip in strips(image):
        converted.paste(_convert(strip, transform), (0, top))
    return converted


def _reduced(image: Image.Image, target: int | None) -> Image.Image:
    factor = min(image.size) // (2 * target) if target else 1
    return image.reduce(factor) if factor > 1 and image.mode in ("L", "RGB", "CMYK") else image

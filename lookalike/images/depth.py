"""Samples of more than 8 bits -> 8 bits: by what the file says of their range, else by the values themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from lookalike.images.strips import strips
from lookalike.types import UInt8

_BIT_DEPTHS = (8, 10, 12, 14, 16)  # of cameras, scanners and medical devices
_BITS_PER_SAMPLE, _PHOTOMETRIC, _MIN_VALUE, _MAX_VALUE = 258, 262, 280, 281
_SAMPLE_FORMAT, _SIGNED_MIN_VALUE, _SIGNED_MAX_VALUE = 339, 340, 341


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The values that become 0 and 255."""

    low: float
    high: float

    def scale(self, samples: Any) -> UInt8:
        """Return samples of any shape and type as 8 bits; what is not a number becomes 0."""
        values = (np.asarray(samples, np.float64) - self.low) * (255.0 / max(self.high - self.low, 1e-300))
        return np.rint(np.clip(np.nan_to_num(values, nan=0.0, posinf=255.0, neginf=0.0), 0, 255)).astype(np.uint8)


def bit_depth_range(high: float, significant_bits: int | None = None) -> ValueRange:
    """Return the range of unsigned integers whose greatest is `high`.

    It is that of the declared bits if these hold the values, else of the least usual depth that holds them. So 10 bits
    stored in 16 keep their brightness, while the values are never stretched to the brightest pixel: a dark photograph
    stays dark.
    """
    if significant_bits is not None and high < 2**significant_bits:
        return ValueRange(0, 2**significant_bits - 1)
    bits = next((bits for bits in _BIT_DEPTHS if high < 2**bits), int(high).bit_length())
    return ValueRange(0, 2**bits - 1)


def value_range(low: float, high: float, is_float: bool, significant_bits: int | None = None) -> ValueRange:
    """Return the range of samples between `low` and `high`.

    Floats from 0 to 1 are taken as they are; other floats, and integers below 0, are stretched from their own range.
    """
    if is_float:
        return ValueRange(0, 1) if 0 <= low <= high <= 1 else ValueRange(low, high)
    return bit_depth_range(high, significant_bits) if low >= 0 else ValueRange(low, high)


def finite_range(samples: Any) -> tuple[float, float]:
    """Return the least and the greatest finite value; infinities where there is none."""
    finite = samples[np.isfinite(samples)] if samples.dtype.kind == "f" else samples
    return (float(finite.min()), float(finite.max())) if finite.size else (np.inf, -np.inf)


def has_deep_samples(image: Image.Image) -> bool:
    """Whether a Pillow image has one channel of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def to_8_bits(image: Image.Image, significant_bits: int | None = None) -> Image.Image:
    """Return an image of one channel of more than 8 bits as 8-bit grey.

    Args:
        image: of Pillow's mode `I`, `I;16` or `F`.
        significant_bits: of a sample, where the file declares them.
    """
    tags = getattr(image, "tag_v2", {})
    span = declared_range(tags)
    low, high = _extrema(image, tags)
    if span is None or not span.low <= low <= high <= span.high:
        declared_bits = significant_bits or _bits_below_sixteen(tags)
        span = value_range(low, high, image.mode == "F", declared_bits)
    grey = Image.new("L", image.size)
    for top, strip in strips(image):
        pixels = span.scale(_samples(strip, tags))
        grey.paste(Image.fromarray(255 - pixels if tags.get(_PHOTOMETRIC) == 0 else pixels), (0, top))
    return grey


def _extrema(image: Image.Image, tags: Any) -> tuple[float, float]:
    extrema = [finite_range(_samples(strip, tags)) for _, strip in strips(image)]
    low, high = min(low for low, _ in extrema), max(high for _, high in extrema)
    return (low, high) if low <= high else (0.0, 1.0)


def _samples(strip: Image.Image, tags: Any) -> Any:
    samples = np.asarray(strip)
    if strip.mode == "I" and _first(tags.get(_BITS_PER_SAMPLE)) == 32 and _first(tags.get(_SAMPLE_FORMAT, 1)) == 1:
        return samples.view(np.uint32)  # Pillow has no unsigned mode
    return samples


def declared_range(tags: Any) -> ValueRange | None:
    """Return the range that a TIFF's tags declare, None if they declare none."""
    high = _first(tags.get(_SIGNED_MAX_VALUE, tags.get(_MAX_VALUE)))
    low = _first(tags.get(_SIGNED_MIN_VALUE, tags.get(_MIN_VALUE, 0)))
    return ValueRange(float(low), float(high)) if high is not None and low is not None and low < high else None


def _bits_below_sixteen(tags: Any) -> int | None:
    bits = _first(tags.get(_BITS_PER_SAMPLE))
    return bits if bits is not None and 8 < bits < 16 else None


def _first(value: Any) -> Any:
    return (value[0] if value else None) if isinstance(value, tuple) else value

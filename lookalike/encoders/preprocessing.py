"""Image -> (3, S, S) uint8, by Pillow alone: it runs in decode workers, concurrently with the encoder.

The tensors stay uint8 (a quarter of the memory traffic); scaling to [0, 1], mean and standard deviation are part of
the encoder's graph, so that an image crosses threads and processes as S * S * 3 bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from PIL import Image

from lookalike.types import UInt8

MAX_ASPECT = 16  # a longer strip is cropped around its centre first: resizing 100,000 x 1 would make 5 gigapixels

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize the shorter side to `resize`, take the central `size` x `size` (or squash to it), normalise later.

    Attributes:
        size: S, pixels.
        resize: shorter side before the crop, pixels; equal to `size` in CLIP, larger in ImageNet protocols.
        mode: `crop` (shorter side, then centre crop) or `squash` (both sides, aspect ratio lost).
        interpolation: `bicubic` or `bilinear`, antialiased.
        mean: per channel, of pixel / 255.
        std: per channel, of pixel / 255.
    """

    size: int
    resize: int
    mode: Literal["crop", "squash"]
    interpolation: Literal["bicubic", "bilinear"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def digest(self) -> str:
        """16 hex digits over all parameters; part of `EncoderSpec.identity`."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def __call__(self, image: Image.Image) -> UInt8:
        """RGB image -> (3, S, S) uint8, C-contiguous."""
        resample = _FILTERS[self.interpolation]
        image = _bound_aspect(image)
        if self.mode == "squash":
            image = image.resize((self.size, self.size), resample)
        else:
            image = _resize_shorter_side(image, self.resize, resample)
            left, top = (round((side - self.size) / 2.0) for side in image.size)
            image = image.crop((left, top, left + self.size, top + self.size))
        return np.ascontiguousarray(np.asarray(image, np.uint8).transpose(2, 0, 1))


def _resize_shorter_side(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """Resize like torchvision's Resize(int): the longer side is truncated to an integer."""
    width, height = image.size
    if min(width, height) == side:
        return image
    if width <= height:
        return image.resize((side, int(side * height / width)), resample)
    return image.resize((int(side * width / height), side), resample)


def _bound_aspect(image: Image.Image) -> Image.Image:
    width, height = image.size
    longest = MAX_ASPECT * min(width, height)
    if max(width, height) <= longest:
        return image
    if width > height:
        left = (width - longest) // 2
        return image.crop((left, 0, left + longest, height))
    top = (height - longest) // 2
    return image.crop((0, top, width, top + longest))

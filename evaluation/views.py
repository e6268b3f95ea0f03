"""Two random views of each image, as positive pairs for data without labels.

A view is a random crop, as another photograph of the same scene might frame it. The two may not overlap at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import numpy as np

from evaluation.datasets import Example
from lookalike.images import decode, encode_thumbnail

MIN_AREA_SHARE, MAX_AREA_SHARE = 0.3, 0.8
"""A view's share of the image's area."""
MAX_ASPECT_CHANGE = 4 / 3
"""Maximum factor between a view's aspect ratio and the image's."""


def two_views(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Return two examples for each, labelled with its key; without captions, which describe the whole image.

    The same seed and key give the same views.
    """
    return [
        Example(f"{example.key}#{number}", partial(_view, example, number, seed), example.key)
        for example in examples
        for number in (1, 2)
    ]


def _view(example: Example, number: int, seed: int) -> bytes:
    digest = hashlib.blake2b(f"{seed} {number} {example.key}".encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "little"))
    image = decode(example.load()).image
    side, ratio = np.sqrt(rng.uniform(MIN_AREA_SHARE, MAX_AREA_SHARE)), MAX_ASPECT_CHANGE ** rng.uniform(-0.5, 0.5)
    width, height = (
        max(1, round(min(1.0, share) * full))
        for share, full in zip((side * ratio, side / ratio), image.size, strict=True)
    )
    left, top = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
    part = image.crop((float(left), float(top), float(left + width), float(top + height)))
    return encode_thumbnail(part, max(width, height))

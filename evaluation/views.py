"""Two views of each image, for data without labels: what belongs together is then what shows the same scene.

A view is a random part of the image, as another photograph of the same thing might frame it. The two may share
little, or nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import numpy as np

from evaluation.datasets import Example
from lookalike.images import decode, encode_thumbnail

SMALLEST, LARGEST = 0.3, 0.8
"""Share of the image's area that a view shows."""
LONGEST_SIDE = 4 / 3
"""How much longer one side may be than the other, relative to the image's own."""


def two_views(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Two examples for each, labelled with its key; without captions, which are about the whole.

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
    side, ratio = np.sqrt(rng.uniform(SMALLEST, LARGEST)), LONGEST_SIDE ** rng.uniform(-0.5, 0.5)
    width, height = (
        max(1, round(min(1.0, share) * full))
        for share, full in zip((side * ratio, side / ratio), image.size, strict=True)
    )
    left, top = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
    part = image.crop((float(left), float(top), float(left + width), float(top + height)))
    return encode_thumbnail(part, max(width, height))

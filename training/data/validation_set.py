"""Decoded validation images with what is measured on them: classes, captions, or two views of each image.

Dimension letters: m validation images, S side of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.datasets import Example
from evaluation.views import two_views
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.errors import SourceError
from lookalike.types import Int64, UInt8
from training.data.image_cache import cache_images


@dataclass(frozen=True)
class ValidationSet:
    """Validation images, decoded as the exported encoder will decode them.

    Attributes:
        figure: name of what is measured on them.
        examples: the images as read, also those that can't be decoded.
        pixels: (m, 3, S, S) uint8.
        labels: (m,) int64: classes or, where there are none, the images that the views show; None with captions.
        captions: of each image, where captions are trained on.
        views: whether rows 2i and 2i + 1 are views of image i.
    """

    figure: str
    examples: Sequence[Example]
    pixels: UInt8
    labels: Int64 | None
    captions: list[tuple[str, ...]] | None
    views: bool = False

    @property
    def count(self) -> int:
        """Number of images; two views of an image count once."""
        return len(self.pixels) // (2 if self.views else 1)

    @property
    def caption_rows(self) -> Int64:
        """Row of the image that each caption belongs to, captions of the first image first."""
        captions = self.captions or []
        return np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])

    def batches(self, size: int) -> list[Int64]:
        """Return all rows in batches of about `size`, always the same; two views of an image stay together."""
        group = 2 if self.views else 1
        order = np.random.default_rng(0).permutation(self.count)
        parts = np.array_split(order, max(1, self.count * group // size))
        return [(part[:, None] * group + np.arange(group)).ravel() for part in parts]


def load_validation_set(
    examples: Sequence[Example],
    preprocessing: Preprocessing,
    folder: Path,
    progress: Callable[[int], object],
    *,
    captions: bool,
) -> ValidationSet:
    """Decode validation images.

    Args:
        examples: all of them.
        preprocessing: of the encoder.
        folder: where the pixels are kept.
        progress: called with the number of images done since the last call.
        captions: whether captions are trained on.

    Raises:
        SourceError: no image can be decoded, no image has a caption, or no two images share a class.
    """
    views = not captions and label_numbers(examples) is None
    decoded = two_views(examples) if views else examples
    pixels, kept = cache_images(decoded, preprocessing, folder, progress)
    decoded = [decoded[row] for row in kept]
    if captions:
        rows = [row for row, example in enumerate(decoded) if example.captions]
        if not rows:
            raise SourceError(f"none of the {len(decoded):,} validation images has a caption; add captions")
        return ValidationSet("recall_at_1", examples, pixels[rows], None, [decoded[row].captions for row in rows])
    labels = label_numbers(decoded)
    if labels is None or np.bincount(labels).max() < 2:
        raise SourceError(
            f"no two of the {len(decoded):,} validation images share a class: there is nothing to measure; add images"
        )
    return ValidationSet("view_recall_at_1" if views else "precision_at_1", examples, pixels, labels, None, views)


def label_numbers(examples: Sequence[Example]) -> Int64 | None:
    """Return the examples' classes as numbers in the order of their names; None unless every example has a class."""
    names = sorted({example.label for example in examples if example.label is not None})
    if any(example.label is None for example in examples):
        return None
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[example.label or ""] for example in examples], np.int64)

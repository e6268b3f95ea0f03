"""Retrieval between images and their captions: the rank at which each finds the other.

Works a block of queries at a time. Knows vectors and who belongs to whom, nothing of images and words.

Dimension letters: n images, t texts, d embedding width.
"""

from __future__ import annotations

import numpy as np

from evaluation.ranking import best_ranks
from lookalike.types import Float32, Int64

BLOCK = 512


def caption_ranks(images: Float32, texts: Float32, owners: Int64) -> tuple[Int64, Int64]:
    """The rank of the right answer, from 1, when captions seek images and images seek captions.

    Args:
        images: (n, d) of unit norm.
        texts: (t, d) of unit norm.
        owners: (t,) which image each text is about; every image has at least one.

    Returns:
        (t,) the rank of its image for each text, and (n,) the rank of its best caption for each image; ties
        count against the query.

    >>> eye = np.eye(2, dtype=np.float32)
    >>> caption_ranks(eye, eye[[0, 1, 0]], np.array([0, 1, 1]))  # the third text is about the wrong image
    (array([1, 1, 2]), array([2, 1]))
    """
    image_rows = np.arange(len(images))
    forth = [
        best_ranks(texts[rows] @ images.T, owners[rows, None] == image_rows) for rows in _blocks(len(texts), BLOCK)
    ]
    back = [
        best_ranks(images[rows] @ texts.T, image_rows[rows, None] == owners) for rows in _blocks(len(images), BLOCK)
    ]
    return np.concatenate(forth), np.concatenate(back)


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]

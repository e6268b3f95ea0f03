"""Retrieval between images and their captions: the rank at which each finds the other, a block of queries at a time.

Dimension letters: n images, t texts, d embedding width.
"""

from __future__ import annotations

import numpy as np

from evaluation.ranking import best_ranks
from lookalike.types import Float32, Int64

BLOCK_QUERIES = 512


def caption_ranks(images: Float32, texts: Float32, owners: Int64) -> tuple[Int64, Int64]:
    """Return the rank, from 1, of the first relevant item: of captions among images, and of images among captions.

    Args:
        images: (n, d) of unit norm.
        texts: (t, d) of unit norm.
        owners: (t,) the position of the image that each text describes; every image has at least one text.

    Returns:
        (t,) the rank of its image for each text, and (n,) the rank of its best caption for each image; ties
        count against the query.

    >>> eye = np.eye(2, dtype=np.float32)
    >>> caption_ranks(eye, eye[[0, 1, 0]], np.array([0, 1, 1]))  # the third text describes another image
    (array([1, 1, 2]), array([2, 1]))
    """
    positions = np.arange(len(images))
    text_ranks = [best_ranks(texts[rows] @ images.T, owners[rows, None] == positions) for rows in _blocks(len(texts))]
    image_ranks = [best_ranks(images[rows] @ texts.T, positions[rows, None] == owners) for rows in _blocks(len(images))]
    return np.concatenate(text_ranks), np.concatenate(image_ranks)


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + BLOCK_QUERIES) for start in range(0, count, BLOCK_QUERIES)]

"""Retrieval between pictures and their captions: the rank at which each finds the other.

Works a block of queries at a time. Knows vectors and who belongs to whom, nothing of pictures and words.

Dimension letters: n pictures, t texts, d embedding width.
"""

from __future__ import annotations

import numpy as np

from evaluation.ranking import best_ranks
from retrieval.types import Float32, Int64

BLOCK = 512


def caption_ranks(images: Float32, texts: Float32, owners: Int64) -> tuple[Int64, Int64]:
    """The rank of the right answer, from 1, when captions seek pictures and pictures seek captions.

    Args:
        images: (n, d) of unit norm.
        texts: (t, d) of unit norm.
        owners: (t,) which picture each text is about; every picture has at least one.

    Returns:
        (t,) the rank of its picture for each text, and (n,) the rank of its best caption for each picture; ties
        count against the query.

    >>> eye = np.eye(2, dtype=np.float32)
    >>> caption_ranks(eye, eye[[0, 1, 0]], np.array([0, 1, 1]))  # the third text is about the wrong picture
    (array([1, 1, 2]), array([2, 1]))
    """
    pictures = np.arange(len(images))
    forth = [best_ranks(texts[rows] @ images.T, owners[rows, None] == pictures) for rows in _blocks(len(texts), BLOCK)]
    back = [best_ranks(images[rows] @ texts.T, pictures[rows, None] == owners) for rows in _blocks(len(images), BLOCK)]
    return np.concatenate(forth), np.concatenate(back)


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]

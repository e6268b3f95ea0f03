"""A second memory map of a file, for reading single rows in random order.

Linux reads ahead when a mapped page is missing. That helps a scan, but not re-ranking, which needs one kilobyte of the
hundred that are read.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from lookalike.types import Float16


def random_access_mmap(vectors: Float16) -> Float16:
    """Map the file behind (n, d) vectors again without read-ahead (`MADV_RANDOM`).

    Returns:
        The new map, or `vectors` itself if it is not the memory map of a file.
    """
    array: Any = vectors
    mapped = isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap)  # a slice reports the file's offset
    if not (mapped and array.filename and hasattr(mmap, "MADV_RANDOM")):
        return vectors
    try:
        second: Any = np.memmap(array.filename, array.dtype, "r", array.offset, array.shape)
    except OSError:  # the file was deleted after a newer version was published; the existing map stays valid
        return vectors
    second.base.madvise(mmap.MADV_RANDOM)
    result: Float16 = second
    return result

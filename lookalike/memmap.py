"""A second mapping of a collection's vectors for reading single rows.

Linux reads ahead around a page that is missing, which a scan wants and re-ranking does not: of the hundred kilobytes
read for a row of one, nothing else is asked for soon.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from lookalike.types import Float16


def scattered(vectors: Float16) -> Float16:
    """The same (n, d) vectors, mapped for single rows in no order; what is not a mapped file comes back as it is.

    A read of them that misses the page cache brings in the row's pages alone (`MADV_RANDOM`).
    """
    given: Any = vectors
    whole = isinstance(given, np.memmap) and isinstance(given.base, mmap.mmap)  # a slice tells the file's offset
    if not (whole and given.filename and hasattr(mmap, "MADV_RANDOM")):
        return vectors
    try:
        again: Any = np.memmap(given.filename, given.dtype, "r", given.offset, given.shape)
    except OSError:  # a newer version has taken the file's place; what is mapped stays
        return vectors
    again.base.madvise(mmap.MADV_RANDOM)
    mapped: Float16 = again
    return mapped

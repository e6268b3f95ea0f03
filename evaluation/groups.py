"""Groups of images that belong together: their labels or captions are equal, so none is a wrong result for another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.datasets import Example
from evaluation.extras import import_extra
from lookalike.types import Int64


def group_examples(examples: Sequence[Example]) -> Int64:
    """Number the groups of examples that a label or a caption connects, directly or through others.

    Case and white space don't count. A label that is the only one says nothing and doesn't count either.

    Returns:
        (n,) int64, equal within a group.

    Raises:
        ExtraMissing: SciPy is not installed.

    >>> pear, fruit = Example("a", bytes, "pear"), Example("b", bytes, "fruit", (" Pear",))
    >>> group_examples([pear, Example("c", bytes, "plum"), fruit]).tolist()
    [0, 1, 0]
    """
    several = len({example.label for example in examples} - {None}) > 1
    names: dict[str, int] = {}
    rows, columns = [], []
    for row, example in enumerate(examples):
        for text in (*example.captions, *((example.label,) if several and example.label is not None else ())):
            rows.append(row)
            columns.append(len(examples) + names.setdefault(" ".join(text.casefold().split()), len(names)))
    size = len(examples) + len(names)
    graph = import_extra("scipy.sparse").coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    _, groups = import_extra("scipy.sparse.csgraph").connected_components(graph, directed=False)
    numbered: Int64 = groups[: len(examples)].astype(np.int64)
    return numbered

"""Selection of the images of each batch; the order depends on seed and epoch alone, so that a run can be resumed.

Dimension letters: N training images, b images in a batch.
"""

from __future__ import annotations

import numpy as np

from lookalike.errors import ConfigInvalid
from lookalike.types import Int64


def epoch_batches(labels: Int64 | None, count: int, batch_size: int, per_class: int, seed: int, epoch: int) -> Int64:
    """Return the rows of every batch of an epoch.

    Args:
        labels: (N,) int64, None where classes are not used.
        count: N.
        batch_size: b.
        per_class: images of each class in a batch; 0 draws without regard to class.
        seed: of the run.
        epoch: counted from 0.

    Returns:
        (N // b, b) int64, at least one batch; the remaining images are not used in this epoch.

    Raises:
        ConfigInvalid: fewer images than a batch, or a batch that can't be made of whole groups.
    """
    if count < batch_size:
        raise ConfigInvalid(f"a batch of {batch_size} is more than the {count:,} training images; add images")
    generator = np.random.RandomState([seed, epoch])
    if not per_class or labels is None:
        order = generator.permutation(count).astype(np.int64)
    else:
        order = _balanced_order(labels, batch_size, per_class, generator)
    steps = len(order) // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def _balanced_order(labels: Int64, batch_size: int, per_class: int, generator: np.random.RandomState) -> Int64:
    """Return an order in which each batch holds `per_class` images of each of its classes.

    It works as pytorch-metric-learning's MPerClassSampler. Importing that library patches FAISS in the whole process
    (`faiss.contrib.torch_utils` drops the search parameters), and an index may be searched in it.
    """
    classes = np.unique(labels)
    groups = batch_size // per_class
    if batch_size % per_class or groups > len(classes):
        raise ConfigInvalid(
            f"sampling.per_class = {per_class}: a batch of {batch_size} must hold whole groups of at most "
            f"{len(classes)} classes; change one of the two"
        )
    samplers = {name: _ClassSampler(np.flatnonzero(labels == name), generator) for name in classes}
    steps = max(1, len(labels) // batch_size)
    chosen = [name for _ in range(steps) for name in generator.permutation(classes)[:groups]]
    return np.concatenate([samplers[name].take(per_class) for name in chosen]).astype(np.int64)


class _ClassSampler:
    """Draws a class's images (rows) without replacement; it reshuffles once all have been drawn."""

    def __init__(self, rows: Int64, generator: np.random.RandomState) -> None:
        self._rows = rows
        self._generator = generator
        self._remaining: list[int] = []

    def take(self, count: int) -> list[int]:
        """Return the next `count` rows."""
        while len(self._remaining) < count:
            self._remaining = self._generator.permutation(self._rows).tolist() + self._remaining
        taken, self._remaining = self._remaining[-count:], self._remaining[:-count]
        return taken

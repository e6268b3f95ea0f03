"""Which images meet in a batch: every epoch's order is drawn from seed and epoch alone, so a run can be resumed.

Dimension letters: N training images, b images in a batch.
"""

from __future__ import annotations

import numpy as np

from lookalike.errors import ConfigInvalid
from lookalike.types import Int64


def epoch_batches(labels: Int64 | None, count: int, batch_size: int, per_class: int, seed: int, epoch: int) -> Int64:
    """The rows of every batch of an epoch.

    Args:
        labels: (N,) int64, None where they play no part.
        count: N.
        batch_size: b.
        per_class: images of each class in a batch; 0 draws without regard to class.
        seed: of the run.
        epoch: counted from 0.

    Returns:
        (N // b, b) int64; what is left over waits for another epoch. At least one batch.

    Raises:
        ConfigInvalid: fewer images than a batch, or a batch that can't be made of whole groups.
    """
    if count < batch_size:
        raise ConfigInvalid(f"a batch of {batch_size} is more than the {count:,} training images; add images")
    generator = np.random.RandomState([seed, epoch])
    if not per_class or labels is None:
        order = generator.permutation(count).astype(np.int64)
    else:
        order = _balanced(labels, batch_size, per_class, generator)
    steps = len(order) // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def _balanced(labels: Int64, batch_size: int, per_class: int, generator: np.random.RandomState) -> Int64:
    """The same number of images of each class in a batch; each class is dealt like a pack of cards, shuffled anew.

    As pytorch-metric-learning's MPerClassSampler, but importing that library patches FAISS for the whole process
    (`faiss.contrib.torch_utils` takes the search parameters away), where an index may be searched next.
    """
    names = np.unique(labels)
    groups = batch_size // per_class
    if batch_size % per_class or groups > len(names):
        raise ConfigInvalid(
            f"sampling.per_class = {per_class}: a batch of {batch_size} must hold whole groups of at most {len(names)} "
            "classes; change one of the two"
        )
    packs = {name: _Pack(np.flatnonzero(labels == name), generator) for name in names}
    steps = max(1, len(labels) // batch_size)
    chosen = [name for _ in range(steps) for name in generator.permutation(names)[:groups]]
    return np.concatenate([packs[name].deal(per_class) for name in chosen]).astype(np.int64)


class _Pack:
    """A class's images (rows), dealt without repeating one before all have been dealt."""

    def __init__(self, rows: Int64, generator: np.random.RandomState) -> None:
        self._rows = rows
        self._generator = generator
        self._left: list[int] = []

    def deal(self, count: int) -> list[int]:
        """The next `count` rows."""
        while len(self._left) < count:
            self._left = self._generator.permutation(self._rows).tolist() + self._left
        dealt, self._left = self._left[-count:], self._left[:-count]
        return dealt

"""Which pictures meet in a batch: every epoch's order is drawn from seed and epoch alone, so a run can be resumed.

Dimension letters: N training pictures, b pictures in a batch.
"""

from __future__ import annotations

import numpy as np
from pytorch_metric_learning import samplers
from pytorch_metric_learning.utils import common_functions

from retrieval.errors import ConfigInvalid
from retrieval.types import Int64


def epoch_batches(labels: Int64 | None, count: int, batch_size: int, per_class: int, seed: int, epoch: int) -> Int64:
    """The rows of every batch of an epoch.

    Args:
        labels: (N,) int64, None where they play no part.
        count: N.
        batch_size: b.
        per_class: pictures of each class in a batch; 0 draws without regard to class.
        seed: of the run.
        epoch: counted from 0.

    Returns:
        (N // b, b) int64; what is left over waits for another epoch. At least one batch.

    Raises:
        ConfigInvalid: fewer pictures than a batch, or a batch that can't be made of whole groups.
    """
    if count < batch_size:
        raise ConfigInvalid(f"optimizer.batch_size = {batch_size} is more than the {count:,} training pictures")
    generator = np.random.RandomState([seed, epoch])
    if not per_class or labels is None:
        order = generator.permutation(count).astype(np.int64)
    else:
        order = _balanced(labels, batch_size, per_class, generator)
    steps = len(order) // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def _balanced(labels: Int64, batch_size: int, per_class: int, generator: np.random.RandomState) -> Int64:
    classes = len(np.unique(labels))
    if batch_size % per_class or batch_size // per_class > classes:
        raise ConfigInvalid(
            f"sampling.per_class = {per_class}: a batch of {batch_size} must hold whole groups of at most {classes} "
            "classes; change one of the two"
        )
    global_state = common_functions.NUMPY_RANDOM
    common_functions.NUMPY_RANDOM = generator  # the sampler draws from the library's own, module-wide state
    try:
        length = len(labels) // batch_size * batch_size
        sampler = samplers.MPerClassSampler(labels, per_class, batch_size, length)
        return np.fromiter(sampler, np.int64)
    finally:
        common_functions.NUMPY_RANDOM = global_state

"""Cross-batch memory: the embeddings of past batches as further references, at no cost in activations.

pytorch-metric-learning's CrossBatchMemory wraps only losses that it lists, does not support captions, and keeps its
position outside of `state_dict`, so that a resumed run would differ. This one is a ring buffer that is independent of
objectives and processes.

Dimension letters: M rows of memory, n rows of a batch, d embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lookalike.errors import ConfigInvalid
from training.objectives.base import Embedded


class CrossBatchMemory(nn.Module):
    """The last M rows that were added (Wang, Zhang, Huang and Scott 2020, "Cross-Batch Memory for Embedding Learning").

    It assumes that embeddings of some steps ago are close to those of the current weights. That holds after the
    learning rate's warm-up, and for M of a few thousand rows.

        outcome = objective(batch, memory.contents())
        memory.add(batch)

    Rows, count and position are buffers: a checkpoint saves them, and a resumed run continues with them.

    Args:
        size: M, at least 1.
        width: d.
        labels: rows have labels.
        texts: rows have texts.

    Raises:
        ConfigInvalid: the size is below 1.
    """

    images: Tensor
    labels: Tensor
    texts: Tensor
    count: Tensor
    place: Tensor

    def __init__(self, size: int, width: int, *, labels: bool = True, texts: bool = False) -> None:
        super().__init__()
        if size < 1:
            raise ConfigInvalid(f"a memory of {size} rows is empty; it must have at least 1")
        self.size, self.with_labels, self.with_texts = size, labels, texts
        self.register_buffer("images", torch.zeros(size, width))
        self.register_buffer("labels", torch.zeros(size if labels else 0, dtype=torch.int64))
        self.register_buffer("texts", torch.zeros(size if texts else 0, width))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))  # rows ever added
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))  # where the next one goes

    def contents(self) -> Embedded | None:
        """Return the stored rows, without gradients, in no particular order; None before the first `add`.

        They are copies: rows may be added before the loss's backward pass.
        """
        filled = min(int(self.count), self.size)
        if filled == 0:
            return None
        labels = self.labels[:filled].clone() if self.with_labels else None
        return Embedded(self.images[:filled].clone(), labels, self.texts[:filled].clone() if self.with_texts else None)

    @torch.no_grad()
    def add(self, batch: Embedded) -> None:
        """Store a batch in place of the oldest rows; of a batch larger than the memory, its last M rows.

        Raises:
            ValueError: labels or texts that the memory keeps are missing.
        """
        if (self.with_labels and batch.labels is None) or (self.with_texts and batch.texts is None):
            raise ValueError("the batch lacks labels or texts that the memory keeps")
        rows = min(len(batch), self.size)
        at = (int(self.place) + torch.arange(rows, device=self.images.device)) % self.size
        self.images[at] = batch.images[-rows:].to(self.images)
        if self.with_labels and batch.labels is not None:
            self.labels[at] = batch.labels[-rows:].to(self.labels)
        if self.with_texts and batch.texts is not None:
            self.texts[at] = batch.texts[-rows:].to(self.texts)
        self.count += rows
        self.place.copy_((self.place + rows) % self.size)

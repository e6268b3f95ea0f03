"""The base class of objectives, with its input and output; independent of towers, data, optimizers and processes.

An objective compares n anchors, the batch, with m references: the batch again, followed by the rows of the cross-batch
memory if there is one. For i < n, reference i is anchor i itself.

Dimension letters: n anchors, m references, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lookalike.errors import ConfigInvalid

Need = Literal["labels", "captions", "views"]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A batch of embeddings.

    Attributes:
        images: (n, d), rows of unit norm, float32 or float64.
        labels: (n,) int64: the class of each row or, for views of unlabelled images, the image's number; two views
            of one image have the same number. None where neither is used.
        texts: (n, d), rows of unit norm; row i belongs to row i of `images`. None without captions.

    Raises:
        ValueError: the shapes do not match.
    """

    images: Tensor
    labels: Tensor | None = None
    texts: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the shapes."""
        shape = tuple(self.images.shape)
        if len(shape) != 2:
            raise ValueError(f"images must be (n, d), got {shape}")
        if self.labels is not None and tuple(self.labels.shape) != shape[:1]:
            raise ValueError(f"labels must be ({shape[0]},) for images of {shape}, got {tuple(self.labels.shape)}")
        if self.texts is not None and tuple(self.texts.shape) != shape:
            raise ValueError(f"texts must be {shape} as the images are, got {tuple(self.texts.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    def detached(self) -> Embedded:
        """Return the same values without gradients."""
        return Embedded(self.images.detach(), self.labels, None if self.texts is None else self.texts.detach())


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an objective for a batch.

    Attributes:
        loss: a scalar with gradients.
        stats: finite figures for the log; one that is undefined in this batch is left out. `positive_cosine` and
            `negative_cosine` are means over pairs; `accuracy` is the share of anchors whose nearest other row is a
            positive; `active` is the share of triplets or negative pairs that still have a loss; `temperature`.
    """

    loss: Tensor
    stats: dict[str, float] = field(default_factory=dict)


class Objective(nn.Module):
    """Base of all objectives: checks the batch, adds the memory to the references, and disables autocast.

    A product of unit rows in bfloat16 is off by up to 0.004, more than the distance between near duplicates. So cosines
    are always computed in float32 (or float64), whatever the towers' precision.

    Attributes:
        needs: what the batch must have: `labels`, `captions` (texts), or `views` (labels that number the images).
    """

    needs: ClassVar[Need]

    def forward(self, batch: Embedded, memory: Embedded | None = None) -> Outcome:
        """Compare the batch with itself and with the memory.

        Args:
            batch: n rows, with labels or texts as `needs` demands.
            memory: older rows that join the references, without gradients.

        Returns:
            The loss and figures; the loss is 0, with zero gradients, where the batch has nothing to compare.

        Raises:
            ValueError: labels or texts are missing, or the batch is empty.
        """
        self._check(batch)
        with torch.autocast(batch.images.device.type, enabled=False):
            anchors = _to_full_precision(batch)
            references = anchors if memory is None else concat([anchors, _to_full_precision(memory.detached())])
            return self.compare(anchors, references)

    def compare(self, anchors: Embedded, references: Embedded) -> Outcome:
        """Return the loss of n anchors against m >= n references, of which the first n are the anchors themselves."""
        raise NotImplementedError

    @property
    def text_temperature(self) -> float | None:
        """The temperature of a softmax over texts; None for a loss without one."""
        return None

    def _check(self, batch: Embedded) -> None:
        if len(batch) == 0:
            raise ValueError("a batch of no rows has no loss")
        required = "texts" if self.needs == "captions" else "labels"
        if getattr(batch, required) is None:
            raise ValueError(f"{type(self).__name__} needs {required} in the batch, which has none")


def concat(parts: Sequence[Embedded]) -> Embedded:
    """Return the rows of all parts, in order; labels and texts only where every part has them."""
    labels = [part.labels for part in parts if part.labels is not None]
    texts = [part.texts for part in parts if part.texts is not None]
    return Embedded(
        torch.cat([part.images for part in parts]),
        torch.cat(labels) if len(labels) == len(parts) else None,
        torch.cat(texts) if len(texts) == len(parts) else None,
    )


def required(tensor: Tensor | None) -> Tensor:
    """Return a part of the batch whose presence `Objective.forward` has checked."""
    if tensor is None:
        raise ValueError("this part of the batch is missing")
    return tensor


def require(valid: bool, name: str, value: object, expected: str) -> None:
    """Check an option's value.

    Raises:
        ConfigInvalid: it is not valid.
    """
    if not valid:
        raise ConfigInvalid(f"objective.{name} = {value!r} must be {expected}")


def _to_full_precision(batch: Embedded) -> Embedded:
    """Convert half precision to float32; float32 and float64 stay."""
    texts = None if batch.texts is None else _full(batch.texts)
    return Embedded(_full(batch.images), batch.labels, texts)


def _full(rows: Tensor) -> Tensor:
    return rows if rows.dtype == torch.float64 else rows.float()

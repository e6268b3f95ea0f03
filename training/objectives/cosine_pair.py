"""Cosine pair loss over all pairs of a batch, by labels; neither library that we use has it."""

from __future__ import annotations

from typing import ClassVar

import torch

from training.objectives.base import Embedded, Need, Objective, Outcome, known, require
from training.objectives.pairs import cosine_stats, pair_masks, pair_mean


class CosinePair(Objective):
    """Cosine pair loss, linear in the cosine.

    With s the cosine of a pair and y = 1 for the same class:

        L = (1 - y) s + y (1 - s)

    over all pairs of the batch. It is torch's CosineEmbeddingLoss without the bound at which that lets go of negatives.
    Being linear, it sees only the means of s and asks negatives to be opposite, not only different: it is as content
    with two opposite heaps of classes as with all classes apart. `floor` = 0 lets go of a negative pair that is
    orthogonal, so that only classes that still resemble each other are pushed.

    Args:
        balance: True (the default) gives (mean over positives + mean over negatives) / 2, False the mean over all
            pairs. With c equally frequent classes a batch has about c - 1 negatives to a positive: unbalanced, the loss
            mostly scatters the images, and its value falls with c.
        floor: negatives cost max(s, floor), in [-1, 1); -1 is the formula above.

    Raises:
        ConfigInvalid: the floor is out of range.
    """

    needs: ClassVar[Need] = "labels"

    def __init__(self, balance: bool = True, floor: float = -1.0) -> None:
        super().__init__()
        require(-1 <= floor < 1, "floor", floor, "in [-1, 1), a cosine")
        self.balance, self.floor = balance, floor

    def compare(self, anchors: Embedded, references: Embedded) -> Outcome:
        """The loss over all pairs."""
        positives, negatives = pair_masks(known(anchors.labels), known(references.labels))
        cosines = anchors.images @ references.images.T  # (n, m)
        losses = torch.where(positives, 1 - cosines, cosines.clamp(min=self.floor) if self.floor > -1 else cosines)
        stats = cosine_stats(cosines, positives, negatives)
        return Outcome(pair_mean(losses, positives, negatives, self.balance), stats)

"""Cosine pair loss over all pairs of a batch, by labels; torch and pytorch-metric-learning do not have it."""

from __future__ import annotations

from typing import ClassVar

import torch
from typing_extensions import override

from training.objectives.base import Embedded, Need, Objective, Outcome, require, required
from training.objectives.pairs import cosine_stats, pair_masks, pair_mean


class CosinePair(Objective):
    """Cosine pair loss, linear in the cosine.

    With s the cosine of a pair and y = 1 for the same class:

        L = (1 - y) s + y (1 - s)

    over all pairs of the batch. It is torch's CosineEmbeddingLoss without the bound below which negatives cost nothing.
    Being linear, it depends on the means of s alone and drives negatives to opposite directions: two opposite clusters
    of classes cost as little as all classes apart. With `floor` = 0 an orthogonal negative pair has no gradient, so
    that only classes that still resemble each other repel.

    Args:
        balance: True gives (mean over positives + mean over negatives) / 2, False the mean over all pairs. With c
            equally frequent classes a batch has about c - 1 negatives to a positive: unbalanced, the loss mostly
            spreads the images, and its value falls with c.
        floor: negatives cost max(s, floor), in [-1, 1); -1 is the formula above.

    Raises:
        ConfigInvalid: the floor is out of range.
    """

    needs: ClassVar[Need] = "labels"

    def __init__(self, balance: bool = True, floor: float = -1.0) -> None:
        super().__init__()
        require(-1 <= floor < 1, "floor", floor, "in [-1, 1), a cosine")
        self.balance, self.floor = balance, floor

    @override
    def compare(self, anchors: Embedded, references: Embedded) -> Outcome:
        """Return the loss over all pairs."""
        positives, negatives = pair_masks(required(anchors.labels), required(references.labels))
        cosines = anchors.images @ references.images.T  # (n, m)
        losses = torch.where(positives, 1 - cosines, cosines.clamp(min=self.floor) if self.floor > -1 else cosines)
        stats = cosine_stats(cosines, positives, negatives)
        return Outcome(pair_mean(losses, positives, negatives, self.balance), stats)

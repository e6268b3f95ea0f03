"""Pairwise contrastive loss over all pairs of a batch, by labels.

pytorch-metric-learning's ContrastiveLoss has the margin but not the squares; powers of its distances square d before
the margin is subtracted.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from training.objectives.base import Embedded, Need, Objective, Outcome, require, required
from training.objectives.pairs import cosine_stats, masked_mean, pair_masks, pair_mean


class Contrastive(Objective):
    """Pairwise contrastive loss (Hadsell, Chopra and LeCun 2006, equation 4, without its factor 1/2).

    With d the Euclidean distance of a pair's unit rows and y = 1 for the same class:

        L = y d^2 + (1 - y) max(0, m - d)^2

    over all pairs of the batch: positives attract, negatives repel up to the margin m.

    Args:
        margin: m, in (0, 2]; two orthogonal rows are sqrt(2) apart.
        balance: True gives (mean over positives + mean over negatives) / 2, False the mean over all pairs.

    Raises:
        ConfigInvalid: the margin is out of range.
    """

    needs: ClassVar[Need] = "labels"

    def __init__(self, margin: float = 1.0, balance: bool = True) -> None:
        super().__init__()
        require(0 < margin <= 2, "margin", margin, "in (0, 2]: unit rows are at most 2 apart")
        self.margin, self.balance = margin, balance

    @override
    def compare(self, anchors: Embedded, references: Embedded) -> Outcome:
        """Return the loss over all pairs; `active` is the share of negatives inside the margin."""
        positives, negatives = pair_masks(required(anchors.labels), required(references.labels))
        cosines = anchors.images @ references.images.T  # (n, m)
        squared = (2 - 2 * cosines).clamp(min=0)
        gap = (self.margin - _root(squared)).clamp(min=0)
        losses = torch.where(positives, squared, gap.square())
        stats = cosine_stats(cosines, positives, negatives)
        if negatives.any():
            stats["active"] = masked_mean((gap > 0).float(), negatives).item()
        return Outcome(pair_mean(losses, positives, negatives, self.balance), stats)


def _root(squared: Tensor) -> Tensor:
    """Return the square root with a bounded slope: below the rounding error of a cosine a distance is noise."""
    return squared.clamp(min=torch.finfo(squared.dtype).eps).sqrt()

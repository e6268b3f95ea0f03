"""Triplet loss with mining inside the batch, without loops over triplets.

A triplet's cost is linear in the negative's distance, so the sum over triplets needs no list or mask of them. Each
anchor's negatives are sorted once. A binary search counts those nearer than a limit, and prefix sums give the sum of
their distances. This is quadratic in the batch, where pytorch-metric-learning's miner is cubic, and allows a memory of
thousands of rows. `python -m benchmarks.triplets` compares the two.

Dimension letters: n anchors, m references.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from training.objectives.base import Embedded, Need, Objective, Outcome, require, required
from training.objectives.pairs import cosine_stats, pair_masks

AVERAGES = ("triplets", "pairs", "anchors")
MINING = ("all", "hard", "semihard", "easy_excluded")


class Triplet(Objective):
    """Triplet loss (Schroff, Kalenichenko and Philbin 2015, FaceNet, equations 1 to 4).

    With D the squared Euclidean distance of unit rows, D(x, y) = 2 - 2 cos(x, y), over triplets of an anchor a, a
    positive p (same class, another row) and a negative n (another class):

        L = mean of max(0, D(a, p) - D(a, n) + margin)

    over the triplets that `mining` selects:

    * `all`: every valid triplet, also the many without a cost;
    * `hard`: D(a, n) <= D(a, p), the order is wrong;
    * `semihard`: D(a, p) < D(a, n) < D(a, p) + margin, the order is right, but the margin is violated;
    * `easy_excluded`: hard and semihard, all triplets with a cost.

    `average` weighs the mined triplets in one of three ways:

    * `triplets`: every triplet equally; an anchor's weight grows with the number of its wrong negatives;
    * `pairs`: every pair of anchor and positive equally; FaceNet takes one negative for each, this the mean of all;
    * `anchors`: every anchor equally.

    Pairs and anchors without mined triplets are ignored.

    Args:
        margin: in squared distance, in (0, 4).
        mining: one of the four.
        average: one of the three.

    Raises:
        ConfigInvalid: an option is out of range.
    """

    needs: ClassVar[Need] = "labels"

    def __init__(self, margin: float = 0.2, mining: str = "easy_excluded", average: str = "triplets") -> None:
        super().__init__()
        require(0 < margin < 4, "margin", margin, "in (0, 4), in squared distance of unit rows")
        require(mining in MINING, "mining", mining, f"one of {', '.join(MINING)}")
        require(average in AVERAGES, "average", average, f"one of {', '.join(AVERAGES)}")
        self.margin, self.mining, self.average = margin, mining, average

    @override
    def compare(self, anchors: Embedded, references: Embedded) -> Outcome:
        """Return the mean over mined triplets.

        In the figures, `triplets` is the number of valid triplets, and `active` the share of them with a cost. A
        collapsed batch has active = 1 and a loss of the margin.
        """
        positives, negatives = pair_masks(required(anchors.labels), required(references.labels))
        cosines = anchors.images @ references.images.T  # (n, m)
        distances = 2 - 2 * cosines  # D(a, p) at [a, p], under the mask of positives
        limits = distances + self.margin  # a negative nearer than this has a cost
        ranked, sums = _ranked(distances, negatives)
        active = torch.searchsorted(ranked, limits.detach())  # number of a's negatives with a cost, (n, m)
        wrong = torch.searchsorted(ranked, distances.detach(), right=True).minimum(active)
        first, last = self._mined_range(wrong, active)
        costs = (last - first) * limits - (sums.gather(1, last) - sums.gather(1, first))
        triplets = negatives.sum(1, keepdim=True) * positives  # valid triplets of each anchor and positive, (n, m)
        loss = self._mean(costs * positives, triplets if self.mining == "all" else (last - first) * positives)
        valid = triplets.sum()
        stats = {**cosine_stats(cosines, positives, negatives), "triplets": float(valid)}
        if valid:
            stats["active"] = ((active * positives).sum() / valid).item()
        return Outcome(loss.to(distances.dtype), stats)

    def _mean(self, costs: Tensor, counts: Tensor) -> Tensor:
        """Return the loss from the summed costs and triplet counts of each anchor and positive, (n, m) each."""
        if self.average == "triplets":
            return costs.sum() / counts.sum().clamp(min=1)
        if self.average == "anchors":
            costs, counts = costs.sum(1), counts.sum(1)
        return (costs / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)

    def _mined_range(self, wrong: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return the range of each anchor's ranked negatives that are mined for a positive, (n, m) each."""
        if self.mining == "hard":
            return torch.zeros_like(wrong), wrong
        if self.mining == "semihard":
            return wrong, active
        return torch.zeros_like(active), active  # farther ones cost nothing; `all` only counts them


def _ranked(distances: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each anchor's negatives, nearest first.

    Args:
        distances: (n, m).
        negatives: (n, m) mask.

    Returns:
        Their distances (n, m), without gradient, padded with infinity; and (n, m + 1) float64 with gradients: the sum
        of the k nearest at [a, k].
    """
    ranked = distances.masked_fill(~negatives, torch.inf).sort(1).values
    sums = ranked.masked_fill(ranked.isinf(), 0).cumsum(1, dtype=torch.float64)
    return ranked.detach(), F.pad(sums, (1, 0))


def valid_triplets(labels: Tensor) -> Tensor:
    """Return the mask of valid triplets.

    Args:
        labels: (n,).

    Returns:
        (n, n, n) boolean: [a, p, n] is True where a and p are two rows of one class and n is of another class.

    >>> int(valid_triplets(torch.tensor([0, 1, 0, 3, 4, 3])).sum())
    16
    """
    positives, negatives = pair_masks(labels, labels)
    return positives[:, :, None] & negatives[:, None, :]


def count_valid_triplets(labels: Tensor) -> int:
    """Return the number of valid triplets of labels (n,): the sum over anchors of positives times negatives.

    >>> count_valid_triplets(torch.tensor([0, 1, 0, 3, 4, 3]))
    16
    """
    positives, negatives = pair_masks(labels, labels)
    return int((positives.sum(1) * negatives.sum(1)).sum())

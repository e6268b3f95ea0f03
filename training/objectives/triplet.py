"""Triplet loss with mining inside the batch, wholly in tensors.

A triplet's cost is linear in the negative's distance, so their sum needs no list and no mask of triplets: each anchor's
negatives are sorted once; how many are nearer than a limit is a binary search, what they sum to is a difference of
prefix sums. That is quadratic in the batch, where pytorch-metric-learning's miner is cubic, and allows a memory of
thousands of rows. (`python -m benchmarks.triplets` compares them.)

Dimension letters: n anchors, m references.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from training.objectives.base import Embedded, Need, Objective, Outcome, known, require
from training.objectives.pairs import cosine_stats, pair_masks

AVERAGES = ("triplets", "pairs", "anchors")
MINING = ("all", "hard", "semihard", "easy_excluded")


class Triplet(Objective):
    """Triplet loss (Schroff, Kalenichenko and Philbin 2015, FaceNet, equations 1 to 4).

    With D the squared Euclidean distance of unit rows, D(x, y) = 2 - 2 cos(x, y), over triplets of an anchor a, a
    positive p (same class, another row) and a negative n (another class):

        L = mean of max(0, D(a, p) - D(a, n) + margin)

    over the triplets that `mining` leaves:

    * `all`: every valid triplet, the many that cost nothing included;
    * `hard`: D(a, n) <= D(a, p), the order is wrong;
    * `semihard`: D(a, p) < D(a, n) < D(a, p) + margin, the order is right, the margin is not kept;
    * `easy_excluded`: hard and semihard together, whatever still costs.

    The mean weighs what is mined in one of three ways:

    * `triplets`: every triplet alike; an anchor among many wrong negatives weighs as much as it has of them;
    * `pairs`: every anchor with a positive alike, of which FaceNet takes one negative each and this the mean of all;
    * `anchors`: every anchor alike.

    Pairs and anchors of which nothing was mined do not count.

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

    def compare(self, anchors: Embedded, references: Embedded) -> Outcome:
        """The mean over what was mined; `active` is the share of valid ones with a loss, `triplets` their number.

        A collapsed batch has active = 1 and a loss of the margin.
        """
        positives, negatives = pair_masks(known(anchors.labels), known(references.labels))
        cosines = anchors.images @ references.images.T  # the one product: (n, m)
        distances = 2 - 2 * cosines  # D(a, p) at [a, p], under the mask of positives
        limits = distances + self.margin  # a negative nearer than this has a cost
        ranked, sums = _ranked(distances, negatives)
        active = torch.searchsorted(ranked, limits.detach())  # how many of a's negatives cost something, (n, m)
        wrong = torch.searchsorted(ranked, distances.detach(), right=True).minimum(active)
        first, last = self._mined(wrong, active)
        costs = (last - first) * limits - (sums.gather(1, last) - sums.gather(1, first))
        against = negatives.sum(1, keepdim=True) * positives  # valid triplets of each anchor and positive, (n, m)
        loss = self._mean(costs * positives, against if self.mining == "all" else (last - first) * positives)
        valid = against.sum()
        stats = {**cosine_stats(cosines, positives, negatives), "triplets": float(valid)}
        if valid:
            stats["active"] = ((active * positives).sum() / valid).item()
        return Outcome(loss.to(distances.dtype), stats)

    def _mean(self, costs: Tensor, counts: Tensor) -> Tensor:
        """The loss from the summed costs (n, m) of each anchor and positive and the number of their triplets."""
        if self.average == "triplets":
            return costs.sum() / counts.sum().clamp(min=1)
        if self.average == "anchors":
            costs, counts = costs.sum(1), counts.sum(1)
        return (costs / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)

    def _mined(self, wrong: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """From which to which of an anchor's ranked negatives a positive is held against."""
        if self.mining == "hard":
            return torch.zeros_like(wrong), wrong
        if self.mining == "semihard":
            return wrong, active
        return torch.zeros_like(active), active  # what lies beyond costs nothing; `all` counts it all the same


def _ranked(distances: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Each anchor's negatives, nearest first.

    Args:
        distances: (n, m).
        negatives: (n, m) mask.

    Returns:
        Their distances (n, m), without gradient, filled up with infinity; and (n, m + 1) float64 with gradients: at
        [a, k] the sum of the k nearest.
    """
    ranked = distances.masked_fill(~negatives, torch.inf).sort(1).values
    sums = ranked.masked_fill(ranked.isinf(), 0).cumsum(1, dtype=torch.float64)
    return ranked.detach(), F.pad(sums, (1, 0))


def valid_triplets(labels: Tensor) -> Tensor:
    """The mask of valid triplets by broadcasting.

    Args:
        labels: (n,).

    Returns:
        (n, n, n) boolean: [a, p, n] is True where a and p are two rows of one class and n is of another.

    >>> int(valid_triplets(torch.tensor([0, 1, 0, 3, 4, 3])).sum())
    16
    """
    positives, negatives = pair_masks(labels, labels)
    return positives[:, :, None] & negatives[:, None, :]


def count_valid_triplets(labels: Tensor) -> int:
    """How many valid triplets labels (n,) allow, without making them: over anchors, positives times negatives.

    >>> count_valid_triplets(torch.tensor([0, 1, 0, 3, 4, 3]))
    16
    """
    positives, negatives = pair_masks(labels, labels)
    return int((positives.sum(1) * negatives.sum(1)).sum())

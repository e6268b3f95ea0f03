"""InfoNCE over the labelled pairs of a batch, and the loss of a pair, which NT-Xent shares.

pytorch-metric-learning's NTXentLoss has the same values, but computes a (positive pairs, negative pairs) matrix: cubic
in the batch, 4 GB at 1,024 rows. Here the log-sum over negatives is computed once for each anchor: quadratic.

Dimension letters: n anchors, m references.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from training.objectives.base import Embedded, Need, Objective, Outcome, require, required
from training.objectives.pairs import cosine_stats, masked_mean, pair_masks


class InfoNCE(Objective):
    """InfoNCE (van den Oord, Li and Vinyals 2018, equation 4) with temperature, by labels.

    With s(i, j) = cos(i, j) / temperature, P(i) the other rows of i's class and N(i) the rows of other classes:

        L = mean over i and p in P(i) of -log( exp s(i, p) / ( exp s(i, p) + sum over n in N(i) of exp s(i, n) ) )

    Args:
        temperature: above 0; with small values the nearest negatives dominate.

    Raises:
        ConfigInvalid: the temperature is not above 0.
    """

    needs: ClassVar[Need] = "labels"

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        require(1e-3 <= temperature <= 100, "temperature", temperature, "in [0.001, 100]")
        self.temperature = temperature

    @override
    def compare(self, anchors: Embedded, references: Embedded) -> Outcome:
        """Return the mean loss over positive pairs."""
        positives, negatives = pair_masks(required(anchors.labels), required(references.labels))
        cosines = anchors.images @ references.images.T  # (n, m)
        losses = info_nce_losses(cosines / self.temperature, negatives)
        stats = {**cosine_stats(cosines, positives, negatives), "temperature": self.temperature}
        return Outcome(masked_mean(losses, positives), stats)


def info_nce_losses(logits: Tensor, negatives: Tensor) -> Tensor:
    """Return each pair's loss as a positive: log(1 + exp(log sum over negatives of exp s(i, n) - s(i, p))).

    Args:
        logits: (n, m), s.
        negatives: (n, m) mask of each anchor's negatives.

    Returns:
        (n, m), 0 in the row of an anchor without negatives.
    """
    against = logits.masked_fill(~negatives, -torch.inf).logsumexp(1, keepdim=True)  # (n, 1)
    return F.softplus(against - logits)

"""The loss that the heads are trained with.

Dimension letters: n pairs, d embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(
    images: Tensor,
    texts: Tensor,
    temperature: Tensor | float,
    weights: Tensor | None = None,
    ignored: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018; Radford et al. 2021, figure 3).

    With s(i, j) = <images_i, texts_j> / temperature:

        loss = -1/(2 sum of w) * sum over i of w(i) * ( s(i, i) - log sum over j of exp s(i, j)
                                                      + s(i, i) - log sum over j of exp s(j, i) )

    Args:
        images: (n, d), unit rows; row i belongs to row i of `texts`.
        texts: (n, d), unit rows.
        temperature: positive; a tensor where it is learned.
        weights: (n,) w(i) >= 0 of each pair's own terms; as a negative of others every pair counts fully. None for 1
            each.
        ignored: (n, n) bool, the pairs that are no negatives, those of equal texts for example; None for none.

    Returns:
        A scalar; 0 for a single pair, log n where all rows are equal.

    Raises:
        ValueError: the shapes differ, or there is no pair.

    >>> eye = torch.eye(2)
    >>> round(info_nce(eye, eye, 1.0).item(), 4)  # log(1 + exp(-1))
    0.3133
    """
    if images.shape != texts.shape or images.ndim != 2:
        raise ValueError(
            f"expected two (n, d) batches of one shape, got {tuple(images.shape)} and {tuple(texts.shape)}"
        )
    if len(images) == 0:
        raise ValueError("InfoNCE of no pairs is undefined")
    logits = images @ texts.T / temperature  # (n, n)
    own = torch.arange(len(images), device=images.device)
    if ignored is not None:
        logits = logits.masked_fill(ignored & (own[:, None] != own), -torch.inf)
    losses = F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none")
    if weights is None:
        return losses.mean() / 2
    return (losses * weights).sum() / (2 * weights.sum())

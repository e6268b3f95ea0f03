"""Positive and negative pairs of a batch by labels, and means over them; all objectives with labels use it.

Dimension letters: n anchors, m references (the first n are the anchors themselves).
"""

from __future__ import annotations

import torch
from torch import Tensor


def pair_masks(labels: Tensor, reference_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return masks of positive and negative pairs; a row is never paired with itself.

    Args:
        labels: (n,) of the anchors.
        reference_labels: (m,), m >= n, of which the first n are `labels`.

    Returns:
        Two boolean masks (n, m). Each pair within the batch occurs twice, as (i, j) and (j, i).

    >>> positives, negatives = pair_masks(torch.tensor([0, 1, 0]), torch.tensor([0, 1, 0]))
    >>> positives.int().tolist()
    [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    >>> negatives.int().tolist()
    [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    """
    same = labels[:, None] == reference_labels[None, :]  # (n, m)
    positives = same.clone()
    positives.fill_diagonal_(False)
    return positives, ~same


def positive_pairs(labels: Tensor) -> Tensor:
    """Return each unordered pair of rows with the same label, once.

    Args:
        labels: (n,).

    Returns:
        (p, 2) int64, the smaller row number first.

    >>> positive_pairs(torch.tensor([0, 1, 0, 3, 4, 3])).tolist()
    [[0, 2], [3, 5]]
    """
    positives, _ = pair_masks(labels, labels)
    return positives.triu().nonzero()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the values under a mask of the same shape; 0, with zero gradients, where it is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def pair_mean(values: Tensor, positives: Tensor, negatives: Tensor, balance: bool) -> Tensor:
    """Reduce the losses of all pairs to a scalar.

    Args:
        values: (n, m), the loss of each pair.
        positives: (n, m) mask.
        negatives: (n, m) mask.
        balance: True for (mean over positives + mean over negatives) / 2, so that both kinds count equally however
            rare one is (with c equally frequent classes only about 1 pair in c is positive); False for the mean over
            pairs. A kind that the batch lacks counts as 0.
    """
    if balance:
        return (masked_mean(values, positives) + masked_mean(values, negatives)) / 2
    return masked_mean(values, positives | negatives)


@torch.no_grad()
def cosine_stats(cosines: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, float]:
    """Return figures of the pairs' cosines, which reveal a collapse.

    Args:
        cosines: (n, m).
        positives: (n, m) mask.
        negatives: (n, m) mask.

    Returns:
        `positive_cosine` and `negative_cosine`, means over pairs, and `accuracy`, the share of the anchors with both
        kinds of pair whose nearest reference is a positive. A figure without pairs is left out.
    """
    stats = {}
    if positives.any():
        stats["positive_cosine"] = masked_mean(cosines, positives).item()
    if negatives.any():
        stats["negative_cosine"] = masked_mean(cosines, negatives).item()
    has_both = positives.any(1) & negatives.any(1)
    if has_both.any():
        nearest = cosines.masked_fill(~(positives | negatives), -torch.inf).argmax(1, keepdim=True)
        stats["accuracy"] = positives.gather(1, nearest)[has_both].float().mean().item()
    return stats

"""Random transforms of training images, built from the table `[augment]` with torchvision.

All transforms take uint8 tensors, (3, R, R) -> (3, S, S). Normalization is part of the tower.
"""

from __future__ import annotations

from torchvision.transforms import v2

from training.settings import Augment

_HUE_RATIO = 0.25
"""Strength of the hue jitter, relative to the other jitters (SimCLR, Chen et al. 2020, appendix A)."""


def cached_side(augment: Augment, size: int) -> int:
    """Return R, the side of cached images: 1.25 S where crops are random, so that a crop loses little detail."""
    return size if augment.crop == 1 else round(size * 1.25)


def make_augmentation(augment: Augment, size: int) -> v2.Compose:
    """Return the random transform of one view.

    Args:
        augment: the table.
        size: S.
    """
    steps: list[object] = []
    if augment.crop < 1:
        steps.append(v2.RandomResizedCrop(size, scale=(augment.crop, 1.0), antialias=True))
    else:
        steps.append(v2.Resize((size, size), antialias=True))
    if augment.pad:
        steps.append(v2.RandomCrop(size, padding=augment.pad, padding_mode="reflect"))
    if augment.flip:
        steps.append(v2.RandomHorizontalFlip(augment.flip))
    if augment.jitter:
        strength = augment.jitter
        steps.append(v2.RandomApply([v2.ColorJitter(strength, strength, strength, strength * _HUE_RATIO)], p=0.8))
    if augment.grey:
        steps.append(v2.RandomGrayscale(augment.grey))
    if augment.blur:
        kernel = max(3, size // 10 * 2 + 1)  # a tenth of the side in each direction, odd
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], p=augment.blur))
    if augment.erase:
        steps.append(v2.RandomErasing(augment.erase, value=127))
    return v2.Compose(steps)

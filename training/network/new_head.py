"""Initial weights of a new head: the principal axes of the pretrained network's features of the training images.

Dimension letters: n images, f features, d joint width, R side of a cached image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lookalike.types import UInt8
from training.data.image_cache import sample_batches
from training.network.trainable import Trainable

_SAMPLE_IMAGES = 2048


def initialize_head(model: Trainable, pixels: UInt8) -> None:
    """Fit the image tower's new head to a sample of the training images.

    Args:
        model: its image tower has a head of its own (`base.head`).
        pixels: (n, 3, R, R) uint8, the cached training images; they are scaled to the encoder's input.
    """
    network, head, side = model.towers.image.network, model.towers.image.head, model.preprocessing.size
    assert isinstance(network, nn.Module)
    assert isinstance(head, nn.Linear)
    network.eval()
    with torch.inference_mode():
        fit_principal_axes(head, torch.cat([network(batch) for batch in sample_batches(pixels, _SAMPLE_IMAGES, side)]))


@torch.no_grad()
def fit_principal_axes(head: nn.Linear, features: Tensor) -> None:
    """Set a head's weights to the features' principal axes.

    Args:
        head: (d, f).
        features: (n, f) of training images; with fewer than d of them, the remaining axes are zero.
    """
    features = features.float()
    mean = features.mean(0)
    _, _, axes = torch.linalg.svd(features - mean, full_matrices=False)  # (min(n, f), f), strongest first
    kept = axes[: head.out_features]
    head.weight.zero_()
    head.weight[: len(kept)] = kept
    head.bias.copy_(-(head.weight @ mean))

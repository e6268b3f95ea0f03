"""Where a new head starts: at the principal axes of what the pretrained network says of the training images.

Dimension letters: n images, f features, d joint width, S side of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lookalike.types import UInt8
from training.data.image_cache import spread_sample
from training.network.model import Trainable

_SAMPLE = 2048


def start_head(model: Trainable, pixels: UInt8) -> None:
    """Fits the image tower's new head to a sample of the training images.

    Args:
        model: its image tower has a head of its own (`base.head`).
        pixels: (n, 3, R, R) uint8, the images kept for training; R may differ from S.
    """
    network, head, side = model.towers.image.network, model.towers.image.head, model.preprocessing.size
    assert isinstance(network, nn.Module)
    assert isinstance(head, nn.Linear)
    network.eval()
    with torch.inference_mode():
        align_head(head, torch.cat([network(batch) for batch in spread_sample(pixels, _SAMPLE, side)]))


@torch.no_grad()
def align_head(head: nn.Linear, features: Tensor) -> None:
    """Fills a head with the features' principal axes.

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

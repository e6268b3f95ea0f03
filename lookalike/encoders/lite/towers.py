"""The two towers of `lite`: pixels or token ids in, unit vectors of the joint space out.

No Python branch depends on a shape, so both can be traced with a dynamic batch. What runs them stands elsewhere.
Dimension letters: n images or texts, t tokens, f = 1904 features, S = 240 pixels.
"""

from __future__ import annotations

import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from lookalike.encoders.lite.bert import MiniLM, mean_pool
from lookalike.encoders.lite.facts import LITE_PREPROCESSING, POOLED
from lookalike.encoders.lite.heads import ImageHead, TextHead

FIRST_STAGE = 4
"""Stages 4, 5 and 6 of the seven give their spatial means as features: 112, 192 and 320 channels."""


class Standardize(nn.Module):
    """(n, 3, S, S) uint8 RGB -> (n, 3, S, S) float32 by the mean and standard deviation of `lite`'s preprocessing."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(LITE_PREPROCESSING.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(LITE_PREPROCESSING.std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return (pixels.to(torch.float32) - self.mean) / self.std


class LiteBackbone(nn.Module):
    """EfficientNet-Lite0 whose last three stages are looked at, too.

    Args:
        network: timm's `tf_efficientnet_lite0`, weights loaded.
    """

    def __init__(self, network: EfficientNet) -> None:
        super().__init__()
        self.standardize = Standardize()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 RGB -> (n, f) float32: 1280 pooled features, then the means of three stages."""
        network = self.network
        x = network.bn1(network.conv_stem(self.standardize(pixels)))
        stages = []
        for number, block in enumerate(network.blocks):
            x = block(x)
            if number >= FIRST_STAGE:
                stages.append(x.mean((2, 3)))
        pooled = network.bn2(network.conv_head(x)).mean((2, 3))
        return torch.cat([pooled, *stages], dim=-1)

    def classify(self, features: Tensor) -> Tensor:
        """Features (n, f) -> ImageNet logits (n, 1000)."""
        logits: Tensor = self.network.classifier(features[:, :POOLED])
        return logits


class LiteImageTower(nn.Module):
    """(n, 3, S, S) uint8 RGB -> (n, d) float32 of unit norm."""

    def __init__(self, backbone: LiteBackbone, head: ImageHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 RGB -> (n, d) float32 of unit norm."""
        features = self.backbone(pixels)
        embedding: Tensor = self.head(features, self.backbone.classify(features))
        return embedding


class LiteTextTower(nn.Module):
    """Token ids (n, t) int64 and mask (n, t) int64 -> (n, d) float32 of unit norm."""

    def __init__(self, bert: MiniLM, head: TextHead) -> None:
        super().__init__()
        self.bert = bert
        self.head = head

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids (n, t) and mask (n, t), 1 where a token stands -> (n, d) float32 of unit norm."""
        embedding: Tensor = self.head(mean_pool(self.bert(ids, mask), mask))
        return embedding

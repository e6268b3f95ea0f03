"""The two towers of `lite`: pixels or token ids in, unit vectors of the joint space out.

No Python branch depends on a shape, so both can be traced with a dynamic batch.
Dimension letters: n images or texts, t and u tokens of either text network, f = 1904 features, S = 240 pixels.
"""

from __future__ import annotations

import torch
from timm.models.efficientnet import EfficientNet, tf_efficientnet_lite0
from torch import Tensor, nn
from typing_extensions import override

from lookalike.encoders.architecture import Architecture, Towers
from lookalike.encoders.lite.constants import LITE_PREPROCESSING, POOLED
from lookalike.encoders.lite.heads import ImageHead, TextHead
from lookalike.encoders.lite.minilm import MiniLM, mean_pool
from lookalike.encoders.lite.use import MultilingualUSE
from lookalike.encoders.projected import Projected

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

    @override
    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.to(torch.float32) - self.mean) / self.std


class LiteBackbone(nn.Module):
    """EfficientNet-Lite0 that also returns features of its last three stages.

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


class PooledBackbone(LiteBackbone):
    """EfficientNet-Lite0's 1,280 pooled features alone."""

    @override
    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 RGB -> (n, 1280)."""
        network = self.network
        x = network.bn1(network.conv_stem(self.standardize(pixels)))
        for block in network.blocks:
            x = block(x)
        pooled: Tensor = network.bn2(network.conv_head(x)).mean((2, 3))
        return pooled


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


class LiteTextBackbone(nn.Module):
    """The two sentence encoders side by side."""

    def __init__(self, minilm: MiniLM, use: MultilingualUSE) -> None:
        super().__init__()
        self.minilm = minilm
        self.use = use

    def forward(self, minilm_ids: Tensor, minilm_mask: Tensor, use_ids: Tensor, use_mask: Tensor) -> Tensor:
        """Ids and masks (n, t) and (n, u) int64, 1 where a token stands -> (n, 896) float32, MiniLM's first."""
        minilm = mean_pool(self.minilm(minilm_ids, minilm_mask), minilm_mask)
        return torch.cat([minilm, self.use(use_ids, use_mask)], dim=-1)


class LiteTextTower(nn.Module):
    """Token ids and masks of both sentence encoders -> (n, d) float32 of unit norm."""

    def __init__(self, backbone: LiteTextBackbone, head: TextHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, minilm_ids: Tensor, minilm_mask: Tensor, use_ids: Tensor, use_mask: Tensor) -> Tensor:
        """Ids and masks (n, t) and (n, u) int64, 1 where a token stands -> (n, d) float32 of unit norm."""
        embedding: Tensor = self.head(self.backbone(minilm_ids, minilm_mask, use_ids, use_mask))
        return embedding


def build_towers(architecture: Architecture) -> Towers:
    """Return the modules of an architecture of this family, weights random."""
    network = tf_efficientnet_lite0(pretrained=False)
    if architecture.head:
        return Towers(projected_tower(network, architecture.head), None)
    text = LiteTextTower(LiteTextBackbone(MiniLM(), MultilingualUSE()), TextHead()) if architecture.text else None
    return Towers(LiteImageTower(LiteBackbone(network), ImageHead()), text)


def projected_tower(network: EfficientNet, dim: int) -> Projected:
    """Return EfficientNet-Lite0 with a linear head of width `dim` in place of its classifier."""
    network.classifier = nn.Identity()
    return Projected(PooledBackbone(network), POOLED, dim)

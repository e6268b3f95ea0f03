"""An `Architecture` -> its two torch modules, with fresh weights: what training trains and what serving fills.

Dimension letters: n rows, f features of a network, d joint width, S side of an image.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from timm.models.efficientnet import tf_efficientnet_lite0
from torch import Tensor, nn

from lookalike.encoders.exported.model import Architecture
from lookalike.encoders.lite.bert import MiniLM
from lookalike.encoders.lite.facts import POOLED
from lookalike.encoders.lite.heads import ImageHead, TextHead
from lookalike.encoders.lite.towers import LiteBackbone, LiteImageTower, LiteTextTower
from lookalike.encoders.open_clip.towers import ImageTower, text_tower
from lookalike.encoders.preprocessing import Preprocessing


@dataclass
class Towers:
    """Both halves; `text` is None for images alone, `model` is open_clip's whole model, None for lite."""

    image: nn.Module
    text: nn.Module | None
    model: Any = None


class PooledLite(LiteBackbone):
    """EfficientNet-Lite0's 1,280 pooled features, without what `lite` looks at besides."""

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 RGB -> (n, 1280)."""
        network = self.network
        x = network.bn1(network.conv_stem(self.standardize(pixels)))
        for block in network.blocks:
            x = block(x)
        pooled: Tensor = network.bn2(network.conv_head(x)).mean((2, 3))
        return pooled


class Projected(nn.Module):
    """A network and a linear head of its own: (n, 3, S, S) uint8 RGB -> (n, d), not normalised."""

    def __init__(self, network: nn.Module, features: int, dim: int) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Linear(features, dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        projected: Tensor = self.head(self.network(pixels))
        return projected


def build_towers(architecture: Architecture, preprocessing: Preprocessing) -> Towers:
    """The modules of an architecture, weights random.

    Args:
        architecture: which modules.
        preprocessing: mean and standard deviation are part of the image tower.
    """
    build = _lite if architecture.family == "lite" else _open_clip
    return build(architecture, preprocessing)


def _lite(architecture: Architecture, preprocessing: Preprocessing) -> Towers:
    network = tf_efficientnet_lite0(pretrained=False)
    if architecture.head:
        network.classifier = nn.Identity()
        return Towers(Projected(PooledLite(network), POOLED, architecture.head), None)
    text = LiteTextTower(MiniLM(), TextHead()) if architecture.text else None
    return Towers(LiteImageTower(LiteBackbone(network), ImageHead()), text)


def _open_clip(architecture: Architecture, preprocessing: Preprocessing) -> Towers:
    import open_clip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "no pretrained weights": they come from our own file
        model = open_clip.create_model(architecture.model, force_quick_gelu=architecture.quick_gelu)
    image: nn.Module = ImageTower(model.visual, preprocessing.mean, preprocessing.std)
    if architecture.head:
        width = open_clip.get_model_config(architecture.model)["embed_dim"]
        return Towers(Projected(image, width, architecture.head), None, model)
    return Towers(image, text_tower(model) if architecture.text else None, model)

"""The encoder `lite` as a base of training."""

from __future__ import annotations

from torch import nn

from lookalike.encoders.architecture import Architecture, Towers
from lookalike.encoders.lite.constants import LITE_DIM, LITE_PREPROCESSING
from lookalike.encoders.lite.loading import load_image_tower, load_text_tower
from lookalike.encoders.lite.pretrained import load_efficientnet
from lookalike.encoders.lite.tokenizer import LiteTokens
from lookalike.encoders.lite.towers import FIRST_STAGE, LiteBackbone, PooledBackbone, projected_tower
from training.network.trainable import Trainable, Traits


def load_lite(head: int, *, text: bool) -> Trainable:
    """Return `lite`'s towers, or its image network with a new head.

    Args:
        head: width of the new head; 0 keeps the joint space.
        text: whether the text tower is trained as well.

    Raises:
        EncoderError: its weights are missing or invalid.
    """
    if head:
        towers = Towers(projected_tower(load_efficientnet(), head), None)
        architecture = Architecture("lite", head=head)
        return Trainable(towers, architecture, LITE_PREPROCESSING, head, traits=LITE_TRAITS)
    text_tower = load_text_tower() if text else None
    towers = Towers(load_image_tower(), text_tower)
    tokens = LiteTokens() if text else None
    architecture = Architecture("lite", text=text)
    return Trainable(towers, architecture, LITE_PREPROCESSING, LITE_DIM, tokens, traits=LITE_TRAITS)


def leading_modules(tower: nn.Module) -> list[nn.Module]:
    """Return standardization, stem and first blocks, up to the first block whose features are read elsewhere too."""
    backbone = next((module for module in tower.modules() if isinstance(module, LiteBackbone)), None)
    if backbone is None:
        return []
    network = backbone.network
    count = len(network.blocks) if isinstance(backbone, PooledBackbone) else FIRST_STAGE + 1
    return [backbone.standardize, network.conv_stem, network.bn1, *list(network.blocks)[:count]]


LITE_TRAITS = Traits(max_learning_rate=3e-3, leading_modules=leading_modules)
